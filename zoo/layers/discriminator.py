"""StyleGAN2's discriminator (Karras 2020, appendix B), and the output of every discriminator.

How images enter it, and how it grows, is each paper's own: those of VolumeGAN, StyleNeRF and CIPS-3D are made of this
one.

B batch, C channels, H image side
"""

import itertools
import math
from typing import NamedTuple

from torch import Tensor, nn

from zoo.layers.stylegan2 import GAIN, Convolution, Dense, activate, minibatch_stddev
from zoo.utils.errors import UserError
from zoo.utils.ranges import above, at_least, given


class DiscriminatorOutput(NamedTuple):
    """Scores [B, 1], above zero for real; guesses of the latent [B, D] and of the camera [B, N], or None."""

    scores: Tensor
    latent: Tensor | None = None
    camera: Tensor | None = None


class Block(nn.Module):
    """Two convolutions, one of which halves the resolution, and a shortcut around them.

    Args:
        channels_in, channels_out: widths.
        residual: whether there is the shortcut.
        down_first: whether the first convolution halves, instead of the second.
    """

    def __init__(self, channels_in: int, channels_out: int, residual: bool = True, down_first: bool = False) -> None:
        super().__init__()
        self.first = Convolution(channels_in, channels_in, 3, down=down_first)
        self.second = Convolution(channels_in, channels_out, 3, down=not down_first)
        self.skip = Convolution(channels_in, channels_out, 1, down=True, bias=False) if residual else None

    def forward(self, x: Tensor, clamp: float | None = None) -> Tensor:
        """[B, C_in, H, H] to [B, C_out, H/2, H/2]; activations stay within ``clamp``."""
        y = activate(self.first(x, GAIN), clamp)
        if self.skip is None:
            return activate(self.second(y, GAIN), clamp)
        half = math.sqrt(0.5)  # of the sum of both ways, beforehand
        return activate(self.second(y, GAIN * half), clamp and clamp * half) + self.skip(x, half)


class Discriminator(nn.Module):
    """Scores images, which enter at the level of their size.

    Args:
        widths: channels of the levels by their side, in the order in which layers are numbered; each side is twice or
            half that before it.
        clamp: bound of activations, which 16 bits need; None for none.
        groups: images that are compared by their standard deviation; 0 for no comparison.
        image_channels: of what it looks at.
        residual, down_first: as in ``Block``.
    """

    def __init__(
        self,
        widths: dict[int, int],
        clamp: float | None = 256,
        groups: int = 4,
        image_channels: int = 3,
        residual: bool = True,
        down_first: bool = False,
    ) -> None:
        at_least(1, self, widths=widths, image_channels=image_channels)
        at_least(0, self, groups=groups)
        above(0, self, **given(clamp=clamp))
        super().__init__()
        self.sides, self.last, self.clamp, self.groups = [*widths], min(widths), clamp, groups
        self.from_rgb = nn.ModuleList(Convolution(image_channels, channels, 1) for channels in widths.values())
        pairs = [sorted(pair, reverse=True) for pair in itertools.pairwise(widths)]
        self.blocks = nn.ModuleList(Block(widths[i], widths[o], residual, down_first) for i, o in pairs)
        channels = widths[self.last]
        self.final = Convolution(channels + (groups > 0), channels, 3)
        self.dense = Dense(channels * self.last**2, channels)
        self.score = Dense(channels, 1)

    def forward(self, images: Tensor, *growth: float) -> DiscriminatorOutput:
        """Scores of images [B, C, H, H]; ``growth`` is what ``features`` of a discriminator that grows takes.

        Raises:
            UserError: no level takes images of this side, or the batch does not suit the groups.
        """
        self.check(images)
        return DiscriminatorOutput(self.score(self.epilogue(self.features(images, *growth))))

    def check(self, images: Tensor) -> None:
        """Refuse images that no level takes."""
        if images.shape[-1] not in self.sides:
            names = ", ".join(map(str, self.sides))
            raise UserError(f"This discriminator takes images of side {names}, not {images.shape[-1]}.")

    def features(self, images: Tensor) -> Tensor:
        """What is left at the lowest resolution, [B, C, last, last]."""
        x = self.enter(images)
        while x.shape[-1] > self.last:
            x = self.block(x)
        return x

    def enter(self, images: Tensor) -> Tensor:
        """Features of images at their own level."""
        return activate(self.from_rgb[self.sides.index(images.shape[-1])](images, GAIN), self.clamp)

    def block(self, x: Tensor) -> Tensor:
        """Features of the next lower level."""
        level = self.sides.index(x.shape[-1])
        return self.blocks[min(level, self.sides.index(x.shape[-1] // 2))](x, self.clamp)

    def epilogue(self, x: Tensor) -> Tensor:
        """Features [B, C, last, last] to those that the score is a layer of, [B, C]."""
        if self.groups:
            x = minibatch_stddev(x, self.groups)
        x = activate(self.final(x, GAIN), self.clamp)
        return activate(self.dense(x.flatten(1), GAIN))
