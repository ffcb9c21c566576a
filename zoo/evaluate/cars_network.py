"""The small network behind the extractor ``cars``: an image of a procedural car to its attributes.

B batch, H height, W width
"""

from torch import Tensor, nn

NUM_FEATURES = 64
SIDES = (32, 64)  # pixels; the only image sizes it has been trained on
TARGETS = (
    *("length", "width", "height", "clearance", "deck", "windscreen", "rear", "wheel_radius"),
    *("paint_red", "paint_green", "paint_blue", "roof_red", "roof_green", "roof_blue"),
    *("sin_yaw", "cos_yaw", "pitch"),
)
KINDS = ("hatchback", "sedan", "estate", "offroad", "van", "coupe")


class CarsNetwork(nn.Module):
    """Convolutions, a mean over the image, 64 features, and linear heads for the attributes."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(3, 32, 2), (32, 64, 2), (64, 96, 1), (96, 128, 2)]
        self.body = nn.Sequential(
            *(
                layer
                for i, o, stride in widths
                for layer in (nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.SiLU())
            )
        )
        self.features = nn.Sequential(nn.Linear(128, NUM_FEATURES), nn.SiLU())
        self.targets = nn.Linear(NUM_FEATURES, len(TARGETS))
        self.kinds = nn.Linear(NUM_FEATURES, len(KINDS))

    def forward(self, images: Tensor) -> Tensor:
        """Features [B, 64] of uint8 images [B, 3, H, W]; nothing is resized.

        Raises:
            ValueError: the images are not 32x32 or 64x64.
        """
        if images.shape[-1] not in SIDES or images.shape[-2] != images.shape[-1]:
            raise ValueError(
                f"The extractor 'cars' takes images of 32x32 or 64x64 pixels, not {images.shape[-1]}x{images.shape[-2]}; "
                "score at one of these resolutions or take the extractor 'inception2015'."
            )
        return self.features(self.body(images.float() / 127.5 - 1).mean(dim=(2, 3)))

    def attributes(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised attributes [B, 17] and logits of the kind [B, 6] of uint8 images."""
        features = self.forward(images)
        return self.targets(features), self.kinds(features)
