"""Reads reference cases and compares with them.

A case is a folder with ``case.json`` (arguments of the published constructors and calls, meaning and noise of every
tensor), ``io.safetensors`` (tensors ``in.<name>`` and ``out.<name>``) and published state dicts.
"""

import importlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.parity.replay import Replay
from zoo.render import Camera, Importance

LEAST = 1e-6  # no tolerance is smaller
MOST = 10  # times the guide figure of a kind of output, such as 1e-4 for images; more needs a line in ``LOOSE``
NEARLY_EMPTY = "in cells which are nearly empty rounding moves importance samples a thousand times as far"
IMPORTANCE = f"follows from importance samples that were not recorded: {NEARLY_EMPTY}"  # two reasons in ``LOOSE``
SHAKES = 16  # one in four may meet a kink of a leaky ReLU, or flip the sign of a step
CASES = Path(__file__).parent / "cases"
SENSITIVITY = Path(__file__).parent / "sensitivity.json"


class Compared(NamedTuple):
    """What is compared with one recorded output, all in float64 and in units of ``scale``."""

    ours: Tensor
    guide: float  # usual tolerance of this kind of output
    scale: Tensor


class Case:
    """One reference case, in which everything is computed in one precision, and what was computed for its outputs.

    Its tensors are on torch's default device, results for comparison on the CPU.

    Args:
        folder: of the case.
        dtype: floating-point tensors of the case are cast to it once.
        shake: None, or the seed of changes of all inputs, weights, cameras and coarse weights by 2^-24 of each number.
    """

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float64, shake: int | None = None) -> None:
        self.folder, self.dtype, self.shake, self.device = folder, dtype, shake, torch.get_default_device()
        self.name = f"{folder.parent.name}/{folder.name}"
        self.info = json.loads((folder / "case.json").read_text())
        self.config = self.info["config"]
        recorded = folder / "io.safetensors"  # a case may only have weights
        tensors = self.own(load_file(recorded)) if recorded.is_file() else {}
        self.inputs = {n.removeprefix("in."): self.cast(t) for n, t in tensors.items() if n.startswith("in.")}
        self.outputs = {n.removeprefix("out."): t for n, t in tensors.items() if n.startswith("out.")}
        self.compared: dict[str, Compared] = {}  # in order

    def own(self, recorded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of recorded tensors where this run computes."""
        return {name: tensor.to(self.device, copy=True) for name, tensor in recorded.items()}

    def cast(self, recorded: Tensor) -> Tensor:
        """A recorded tensor in the precision of this run."""
        if not recorded.is_floating_point():
            return recorded
        return shaken(recorded.to(self.dtype), self.shake)

    def change(self, after: Tensor, before: Tensor) -> Tensor:
        """What steps changed; with ``shake``, by as much more as what is stored may be rounded.

        Steps of Adam are alike in length, and so is then their rounding: it adds up in the norm of a change.
        """
        change = after.detach() - before
        return change if self.shake is None else change + 2**-24 * after.detach().abs() * change.sign()

    def published(self, prefix: str) -> dict[str, Tensor]:
        """The published state dict under a prefix (with its dot), bit for bit."""
        tensors = load_file(self.folder / self.info["weights_file"])
        return self.own({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})

    def weights(self, prefix: str) -> dict[str, Tensor]:
        """The published state dict under a prefix (with its dot) in the precision of this run."""
        return {name: self.cast(tensor) for name, tensor in self.published(prefix).items()}

    def recast(self, network: Any) -> Any:
        """A network with its numbers in the precision of this run."""
        network.to(self.dtype).load_state_dict({n: self.cast(t) for n, t in network.state_dict().items()})
        return network

    def named_draws(self, block: str) -> dict[str, Tensor]:
        """The random numbers of a block by their full names, in the order in which the published code drew them."""
        start = len(block) + 1
        numbered = [n for n in self.inputs if n.startswith(f"{block}.") and n[start].isdigit()]
        return {name: self.inputs[name] for name in sorted(numbered, key=lambda n: int(n[start:].split("_")[0]))}

    def draws(self, block: str) -> list[Tensor]:
        """The random numbers of a block, in the order in which the published code drew them."""
        return list(self.named_draws(block).values())

    def block(self, start: str) -> dict[str, Tensor]:
        """The inputs whose names begin so, by the rest of their names."""
        return {n.removeprefix(start): t for n, t in self.inputs.items() if n.startswith(start)}

    def recorded(self, start: str, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of our tensors that an output was recorded for, by its name: ``start`` and theirs."""
        return {start + name: tensor for name, tensor in ours.items() if start + name in self.outputs}

    def number(self, name: str, pattern: str) -> float:
        """What the meaning of an output says, as the pattern's first group."""
        return float(re.search(pattern, self.info["outputs"][name]["meaning"])[1])

    def blocks(self) -> list[str]:
        """First parts of the outputs' names, in order."""
        return list(dict.fromkeys(name.split(".")[0] for name in self.info["outputs"]))

    def compare(self, name: str, ours: Tensor | float, guide: float = 1e-4, scale: Tensor | float = 1.0) -> None:
        """Note what we have for the output of this name.

        Args:
            guide: usual tolerance of this kind of output, in units of ``scale``; see ``tolerances``.
            scale: one number, or one for each number of the output.
        """
        theirs = self.outputs[name]
        ours = torch.as_tensor(ours).detach()
        assert ours.shape == theirs.shape, f"{name}: shape {tuple(ours.shape)}, not {tuple(theirs.shape)}"
        self.compared[name] = Compared(
            ours.to("cpu", torch.float64, copy=True), guide, torch.as_tensor(scale).cpu().double().clamp(min=1e-30)
        )

    def relative(self, name: str, ours: Tensor | float, share: float = 1e-3) -> None:
        """Compare in units of the largest number."""
        self.compare(name, ours, share, self.outputs[name].abs().max())

    def scores(self, name: str, ours: Tensor, beside: Sequence[str] = ()) -> None:
        """Compare scores, or features on the way to them, in units of the largest number if that is above 1.

        Args:
            beside: outputs whose numbers count, too: what float32 rounds in early layers is carried into later ones.
        """
        self.compare(name, ours, scale=max(1.0, *(self.outputs[n].abs().max().item() for n in (name, *beside))))

    def each_relative(self, name: str, ours: Tensor, share: float = 1e-3) -> None:
        """Compare each number, such as the norm of one parameter's gradient, in units of itself."""
        self.compare(name, ours, share, self.outputs[name].abs().clamp(min=1e-9))

    def norms(
        self,
        name: str,
        ours: Mapping[str, Tensor],
        order: Sequence[str],
        share: float = 1e-3,
        without: Sequence[str] = (),
    ) -> None:
        """Compare norms, each in units of itself, in the published order of parameters; what we do not have is zero.

        Args:
            without: parameters that are left out.
        """
        assert ours.keys() <= set(order), ours.keys() - set(order)
        if without:
            kept = [n not in without for n in order]
            order, self.outputs[name] = [n for n in order if n not in without], self.outputs[name][kept]
        none = torch.zeros(())
        self.each_relative(name, torch.stack([ours.get(n, none).norm() for n in order]), share)

    def gradients(
        self, norms: str, whole: str, ours: Mapping[str, Tensor], order: Sequence[str], without: Sequence[str] = ()
    ) -> None:
        """Compare norms of gradients, and those that were recorded in full, whose outputs' names begin with ``whole``.

        What is frozen, or nothing reads, has no gradient here, for which the published program has zero.
        """
        self.norms(norms, ours, order, without=without)
        for name in [name for name in self.outputs if name.startswith(whole)]:
            self.relative(name, ours.get(name.removeprefix(whole), torch.zeros_like(self.outputs[name])))

    def changes(
        self,
        name: str,
        now: Mapping[str, Tensor],
        before: Mapping[str, Tensor],
        order: Sequence[str],
        without: Sequence[str] = (),
    ) -> None:
        """Compare norms of what steps changed."""
        self.norms(name, {n: self.change(tensor, before[n]) for n, tensor in now.items()}, order, 1e-2, without)

    def noise(self, name: str) -> float:
        """How far the published float32 was seen to be from itself in float64; 0 where that was not recorded."""
        about = self.info["outputs"].get(name, {})
        return about.get("float32_sensitivity", about.get("float64_gap")) or 0.0


def shaken(values: Tensor, seed: int | None) -> Tensor:
    """Each number changed by 2^-24 of itself, up or down; the same for the same shape and seed on every machine."""
    if seed is None:
        return values
    stream = torch.Generator().manual_seed(seed)
    return values * (1 + 2**-24 * (2 * torch.randint(2, values.shape, generator=stream) - 1).to(values.dtype))


@contextmanager
def shaking(seed: int | None) -> Iterator[None]:
    """Inside, cameras and what importance samples are drawn from are changed by 2^-24, too."""
    if seed is None:
        yield
        return
    new, call = Camera.__new__, Importance.__call__

    def camera(cls: type, pose: Tensor, intrinsics: Tensor) -> Camera:
        return new(cls, shaken(pose, seed), shaken(intrinsics, seed))

    def importance(self: Importance, t: Tensor, weights: Tensor, draws: Any) -> Tensor:
        # They are summed up, so rounding is of the size of the sum, also in cells which are nearly empty.
        total = weights.sum(-1, keepdim=True)
        if draws is None:  # evenly spaced quantiles, as recorded ones are
            quantiles = torch.linspace(0, 1, self.samples, dtype=t.dtype).expand(*t.shape[:-1], self.samples)
            draws = Replay([("importance", shaken(quantiles, seed))])
        return call(self, t, weights + (shaken(total.expand_as(weights), seed) - total), draws)

    with patch.object(Camera, "__new__", camera), patch.object(Importance, "__call__", importance):
        yield


def adapter_of(folder: Path) -> ModuleType:
    return importlib.import_module(f"tests.parity.{folder.parent.name}")


def of_kind(table: dict[str, dict[str, Any]], folder: Path) -> dict[str, Any]:
    """What a table by kind of case says of this one, whose name begins with its kind."""
    lines = [of_it for kind, of_it in table.items() if folder.name.startswith(kind)]
    return {name: about for of_it in lines for name, about in of_it.items()}


def run(
    folder: Path, dtype: torch.dtype = torch.float64, shake: int | None = None, device: torch.device | str = "cpu"
) -> Case:
    """Compute all outputs of a case with our code, on a device; other arguments as of ``Case``."""
    adapter = adapter_of(folder)
    kinds = [kind for kind in adapter.KINDS if folder.name.startswith(kind)]
    assert kinds, f"{adapter.__name__} knows the kinds {', '.join(adapter.KINDS)}, not {folder.name}"
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # of what an adapter makes itself, such as a single sample's depth
    try:
        with shaking(shake), nullcontext() if torch.device(device).type == "cpu" else torch.device(device):
            case = Case(folder, dtype, shake)
            adapter.KINDS[max(kinds, key=len)](case)
    finally:
        torch.set_default_dtype(before)
    absent = of_kind(adapter.ABSENT, folder)
    forgotten = [n for n in case.outputs if n not in case.compared and n not in absent]
    assert not forgotten, f"{case.name}: outputs that nothing was compared with: {', '.join(forgotten)}"
    return case


def sensitivity(exact: Case) -> dict[str, Tensor]:
    """Largest changes of our outputs in float64, in units of their scales, if all that goes in is ``shaken``.

    One figure for an output; where its numbers have scales of their own, one for each.
    """
    found = {}
    for shaken_case in (run(exact.folder, shake=seed) for seed in range(1, SHAKES + 1)):
        for name, (ours, _, scale) in exact.compared.items():
            change = (shaken_case.compared[name].ours - ours).abs() / scale
            if not scale.dim():
                change = change.max() if change.numel() else torch.zeros(())
            found[name] = torch.maximum(found.get(name, change), change)
    return found


def tolerances(exact: Case) -> dict[str, Tensor]:
    """The largest allowed difference of every output, in units of its scale.

    Four times the published noise figure, or four times our own sensitivity where that is larger: the figure comes
    from few changes, and published float32 was seen to be up to eight figures from itself in float64. Sensitivities
    come from the file that ``python -m tests.parity.sensitivity`` writes; for a case that is not in it they are
    computed now. They never allow less than 1e-6 and a hundredth of what is usual for the kind of output, which float32
    may lose in its sums, nor more than ten times as much, unless the adapter's ``LOOSE`` says how much and why.
    """
    known: dict[str, Any] = json.loads(SENSITIVITY.read_text()).get(exact.name, {})
    if not exact.compared.keys() <= known.keys():
        known = sensitivity(exact)
    loose = of_kind(adapter_of(exact.folder).LOOSE, exact.folder)
    limits = {}
    for name, (_, guide, scale) in exact.compared.items():
        most = guide * max([MOST, *(times for pattern, (times, _) in loose.items() if re.fullmatch(pattern, name))])
        own = torch.as_tensor(known[name]).double()
        own = own.clamp(min=own.median())  # few draws say little of a single number
        own = (4 * own).clamp(max(LEAST, guide / 100), most)
        limits[name] = torch.maximum(own, 4 * exact.noise(name) / scale)
    return limits


def check(case: Case, reference: Mapping[str, Tensor], limits: Mapping[str, Tensor]) -> str:
    """Fail at the first output that is further from the reference than its limit.

    Returns:
        A line with the worst difference, as a share of its tolerance.
    """
    shares, off = {}, []
    for name, (ours, _, scale) in case.compared.items():
        difference = ((ours - reference[name].cpu().double()).abs() / scale).nan_to_num(torch.inf)
        share = difference / limits[name]
        shares[name] = share.max().item() if share.numel() else 0.0
        if shares[name] > 1:
            at = share.flatten().argmax().item()
            limit = limits[name].expand_as(share).flatten()[at].item()
            number = f" (number {at})" if share.numel() > 1 else ""
            off.append(f"{name}{number}: off by {difference.flatten()[at].item():.3g}, at most {limit:.3g}")
    assert not off, f"{case.name}, first difference first:\n  " + "\n  ".join(off)
    worst = max(shares, key=shares.__getitem__, default="none")
    return f"{case.name}: {len(shares)} outputs agree; worst {worst}, {shares.get(worst, 0):.2g} of what is allowed"
