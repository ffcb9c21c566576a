"""CIPS-3D's discriminators, two of StyleGAN2's, which grow by one level at a time."""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from zoo.cips3d.model import Augment
from zoo.draws import Draws
from zoo.layers import discriminator
from zoo.layers.discriminator import DiscriminatorOutput
from zoo.utils.errors import UserError
from zoo.utils.ranges import at_least, filled


class Tower(discriminator.Discriminator):
    """StyleGAN2's, for images of several resolutions.

    Args:
        channels: widths of the levels, from 4x4 upwards.
        shrink_first: whether the first convolution of a block halves the resolution, instead of the second.
        group: images whose standard deviation is an input of the last convolution; 0 for none.
    """

    def __init__(self, channels: list[int], shrink_first: bool = False, group: int = 0) -> None:
        filled(self, channels=channels)
        at_least(1, self, channels=channels)
        at_least(0, self, group=group)
        if group == 1:
            raise UserError("A group of one image has no standard deviation: give a group of 2 or more, or 0.")
        widths = {4 * 2**i: width for i, width in enumerate(channels)}
        super().__init__(widths, clamp=None, groups=group, down_first=shrink_first)

    def features(self, images: Tensor, alpha: float = 1.0) -> Tensor:
        """Below 1, alpha is the share of the first block in a blend with what enters at the level below."""
        x = self.enter(images)
        if x.shape[-1] > self.last:
            x = self.block(x)
            if alpha < 1:
                x = alpha * x + (1 - alpha) * self.enter(avg_pool2d(images, 2))
        while x.shape[-1] > self.last:
            x = self.block(x)
        return x


class Discriminator(nn.Module):
    """The tower for final images, and a smaller one for the colours of the field (section 3.3).

    Args:
        main, auxiliary: the towers.
    """

    def __init__(self, main: Tower, auxiliary: Tower) -> None:
        super().__init__()
        self.main, self.auxiliary = main, auxiliary

    def forward(
        self,
        images: Tensor,
        alpha: float = 1.0,
        auxiliary: bool = False,
        augment: Augment | None = None,
        draws: Draws | None = None,
    ) -> DiscriminatorOutput:
        """Scores [B, 1] of images [B, 3, H, H].

        Args:
            images: for the main tower, or one half for each tower.
            alpha: see ``Tower``.
            auxiliary: whether the second half is for the auxiliary tower.
            augment: changes images at random before a tower sees them.
            draws: for ``augment``.
        """
        towers = [self.main, self.auxiliary] if auxiliary else [self.main]
        parts = images.chunk(len(towers))
        if augment is not None:
            parts = [augment(part, draws) for part in parts]
        scores = [tower(part, alpha).scores for tower, part in zip(towers, parts, strict=True)]
        return DiscriminatorOutput(torch.cat(scores))
