"""Layers that two or more systems use; ``with plain():`` runs without our faster ways to compute them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    ada="Augmentation",
    discriminator="Discriminator DiscriminatorOutput",
    encoding="positional_encoding",
    lookup="trilinear",
    stylegan2="Convolution Dense Mapping ModulatedConvolution Noise StyledLayer",
)
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
