"""The time of training steps alone, and the end of a training whose budget of it is spent."""

import sys
import time
from typing import Any

import pytorch_lightning as pl

from zoo.utils.errors import UserError
from zoo.utils.ranges import above, given
from zoo.utils.states import check_state

CLOCKS = {"processor_seconds": time.process_time, "wall_seconds": time.perf_counter}


class StepClock(pl.Callback):
    """Base of callbacks that need the time of training steps: neither scores, sample images and checkpoints count.

    ``zoo fit`` has them called before all others; in a trainer of your own, list them first. A resumed run goes on
    counting.

    seconds: by clock. Processor seconds are those of all threads of this process, whatever other programs do.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(CLOCKS, 0.0)
        self.started = dict.fromkeys(CLOCKS, 0.0)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.seconds)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Earlier checkpoints have processor seconds alone, as "seconds".
        counted = {"processor_seconds": state_dict.get("seconds", 0.0), "wall_seconds": 0.0} | state_dict
        check_state(counted, dict.fromkeys(CLOCKS, 0.0), "the clock")
        self.seconds = {name: counted[name] for name in CLOCKS}

    def on_train_batch_start(self, *_: Any) -> None:
        self.started = {name: read() for name, read in CLOCKS.items()}

    def on_train_batch_end(self, *_: Any) -> None:
        for name, read in CLOCKS.items():
            self.seconds[name] += read() - self.started[name]


class Budget(StepClock):
    """Ends training after the iteration in which its steps have taken so long. Give one of the two.

    Args:
        processor_seconds: of all threads of the process; for CPUs, where other programs take time, too.
        wall_seconds: that pass during steps; for GPUs.

    Raises:
        UserError: none of them is given, or both, or it is not above 0.
    """

    def __init__(self, processor_seconds: float | None = None, wall_seconds: float | None = None) -> None:
        limits = given(processor_seconds=processor_seconds, wall_seconds=wall_seconds)
        above(0, self, **limits)
        if len(limits) != 1:
            raise UserError("Budget has two clocks: give processor_seconds or wall_seconds, and not both.")
        super().__init__()
        ((self.clock, self.limit),) = limits.items()

    @property
    def share(self) -> float:
        """Of the budget that is spent."""
        return self.seconds[self.clock] / self.limit

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.share >= 1:
            trainer.should_stop = True
            if trainer.is_global_zero:
                print(f"resume: all {self.limit:g} {self.clock.replace('_', ' ')} are spent", file=sys.stderr)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        super().on_train_batch_end()
        self.seconds = trainer.strategy.broadcast(self.seconds)  # all processes stop after the same iteration
        trainer.should_stop = trainer.should_stop or self.share >= 1


def share_done(trainer: pl.Trainer, gan: pl.LightningModule) -> float:
    """How much of the training is done, from 0: of its ``Budget``, or of ``max_steps`` where it has none.

    Raises:
        UserError: it has neither.
    """
    budget = next((callback for callback in trainer.callbacks if isinstance(callback, Budget)), None)
    if budget is not None:
        return budget.share
    if trainer.max_steps < 1:
        raise UserError(
            "Shares of a training without an end say nothing: give --trainer.max_steps or callbacks.budget.Budget."
        )
    return gan.iterations / trainer.max_steps
