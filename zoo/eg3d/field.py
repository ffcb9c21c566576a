"""EG3D's radiance field and where rays are sampled (sections 3.1, 3.2, 4.2).

B batch, R rays, S samples, C channels of a plane, F rendered features, V side of a plane
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from zoo.draws import Draws
from zoo.layers.lookup import sample_planes
from zoo.layers.stylegan2 import Dense
from zoo.render import Importance, Rays, Samples
from zoo.render.depths import smoothed
from zoo.utils.errors import UserError
from zoo.utils.ranges import above, at_least

# The coordinates that are the place in each of the three planes. In the published program the third is the second one,
# turned: there is no plane of y and z, and all of its weights are of that.
AXES = {"official": ((0, 1), (0, 2), (2, 0)), "fixed": ((0, 1), (0, 2), (2, 1))}


class TriPlaneField(nn.Module):
    """Points, looked up in three planes, to density and features; the same from all directions.

    Args:
        channels: of each plane.
        hidden_dim: width of the decoder.
        feature_dim: of the rendered features, which are colours in [0, 1] but for a thousandth.
        extent: side of the cube that the planes span (box_warp) [world units]; beyond it they are zero.
        plane_axes: "official" for two of the same plane, as published, or "fixed".
        rate: learning rate of the decoder, as a share of the others'.
    """

    def __init__(
        self,
        channels: int = 32,
        hidden_dim: int = 64,
        feature_dim: int = 32,
        extent: float = 1.0,
        plane_axes: Literal["official", "fixed"] = "official",
        rate: float = 1.0,
    ) -> None:
        at_least(1, self, channels=channels, hidden_dim=hidden_dim, feature_dim=feature_dim)
        above(0, self, extent=extent, rate=rate)
        super().__init__()
        self.channels, self.feature_dim, self.extent, self.axes = channels, feature_dim, extent, AXES[plane_axes]
        self.hidden = Dense(channels, hidden_dim, rate=rate)
        self.output = Dense(hidden_dim, 1 + feature_dim, rate=rate)

    def forward(self, samples: Samples, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Raw density [B, R, S, 1] and features [B, R, S, F] of B x R x S samples in planes [B, 3, C, V, V]."""
        found = self.look_up(samples.points.flatten(1, 2), planes).mean(1)
        raw, features = self.decode(found.unflatten(1, samples.t.shape[1:]))
        return raw, features

    def look_up(self, points: Tensor, planes: Tensor) -> Tensor:
        """Features [B, 3, N, C] of world points [B, N, 3] in each plane."""
        return sample_planes(planes, points * (2 / self.extent), self.axes)

    def decode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Raw density [..., 1] and features [..., F] of features of planes [..., C]."""
        raw, colours = self.output(softplus(self.hidden(features))).split([1, self.feature_dim], dim=-1)
        return raw, colours.sigmoid() * (1 + 2 * 0.001) - 0.001


# Depths


@dataclass(frozen=True)
class FixedLimits:
    """Evenly spaced depths, each moved further by up to a step, so that the last may lie beyond ``far``.

    Args:
        near, far: of the first and the last, unmoved [world units].
        samples: of each ray.
        disparity: evenly spaced in the reciprocal of depth.
    """

    near: float
    far: float
    samples: int
    disparity: bool = False

    def __post_init__(self) -> None:
        (above if self.disparity else at_least)(0, self, near=self.near)
        above(self.near, self, far=self.far)
        at_least(2, self, samples=self.samples)

    def __call__(self, rays: Rays, draws: Draws | None) -> Samples:
        share = places(rays, self.samples, draws)
        if self.disparity:
            t = 1 / (1 / self.near * (1 - share) + 1 / self.far * share)
        else:
            t = self.near + (self.far - self.near) * share
        return Samples(rays.origins, rays.directions, t)


@dataclass(frozen=True)
class BoxLimits:
    """As ``FixedLimits``, between where each ray enters and leaves a cube about the origin (the published "auto").

    Rays that miss it get limits that others of the batch have: the smallest near one and the largest far one.

    Args:
        side: of the cube [world units].
        samples: of each ray.
        published_far: rays that miss the cube end at the largest near limit, a slip of the published program.
    """

    side: float
    samples: int
    published_far: bool = True

    def __post_init__(self) -> None:
        above(0, self, side=self.side)
        at_least(2, self, samples=self.samples)

    def __call__(self, rays: Rays, draws: Draws | None) -> Samples:
        near, far = self.limits(rays)
        return Samples(rays.origins, rays.directions, near + (far - near) * places(rays, self.samples, draws))

    @torch.no_grad()
    def limits(self, rays: Rays) -> tuple[Tensor, Tensor]:
        """Near and far limit of each ray [B, R, 1]; -1 and -2 where no ray of the batch hits the cube."""
        near, far = self.hits(rays)
        hit = far > near
        last, some = near if self.published_far else far, hit.any()
        nearest, farthest = near.masked_fill(~hit, torch.inf).min(), last.masked_fill(~hit, -torch.inf).max()
        return torch.where(hit | ~some, near, nearest), torch.where(hit | ~some, far, farthest)

    def hits(self, rays: Rays) -> tuple[Tensor, Tensor]:
        """Where rays enter and leave the cube [B, R, 1]; -1 and -2 for those that miss it."""
        faces = torch.stack([(side * self.side / 2 - rays.origins) / rays.directions for side in (-1, 1)])
        near, far = faces.amin(0).amax(-1, keepdim=True), faces.amax(0).amin(-1, keepdim=True)
        missed = near > far
        return near.masked_fill(missed, -1.0), far.masked_fill(missed, -2.0)


def places(rays: Rays, samples: int, draws: Draws | None) -> Tensor:
    """Shares of the way from near to far, [B, R, S]: even ones, each moved further by up to a step."""
    shape = (*rays.origins.shape[:-1], samples)
    like = {"device": rays.origins.device, "dtype": rays.origins.dtype}
    moved = 0.5 if draws is None else draws.uniform("jitter", shape)
    return torch.linspace(0, 1, samples, **like).expand(shape) + moved / (samples - 1)


@dataclass(frozen=True)
class SmoothedImportance:
    """Depths drawn from the weights of a coarse pass that were made wider and blurred first (Mip-NeRF, section 3.1).

    Args:
        samples: how many to draw per ray.
        floor: added to every weight.
    """

    samples: int
    floor: float = 0.01

    def __post_init__(self) -> None:
        at_least(0, self, samples=self.samples, floor=self.floor)

    def __call__(self, t: Tensor, weights: Tensor, draws: Draws | None) -> Tensor:
        if t.shape[-1] < 4:
            raise UserError(f"SmoothedImportance needs at least 4 samples of the coarse pass, not {t.shape[-1]}.")
        smooth = smoothed(interval_weights(weights)) + self.floor
        return Importance(self.samples, right=True)(t[..., :-1], smooth, draws)


def interval_weights(weights: Tensor) -> Tensor:
    """Weights of intervals [B, R, S - 1], of each of which the midpoint quadrature gave a half to both of its ends."""
    sign = (-1.0) ** torch.arange(weights.shape[-1], device=weights.device, dtype=weights.dtype)
    return (2 * sign * (sign * weights).cumsum(-1))[..., :-1]
