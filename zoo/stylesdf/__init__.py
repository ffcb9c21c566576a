"""StyleSDF (Or-El et al., CVPR 2022): a signed distance as sine layers, rendered small, and a StyleGAN2 on top."""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    model="Generator",
    field="SDFField SigmoidDensity OffsetDepths",
    decoder="Decoder",
    discriminator="PoseDiscriminator ImageDiscriminator StagedDiscriminator",
    stages="SphereStage VolumeStage ImageStage",
    training="StyleSDF",
)
