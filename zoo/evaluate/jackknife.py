"""How far a score may be from that of other samples of the same generator: standard errors over ten folds.

Each fold of the generated images is left out in turn (the jackknife of groups: Efron and Tibshirani 1993, chapter 11).
Sets of nine tenths have nearly the same bias as all, unlike the folds themselves or sets with repeated images, which
matters for FID. The real images stay: systems that are compared share them.

N images, F features, K folds
"""

from math import isfinite

import numpy as np
import torch
from torch import Tensor

from zoo.evaluate.metrics.features import Measure, RealFeatures
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


def standard_errors(features: Tensor, real: RealFeatures, measure: Measure, folds: int = FOLDS) -> dict[str, float]:
    """Standard errors of the numbers that a function finds on features [N, F]; none of fewer than two images a fold, or
    where numbers are not finite."""
    if len(features) < 2 * folds:
        return {}
    fold = fold_of_each(len(features), folds)
    without = [measure(features[fold != out], real) for out in range(folds)]
    errors = {name: jackknife(torch.tensor([one[name] for one in without], dtype=torch.float64)) for name in without[0]}
    return {name: error for name, error in errors.items() if isfinite(error)}
