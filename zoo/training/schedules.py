"""Curricula: stages that start at given iterations, and what rises or falls in them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from zoo.utils.errors import UserError
from zoo.utils.ranges import at_least, filled


def check_stages(stages: Sequence[Any]) -> list[Any]:
    """The stages, each of which has a ``start``, once that is checked.

    Raises:
        UserError: they do not start one after the other, the first one at 0.
    """
    if stages[0].start != 0 or any(a.start >= b.start for a, b in itertools.pairwise(stages)):
        starts = ", ".join(str(stage.start) for stage in stages)
        raise UserError(f"Stages must start at 0 and then ever later, not at {starts}.")
    return list(stages)


def current_stage(stages: Sequence[Any], iteration: int) -> Any:
    """The stage of an iteration."""
    return [stage for stage in stages if stage.start <= iteration][-1]


def ramp_up(iterations: int, over: int) -> float:
    """From 0 to 1 over so many iterations; 1 at once if over none."""
    return min(1.0, iterations / over) if over else 1.0


def ramp_down(iterations: int, over: int) -> float:
    """From 1 to 0 over so many iterations; 0 at once if over none."""
    return max(0.0, 1 - iterations / over) if over else 0.0


@dataclass(frozen=True)
class PiecewiseLinearSchedule:
    """Numbers after given counts of images seen, even changes between them, and the last number from then on.

    Args:
        images: the counts, the first one 0 and each larger than the one before.
        values: a number for each.

    Raises:
        UserError: the counts are no such ones, or there are more or fewer values.
    """

    images: list[int]
    values: list[float]

    def __post_init__(self) -> None:
        filled(self, images=self.images)
        at_least(0, self, images=self.images, values=self.values)
        if self.images[0] != 0 or any(a >= b for a, b in itertools.pairwise(self.images)):
            raise UserError(f"images of a schedule must begin with 0 and rise, not be {self.images}.")
        if len(self.values) != len(self.images):
            raise UserError(f"A schedule needs a value for each of images: {len(self.images)}, not {len(self.values)}.")

    def __call__(self, images_seen: int) -> float:
        return float(numpy.interp(images_seen, self.images, self.values))


@dataclass(frozen=True)
class LinearSchedule:
    """From one number to another, evenly over so many images, and the second from then on."""

    start: float
    end: float
    images: int

    def __post_init__(self) -> None:
        at_least(0, self, start=self.start, end=self.end, images=self.images)

    def __call__(self, images_seen: int) -> float:
        share = min(images_seen / self.images, 1.0) if self.images else 1.0
        return self.start * (1 - share) + self.end * share
