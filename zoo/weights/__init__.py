"""Weights: bundles, published checkpoints, and how they are read without running anything in them.

``load`` gives a generator by its name, folder or checkpoint, ``load_bundle`` also returns its ``BundleInfo``, and
``save_bundle`` writes one. ``released`` lists the published checkpoints.
"""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__, bundle="BundleInfo load load_bundle save_bundle", catalogue="Released released"
)
