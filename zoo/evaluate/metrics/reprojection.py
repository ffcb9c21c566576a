"""Reprojection: the colour that one view shows of a point is the colour that another view shows of it.

Each pixel of a view is carried to its surface, and from there into another view (inverse warp), whose image and depth
are read there bilinearly. It counts where that place is within the frame by a pixel, both opacities are above 0.9, and
the other view's depth is the point's distance to within 2 per cent: nothing hides it there. No pixel is splatted, none
is clipped to the border, depths are distances along the rays, and each pixel's colour and depth are where its ray is.

A view's partner is the view that is nearest to 0.2 rad away; for ``plane_ratio`` and ``depth_conflict`` pi/4.

* ``psnr`` [dB], ``l1``, ``mse``: of the colours in [0, 1] where it counts. Two colours differ by how much neither lies
  in the range of what the other image shows within half a pixel (Birchfield and Tomasi 1998): bilinear interpolation of
  an edge is an error of the measurement, not of the object, and would rank blurred images above sharp ones.
* ``psnr_bilinear`` [dB]: the same of the plain difference, as others define it.
* ``ssim``: of the plain warp, where the whole window counts. NaN where no window does.
* ``plane_ratio``: ``mse`` over that of a warp which takes the best-fitting plane for the surface. 1 for a board, even
  one that stands in the world; far below for a solid. (A plane of constant depth would call such a board a solid.)
* All these of ``Rendered.image``, and with ``_raw`` of ``Rendered.raw``: the difference is what a 2D network breaks.
* ``coverage``: share of the opaque pixels that count. What is seen from one of the two sides only is missing.
* ``depth_residual``: mean of |distance - depth| / depth where it counts; no colour is involved.
* ``depth_conflict``: the same of views farther apart, where a wrong depth or a wrong lens shows; wherever the other
  view could see the point, also in front of its surface; beyond the range of depths within half a pixel; at most 0.02.

V views, N = H W pixels
"""

import math
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from zoo.evaluate.metrics.objects import VIEWS, Better, ObjectMetric, partners
from zoo.evaluate.metrics.surface import plane_points
from zoo.render.projection import Views, bilinear, pixel_coordinates, resized

OPAQUE = 0.9
TOLERANCE = 0.02
CLOSE, WIDE = 0.2, math.pi / 4
LEAST_ERROR = 1e-10  # a PSNR of 100 dB
ROUNDING = (0.5 / 255) ** 2  # what rounding to 8 bits may do to a colour: below, errors say nothing
COLOURS: dict[str, Better] = {"psnr": "more", "psnr_bilinear": "more", "l1": "less", "mse": "less", "ssim": "more"}
COLOURS |= {"plane_ratio": "less"}
GEOMETRY: dict[str, Better] = {"coverage": "more", "depth_residual": "less", "depth_conflict": "less"}
BETTER = COLOURS | {f"{name}_raw": better for name, better in COLOURS.items()} | GEOMETRY


class Warp(NamedTuple):
    """Where each view's pixels are in its partner, and what counts.

    pixels: columns and rows in the partner, [V, N, 2].
    residual: (distance from the partner - its depth there) / that depth, [V, N].
    seen: both views are opaque there and it is within the partner's frame, [V, N] bool.
    valid: and nothing hides it, [V, N] bool.
    """

    pixels: Tensor
    residual: Tensor
    seen: Tensor
    valid: Tensor


def warp(views: Views, partner: Tensor, tolerance: float = TOLERANCE) -> Warp:
    """Each view's surface as its partner sees it; ``partner`` [V] holds indices of views."""
    size, points = views.depth.shape[-1], views.points
    pixels = pixel_coordinates(views, partner, points)
    inside = ((pixels >= 1) & (pixels <= size - 2)).all(-1)
    maps = torch.stack([views.depth.where(views.solid, 0), views.solid.to(views.depth)], dim=1)
    depth, solid = bilinear(maps[partner], pixels).unbind(-1)
    depth = depth / solid.clamp(min=OPAQUE)
    distance = (points - views.camera.origins[partner][:, None]).norm(dim=-1)
    seen = views.solid.flatten(1) & inside & (solid > OPAQUE)
    residual = ((distance - depth) / depth).where(seen, 0)
    return Warp(pixels, residual, seen, seen & (residual.abs() < tolerance))


def colour_errors(images: Tensor, views: Views, close: Tensor, wide: Tensor) -> dict[str, float]:
    """The numbers of colours; each is NaN if nothing counts.

    Args:
        images: [V, 3, H, W] in [0, 1].
        views: maps of the same side.
        close, wide: the partners, [V].
    """
    size, inner, own = images.shape[-1], extended(images, views.solid), images.flatten(2).mT
    near, far = warp(views, close), warp(views, wide)
    warped = bilinear(inner[close], near.pixels)
    mse, l1 = error_within_half_a_pixel(images, inner[close], near.pixels, near.valid)
    apart, _ = error_within_half_a_pixel(images, inner[wide], far.pixels, far.valid)
    board = pixel_coordinates(views, wide, plane_points(views))
    flat, _ = error_within_half_a_pixel(images, images[wide], board, far.valid)
    return {
        "psnr": psnr(mse),
        "psnr_bilinear": psnr(float((warped - own)[near.valid].square().mean())),
        "l1": l1,
        "mse": mse,
        "ssim": masked_ssim(warped.mT.unflatten(2, (size, size)), images, near.valid),
        "plane_ratio": (apart + ROUNDING) / (flat + ROUNDING),
    }


def psnr(mse: float) -> float:
    """Of colours in [0, 1] [dB]; at most 100."""
    return -10 * math.log10(max(mse, LEAST_ERROR))


def extended(images: Tensor, solid: Tensor) -> Tensor:
    """Images whose pixels beside the object have its colours, so that reading between the two adds no background."""
    inside = solid[:, None].to(images)
    share = avg_pool2d(inside, 3, 1, 1)
    beside = avg_pool2d(images * inside, 3, 1, 1) / share.clamp(min=1e-3)
    return torch.where(solid[:, None] | (share < 1e-3), images, beside)


def within_half_a_pixel(maps: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Least and most [V, N, C] that maps [V, C, H, W] show within half a pixel of places [V, N, 2]."""
    least = most = bilinear(maps, pixels)
    for step in product((-0.5, 0, 0.5), repeat=2):
        there = bilinear(maps, pixels + pixels.new_tensor(step))
        least, most = torch.minimum(least, there), torch.maximum(most, there)
    return least, most


def outside(values: Tensor, limits: tuple[Tensor, Tensor]) -> Tensor:
    """How far values are from the range between these."""
    return (limits[0] - values).relu() + (values - limits[1]).relu()


def error_within_half_a_pixel(own: Tensor, others: Tensor, pixels: Tensor, valid: Tensor) -> tuple[float, float]:
    """Mean square and mean of how much images [V, 3, H, W] and others, read at ``pixels``, differ where it is valid.

    The least by which the colour of the one lies outside the range of the other within half a pixel, either way.
    """
    line = torch.arange(own.shape[-1], device=pixels.device, dtype=pixels.dtype)
    row, column = (x.flatten() for x in torch.meshgrid(line, line, indexing="ij"))
    here = torch.stack([column, row], dim=-1).expand_as(pixels)
    there = outside(own.flatten(2).mT, within_half_a_pixel(others, pixels))
    error = torch.minimum(there, outside(bilinear(others, pixels), within_half_a_pixel(own, here)))[valid]
    return float(error.square().mean()), float(error.mean())


def masked_ssim(a: Tensor, b: Tensor, valid: Tensor) -> float:
    """SSIM of images [V, 3, H, W] where all of the window is valid [V, N]; NaN where none is.

    The window is 11 pixels wide, with images below 64 pixels 5.
    """
    from kornia.metrics import ssim

    size = a.shape[-1]
    window = 11 if size >= 64 else 5
    valid = valid.unflatten(1, (size, size))
    whole = avg_pool2d(valid[:, None].to(a), window, 1, window // 2)[:, 0] > 1 - 0.5 / window**2
    mask = valid[:, None].to(a)
    similar = ssim(a.nan_to_num(0) * mask, b.nan_to_num(0) * mask, window).mean(1)
    return float(similar[whole].mean()) if whole.any() else float("nan")


def reprojection(views: Views, close: float = CLOSE, wide: float = WIDE) -> dict[str, float]:
    """The numbers above, of one object.

    Args:
        views: from several sides, with cameras in any order.
        close, wide: angles between the views that are compared [rad].
    """
    opaque = (views.rendered.opacity[:, 0] > OPAQUE) & views.depth.isfinite()
    views = views._replace(solid=opaque)
    near, far = (partners(views.camera, angle) for angle in (close, wide))
    shown, raw = (((x + 1) / 2).clamp(0, 1) for x in views.rendered[:2])
    colours = colour_errors(shown, resized(views, shown.shape[-1]), near, far)
    same = raw.shape == shown.shape and bool((raw == shown).all())
    before = colours if same else colour_errors(raw, resized(views, raw.shape[-1]), near, far)
    place = warp(views, near)
    return {
        **colours,
        **{f"{name}_raw": value for name, value in before.items()},
        "coverage": float(place.valid.sum() / opaque.sum().clamp(min=1)),
        "depth_residual": float(place.residual[place.valid].abs().mean()),
        "depth_conflict": depth_conflict(views, far),
    }


def depth_conflict(views: Views, partner: Tensor) -> float:
    """The number of this name; NaN if no view sees what another does."""
    place = warp(views, partner)
    depths = extended(views.depth.where(views.solid, 0)[:, None], views.solid)[partner]
    distance = (views.points - views.camera.origins[partner][:, None]).norm(dim=-1)
    beyond = outside(distance[..., None], within_half_a_pixel(depths, place.pixels))[..., 0] / distance
    return float(beyond.clamp(max=TOLERANCE)[place.seen & (place.residual < TOLERANCE)].mean())


def reprojection_metric(views: int = VIEWS, close: float = CLOSE, wide: float = WIDE) -> ObjectMetric:
    """Reprojection of objects' ``Views``.

    Args:
        views: of each object, as ``object_views`` makes them.
        close, wide: as in ``reprojection``.
    """
    protocol = {"views": views, "close": close, "wide": wide, "opaque": OPAQUE, "tolerance": TOLERANCE}
    measure = partial(reprojection, close=close, wide=wide)
    return ObjectMetric("reprojection", measure, BETTER, frozenset(("images", "cameras", "depth", "rays")), protocol)
