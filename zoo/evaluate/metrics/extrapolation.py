"""FID of infinitely many generated images (Chong and Forsyth 2020, "FID_inf").

FID of N images is too high by about C / N, with a C that depends on the generator, so that two generators can change
places when N does. A line through FID at several N, as a function of 1 / N, meets 1 / N = 0 at the value without this
bias. (That of a finite number of real images remains.) The estimate may be a little below zero, where the FID is.

N images, F features
"""

import numpy as np
import torch
from torch import Tensor

from zoo.evaluate.jackknife import standard_errors
from zoo.evaluate.metrics.features import FeatureMetric, Moments, RealFeatures
from zoo.evaluate.metrics.fid import fid, moments
from zoo.utils.errors import UserError

SIZES = 5
SMALL = 256
LEAST = 5  # images a feature: with fewer, terms in 1 / N^2 still count


def sizes(total: int) -> list[int]:
    """Numbers of images that the line goes through: five whose inverses are evenly spaced, from half of all to all."""
    return [round(1 / inverse) for inverse in np.linspace(2 / total, 1 / total, SIZES)]


def fid_infinity(fake: Tensor, real: Moments, seed: int = 0) -> float:
    """FID extrapolated from features [N, F] to infinitely many.

    Args:
        seed: of the order in which images are taken; those of a folder may be sorted.

    Raises:
        UserError: fewer than five images a feature: the law of 1 / N does not hold yet.
    """
    total, size = fake.shape
    if total < LEAST * size:
        raise UserError(
            f"The extrapolation of FID needs at least {LEAST * size:,} generated images with this extractor, which has "
            f"{size:,} features; there are {total:,}."
        )
    order = torch.from_numpy(np.random.RandomState(seed).permutation(total))
    values = []
    for count in sizes(total):
        # From both ends, so that all images count alike.
        ends = [order[:count]] if count == total else [order[:count], order[-count:]]
        values.append(np.mean([fid(moments(fake[chosen]), real) for chosen in ends]))
    _, intercept = np.polyfit([1 / count for count in sizes(total)], values, 1)
    return float(intercept)


def fid_infinity_metric(count: int | None = None) -> FeatureMetric:
    """FID extrapolated from the first ``count`` generated images, by default all, to infinitely many.

    NaN of too few images; a standard error of small features only, since others take minutes.
    """
    return FeatureMetric("fid_inf", fid_infinity_of_features, {"fid_inf": "less"}, {"sizes": SIZES}, count, spread)


def fid_infinity_of_features(features: Tensor, real: RealFeatures) -> dict[str, float]:
    """The extrapolation of generated images' features [N, F]; NaN where it does not hold."""
    total, size = features.shape
    return {"fid_inf": fid_infinity(features, real.moments) if total >= LEAST * size else float("nan")}


def spread(features: Tensor, real: RealFeatures) -> dict[str, float]:
    """Its standard error."""
    return standard_errors(features, real, fid_infinity_of_features) if features.shape[1] <= SMALL else {}
