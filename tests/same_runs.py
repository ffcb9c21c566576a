"""Runs of ``zoo fit`` in this process, and whether two of them were the same, bit for bit."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor

from zoo.cli.command import main


def write(config: dict[str, Any], folder: Path) -> str:
    """The yaml of a run into ``folder``, in which all images that were trained on are noted."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer = {
        "accelerator": "cpu",
        "log_every_n_steps": 1,
        "default_root_dir": str(folder),
        "callbacks": [{"class_path": "tests.same_runs.Seen"}],
    }
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(config | {"trainer": trainer}))
    return str(path)


def train(words: Sequence[str]) -> None:
    """``zoo`` in this process."""
    assert main([*words]) == 0


def check_exact_resume(
    config: dict[str, Any],
    folder: Path,
    words: Sequence[str] = (),
    steps: int = 12,
    stop: int = 6,
) -> None:
    """Training ``steps`` iterations at once, or only ``stop`` and then the rest, ends in the same state, bit for bit.

    Args:
        config: ``model`` and ``data``.
        folder: for both runs.
        words: more options of both.
        steps, stop: iterations.
    """
    whole, halves = folder / "whole", folder / "halves"
    train(["fit", "-c", write(config, whole), *words, "--trainer.max_steps", str(steps)])
    train(["fit", "-c", write(config, halves), *words, "--trainer.max_steps", str(stop)])
    last = str(halves / "checkpoints" / "last.ckpt")
    resumed = ["--ckpt_path", last, "--trainer.max_steps", str(steps)]
    train(["fit", "-c", write(config, halves), *words, *resumed])
    assert_same_run(whole, halves)


def assert_same_run(one: Path, two: Path, interrupted_at: int | None = None) -> None:
    """Two runs, the second in two parts, saw the same images, had the same losses and ended in the same state.

    Args:
        interrupted_at: an iteration whose losses were not logged in the second, since a Ctrl-C ended its first part.
    """
    for seen in sorted(one.glob("seen-*.txt")):
        assert seen.read_text() == (two / seen.name).read_text()
    rows = [row for row in losses(one) if row["step"] != str(interrupted_at)]
    for first, second in zip(rows, losses(two), strict=True):
        # Lightning repeats the last value of a term that is not computed in every iteration; a new process has none.
        assert {n: v for n, v in first.items() if second.get(n)} == {n: v for n, v in second.items() if v}
    states = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (one, two)]
    for state in states:
        state["clocks"].pop("seconds")
        state.pop("loops")  # Lightning's counts of what happened since the start of the process
    assert {"state_dict", "optimizer_states", "clocks", "global_step", "scalers", "NoiseData"} <= states[0].keys()
    assert differences(*states) == []


def losses(run: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv, also of those of earlier parts of the run."""
    files = [*sorted(run.glob("metrics-*.csv")), run / "metrics.csv"]
    return [row for file in files for row in csv.DictReader(file.read_text().splitlines())]


def differences(one: Any, two: Any, name: str = "") -> list[str]:
    """Names of the values that are not the same, bit for bit."""
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        return [found for key in one for found in differences(one[key], two[key], f"{name}.{key}")]
    if isinstance(one, list | tuple) and isinstance(two, list | tuple) and len(one) == len(two):
        return [
            found for i, pair in enumerate(zip(one, two, strict=True)) for found in differences(*pair, f"{name}.{i}")
        ]
    if isinstance(one, Tensor) and isinstance(two, Tensor) and one.shape == two.shape:
        return [] if torch.allclose(one, two, rtol=0, atol=0, equal_nan=True) else [name]
    return [] if type(one) is type(two) and one == two else [name]


class Seen(pl.Callback):
    """Writes which images each process trained on, a line an iteration."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch, *_) -> None:
        with open(Path(trainer.default_root_dir) / f"seen-{trainer.global_rank}.txt", "a") as file:
            file.write(f"{pl_module.iterations} {tuple(batch['image'].shape)} {batch['index'].tolist()}\n")
