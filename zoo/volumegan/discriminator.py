"""VolumeGAN's discriminator, which grows with the generator."""

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from zoo.layers.stylegan2 import GAIN, Convolution, Dense, activate, with_deviation
from zoo.volumegan.synthesis import doublings, width


def missing_levels(network: nn.Module, resolution: int) -> float:
    """How many of the finest levels of pictures of this resolution a network's ``lod`` leaves out."""
    return max(0.0, network.lod.item() - math.log2(network.resolution / resolution))


class Judgement(NamedTuple):
    """Scores [B, 1]."""

    scores: Tensor


class DiscriminatorBlock(nn.Module):
    """Two convolutions, the second of which halves the resolution, and a shortcut around them."""

    def __init__(self, channels_in: int, channels_out: int, residual: bool) -> None:
        super().__init__()
        self.first = Convolution(channels_in, channels_in, 3)
        self.second = Convolution(channels_in, channels_out, 3, down=True)
        self.skip = Convolution(channels_in, channels_out, 1, down=True, bias=False) if residual else None

    def forward(self, x: Tensor, clamp: float | None) -> Tensor:
        y = activate(self.first(x, GAIN), clamp, gain=1)
        if self.skip is None:
            return activate(self.second(y, GAIN), clamp, gain=1)
        y = activate(self.second(y), clamp and clamp * math.sqrt(0.5), gain=1)
        return y + self.skip(x, math.sqrt(0.5))


class Discriminator(nn.Module):
    """Scores images; those of several resolutions, blended, while the generator grows (appendix).

    Args:
        resolution: side of the images.
        base_channels, most_channels: a layer has base_channels / its resolution channels, but at most so many.
        clamp: bound of all activations, which 16 bits need; None for none.
        groups: images that are compared by their standard deviation; 0 for no comparison.
        residual: with shortcuts around the blocks.
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
        super().__init__()
        self.resolution, self.clamp, self.groups = resolution, clamp, groups
        self.sides = [last, *doublings(last, resolution, "The discriminator's resolution")][::-1]
        widths = [width(side, base_channels, most_channels) for side in self.sides]
        self.from_rgb = nn.ModuleList(Convolution(3, w, 1) for w in widths)
        self.blocks = nn.ModuleList(DiscriminatorBlock(i, o, residual) for i, o in itertools.pairwise(widths))
        self.final = Convolution(widths[-1] + (groups > 0), widths[-1], 3)
        self.dense = Dense(widths[-1] * last**2, widths[-1])
        self.score = Dense(widths[-1], 1)
        self.register_buffer("lod", torch.zeros(()))

    def forward(self, images: Tensor) -> Judgement:
        """Judge images [B, 3, H, H]: they enter at the level of their size, or where ``lod`` says, if that is lower.

        Raises:
            ValueError: no level takes images of this side, or the batch does not suit the groups.
        """
        if images.shape[-1] not in self.sides:
            names = ", ".join(map(str, self.sides))
            raise ValueError(f"This discriminator takes images of side {names}, not {images.shape[-1]}.")
        x = self.features(images, missing_levels(self, images.shape[-1]))
        if self.groups:
            x = with_deviation(x, self.groups)
        x = activate(self.final(x, GAIN), self.clamp, gain=1)
        x = activate(self.dense(x.flatten(1), GAIN), gain=1)
        return Judgement(self.score(x))

    def features(self, images: Tensor, lod: float) -> Tensor:
        """What is left at the lowest resolution, [B, C, last, last]; the finest ``lod`` levels are left out."""
        finest = self.sides.index(images.shape[-1])
        if lod >= len(self.sides) - finest:
            raise ValueError(f"lod is {lod}, but one of the {len(self.sides) - finest} levels must be there.")
        x = None
        for i, from_rgb in enumerate(self.from_rgb[finest:]):
            if lod < i + 1:
                if i - 1 < lod:  # images enter here, or fade into what the finer level made of them
                    entered = activate(from_rgb(images, GAIN), self.clamp, gain=1)
                    x = entered if i <= lod else torch.lerp(x, entered, lod - math.floor(lod))
                for block in self.blocks[finest + i : finest + i + 1]:  # after the last level there is none
                    x = block(x, self.clamp)
            if lod > i:
                images = avg_pool2d(images, 2)
        return x
