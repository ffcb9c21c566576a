"""StyleNeRF's discriminator, which grows with the generator (section 3.3)."""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from zoo.layers.stylegan2 import GAIN, Convolution, Dense, activate, halved, with_deviation
from zoo.stylenerf.growing import doublings, grown
from zoo.stylenerf.synthesis import width


class Judgement(NamedTuple):
    """Scores [B, 1]."""

    scores: Tensor


class DiscriminatorBlock(nn.Module):
    """What the picture adds at this resolution, and two convolutions, the second of which halves it."""

    def __init__(self, channels_in: int, channels_out: int, image_channels: int = 3) -> None:
        super().__init__()
        self.from_rgb = Convolution(image_channels, channels_in, 1)
        self.first = Convolution(channels_in, channels_in, 3)
        self.second = Convolution(channels_in, channels_out, 3, down=True)

    def enter(self, images: Tensor, clamp: float | None) -> Tensor:
        """Features of images [B, 3, H, H]."""
        return activate(self.from_rgb(images, GAIN), clamp, gain=1)

    def forward(self, x: Tensor, clamp: float | None) -> Tensor:
        """Features [B, C_in, H, H] to [B, C_out, H/2, H/2]."""
        x = activate(self.first(x, GAIN), clamp, gain=1)
        return activate(self.second(x, GAIN), clamp, gain=1)


class Discriminator(nn.Module):
    """Scores images of several sizes, which enter at the block of their own.

    Args:
        resolution: side of the largest images.
        base_channels, most_channels: a block has base_channels / its resolution channels, but at most so many.
        clamp: bound of activations, which 16 bits need; None for none.
        groups: images that are compared by their standard deviation.
        start: side of images at which growing begins; None for no growing.
        fades_in: while it grows, images larger than its level are made smaller, and shown to the block of the level
            before too, ever less. The published program means to, but never does once growing has begun.
        doubles: features of images that enter below the largest size count twice in the first block, as published.
        image_channels: of what it looks at.
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
        super().__init__()
        self.resolution, self.clamp, self.groups = resolution, clamp, groups
        self.start, self.fades_in, self.doubles = start, fades_in, doubles
        self.sides = [resolution // 2**i for i in range(doublings(8, resolution) + 1)]
        widths = [width(side, base_channels, most_channels) for side in [*self.sides, 4]]
        self.blocks = nn.ModuleList(DiscriminatorBlock(i, o, image_channels) for i, o in itertools.pairwise(widths))
        self.from_rgb = Convolution(image_channels, widths[-1], 1)
        self.final = Convolution(widths[-1] + 1, widths[-1], 3)
        self.dense = Dense(widths[-1] * 16, widths[-1])
        self.score = Dense(widths[-1], 1)
        self.register_buffer("alpha", torch.ones(()))  # how far it has grown, see ``grown``

    def forward(self, images: Tensor) -> Judgement:
        """Judge images [B, 3, H, H].

        Raises:
            ValueError: no block takes images of this side, or the batch does not suit the groups.
        """
        return Judgement(self.score(self.judged(self.entered(*self.reduced(*self.sized(images))))))

    def sized(self, images: Tensor) -> tuple[Tensor, float]:
        """Images that are not too large for what this has grown to, and how far their own level has faded in."""
        if images.shape[-1] not in self.sides:
            names = ", ".join(map(str, self.sides))
            raise ValueError(f"This discriminator takes images of side {names}, not {images.shape[-1]}.")
        level = grown(self.alpha, self.start, self.resolution)
        if not self.fades_in and self.alpha > 0:
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
                x = torch.lerp(block.enter(smaller, self.clamp), x, share)
            entered = block.enter(images, self.clamp)
            twice = i == 0 and begin > 0 and self.doubles
            x = (entered + entered if twice else entered) if x is None else x + entered
            x, images = block(x, self.clamp), halved(images)
        return x, images

    def entered(self, x: Tensor, images: Tensor) -> Tensor:
        """Features [B, C, 4, 4] of both."""
        return x + activate(self.from_rgb(images, GAIN), gain=1)

    def judged(self, x: Tensor) -> Tensor:
        """Features [B, C, 4, 4] to those that the score is a layer of, [B, C]."""
        x = activate(self.final(with_deviation(x, self.groups), GAIN), self.clamp, gain=1)
        return activate(self.dense(x.flatten(1), GAIN), gain=1)
