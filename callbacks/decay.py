"""Learning rate decay at milestones, for systems whose papers have none."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl

from callbacks.budget import share_done
from zoo.training.optimizers import share_learning_rates
from zoo.utils.errors import UserError
from zoo.utils.ranges import above, at_least, between, given


class LearningRateDecay(pl.Callback):
    """Multiplies all learning rates at milestones, which are iterations, or shares of the whole training.

    Milestones are a function of the iteration alone, so that a run resumes exactly. So are shares of ``max_steps``;
    those of a ``callbacks.budget.Budget`` depend on how fast the machine is, and a run ends as well trained on a slow
    one. Not for systems that set their learning rates themselves, by stages or milestones of their own.

    Args:
        milestones: iterations from which on the learning rates are multiplied once more.
        factor: by this, in (0, 1].
        shares: instead of milestones: shares of the training, in [0, 1], such as [0.78, 0.92]: of its ``Budget``, or of
            ``max_steps`` where it has none.

    Raises:
        UserError: the factor is not in (0, 1], a milestone is below 0, a share is not in [0, 1], or not one of the two
            is given.
    """

    def __init__(
        self, milestones: Sequence[int] | None = None, factor: float = 0.3, shares: Sequence[float] | None = None
    ) -> None:
        at_least(0, self, **given(milestones=milestones))
        between(0, 1, self, **given(shares=shares))
        above(0, self, factor=factor)
        between(0, 1, self, factor=factor)
        if (milestones is None) == (shares is None):
            raise UserError("LearningRateDecay needs to know when: give milestones or shares, and not both.")
        self.milestones, self.factor, self.shares = milestones, factor, shares

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if self.shares is None:
            passed = sum(pl_module.iterations >= milestone for milestone in self.milestones)
        else:
            done = share_done(trainer, pl_module)
            passed = sum(done >= share for share in self.shares)
        share_learning_rates(trainer.optimizers, pl_module.settings, self.factor**passed)
