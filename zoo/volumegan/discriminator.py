"""VolumeGAN's discriminator, which grows with the generator."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from zoo.layers import discriminator
from zoo.layers.stylegan2 import resolutions, width
from zoo.utils.errors import UserError
from zoo.utils.host_numbers import number
from zoo.utils.ranges import at_least


def missing_levels(network: nn.Module, resolution: int) -> float:
    """How many of the finest levels of images of this resolution a network's ``lod`` leaves out."""
    return max(0.0, number(network.lod) - math.log2(network.resolution / resolution))


class Discriminator(discriminator.Discriminator):
    """StyleGAN2's; images of several resolutions are blended while the generator grows (appendix).

    Args:
        resolution: side of the images.
        base_channels, most_channels: a layer has base_channels / its resolution channels, but at most so many.
        clamp, groups, residual: as in ``zoo.layers.discriminator.Discriminator``.
        last: side at which convolutions end.
    """

    def __init__(
        self,
        resolution: int = 256,
        base_channels: int = 32768,
        most_channels: int = 512,
        clamp: float | None = 256,
        groups: int = 4,
        residual: bool = True,
        last: int = 4,
    ) -> None:
        at_least(1, self, resolution=resolution, most_channels=most_channels, last=last)
        at_least(resolution, self, base_channels=base_channels)
        widths = {side: width(side, base_channels, most_channels) for side in reversed(resolutions(last, resolution))}
        super().__init__(widths, clamp, groups, residual=residual)
        self.resolution = resolution
        self.register_buffer("lod", torch.zeros(()))

    def features(self, images: Tensor) -> Tensor:
        """Images enter at the level of their size, or where ``lod`` says, if that is lower.

        Raises:
            UserError: no level is left.
        """
        x, lod = None, missing_levels(self, images.shape[-1])
        sides = self.sides[self.sides.index(images.shape[-1]) :]
        if lod >= len(sides):
            raise UserError(f"lod is {lod}, but one of the {len(sides)} levels must be there.")
        for i, side in enumerate(sides):
            if lod < i + 1:
                if i - 1 < lod:  # images enter here, or fade into what the finer level made of them
                    x = self.enter(images) if i <= lod else torch.lerp(x, self.enter(images), lod - math.floor(lod))
                if side > self.last:
                    x = self.block(x)
            if lod > i:
                images = avg_pool2d(images, 2)
        return x
