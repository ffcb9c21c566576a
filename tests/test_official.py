"""Everything of a published checkpoint is in its bundle, and comes back from it as it was."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.parity.giraffe import as_config
from tests.tiny import CONFIG
from zoo.cli.command import main
from zoo.utils.paths import read_experiment
from zoo.weights.bundle import load_bundle, read_parts
from zoo.weights.read import module_state, read

CASES = Path(__file__).parent / "parity" / "cases"
CIPS = CASES / "cips3d" / "checkpoint" / "ckptdir" / "best_fid"


def about(system: str) -> dict:
    return json.loads((CASES / system / "checkpoint" / "case.json").read_text())["config"]


def graf_experiment() -> dict:
    config, nerf = read_experiment("graf/carla64"), about("graf")["nerf"]
    field = config["model"]["init_args"]["generator"]["init_args"]["field"].setdefault("init_args", {})
    field |= {"point_octaves": nerf["multires"], "view_octaves": nerf["multires_views"]}
    return config


def giraffe_experiment() -> dict:
    return {"model": {"init_args": {"generator": as_config(about("giraffe"))}}}


def pigan_files(folder: Path) -> dict:
    tensors = load_file(folder / "weights.safetensors")
    names = {
        "generator.": "generator.pth",
        "ema.": "ema.pth",
        "ema2.": "ema2.pth",
        "discriminator.": "discriminator.pth",
    }
    return {
        file: {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        for prefix, file in names.items()
    }


def graf_files(folder: Path) -> dict:
    held = read(folder / "model.pt").value
    return {"model.pt": {key: held[key] for key in ("generator", "generator_test", "discriminator", "it")}}


def giraffe_files(folder: Path) -> dict:
    held = read(folder / "model_best.pt").value
    return {"model.pt": {key: held[key] for key in ("model", "it")}}


def volumegan_files(folder: Path) -> dict:
    held = read(folder / "checkpoint-000002.pth").value
    return {"checkpoint.pth": {key: held[key] for key in ("models", "running_metadata")}}


def stylenerf_files(folder: Path) -> dict:
    held = read(folder / "network-snapshot-000000.pkl").value
    return {"network-snapshot.pt": {name: module_state(held[name]) for name in ("G", "G_ema", "D")}}


# system -> the published file, an experiment, what must come back, and how many networks there are
SYSTEMS = {
    "pigan": (CASES / "pigan/checkpoint/generator.pth", lambda: CONFIG, pigan_files, 4),
    "graf": (CASES / "graf/checkpoint/model.pt", graf_experiment, graf_files, 3),
    "giraffe": (CASES / "giraffe/checkpoint/model_best.pt", giraffe_experiment, giraffe_files, 3),
    "cips3d": (
        CIPS / "G_ema.pth",
        lambda: read_experiment("cips3d/ffhq256"),
        lambda folder: {name: read(CIPS / name).value for name in ("G_ema.pth", "generator.pth", "discriminator.pth")},
        3,
    ),
    "volumegan": (CASES / "volumegan/checkpoint/checkpoint-000002.pth", lambda: None, volumegan_files, 3),
    "stylenerf": (CASES / "stylenerf/checkpoint/network-snapshot-000000.pkl", lambda: None, stylenerf_files, 3),
}


def flat(value, prefix: str = "") -> dict:
    """Tensors and numbers in dicts in dicts, by path."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {path: leaf for key, inner in value.items() for path, leaf in flat(inner, f"{prefix}/{key}").items()}


def same(mine: dict, theirs: dict) -> bool:
    mine, theirs = flat(mine), flat(theirs)
    return set(mine) == set(theirs) and all(
        torch.equal(mine[path], leaf) and mine[path].dtype == leaf.dtype
        if torch.is_tensor(leaf)
        else mine[path] == leaf
        for path, leaf in theirs.items()
    )


@pytest.mark.parametrize("system", SYSTEMS)
def test_there_and_back(tmp_path, capsys, system):
    file, experiment, originals, networks = SYSTEMS[system]
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(experiment()))
    options = ["--experiment", str(tmp_path / "experiment.yaml")] if experiment() else []
    assert main(["convert", str(file), str(tmp_path / "bundle"), *options]) == 0
    parts = read_parts(tmp_path / "bundle")
    assert len(parts) == networks and next(iter(parts)) == "ema" and {"raw", "discriminator"} < set(parts)
    assert load_bundle(tmp_path / "bundle")[1].card["weights"] == "ema"
    capsys.readouterr()
    assert main(["convert", str(tmp_path / "bundle"), str(tmp_path / "back"), "--to", "official"]) == 0
    written = {Path(line).name: torch.load(line, weights_only=True) for line in capsys.readouterr().out.splitlines()}
    assert same(written, originals(file.parent))
    unused = [name for _, tensors, _ in parts.values() for name in tensors if name.startswith("unused.")]
    assert bool(unused) == (system in ("cips3d", "volumegan", "stylenerf"))
    for part in parts:  # each is a bundle of its own, too
        name = "model" if part == "ema" else part
        alone = tmp_path / part
        alone.mkdir()
        shutil.copy(tmp_path / "bundle" / f"{name}.safetensors", alone / "model.safetensors")
        config = tmp_path / "bundle" / f"{name}.yaml"
        shutil.copy(config if config.is_file() else tmp_path / "bundle" / "config.yaml", alone / "config.yaml")
        assert load_bundle(alone)[1].card["weights"] == part


def test_the_rest_may_be_left_out(tmp_path):
    file, experiment, _, _ = SYSTEMS["graf"]
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(experiment()))
    options = ["--experiment", str(tmp_path / "experiment.yaml"), "--rest", "false", "--weights", "raw"]
    assert main(["convert", str(file), str(tmp_path / "bundle"), *options]) == 0
    assert list(read_parts(tmp_path / "bundle")) == ["raw"]
    assert main(["convert", str(tmp_path / "bundle"), str(tmp_path / "back"), "--to", "official"]) == 0
    back = torch.load(tmp_path / "back" / "model.pt", weights_only=True)
    assert same(back["generator"], read(file).value["generator"]) and set(back) == {"generator", "it"}


def test_bundled_weights_have_an_official_form(tmp_path):
    assert main(["convert", "graf-cars64", str(tmp_path / "back"), "--to", "official"]) == 0
    assert "pts_linears.0.weight" in torch.load(tmp_path / "back" / "model.pt", weights_only=True)["generator_test"]


def test_what_has_no_way_back(tmp_path, capsys):
    for source, message in (
        ("none", "There are no weights named 'none'"),
        (str(tmp_path), "is not a weights bundle"),
    ):
        assert main(["convert", source, str(tmp_path / "back"), "--to", "official"]) == 2
        assert message in capsys.readouterr().err
