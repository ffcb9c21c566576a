"""Metrics of sets of images, such as FID, and of single objects, such as how well their views agree in 3D.

``score`` measures them of a generator, or those of images of an ``ImagePathDataset``, against real images;
``consistency`` gives diagnostics of a generator's 3D.
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
