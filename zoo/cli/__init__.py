"""The ``zoo`` command."""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(__name__, command="main")
