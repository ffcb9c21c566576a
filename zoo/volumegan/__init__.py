"""VolumeGAN (Xu et al., CVPR 2022): a volume of features from 3D convolutions, a field that reads it, a 2D network."""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    model="Generator",
    field="StructuralVolume StyledField",
    synthesis="SynthesisNetwork",
    discriminator="Discriminator",
    training="Growth VolumeGAN",
    extras="Unjittered unit_intervals FarLastInterval",
)
