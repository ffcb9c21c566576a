"""The interactive viewer: what ``zoo view`` shows in the browser.

``Scene`` renders what a ``Choice`` says from a ``Viewpoint``, ``Checkpoints`` follows a run in training, and ``Shelf``
saves. Nothing of that knows of a browser: ``serve`` alone does, through viser.
"""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    checkpoints="Checkpoints",
    saving="Shelf",
    scene="Choice Scene",
    server="serve",
    viewpoints="Stand Viewpoint",
)
