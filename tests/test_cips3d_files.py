"""Files of the published CIPS-3D become bundles, or are refused."""

import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from zoo.cli.command import main
from zoo.weights.bundle import UNUSED, load_bundle

RUN = Path(__file__).parent / "parity" / "cases" / "cips3d" / "checkpoint" / "ckptdir" / "best_fid"


@pytest.fixture
def experiment() -> str:
    return "cips3d/ffhq256"


@pytest.mark.parametrize("weights", [None, "raw"])
def test_a_published_zip_becomes_a_bundle(tmp_path, experiment, weights, capsys) -> None:
    with zipfile.ZipFile(tmp_path / "download.zip", "w") as archive:
        for file in RUN.iterdir():
            archive.write(file, f"run/resume_iter_4500/{file.name}")
    words = ["--experiment", experiment, "--license", "unknown", *(["--weights", weights] if weights else [])]
    assert main(["convert", str(tmp_path / "download.zip"), str(tmp_path / "out"), *words]) == 0
    used = "generator.pth" if weights else "G_ema.pth"
    generator, info = load_bundle(tmp_path / "out")
    assert info.card["converted_from"] == used and info.card["iterations"] == "4500"
    theirs = torch.load(RUN / used, weights_only=True)
    assert torch.equal(generator.field.layers[1].gain.weight, theirs["siren.network.1.gain_fc.weight"])
    assert UNUSED + "inr_net.to_rgbs.4.linear.weight" in load_file(tmp_path / "out" / "model.safetensors")


def test_weights_that_are_not_there(tmp_path, experiment, capsys) -> None:
    shutil.copy(RUN / "generator.pth", tmp_path)
    words = ["convert", str(tmp_path / "generator.pth"), str(tmp_path / "out"), "--experiment", experiment]
    assert main([*words, "--license", "unknown", "--weights", "ema"]) == 2
    assert "no weights 'ema': there is no G_ema.pth in or beside it; --weights can be raw" in capsys.readouterr().err


def test_styles_of_single_layers_are_not_lost_silently(tmp_path, experiment, capsys) -> None:
    state = torch.load(RUN / "G_ema.pth", weights_only=True)
    torch.save(state | {"mapping_network_nerf.nerf_w0.0.weight": torch.zeros(12, 12)}, tmp_path / "generator.pth")
    words = ["convert", str(tmp_path / "generator.pth"), str(tmp_path / "out"), "--experiment", experiment]
    assert main([*words, "--license", "unknown"]) == 2
    assert "styles of single layers (head_layers)" in capsys.readouterr().err
