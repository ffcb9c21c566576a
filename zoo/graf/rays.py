"""Where GRAF's cameras are, which rays their pixels see, and the patches of pixels that it trains on (section 3.1)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from zoo.draws import Draws
from zoo.render import Camera, Rays, Samples, Stratified, orbit_cameras, stratify
from zoo.utils import ranges


@dataclass(frozen=True)
class OnSphere:
    """Cameras on a part of a sphere around the origin, evenly by area, looking at it (section 4, supplement table 4).

    Angles are measured as published: the azimuth around the vertical, the polar angle from straight up. They are
    computed in double precision, also as published.

    Args:
        azimuth_deg, polar_deg: ranges [degrees].
        radius: range of distances from the origin [world units].
        fov_deg: field of view of the whole image, both ways [degrees].
    """

    azimuth_deg: tuple[float, float] = (0.0, 360.0)
    polar_deg: tuple[float, float] = (0.0, 85.0)
    radius: tuple[float, float] = (10.0, 10.0)
    fov_deg: float = 30.0

    def __post_init__(self) -> None:
        ranges.finite(self, azimuth_deg=self.azimuth_deg)
        ranges.between(0, 180, self, polar_deg=self.polar_deg)
        ranges.above(0, self, radius=self.radius)
        ranges.inside(0, 180, self, fov_deg=self.fov_deg)

    def __call__(self, n: int, draws: Draws | None) -> Camera:
        if draws is None:
            middle = (sum(ends) / 2 for ends in (self.azimuth_deg, self.polar_deg, self.radius))
            azimuth, polar, radius = (torch.full((n, 1), x, dtype=torch.float64) for x in middle)
            return self.camera(azimuth.deg2rad(), polar.deg2rad(), radius)
        share = draws.uniform("azimuth", (n, 1))
        azimuth = between(*map(math.radians, self.azimuth_deg), share)
        cosine = between(*(math.cos(math.radians(x)) for x in self.polar_deg), draws.uniform("polar", (n, 1)))
        low, high = self.radius
        radius = between(low, high, draws.uniform("radius", (n, 1))) if low < high else low
        return self.camera(azimuth, cosine.arccos(), radius, share.dtype)

    def camera(
        self, azimuth: Tensor, polar: Tensor, radius: float | Tensor, dtype: torch.dtype | None = None
    ) -> Camera:
        """Cameras in these directions [rad] and distances, all [B, 1]; in this precision, or the default one."""
        camera = orbit_cameras(-azimuth.double(), polar.double(), radius, math.radians(self.fov_deg))
        return camera.to(dtype or torch.get_default_dtype())

    def turntable(self, n: int) -> Camera:
        """Along all azimuths, without the end of a full circle, at the middle polar angle and the largest radius."""
        first, last = self.azimuth_deg
        return self.orbit_at(torch.linspace(0, 1, n + (last - first >= 360), dtype=torch.float64)[:n])

    def orbit_at(self, turn: Tensor) -> Camera:
        """Cameras at these places [T] on the way of the turntable: 0 is its beginning, 1 its end."""
        azimuth = between(*self.azimuth_deg, turn[:, None])
        polar = torch.full_like(azimuth, sum(self.polar_deg) / 2)
        return self.camera(azimuth.deg2rad(), polar.deg2rad(), self.radius[1])


def between(low: float, high: float, share: Tensor) -> Tensor:
    return low + (high - low) * share.double()


def z_up(vectors: Tensor) -> Tensor:
    """Vectors [..., 3] of our world in the published one: its x is our x, its y our -z, its z our y."""
    x, y, z = vectors.unbind(-1)
    return torch.stack([x, -z, y], dim=-1)


def all_pixels(resolution: int, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Tensor:
    """Column and row of every pixel, [R, 2], row by row; in this precision, or the default one."""
    line = torch.arange(resolution, device=device, dtype=dtype or torch.get_default_dtype())
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([columns, rows], dim=-1).reshape(-1, 2)


# A lens makes rays [B, R, 3] from cameras, pixels [R, 2] and the image's resolution. The return type stays open, so
# that a config may name a class.
Lens = Callable[[Camera, Tensor, int], Any]


def perspective(camera: Camera, pixels: Tensor, resolution: int) -> Rays:
    """Rays from one point, through the top left corners of pixels; of length one along the optical axis.

    In the published order of operations: the field's highest frequency, 512, amplifies every rounding of a ray.
    """
    focal = (resolution * camera.intrinsics[:, 0, 0, None]).to(pixels.dtype)
    x, y = (pixels - resolution / 2).unbind(-1)
    local = torch.stack([x / focal, -y / focal, -torch.ones_like(x / focal)], dim=-1)
    directions = (local[:, :, None] * camera.pose[:, None, :3, :3]).sum(-1)
    return Rays(camera.origins[:, None].expand_as(directions), directions)


def through_centres(camera: Camera, pixels: Tensor, resolution: int) -> Rays:
    """As ``perspective``, but through the centres of pixels, as most images are made. Not published: there, the whole
    image lies half a pixel further down and to the right."""
    return perspective(camera, pixels + 0.5, resolution)


@dataclass(frozen=True)
class Orthographic:
    """Parallel rays; the image is ``width`` world units wide, whatever the camera's intrinsics say."""

    width: float

    def __post_init__(self) -> None:
        ranges.above(0, self, width=self.width)

    def __call__(self, camera: Camera, pixels: Tensor, resolution: int) -> Rays:
        x, y = ((pixels - resolution / 2) * (self.width / resolution)).unbind(-1)
        local = torch.stack([x, -y, torch.zeros_like(x)], dim=-1)
        axes = camera.pose[:, None, :3, :3]
        origins = (local[:, None] * axes).sum(-1) + camera.origins[:, None]
        return Rays(origins, -axes[..., 2].expand_as(origins))


@dataclass(frozen=True)
class AlongAxis(Stratified):
    """Stratified depths (NeRF, equation 2) between two planes, for cameras whose distance from the object varies.

    Args:
        near, far: depths of the planes, in lengths of the rays' directions, for a camera at ``radius``.
        samples: of each ray.
        radius: both planes are nearer by as much as a camera is nearer to the origin than this [world units]; None
            where all cameras are equally far.
    """

    radius: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        ranges.above(0, self, **ranges.given(radius=self.radius))

    def planes(self, rays: Rays) -> tuple[Tensor, Tensor]:
        """near and far of each ray, [B, R, 1]."""
        nearer = torch.zeros_like(rays.origins[..., :1])
        if self.radius is not None:  # the axes in published order, for the sake of the last bit
            nearer = self.radius - z_up(rays.origins).norm(dim=-1, keepdim=True)
        return self.near - nearer, self.far - nearer

    def __call__(self, rays: Rays, draws: Draws | None) -> Samples:
        near, far = self.planes(rays)
        share = torch.linspace(0, 1, self.samples, device=near.device, dtype=near.dtype)
        return Samples(*rays[:2], stratify(near * (1 - share) + far * share, draws))


@dataclass(frozen=True)
class Patches:
    """Where a patch has its points: an even grid that may cover all of the image or a part of it (section 3.1).

    Args:
        size: points of a patch each way, K.
        min_scale, max_scale: range of a patch's size as a share of the image's.
        anneal: the least scale falls from ``max_scale`` to ``min_scale`` by this rate; None for no annealing.
    """

    size: int = 32
    min_scale: float = 0.25
    max_scale: float = 1.0
    anneal: float | None = 0.0025

    def __post_init__(self) -> None:
        ranges.at_least(1, self, size=self.size)
        ranges.above(0, self, min_scale=self.min_scale)
        ranges.between(self.min_scale, 1, self, max_scale=self.max_scale)
        ranges.at_least(0, self, **ranges.given(anneal=self.anneal))

    def least_scale(self, iterations: int) -> float:
        """Least scale after so many iterations: exp(-3 anneal i / 1000) between the ends, and never above 0.9."""
        if self.anneal is None:
            return self.min_scale
        falling = self.max_scale * math.exp(-3 * (iterations // 1000) * self.anneal)
        return min(0.9, max(self.min_scale, falling))

    def __call__(self, n: int, iterations: int, draws: Draws) -> Tensor:
        """Places of n patches in their images, [n, K, K, 2], x to the right and y down.

        -1 and 1 are the centres of the outermost pixels.
        """
        share = draws.uniform("patch_scale", (n, 1))
        scale = between(self.least_scale(iterations), self.max_scale, share)
        shift = (1 - scale) * between(-1, 1, draws.uniform("patch_shift", (n, 2)))
        line = torch.linspace(-1, 1, self.size, device=share.device, dtype=share.dtype)
        rows, columns = torch.meshgrid(line, line, indexing="ij")
        grid = torch.stack([columns, rows], dim=-1)
        return grid * scale[:, None, None].to(share.dtype) + shift[:, None, None].to(share.dtype)


def sample_patches(images: Tensor, places: Tensor) -> Tensor:
    """Patches [B, C, K, K] of images [B, C, H, H] at these places [B, K, K, 2]."""
    return grid_sample(images, places.to(images.dtype), align_corners=True)
