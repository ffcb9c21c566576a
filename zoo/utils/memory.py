"""Memory: how much this process has had, how much there is, what fits, and a setting that makes training faster."""

import ctypes
import errno
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt


def keep_freed_memory() -> None:
    """Keep the memory of freed tensors for the next ones, instead of requesting it from the system again.

    Fresh pages must be cleared by the system, which costs more than the arithmetic of a layer. Peak memory grows by at
    most some of the largest tensors, since pieces between them stay unused. Does nothing without glibc.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_MAX, 0)  # memory of mmap is never kept, and a larger M_MMAP_THRESHOLD than 32 MiB is refused
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def peak_memory() -> int | None:
    """The most memory that this process has had [bytes]; None where the system has no such count (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


PIXEL = 6 * 2**10  # bytes that a generator takes for a pixel of an image; measured: 3,800 (VolumeGAN) to 5,600 (pi-GAN)
LEAST_PIXEL = 100  # that any generator takes
MOST_PIXELS = 2**17  # more at once is no faster


def images_at_once(side: int, device: "torch.device", most: int = 8) -> int:
    """How many images of this side [pixels] to render at once: as many as are fast and fit, at least one.

    Raises:
        MemoryError: there cannot be room for one; a system that promises more memory than it has would end the process.
    """
    free = available_memory(device)
    if free is not None and side**2 * LEAST_PIXEL > free:
        raise MemoryError(f"An image of {side}x{side} pixels takes more than the {free / 2**30:.1f} GiB that are left.")
    pixels = MOST_PIXELS if free is None else min(MOST_PIXELS, free // 2 // PIXEL)
    return max(1, min(most, pixels // side**2))


def available_memory(device: "torch.device", root: Path = Path("/")) -> int | None:
    """What a device has left [bytes], of the host what a container may still have; None where that is not known."""
    if device.type == "cuda":
        import torch

        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for what comes next
        return torch.cuda.mem_get_info(device)[0] + kept
    left = []
    with suppress(OSError, StopIteration, ValueError):
        lines = (root / "proc/meminfo").read_text().splitlines()
        left.append(int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024)
    with suppress(OSError, ValueError):  # "max" where there is no limit
        group = root / "sys/fs/cgroup"
        free = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
        left.append(free + held_files(group / "memory.stat"))
    return max(0, min(left)) if left else None


def held_files(facts: Path) -> int:
    """How much of a container's memory [bytes] is copies of files, which make room for what needs it."""
    with suppress(OSError, ValueError):
        counts = dict(line.split() for line in facts.read_text().splitlines())
        return int(counts.get("active_file", 0)) + int(counts.get("inactive_file", 0))
    return 0


def out_of_memory(error: BaseException | None) -> str | None:
    """Whose memory ran out, if this error, or one that it was raised from, says that; None for other errors.

    torch has a type for GPUs only.
    """
    while error is not None:
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(error, torch.OutOfMemoryError):
            return "the GPU"
        if isinstance(error, RuntimeError) and "MPS backend out of memory" in str(error):
            return "the GPU"
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return "this machine"
        if isinstance(error, RuntimeError | TypeError) and any(text in str(error) for text in NO_MEMORY):
            return "this machine"
        error = error.__cause__ or error.__context__
    return None


NO_MEMORY = (
    "DefaultCPUAllocator: ",  # can't allocate memory, on Windows: not enough memory
    "Storage size calculation overflowed",
    "numel: integer multiplication overflow",
    "Overflow when unpacking long",  # a size that no number of the machine could be
)
