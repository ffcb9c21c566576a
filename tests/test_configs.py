"""Every yaml parses against the real command line, and every experiment builds at full size."""

import pytest
import torch
import yaml

from zoo.gan import GAN
from zoo.paths import CONFIGS
from zoo.resume import flat
from zoo.weights.bundle import build

FILES = sorted(CONFIGS.rglob("*.yaml"))
EXPERIMENTS = [path for path in FILES if path.parent.name != "overlays"]
NAMES = [str(path.relative_to(CONFIGS)) for path in EXPERIMENTS]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=NAMES)
def test_an_experiment_builds_without_memory(path):
    config = yaml.safe_load(path.read_text())["model"]
    with torch.device("meta"):
        gan = build(config, GAN)
    assert all(parameter.is_meta for parameter in gan.parameters())
    assert len(gan.configure_optimizers()) == 2


@pytest.mark.parametrize("path", EXPERIMENTS, ids=NAMES)
@pytest.mark.parametrize("overlay", [None, *(path.stem for path in FILES if path.parent.name == "overlays")])
def test_it_parses_with_every_overlay(path, overlay, capsys):
    from zoo.cli import main

    words = ["fit", "-c", str(path), *(["-c", f"overlays/{overlay}"] if overlay else []), "--print_config"]
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["class_path"].startswith("zoo.")
    if overlay:  # what it says is what holds
        says = flat(yaml.safe_load((CONFIGS / "overlays" / f"{overlay}.yaml").read_text()), "")
        holds = dict(flat(printed, ""))
        assert all(holds[name] == value for name, value in says if not isinstance(value, list))
