"""Checkpoints to resume from."""

from pathlib import Path

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint


class RegularCheckpoint(Checkpoint):
    """Writes ``<run>/checkpoints/last.ckpt`` every so often and at the end, and some that are kept.

    A run that ends with an error writes nothing: the last checkpoint is from before it.

    Args:
        every: iterations between two writings of ``last.ckpt``.
        keep_every: iterations between two checkpoints that stay, ``iteration-001000.ckpt``; by default none does.
    """

    def __init__(self, every: int = 1000, keep_every: int | None = None) -> None:
        self.every, self.keep_every = every, keep_every
        self.saved = -1

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        now = pl_module.iterations
        if now % self.every == 0 or trainer.global_step == trainer.max_steps:
            self.save(trainer, now, "last.ckpt")
        if self.keep_every and now % self.keep_every == 0:
            self.save(trainer, now, f"iteration-{now:06d}.ckpt")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.saved != pl_module.iterations:
            self.save(trainer, pl_module.iterations, "last.ckpt")

    def save(self, trainer: Trainer, iteration: int, name: str) -> None:
        """Write one; all processes take part."""
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / name)
        self.saved = iteration
