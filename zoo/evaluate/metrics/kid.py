"""Kernel distance between two sets of features (Binkowski et al. 2018), in float64.

The squared maximum mean discrepancy with the kernel (x y / F + 1)^3. As in torch-fidelity the mean over random subsets
is the value, and equal seeds give equal subsets; the draw depends on nothing but the seed and the numbers of images.

N generated and M real images, F features
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.evaluate.jackknife import FOLDS, LEAST, fold_of_each, jackknife
from zoo.evaluate.metrics.features import FeatureMetric, RealFeatures
from zoo.utils.errors import UserError

CHUNK = 4096


class KID(NamedTuple):
    """Mean over the subsets, and their standard deviation."""

    mean: float
    std: float


def kid(fake: Tensor, real: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 2020) -> KID:
    """KID of features [N, F] over random subsets without replacement.

    Args:
        fake, real: features in the order of their images' indices; the fakes' subsets are drawn first.
        seed: of numpy's RandomState; 2020 is torch-fidelity's.

    Raises:
        UserError: fewer images than a subset takes.
    """
    if min(len(fake), len(real)) < max(2, subset_size):
        raise UserError(
            f"KID over subsets of {subset_size} needs as many images on each side; "
            f"there are {len(fake)} generated and {len(real)} real ones. Take more images or smaller subsets."
        )
    draw = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        x = fake[draw.choice(len(fake), subset_size, replace=False)]
        y = real[draw.choice(len(real), subset_size, replace=False)]
        values.append(squared_mmd(x, y))
    return KID(float(np.mean(values)), float(np.std(values)))


def squared_mmd(x: Tensor, y: Tensor) -> float:
    """Squared maximum mean discrepancy of all features x [N, F] and y [M, F], without the pairs of one with itself."""
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise UserError(f"KID needs at least 2 images on each side; there are {n} and {m}.")
    within = (_kernel_sum(x, x, True) / (n * (n - 1))) + (_kernel_sum(y, y, True) / (m * (m - 1)))
    return within - 2 * _kernel_sum(x, y, False) / (n * m)


def _kernel_sum(x: Tensor, y: Tensor, same: bool) -> float:
    """Sum of the kernel over all pairs, block by block; without the diagonal where both are the same set."""
    x, y = x.double(), y.double()
    total = 0.0
    for rows in x.split(CHUNK):
        for columns in y.split(CHUNK):
            total += ((rows @ columns.mT / x.shape[1] + 1) ** 3).sum().item()
    return total - ((x.square().sum(1) / x.shape[1] + 1) ** 3).sum().item() if same else total


def kid_metric(subsets: int = 100, subset_size: int = 1000, count: int | None = None) -> FeatureMetric:
    """KID of the first ``count`` generated images, by default of all; subsets are of all where a side has fewer."""
    measure = partial(kid_of_features, subsets=subsets, subset_size=subset_size)
    protocol = {"subsets": subsets, "subset_size": subset_size}
    return FeatureMetric("kid", measure, {"kid": "less"}, protocol, count, kid_error_of_features)


def kid_of_features(features: Tensor, real: RealFeatures, subsets: int, subset_size: int) -> dict[str, float]:
    """KID of generated images' features [N, F], over subsets of so many images, or of all where a side has fewer."""
    size = min(subset_size, len(features), len(real.features))
    return {"kid": kid(features, real.features, subsets, size).mean}


def kid_error_of_features(features: Tensor, real: RealFeatures) -> dict[str, float]:
    """Standard error of the KID of generated images' features [N, F]; none of too few images."""
    return {"kid": kid_standard_error(features, real.features)} if len(features) >= LEAST else {}


def kid_standard_error(fake: Tensor, real: Tensor, folds: int = FOLDS, seed: int = 0) -> float:
    """Standard error of the KID of all pairs of features [N, F] and [M, F], at the cost of one such KID."""
    fold = fold_of_each(len(fake), folds, seed)
    parts = [fake[fold == index] for index in range(folds)]
    within = torch.zeros(folds, folds, dtype=torch.float64)
    for a in range(folds):
        for b in range(a + 1):
            within[a, b] = within[b, a] = _kernel_sum(parts[a], parts[b], a == b)
    across = torch.tensor([_kernel_sum(part, real, False) for part in parts], dtype=torch.float64)
    left = len(fake) - torch.tensor([len(part) for part in parts], dtype=torch.float64)
    pairs = within.sum() - 2 * within.sum(1) + within.diagonal()
    values = pairs / (left * (left - 1)) - 2 * (across.sum() - across) / (left * len(real))
    return jackknife(values)  # what pairs of real images add is the same for all
