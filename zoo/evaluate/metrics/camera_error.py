"""Camera error: whether images show their object from where they claim to.

A regressor, trained on images whose cameras are known, says from where an image was taken. Its own error on such images
that it was not trained on is the floor: a generator that is no worse than that cannot be told from right.

* ``camera_error_deg``: mean angle of the rotation between the regressor's camera and that of the image.
* ``camera_error_aligned_deg``: the same after the object was turned about the vertical as fits best: a generator that
  was never told a camera cannot know which side of an object the data call its front.
* ``camera_floor_deg``: the first of as many real images, different ones for each object.

V views, B images
"""

from typing import Any

import torch
from torch import Tensor

from zoo.evaluate.extractors import Extractor, cars_camera
from zoo.evaluate.metrics.objects import VIEWS, Better, Need, ObjectMetric
from zoo.generator import quantise
from zoo.render import Camera
from zoo.render.cameras import rotations
from zoo.render.projection import Views

BETTER: dict[str, Better] = {"camera_error_deg": "less", "camera_error_aligned_deg": "less", "camera_floor_deg": "less"}


def rotation_angles(a: Tensor, b: Tensor) -> Tensor:
    """Angles [B] of the rotations between rotations [B, 3, 3], their geodesic distance [rad].

    By the length of the difference of the matrices, 2 sqrt(2) sin(angle / 2): exact also for small angles, where the
    usual arccosine of the trace is not.
    """
    return 2 * ((a - b).flatten(1).norm(dim=1) / 8**0.5).clamp(max=1).asin()


def vertical_turn(a: Tensor, b: Tensor) -> Tensor:
    """The rotation [3, 3] about the vertical after which rotations b [B, 3, 3] are nearest to a, by least squares."""
    products = (b @ a.mT).sum(0)  # the trace of turn @ products is to be as large as can be
    angle = torch.atan2(products[2, 0] - products[0, 2], products[0, 0] + products[2, 2])
    return rotations(angle * angle.new_tensor([[0.0, 1.0, 0.0]]))[0]


def camera_errors(read: Tensor, camera: Camera) -> tuple[float, float]:
    """Mean angles [degrees] between rotations [B, 3, 3] and those of cameras, before and after the best turn."""
    told = camera.pose[:, :3, :3].to(read)
    both = told, vertical_turn(read, told) @ told
    plain, aligned = (float(rotation_angles(read, each).rad2deg().mean()) for each in both)
    return plain, aligned


def camera_metric(regressor: Extractor | None = None, views: int = VIEWS) -> ObjectMetric:
    """Camera error of objects' ``Views``, beside that of real images [V, 3, H, W] in [-1, 1] and their cameras.

    Args:
        regressor: uint8 images [B, 3, H, W] to camera-to-world rotations [B, 3, 3]; by default ours for procedural
            cars. It must have seen neither the real images nor the generator.
        views: of each object.
    """
    needs: set[Need] = {"images", "cameras", "rays", "real"}
    if regressor is None:
        regressor, needs = cars_camera(), needs | {"cars"}

    def measure(shown: Views, real_images: Tensor, real_camera: Camera) -> dict[str, float]:
        images = shown.rendered.image
        regressor.to(images.device)
        error, aligned = camera_errors(regressor(quantise(images)), shown.camera)
        floor, _ = camera_errors(regressor(quantise(real_images.to(images.device))), real_camera)
        return dict(zip(BETTER, (error, aligned, floor), strict=True))

    protocol: dict[str, Any] = {"views": views, "extractor_sha256": regressor.sha256}
    return ObjectMetric("camera_error", measure, BETTER, frozenset(needs), protocol)
