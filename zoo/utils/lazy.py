"""Lazy imports of packages: a name must not cost the seconds that importing torch takes."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def exports(package: str, **homes: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    Args:
        package: its name.
        homes: what it offers, names with blanks between, by the module inside that they are imported from.
    """
    places = {name: home for home, names in homes.items() for name in names.split()}

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(import_module(f"{package}.{places[name]}"), name)

    return find, lambda: sorted(places), sorted(places)
