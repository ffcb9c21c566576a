"""The small networks that know procedural cars: the extractor ``cars``, and what tells their cameras.

B batch, H height, W width
"""

from torch import Tensor, nn
from torch.nn.functional import normalize

from zoo.render.cameras import look_at
from zoo.utils.errors import UserError

NUM_FEATURES = 64
NUM_TARGETS = 16
SIZES = (32, 64)  # of images [pixels]
KINDS = ("hatchback", "sedan", "estate", "offroad", "van", "coupe")


def block(channels_in: int, channels_out: int, size: int, stride: int) -> nn.Sequential:
    """A convolution that divides the resolution by its stride; no statistics are shared between images."""
    padding = (size - stride + 1) // 2
    convolution = nn.Conv2d(channels_in, channels_out, size, stride, padding, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(8, channels_out), nn.SiLU())


class CarsNetwork(nn.Module):
    """A first layer for each image size, convolutions from 16x16 to 4x4, 64 features, linear heads for attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ModuleDict({"32": block(3, 32, 4, 2), "64": block(3, 32, 8, 4)})
        self.body = nn.Sequential(block(32, 64, 3, 1), block(64, 96, 4, 2), block(96, 128, 4, 2), block(128, 32, 1, 1))
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(32 * 4 * 4, NUM_FEATURES), nn.SiLU())
        self.targets = nn.Linear(NUM_FEATURES, NUM_TARGETS)
        self.kinds = nn.Linear(NUM_FEATURES, len(KINDS))

    def maps(self, images: Tensor) -> Tensor:
        """Output [B, 32, 4, 4] of the convolutions for uint8 images [B, 3, H, W]; nothing is resized.

        Raises:
            UserError: the images are not 32x32 or 64x64.
        """
        height, width = images.shape[-2:]
        if height != width or width not in SIZES:
            raise UserError(
                f"The extractor 'cars' takes images of 32x32 or 64x64 pixels, not {width}x{height}; score at one of "
                "these (a folder of images with --resolution 32), or take the extractor 'efficientnetlite0'."
            )
        return self.body(self.first[str(width)](images.float() / 127.5 - 1))

    def forward(self, images: Tensor) -> Tensor:
        """Features [B, 64] of uint8 images [B, 3, H, W]; raises as ``maps``."""
        return self.features(self.maps(images))

    def attributes(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised attributes [B, 16] and logits of the kind [B, 6] of uint8 images."""
        features = self.forward(images)
        return self.targets(features), self.kinds(features)


class CarsCamera(nn.Module):
    """Says from where images of cars were taken: a head on the convolutions of a trained ``CarsNetwork``.

    Cars are symmetric, so that a mirrored image is one from the mirrored side: both are read, and the answers averaged.
    """

    def __init__(self, network: CarsNetwork) -> None:
        super().__init__()
        self.network = network
        hidden = nn.Sequential(nn.Dropout(0.1), nn.Linear(32 * 4 * 4, 80), nn.SiLU())
        self.head = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(32 * 4 * 4, affine=False), *hidden, nn.Linear(80, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Camera-to-world rotations [B, 3, 3] of uint8 images [B, 3, H, W]; raises as ``CarsNetwork.maps``."""
        one, other = (self.head(self.network.maps(each)) for each in (images, images.flip(-1)))
        return rotations_from(one + other * other.new_tensor([-1.0, 1.0, 1.0]))


def rotations_from(directions: Tensor) -> Tensor:
    """Camera-to-world rotations [B, 3, 3] of upright cameras at [B, 3], near or far, that look at the origin."""
    return look_at(normalize(directions, dim=-1))[:, :3, :3]
