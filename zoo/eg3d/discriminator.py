"""EG3D's discriminator, which sees the final image and the raw one, and is told the camera (section 4.4).

B batch, H side of the final image, h of the raw one
"""

import math

import torch
from torch import Tensor

from zoo.draws import Draws
from zoo.eg3d.cameras import NUMBERS, label_of
from zoo.eg3d.synthesis import resize
from zoo.layers import discriminator
from zoo.layers.discriminator import DiscriminatorOutput
from zoo.layers.stylegan2 import Dense, Mapping, resolutions, width
from zoo.render import Camera
from zoo.utils.errors import UserError
from zoo.utils.ranges import at_least


class DualDiscriminator(discriminator.Discriminator):
    """StyleGAN2's, for six channels: the image, and the raw image enlarged to its size.

    Args:
        resolution: side of the images.
        base_channels, most_channels: a layer has base_channels / its resolution channels, but at most so many.
        clamp, groups: as in ``zoo.layers.discriminator.Discriminator``.
        mapping_layers: from the camera to what the score is projected on, each with a hundredth of the learning rate; 0
            for none but the one before them, which has all of it.
        camera_noise: of the camera's 25 numbers, in units of each one's deviation in the batch (disc_c_noise).
    """

    def __init__(
        self,
        resolution: int = 512,
        base_channels: int = 32768,
        most_channels: int = 512,
        clamp: float | None = 256,
        groups: int = 4,
        mapping_layers: int = 8,
        camera_noise: float = 0.0,
    ) -> None:
        at_least(1, self, resolution=resolution, most_channels=most_channels)
        at_least(resolution, self, base_channels=base_channels)
        at_least(0, self, mapping_layers=mapping_layers, camera_noise=camera_noise)
        widths = {side: width(side, base_channels, most_channels) for side in reversed(resolutions(4, resolution))}
        super().__init__(widths, clamp, groups, image_channels=6)
        self.from_rgb = self.from_rgb[:1]  # images enter at their full size only
        channels = widths[4]
        self.resolution, self.camera_noise = resolution, camera_noise
        self.score = Dense(channels, channels)
        self.embed = Dense(NUMBERS, channels)
        self.mapping = Mapping(channels, channels, channels, mapping_layers)

    def forward(self, images: Tensor, raw: Tensor, camera: Camera, draws: Draws | None = None) -> DiscriminatorOutput:
        """Scores of images [B, 3, H, H] and raw images [B, 3, h, h] from B cameras.

        Args:
            draws: for noise on the cameras; None for none.

        Raises:
            UserError: the images have another side, or the batch does not suit the groups.
        """
        self.check(images)
        features = self.score(self.epilogue(self.features(pair(images, raw))))
        camera_features = self.camera_features(self.label(camera, draws))
        scores = (features * camera_features).sum(1, keepdim=True) / math.sqrt(features.shape[1])
        return DiscriminatorOutput(scores)

    def camera_features(self, label: Tensor) -> Tensor:
        """What scores are projected on, [B, C], of the 25 numbers of cameras."""
        return self.mapping(self.embed(label))

    def label(self, camera: Camera, draws: Draws | None) -> Tensor:
        """The 25 numbers of cameras, with noise."""
        label = label_of(camera)
        if self.camera_noise > 0 and draws is not None:
            label = label + draws.normal("camera_noise", label.shape) * label.std(0) * self.camera_noise
        return label

    def check(self, images: Tensor) -> None:
        if images.shape[-1] != self.resolution:
            raise UserError(f"This discriminator takes images of side {self.resolution}, not {images.shape[-1]}.")


def pair(images: Tensor, raw: Tensor) -> Tensor:
    """Images [B, 3, H, H] and raw images, resized to their side, as [B, 6, H, H]."""
    side = images.shape[-1]
    return torch.cat([images, raw if raw.shape[-1] == side else resize(raw, side)], dim=1)
