"""Linear interpolation in grids of features, which can be differentiated any number of times.

torch's ``grid_sample`` can be only once.

B batch, N points, D axes, C channels
"""

import itertools

import torch
from torch import Tensor


def interpolate_linear(grid: Tensor, places: Tensor) -> Tensor:
    """Features [B, N, C] of grids [B, ..., C] with D axes at places [B, N, D], in cells from the middle of the first.

    Beyond the border is what is on it.
    """
    first = places.detach().floor()
    share = places - first
    own = torch.arange(len(grid), device=grid.device)[:, None]
    cells, total = grid.flatten(0, -2), 0
    for corner in itertools.product((0, 1), repeat=places.shape[-1]):
        index, weight = own, 1
        for axis, (end, side) in enumerate(zip(corner, grid.shape[1:-1], strict=True)):
            index = index * side + (first[..., axis] + end).clamp(0, side - 1).long()
            weight = weight * (share[..., axis] if end else 1 - share[..., axis])
        # Sums over corners, each looked up alone, are three times as fast on processors as one look-up of all of them.
        total = total + cells.index_select(0, index.flatten()).unflatten(0, index.shape) * weight[..., None]
    return total


def trilinear(volume: Tensor, points: Tensor, bounds: Tensor) -> Tensor:
    """Features [B, N, C] of volumes [B, Z, Y, X, C] at points [B, N, 3] in the world.

    The outermost voxels' centres lie on the bounds, two corners of the volume's box, [2, 3]; beyond the bounds is what
    is on them.
    """
    low, high = bounds
    last = points.new_tensor(volume.shape[1:4]).flip(0) - 1
    # These steps and no fewer, as published: frequencies of 2^9 show even rounding.
    places = (((points - low) / (high - low) * 2 - 1) + 1) / 2 * last
    return interpolate_linear(volume, places.flip(-1))
