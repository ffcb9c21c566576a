"""StyleNeRF (Gu et al., ICLR 2022): a radiance field and a 2D network that grow together as StyleGAN2's layers."""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    model="Generator",
    field=(
        "StyledField PlainField LinearSpacing ContractedSpacing NormalisedDepthRenderer BackgroundRenderer "
        "zero_last_interval"
    ),
    synthesis="SynthesisNetwork",
    discriminator="Discriminator",
    growing="Growth",
    training="StyleNeRF",
    extras="PlaneNetwork TriPlaneField LearnedPoses CameraDiscriminator DualDiscriminator DoubleDiscriminator",
)
