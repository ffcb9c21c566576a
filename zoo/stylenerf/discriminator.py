"""StyleNeRF's discriminator, which grows with the generator (section 3.3)."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from zoo.layers import discriminator
from zoo.layers.stylegan2 import GAIN, activate, downsample, resolutions, width
from zoo.stylenerf.growing import grown
from zoo.utils.host_numbers import number
from zoo.utils.ranges import at_least, given


class Discriminator(discriminator.Discriminator):
    """StyleGAN2's without shortcuts; each block adds what it sees of the image at its own resolution.

    Args:
        resolution: side of the largest images.
        base_channels, most_channels: a block has base_channels / its resolution channels, but at most so many.
        clamp, groups, image_channels: as in ``zoo.layers.discriminator.Discriminator``.
        start: side of images at which growing begins; None for no growing.
        fades_in: while it grows, images larger than its level are made smaller, and shown to the block of the level
            before too, ever less. The published program has code for it, which is never reached once growing has begun.
        doubles: features of images that enter below the largest size count twice in the first block, as published.
    """

    def __init__(
        self,
        resolution: int = 256,
        base_channels: int = 32768,
        most_channels: int = 512,
        clamp: float | None = 256,
        groups: int = 4,
        start: int | None = 32,
        fades_in: bool = False,
        doubles: bool = True,
        image_channels: int = 3,
    ) -> None:
        at_least(1, self, resolution=resolution, most_channels=most_channels, **given(start=start))
        at_least(resolution, self, base_channels=base_channels)
        widths = {side: width(side, base_channels, most_channels) for side in reversed(resolutions(4, resolution))}
        super().__init__(widths, clamp, groups, image_channels, residual=False)
        self.sides.remove(4)  # there is nothing but the last layers
        *entrances, self.from_rgb = self.from_rgb
        for block, entrance in zip(self.blocks, entrances, strict=True):
            block.from_rgb = entrance
        self.resolution, self.start, self.fades_in, self.doubles = resolution, start, fades_in, doubles
        self.register_buffer("alpha", torch.ones(()))  # how far it has grown, see ``grown``

    def features(self, images: Tensor) -> Tensor:
        return self.entered(*self.reduced(*self.sized(images)))

    def sized(self, images: Tensor) -> tuple[Tensor, float]:
        """Images that are not too large for what this has grown to, and how far their own level has faded in."""
        level = grown(self.alpha, self.start, self.resolution)
        if not self.fades_in and number(self.alpha) > 0:
            return images, 1.0
        if images.shape[-1] > level.side:
            images = interpolate(images, level.side, mode="bilinear")
        return images, level.share if images.shape[-1] == level.side else 1.0

    def reduced(self, images: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Features after all blocks, [B, C, 4, 4], and the images as small."""
        begin = self.sides.index(images.shape[-1])
        smaller = interpolate(images, scale_factor=0.5, mode="bilinear") if share < 1 else None
        x = None
        for i, block in enumerate(self.blocks[begin:]):
            if i == 1 and smaller is not None:
                images = torch.lerp(smaller, images, share)
                x = torch.lerp(enter(block, smaller, self.clamp), x, share)
            entered = enter(block, images, self.clamp)
            twice = i == 0 and begin > 0 and self.doubles
            x = (entered + entered if twice else entered) if x is None else x + entered
            x, images = block(x, self.clamp), downsample(images)
        return x, images

    def entered(self, x: Tensor, images: Tensor) -> Tensor:
        """Features [B, C, 4, 4] of both."""
        return x + enter(self, images)


def enter(level: torch.nn.Module, images: Tensor, clamp: float | None = None) -> Tensor:
    """Features of images [B, 3, H, H] at a level of their size."""
    return activate(level.from_rgb(images, GAIN), clamp)
