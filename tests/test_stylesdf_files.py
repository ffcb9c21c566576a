"""Files of the published StyleSDF: what they hold becomes a generator that draws what theirs draws, and goes back."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from tests.parity.replay import Replay
from tests.parity.stylesdf.build import camera_from
from tests.test_official import CASES, stylesdf_experiment
from zoo.generator import HasSurface
from zoo.render import Camera
from zoo.stylesdf import Decoder, Generator, ImageDiscriminator, PoseDiscriminator, StagedDiscriminator, convert
from zoo.weights.bundle import build, load_bundle, save_bundle, save_part
from zoo.weights.convert import convert as convert_file
from zoo.weights.convert import convert_network, to_official
from zoo.weights.names import from_published, to_published
from zoo.weights.read import Contents, Place, read

FILES = {
    "volume": CASES / "stylesdf/checkpoint_stage1/reduced_vol_renderer.pt",
    "image": CASES / "stylesdf/checkpoint_stage2/reduced32x32.pt",
}


@pytest.fixture
def experiment(tmp_path) -> str:
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(stylesdf_experiment()))
    return str(tmp_path / "experiment.yaml")


def experiment_config() -> dict:
    return stylesdf_experiment()["model"]["init_args"]["generator"]


def recorded(stage: str) -> tuple[Tensor, Camera, dict[str, Tensor]]:
    """Latents, cameras and outputs of the published program."""
    values = load_file(FILES[stage].parent / "io.safetensors")
    focal = values["in.focal"].flatten() / values["out.thumb"].shape[-1]
    return values["in.z"], camera_from(values["in.c2w"], focal), values


@pytest.mark.parametrize("stage", FILES)
def test_a_converted_file_draws_what_it_drew(tmp_path, experiment, stage):
    done, _ = convert_file(FILES[stage], tmp_path / "out", experiment=experiment)
    assert done.used == f"{FILES[stage].name}, g_ema" and done.card["system"] == "StyleSDF"
    generator = load_bundle(tmp_path / "out")[0]
    z, camera, values = recorded(stage)
    with torch.no_grad():
        rendered = generator.render(generator.map(generator.latents(2, Replay([("z", z)]))), camera)
        found = converted(stage, "discriminator").network(rendered.image)
    image = values["out.rgb" if stage == "image" else "out.thumb"]
    assert rendered.image.shape == image.shape and (rendered.image - image).abs().max() < 1e-4
    assert (rendered.raw - values["out.thumb"]).abs().max() < 1e-4
    assert (found.scores - values["out.score"]).abs().max() < 1e-5
    if stage == "volume":
        assert (found.camera - values["out.viewpoint"]).abs().max() < 1e-5


def converted(stage: str, weights: str = "ema", change=lambda state: state):
    """A network of a file, whose tensors may be changed."""
    value = read(FILES[stage]).value
    contents = Contents({key: change(dict(state)) for key, state in value.items()}, [], "")
    return convert_network(convert, Place(Path("models_0290000.pt")), contents, experiment_config(), weights)


def test_sizes_are_those_of_the_tensors():
    done = converted("image")
    args = done.config["init_args"]
    assert args["decoder"]["init_args"] == {
        "widths": {8: 16, 16: 12, 32: 10},
        "feature_dim": 16,
        "style_dim": 16,
        "latent_dim": 32,
        "mapping_layers": 5,
    }
    assert args["field"]["init_args"] == {"hidden_dim": 16, "style_dim": 16, "num_layers": 8}
    assert (args["latent_dim"], args["mapping_layers"], done.network.resolution) == (16, 3, 32)
    assert done.card["iterations"] == 290000 and "init_args" in experiment_config()["init_args"]["decoder"]
    first = converted("volume")
    assert first.network.decoder is None and first.network.resolution == 8  # the side that the experiment renders


def test_discriminators_are_those_of_their_stage():
    small = converted("volume", "discriminator").network
    assert small.image is None and small.volume.resolution == 8 and small.volume.guesses_pose
    large = converted("image", "discriminator").network
    assert large.volume is None and large.image.resolution == 32 and large.image.groups == 4

    def without_pose(state: dict) -> dict:
        last = ("final_conv.conv.weight", "final_conv.conv.bias")
        return state | {name: state[name][:1] for name in last if name in state}

    assert not converted("volume", "discriminator", without_pose).network.volume.guesses_pose


def test_a_field_of_densities_has_no_beta():
    """As trained with the published option no_sdf."""
    plain = converted("volume", change=lambda state: {n: t for n, t in state.items() if n != "renderer.sigmoid_beta"})
    assert plain.config["init_args"]["renderer"]["init_args"]["quadrature"]["density"] == "zoo.render.softplus"
    spelt = experiment_config()  # as a run writes it
    renderer = spelt["init_args"]["renderer"]["init_args"]
    renderer["quadrature"] = {"class_path": "zoo.render.Quadrature", "init_args": renderer["quadrature"]}
    contents = read(FILES["volume"])
    usual = convert_network(convert, Place(FILES["volume"]), contents, spelt)
    assert usual.network.renderer.quadrature.density.beta.shape == (1,) and isinstance(usual.network, HasSurface)
    with pytest.raises(ValueError, match="no surface"), torch.no_grad():
        plain.network.signed_distance(torch.zeros(1, 1, 3), plain.network.styles(torch.zeros(1, 16)))


def test_stored_noise_of_other_sides_is_refused():
    """Some old files hold it; the published program then draws other noise, and does not say so."""
    with pytest.raises(ValueError, match=r"blocks\.0\.first\.noise\.stored is \[1, 1, 15, 15\] instead of \[1, 1, 16"):
        converted("image", change=lambda s: s | {n: t[..., :15, :15] for n, t in s.items() if n.endswith("noise_1")})


def test_the_published_experiment_is_known_by_the_size_of_its_images(monkeypatch):
    names = ["eg3d/ffhq512_128", "stylesdf/afhq512", "stylesdf/cars32", "stylesdf/ffhq256", "stylesdf/ffhq512"]
    monkeypatch.setattr(convert, "config_names", lambda: names)
    state = dict(read(FILES["image"]).value["g"])
    assert convert.experiments(Contents({"g": state}, [], "")) == []
    state["decoder.noises.noise_4"] = torch.zeros(1, 1, 512, 512)
    assert convert.experiments(Contents(state, [], "")) == ["stylesdf/afhq512", "stylesdf/ffhq512"]
    first = {name: tensor for name, tensor in state.items() if not name.startswith("decoder.")}
    assert convert.experiments(Contents(first, [], "")) == ["stylesdf/afhq512", "stylesdf/ffhq256", "stylesdf/ffhq512"]


# ------------------------------------------------------------------------------------------------- weights of our own


def own_networks() -> tuple[Generator, dict, StagedDiscriminator]:
    """As trained here with both stages, of the sizes of the published reduced files."""
    config = converted("image").config
    generator = build(config, Generator)
    discriminator = StagedDiscriminator(
        PoseDiscriminator([10, 12, 14]), ImageDiscriminator({32: 10, 16: 12, 8: 16, 4: 18})
    )
    return generator, config, discriminator


def test_weights_that_were_trained_here_have_all_that_the_published_program_asks_for(tmp_path):
    generator, config, discriminator = own_networks()
    save_bundle(tmp_path / "b", generator, config, weights="ema")
    args = {"volume": converted("volume", "discriminator").config, "image": converted("image", "discriminator").config}
    parts = {stage: one["init_args"][stage] for stage, one in args.items()}
    whole = {"class_path": "zoo.stylesdf.StagedDiscriminator", "init_args": parts}
    save_part(tmp_path / "b", "discriminator", discriminator, whole, {}, weights="discriminator")
    written = {path.name: torch.load(path, weights_only=True) for path in to_official(tmp_path / "b", tmp_path / "o")}
    assert set(written) == {"full_pipeline.pt", "volume_renderer.pt"}
    for stage, name in (("image", "full_pipeline.pt"), ("volume", "volume_renderer.pt")):
        theirs = read(FILES[stage]).value
        for ours, entry in ((written[name]["g_ema"], "g_ema"), (written[name]["d"], "d")):
            assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs[entry].items()}
            constant = [n for n in ours if n.endswith(".kernel")]
            assert all(torch.equal(ours[n], theirs[entry][n]) for n in constant)
            assert bool(constant) == (stage == "image")
    back, _ = convert_file(
        tmp_path / "o" / "full_pipeline.pt", tmp_path / "back", experiment=str(tmp_path / "b" / "config.yaml")
    )
    ours, theirs = generator.state_dict(), back.network.state_dict()
    assert all(torch.equal(ours[n], theirs[n]) for n in ours if "mean_" not in n)


def test_every_tensor_has_a_name_of_its_own():
    for network in own_networks()[::2]:
        names = convert.table(network)
        state = network.state_dict()
        there = to_published(state, names)
        left_out = {"mean_w", "decoder.mean_latent", "decoder.trained"} & set(state)
        assert len(there) == len(state) - len(left_out)
        assert set(from_published(there, list(state), names)) == set(state) - left_out


def test_a_first_stage_has_what_a_second_one_has_but_the_decoder():
    generator = converted("volume").network
    assert isinstance(own_networks()[0].decoder, Decoder) and generator.decoder is None
    assert {n for n in own_networks()[0].state_dict() if not n.startswith("decoder.")} == set(generator.state_dict())
