"""What version 0.2.0 wrote is still read, and still means the same: configs, checkpoints, bundles, training steps.

``tests/fixtures/<system>`` holds what ``python -m tests.record_fixtures`` wrote in that version.
"""

import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.parity.published import train
from tests.same_runs import losses
from zoo.cli import main
from zoo.draws import SampleDraws
from zoo.training import GAN
from zoo.utils.old_names import renamed, renamed_tensors
from zoo.weights.bundle import build, load_bundle

FIXTURES = Path(__file__).parent / "fixtures"
SYSTEMS = ["cips3d", "giraffe", "graf", "pigan", "stylenerf", "volumegan"]
INIT_FROM = "volumegan"  # the one system whose start from old weights is recorded


def load_state(gan: GAN, state: dict[str, Any]) -> None:
    """Load a state whose tensors have the names of version 0.2.0, as a checkpoint of it is loaded."""
    gan.load_state_dict(renamed_tensors(state, gan))


class RecordedDraws:
    """Draws of version 0.2.0 in the order in which it asked for them, so that every processor has the same numbers.

    Their names may become others; kinds, shapes and order may not: resumed runs would draw other numbers.
    """

    def __init__(self, tensors: dict[str, Tensor], step: int) -> None:
        self.queues: dict[bool, list[tuple[str, Tensor]]] = {True: [], False: []}
        for key in sorted(key for key in tensors if key.startswith(f"draws.{step}.")):
            kind = key.split(".")[3]
            self.queues[kind == "shared"].append((kind, tensors[key].double()))

    def take(self, kind: str, name: str, shape: Any) -> Tensor:
        queue = self.queues[kind == "shared"]
        assert queue, f"'{name}' was not asked for"
        recorded, numbers = queue.pop(0)
        assert (recorded, numbers.shape) == (kind, torch.Size(shape)), f"'{name}' is not what was asked for then"
        return numbers

    def uniform(self, name: str, shape: Any) -> Tensor:
        return self.take("uniform", name, shape)

    def normal(self, name: str, shape: Any) -> Tensor:
        return self.take("normal", name, shape)

    def shared(self, name: str, shape: Any) -> Tensor:
        return self.take("shared", name, shape)


class Terms(pl.Callback):
    """Notes all that is logged, iteration by iteration."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_) -> None:
        self.steps.append({name: value.item() for name, value in trainer.callback_metrics.items()})


def two_steps(gan: GAN, images: Tensor, clocks: dict[str, int], draws: list[Any]) -> list[dict[str, float]]:
    """Train on uint8 images with these draws; all losses of each iteration."""
    gan.iterations, gan.images_seen = clocks["iterations"], clocks["images_seen"]
    gan.draws = lambda: draws[gan.iterations - clocks["iterations"]]
    terms = Terms()
    train(gan, images.double() / 127.5 - 1, len(images) // 2, terms)
    return terms.steps


def fingerprints(gan: GAN) -> dict[str, list[float]]:
    """Norm of each tensor, and its product with a fixed direction: neither depends on its name or shape."""
    state = {n: t.double().flatten() for n, t in gan.state_dict().items() if isinstance(t, Tensor) and t.numel()}
    return {
        name: [tensor.norm().item(), (tensor @ torch.arange(1.0, len(tensor) + 1).double().cos()).item()]
        for name, tensor in state.items()
    }


def in_order(numbers: Iterable[float]) -> list[float]:
    """Sorted; those that are no numbers come last."""
    return sorted(numbers, key=lambda number: (math.isnan(number), number))


def exactly(value: Any) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("system", SYSTEMS)
def test_two_steps_in_float64_are_those_of_then(system):
    recorded = json.loads((FIXTURES / system / "steps.json").read_text())
    tensors = load_file(FIXTURES / system / "steps.safetensors")
    gan = build(renamed(recorded["model"]), GAN).double()
    weights = {n.removeprefix("state."): t for n, t in tensors.items() if n.startswith("state.")}
    load_state(gan, weights | recorded["extra_state"])
    draws = [RecordedDraws(tensors, step) for step in range(2)]
    steps = two_steps(gan, tensors["images"], recorded["clocks"], draws)
    for ours, theirs in zip(steps, recorded["losses"], strict=True):
        assert ours == exactly(theirs)
    assert not any(queue for each in draws for queue in each.queues.values())
    ours, theirs = fingerprints(gan), recorded["state"]
    same = ours.keys() & theirs.keys()
    assert {name: tuple(ours[name]) for name in same} == {name: exactly(tuple(theirs[name])) for name in same}
    for i in range(2):  # tensors that have another name now
        others = [in_order(prints[name][i] for name in prints.keys() - same) for prints in (ours, theirs)]
        assert others[0] == exactly(others[1])


def drawn(generator: nn.Module) -> dict[str, Tensor]:
    """What two samples look like: image, depth and all else that is rendered."""
    draws = SampleDraws(0, [3, 5])
    with torch.no_grad():
        styles = generator.map(generator.latents(2, draws))
        rendered = generator.render(styles, generator.cameras(2, draws), draws=draws)
    return {name: tensor.contiguous() for name, tensor in rendered._asdict().items() if tensor is not None}


@pytest.mark.parametrize("file", ["bundle", "last.ckpt"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_weights_draw_the_images_of_then(system, file):
    theirs = load_file(FIXTURES / system / "expected.safetensors")
    ours = drawn(load_bundle(FIXTURES / system / file)[0])
    torch.testing.assert_close({name: ours[name] for name in theirs}, theirs, rtol=0, atol=1e-4, equal_nan=True)


def run_losses(*words: str) -> list[dict[str, float]]:
    """The losses of a run of the command line, whose folder is ``run``."""
    assert main(["fit", *words]) == 0
    rows = losses(Path("run"))
    return [{name: float(v) for name, v in row.items() if name.startswith("loss") and v} for row in rows]


def check_losses(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    for mine, recorded in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(recorded, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_run_resumes_with_the_losses_of_then(system, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(FIXTURES / system, tmp_path / "old")
    config = ["-c", str(folder / "config.yaml"), "--trainer.max_steps", "5"]
    expected = json.loads((folder / "expected.json").read_text())
    check_losses(run_losses(*config, "--ckpt_path", str(folder / "last.ckpt")), expected["resumed"])


def test_a_run_starts_from_weights_of_then(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(FIXTURES / INIT_FROM, tmp_path / "old")
    config = ["-c", str(folder / "config.yaml"), "--trainer.max_steps", "2"]
    expected = json.loads((folder / "expected.json").read_text())
    check_losses(run_losses(*config, "--init_from", str(folder / "last.ckpt")), expected["started"])
