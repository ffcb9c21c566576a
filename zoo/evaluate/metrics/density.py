"""Density: whether it is where the object may be.

* ``outside``: share of the occupied volume outside the object's bounds, in a cube twice their size. 0 is ideal, NaN
  where nothing is occupied anywhere.

N points
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from zoo.evaluate.metrics.objects import ObjectMetric
from zoo.render.projection import Views

GRID = 48


def outside(density: Callable[[Tensor], Tensor], bounds: Tensor, grid: int = GRID) -> dict[str, float]:
    """Share of the occupied volume outside the bounds, within a cube around them with twice their longest side.

    A cell of the grid is occupied by 1 - exp(-density x its side): a solid one counts 1, thin haze its opacity.

    Args:
        density: per world length [1, N, 1] at world points [1, N, 3].
        bounds: two corners [2, 3].
        grid: points along each side of the cube.
    """
    middle, side = bounds.mean(0), float((bounds[1] - bounds[0]).max())
    line = ((torch.arange(grid, device=middle.device) + 0.5) / grid * 2 - 1) * side
    points = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), dim=-1).reshape(1, -1, 3) + middle
    at = torch.cat([density(part) for part in points.split(32768, dim=1)], dim=1)[0, :, 0]
    occupied = 1 - torch.exp(-at.clamp(min=0) * (2 * side / grid))
    inside = ((points[0] >= bounds[0]) & (points[0] <= bounds[1])).all(-1)
    total = occupied.sum()
    return {"outside": float(occupied[~inside].sum() / total) if total > 0 else float("nan")}


def density_metric(grid: int = GRID) -> ObjectMetric:
    """Volume outside the bounds, of objects' ``Views`` and densities."""

    return ObjectMetric(
        "density", partial(measure, grid=grid), {"outside": "less"}, frozenset(("density",)), {"grid": grid}
    )


def measure(views: Views, density: Callable[[Tensor], Tensor], grid: int) -> dict[str, float]:
    """``outside`` of the object that these views show."""
    return outside(density, views.bounds, grid)
