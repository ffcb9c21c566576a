"""Rays through chosen points of the image.

Which points is each system's own affair (all pixels, a patch, a random subset; centres or corners): it picks film
coordinates, ``through`` turns them into rays.

B batch, R rays
"""

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.render.cameras import Camera


class Rays(NamedTuple):
    """Rays in the world, and how they look from their cameras.

    origins, directions: [B, R, 3]; directions need not have length one.
    local, pose: directions in camera space [B, R, 3] and the matrices [B, 4, 4] that move them to the world, or None.
    """

    origins: Tensor
    directions: Tensor
    local: Tensor | None = None
    pose: Tensor | None = None


def pixel_centres(
    resolution: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Film coordinates [R, 2] of all pixel centres, row by row."""
    border = 1 - 1 / resolution
    return _grid(torch.linspace(-border, border, resolution, device=device, dtype=dtype))


def pixel_corners(
    resolution: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Film coordinates [R, 2] of a grid whose outermost points lie on the border of the image, row by row."""
    return _grid(torch.linspace(-1, 1, resolution, device=device, dtype=dtype))


def _grid(line: Tensor) -> Tensor:
    y, x = torch.meshgrid(-line, line, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


def through(camera: Camera, film: Tensor, *, unit: bool = True) -> Rays:
    """Rays from the cameras through points of their images.

    Args:
        camera: B cameras.
        film: film coordinates, [R, 2] or [B, R, 2]: from (-1, -1), the bottom left corner of the image, to (1, 1), the
            top right one.
        unit: directions of length one, so that depths are distances; else of length one along the optical axis, so that
            depths are z-depths.
    """
    focal_x, focal_y = camera.intrinsics[:, 0, 0, None], camera.intrinsics[:, 1, 1, None]
    x = film[..., 0] - (2 * camera.intrinsics[:, 0, 2, None] - 1)
    y = (film[..., 1] + (2 * camera.intrinsics[:, 1, 2, None] - 1)) * (focal_x / focal_y)
    x = x + y * (camera.intrinsics[:, 0, 1, None] / focal_x)  # skew
    local = torch.stack([x, y, (-2 * focal_x).expand_as(x)], dim=-1)
    local = torch.nn.functional.normalize(local, dim=-1) if unit else local / (2 * focal_x[..., None])
    world = local @ camera.pose[:, :3, :3].mT
    return Rays(camera.origins[:, None].expand_as(world), world, local, camera.pose)
