"""Everything of a published checkpoint is in its bundle, and comes back from it as it was."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from tests.parity.giraffe.files import as_config
from tests.tiny import CONFIG
from zoo.cli.command import main
from zoo.utils.paths import read_experiment
from zoo.weights.bundle import load_bundle, load_network, read_parts
from zoo.weights.read import module_state, read

CASES = Path(__file__).parent / "parity" / "cases"
FIXTURES = Path(__file__).parent / "fixtures"
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


def stylesdf_experiment() -> dict:
    """All that a file of StyleSDF does not hold; its sizes are others than the file's."""
    renderer = {
        "depths": {"class_path": "zoo.stylesdf.OffsetDepths", "init_args": {"near": 0.88, "far": 1.12, "samples": 8}},
        "quadrature": {"background": "zoo.render.last_sample"},
    }
    args = {
        "field": {"class_path": "zoo.stylesdf.SDFField", "init_args": {"hidden_dim": 32}},
        "renderer": {"class_path": "zoo.render.VolumeRenderer", "init_args": renderer},
        "poses": {"class_path": "zoo.render.GaussianPoses", "init_args": {"yaw_spread": 0.3, "fov_deg": 12}},
        "decoder": {"class_path": "zoo.stylesdf.Decoder", "init_args": {"widths": {8: 4, 16: 4}}},
    }
    return {"model": {"init_args": {"generator": {"class_path": "zoo.stylesdf.Generator", "init_args": args}}}}


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


def modules_of_stylegan(folder: Path) -> dict:
    held = read(folder / "network-snapshot-000000.pkl").value
    return {"network-snapshot.pt": {name: module_state(held[name]) for name in ("G", "G_ema", "D")}}


def stylesdf_files(folder: Path) -> dict:
    (file,) = folder.glob("*.pt")
    return {"volume_renderer.pt" if file.name.endswith("vol_renderer.pt") else "full_pipeline.pt": read(file).value}


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
    "stylenerf": (CASES / "stylenerf/checkpoint/network-snapshot-000000.pkl", lambda: None, modules_of_stylegan, 3),
    "eg3d": (CASES / "eg3d/checkpoint/network-snapshot-000000.pkl", lambda: None, modules_of_stylegan, 3),
    "stylesdf": (CASES / "stylesdf/checkpoint_stage2/reduced32x32.pt", stylesdf_experiment, stylesdf_files, 3),
}
FIRST_STAGE = CASES / "stylesdf/checkpoint_stage1/reduced_vol_renderer.pt", stylesdf_experiment, stylesdf_files, 3
CHECKPOINTS = SYSTEMS | {"stylesdf, first stage": FIRST_STAGE}


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


@pytest.mark.parametrize("system", CHECKPOINTS)
def test_there_and_back(tmp_path, capsys, system):
    file, experiment, originals, networks = CHECKPOINTS[system]
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
    assert bool(unused) == (system in ("cips3d", "volumegan", "stylenerf", "eg3d", "stylesdf"))
    for part in parts:  # each is a bundle of its own, too
        name = "model" if part == "ema" else part
        alone = tmp_path / part
        alone.mkdir()
        shutil.copy(tmp_path / "bundle" / f"{name}.safetensors", alone / "model.safetensors")
        config = tmp_path / "bundle" / f"{name}.yaml"
        shutil.copy(config if config.is_file() else tmp_path / "bundle" / "config.yaml", alone / "config.yaml")
        assert load_network(alone, nn.Module)[1].card["weights"] == part


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
        (str(tmp_path), "is an empty folder"),
        (str(Path(__file__).parent), "is not a weights bundle"),
    ):
        assert main(["convert", source, str(tmp_path / "back"), "--to", "official"]) == 2
        assert message in capsys.readouterr().err


# What comes from elsewhere than the published programs


@pytest.fixture(scope="module", params=[system for system in SYSTEMS if (FIXTURES / system).is_dir()])
def official(request, tmp_path_factory) -> tuple[Path, list[str], dict]:
    """The fixture of a system in its published form: folder, options that tell what it does not hold, and tensors."""
    source, folder = FIXTURES / request.param / "bundle", tmp_path_factory.mktemp("official") / "there"
    assert main(["convert", str(source), str(folder), "--to", "official"]) == 0
    return folder, ["--experiment", str(source / "config.yaml")], load_bundle(source)[0].state_dict()


def is_back(folder: Path, tensors: dict) -> bool:
    """Whether a bundle has these tensors, but for what ``prepare`` computes."""
    found = load_file(folder / "model.safetensors")
    return found.keys() == tensors.keys() and all(
        torch.allclose(found[name], tensors[name], atol=1e-5, equal_nan=True) for name in tensors
    )


def test_the_published_form_of_an_ema_alone_comes_back(tmp_path, official):
    folder, options, tensors = official
    (file,) = folder.iterdir()
    for source in (file, folder):
        assert main(["convert", str(source), str(tmp_path / "back"), *options]) == 0
        assert is_back(tmp_path / "back", tensors)


def bare(value: dict) -> dict:
    """The one state dict in a file."""
    while not torch.is_tensor(next(iter(value.values()))):
        value = next(inner for inner in value.values() if isinstance(inner, dict))
    return {name.removeprefix("generator_test."): tensor for name, tensor in value.items()}


AROUND = {
    "bare": lambda state: state,
    "numbers": lambda state: {"epoch": 3, "loss": 0.5, **state, "best": None},
    "all": lambda state: {"epoch": 3, "state_dict": {f"module.{n}": t for n, t in state.items()} | {"step": 7}},
}


@pytest.mark.parametrize("around", AROUND)
def test_what_peoples_scripts_add_is_taken_away(tmp_path, official, around):
    folder, options, tensors = official
    state = bare(torch.load(next(folder.iterdir()), weights_only=True))
    file = tmp_path / "weights.pt"
    torch.save(AROUND[around](state), file)
    if around == "bare":
        file = tmp_path / "weights.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
    assert main(["convert", str(file), str(tmp_path / "back"), *options]) == 0
    assert is_back(tmp_path / "back", tensors)


def test_all_networks_come_back_but_the_discriminator(tmp_path, capsys):
    """Tensors alone do not say how theirs was built."""
    for system in ("pigan", "stylenerf", "eg3d"):
        file, experiment, _, _ = SYSTEMS[system]
        (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(experiment()))
        options = ["--experiment", str(tmp_path / "experiment.yaml")] if experiment() else []
        first, there, back = (tmp_path / f"{system}-{name}" for name in ("first", "there", "back"))
        assert main(["convert", str(file), str(first), *options]) == 0
        assert main(["convert", str(first), str(there), "--to", "official"]) == 0
        assert main(["convert", str(there), str(back), "--experiment", str(first / "config.yaml")]) == 0
        said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Used ")][-1]
        assert "; left out: " in said and said.endswith("do not say how a discriminator was built.")
        names = {path.name for path in first.glob("*.safetensors")} - {"discriminator.safetensors"}
        assert {path.name for path in back.glob("*.safetensors")} == names and len(names) > 1
        for name in names:
            ours, theirs = load_file(first / name), load_file(back / name)
            assert all(torch.allclose(ours[key], theirs[key], atol=1e-5) for key in ours)


def test_a_published_file_beside_a_run_is_found(tmp_path):
    shutil.copy(CASES / "volumegan/checkpoint/checkpoint-000002.pth", tmp_path)
    shutil.copy(FIXTURES / "volumegan" / "last.ckpt", tmp_path)
    assert main(["convert", str(tmp_path), str(tmp_path / "out")]) == 0


def test_the_verb_that_does_it_is_named(tmp_path, capsys):
    bundle = tmp_path / "bundle"
    shutil.copytree(FIXTURES / "pigan" / "bundle", bundle)
    shutil.copy(CASES / "graf/checkpoint/model.pt", tmp_path / "model.pt")
    shutil.copy(CASES / "graf/checkpoint/model.pt", tmp_path / "renamed.ckpt")
    last, config = str(FIXTURES / "pigan" / "last.ckpt"), str(FIXTURES / "pigan" / "config.yaml")
    fit = ["fit", "-c", config, "--trainer.default_root_dir", str(tmp_path / "run")]
    for words, verb in (
        (["convert", last, str(tmp_path / "out")], f"'zoo bundle {last} OUT' makes a bundle of it"),
        (["convert", str(bundle), str(tmp_path / "out")], "is a weights bundle already"),
        (["convert", str(bundle / "model.safetensors"), str(tmp_path / "out")], "is a weights bundle already"),
        (["convert", "graf-cars64", str(tmp_path / "out")], "is a weights bundle already"),
        (["sample", str(tmp_path / "model.pt"), "--out", "x.png"], "'zoo convert"),
        (["sample", str(tmp_path / "renamed.ckpt"), "--out", "x.png"], "'zoo convert' makes a bundle"),
        (["bundle", str(tmp_path / "model.pt"), str(tmp_path / "out")], "'zoo convert"),
        (["sample", str(bundle / "model.safetensors"), "--out", "x.png"], f"it is part of one, {bundle}"),
        ([*fit, "--init_from", str(tmp_path / "model.pt")], "'zoo convert"),
        ([*fit, "--init_from", str(tmp_path / "renamed.ckpt")], "'zoo convert' makes a bundle"),
        ([*fit, "--ckpt_path", str(tmp_path / "model.pt")], "'zoo convert' makes a bundle"),
    ):
        assert main(words) == 2, words
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("zoo: error: ") and verb in said, said
        assert len(said.replace(str(tmp_path), "").replace(str(FIXTURES), "")) < 300
