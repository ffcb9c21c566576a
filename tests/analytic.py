"""Generators with closed-form renders, that answer the interface of every system: solids, and cheats that are none."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from zoo.generator import Generator
from zoo.render import Camera, Rays, Rendered, UniformPoses, look_at, pixel_centres, through


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


class Surface(Analytic):
    """A solid that is known by its signed distance alone; rays are marched to it in steps of that (Hart 1996)."""

    def signed_distance(self, points: Tensor, styles: Latent | None) -> Tensor:
        raise NotImplementedError

    def hit(self, rays, camera):
        t = rays.origins.new_full(rays.origins.shape[:-1], 2.0)
        for _ in range(96):
            left = self.signed_distance(rays.origins + t[..., None] * rays.directions, None)[..., 0]
            t = t + left
        return torch.where(left.abs() < 1e-3, t, torch.nan)


class BallSurface(Surface):
    """A ball of radius ``half``."""

    def signed_distance(self, points, styles):
        return points.norm(dim=-1, keepdim=True) - self.half


class TorusSurface(Surface):
    """A torus about the y axis: a tube of radius 0.4 ``half`` round a circle of radius ``half``."""

    def signed_distance(self, points, styles):
        x, y, z = points.split(1, dim=-1)
        return ((x.square() + z.square()).sqrt() - self.half).hypot(y) - 0.4 * self.half


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


# ---------------------------------------------------------------------------------- scenes that metrics must tell apart


class Scene(Analytic):
    """An object with colours of its own, anti-aliased as photographs are: each pixel is the mean of samples^2 rays.

    Args:
        frontal: cameras from half a radian to either side, instead of all around.
        samples: 1 for one ray through the middle of each pixel.
    """

    def __init__(self, resolution: int = 64, frontal: bool = False, samples: int = 2, fov_deg: float = 30) -> None:
        super().__init__(resolution)
        self.samples, spread = samples, 0.25 if frontal else math.pi
        self.poses = UniformPoses(yaw_spread=spread, pitch_mean=1.3, pitch_spread=0.1, radius=4.0, fov_deg=fov_deg)

    def surface(self, rays: Rays, styles: Latent) -> tuple[Tensor, Tensor]:
        """Distance along unit rays [B, R], NaN where they miss, and colours there in [-1, 1], [B, R, 3]."""
        raise NotImplementedError

    def shown(self, rays: Rays, styles: Latent, camera: Camera) -> tuple[Tensor, Tensor]:
        """As ``surface``, but the image may be another matter."""
        return self.surface(rays, styles)

    def render(self, styles, camera, *, resolution=None, draws=None):
        side = (resolution or self.resolution) * self.samples
        t, colours = self.shown(through(camera, pixel_centres(side)), styles, camera)
        hit = t.isfinite()[..., None]
        maps = torch.cat([torch.where(hit, colours, 1), hit, t.nan_to_num(0)[..., None]], dim=-1)
        maps = avg_pool2d(maps.mT.unflatten(2, (side, side)), self.samples)
        image, opacity = maps[:, :3], maps[:, 3:4]
        return Rendered(image, image, maps[:, 4:] / opacity, opacity)


class Ball(Scene):
    """An honest solid: a sphere with waves of colour on it."""

    def surface(self, rays, styles):
        t = Sphere.hit(self, rays, None)
        waves = torch.tensor([[1.0, 0.5, -0.3], [-0.4, 1, 0.6], [0.3, -0.7, 1]]) * 6
        points = rays.origins + t[..., None] * rays.directions
        return t, 0.8 * (points @ waves + 3 * styles.z[:, None]).sin()


def to_ellipsoid(origins: Tensor, directions: Tensor, middle: Tensor, size: Tensor) -> Tensor:
    """Distance along unit rays [B, R], infinite where they miss."""
    origins, directions = (origins - middle) / size, directions / size
    a, b = directions.square().sum(-1), (origins * directions).sum(-1)
    inside = b.square() - a * (origins.square().sum(-1) - 1)
    return torch.where(inside > 0, (-b - inside.clamp(min=0).sqrt()) / a, torch.inf)


def to_box(origins: Tensor, directions: Tensor, middle: Tensor, size: Tensor) -> Tensor:
    """Distance along unit rays [B, R], infinite where they miss."""
    first, second = ((sign * size - origins + middle) / directions for sign in (-1, 1))
    near, far = torch.minimum(first, second).amax(-1), torch.maximum(first, second).amin(-1)
    return torch.where(near < far, near, torch.inf)


BODY = (to_box, (0.0, -0.05, 0.0), (0.3, 0.13, 0.7), (0.6, -0.8, -0.8))
CABIN = (to_ellipsoid, (0.0, 0.1, -0.1), (0.26, 0.22, 0.42), (-0.6, -0.4, 0.8))
WHEELS = [
    (to_ellipsoid, (x, -0.18, z), (0.08, 0.14, 0.14), (-0.8, -0.8, -0.8)) for x in (-0.28, 0.28) for z in (-0.42, 0.42)
]
LAMPS = [(to_ellipsoid, (x, -0.02, 0.68), (0.07, 0.05, 0.05), (1.0, 0.8, 0.0)) for x in (-0.18, 0.18)]
PARTS = [BODY, CABIN, *WHEELS, *LAMPS]


class ToyCar(Scene):
    """An honest solid: a car of boxes and ellipsoids, with hard edges between its colours."""

    def surface(self, rays, styles):
        each = [to(*rays[:2], rays.origins.new_tensor(at), rays.origins.new_tensor(size)) for to, at, size, _ in PARTS]
        t, part = torch.stack(each, dim=-1).min(-1)
        t = torch.where(t.isfinite(), t, torch.nan)
        colours = torch.tensor([colour for *_, colour in PARTS])[part]
        points = rays.origins + t[..., None] * rays.directions
        return t, (colours * (0.8 + 0.2 * styles.z[:, None]) + 0.3 * points).clamp(-1, 1)


def front(camera: Camera) -> Camera:
    """As many cameras, all in front."""
    origins = torch.tensor([[0.0, 0.0, 4.0]]).expand(len(camera.pose), -1)
    return Camera(look_at(origins), camera.intrinsics)


def axial(camera: Camera, directions: Tensor) -> Tensor:
    """How far unit rays [B, R, 3] get along the optical axis, per length [B, R]."""
    return -(directions * camera.pose[:, None, :3, 2]).sum(-1)


class FixedBoard(ToyCar):
    """A board that stands in the world, with the image of the car as seen from the front on it."""

    def shown(self, rays, styles, camera):
        t = -rays.origins[..., 2] / rays.directions[..., 2]
        points = rays.origins + t[..., None] * rays.directions
        eye = torch.tensor([0.0, 0.0, 4.0])
        hit, colours = self.surface(Rays(eye.expand_as(points), nn.functional.normalize(points - eye, dim=-1)), styles)
        return torch.where(hit.isfinite() & (t > 0), t, torch.nan), colours


class FacingBoard(ToyCar):
    """A board that always faces the camera, with the image of the car as seen from there on it."""

    def shown(self, rays, styles, camera):
        t, colours = self.surface(rays, styles)
        return torch.where(t.isfinite(), 4.0 / axial(camera, rays.directions), torch.nan), colours


class FrozenBoard(ToyCar):
    """A board that always faces the camera, with the same image on it from all sides."""

    def shown(self, rays, styles, camera):
        there = through(front(camera), pixel_centres(round(rays.origins.shape[1] ** 0.5)))
        t, colours = self.surface(there, styles)
        return torch.where(t.isfinite(), 4.0 / axial(camera, rays.directions), torch.nan), colours


class FrozenImage(ToyCar):
    """The shape of the car, but its image is the same from all sides."""

    def render(self, styles, camera, *, resolution=None, draws=None):
        image = super().render(styles, front(camera), resolution=resolution).image
        return super().render(styles, camera, resolution=resolution)._replace(image=image, raw=image)


class ChangingColours(ToyCar):
    """The shape of the car, but its colours change with the direction from which it is seen."""

    def shown(self, rays, styles, camera):
        t, colours = super().shown(rays, styles, camera)
        x, _, z = (camera.origins / camera.origins.norm(dim=-1, keepdim=True)).unbind(-1)
        return t, (colours + 0.5 * torch.stack([z, x, -x], dim=-1)[:, None]).clamp(-1, 1)


class AxialDepth(ToyCar):
    """The car, but what it calls distance is depth along the optical axis."""

    def shown(self, rays, styles, camera):
        t, colours = super().shown(rays, styles, camera)
        return t * axial(camera, rays.directions), colours


class WrongLens(ToyCar):
    """The car, but seen through a lens of 1.3 times the focal length that the cameras have."""

    def render(self, styles, camera, *, resolution=None, draws=None):
        longer = camera.intrinsics * torch.tensor([[1.3, 1, 1], [1, 1.3, 1], [1, 1, 1]])
        return super().render(styles, Camera(camera.pose, longer), resolution=resolution)


SCENES = {
    "honest ball": Ball,
    "honest car": ToyCar,
    "board in the world": FixedBoard,
    "board that faces the camera": FacingBoard,
    "the same, one image": FrozenBoard,
    "one image on the car": FrozenImage,
    "changing colours": ChangingColours,
    "depth along the axis": AxialDepth,
    "wrong lens": WrongLens,
}
