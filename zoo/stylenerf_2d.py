"""StyleNeRF's 2D networks: the painter, which makes the large picture of rendered features, and the discriminator
(sections 3.2 and 3.3 of arXiv:2110.08985), see ``zoo.stylenerf``. Both grow.

B batch, D width of w, C channels
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from zoo.draws import Draws
from zoo.layers.stylegan2 import (
    GAIN,
    Convolution,
    Dense,
    ModulatedConvolution,
    Noise,
    activate,
    bounded,
    doubled,
    finished,
    halved,
    with_deviation,
)
from zoo.layers.upsampling import Upsampler

# Growing (section 3.3)


class Grown(NamedTuple):
    """How far a network has grown: the side of its pictures, and how far their finest level has faded in."""

    side: int
    share: float


def grown(alpha: Tensor, start: int | None, end: int) -> Grown:
    """After a share alpha of the growth from one side to another; below 0 and from 1 on there is nothing to grow.

    Where a level begins, its share is 0: the level before is shown enlarged.
    """
    if start is None or not 0 <= alpha < 1:
        return Grown(end, 1.0)
    if alpha == 0:
        return Grown(start, 1.0)
    place = (alpha * doublings(start, end)).item()
    return Grown(start * 2 ** (int(place) + 1), place - int(place))


@dataclass(frozen=True)
class Growth:
    """Progressive growing: from ``begin`` images on, even until ``end`` (section 3.3)."""

    begin: int = 500_000
    end: int = 5_000_000

    def __call__(self, images_seen: int) -> float:
        """Share of the growth after so many images."""
        return min(max((images_seen - self.begin) / (self.end - self.begin), 0.0), 1.0)


# The painter (section 3.2)


def width(resolution: int, base: int, most: int) -> int:
    """Channels at a resolution: fewer, the finer it is."""
    return min(base // resolution, most)


class StyledLayer(nn.Module):
    """Modulated convolution of what is divided by its average size, upsampling, noise, bias, leaky relu.

    Args:
        channels_in, channels_out: widths.
        size: of the kernel.
        w_dim: size of w.
        up: doubles the output; None for not at all.
        fir_up: the convolution doubles it, as in StyleGAN2.
        noise: resolution of image noise; None for none.
        decay: share of the old average size in the new one; None to divide by nothing.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        size: int = 1,
        w_dim: int = 512,
        up: nn.Module | None = None,
        fir_up: bool = False,
        noise: int | None = None,
        decay: float | None = 0.999,
    ) -> None:
        super().__init__()
        self.conv = ModulatedConvolution(channels_in, channels_out, size, w_dim, up=fir_up)
        self.up, self.decay = up, decay
        self.noise = None if noise is None else Noise(noise)
        self.register_buffer("magnitude", None if decay is None else torch.ones(()))

    def forward(
        self,
        x: Tensor,
        w: Tensor,
        drawn: Tensor | None = None,
        *,
        bound: float | None = 256,
        follow: bool = False,
        alone: bool = False,
        gain: float = 1.0,
    ) -> Tensor:
        """x [B, C_in, H, W] and w [B, D] to [B, C_out, H, W], or twice as large.

        Args:
            drawn: image noise [B, 1, H, W]; None for the stored one.
            bound: of the output.
            follow: move the average size before it is used.
            alone: neither upsampling nor noise: what becomes of each pixel by itself.
            gain: of the output and its bound.
        """
        if follow and self.magnitude is not None:
            with torch.no_grad():
                self.magnitude.lerp_(x.to(self.magnitude.dtype).square().mean(), 1 - self.decay)
        turned = self.conv.size > 1 and self.up is not None and not alone
        # As published, kernels before an upsampler are turned around, as those of a transposed convolution are.
        divided, gain = 1.0 if self.magnitude is None else self.magnitude.rsqrt(), GAIN * gain
        ups = self.up is not None and not alone
        y = self.conv(x.flip(2, 3) if turned else x, w, divided if ups else divided * gain)
        y = y.flip(2, 3) if turned else y
        if ups:
            y = self.up(y)
        noise = None if self.noise is None or alone else self.noise(drawn) * gain
        bound = None if bound is None else bound * gain / GAIN
        return finished(y, self.conv.bias * gain, noise, bound, gain if ups else 1.0)


class Block(nn.Module):
    """Twice the resolution: two styled layers, and what they add to the picture.

    Args:
        channels_in, channels_out: widths.
        resolution: side of its output.
        upsampler: of features; None for StyleGAN2's, in the convolution.
        image_up: of pictures.
        size: of the kernels.
        w_dim: size of w.
        image_channels: of the picture.
        noise: whether there is image noise.
        decay: as in ``StyledLayer``.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        resolution: int,
        upsampler: Upsampler | None,
        image_up: Callable[[Tensor], Any] = doubled,
        size: int = 1,
        w_dim: int = 512,
        image_channels: int = 3,
        noise: bool = False,
        decay: float | None = 0.999,
    ) -> None:
        super().__init__()
        self.resolution, self.image_up, self.has_noise = resolution, image_up, noise
        up = {"fir_up": True} if upsampler is None else {"up": upsampler(channels_out)}
        more = {"noise": resolution if noise else None, "decay": decay}
        self.first = StyledLayer(channels_in, channels_out, size, w_dim, **up, **more)
        self.second = StyledLayer(channels_out, channels_out, size, w_dim, **more)
        self.rgb = ModulatedConvolution(channels_out, image_channels, w_dim=w_dim, demodulate=False)

    def forward(
        self,
        x: Tensor,
        image: Tensor,
        w: Tensor,
        draws: Draws | None = None,
        *,
        bound: float | None = 256,
        follow: bool = False,
        alone: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Features [B, C_out, 2H, 2W] and picture [B, 3, 2H, 2W] of features, picture and w [B, 3, D].

        Args:
            draws: for image noise; None for the stored one.
            bound, follow, alone: as in ``StyledLayer``.

        Raises:
            ValueError: StyleGAN2's upsampling cannot be left out of its convolution.
        """
        if alone and self.first.up is None:
            raise ValueError(
                "The NeRF path needs an upsampler that can be left out, such as zoo.layers.upsampling.NearestConcat: "
                "choose one as the painter's upsampler, or set path_side to 0."
            )
        for i, layer in enumerate((self.first, self.second)):
            drawn = None
            if self.has_noise and draws is not None:
                drawn = draws.normal(f"noise{self.resolution}_{i}", (len(x), 1, self.resolution, self.resolution))
            x = layer(x, w[:, i], drawn, bound=bound, follow=follow, alone=alone)
        added = bounded(self.rgb(x, w[:, 2]) + self.rgb.bias[:, None, None], bound)
        return x, added + (image if alone else self.image_up(image))


class Painter(nn.Module):
    """The layers from rendered features to pictures, in blocks that double the resolution.

    Args:
        low: side of the feature map.
        resolution: side of the picture.
        feature_dim: of the feature map.
        upsampler: of features, made for each block from its channels; None for StyleGAN2's.
        image_up: of pictures.
        base_channels, most_channels: a block has base_channels / its resolution channels, but at most so many.
        size: of the kernels.
        clamp: bound of all activations, which 16 bits need; None for none.
        w_dim: size of w.
        noise: whether there is image noise.
        decay: as in ``StyledLayer``.
    """

    def __init__(
        self,
        low: int = 32,
        resolution: int = 256,
        feature_dim: int = 256,
        upsampler: Upsampler | None = None,
        image_up: Callable[[Tensor], Any] = doubled,
        base_channels: int = 32768,
        most_channels: int = 1024,
        size: int = 1,
        clamp: float | None = 256,
        w_dim: int = 512,
        noise: bool = False,
        decay: float | None = 0.999,
    ) -> None:
        super().__init__()
        self.low, self.resolution, self.feature_dim, self.clamp = low, resolution, feature_dim, clamp
        sides = [low * 2 ** (i + 1) for i in range(doublings(low, resolution))]
        widths = [feature_dim, *(width(side, base_channels, most_channels) for side in sides)]
        self.blocks = nn.ModuleList(
            Block(widths[i], widths[i + 1], side, upsampler, image_up, size, w_dim, 3, noise, decay)
            for i, side in enumerate(sides)
        )
        self.num_styles = 2 * len(sides) + 1

    def forward(
        self,
        x: Tensor,
        image: Tensor,
        w: Tensor,
        levels: int,
        draws: Draws | None = None,
        *,
        follow: bool = False,
        alone: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The pictures after the first so many blocks, and those one block before.

        Args:
            x: features [B, C, h, h].
            image: the picture so far, [B, 3, h, h].
            w: [B, num_styles, D]; the layer of colours shares its own with the next block.
            levels: how many blocks.
            draws: for image noise; None for the stored one.
            follow: move the average sizes of activations.
            alone: each pixel by itself, without upsampling: [B, C, H, W] to [B, 3, H, W].
        """
        before = image
        for i, block in enumerate(self.blocks[:levels]):
            before = image
            own = w[:, 2 * i : 2 * i + 3]
            x, image = block(x, image, own, draws, bound=self.clamp, follow=follow, alone=alone)
        return image, before


def doublings(low: int, high: int) -> int:
    """How often a side is doubled to get from one to the other.

    Raises:
        ValueError: that is no whole number.
    """
    levels = math.log2(high / low)
    if levels != int(levels) or levels < 0:
        raise ValueError(f"A side of {high} must be {low}, doubled any number of times.")
    return int(levels)


# Discriminator


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
