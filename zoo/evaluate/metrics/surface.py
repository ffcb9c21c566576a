"""Surfaces: whether the views of one object show the outside of one solid. No colour is involved.

* ``silhouettes``: each view's silhouette (opacity above 1/2) against that of the visual hull made of the other views'
  silhouettes: intersection over union, averaged. 1 for a convex object seen from all around; a little less
  where the hull is looser than the object. A view that shows nothing counts 0.
* ``surface``: share of surface points (pixels of a silhouette at their depth) that the other views agree with: there
  they fall inside the silhouette and not in front of the surface. 1 for any object; low for a billboard that turns
  with the camera, even a round one, whose silhouettes agree.
* ``flatness``: distance of a view's surface points from the plane that fits them best (root mean square), over the
  longest side of the bounds. 0 for a flat board, however it stands; 0.06 for a sphere of half the width of the bounds.
* ``parallax``: share of surface points whose place in the next view differs by more than a pixel from where the same
  plane would have moved.

V views, R = H W pixels, S samples on a ray, N points
"""

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from zoo.evaluate.metrics.objects import Better, ObjectMetric
from zoo.render.projection import Projected, Views, look_up, pixel_coordinates, project

TOLERANCE = 0.05  # of the bounds' longest side: how far in front of a surface a point may lie and still be on it
VIEWS = 8
BETTER: dict[str, Better] = {"silhouettes": "more", "surface": "more", "flatness": "more", "parallax": "more"}


def silhouette_agreement(shown: Views, samples: int = 48) -> float:
    """Mean intersection over union of each view's silhouette and that of the hull of the others.

    A point belongs to the hull if every other view that it falls within shows it inside its silhouette.
    """
    low, high = shown.bounds
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


def surface_agreement(shown: Views, places: list[list[Projected]]) -> float:
    """Share of (surface point, other view that it falls within) where that view agrees that it may be there.

    ``places`` holds each view's surface points (rows) as all views see them.
    """
    agree = checked = 0
    for source, row in enumerate(places):
        for target, place in enumerate(row):
            if target == source:
                continue
            # One pixel of slack: a point on the rim falls beside the silhouette as often as not.
            solid = max_pool2d(shown.solid[target][None].float(), 3, 1, 1)[0] > 0
            inside, seen = look_up(solid, place.pixels)
            far = shown.depth[target].where(shown.solid[target], -torch.inf)
            far = -max_pool2d(-far.where(far.isfinite(), torch.inf)[None], 3, 1, 1)[0]
            surface, _ = look_up(far, place.pixels)
            agree += int((inside & seen & (place.distance >= surface - TOLERANCE * shown.side)).sum())
            checked += int(seen.sum())
    return agree / checked if checked else 0.0


def best_plane(points: Tensor) -> tuple[Tensor, Tensor]:
    """Middle [3] of points [N, 3] and unit normal [3] of the plane through it with the least squared distances."""
    middle = points.mean(0)
    off = points - middle
    normal = torch.linalg.eigh((off.mT @ off).cpu().double())[1][:, 0]
    return middle, normal.to(points)


def plane_points(views: Views) -> Tensor:
    """Where each view's rays meet the plane that fits its surface best, [V, R, 3]; NaN for rays that never do."""
    points = []
    for view, solid in enumerate(views.solid):
        origins, directions = views.rays.origins[view], views.rays.directions[view]
        middle, normal = best_plane(views.points[view][solid.flatten()]) if solid.any() else (origins[0], origins[0])
        t = ((middle - origins) @ normal) / (directions @ normal)
        points.append(origins + t.where(t > 0, torch.nan)[:, None] * directions)
    return torch.stack(points)


def shape_diagnostics(shown: Views) -> dict[str, float]:
    """``flatness`` and ``parallax``; the last view's next one is the first."""
    flatness, moved, points = [], 0, 0
    boards = plane_points(shown)
    for view, solid in enumerate(shown.solid):
        after = (view + 1) % len(shown.solid)
        surface, board = (x[view][solid.flatten()] for x in (shown.points, boards))
        if len(surface) < 2:
            continue
        middle, normal = best_plane(surface)
        flatness.append(float(((surface - middle) @ normal).square().mean().sqrt()) / shown.side)
        there, here = (pixel_coordinates(shown, after, x) for x in (board, surface))
        moved += int(((there - here).norm(dim=-1) > 1).sum())
        points += len(surface)
    return {
        "flatness": sum(flatness) / len(flatness) if flatness else 0.0,
        "parallax": moved / points if points else 0.0,
    }


def surfaces(views: Views, count: int = VIEWS) -> dict[str, float]:
    """The numbers above, of so many of an object's views, evenly chosen; all where there are fewer."""
    shown = views.take(torch.arange(0, len(views.depth), max(1, len(views.depth) // count)))
    places = [[project(shown, a, b) for b in range(len(shown.depth))] for a in range(len(shown.depth))]
    return {
        "silhouettes": silhouette_agreement(shown),
        "surface": surface_agreement(shown, places),
        **shape_diagnostics(shown),
    }


def surface_metric() -> ObjectMetric:
    """Surfaces of objects' ``Views``."""
    protocol = {"views": VIEWS, "tolerance": TOLERANCE}
    return ObjectMetric("surface", surfaces, BETTER, frozenset(("cameras", "depth", "rays")), protocol)
