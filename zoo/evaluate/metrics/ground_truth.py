"""Depths and normals against those of objects that are known exactly, such as procedural ones.

* ``mask_iou``: intersection over union of the silhouettes; the other numbers are of the pixels in both.
* ``depth_error``: mean of |depth - true depth| / true depth.
* ``depth_error_scaled``: standard deviation of the logarithm of depth / true depth, which no scale of the scene changes
  (Eigen et al. 2014).
* ``normal_error_deg``: mean angle between the normals of the depth, by differences of neighbouring pixels, and the true
  ones. ``normal_floor_deg``: the same of the true depth, which differences of pixels do not make exact either.

V views, H W pixels
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from zoo.evaluate.metrics.objects import Better, ObjectMetric
from zoo.render.projection import Views

BETTER: dict[str, Better] = {"mask_iou": "more", "depth_error": "less", "depth_error_scaled": "less"}
BETTER |= {"normal_error_deg": "less", "normal_floor_deg": "less"}


def normals_of(views: Views) -> Tensor:
    """Unit normals [V, 3, H, W] in the world, towards the camera; NaN at pixels beside which the object ends."""
    depth = views.depth.where(views.solid, torch.nan).flatten(1)[..., None]
    points = (views.rays.origins + depth * views.rays.directions).mT.unflatten(2, views.depth.shape[1:])
    across = points[..., 1:-1, 2:] - points[..., 1:-1, :-2]
    up = points[..., :-2, 1:-1] - points[..., 2:, 1:-1]
    return torch.nn.functional.pad(normalize(torch.linalg.cross(across, up, dim=1), dim=1), (1,) * 4, value=torch.nan)


def normal_error_deg(normals: Tensor, true_normals: Tensor) -> float:
    """Mean angle [degrees] between unit normals [V, 3, H, W] where both are finite; NaN if nowhere."""
    across = torch.linalg.cross(normals, true_normals, dim=1).norm(dim=1)
    angles = torch.atan2(across, (normals * true_normals).sum(1)).rad2deg()
    return float(angles[angles.isfinite()].mean())


def ground_truth_errors(views: Views, true_depth: Tensor, true_normals: Tensor) -> dict[str, float]:
    """The numbers above, of one object.

    Args:
        views: what is to be judged, with the cameras of the truth.
        true_depth: distance along the unit ray [world units], [V, 1, H, W]; NaN where there is nothing.
        true_normals: in the world, [V, 3, H, W].
    """
    truth = views._replace(depth=true_depth[:, 0], solid=true_depth[:, 0].isfinite())
    both, either = views.solid & truth.solid, views.solid | truth.solid
    depth, true = views.depth[both], truth.depth[both]
    return {
        "mask_iou": float(both.sum() / either.sum()) if either.any() else 0.0,
        "depth_error": float(((depth - true).abs() / true).mean()),
        "depth_error_scaled": float((depth / true).log().std(correction=0)) if both.any() else float("nan"),
        "normal_error_deg": normal_error_deg(normals_of(views), true_normals),
        "normal_floor_deg": normal_error_deg(normals_of(truth), true_normals),
    }


def ground_truth_metric() -> ObjectMetric:
    """Errors of objects' ``Views``, true depths and true normals."""
    return ObjectMetric("ground_truth", ground_truth_errors, BETTER, frozenset(("cameras", "depth", "rays")), {})
