"""Memory of this process: how much it has had, and a setting that makes training on a CPU a fifth faster."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def keep_freed_memory() -> None:
    """Keep the memory of freed tensors for the next ones, instead of requesting it from the system again.

    Fresh pages must be cleared by the system, which costs more than the arithmetic of a small layer. Peak memory stays
    the same. Does nothing without glibc.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_THRESHOLD, 32 * 1024**2)  # the largest that glibc takes
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def peak_memory() -> int | None:
    """The most memory that this process has had [bytes]; None where the system has no such count (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
