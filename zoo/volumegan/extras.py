"""Ways of rendering that the published VolumeGAN knows, but its experiments do not use.

They are parts of ``zoo.render.Volume``, and what ``zoo.volumegan.convert`` makes of a published file's arguments.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from zoo.draws import Draws
from zoo.render import (
    Background,
    Density,
    Depths,
    FineDepths,
    Intervals,
    Rays,
    Samples,
    Volume,
    black,
    open_ended,
    relu,
    transmission_weights,
)


@dataclass(frozen=True)
class Unjittered:
    """Other depths, without their jitter."""

    depths: Depths

    def __call__(self, rays: Rays, draws: Draws | None) -> Samples:
        return self.depths(rays, None)


def late_softplus(raw: Tensor, points: Tensor) -> Tensor:
    """softplus(raw - 1), as in Mip-NeRF: a new field is nearly empty."""
    return softplus(raw - 1)


def equal(t: Tensor, directions: Tensor) -> Tensor:
    """Every sample stands for one world unit."""
    return torch.ones_like(t)


@dataclass(frozen=True)
class Until:
    """From each sample to the next one, and from the last one to a depth."""

    far: float

    def __call__(self, t: Tensor, directions: Tensor) -> Tensor:
        return t.diff(append=torch.full_like(t[..., :1], self.far)) * directions.norm(dim=-1, keepdim=True)


class TwiceWeighed(Volume):
    """A ``Volume`` that weighs the first samples in a way of their own before it draws finer ones.

    Args:
        coarse_density, coarse_intervals: of that way.
        depths, density, background, fine, intervals, chunk: as in ``Volume``.
    """

    def __init__(
        self,
        depths: Depths,
        coarse_density: Density,
        coarse_intervals: Intervals = open_ended,
        density: Density = relu,
        background: Background = black,
        fine: FineDepths | None = None,
        intervals: Intervals = open_ended,
        chunk: int | None = 4096,
    ) -> None:
        super().__init__(depths, density, background, fine, intervals, chunk)
        self.coarse_density, self.coarse_intervals = coarse_density, coarse_intervals

    def weigh(self, samples: Samples, raw: Tensor, draws: Draws | None, density_noise: float, name: str) -> Tensor:
        if name == "final":
            return super().weigh(samples, raw, draws, density_noise, name)
        density = self.coarse_density(raw, samples.points)[..., 0]
        return transmission_weights(density, self.coarse_intervals(samples.t, samples.directions))
