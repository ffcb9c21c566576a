"""Reads reference cases and compares with them.

A case is a folder with ``case.json`` (arguments of the published constructors and calls, meaning and noise of every
tensor), ``io.safetensors`` (tensors ``in.<name>`` and ``out.<name>``) and published state dicts.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from zoo.weights.names import published_name

FLOOR = 1e-6  # smallest tolerance


class Case:
    """One reference case and the record of what was compared with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info = json.loads((folder / "case.json").read_text())
        self.config = self.info["config"]
        recorded = folder / "io.safetensors"  # a case may only have weights
        tensors = {n: t.clone() for n, t in load_file(recorded).items()} if recorded.is_file() else {}
        self.inputs = {n.removeprefix("in."): t for n, t in tensors.items() if n.startswith("in.")}
        self.outputs = {n.removeprefix("out."): t for n, t in tensors.items() if n.startswith("out.")}
        self.compared: dict[str, tuple[float, float]] = {}  # name -> (difference, tolerance), in order

    def weights(self, prefix: str) -> dict[str, Tensor]:
        """The published state dict under a prefix (with its dot)."""
        tensors = load_file(self.folder / self.info["weights_file"])
        return {n.removeprefix(prefix): t.clone() for n, t in tensors.items() if n.startswith(prefix)}

    def named_draws(self, block: str) -> dict[str, Tensor]:
        """The random numbers of a block by their full names, in the order in which the published code drew them."""
        start = len(block) + 1
        numbered = [n for n in self.inputs if n.startswith(f"{block}.") and n[start].isdigit()]
        return {name: self.inputs[name] for name in sorted(numbered, key=lambda n: int(n[start:].split("_")[0]))}

    def draws(self, block: str) -> list[Tensor]:
        """The random numbers of a block, in the order in which the published code drew them."""
        return list(self.named_draws(block).values())

    def blocks(self) -> list[str]:
        """First parts of the outputs' names, in order."""
        return list(dict.fromkeys(name.split(".")[0] for name in self.info["outputs"]))

    def compare(self, name: str, ours: Tensor | float, tolerance: float = 1e-4, least: float = FLOOR) -> None:
        """Compare with the output of this name.

        Args:
            tolerance: largest absolute difference for outputs that carry no noise figure; with one it is four times
                that figure.
            least: smallest tolerance, for numbers whose noise figure cannot know what rounding may do to them.
        """
        theirs = self.outputs[name]
        ours = torch.as_tensor(ours)
        assert ours.shape == theirs.shape, f"{name}: shape {tuple(ours.shape)}, not {tuple(theirs.shape)}"
        about = self.info["outputs"].get(name, {})
        noise = about.get("float32_sensitivity", about.get("float64_gap"))
        limit = max(least, tolerance if noise is None else 4 * noise)
        difference = (ours.double() - theirs.double()).abs()
        worst = difference.nan_to_num(torch.inf).max().item() if difference.numel() else 0.0
        self.compared[name] = (worst, limit)

    def finish(self, absent: dict[str, str]) -> str:
        """Fail at the first output that is off, or that was not compared and has no reason in ``absent``.

        Returns:
            A line with the worst difference, as a share of its tolerance.
        """
        off = [f"{n}: off by {d:.3g}, at most {limit:.3g}" for n, (d, limit) in self.compared.items() if d > limit]
        assert not off, f"{self.folder.name}, first difference first:\n  " + "\n  ".join(off)
        forgotten = [n for n in self.outputs if n not in self.compared and n not in absent]
        assert not forgotten, f"{self.folder.name}: outputs that nothing was compared with: {', '.join(forgotten)}"
        name, (difference, limit) = max(self.compared.items(), key=lambda item: item[1][0] / item[1][1])
        where = f"{self.folder.parent.name}/{self.folder.name}"
        return f"{where}: {len(self.compared)} outputs agree; worst {name}, off by {difference:.2g} of {limit:.2g}"


class Replay:
    """Draws that were recorded elsewhere, by the name we ask for them with; each name's in order.

    Args:
        recorded: pairs of name and numbers; a name may come several times.
    """

    def __init__(self, recorded: Sequence[tuple[str, Tensor]]) -> None:
        self.queues: dict[str, list[Tensor]] = {}
        for name, numbers in recorded:
            self.queues.setdefault(name, []).append(numbers)

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        queue = self.queues.get(name)
        assert queue, f"'{name}' was asked for more often than it was recorded"
        numbers = queue.pop(0)
        assert numbers.numel() == torch.Size(shape).numel(), f"'{name}' has {tuple(numbers.shape)}, not {tuple(shape)}"
        return numbers.reshape(tuple(shape))

    normal = shared = uniform

    def used_up(self) -> bool:
        return not any(self.queues.values())


class Watched:
    """A callable that remembers arguments and results of its calls."""

    def __init__(self, function: Callable) -> None:
        self.function, self.calls = function, []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self.function(*args, **kwargs)
        self.calls.append((args, result))
        return result


def by_published_name(network: nn.Module, table: list) -> dict[str, nn.Parameter]:
    """A network's parameters; the table translates our names."""
    return {published_name(name, table): parameter for name, parameter in network.named_parameters()}


def same_tensors(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts have the same names and the same numbers, bit for bit."""
    return set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in theirs)


class Before(pl.Callback):
    """Gives the optimizers, which are ten steps old, the recorded moments.

    Args:
        moments: of each optimizer, by parameter and by name in the optimizer's state.
    """

    def __init__(self, moments: list[dict[nn.Parameter, dict[str, Tensor]]]) -> None:
        self.moments = moments

    def on_train_start(self, trainer: pl.Trainer, *args: Any) -> None:
        for optimizer, moments in zip(trainer.optimizers, self.moments, strict=True):
            for parameter, of_it in moments.items():
                optimizer.state[parameter] = {"step": torch.tensor(10.0), **of_it}


def train(gan: pl.LightningModule, images: Tensor, batch: int, callback: pl.Callback) -> pl.Trainer:
    """Train on these images in order, as many at once."""
    with TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=len(images) // batch,
            accelerator="cpu",
            callbacks=[callback],
            default_root_dir=folder,
            enable_model_summary=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        trainer.fit(gan, DataLoader([{"image": image} for image in images], batch))
    return trainer
