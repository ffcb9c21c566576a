"""DataLoaders and their workers, which read images: how they are made, what workers do on signals, how they end."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sized
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader, default_collate, get_worker_info

from zoo.utils.errors import SHARED_MEMORY_FULL, Stopped, reader_died

MOST_CHOSEN = 8  # readers that are started for one process unless the user asks for more


class Loader(DataLoader):
    """A DataLoader that reports the death of a worker also if it happened while a batch was sent.

    torch notices when a worker ends, but sometimes only after the connection to it was found broken.
    """

    def __iter__(self) -> Iterator[Any]:
        return self._received(super().__iter__())

    def _received(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (ConnectionError, EOFError, FileNotFoundError) as error:
                # The error of a living worker arrives as text alone, without a number.
                if not self.num_workers or (isinstance(error, OSError) and error.errno is None):
                    raise
                raise Stopped(reader_died()) from error
            yield batch


def chosen_workers(cpus: int, device: torch.device) -> int:
    """How many processes read fastest beside training.

    Networks that compute on CPUs need all of them. Beside a GPU one CPU is left to the process that feeds it; where
    that is the only one, another process would take turns with it.

    Args:
        cpus: for this process and its readers.
        device: where the networks compute.
    """
    return 0 if device.type == "cpu" else min(MOST_CHOSEN, cpus - 1)


def loader(
    dataset: Sized,
    batch_size: int = 1,
    num_workers: int = 0,
    device: torch.device = torch.device("cpu"),
    **options: Any,
) -> Loader:
    """A loader whose workers handle signals and errors as all workers here do.

    Args:
        dataset: what is read.
        batch_size: items of a batch, where ``options`` give no ``batch_sampler``.
        num_workers: processes that read; 0 reads in this one.
        device: where batches are used. For a CUDA GPU they are put into memory that it copies from while it computes,
            and workers stay for the next time that the loader is used.
        options: as of ``torch.utils.data.DataLoader``.
    """
    is_cuda = device.type == "cuda"
    ours = {"collate_fn": collate, "worker_init_fn": ignore_stop_signals}
    ours |= {"pin_memory": is_cuda, "persistent_workers": is_cuda and num_workers > 0}
    return Loader(dataset=dataset, batch_size=batch_size, num_workers=num_workers, **ours | options)


def collate(items: list[Any]) -> Any:
    """A batch of items; from a reader, in the memory that it shares with the process that it reads for.

    torch by itself puts some tensors there only in a thread of the reader which sends them. Where there is no space
    left for them, it prints the error, and the run waits for that batch for ever.

    Raises:
        zoo.utils.errors.Stopped: there is no space left.
    """
    try:
        batch = default_collate(items)
        return batch if get_worker_info() is None else tree_map_only(Tensor, Tensor.share_memory_, batch)
    except RuntimeError as error:
        if os.strerror(errno.ENOSPC) not in str(error):  # such as images of unequal sizes
            raise
        raise Stopped(SHARED_MEMORY_FULL) from error


def ignore_stop_signals(worker: int) -> None:
    """In a worker: keep running when the whole process group is told to stop, until the trainer has finished the
    iteration and saved; exit when the parent process requests it, or has ended.

    A terminal sends Ctrl-C, and SLURM, systemd and ``kill -- -GROUP`` send SIGTERM, to every process of a run. Python
    ends its readers by SIGTERM, too, when a run is over while they still wait for work, as after any error, and then
    waits for them: only the sender of the signal distinguishes the two.

    Args:
        worker: number of this worker.
    """
    sys.excepthook = ignore_lost_connections
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigtimedwait"):  # macOS: readers end on every SIGTERM, as torch has it
        return
    for notice in (signal.SIGUSR1, signal.SIGUSR2):  # SLURM's, before a job's time is over, to every process, too
        signal.signal(notice, signal.SIG_IGN)
    # A thread waits for the signal: a handler in Python does not learn who sent it, and runs only between two lines of
    # Python, which a reader that hangs on a disk or a lock never reaches.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=exit_with_parent, args=(parent_process(),), daemon=True).start()


def ignore_lost_connections(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints an error of a thread of this worker, unless its connection to the trainer is lost."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def exit_with_parent(parent: BaseProcess) -> None:
    """Exits at once when the parent sends SIGTERM, and within a second after the parent has ended."""
    received = None
    while parent.is_alive() and (received is None or received.si_pid != parent.pid):
        received = signal.sigtimedwait({signal.SIGTERM}, 1)
    os._exit(0)  # a reader has nothing to save; torch takes another code for a failure
