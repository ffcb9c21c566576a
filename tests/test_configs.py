"""Every yaml parses against the real command line, and every experiment builds at full size."""

import pytest
import torch
import yaml

from zoo.training.ddp import exchanged
from zoo.training.gan import GAN
from zoo.training.resume import flat
from zoo.utils.paths import CONFIGS, PACKAGE
from zoo.weights.bundle import build

FILES = sorted(CONFIGS.glob("*/*.yaml"))  # others are no configs of the trainer
EXPERIMENTS = [path for path in FILES if path.parent.name != "overlays"]
NAMES = [str(path.relative_to(CONFIGS)) for path in EXPERIMENTS]
# What an overlay changes of a model depends on the model's class, so one experiment of each class shows it, or that of
# the class that it names; what it changes of the rest does not, so a single one does.
OF_CLASS = {yaml.safe_load(path.read_text())["model"]["class_path"]: path for path in reversed(EXPERIMENTS)}
OVERLAYS = {path.stem: yaml.safe_load(path.read_text()) for path in FILES if path.parent.name == "overlays"}
OVERLAID = [
    (name, path)
    for name, says in OVERLAYS.items()
    for of_class, path in list(OF_CLASS.items())[: len(OF_CLASS) if "model" in says else 1]
    if says.get("model", {}).get("class_path", of_class) == of_class
]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=NAMES)
def test_an_experiment_builds_without_memory(path):
    config = yaml.safe_load(path.read_text())["model"]
    with torch.device("meta"):
        gan = build(config, GAN)
    assert all(parameter.is_meta for parameter in gan.parameters())
    assert len(gan.configure_optimizers()) == 2


def parsed(capsys, path, *overlays: str) -> dict:
    """What the command line makes of an experiment and overlays."""
    from zoo.cli.command import main

    words = [word for name in (str(path), *overlays) for word in ("-c", name)]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *words, "--print_config"])
    assert stopped.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=NAMES)
def test_an_experiment_parses(path, capsys):
    assert parsed(capsys, path)["model"]["class_path"].startswith("zoo.")


@pytest.mark.parametrize(("overlay", "path"), OVERLAID, ids=[f"{name} {path.parent.name}" for name, path in OVERLAID])
def test_what_an_overlay_says_holds(overlay, path, capsys):
    holds = dict(flat(parsed(capsys, path, f"overlays/{overlay}"), ""))
    # Where only one class fits, its name is left out; callbacks and loggers get more options than are said.
    said = [(name, value) for name, value in flat(OVERLAYS[overlay], "") if name in holds or "class_path" not in name]
    assert all(holds[name] == value for name, value in said if "callbacks" not in name and "logger" not in name)


def test_what_processes_exchange_is_as_documented():
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (PACKAGE.parent / "docs/clusters.md").open()]
    said = {cells[0].strip("`"): cells[1:] for cells in lines if len(cells) == 4 and "/" in cells[0]}
    assert {name.split("/")[0] for name in said} == {path.parent.name for path in EXPERIMENTS}
    for name, sizes in said.items():
        with torch.device("meta"):
            gan = build(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["model"], GAN)
        assert sizes == [f"{size / 2**20:.2f} ({messages})" for size, messages in exchanged(gan).values()], name
