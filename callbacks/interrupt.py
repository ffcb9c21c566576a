"""Ctrl-C: finish the iteration, save, say how to go on."""

import signal
import sys
import threading
from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer


class Interrupted(RuntimeError):
    """The run was stopped by Ctrl-C after it was saved; the message says how to resume."""


class GracefulInterrupt(Callback):
    """The first Ctrl-C ends the run after this iteration and saves ``checkpoints/last.ckpt``; a second one aborts.

    Args:
        command: what resumes the run; ``{checkpoint}`` stands for the checkpoint.
    """

    def __init__(self, command: str = "zoo fit ... --ckpt_path {checkpoint}") -> None:
        self.command = command
        self.asked = False
        self.previous = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            self.previous = signal.signal(signal.SIGINT, self.ask)

    def ask(self, *_: object) -> None:
        """Take note of the first Ctrl-C; the next one does what it always does."""
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("\nFinishing this iteration, then saving. Press Ctrl-C again to abort at once.", file=sys.stderr)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        # One process may have heard it before the others: all stop after the same iteration.
        if trainer.strategy.reduce_boolean_decision(self.asked, all=False):
            checkpoint = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
            trainer.save_checkpoint(checkpoint)
            command = self.command.format(checkpoint=checkpoint)
            raise Interrupted(f"Stopped at iteration {pl_module.iterations} and saved. To resume:\n{command}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)
            self.previous = None
