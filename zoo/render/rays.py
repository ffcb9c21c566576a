"""Rays through chosen points of the image.

Which points is each system's own affair (all pixels, a patch, a random subset; centres or corners): it picks image
coordinates, ``through`` turns them into rays.

B batch, R rays
"""

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.render.cameras import Camera


class Rays(NamedTuple):
    """origins [B, R, 3] and directions [B, R, 3] in the world; directions need not have length one."""

    origins: Tensor
    directions: Tensor


def pixel_centres(resolution: int, device: torch.device | str = "cpu") -> Tensor:
    """Image coordinates [R, 2] of all pixel centres, row by row."""
    line = (torch.arange(resolution, device=device) + 0.5) / resolution
    return _grid(line)


def pixel_corners(resolution: int, device: torch.device | str = "cpu") -> Tensor:
    """Image coordinates [R, 2] of a grid whose outermost points lie on the border of the image, row by row."""
    return _grid(torch.linspace(0, 1, resolution, device=device))


def _grid(line: Tensor) -> Tensor:
    v, u = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([u, v], dim=-1).reshape(-1, 2)


def through(camera: Camera, coordinates: Tensor, *, unit: bool = True) -> Rays:
    """Rays from the cameras through points of their images.

    Args:
        camera: B cameras.
        coordinates: image coordinates, [R, 2] or [B, R, 2].
        unit: directions of length one, so that depths are distances; else of length one along the optical axis, so that
            depths are z-depths.
    """
    focal = camera.intrinsics[:, [0, 1], [0, 1]][:, None]
    centre = camera.intrinsics[:, :2, 2][:, None]
    x, y = ((coordinates - centre) / focal).unbind(-1)
    directions = torch.stack([x, -y, -torch.ones_like(x)], dim=-1)
    if unit:
        directions = torch.nn.functional.normalize(directions, dim=-1)
    directions = directions @ camera.pose[:, :3, :3].mT
    return Rays(camera.origins[:, None].expand_as(directions), directions)
