"""How OpenMP's threads wait for each other, how many there are, and how many CPUs they may use.

OpenMP's libraries read their settings once, when torch loads them, so ``import zoo`` sets them before anything imports
torch. They are environment variables, which every process that this one starts inherits. Nothing here imports torch.
"""

import math
import os
from pathlib import Path

# Threads meet at a barrier after every operation, thousands of times in a training step. By default the first ones to
# arrive spin for many milliseconds. That is the fastest way to wait while each thread has a CPU of its own; beside
# another program they keep the CPU from the very thread that they wait for. GNU's library (Linux) counts turns of its
# loop, Intel's and LLVM's (conda, macOS) milliseconds. docs/speed.md says what that gains and costs.
SHORT_SPIN = {"GOMP_SPINCOUNT": "5000", "KMP_BLOCKTIME": "0"}
WAITING = {
    *SHORT_SPIN,
    "OMP_WAIT_POLICY",
    "KMP_LIBRARY",
}  # if one of these is set, the user has chosen how threads wait

THREADS_GIVEN = "OMP_NUM_THREADS" in os.environ  # by the user, or by the process that started this one


def configure_openmp() -> None:
    """Have threads wait with a short spin, and start no more than there are CPUs for this process."""
    if not WAITING & os.environ.keys():
        os.environ |= SHORT_SPIN
    limit_threads(int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def limit_threads(processes: int) -> int | None:
    """Set OMP_NUM_THREADS to what each of so many processes of this machine may use, for libraries that are not loaded
    yet and for processes that are still to start.

    Returns:
        that number; None, and nothing is set, where the user chose it, or the libraries' own choice is as good.
    """
    threads = cpus_of_each(processes)
    if THREADS_GIVEN or threads >= affinity():
        return None
    os.environ["OMP_NUM_THREADS"] = str(threads)
    return threads


def cpus_of_each(processes: int) -> int:
    """CPUs for each of so many processes of this machine, at least one."""
    cpus = available_cpus()
    # srun often gives each process CPUs of its own, which are not to be divided once more
    together = int(os.environ.get("SLURM_CPUS_ON_NODE", cpus))
    return max(1, min(cpus, together // processes))


def available_cpus(root: Path = Path("/")) -> int:
    """CPUs that this process may use: those it may run on, and no more than a container's share of time is worth.

    A share is rounded down: one thread too many is stopped when the time is spent, and all others wait for it.
    """
    return max(1, int(min(affinity(), cpu_quota(root))))


def affinity() -> int:
    """CPUs that this process may run on (``taskset``, cpusets, SLURM)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(root: Path = Path("/")) -> float:
    """Time that the control groups of this process, and those around them, may spend [CPUs]; inf without a limit.

    Both versions of Linux's control groups. Inside a container its own group is often mounted as if it was the root, so
    groups whose folders are not there are left out.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    quotas = [math.inf]
    for _, controllers, group in (line.split(":", 2) for line in lines):
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = Path(group.lstrip("/"))
        for mount in ("cpu", controllers) if controllers else (".", "unified"):
            quotas += [group_quota(root / "sys/fs/cgroup" / mount / part) for part in (group, *group.parents)]
    return min(quotas)


def group_quota(folder: Path) -> float:
    """Time that a control group may spend [CPUs]; inf without a limit.

    Kernel documentation, admin-guide/cgroup-v2 ("cpu.max") and scheduler/sched-bwc (version 1).
    """
    for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((folder / file).read_text() for file in files).split()
        except OSError:
            continue
        if quota not in ("max", "-1"):
            return int(quota) / int(period)
    return math.inf
