"""Linear interpolation in grids of features.

Where it has to be differentiated twice there is ``interpolate_linear``: torch's ``grid_sample`` can be only once.

B batch, N points, D axes, C channels, P planes, V side of a plane
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from zoo.utils.constants import constant


def interpolate_linear(grid: Tensor, places: Tensor) -> Tensor:
    """Features [B, N, C] of grids [B, ..., C] with D axes at places [B, N, D], in cells from the middle of the first.

    Beyond the border is what is on it.
    """
    first = places.detach().floor()
    share = places - first
    own = torch.arange(len(grid), device=grid.device)[:, None]
    indices, weights = [], []
    for corner in itertools.product((0, 1), repeat=places.shape[-1]):
        index, weight = own, 1
        for axis, (end, side) in enumerate(zip(corner, grid.shape[1:-1], strict=True)):
            index = index * side + (first[..., axis] + end).clamp(0, side - 1).long()
            weight = weight * (share[..., axis] if end else 1 - share[..., axis])
        indices.append(index)
        weights.append(weight)
    # One look-up of all corners: each look-up's gradient is as large as all grids.
    index, weight = torch.stack(indices), torch.stack(weights)
    found = grid.flatten(0, -2).index_select(0, index.flatten()).unflatten(0, index.shape)
    return (found * weight[..., None]).sum(0)


def trilinear(volume: Tensor, points: Tensor, bounds: Tensor) -> Tensor:
    """Features [B, N, C] of volumes [B, Z, Y, X, C] at points [B, N, 3] in the world.

    The outermost voxels' centres lie on the bounds, two corners of the volume's box, [2, 3]; beyond the bounds is what
    is on them.
    """
    low, high = bounds
    last = constant(tuple(volume.shape[1:4]), points).flip(0) - 1
    # These steps and no fewer, as published: frequencies of 2^9 show even rounding.
    places = (((points - low) / (high - low) * 2 - 1) + 1) / 2 * last
    return interpolate_linear(volume, places.flip(-1))


def sample_planes(planes: Tensor, points: Tensor, axes: Sequence[Sequence[int]]) -> Tensor:
    """Features [B, P, N, C] of points [B, N, 3] in each of P planes [B, P, C, V, V] (EG3D, section 3.1).

    Planes span -1 to 1; beyond them features are zero.

    Args:
        axes: which two coordinates of a point are its place along the rows and down the columns of each plane.
    """
    places = torch.stack([points[..., pair] for pair in axes], dim=1)
    found = grid_sample(planes.flatten(0, 1), places.flatten(0, 1)[:, None], align_corners=False)
    return found[:, :, 0].mT.unflatten(0, (-1, len(axes)))
