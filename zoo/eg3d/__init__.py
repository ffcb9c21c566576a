"""EG3D (Chan et al., CVPR 2022): a StyleGAN2 makes three feature planes, which are rendered and made larger."""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    model="Generator",
    field="TriPlaneField FixedLimits BoxLimits SmoothedImportance",
    synthesis="PlaneNetwork Superresolution",
    discriminator="DualDiscriminator",
    cameras="LookAtPoses",
    training="EG3D RampedDecay DensityTV Monotonic",
)
