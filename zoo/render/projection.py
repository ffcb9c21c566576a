"""Points of one view in another: image coordinates, look-ups, projections.

V views of one object, P pairs of them, N points, H W pixels
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

from zoo.render import Camera, Rays, Rendered

OPAQUE = 0.5


class Views(NamedTuple):
    """An object from V sides: unit rays, depth [V, H, W] along them, solid [V, H, W] bool, and its bounds [2, 3]."""

    rendered: Rendered
    camera: Camera
    rays: Rays
    depth: Tensor
    solid: Tensor
    bounds: Tensor

    def take(self, index: slice | Tensor) -> "Views":
        """These of the views."""
        rendered, rays = Rendered(*(x[index] for x in self.rendered)), Rays(*(x[index] for x in self.rays[:2]))
        return Views(rendered, self.camera.take(index), rays, self.depth[index], self.solid[index], self.bounds)

    @property
    def side(self) -> float:
        """Longest side of the bounds [world units]."""
        return float((self.bounds[1] - self.bounds[0]).max())

    @property
    def points(self) -> Tensor:
        """Where the rays end, [V, H W, 3]; where the view shows nothing, at the camera."""
        depth = self.depth.where(self.solid, 0).flatten(1)
        return self.rays.origins + depth[..., None] * self.rays.directions


def views_of(rays_of: Callable[[Camera, int], Rays], rendered: Rendered, camera: Camera, bounds: Tensor) -> Views:
    """What these images show; ``rays_of`` as in ``zoo.generator.HasRays``."""
    # Some systems render opacity and depth smaller than the image.
    rays = rays_of(camera, rendered.opacity.shape[-1])
    rays = Rays(rays.origins, normalize(rays.directions, dim=-1))
    depth, opacity = rendered.depth[:, 0], rendered.opacity[:, 0]
    return Views(rendered, camera, rays, depth, (opacity > OPAQUE) & depth.isfinite(), bounds)


def image_coordinates(camera: Camera, view: int | Tensor, points: Tensor) -> Tensor:
    """Where points [..., 3] fall in a view's image, [..., 2], (0, 0) top left to (1, 1); NaN behind the camera.

    With P views, a tensor, each has points of its own, [P, N, 3].
    """
    pose, intrinsics = camera.pose[view], camera.intrinsics[view]
    x, y, z = ((points - pose[..., None, :3, 3]) @ pose[..., :3, :3]).unbind(-1)
    depth = torch.where(z < 0, -z, torch.nan)
    u = intrinsics[..., 0, 0, None] * x / depth + intrinsics[..., 0, 2, None]
    v = -intrinsics[..., 1, 1, None] * y / depth + intrinsics[..., 1, 2, None]
    return torch.stack([u, v], dim=-1).reshape(*points.shape[:-1], 2)


def pixel_coordinates(views: Views, view: int | Tensor, points: Tensor) -> Tensor:
    """Column and row [..., 2] of points [..., 3] in a view, whole numbers at the places its rays go through.

    Systems differ in whether rays pass through the centres of pixels or span the image from border to border; which
    is seen from their first and last rays. With P views, a tensor, each has points of its own, [P, N, 3].
    """
    size = views.depth.shape[-1]
    ends = (views.rays.origins[:, [0, -1]] + views.rays.directions[:, [0, -1]])[view]
    first, last = image_coordinates(views.camera, view, ends).split(1, dim=-2)
    return (image_coordinates(views.camera, view, points) - first) / (last - first) * (size - 1)


def look_up(maps: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Values of a map [H, W] at the pixels nearest to [..., 2], and whether those are within the image."""
    size = maps.shape[-1]
    column, row = pixels.nan_to_num(-1e6).round().long().unbind(-1)
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    return maps[row.clamp(0, size - 1), column.clamp(0, size - 1)], inside


def bilinear(maps: Tensor, pixels: Tensor) -> Tensor:
    """Values [P, N, C] of maps [P, C, H, W] at columns and rows [P, N, 2]; beyond the border, those of the border."""
    size = maps.shape[-1]
    grid = (2 * pixels / (size - 1) - 1).nan_to_num(-2.0)
    return grid_sample(maps, grid[:, None], padding_mode="border", align_corners=True)[:, :, 0].mT


def resized(views: Views, size: int) -> Views:
    """The views as maps of another side, as an upsampler sees them: pixels are squares that share out the image.

    The depth of a pixel is the mean of its neighbours', weighted by how near they are; it is solid where nine tenths of
    them are.
    """
    old = views.depth.shape[-1]
    if size == old:
        return views
    line = (torch.arange(size, device=views.depth.device, dtype=views.depth.dtype) + 0.5) * (old / size) - 0.5
    row, column = (x.flatten()[:, None] for x in torch.meshgrid(line, line, indexing="ij"))
    forward = -views.camera.pose[:, None, :3, 2]
    film = views.rays.directions / (views.rays.directions * forward).sum(-1, keepdim=True)  # all as far along the axis
    first, right, down = (film[:, [corner]] for corner in (0, old - 1, -old))
    directions = first + (right - first) * (column / (old - 1)) + (down - first) * (row / (old - 1))
    rays = Rays(views.rays.origins[:, :1].expand_as(directions), normalize(directions, dim=-1))
    maps = torch.stack([views.depth.where(views.solid, 0), views.solid.to(views.depth)], dim=1)
    depth, solid = bilinear(maps, torch.cat([column, row], -1).expand(len(maps), -1, -1)).unbind(-1)
    depth, solid = (depth / solid.clamp(min=0.9)).unflatten(1, (size, size)), (solid > 0.9).unflatten(1, (size, size))
    return views._replace(rays=rays, depth=depth, solid=solid)


class Projected(NamedTuple):
    """The surface points [N, 3] of one view, where they fall in another [N, 2], and their distance from it [N]."""

    points: Tensor
    pixels: Tensor
    distance: Tensor


def project(views: Views, source: int, target: int) -> Projected:
    """Surface points of the source view, seen from the target view."""
    points = views.points[source][views.solid[source].flatten()]
    distance = (points - views.camera.origins[target]).norm(dim=-1)
    return Projected(points, pixel_coordinates(views, target, points), distance)
