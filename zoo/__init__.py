"""3D-aware GANs as PyTorch Lightning modules on one pluggable renderer."""

from importlib import import_module
from typing import Any

from zoo.threads import configure_openmp

configure_openmp()  # before anything imports torch

# torch is imported only when one of these is asked for
_HOMES = {
    "CIPS3D": "zoo.cips3d",
    "GAN": "zoo.gan",
    "GIRAFFE": "zoo.giraffe",
    "GRAF": "zoo.graf",
    "PiGAN": "zoo.pigan",
    "StyleNeRF": "zoo.stylenerf",
    "VolumeGAN": "zoo.volumegan",
    "load": "zoo.weights.bundle",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
