"""GAN inversion: from an image to the latent, camera, styles and weights that reproduce it."""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(__name__, search="invert camera_at camera_angles Inversion")
