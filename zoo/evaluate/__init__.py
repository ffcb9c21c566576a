"""Metrics: FID and KID of images, and the 3D consistency of generators.

``score`` measures a generator, or an ``ImagePathDataset``, against real images; ``consistency`` measures
how well its views agree in 3D.
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
