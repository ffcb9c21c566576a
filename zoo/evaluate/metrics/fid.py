"""Fréchet distance between two sets of features (Heusel et al. 2017), in float64.

|m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^1/2). With any matrices R1, R2 such that C = R^T R, the last trace is the
sum of the singular values of R1 R2^T: no square root of a matrix product, nothing complex. Where there are fewer
images than features, R is the centred features themselves, and everything stays small and exact.

N images, F features
"""

from functools import partial

import torch
from torch import Tensor

from zoo.evaluate.jackknife import standard_errors
from zoo.evaluate.metrics.features import CHUNK, FeatureMetric, Moments, RealFeatures
from zoo.utils.errors import UserError


def moments(features: Tensor) -> Moments:
    """Mean and root of the covariance of features [N, F].

    Raises:
        UserError: fewer than two images, or features that are not finite.
    """
    n, size = features.shape
    if n < 2:
        raise UserError(f"FID needs at least 2 images on each side, better thousands; there is {n}.")
    if not features.isfinite().all():
        raise UserError("Some features are not finite: the images hold values that are not finite.")
    mean = sum(part.double().sum(0) for part in features.split(CHUNK)) / n
    if n <= size:
        return Moments(mean, (features.double() - mean) / (n - 1) ** 0.5)
    covariance = features.new_zeros(size, size, dtype=torch.float64)
    for part in features.split(CHUNK):  # all of it in float64 at once would be large
        centred = part.double() - mean
        covariance.addmm_(centred.mT, centred)
    values, vectors = torch.linalg.eigh(covariance / (n - 1))
    return Moments(mean, values.clamp(min=0).sqrt()[:, None] * vectors.mT)


def fid(a: Moments, b: Moments) -> float:
    """Fréchet distance; biased upwards for few images, so compare only at the same numbers."""
    shared = torch.linalg.svdvals(a.root @ b.root.mT).sum()
    value = (a.mean - b.mean).square().sum() + a.root.square().sum() + b.root.square().sum() - 2 * shared
    return max(0.0, float(value))  # of a set and itself, rounding errors may leave less


def fid_metric(count: int | None = None) -> FeatureMetric:
    """FID of the first ``count`` generated images, by default of all."""
    spread = partial(standard_errors, measure=fid_of_features)
    return FeatureMetric("fid", fid_of_features, {"fid": "less"}, {"covariance": "N - 1"}, count, spread)


def fid_of_features(features: Tensor, real: RealFeatures) -> dict[str, float]:
    """FID of generated images' features [N, F]."""
    return {"fid": fid(moments(features), real.moments)}
