"""The small network behind the extractor ``cars``: an image of a procedural car to its attributes.

B batch, H height, W width
"""

from torch import Tensor, nn

from zoo.utils.errors import UserError

NUM_FEATURES = 64
NUM_TARGETS = 16
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

    def forward(self, images: Tensor) -> Tensor:
        """Features [B, 64] of uint8 images [B, 3, H, W]; nothing is resized.

        Raises:
            UserError: the images are not 32x32 or 64x64.
        """
        height, width = images.shape[-2:]
        if height != width or str(width) not in self.first:
            raise UserError(
                f"The extractor 'cars' takes images of 32x32 or 64x64 pixels, not {width}x{height}; score at one of "
                "these (a folder of images with --resolution 32), or take the extractor 'efficientnetlite0'."
            )
        return self.features(self.body(self.first[str(width)](images.float() / 127.5 - 1)))

    def attributes(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised attributes [B, 16] and logits of the kind [B, 6] of uint8 images."""
        features = self.forward(images)
        return self.targets(features), self.kinds(features)
