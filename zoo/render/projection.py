"""Points of one view in another: image coordinates, look-ups, projections."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.render import Camera, Rays, Rendered

OPAQUE = 0.5


class Views(NamedTuple):
    """An object from V sides: rays of unit length, depth [V, H, W] along them, solid [V, H, W] bool."""

    rendered: Rendered
    camera: Camera
    rays: Rays
    depth: Tensor
    solid: Tensor


def views_of(rays_of: Callable[[Camera, int], Rays], rendered: Rendered, camera: Camera) -> Views:
    """What these images show; ``rays_of`` as in ``zoo.generator.HasRays``."""
    # Some systems render opacity and depth smaller than the image.
    rays = rays_of(camera, rendered.opacity.shape[-1])
    rays = Rays(rays.origins, torch.nn.functional.normalize(rays.directions, dim=-1))
    depth, opacity = rendered.depth[:, 0], rendered.opacity[:, 0]
    return Views(rendered, camera, rays, depth, (opacity > OPAQUE) & depth.isfinite())


def image_coordinates(camera: Camera, view: int, points: Tensor) -> Tensor:
    """Where points [..., 3] fall in a view's image, [..., 2], (0, 0) top left to (1, 1); NaN behind the camera."""
    pose, intrinsics = camera.pose[view], camera.intrinsics[view]
    x, y, z = ((points - pose[:3, 3]) @ pose[:3, :3]).unbind(-1)
    depth = torch.where(z < 0, -z, torch.nan)
    u = intrinsics[0, 0] * x / depth + intrinsics[0, 2]
    v = -intrinsics[1, 1] * y / depth + intrinsics[1, 2]
    return torch.stack([u, v], dim=-1)


def pixel_coordinates(views: Views, view: int, points: Tensor) -> Tensor:
    """Column and row [..., 2] of points [..., 3] in a view, whole numbers at the places its rays go through.

    Systems differ in whether rays pass through the centres of pixels or span the image from border to border; which
    is seen from their first and last rays.
    """
    size = views.depth.shape[-1]
    ends = views.rays.origins[view, [0, -1]] + views.rays.directions[view, [0, -1]]
    first, last = image_coordinates(views.camera, view, ends)
    return (image_coordinates(views.camera, view, points) - first) / (last - first) * (size - 1)


def look_up(maps: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Values of a map [H, W] at the pixels nearest to [..., 2], and whether those are within the image."""
    size = maps.shape[-1]
    column, row = pixels.nan_to_num(-1e6).round().long().unbind(-1)
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    return maps[row.clamp(0, size - 1), column.clamp(0, size - 1)], inside


class Projected(NamedTuple):
    """The surface points [N, 3] of one view, where they fall in another [N, 2], and their distance from it [N]."""

    points: Tensor
    pixels: Tensor
    distance: Tensor


def project(views: Views, source: int, target: int) -> Projected:
    """Surface points of the source view, seen from the target view."""
    solid = views.solid[source].flatten()
    depth = views.depth[source].flatten()[solid]
    points = views.rays.origins[source][solid] + depth[:, None] * views.rays.directions[source][solid]
    distance = (points - views.camera.origins[target]).norm(dim=-1)
    return Projected(points, pixel_coordinates(views, target, points), distance)
