"""How fields are evaluated on a machine: how many points at once, and what is kept for the backward pass.

Small pieces that stay in a processor's cache are the fastest way on a CPU. On a GPU each piece costs several launches,
and whatever needs the length of a list waits for the device: there the plan takes as much at once as there is memory
for, and computes everywhere instead of where it matters. A decision depends on the type of the device, on its memory in
all, and on the work, never on what happens to be free: so a run that is resumed, or repeated, decides again as before.
"""

import logging
import math
import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from zoo.utils.ranges import at_least, given
from zoo.utils.states import check_state

log = logging.getLogger(__name__)

Chunk = int | Literal["auto"] | None  # points at once: a number, as the plan decides, or None for all of them

AT_ONCE_ON_CPUS = {"points": 4096, "rays": 1024}  # whose activations stay in a processor's cache, at the papers' widths
KEPT = 1 / 3  # of a GPU's memory: the most that one query keeps for its backward pass; images mostly take two
WORKED_ON = 0.1  # of a GPU's memory: the most that is worked on at once where it is not kept


@dataclass(frozen=True)
class Machine:
    """What computes.

    Args:
        kind: type of the device, such as ``cpu`` or ``cuda``.
        memory: of the device in all [whole GiB, at least 1]; 0 for a CPU, whose memory no decision depends on.
    """

    kind: str
    memory: int = 0

    def __post_init__(self) -> None:
        at_least(0, self, memory=self.memory)

    @property
    def is_cpu(self) -> bool:
        return self.kind == "cpu"

    def __str__(self) -> str:
        return self.kind if self.is_cpu else f"{self.kind} with {self.memory} GiB"


@lru_cache
def machine_of(device: torch.device) -> Machine:
    """The machine that a device is."""
    if device.type == "cuda":
        return Machine("cuda", max(1, torch.cuda.get_device_properties(device).total_memory >> 30))
    if device.type == "mps":
        return Machine("mps", max(1, torch.mps.recommended_max_memory() >> 30))
    return Machine("cpu")  # the meta device too, which computes nothing


@dataclass(frozen=True)
class Footprint:
    """What a query takes.

    Args:
        points: how many, of all images together.
        bytes_per_point: what plain autograd keeps of one for the backward pass, its results included; 0 for a CPU.
        gradients: how often the results are differentiated: not at all, once, or twice.
        unit: what is counted: ``points``, or ``rays`` with all that a pixel takes.
    """

    points: int
    bytes_per_point: int = 0
    gradients: int = 0
    unit: str = "points"

    def __post_init__(self) -> None:
        at_least(0, self, points=self.points, bytes_per_point=self.bytes_per_point, gradients=self.gradients)

    def __str__(self) -> str:
        gradients = ("without gradients", "with gradients", "with gradients of gradients")[self.gradients]
        size = f" of {self.bytes_per_point:,} bytes" if self.bytes_per_point else ""
        return f"{self.points:,} {self.unit}{size} {gradients}"


@dataclass(frozen=True)
class Strategy:
    """How a query is computed.

    Args:
        at_once: points; None for all of them.
        recomputes: whether the backward pass computes the field again, instead of what the forward pass has kept.
        selects: whether only points that rays hit and gradients reach are computed, for which the host has to wait for
            the device: it needs to know how many they are.
    """

    at_once: int | None
    recomputes: bool
    selects: bool

    def __post_init__(self) -> None:
        at_least(1, self, **given(at_once=self.at_once))

    def memory(self, work: Footprint) -> int:
        """What a query takes [bytes], by estimate: all that plain autograd keeps of the points that are there at once.

        A second derivative keeps as much again, and in a backward pass gradients of a layer or two are there beside it.
        """
        is_whole = self.at_once is None or (work.gradients > 0 and not self.recomputes)
        points = work.points if is_whole else min(work.points, self.at_once or 0)
        return points * work.bytes_per_point * max(1, work.gradients)

    def __str__(self) -> str:
        how = ", computed again in the backward pass" if self.recomputes else ""
        where = "only where needed" if self.selects else "everywhere"
        return f"{'all' if self.at_once is None else f'{self.at_once:,}'} at once{how}, {where}"


def decide(machine: Machine, work: Footprint) -> Strategy:
    """The strategy for a query on a machine.

    A gradient that is itself to be differentiated needs all of plain autograd: nothing is computed again for it.
    """
    if work.gradients > 1:
        return Strategy(None, recomputes=False, selects=machine.is_cpu)
    if machine.is_cpu:
        return Strategy(AT_ONCE_ON_CPUS[work.unit], recomputes=work.gradients > 0, selects=True)
    whole, memory = work.points * work.bytes_per_point, machine.memory * 2**30
    if whole <= memory * (KEPT if work.gradients else WORKED_ON):
        return Strategy(None, recomputes=False, selects=False)
    parts = math.ceil(whole / (memory * WORKED_ON))
    return Strategy(math.ceil(work.points / parts), recomputes=work.gradients > 0, selects=False)  # parts of one size


@dataclass(frozen=True)
class Work:
    """What is to be computed.

    Args:
        device: on which.
        points: how many.
        gradients: how often their results are differentiated, see ``Footprint``.
        layout: makes what the bytes of a point depend on; two works of one layout have the same.
        some: computes so many of the least parts that the work can be divided into, with gradients.
        points_of_one: points of such a part.
        unit: as of ``Footprint``.
    """

    device: torch.device
    points: int
    gradients: int
    layout: Callable[[], Hashable]
    some: Callable[[int], Any]
    points_of_one: int = 1
    unit: str = "points"

    def __post_init__(self) -> None:
        at_least(0, self, points=self.points, gradients=self.gradients)
        at_least(1, self, points_of_one=self.points_of_one)


class Plan:
    """Decides how queries are computed, once for each shape of work, and remembers that for checkpoints.

    Args:
        machine: for which it decides; None for the one that the tensors are on.

    report: called with a line for each decision that is no CPU's; training has it on the terminal.
    """

    def __init__(self, machine: Machine | None = None) -> None:
        self.machine, self.report = machine, log.info
        self.decisions: dict[tuple[Machine, Footprint], Strategy] = {}
        self.measured: dict[Hashable, int] = {}  # bytes per point of fields by their layout

    def strategy(self, chunk: Chunk, work: Work) -> Strategy:
        """How to compute it.

        Args:
            chunk: what the user wants: a number of points, None for all at once in plain autograd, or ``auto``.
            work: what is to be computed.
        """
        machine = self.machine or machine_of(work.device)
        if _measuring.get():
            return Strategy(None, recomputes=False, selects=False)
        if chunk != "auto":
            return Strategy(chunk, recomputes=chunk is not None and work.gradients > 0, selects=machine.is_cpu)
        size = 0 if machine.is_cpu else self.bytes_per_point(work)
        footprint = Footprint(work.points, size, work.gradients, work.unit)
        key = (machine, footprint)
        if key not in self.decisions:
            self.decisions[key] = decide(machine, footprint)
            (log.debug if machine.is_cpu else self.report)(f"plan: {footprint} on {machine}: {self.decisions[key]}")
        return self.decisions[key]

    def bytes_per_point(self, work: Work) -> int:
        """What plain autograd keeps of a point, measured once for each layout."""
        layout = work.layout()
        if layout not in self.measured:
            self.measured[layout] = max(1, math.ceil(kept_bytes(work.some) / work.points_of_one))
        return self.measured[layout]

    def state(self, device: torch.device) -> dict[str, Any]:
        """What a checkpoint holds of it, in plain values: the decisions with gradients for the machine that trains.

        Which others there are depends on what was drawn or scored beside it.
        """
        machine = self.machine or machine_of(device)
        known = ((work, how) for (of, work), how in self.decisions.items() if of == machine and work.gradients)
        own = [asdict(work) | asdict(how) for work, how in known]
        return {"machine": asdict(machine), "decisions": sorted(own, key=str)}  # in whatever order they were made

    def restore(self, state: dict[str, Any], device: torch.device) -> list[str]:
        """Decide again as a checkpoint says, if it is of a machine like this device.

        Returns:
            lines that say what is decided anew.

        Raises:
            UserError: it is no such state.
        """
        if not state:
            return []
        check_state(state, {"machine": {"kind": str, "memory": 0}, "decisions": list}, "plan")
        before, now = Machine(state["machine"]["kind"], state["machine"]["memory"]), self.machine or machine_of(device)
        if before != now:
            return [f"the checkpoint's plan is for {before}, this is {now}: how fields are evaluated is planned anew"]
        for known in state["decisions"]:
            check_state(known, asdict(Footprint(0)) | {"unit": str, "recomputes": False, "selects": False}, "plan")
            check_state(known.get("at_once") or 0, 0, "plan.at_once")
            work = Footprint(*(known[name] for name in asdict(Footprint(0))))
            self.decisions[now, work] = Strategy(known.get("at_once"), known["recomputes"], known["selects"])
        return []


def share_plan(model: nn.Module) -> Plan:
    """Give all parts of a model that have a plan the same one."""
    plan = Plan()
    for part in model.modules():
        if isinstance(vars(part).get("plan"), Plan):
            vars(part)["plan"] = plan
    return plan


def check_chunk(chunk: Chunk, of: object) -> None:
    """Refuse what is neither ``auto``, None, nor a number of points.

    Raises:
        UserError: names the class that it is of.
    """
    if chunk is not None and chunk != "auto":
        at_least(1, of, chunk=chunk)


# What a point takes

_measuring = ContextVar("measuring", default=False)  # inside, a query in what is measured is measured with it


def kept_bytes(run: Callable[[int], Any]) -> int:
    """Bytes that plain autograd keeps for the backward pass of one more part, results included.

    What is kept once for all, such as weights, is in the bytes of one part and of two alike.

    Args:
        run: computes so many parts.
    """
    before = _measuring.set(True)
    try:
        return saved_bytes(partial(run, 2)) - saved_bytes(partial(run, 1))
    finally:
        _measuring.reset(before)


def saved_bytes(compute: Callable[[], Any]) -> int:
    """Bytes of all that a computation's backward pass needs, and of its results, if there is one."""
    storages: dict[int, torch.UntypedStorage] = {}  # which, while they are here, no other one has the address of

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.inference_mode(False), torch.enable_grad(), eager(), hooks:
        results = compute()
    for result in tree_flatten(results)[0]:
        if isinstance(result, Tensor):
            keep(result)
    return sum(storage.nbytes() for storage in storages.values())


@contextmanager
def eager() -> Iterator[None]:
    """Inside, what torch has compiled is computed as it was written: nothing is compiled for a few points."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def differentiable(values: Any) -> Any:
    """Copies of tensors in tuples, lists and dicts that gradients reach, where those are of floats."""

    def copied(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        return value.detach().clone().requires_grad_()

    return tree_map(copied, values)


def layout_of(field: Callable, device: torch.device, *inputs: Any) -> Hashable:
    """What the bytes of a point in a field depend on: its parameters, and shapes and settings of what it is given."""
    leaves = [leaf for values in inputs for leaf in tree_flatten(values)[0]]
    of_inputs = tuple((x.shape, x.dtype) if isinstance(x, Tensor) else str(x) for x in leaves)
    module = field.func if isinstance(field, partial) else field
    learned: tuple = ()
    if isinstance(module, nn.Module):
        learned = tuple((p.shape, p.dtype, p.requires_grad) for p in module.parameters())
    name = getattr(module, "__qualname__", type(module).__qualname__)
    return name, learned, of_inputs, torch.is_autocast_enabled(device.type)
