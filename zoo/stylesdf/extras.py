"""What the published StyleSDF makes beside its images, in its own way: cameras, maps, and a cube of distances.

B batch, R rays, S samples
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from zoo.draws import Draws
from zoo.render import Integrated, to_map


def published_pose(azimuth: Tensor, elevation: Tensor) -> Tensor:
    """Camera-to-world matrices [B, 4, 4] of cameras on the unit sphere that look at its centre, angles [B, 1] [rad].

    Lengths are divided by 1e-5 at least, so straight above and below, where the other systems' are rigid, axes are
    shorter there.
    """
    place = torch.cat([elevation.cos() * azimuth.sin(), elevation.sin(), elevation.cos() * azimuth.cos()], dim=-1)
    z = unit(place)
    up = place.new_tensor([0.0, 1.0, 0.0]).expand_as(place)
    x = unit(torch.linalg.cross(up, z))
    y = unit(torch.linalg.cross(z, x))
    is_degenerate = (x.abs() <= 5e-3).all(dim=-1, keepdim=True)
    x = torch.where(is_degenerate, unit(torch.linalg.cross(y, z)), x)
    rows = torch.stack([x, y, z, place], dim=-1)
    last = rows.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(rows), 1, 4)
    return torch.cat([rows, last], dim=1)


def unit(vectors: Tensor) -> Tensor:
    """Vectors [B, 3] divided by their length, or by 1e-5."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-5)


def sweep(n: int, azimuth: float, elevation: float, draws: Draws, views: int = 8) -> tuple[Tensor, Tensor]:
    """Angles [n views, 1] of the published validation: each object from several azimuths, at one elevation [rad].

    Args:
        azimuth: of the first view, to the left, and of the last.
        elevation: largest.
    """
    line = torch.linspace(-azimuth, azimuth, views)
    above = elevation * (2 * draws.uniform("elevation", (n, 1)) - 1)
    return line.repeat(n)[:, None].to(above), above.repeat_interleave(views, 0)


def mean_points(integrated: Integrated) -> Tensor:
    """The published xyz: sum of weight times world point, [B, 3, H, W]."""
    return to_map((integrated.weights[..., None] * integrated.samples.points).sum(2))


def last_weight(integrated: Integrated) -> Tensor:
    """The published mask: what the last sample of each ray has of its light, [B, 1, H, W]."""
    return to_map(integrated.weights[..., -1:])


def aligned_cube(distances: Tensor, near: float, far: float) -> Tensor:
    """Distances on a grid in a cube, [B, S, S, S] along y downwards, x, and z into the image, from those along rays.

    The cube is as large as what the camera sees at ``far``, in lengths that are half of it; where it sees nothing, the
    distance is 1. The published meshes are the zero sets of these. ``Generator.signed_distance`` needs no camera.

    Args:
        distances: at evenly spaced depths on the rays of all pixels, as many as pixels a side: [B, R, S, 1].
        near, far: first and last depth.
    """
    side = math.isqrt(distances.shape[1])
    line = torch.linspace(-1, 1, side, device=distances.device, dtype=distances.dtype)
    y, x, z = torch.meshgrid(line, line, torch.linspace(-1, 1, distances.shape[2]).to(line), indexing="ij")
    wider = torch.linspace(far / near, 1, distances.shape[2]).to(line)
    place = torch.stack([z, x * wider, y * wider], dim=-1)  # of a volume [B, 1, H, W, S], whose last axis comes first
    volume = distances[..., 0].unflatten(1, (side, side))[:, None]
    place = place.expand(len(volume), -1, -1, -1, -1)
    found = grid_sample(volume, place, padding_mode="border", align_corners=True)[:, 0]
    return torch.where((place.abs() > 1).any(-1), 1.0, found)
