"""Progressive growing (section 3.3)."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from zoo.layers.stylegan2 import resolutions
from zoo.utils.host_numbers import number, rounded
from zoo.utils.ranges import above, at_least


class Grown(NamedTuple):
    """Level of progressive growing: side of the images, and share of their finest level."""

    side: int
    share: float


def grown(alpha: Tensor, start: int | None, end: int) -> Grown:
    """After a share alpha of the growth from one side to another; below 0 and from 1 on there is nothing to grow.

    Where a level begins, its share is 0: the level before is shown enlarged.
    """
    share = number(alpha)
    if start is None or not 0 <= share < 1:
        return Grown(end, 1.0)
    if share == 0:
        return Grown(start, 1.0)
    levels = len(resolutions(start, end)) - 1
    place = rounded(share * levels, alpha.dtype)
    return Grown(start * 2 ** (int(place) + 1), place - int(place))


@dataclass(frozen=True)
class Growth:
    """Progressive growing: from ``begin`` images on, even until ``end`` (section 3.3)."""

    begin: int = 500_000
    end: int = 5_000_000

    def __post_init__(self) -> None:
        at_least(0, self, begin=self.begin)
        above(self.begin, self, end=self.end)

    def __call__(self, images_seen: int) -> float:
        """Share of the growth after so many images."""
        return min(max((images_seen - self.begin) / (self.end - self.begin), 0.0), 1.0)
