"""When a run is told to stop: finish the iteration, save, say how to go on."""

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
from zoo.utils.errors import Stopped


class Interrupted(Stopped):
    """The run was told to stop, after which it was saved; the message says how to resume."""


class GracefulInterrupt(Callback):
    """Ends a run that is told to stop after this iteration, saved as ``checkpoints/last.ckpt``.

    Ctrl-C (exit code 130): a second one aborts at once. SIGTERM (exit code 143, 128 + 15, as of any process that it
    ended), which ``kill``, clusters and clouds send before they take the machine away. One process may hear a signal
    before others, or alone: all save and stop after the same iteration.

    In a job of SLURM (``sbatch --signal=SIGUSR1@90 ...``) Lightning answers SIGUSR1: it saves ``hpc_ckpt_<n>.ckpt`` and
    puts the job back into the queue; this callback only makes it wait for the end of the iteration, since between two
    optimizer steps there is no state to go on from, and processes would wait for each other in different places.
    SIGTERM saves such a file, too, so that a job that was pushed out goes on when it is started again.

    Args:
        command: what resumes the run; ``{checkpoint}`` stands for the checkpoint.
    """

    def __init__(self, command: str = "zoo fit ... --ckpt_path {checkpoint}") -> None:
        self.command = command
        self.asked: set[int] = set()
        self.heeded = [signal.SIGINT, signal.SIGTERM]
        self.requeue: Callable | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        slurm = slurm_environment(trainer)
        requeue_signal = slurm.requeue_signal if slurm is not None and slurm.auto_requeue else None
        self.heeded = [signal.SIGINT, signal.SIGTERM] + ([] if requeue_signal is None else [requeue_signal])
        # Later than Lightning, which would end the run on SIGTERM without saving, talking to other processes from
        # within the signal's handler. However the run ends, Lightning restores all handlers as they were before it.
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.signal(number, self.ask) for number in self.heeded}
            self.requeue = before.get(requeue_signal)

    def ask(self, number: int, frame: Any) -> None:
        """Take note of a signal; a second Ctrl-C does what it always does."""
        self.asked.add(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            print("\nFinishing this iteration, then saving. Press Ctrl-C again to abort at once.", file=sys.stderr)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        interrupted, terminated, *requeued = self.agreed(trainer)
        if any(requeued):
            self.asked.discard(self.heeded[2])
            self.requeue(self.heeded[2], None)
        if interrupted or terminated:
            self.stop(trainer, pl_module, signal.SIGINT if interrupted else signal.SIGTERM)

    def agreed(self, trainer: Trainer) -> list[bool]:
        """Which of the signals any of the processes has heard."""
        heard = [number in self.asked for number in self.heeded]
        if trainer.world_size == 1:
            return heard
        device = trainer.strategy.root_device
        return trainer.strategy.reduce(torch.tensor(heard, device=device).int(), reduce_op=ReduceOp.MAX).bool().tolist()

    def stop(self, trainer: Trainer, pl_module: LightningModule, number: int) -> None:
        """Save, and end the run."""
        checkpoint = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        command = self.command.format(checkpoint=checkpoint)
        how = f"To resume:\n{command}"
        if number == signal.SIGTERM and slurm_environment(trainer) is not None:
            # the name that Lightning looks for when the job is started again
            checkpoint = Path(trainer._checkpoint_connector.hpc_save_path(trainer.default_root_dir))
            how = "The same job goes on from there when it is started again; elsewhere:\n"
            how += self.command.format(checkpoint=checkpoint)
        save_together(trainer, checkpoint)
        told = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
        raise Interrupted(
            f"Stopped{told} at iteration {pl_module.iterations} and saved. {how}",
            code=128 + number,
            silent=trainer.global_rank > 0,
        )


def slurm_environment(trainer: Trainer) -> SLURMEnvironment | None:
    """The job of SLURM in which this is running."""
    environment = trainer._accelerator_connector.cluster_environment
    return environment if isinstance(environment, SLURMEnvironment) else None
