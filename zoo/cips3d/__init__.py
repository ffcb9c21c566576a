"""CIPS-3D (Zhou et al., 2021): a shallow radiance field, and a deep network that processes each ray by itself."""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    model="FilmSiren MappingNetwork Mapping Generator",
    inr="Inr",
    discriminator="Tower Discriminator",
    training="Stage CIPS3D",
    extras="Heads swap_layers",
)
