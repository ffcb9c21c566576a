"""Quality and variety apart, by nearest neighbours of features.

The ball of an image reaches to its k-th nearest neighbour within its own set.

* ``precision``: share of generated images within the ball of a real one (Kynkäänniemi et al. 2019, section 2; k = 3).
* ``recall``: share of real images within the ball of a generated one.
* ``density``: in how many balls of real images a generated one is, over k (Naeem et al. 2020, equation 3; k = 5).
  About 1 where both sets come from one distribution; above 1 where generated images crowd among typical real ones.
* ``coverage``: share of real images whose ball holds a generated one (equation 4).

All depend on the numbers of images: compare only at the same ones.

N real and M generated images, F features, K numbers of neighbours
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.evaluate.jackknife import standard_errors
from zoo.evaluate.metrics.features import FeatureMetric, Measure, RealFeatures
from zoo.evaluate.metrics.objects import Better
from zoo.utils.errors import UserError

NEIGHBOURS, DENSITY_NEIGHBOURS = 3, 5
CHUNK = 1024  # blocks of 8 MB
MOST = 10_000
ROUNDING = 1e-12  # of the squared norms: squared distances that differ by less are equal
BETTER: dict[str, Better] = {"precision": "more", "recall": "more", "density": "more", "coverage": "more"}


class Block(NamedTuple):
    """Squared distances [r, c] between some rows and some columns."""

    rows: slice
    columns: slice
    squared: Tensor


def precision_recall(
    real: Tensor, fake: Tensor, neighbours: int = NEIGHBOURS, density_neighbours: int = DENSITY_NEIGHBOURS
) -> dict[str, float]:
    """The four numbers of features [N, F] and [M, F].

    Args:
        neighbours: of the balls for precision and recall.
        density_neighbours: for density and coverage.

    Raises:
        UserError: a set holds no more images than a ball has neighbours.
    """
    most = max(neighbours, density_neighbours)
    if min(len(real), len(fake)) <= most:
        raise UserError(
            f"Precision and recall need more than {most} images on each side; there are {len(fake)} generated and "
            f"{len(real)} real ones."
        )
    middle = real.double().mean(0)  # smaller norms, and so smaller rounding errors
    reach, wide = squared_radii(real, middle, (neighbours, density_neighbours)).unbind(1)
    (own_reach,) = squared_radii(fake, middle, (neighbours,)).unbind(1)
    precise, balls = (torch.zeros(len(fake), dtype=torch.long) for _ in range(2))
    recalled, covered = (torch.zeros(len(real), dtype=torch.bool) for _ in range(2))
    for rows, columns, squared in blocks(fake, real, middle, ROUNDING):
        precise[rows] += (squared <= reach[columns]).sum(1)
        balls[rows] += (squared <= wide[columns]).sum(1)
        recalled[columns] |= (squared <= own_reach[rows, None]).any(0)
        covered[columns] |= (squared <= wide[columns]).any(0)
    return {
        "precision": float((precise > 0).double().mean()),
        "recall": float(recalled.double().mean()),
        "density": float(balls.double().mean()) / density_neighbours,
        "coverage": float(covered.double().mean()),
    }


def squared_radii(features: Tensor, middle: Tensor, neighbours: Sequence[int]) -> Tensor:
    """Squared distance [N, K] from each of the features [N, F] to its k-th nearest neighbour, without itself."""
    nearest = torch.full((len(features), max(neighbours)), torch.inf, dtype=torch.float64)
    for rows, columns, squared in blocks(features, features, middle):
        if rows == columns:
            squared.fill_diagonal_(torch.inf)
        both = torch.cat([nearest[rows], squared], dim=1)
        nearest[rows] = both.topk(nearest.shape[1], largest=False).values
    return nearest[:, [k - 1 for k in neighbours]]


def blocks(a: Tensor, b: Tensor, middle: Tensor, rounding: float = 0.0) -> Iterator[Block]:
    """All squared distances between a [N, F] and b [M, F], block by block, in float64.

    Args:
        middle: that is subtracted from both [F].
        rounding: share of the squared norms that distances are lowered by.
    """
    for first in range(0, len(a), CHUNK):
        rows = slice(first, first + CHUNK)
        x = a[rows].double() - middle
        x_norms = x.square().sum(1, keepdim=True) * (1 - rounding)
        for second in range(0, len(b), CHUNK):
            columns = slice(second, second + CHUNK)
            y = b[columns].double() - middle
            norms = x_norms + y.square().sum(1) * (1 - rounding)
            yield Block(rows, columns, norms.addmm_(x, y.mT, alpha=-2).clamp_(min=0))


def precision_recall_metric(
    neighbours: int = NEIGHBOURS, density_neighbours: int = DENSITY_NEIGHBOURS, count: int | None = None
) -> FeatureMetric:
    """The four numbers of the first ``count`` generated images, by default of all; NaN of too few images.

    Standard errors are of up to 10,000 images, since they take ten times as long as the numbers.
    """
    measure = partial(of_features, neighbours=neighbours, density_neighbours=density_neighbours)
    protocol = {"neighbours": neighbours, "density_neighbours": density_neighbours}
    return FeatureMetric("precision_recall", measure, BETTER, protocol, count, partial(spread, measure=measure))


def of_features(features: Tensor, real: RealFeatures, neighbours: int, density_neighbours: int) -> dict[str, float]:
    """The numbers of generated images' features [M, F]."""
    if min(len(features), len(real.features)) <= max(neighbours, density_neighbours):
        return dict.fromkeys(BETTER, float("nan"))
    return precision_recall(real.features, features, neighbours, density_neighbours)


def spread(features: Tensor, real: RealFeatures, measure: Measure) -> dict[str, float]:
    """Their standard errors."""
    return standard_errors(features, real, measure) if len(features) <= MOST else {}
