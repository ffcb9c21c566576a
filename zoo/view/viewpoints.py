"""Viewpoints: where somebody looks from, told by a mouse and understood by every generator.

Fields are learned at the distances of their own cameras: nearer, parts of the object would lie before the first sample
of a ray. So a viewpoint is a direction, and coming nearer or moving aside is done by the lens.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike

from zoo.export.views import path_weights
from zoo.generator import Generator
from zoo.render import Camera
from zoo.render.cameras import orbit_cameras

NEAREST = 0.05  # a client's camera, in distances of the generator's own; what is behind it cannot be seen


class Viewpoint(NamedTuple):
    """Where somebody looks from.

    yaw, pitch: direction from the pivot, as in ``zoo.render.cameras.sphere_points`` [rad].
    zoom: magnification, 1 for that of the generator's middle camera.
    right, up: where the pivot is seen, from where the middle camera sees it [sides of the image].
    """

    yaw: float
    pitch: float
    zoom: float = 1.0
    right: float = 0.0
    up: float = 0.0


class Stand:
    """The cameras of a generator that look from viewpoints: as far from its pivot as its middle camera.

    Args:
        generator: whose cameras they are.
    """

    def __init__(self, generator: Generator) -> None:
        self.middle = generator.cameras(1, None)
        self.pivot = generator.pivot.double().cpu().numpy()
        offset = self.middle.origins[0].double().cpu().numpy() - self.pivot
        self.radius = float(np.linalg.norm(offset))
        self.front = viewpoint_towards(-offset)
        self.focal = float(self.middle.intrinsics[0, 1, 1])

    @property
    def fov(self) -> float:
        """Field of view of the whole image [rad]."""
        return 2 * math.atan(0.5 / self.focal)

    def cameras(self, viewpoints: Sequence[Viewpoint]) -> Camera:
        """Cameras [V] where the generator is, and as precise as it is."""
        yaw, pitch, zoom, right, up = torch.tensor(viewpoints, dtype=torch.float64).T[..., None]
        pose = orbit_cameras(yaw, pitch, self.radius, 1.0, self.pivot.tolist()).pose
        intrinsics = self.middle.intrinsics.double().cpu().repeat(len(viewpoints), 1, 1)
        intrinsics[:, [0, 1], [0, 1]] *= zoom
        intrinsics[:, :2, 2] += torch.cat([right, -up], dim=1)
        return Camera(pose, intrinsics).to(self.middle.pose)

    def seen_from(self, position: ArrayLike, look_at: ArrayLike) -> Viewpoint:
        """The viewpoint of a camera at a position that looks at a point, both [3] in the world; y is up."""
        viewpoint = viewpoint_towards(np.asarray(look_at) - np.asarray(position))
        axes = self.cameras([viewpoint]).pose[0, :3, :3].double().cpu().numpy()
        right, up, back = (self.pivot - np.asarray(position)) @ axes
        depth = max(-float(back), NEAREST * self.radius)
        right, up = (float(x) * self.focal / depth for x in (right, up))
        return viewpoint._replace(zoom=self.radius / depth, right=right, up=up)

    def position(self, viewpoint: Viewpoint) -> tuple[float, float, float]:
        """Where in the world a camera is that looks at the pivot from there."""
        return tuple(self.cameras([viewpoint]).origins[0].tolist())


def viewpoint_towards(direction: np.ndarray) -> Viewpoint:
    """The viewpoint that looks in this direction [3]."""
    x, y, z = -direction / np.linalg.norm(direction)
    return Viewpoint(math.atan2(z, x), math.acos(float(np.clip(y, -1, 1))))


class CameraPath(NamedTuple):
    """A way through viewpoints, from the first to the last.

    keyframes: the viewpoints.
    """

    keyframes: tuple[Viewpoint, ...] = ()

    def with_keyframe(self, viewpoint: Viewpoint) -> Self:
        """The way that goes on to this viewpoint."""
        return self._replace(keyframes=(*self.keyframes, viewpoint))

    def viewpoints(self, frames: int) -> list[Viewpoint]:
        """So many viewpoints on a smooth way through all keyframes; yaw goes the shorter way round."""
        yaw, pitch, zoom, right, up = np.array(self.keyframes).T
        numbers = np.stack([np.unwrap(yaw), pitch, np.log(zoom), right, up], axis=1)
        ways = path_weights(len(self.keyframes), frames).double().numpy() @ numbers
        return [Viewpoint(yaw, pitch, math.exp(zoom), *shift) for yaw, pitch, zoom, *shift in ways.tolist()]
