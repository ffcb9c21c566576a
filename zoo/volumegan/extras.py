"""Ways of rendering that the published VolumeGAN knows, but its experiments do not use.

They are parts of ``zoo.render.VolumeRenderer``; ``zoo.volumegan.convert`` makes them of a published file's arguments.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.draws import Draws
from zoo.render import Depths, Rays, Samples
from zoo.utils.ranges import above


@dataclass(frozen=True)
class Unjittered:
    """Other depths, without their jitter."""

    depths: Depths

    def __call__(self, rays: Rays, draws: Draws | None) -> Samples:
        return self.depths(rays, None)


def unit_intervals(t: Tensor, directions: Tensor) -> Tensor:
    """Every interval has the length of one world unit."""
    return torch.ones_like(t)


@dataclass(frozen=True)
class FarLastInterval:
    """From each sample to the next; the last interval ends at a depth."""

    far: float

    def __post_init__(self) -> None:
        above(0, self, far=self.far)

    def __call__(self, t: Tensor, directions: Tensor) -> Tensor:
        return t.diff(append=torch.full_like(t[..., :1], self.far)) * directions.norm(dim=-1, keepdim=True)
