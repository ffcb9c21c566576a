"""Generators with closed-form renders, that answer the interface of every system: solids, and cheats that are none."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.generator import Generator
from zoo.render import Camera, Rays, Rendered, UniformPoses, pixel_centres, through


class Latent(NamedTuple):
    z: Tensor


class Analytic(Generator):
    """A solid of random colour on white; cameras all around it, from a little above."""

    def __init__(self, resolution: int = 32, half: float = 0.5, haze: float = 0.0) -> None:
        poses = UniformPoses(yaw_spread=math.pi, pitch_mean=1.3, pitch_spread=0.3, radius=4.0, fov_deg=40)
        super().__init__(poses, resolution, [[-1.0] * 3, [1.0] * 3])
        self.half, self.haze = half, haze
        self.tint = nn.Parameter(torch.zeros(3))

    def latents(self, n, draws):
        return Latent(draws.normal("z", (n, 3)))

    def map(self, latent, *, truncation=1.0, condition=None):
        return Latent((truncation * latent.z + self.tint).tanh())

    def rays(self, camera: Camera, resolution: int) -> Rays:
        return through(camera, pixel_centres(resolution))

    def hit(self, rays: Rays, camera: Camera) -> Tensor:
        """Distance along unit rays [B, R], NaN where they miss."""
        raise NotImplementedError

    def render(self, styles, camera, *, resolution=None, draws=None):
        resolution = resolution or self.resolution
        rays = self.rays(camera, resolution)
        t = self.hit(rays, camera).reshape(-1, 1, resolution, resolution)
        solid = t.isfinite()
        points = (rays.origins + t.flatten(1)[..., None].nan_to_num(0) * rays.directions).mT.reshape(
            -1, 3, resolution, resolution
        )
        colour = (styles.z[:, :, None, None] * 0.7 + 0.3 * points).clamp(-1, 1)
        image = torch.where(solid, colour, torch.ones_like(colour))
        if draws is not None:
            image = image + 0.01 * draws.normal("jitter", image.shape)
        return Rendered(image, image, t, solid.float())


class Box(Analytic):
    def hit(self, rays, camera):
        size = rays.origins.new_tensor([self.half, 0.5 * self.half, 0.7 * self.half])
        first, second = (-size - rays.origins) / rays.directions, (size - rays.origins) / rays.directions
        near, far = torch.minimum(first, second).amax(-1), torch.maximum(first, second).amin(-1)
        return torch.where(near < far, near, torch.nan)

    def density(self, points, styles):
        size = points.new_tensor([self.half, 0.5 * self.half, 0.7 * self.half])
        return 1000.0 * (points.abs() < size).all(-1, keepdim=True) + self.haze


class Sphere(Analytic):
    def hit(self, rays, camera):
        middle = -(rays.origins * rays.directions).sum(-1)
        inside = self.half**2 - (rays.origins + middle[..., None] * rays.directions).square().sum(-1)
        return torch.where(inside > 0, middle - inside.clamp(min=0).sqrt(), torch.nan)

    def density(self, points, styles):
        return 1000.0 * (points.norm(dim=-1, keepdim=True) < self.half) + self.haze


class Billboard(Sphere):
    """A flat board that always faces the camera: a disc, or with ``lopsided`` a quarter of one."""

    def __init__(self, lopsided: bool = False, **kwargs) -> None:
        super().__init__(**kwargs)
        self.lopsided = lopsided

    def hit(self, rays, camera):
        forward = -camera.pose[:, None, :3, 2]
        t = -(rays.origins * forward).sum(-1) / (rays.directions * forward).sum(-1)
        points = rays.origins + t[..., None] * rays.directions
        right, up = ((points * camera.pose[:, None, :3, axis]).sum(-1) for axis in (0, 1))
        on = points.norm(dim=-1) < self.half
        return torch.where(on & (right > 0) & (up > 0) if self.lopsided else on, t, torch.nan)
