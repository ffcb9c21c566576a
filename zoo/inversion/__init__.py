"""From an image back to the latent, camera, styles and weights that draw it."""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(__name__, search="invert camera_at camera_angles Inverted")
