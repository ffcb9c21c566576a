"""How far a score may be from that of other samples of the same generator: standard errors over ten folds.

Each fold of the generated images is left out in turn (the jackknife of groups: Efron and Tibshirani 1993, chapter 11).
Sets of nine tenths have nearly the same bias as all, unlike the folds themselves or sets with repeated images, which
matters for FID. The real images stay: systems that are compared share them.

N generated and M real images, F features
"""

from collections.abc import Callable
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from zoo.evaluate.metrics.features import Measure, RealFeatures
from zoo.evaluate.metrics.kid import kernel_sum
from zoo.utils.errors import UserError

FOLDS = 10
LEAST = 2 * FOLDS  # images


def fold_of_each(total: int, folds: int = FOLDS, seed: int = 0) -> Tensor:
    """Which fold each of so many images is in [N]; the folds are random and differ in size by at most one.

    Raises:
        UserError: fewer than two images a fold.
    """
    if total < 2 * folds:
        raise UserError(f"A standard error over {folds} folds needs at least {2 * folds} images; there are {total}.")
    fold = np.random.RandomState(seed).permutation(np.arange(total) % folds)
    return torch.from_numpy(fold)


def jackknife(values: Tensor) -> float:
    """Standard error of a statistic of K folds from its values [K] without each of them."""
    return float((values - values.mean()).square().mean().mul(len(values) - 1).sqrt())


def standard_error(statistic: Callable[[Tensor], float], fake: Tensor, folds: int = FOLDS, seed: int = 0) -> float:
    """Standard error of a statistic of features [N, F], such as ``lambda x: fid(moments(x), real)``."""
    fold = fold_of_each(len(fake), folds, seed)
    values = [statistic(fake[fold != out]) for out in range(folds)]
    return jackknife(torch.tensor(values, dtype=torch.float64))


def standard_errors(features: Tensor, real: RealFeatures, measure: Measure) -> dict[str, float]:
    """Standard errors of the numbers that a function finds on features [N, F]; none of too few images, or where the
    numbers are not finite."""
    if len(features) < LEAST:
        return {}
    fold = fold_of_each(len(features))
    without = [measure(features[fold != out], real) for out in range(FOLDS)]
    errors = {name: jackknife(torch.tensor([one[name] for one in without]).double()) for name in without[0]}
    return {name: error for name, error in errors.items() if isfinite(error)}


def kid_standard_error(fake: Tensor, real: Tensor, folds: int = FOLDS, seed: int = 0) -> float:
    """Standard error of the KID of all pairs of features [N, F] and [M, F], at the cost of one such KID."""
    fold = fold_of_each(len(fake), folds, seed)
    parts = [fake[fold == index] for index in range(folds)]
    within = torch.zeros(folds, folds, dtype=torch.float64)
    for a in range(folds):
        for b in range(a + 1):
            within[a, b] = within[b, a] = kernel_sum(parts[a], parts[b], a == b)
    across = torch.tensor([kernel_sum(part, real, False) for part in parts], dtype=torch.float64)
    left = len(fake) - torch.tensor([len(part) for part in parts], dtype=torch.float64)
    pairs = within.sum() - 2 * within.sum(1) + within.diagonal()
    values = pairs / (left * (left - 1)) - 2 * (across.sum() - across) / (left * len(real))
    return jackknife(values)  # what pairs of real images add is the same for all
