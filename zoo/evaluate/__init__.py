"""Scores of images, and checks that they show solid objects.

``score`` measures a generator, or an ``ImagePathDataset``, against real images; ``consistency`` looks at its objects.
"""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    protocol="Scores score",
    extractors="Extractor load_extractor",
    images="ImagePathDataset",
    real_statistics="RealImages",
    **{"metrics.consistency": "consistency"},
)
