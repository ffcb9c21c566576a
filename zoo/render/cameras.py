"""Cameras and the distributions they are drawn from.

World: right-handed, y up. Camera space: x right, y up, looking down -z (OpenGL). Image coordinates run from (0, 0)
at the top left corner of the image to (1, 1) at the bottom right corner. Angles are radians.

B batch
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from zoo.draws import Draws, coin
from zoo.utils.constants import constant
from zoo.utils.ranges import above, at_least, between, finite, inside

ORIGIN = (0.0, 0.0, 0.0)


class Camera(NamedTuple):
    """Where images are taken from, and with what lens. Of one image alone, both lack the axis B.

    pose: camera-to-world matrix, [B, 4, 4].
    intrinsics: normalised, [B, 3, 3]: focal lengths in units of the image's width and height, principal point
        (0.5, 0.5) in the middle.
    """

    pose: Tensor
    intrinsics: Tensor

    @property
    def origins(self) -> Tensor:
        """Camera positions in the world, [B, 3]."""
        return self.pose[:, :3, 3]

    def take(self, index: slice | Tensor) -> "Camera":
        """Cameras ``index`` of the batch (a slice or an index tensor)."""
        return Camera(self.pose[index], self.intrinsics[index])

    def to(self, where: torch.device | str | torch.dtype | Tensor) -> "Camera":
        """The same on another device, in another dtype, or in both as a tensor's."""
        return Camera(self.pose.to(where), self.intrinsics.to(where))

    def mirrored(self) -> "Camera":
        """The camera of the mirrored image: a mirrored world, x -> -x, seen through a mirrored lens."""
        flip = constant([-1.0, 1.0, 1.0, 1.0], self.pose)
        pose = flip[:, None] * self.pose * flip
        intrinsics = self.intrinsics.clone()
        intrinsics[..., 0, 1] *= -1  # skew
        intrinsics[..., 0, 2] = 1 - intrinsics[..., 0, 2]
        return Camera(pose, intrinsics)

    def cropped(self, left: Tensor | float, top: Tensor | float, width: Tensor | float, height: Tensor | float) -> Self:
        """The camera of a part of the image, given as shares of it, numbers or [B]; resizing changes nothing."""
        intrinsics = self.intrinsics.clone()
        intrinsics[..., 0, 2] -= left
        intrinsics[..., 1, 2] -= top
        intrinsics[..., 0, :] /= torch.as_tensor(width)[..., None]
        intrinsics[..., 1, :] /= torch.as_tensor(height)[..., None]
        return self._replace(intrinsics=intrinsics)


def look_at(origins: Tensor, target: Tensor | None = None, up: tuple[float, float, float] = (0.0, 1.0, 0.0)) -> Tensor:
    """Rigid camera-to-world matrices [B, 4, 4] of cameras at origins [B, 3] that look at target [B, 3], by default 0.

    The view direction must not be parallel to ``up``.
    """
    forward = torch.nn.functional.normalize((0 if target is None else target) - origins, dim=-1)
    left = torch.nn.functional.normalize(torch.linalg.cross(constant(up, forward).expand_as(forward), forward), dim=-1)
    true_up = torch.linalg.cross(forward, left)
    pose = torch.eye(4, dtype=origins.dtype, device=origins.device).repeat(len(origins), 1, 1)
    pose[:, :3, 0], pose[:, :3, 1], pose[:, :3, 2], pose[:, :3, 3] = -left, true_up, -forward, origins
    return pose


def intrinsics_from_fov(fov: float, n: int, like: Tensor) -> Tensor:
    """Normalised intrinsics [n, 3, 3] of square images with this field of view [rad]."""
    focal = focal_length(fov, like.dtype)
    return constant([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]], like).repeat(n, 1, 1)


@lru_cache
def focal_length(fov: float, dtype: torch.dtype) -> float:
    """Of a field of view [rad], in sides of the image; divided in that precision, as published."""
    return (0.5 / torch.tensor(math.tan(fov / 2), dtype=dtype, device="cpu")).item()


def sphere_points(yaw: Tensor, pitch: Tensor, radius: float | Tensor) -> Tensor:
    """Points [B, 3] on a sphere: pitch [B, 1] is the angle from +y, yaw [B, 1] the azimuth from +x towards +z.

    yaw = pitch = pi/2 is the front, (0, 0, radius).
    """
    return radius * torch.cat([pitch.sin() * yaw.cos(), pitch.cos(), pitch.sin() * yaw.sin()], dim=-1)


def orbit_cameras(
    yaw: Tensor, pitch: Tensor, radius: float | Tensor, fov: float, pivot: Sequence[float] = ORIGIN
) -> Camera:
    """Cameras on a sphere around a point, looking at it.

    Args:
        yaw, pitch: angles as in ``sphere_points``, [B, 1].
        radius: distance from that point [world units].
        fov: field of view of the whole image, both ways [rad].
        pivot: that point, by default the origin.
    """
    middle = constant(pivot, yaw)
    origins = middle + sphere_points(yaw, clamp_pitch(pitch), radius)
    return Camera(look_at(origins, middle), intrinsics_from_fov(fov, len(yaw), yaw))


def orbit_camera(camera: Camera, yaw: Tensor, elevation: Tensor, pivot: Sequence[float] | Tensor = ORIGIN) -> Camera:
    """Cameras [B] moved round a point, which they keep seeing in the same place; differentiable.

    Args:
        camera: B cameras.
        yaw: round the vertical axis, from the front to the right, [B, 1] [rad].
        elevation: upwards, [B, 1] [rad].
        pivot: that point [3], by default the origin.
    """
    up = constant([0.0, 1.0, 0.0], yaw)
    turn = rotations(yaw * up) @ rotations(-elevation * camera.pose[:, :3, 0])
    middle = torch.as_tensor(pivot).to(camera.pose)
    places = middle + (turn @ (camera.origins - middle)[..., None])[..., 0]
    return camera._replace(pose=rigid(turn @ camera.pose[:, :3, :3], places))


def rigid(rotation: Tensor, places: Tensor) -> Tensor:
    """Poses [B, 4, 4] of rotations [B, 3, 3] and places [B, 3]."""
    rows = torch.cat([rotation, places[..., None]], dim=-1)
    last = constant([0.0, 0.0, 0.0, 1.0], rows).expand(len(rows), 1, 4)
    return torch.cat([rows, last], dim=1)


def rotations(vectors: Tensor) -> Tensor:
    """Rotation matrices [B, 3, 3] about these axes by their lengths [rad], [B, 3]."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    return torch.linalg.matrix_exp(cross)


def clamp_pitch(pitch: Tensor) -> Tensor:
    """The pitch [rad], at least 1e-5 from straight up and down, which have no "up"."""
    return pitch.clamp(1e-5, math.pi - 1e-5)


class Poses(Protocol):
    """A distribution of cameras."""

    def __call__(self, n: int, draws: Draws | None) -> Camera:
        """n cameras; with ``draws=None`` n times the middle one."""
        ...

    def turntable(self, n: int) -> Camera:
        """n cameras that show an object from all the sides this distribution knows, in order."""
        ...

    def orbit_at(self, turn: Tensor) -> Camera:
        """Cameras at these places [T] on the way of the turntable: 0 is its beginning, 1 its end."""
        ...


@dataclass(frozen=True)
class Orbit:
    """Cameras on a sphere around a point, looking at it: what the distributions below have in common.

    Args:
        yaw_mean, pitch_mean: middle of the distribution as in ``sphere_points`` [rad].
        yaw_spread, pitch_spread: its width [rad], as each distribution defines it.
        radius: distance from that point [world units].
        fov_deg: field of view of the whole image, both ways [degrees].
        pivot: that point, by default the origin [world units].
    """

    yaw_mean: float = math.pi / 2
    yaw_spread: float = 0.0
    pitch_mean: float = math.pi / 2
    pitch_spread: float = 0.0
    radius: float = 1.0
    fov_deg: float = 12.0
    pivot: tuple[float, float, float] = ORIGIN

    def __post_init__(self) -> None:
        finite(self, yaw_mean=self.yaw_mean, pitch_mean=self.pitch_mean, pivot=self.pivot)
        at_least(0, self, yaw_spread=self.yaw_spread, pitch_spread=self.pitch_spread)
        above(0, self, radius=self.radius)
        inside(0, 180, self, fov_deg=self.fov_deg)

    def __call__(self, n: int, draws: Draws | None) -> Camera:
        return self.with_angles(n, draws)[0]

    def with_angles(self, n: int, draws: Draws | None) -> tuple[Camera, Tensor, Tensor]:
        """n cameras, and their yaw and pitch [n, 1] [rad]."""
        yaw, pitch = self.angles(n, draws) if draws is not None else self.middle(n)
        return self.camera(yaw, pitch), yaw, pitch

    def angles(self, n: int, draws: Draws) -> tuple[Tensor, Tensor]:
        """Yaw and pitch [n, 1] of n cameras [rad]; always the mean, except in the distributions below."""
        return self.middle(n)

    def camera(self, yaw: Tensor, pitch: Tensor) -> Camera:
        """Cameras in these directions, both [B, 1] [rad]."""
        return orbit_cameras(yaw, pitch, self.radius, math.radians(self.fov_deg), self.pivot)

    def middle(self, n: int) -> tuple[Tensor, Tensor]:
        return torch.full((n, 1), self.yaw_mean), torch.full((n, 1), self.pitch_mean)

    def turntable(self, n: int) -> Camera:
        """Two spreads to either side; a full circle, without its end, where that is wider."""
        return self.orbit_at(torch.arange(n) / n if self.reach == math.pi else torch.linspace(0, 1, n))

    def orbit_at(self, turn: Tensor) -> Camera:
        """Cameras at these places [T] on the way of the turntable: 0 is its beginning, 1 its end."""
        yaw = self.yaw_mean - self.reach + 2 * self.reach * turn
        return self.camera(yaw[:, None], self.middle(len(turn))[1])

    @property
    def reach(self) -> float:
        """How far the turntable goes to either side [rad]."""
        return min(2 * self.yaw_spread, math.pi)


class FixedPoses(Orbit):
    """Always the mean."""


class UniformPoses(Orbit):
    """Both angles uniform within one spread of their means."""

    def angles(self, n: int, draws: Draws) -> tuple[Tensor, Tensor]:
        yaw = self.yaw_mean + (draws.uniform("yaw", (n, 1)) - 0.5) * 2 * self.yaw_spread
        return yaw, self.pitch_mean + (draws.uniform("pitch", (n, 1)) - 0.5) * 2 * self.pitch_spread


class GaussianPoses(Orbit):
    """Both angles gaussian; the spread is the standard deviation."""

    def angles(self, n: int, draws: Draws) -> tuple[Tensor, Tensor]:
        yaw = self.yaw_mean + self.yaw_spread * draws.normal("yaw", (n, 1))
        return yaw, self.pitch_mean + self.pitch_spread * draws.normal("pitch", (n, 1))


class TruncatedGaussianPoses(Orbit):
    """Both angles gaussian: of four numbers the first within two deviations, or the first of all where none is."""

    def angles(self, n: int, draws: Draws) -> tuple[Tensor, Tensor]:
        return (
            self.yaw_mean + self.yaw_spread * self._truncate(draws.normal("yaw", (n, 1, 4))),
            self.pitch_mean + self.pitch_spread * self._truncate(draws.normal("pitch", (n, 1, 4))),
        )

    @staticmethod
    def _truncate(candidates: Tensor) -> Tensor:
        first = (candidates.abs() < 2).int().argmax(-1, keepdim=True)
        return candidates.gather(-1, first)[..., 0]


class HybridPoses(Orbit):
    """One batch in two gaussian, the others uniform within two standard deviations; a coin for the whole batch."""

    def angles(self, n: int, draws: Draws) -> tuple[Tensor, Tensor]:
        kind, width = (UniformPoses, 2) if coin(draws, "pose_kind") < 0.5 else (GaussianPoses, 1)
        poses = kind(self.yaw_mean, width * self.yaw_spread, self.pitch_mean, width * self.pitch_spread)
        return poses.angles(n, draws)


class SpherePoses(Orbit):
    """Uniform over a band of the sphere: the yaw within one spread, the band's area by pitch.

    The pitch is arccos(1 - 2 v) with v uniform within ``pitch_spread / pi`` of ``pitch_mean / pi``; so the mean is not
    itself an angle: mean and spread of pi/4 give the upper hemisphere, v in [0, 1/2].
    """

    def angles(self, n: int, draws: Draws) -> tuple[Tensor, Tensor]:
        yaw = self.yaw_mean + (draws.uniform("yaw", (n, 1)) - 0.5) * 2 * self.yaw_spread
        v = (draws.uniform("pitch", (n, 1)) - 0.5) * 2 * (self.pitch_spread / math.pi) + self.pitch_mean / math.pi
        return yaw, (1 - 2 * v.clamp(1e-5, 1 - 1e-5)).arccos()

    def __post_init__(self) -> None:
        super().__post_init__()
        between(0, math.pi, self, pitch_mean=self.pitch_mean)

    def middle(self, n: int) -> tuple[Tensor, Tensor]:
        pitch = math.acos(1 - 2 * self.pitch_mean / math.pi)
        return torch.full((n, 1), self.yaw_mean), torch.full((n, 1), pitch)
