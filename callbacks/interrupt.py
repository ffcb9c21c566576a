"""Graceful interruption: finish the iteration, save a checkpoint and print how to resume."""

import shlex
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.environments import SLURMEnvironment
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.distributed import ReduceOp

from callbacks.checkpoint import save_together
from zoo.training.lightning_private import cluster_environment, requeued_checkpoint
from zoo.utils.errors import Stopped


class Interrupted(Stopped):
    """The run was interrupted and saved; the message says how to resume."""


class GracefulInterrupt(Callback):
    """Ends an interrupted run after the current iteration, saved as ``checkpoints/last.ckpt``.

    Ctrl-C (exit code 130): a second one aborts at once. SIGTERM (exit code 143, 128 + 15, as of any process that it
    ended), which ``kill``, clusters and clouds send before they take the machine away. One process may receive a
    signal before others, or alone: all save and stop after the same iteration.

    In a job of SLURM (``sbatch --signal=SIGUSR1@90 ...``) Lightning answers SIGUSR1: it saves ``hpc_ckpt_<n>.ckpt`` and
    puts the job back into the queue; this callback only makes it wait for the end of the iteration, since between two
    optimizer steps there is no state to resume from, and processes would wait for each other in different places.
    SIGTERM saves such a file, too, so that a preempted job resumes when it is requeued.

    Args:
        command: what resumes the run; ``{checkpoint}`` stands for the checkpoint.
    """

    def __init__(self, command: str = "zoo fit ... --ckpt_path {checkpoint}") -> None:
        self.command = command
        self.received: set[int] = set()
        self.signals = [signal.SIGINT, signal.SIGTERM]
        self.requeue: Callable | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        slurm = slurm_environment(trainer)
        requeue_signal = slurm.requeue_signal if slurm is not None and slurm.auto_requeue else None
        self.signals = [signal.SIGINT, signal.SIGTERM] + ([] if requeue_signal is None else [requeue_signal])
        # Later than Lightning, which would end the run on SIGTERM without saving, talking to other processes from
        # within the signal's handler. However the run ends, Lightning restores all handlers as they were before it.
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.signal(number, self.on_signal) for number in self.signals}
            self.requeue = before.get(requeue_signal)

    def on_signal(self, number: int, frame: Any) -> None:
        """Record a signal; a second Ctrl-C aborts."""
        self.received.add(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            print("\nFinishing this iteration, then saving. Press Ctrl-C again to abort at once.", file=sys.stderr)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        interrupted, terminated, *requeued = self.received_anywhere(trainer)
        if any(requeued):
            self.received.discard(self.signals[2])
            self.requeue(self.signals[2], None)
        if interrupted or terminated:
            self.stop(trainer, pl_module, signal.SIGINT if interrupted else signal.SIGTERM)

    def received_anywhere(self, trainer: Trainer) -> list[bool]:
        """Which of the signals any of the processes has received."""
        received = [number in self.received for number in self.signals]
        if trainer.world_size == 1:
            return received
        device = trainer.strategy.root_device
        return (
            trainer.strategy.reduce(torch.tensor(received, device=device).int(), reduce_op=ReduceOp.MAX).bool().tolist()
        )

    def stop(self, trainer: Trainer, pl_module: LightningModule, number: int) -> None:
        """Save, and end the run."""
        checkpoint = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        how = f"To resume:\n{self.resuming(checkpoint)}"
        if number == signal.SIGTERM and slurm_environment(trainer) is not None:
            # the name that Lightning looks for when the job is started again
            checkpoint = requeued_checkpoint(trainer)
            how = "The same job resumes from there when it is requeued; elsewhere:\n"
            how += self.resuming(checkpoint)
        save_together(trainer, checkpoint)
        cause = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
        raise Interrupted(
            f"Stopped{cause} at iteration {pl_module.iterations} and saved. {how}",
            code=128 + number,
            silent=trainer.global_rank > 0,
        )

    def resuming(self, checkpoint: Path) -> str:
        """The command that resumes from this checkpoint, as a shell takes it."""
        return self.command.format(checkpoint=shlex.quote(str(checkpoint)))


def slurm_environment(trainer: Trainer) -> SLURMEnvironment | None:
    """The SLURM job in which this runs; None outside of one."""
    environment = cluster_environment(trainer)
    return environment if isinstance(environment, SLURMEnvironment) else None
