"""Cameras as the published EG3D has them: 25 numbers, which networks are conditioned on.

They are a row-major camera-to-world matrix and row-major intrinsics in units of the image's size. The world is ours;
its camera looks along +z with y downwards (OpenCV).

B batch
"""

import math

import torch
from torch import Tensor

from zoo.draws import Draws
from zoo.render import Camera
from zoo.render.cameras import ORIGIN, Orbit, intrinsics_from_fov, look_at, sphere_points
from zoo.utils.constants import constant

NUMBERS = 25


def label_of(camera: Camera) -> Tensor:
    """The 25 numbers of cameras, [B, 25]."""
    return torch.cat([turned(camera.pose).flatten(1), camera.intrinsics.flatten(1)], dim=1)


def camera_of(label: Tensor) -> Camera:
    """The cameras of 25 numbers [B, 25]."""
    pose, intrinsics = label.split([16, 9], dim=1)
    return Camera(turned(pose.unflatten(1, (4, 4))), intrinsics.unflatten(1, (3, 3)))


def turned(pose: Tensor) -> Tensor:
    """Poses [B, 4, 4] of cameras whose y and z axes are the other way round; its own inverse."""
    return pose * constant([1.0, -1.0, -1.0, 1.0], pose)


def published_focal(fov_deg: float) -> float:
    """The focal length, in units of the image's width, that the published program takes for a field of view [degrees].

    It has 1.414 for 2 and 3.14159 for pi, so the image shows another field of view: 13.4 degrees for 18.837.
    """
    return 1 / (math.tan(fov_deg * 3.14159 / 360) * 1.414)


def centred(
    camera: Camera, radius: float = 2.7, centre: tuple[float, float, float] = ORIGIN, facing: bool = False
) -> Camera:
    """Cameras moved along their way from a point until they are so far from it, as EG3D's data sets of faces were.

    Args:
        radius: distance [world units].
        centre: the point; the origin in the published data, (0, 0, 0.175) in its variants.
        facing: turned to look at it, too.
    """
    middle = constant(centre, camera.pose)
    origins = middle + radius * torch.nn.functional.normalize(camera.origins - middle, dim=-1)
    pose = look_at(origins, middle) if facing else camera.pose.clone()
    pose[:, :3, 3] = origins
    return camera._replace(pose=pose)


class LookAtPoses(Orbit):
    """Cameras on a sphere about the origin that look at a point, both angles gaussian.

    The pitch is that of even area, arccos(1 - 2 v / pi) of a gaussian v. The published program shows its objects from
    such cameras; it trains with those of the images.
    """

    def angles(self, n: int, draws: Draws) -> tuple[Tensor, Tensor]:
        yaw = self.yaw_mean - self.yaw_spread * draws.normal("yaw", (n, 1))  # its azimuth runs the other way round
        return yaw, even_area(self.pitch_mean + self.pitch_spread * draws.normal("pitch", (n, 1)))

    def middle(self, n: int) -> tuple[Tensor, Tensor]:
        return torch.full((n, 1), self.yaw_mean), even_area(torch.full((n, 1), self.pitch_mean))

    def camera(self, yaw: Tensor, pitch: Tensor) -> Camera:
        origins = sphere_points(yaw, pitch, self.radius)
        pose = look_at(origins, constant(self.pivot, origins))
        return Camera(pose, intrinsics_from_fov(math.radians(self.fov_deg), len(yaw), yaw))


def even_area(v: Tensor) -> Tensor:
    """The pitch [rad] above which the same share v / pi of the sphere lies."""
    return (1 - 2 * v.clamp(1e-5, math.pi - 1e-5) / math.pi).arccos()
