"""Learning rate decay at milestones, for systems whose papers have none."""

from typing import Any

import pytorch_lightning as pl

from zoo.training.optimizers import share_learning_rates
from zoo.utils.ranges import above, at_least, between


class LearningRateDecay(pl.Callback):
    """Multiplies all learning rates at milestones. A function of the iteration alone, so that a run resumes exactly.

    Not for systems that set their learning rates themselves, by stages or milestones of their own.

    Args:
        milestones: iterations from which on the learning rates are multiplied once more.
        factor: by this, in (0, 1].

    Raises:
        UserError: the factor is not in (0, 1], or a milestone is below 0.
    """

    def __init__(self, milestones: list[int], factor: float = 0.3) -> None:
        at_least(0, self, milestones=milestones)
        above(0, self, factor=factor)
        between(0, 1, self, factor=factor)
        self.milestones, self.factor = milestones, factor

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        share = self.factor ** sum(pl_module.iterations >= milestone for milestone in self.milestones)
        share_learning_rates(trainer.optimizers, pl_module.settings, share)
