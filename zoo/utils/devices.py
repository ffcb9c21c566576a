"""Checks of devices, before they fail."""

import itertools
import re
import sys
import time
from typing import TYPE_CHECKING, Any

from zoo.utils.errors import UserError
from zoo.utils.memory import keep_freed_memory

if TYPE_CHECKING:
    import torch


LAST_RELEASE = {(7, 0): "2.7.1"}  # the last torch whose default wheel was seen to support this capability


def unsupported(name: str, capability: tuple[int, int], arch_list: list[str], version: str) -> str | None:
    """Why this torch has no code for a GPU, and what to do; None where it has.

    Args:
        name: of the GPU.
        capability: its compute capability.
        arch_list: what torch was built for, ``sm_70``, ``compute_90``, ...
        version: of torch.
    """
    for kind, number, special in re.findall(r"\b(sm|compute)_(\d+)([a-z]?)\b", " ".join(arch_list)):
        built = (int(number[:-1]), int(number[-1]))
        in_family = kind == "compute" or built[0] == capability[0]  # compute_ is compiled for the GPU when loaded
        if built == capability or (not special and in_family and built < capability):
            return None
    wanted = f"sm_{capability[0]}{capability[1]}"
    release = LAST_RELEASE.get(capability)
    remedy = f"torch {release} has it: pip install torch=={release}" if release else "Install a torch that lists it"
    return (
        f"torch {version} has no code for {name} ({wanted}), only for {', '.join(arch_list)}. {remedy} "
        "(python -c 'import torch; print(torch.cuda.get_arch_list())'), or take the CPU: --device cpu."
    )


def check_gpus(indices: list[int]) -> None:
    """Refuse GPUs that could only fail.

    Raises:
        UserError: names the GPU and the torch that supports it.
    """
    import torch

    for index in indices:
        properties = torch.cuda.get_device_properties(index)
        capability = (properties.major, properties.minor)
        if reason := unsupported(properties.name, capability, torch.cuda.get_arch_list(), torch.__version__):
            raise UserError(reason)


def check_device_name(name: str) -> None:
    """Refuse what is no name of a device, before torch is imported.

    Raises:
        UserError: says which there are.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise UserError(f"'{name}' is no device: take auto, cpu, cuda, cuda:1 (the second GPU) or mps (Apple's).")


def use_device(name: str) -> "torch.device":
    """The device of this name, with its number; says on stderr which it is.

    Args:
        name: cpu, cuda, cuda:1, mps, or auto: a CUDA GPU where there is one, else the CPU.

    Raises:
        UserError: it is no device, there is none of this name, or torch cannot support it.
    """
    check_device_name(name)
    import torch

    count = torch.cuda.device_count()
    if name == "auto":
        name = "cuda" if count else "cpu"
    kind, _, number = name.partition(":")
    if kind == "cuda" and int(number or 0) >= count:
        built = "" if torch.version.cuda else " (this torch was built without CUDA)"
        there = (
            f"torch sees {count} CUDA GPU{'s' * (count > 1)}, numbered from 0" if count else "torch sees no CUDA GPU"
        )
        raise UserError(f"There is no device '{name}' here: {there}{built}. Leave out --device to take what there is.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("There is no device 'mps' here: it is Apple's GPU. Leave out --device to take what there is.")
    device = torch.device(kind, int(number or 0)) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        check_gpus([device.index])
    if kind == "cpu":
        keep_freed_memory()
    allow_tf32(False)
    print(f"Running on {describe(device)}.", file=sys.stderr)
    return device


def allow_tf32(allowed: bool) -> None:
    """Whether NVIDIA GPUs from Ampere on may round the factors of float32 products and convolutions to 10 bits (TF32).

    It makes them several times as fast, and is off by default here: torch alone allows it for convolutions. SIRENs
    multiply the rounding of a point's place by their frequencies.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def describe(device: "torch.device") -> str:
    """A device and, of a GPU, its model."""
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def wait_for(device: "torch.device") -> None:
    """Until all that a device was given to compute is done."""
    import torch

    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


class Stopwatch:
    """Takes times of what a device computes.

    A CUDA GPU computes what it is given later, in order: marks are events in that order, and nothing waits for them
    before ``seconds`` does. So what was given to it before the first mark is not counted, and neither is waiting.
    """

    def __init__(self, device: "torch.device") -> None:
        self.device = device
        self.marks: list[Any] = []

    def mark(self) -> None:
        """Note the time at which what was asked for so far is done."""
        if self.device.type == "cuda":
            import torch

            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self.device))
            self.marks.append(event)
        else:
            wait_for(self.device)
            self.marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Between each mark and the next."""
        wait_for(self.device)
        if self.device.type == "cuda":
            return [before.elapsed_time(after) / 1000 for before, after in itertools.pairwise(self.marks)]
        return [after - before for before, after in itertools.pairwise(self.marks)]
