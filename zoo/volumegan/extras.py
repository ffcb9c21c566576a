"""Ways of rendering that the published VolumeGAN knows, but its experiments do not use.

They are parts of ``zoo.render.Volume``, and what ``zoo.volumegan.convert`` makes of a published file's arguments.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from zoo.draws import Draws
from zoo.render import Depths, Rays, Samples


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
