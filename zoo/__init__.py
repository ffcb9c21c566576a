"""3D-aware GANs as PyTorch Lightning modules on one pluggable renderer."""

from zoo.utils.lazy import exports
from zoo.utils.threads import configure_openmp

configure_openmp()  # before anything imports torch

__getattr__, __dir__, __all__ = exports(
    __name__,
    pigan="PiGAN",
    graf="GRAF",
    giraffe="GIRAFFE",
    stylenerf="StyleNeRF",
    cips3d="CIPS3D",
    volumegan="VolumeGAN",
    eg3d="EG3D",
    stylesdf="StyleSDF",
    training="GAN",
    weights="load",
)
