"""pi-GAN (Chan et al., CVPR 2021): a SIREN whose layers a latent modulates, rendered directly."""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__, model="SpatialEmbedding FilmSiren Generator Discriminator", training="Stage PiGAN"
)
