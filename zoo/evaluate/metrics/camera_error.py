"""Camera error: whether images show their object from where they claim to.

A regressor, trained on images whose cameras are known, says from where an image was taken. Its own error on such images
that it was not trained on is the floor: a generator that is no worse than that cannot be told from right.

* ``camera_error_deg``: mean angle of the rotation between the regressor's camera and that of the image.
* ``camera_floor_deg``: the same of real images.

B images
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zoo.evaluate.metrics.objects import Better, ObjectMetric
from zoo.render import Camera

Regressor = Callable[[Tensor], Tensor]  # images [B, 3, H, W] in [-1, 1] -> camera-to-world rotations [B, 3, 3]
BETTER: dict[str, Better] = {"camera_error_deg": "less", "camera_floor_deg": "less"}


def rotation_angles(a: Tensor, b: Tensor) -> Tensor:
    """Angles [B] of the rotations between rotations [B, 3, 3], their geodesic distance [rad].

    By the length of the difference of the matrices, 2 sqrt(2) sin(angle / 2): exact also for small angles, where the
    usual arccosine of the trace is not.
    """
    return 2 * ((a - b).flatten(1).norm(dim=1) / 8**0.5).clamp(max=1).asin()


def camera_error_deg(regressor: Regressor, images: Tensor, camera: Camera) -> float:
    """Mean angle [degrees] between the regressor's cameras of images [B, 3, H, W] and these."""
    with torch.no_grad():
        rotations = regressor(images)
    return float(rotation_angles(rotations, camera.pose[:, :3, :3]).rad2deg().mean())


def camera_metric(
    regressor: Regressor, real_images: Tensor, real_camera: Camera, protocol: dict[str, Any]
) -> ObjectMetric:
    """Camera error of objects' images [B, 3, H, W] and cameras.

    Args:
        regressor: not to be told from what it was trained on.
        real_images, real_camera: with which the floor is measured; the regressor has not seen them.
        protocol: what tells this regressor from others, such as a hash of its weights.
    """
    floor = camera_error_deg(regressor, real_images, real_camera)

    def measure(images: Tensor, camera: Camera) -> dict[str, float]:
        return {"camera_error_deg": camera_error_deg(regressor, images, camera), "camera_floor_deg": floor}

    return ObjectMetric("camera_error", measure, BETTER, frozenset(("images", "cameras")), protocol)
