"""Metrics of sets of images: what they share is the features, which are computed once for all of them.

N images, F features
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor
from torchmetrics import Metric as Accumulated
from torchmetrics.utilities import dim_zero_cat

from zoo.evaluate.metrics.objects import Better, Need
from zoo.evaluate.processes import broadcast, gather_tensor
from zoo.utils.errors import UserError

CHUNK = 4096


class Moments(NamedTuple):
    """Mean [F] and a root [min(N, F), F] of the covariance (with N - 1): covariance = root^T root. Both float64."""

    mean: Tensor
    root: Tensor


class RealFeatures(NamedTuple):
    """features [N, F] float32, in the order of the dataset, and their moments."""

    features: Tensor
    moments: Moments


Measure = Callable[[Tensor, RealFeatures], Mapping[str, float]]


class FeatureMetric(Accumulated):
    """Numbers that a function finds on the features of generated images and those of real ones.

    ``update(indices [B], features [B, F])`` takes images by the index of the sample, in any order and from any
    process. ``compute()`` is called by every process: the first one, which has ``real``, measures, and all get its
    numbers, the same bits as one process alone. ``real`` is set by whoever measures. ``errors`` holds the standard
    error of each number, once it is computed.

    Args:
        measure: (features [N, F], real features) -> the numbers, by name; those in ``better``.
        better, protocol: as of every metric.
        count: of the generated images the first so many are measured; by default all.
        spread: (features, real features) -> standard errors of the numbers, by name; by default none are known.
    """

    full_state_update = False
    indices: list[Tensor]
    features: list[Tensor]

    def __init__(
        self,
        name: str,
        measure: Measure,
        better: Mapping[str, Better],
        protocol: Mapping[str, Any],
        count: int | None = None,
        spread: Measure | None = None,
    ) -> None:
        super().__init__(dist_sync_fn=gather_tensor)
        self.spread = spread
        self.name, self.measure, self.better, self.protocol, self.count = name, measure, better, protocol, count
        self.needs: frozenset[Need] = frozenset(("images",))
        self.real: RealFeatures | None = None
        self.made_by: dict[str, Any] = {}  # class_path and init_args, where they are known
        self.errors: dict[str, float] = {}
        self.add_state("indices", [], dist_reduce_fx="cat")
        self.add_state("features", [], dist_reduce_fx="cat")

    def update(self, indices: Tensor, features: Tensor) -> None:
        """Features [B, F] of the images with these indices [B]."""
        self.indices.append(indices)
        self.features.append(features)

    def compute(self) -> dict[str, float]:
        """The numbers, on every process.

        Raises:
            UserError: fewer images than ``count``.
        """
        indices, order = dim_zero_cat(self.indices).sort(stable=True)
        first = indices.diff(prepend=indices[:1] - 1) > 0  # one that two processes measured counts once
        features = dim_zero_cat(self.features)[order[first]][: self.count]
        if self.count is not None and len(features) < self.count:
            raise UserError(f"{self.name} of {self.count:,} images needs as many; there are {len(features):,}.")
        numbers, self.errors = broadcast(self.measured(features))
        return numbers

    def measured(self, features: Tensor) -> tuple[dict[str, float], dict[str, float]]:
        """The numbers and their standard errors, where the real features are."""
        if self.real is None:
            return {}, {}
        return dict(self.measure(features, self.real)), dict(self.spread(features, self.real)) if self.spread else {}
