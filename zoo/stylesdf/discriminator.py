"""StyleSDF's discriminators: a small one of rendered images that guesses cameras, and StyleGAN2's of large ones.

B batch, C channels, H image side
"""

import itertools
import math

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from zoo.layers import discriminator
from zoo.layers.coordconv import CoordBlock
from zoo.layers.discriminator import DiscriminatorOutput
from zoo.layers.stylegan2 import GAIN, activate, minibatch_stddev
from zoo.utils.errors import UserError
from zoo.utils.ranges import above, at_least, filled, given


class PoseDiscriminator(nn.Module):
    """Scores rendered images and guesses azimuth and elevation: residual blocks of CoordConvs (section 3.4).

    Args:
        channels: widths of the levels, from the images' side down to 2.
        guesses_pose: whether it guesses.
    """

    def __init__(self, channels: list[int], guesses_pose: bool = True) -> None:
        filled(self, channels=channels)
        at_least(1, self, channels=channels)
        super().__init__()
        self.resolution, self.guesses_pose = 2 ** len(channels), guesses_pose
        self.from_rgb = nn.Conv2d(3, channels[0], 1)
        self.blocks = nn.ModuleList(CoordBlock(*pair, True, "pool") for pair in itertools.pairwise(channels))
        self.final = nn.Conv2d(channels[-1], 3 if guesses_pose else 1, 2)
        for conv in (conv for block in self.blocks for conv in (block.first.conv, block.second.conv)):
            bound = 1 / math.sqrt(9 * (conv.in_channels - 2))  # as if its input was without the place
            nn.init.uniform_(conv.bias, -bound, bound)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """Scores of images [B, 3, H, H], and azimuth and elevation [B, 2] [rad] where they are guessed.

        Raises:
            UserError: the images have another side.
        """
        check_side(self, images)
        output = self.final(self.features(images)).flatten(1)
        return DiscriminatorOutput(output[:, :1], camera=output[:, 1:] if self.guesses_pose else None)

    def features(self, images: Tensor) -> Tensor:
        """What is left of images at side 2, [B, C, 2, 2]."""
        x = leaky_relu(self.from_rgb(images), 0.2)
        for block in self.blocks:
            x = block(x)
        return x


class ImageDiscriminator(discriminator.Discriminator):
    """StyleGAN2's, which compares images in groups that suit any batch.

    Args:
        widths: channels by side, that of the images and all halves of it down to 4.
        clamp: bound of activations; the published program has none.
        groups: images that are compared at most.
    """

    def __init__(self, widths: dict[int, int], clamp: float | None = None, groups: int = 4) -> None:
        filled(self, widths=widths)
        at_least(1, self, widths=widths)
        at_least(0, self, groups=groups)
        above(0, self, **given(clamp=clamp))
        super().__init__(dict(sorted(widths.items(), reverse=True)), clamp, groups)
        self.from_rgb = self.from_rgb[:1]  # images enter at their full size only
        self.resolution = self.sides[0]

    def check(self, images: Tensor) -> None:
        check_side(self, images)

    def epilogue(self, x: Tensor) -> Tensor:
        """As of any; groups are of ``groups`` images, of all if these are fewer, or else of three, two, or all."""
        if self.groups:
            x = minibatch_stddev(x, self.group(len(x)))
        x = activate(self.final(x, GAIN), self.clamp)
        return activate(self.dense(x.flatten(1), GAIN))

    def group(self, batch: int) -> int:
        """Images that are compared. The published program has no groups for batches such as 5 and 7."""
        return next(size for size in (min(self.groups, batch), 3, 2, batch) if batch % size == 0)


class StagedDiscriminator(nn.Module):
    """The discriminators of both stages; either may be missing, with its stage.

    Args:
        volume: of rendered images.
        image: of the decoder's.
    """

    def __init__(self, volume: PoseDiscriminator | None = None, image: ImageDiscriminator | None = None) -> None:
        if volume is None and image is None:
            raise UserError("StagedDiscriminator has no discriminator: give volume, image, or both.")
        super().__init__()
        self.volume, self.image = volume, image

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """Scores of images [B, 3, H, H] by the discriminator that takes their side.

        Raises:
            UserError: none does.
        """
        for part in (self.volume, self.image):
            if part is not None and part.resolution == images.shape[-1]:
                return part(images)
        sides = " and ".join(str(part.resolution) for part in (self.volume, self.image) if part is not None)
        raise UserError(f"These discriminators take images of side {sides}, not {images.shape[-1]}.")


def check_side(network: PoseDiscriminator | ImageDiscriminator, images: Tensor) -> None:
    """Refuse images of another side."""
    if images.shape[-1] != network.resolution:
        raise UserError(f"This discriminator takes images of side {network.resolution}, not {images.shape[-1]}.")
