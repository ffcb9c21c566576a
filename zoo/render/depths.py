"""Where along each ray the field is sampled.

Depths count in lengths of the ray's direction. With ``draws=None`` nothing is random.

B batch, R rays, S samples
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d

from zoo.draws import Draws
from zoo.render.rays import Rays
from zoo.utils.constants import constant
from zoo.utils.protocols import untyped_in_configs
from zoo.utils.ranges import above, at_least


class Samples(NamedTuple):
    """Points on rays.

    origins, directions: of the rays, [B, R, 3].
    t: depths, [B, R, S].
    positions: the points [B, R, S, 3], where they are not origin + t direction.
    """

    origins: Tensor
    directions: Tensor
    t: Tensor
    positions: Tensor | None = None

    @property
    def points(self) -> Tensor:
        """World points [B, R, S, 3]."""
        if self.positions is not None:
            return self.positions
        return self.origins[..., None, :] + self.t[..., None] * self.directions[..., None, :]

    def take(self, rays: slice | Tensor) -> "Samples":
        """The samples of some of the rays: the same ones of every image, or those with these indices [B, K]."""
        image = torch.arange(len(rays), device=rays.device)[:, None] if isinstance(rays, Tensor) else slice(None)
        return Samples._make(None if x is None else x[image, rays] for x in self)

    def single(self, index: Tensor) -> "Samples":
        """Some samples as rays of one sample each; index [B, K] runs through ray after ray."""
        ray = (index // self.t.shape[-1])[..., None].expand(-1, -1, 3)
        t = self.t.flatten(1).gather(1, index)[..., None]
        positions = self.positions
        if positions is not None:
            positions = positions.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, 3))[:, :, None]
        return Samples(self.origins.gather(1, ray), self.directions.gather(1, ray), t, positions)


def has_length(samples: Samples) -> Tensor:
    """Which rays are sampled along some way, bool [B, R]: one that misses what depths look for has none."""
    return (samples.t[..., -1] != samples.t[..., 0]) | (samples.t.shape[-1] == 1)


@untyped_in_configs
class Depths(Protocol):
    """``(rays, draws) -> Samples`` at S increasing depths on each ray."""

    def __call__(self, rays: Rays, draws: Draws | None, /) -> Samples: ...


@untyped_in_configs
class FineDepths(Protocol):
    """``(t [B, R, S], weights [B, R, S], draws) -> t [B, R, F]``, in any order, where the weights are large."""

    def __call__(self, t: Tensor, weights: Tensor, draws: Draws | None, /) -> Tensor: ...


@dataclass(frozen=True)
class JitteredUniform:
    """Evenly spaced depths, ends included, each jittered by up to half a step (pi-GAN, CIPS-3D, VolumeGAN).

    The first and last may leave [near, far] by half a step; the order is kept. Points are computed in camera space and
    then moved to the world, as published: a SIREN amplifies even the difference in rounding.
    """

    near: float
    far: float
    samples: int

    def __post_init__(self) -> None:
        at_least(0, self, near=self.near)
        above(self.near, self, far=self.far)
        at_least(2, self, samples=self.samples)

    def __call__(self, rays: Rays, draws: Draws | None) -> Samples:
        even, offset = _uniform(self, rays), None
        if draws is not None:
            offset = (draws.uniform("jitter", even.shape) - 0.5) * (even[..., 1:2] - even[..., :1])
        t = even if offset is None else even + offset
        if rays.local is None or rays.pose is None:
            return Samples(rays.origins, rays.directions, t)
        local = rays.local[:, :, None] * even[..., None]
        if offset is not None:
            local = local + offset[..., None] * rays.local[:, :, None]
        homogeneous = torch.nn.functional.pad(local.flatten(1, 2), (0, 1), value=1.0)
        positions = (rays.pose @ homogeneous.mT).mT[..., :3].reshape_as(local)
        return Samples(rays.origins, rays.directions, t, positions)


@dataclass(frozen=True)
class Stratified:
    """Evenly spaced depths, each drawn from its own cell: halfway to its neighbours, but not beyond the ends (NeRF)."""

    near: float
    far: float
    samples: int

    def __post_init__(self) -> None:
        at_least(0, self, near=self.near)
        above(self.near, self, far=self.far)
        at_least(1, self, samples=self.samples)

    def __call__(self, rays: Rays, draws: Draws | None) -> Samples:
        return Samples(rays.origins, rays.directions, stratify(_uniform(self, rays), draws))


def stratify(t: Tensor, draws: Draws | None, name: str = "jitter") -> Tensor:
    """Each of increasing numbers [..., S] drawn from its own cell: halfway to its neighbours, not beyond the ends."""
    if draws is None:
        return t
    middles = (t[..., 1:] + t[..., :-1]) / 2
    low, high = torch.cat([t[..., :1], middles], -1), torch.cat([middles, t[..., -1:]], -1)
    return low + (high - low) * draws.uniform(name, t.shape)


def _uniform(depths: JitteredUniform | Stratified, rays: Rays) -> Tensor:
    device, dtype = rays.origins.device, rays.origins.dtype
    line = torch.linspace(depths.near, depths.far, depths.samples, device=device, dtype=dtype)
    return line.expand(*rays.origins.shape[:-1], -1)


@dataclass(frozen=True)
class InsideSphere:
    """Depths only where a ray is inside a sphere around the origin, one drawn from each of equal cells.

    A ray that misses the sphere gets all its depths at its nearest point: intervals of no length.
    """

    radius: float
    samples: int

    def __post_init__(self) -> None:
        above(0, self, radius=self.radius)
        at_least(1, self, samples=self.samples)

    def __call__(self, rays: Rays, draws: Draws | None) -> Samples:
        a = rays.directions.square().sum(-1, keepdim=True)
        b = (rays.origins * rays.directions).sum(-1, keepdim=True)
        c = rays.origins.square().sum(-1, keepdim=True) - self.radius**2
        return _in_cells(rays, -b / a, (b * b - a * c).clamp(min=0).sqrt() / a, self.samples, draws)


@dataclass(frozen=True)
class InsideBox:
    """Depths only where a ray is inside a box around the origin, one drawn from each of equal cells.

    A ray that misses the box gets all its depths where it is nearest to the origin: intervals of no length.

    Args:
        half: half the lengths of the box along x, y and z [world units].
        samples: of each ray.
    """

    half: tuple[float, float, float]
    samples: int

    def __post_init__(self) -> None:
        above(0, self, half=self.half)
        at_least(1, self, samples=self.samples)

    def __call__(self, rays: Rays, draws: Draws | None) -> Samples:
        half = constant(self.half, rays.origins)
        # A direction along a face never crosses it; at a depth of infinity the other faces decide.
        steps = 1 / torch.where(rays.directions == 0, 1e-12, rays.directions)
        middles, reach = -rays.origins * steps, half * steps.abs()
        near, far = ((middles + side * reach) for side in (-1, 1))
        near, far = near.amax(-1, keepdim=True), far.amin(-1, keepdim=True)
        squared = rays.directions.square().sum(-1, keepdim=True)
        nearest = -(rays.origins * rays.directions).sum(-1, keepdim=True) / squared
        middle = torch.where(near < far, (near + far) / 2, nearest)
        return _in_cells(rays, middle, ((far - near) / 2).clamp(min=0), self.samples, draws)


def _in_cells(rays: Rays, middle: Tensor, half: Tensor, samples: int, draws: Draws | None) -> Samples:
    shape = (*middle.shape[:-1], samples)
    place = 0.5 if draws is None else draws.uniform("jitter", shape)
    cells = (torch.arange(samples, device=middle.device, dtype=middle.dtype).expand(shape) + place) / samples
    return Samples(rays.origins, rays.directions, middle + half * (2 * cells - 1))


@dataclass(frozen=True)
class Importance:
    """Depths drawn from the weights of a coarse pass (NeRF section 5.2); evenly spaced quantiles without draws.

    Args:
        samples: how many to draw per ray.
        floor: added to every weight, so that no cell is empty.
        right: which cell a number that falls exactly on a border belongs to.
        smooth: weights are made wider and blurred first, see ``smoothed``: where a surface is sharp, the first sample
            behind it has all the weight, and it may lie in the cell before.
    """

    samples: int
    floor: float = 1e-5
    right: bool = False
    smooth: bool = False

    def __post_init__(self) -> None:
        at_least(0, self, samples=self.samples, floor=self.floor)  # none: as published without a fine pass

    def __call__(self, t: Tensor, weights: Tensor, draws: Draws | None) -> Tensor:
        shape = (*t.shape[:-1], self.samples)
        if draws is None:
            u = torch.linspace(0, 1, self.samples, device=t.device, dtype=t.dtype).expand(shape)
        else:
            u = draws.uniform("importance", shape)
        middles = (t[..., 1:] + t[..., :-1]) / 2
        weights = smoothed(weights) if self.smooth else weights
        return inverse_cdf(middles, weights[..., 1:-1] + self.floor, u, self.right)


def smoothed(weights: Tensor) -> Tensor:
    """Of weights [B, R, S] each the mean of the larger ones of it and either neighbour (Mip-NeRF, section 3.1)."""
    wide = max_pool1d(weights.flatten(0, 1)[:, None], 2, stride=1, padding=1)
    return avg_pool1d(wide, 2, stride=1)[:, 0].view_as(weights)


def inverse_cdf(edges: Tensor, weights: Tensor, u: Tensor, right: bool = False) -> Tensor:
    """Quantiles u of the piecewise constant distribution with these cells.

    Args:
        edges: borders of the cells, [..., N + 1].
        weights: positive weight of each cell, not normalised, [..., N].
        u: numbers in [0, 1], [..., M].
        right: which cell a number exactly on a border belongs to.

    Returns:
        Quantiles, [..., M]; within cells of less than 1e-5 of the whole weight not interpolated.
    """
    density = weights / weights.sum(-1, keepdim=True)
    cdf = torch.cat([torch.zeros_like(density[..., :1]), density.cumsum(-1)], dim=-1)
    index = torch.searchsorted(cdf, u.contiguous(), right=right)
    below, above = (index - 1).clamp(min=0), index.clamp(max=weights.shape[-1])
    cdf_below, cdf_above = cdf.gather(-1, below), cdf.gather(-1, above)
    low, high = edges.gather(-1, below), edges.gather(-1, above)
    width = cdf_above - cdf_below
    width = torch.where(width < 1e-5, torch.ones_like(width), width)
    return low + (u - cdf_below) / width * (high - low)
