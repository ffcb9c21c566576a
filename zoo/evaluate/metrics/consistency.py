"""3D consistency: whether a generator makes solid objects in its bounds, or clouds, billboards and unrelated views.

Only the generator's contract is used: samples, turntable views, depths, opacities, densities. The camera is
taken to move round an object that stands still. Depth and opacity are those of the foreground.

* ``outside``: share of the occupied volume outside the object's bounds, in a cube twice their size. 0 is ideal.
* ``silhouettes``: each view's silhouette (opacity above 1/2) against that of the visual hull made of the other views'
  silhouettes: intersection over union, averaged. 1 for a convex object seen from all around; a little less
  where the hull is looser than the object. A view that shows nothing counts 0.
* ``surface``: share of surface points (pixels of a silhouette at their depth) that the other views agree with: there
  they fall inside the silhouette and not in front of the surface. 1 for any object; low for a billboard that turns
  with the camera, even a round one, whose silhouettes agree.
* ``flatness``: standard deviation of the depth along the optical axis over a silhouette, over the longest side of the
  bounds. 0 for a flat board facing the camera; 0.06 for a sphere of half the width of the bounds.
* ``parallax``: share of surface points whose place in the next view differs by more than a pixel from where a board
  at their mean depth would have moved.
* ``opacity``: mean over all pixels. ``nonfinite``: share of values that are not finite (depths only where opaque).

B views, R = H W pixels, S samples on a ray, V views of an object, N points
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from zoo.generator import Generator, HasDensity, HasRays, draws_for, evaluating, lacking, render_foreground, take
from zoo.render import Camera, Rendered
from zoo.render.projection import Projected, Views, look_up, pixel_coordinates, project, views_of
from zoo.utils.errors import UserError

MEANINGS = {
    "outside": "share of the occupied volume outside the object's bounds; 0 is ideal",
    "silhouettes": "agreement of the silhouettes of one object over the views; 1 is ideal",
    "surface": "share of surface points that the other views confirm; 1 is ideal",
    "flatness": "standard deviation of depth over the size of the bounds; 0 is a flat board",
    "parallax": "share of surface points that move unlike a flat board",
    "opacity": "mean over all pixels",
    "nonfinite": "share of values that are not finite",
}
TOLERANCE = 0.05  # of the bounds' longest side: how far in front of a surface a point may lie and still be on it


def consistency(
    generator: Generator,
    n: int = 16,
    *,
    views: int = 8,
    resolution: int | None = None,
    seed: int = 0,
    truncation: float = 1.0,
    grid: int = 48,
) -> dict[str, float]:
    """The numbers above, each the mean over n objects, in the order above.

    Args:
        n: objects, samples 0..n-1 of the seed.
        views: sides an object is shown from, at least 3.
        resolution: side of the images [pixels]; by default the generator's own.
        grid: points along each side of the cube in which ``outside`` is measured.

    Returns:
        ``outside`` is NaN if nothing is occupied anywhere.

    Raises:
        UserError: less than 3 views, or the generator has no density or no rays.
    """
    if views < 3:
        raise UserError(f"The silhouettes of one object need at least 3 views, not {views}.")
    if not isinstance(generator, HasDensity) or not isinstance(generator, HasRays):
        raise lacking(generator, "Consistency in 3D", HasDensity, HasRays)
    collected: list[dict[str, float]] = []
    side = longest_side(generator)
    for index in range(n):
        rendered, camera, styles = turntable_views(generator, index, views, resolution, seed, truncation)
        shown = views_of(generator.rays, rendered, camera)
        places = [[project(shown, a, b) for b in range(views)] for a in range(views)]
        collected.append(
            {
                "outside": outside(generator, generator.density, styles, grid),
                "silhouettes": silhouette_agreement(generator, shown),
                "surface": surface_agreement(shown, places, side),
                **shape_diagnostics(shown, [row[(a + 1) % views] for a, row in enumerate(places)], side),
                **image_diagnostics(rendered),
            }
        )
    return means(collected)


def diagnostics(
    generator: Generator, n: int = 4, *, views: int = 4, resolution: int | None = None, seed: int = 0
) -> dict[str, float]:
    """``flatness``, ``parallax``, ``opacity`` and ``nonfinite`` of n objects: quick enough for every few iterations.

    The first two are depths compared along rays: a generator that has none has the other two only.
    """
    collected = []
    for index in range(n):
        rendered, camera, _ = turntable_views(generator, index, views, resolution, seed, 1.0)
        collected.append(image_diagnostics(rendered))
        if isinstance(generator, HasRays):
            shown = views_of(generator.rays, rendered, camera)
            next_views = [project(shown, a, (a + 1) % views) for a in range(views)]
            collected[-1] |= shape_diagnostics(shown, next_views, longest_side(generator))
    return means(collected)


def means(collected: list[dict[str, float]]) -> dict[str, float]:
    """Of each number; NaN where one is."""
    result = {}
    for name in collected[0]:
        mean = MeanMetric(nan_strategy="disable", sync_on_compute=False)  # may be one of several processes alone
        mean.update(torch.tensor([numbers[name] for numbers in collected], dtype=torch.float64))
        result[name] = float(mean.compute())
    return result


def longest_side(generator: Generator) -> float:
    return float((generator.bounds[1] - generator.bounds[0]).max())


def turntable_views(
    generator: Generator, index: int, views: int, resolution: int | None, seed: int, truncation: float
) -> tuple[Rendered, Camera, Any]:
    """Sample ``index`` from all sides, without jitter, the cameras, and the styles that it is shown with."""
    with evaluating(generator):
        latent, _ = generator.sample(1, draws_for(generator, seed, [index]))
        latents, camera = generator.turntable(latent, views)
        styles = generator.map(latents, truncation=truncation)
        return render_foreground(generator, styles, camera, resolution), camera, take(styles, slice(1))


def silhouette_agreement(generator: Generator, shown: Views, samples: int = 48) -> float:
    """Mean intersection over union of each view's silhouette and that of the hull of the others.

    A point belongs to the hull if every other view that it falls within shows it inside its silhouette.
    """
    low, high = generator.bounds
    middle, radius = (low + high) / 2, (high - low).norm() / 2
    views = len(shown.depth)
    total = 0.0
    for view in range(views):
        origins, directions = shown.rays.origins[view], shown.rays.directions[view]
        nearest = ((middle - origins) * directions).sum(-1, keepdim=True)  # where the ray passes the object's middle
        t = nearest + torch.linspace(-1, 1, samples, device=nearest.device) * radius
        points = origins[:, None] + t[..., None] * directions[:, None]
        hull = ((points >= low) & (points <= high)).all(-1)
        for other in range(views):
            if other != view:
                inside, seen = look_up(shown.solid[other], pixel_coordinates(shown, other, points))
                hull &= inside | ~seen
        predicted, actual = hull.any(-1), shown.solid[view].flatten()
        union = (predicted | actual).sum()
        total += float((predicted & actual).sum() / union) if union else 0.0
    return total / views


def surface_agreement(shown: Views, places: list[list[Projected]], side: float) -> float:
    """Share of (surface point, other view that it falls within) where that view agrees that it may be there."""
    agree = checked = 0
    for source, row in enumerate(places):
        for target, place in enumerate(row):
            if target == source:
                continue
            # One pixel of slack: a point on the rim falls beside the silhouette as often as not.
            solid = torch.nn.functional.max_pool2d(shown.solid[target][None].float(), 3, 1, 1)[0] > 0
            inside, seen = look_up(solid, place.pixels)
            far = shown.depth[target].where(shown.solid[target], -torch.inf)
            far = -torch.nn.functional.max_pool2d(-far.where(far.isfinite(), torch.inf)[None], 3, 1, 1)[0]
            surface, _ = look_up(far, place.pixels)
            agree += int((inside & seen & (place.distance >= surface - TOLERANCE * side)).sum())
            checked += int(seen.sum())
    return agree / checked if checked else 0.0


def shape_diagnostics(shown: Views, next_views: list[Projected], side: float) -> dict[str, float]:
    """``flatness`` and ``parallax``; ``next_views`` holds each view's surface points as the next one sees them."""
    flatness, moved, points = [], 0, 0
    for view, place in enumerate(next_views):
        forward = -shown.camera.pose[view, :3, 2]
        origin = shown.camera.origins[view]
        z = (place.points - origin) @ forward
        if len(z) < 2:
            continue
        flatness.append(float(z.std()) / side)
        board = origin + (place.points - origin) * (z.mean() / z)[:, None]
        there = pixel_coordinates(shown, (view + 1) % len(next_views), board)
        moved += int(((there - place.pixels).norm(dim=-1) > 1).sum())
        points += len(z)
    return {
        "flatness": sum(flatness) / len(flatness) if flatness else 0.0,
        "parallax": moved / points if points else 0.0,
    }


def image_diagnostics(rendered: Rendered) -> dict[str, float]:
    """``opacity`` and ``nonfinite`` of one object."""
    image, _, depth, opacity = rendered
    broken = [~image.isfinite(), ~opacity.isfinite(), ~depth.isfinite() & (opacity > 1e-3)]
    return {
        "opacity": float(opacity.mean()),
        "nonfinite": float(sum(b.sum() for b in broken) / sum(b.numel() for b in broken)),
    }


def outside(generator: Generator, density_at: Callable[[Tensor, Any], Tensor], styles: Any, grid: int) -> float:
    """Share of the occupied volume outside the bounds, within a cube around them with twice their longest side.

    A cell of the grid is occupied by 1 - exp(-density x its side): a solid one counts 1, thin haze its opacity.
    """
    middle, side = generator.bounds.mean(0), longest_side(generator)
    line = ((torch.arange(grid, device=middle.device) + 0.5) / grid * 2 - 1) * side
    points = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), dim=-1).reshape(1, -1, 3) + middle
    with evaluating(generator):
        density = torch.cat([density_at(part, styles) for part in points.split(32768, dim=1)], dim=1)[0, :, 0]
    occupied = 1 - torch.exp(-density.clamp(min=0) * (2 * side / grid))
    inside = ((points[0] >= generator.bounds[0]) & (points[0] <= generator.bounds[1])).all(-1)
    total = occupied.sum()
    return float(occupied[~inside].sum() / total) if total > 0 else float("nan")
