"""3D consistency: whether a generator makes solid objects in its bounds, or clouds, billboards and unrelated views.

Only the generator's contract is used: samples, turntable views, depths, opacities, densities. The camera is
taken to move round an object that stands still. Depth and opacity are those of the foreground.

* ``outside``: see ``zoo.evaluate.metrics.density``.
* ``silhouettes``, ``surface``, ``flatness``, ``parallax``: see ``zoo.evaluate.metrics.surface``.
* ``opacity``: mean over all pixels. ``nonfinite``: share of values that are not finite (depths only where opaque).
"""

from functools import partial

import torch
from torchmetrics import MeanMetric

from zoo.evaluate.metrics.density import outside
from zoo.evaluate.metrics.objects import turntable_images
from zoo.evaluate.metrics.surface import shape_diagnostics, surfaces
from zoo.generator import Generator, HasDensity, HasRays, evaluating, lacking
from zoo.render import Rendered
from zoo.render.projection import views_of
from zoo.utils.errors import UserError

MEANINGS = {
    "outside": "share of the occupied volume outside the object's bounds; 0 is ideal",
    "silhouettes": "agreement of the silhouettes of one object over the views; 1 is ideal",
    "surface": "share of surface points that the other views confirm; 1 is ideal",
    "flatness": "distance of the surface from the plane that fits it best, over the size of the bounds; 0 is a board",
    "parallax": "share of surface points that move unlike that plane",
    "opacity": "mean over all pixels",
    "nonfinite": "share of values that are not finite",
}


def consistency(
    generator: Generator,
    n: int = 16,
    *,
    views: int = 8,
    resolution: int | None = None,
    seed: int = 0,
    truncation: float = 1.0,
    grid: int = 48,
    exact: bool = False,
) -> dict[str, float]:
    """The numbers above, each the mean over n objects, in the order above.

    Args:
        n: objects, samples 0..n-1 of the seed.
        views: sides an object is shown from, at least 3.
        resolution: side of the images [pixels]; by default the generator's own.
        grid: points along each side of the cube in which ``outside`` is measured.
        exact: of the images, as of ``zoo.generator.WithoutEmptySpace``.

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
    for index in range(n):
        rendered, camera, styles = turntable_images(generator, index, views, resolution, seed, truncation, exact=exact)
        shown = views_of(generator.rays, rendered, camera, generator.bounds)
        with evaluating(generator):
            haze = outside(partial(generator.density, styles=styles), generator.bounds, grid)
        collected.append(haze | surfaces(shown, views) | image_diagnostics(rendered))
    return means(collected)


def diagnostics(
    generator: Generator, n: int = 4, *, views: int = 4, resolution: int | None = None, seed: int = 0
) -> dict[str, float]:
    """``flatness``, ``parallax``, ``opacity`` and ``nonfinite`` of n objects: quick enough for every few iterations.

    The first two are depths compared along rays: a generator that has none has the other two only.
    """
    collected = []
    for index in range(n):
        rendered, camera, _ = turntable_images(generator, index, views, resolution, seed, 1.0)
        collected.append(image_diagnostics(rendered))
        if isinstance(generator, HasRays):
            collected[-1] |= shape_diagnostics(views_of(generator.rays, rendered, camera, generator.bounds))
    return means(collected)


def means(collected: list[dict[str, float]]) -> dict[str, float]:
    """Of each number; NaN where one is."""
    result = {}
    for name in collected[0]:
        mean = MeanMetric(nan_strategy="disable", sync_on_compute=False)  # may be one of several processes alone
        mean.update(torch.tensor([numbers[name] for numbers in collected], dtype=torch.float64))
        result[name] = float(mean.compute())
    return result


def image_diagnostics(rendered: Rendered) -> dict[str, float]:
    """``opacity`` and ``nonfinite`` of one object."""
    image, _, depth, opacity = rendered
    broken = [~image.isfinite(), ~opacity.isfinite(), ~depth.isfinite() & (opacity > 1e-3)]
    return {
        "opacity": float(opacity.mean()),
        "nonfinite": float(sum(b.sum() for b in broken) / sum(b.numel() for b in broken)),
    }
