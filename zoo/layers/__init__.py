"""Layers that two or more systems use."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_plain = ContextVar("plain", default=False)


@contextmanager
def plain() -> Iterator[None]:
    """Inside, everything is computed in torch's own way, and nothing in a faster one of ours, see ``winograd``."""
    before = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(before)


def is_plain() -> bool:
    """Whether this is inside ``plain``."""
    return _plain.get()
