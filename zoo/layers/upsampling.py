"""Ways to double a feature map without mixing many pixels, so that what a camera sees stays where it is in the world.

From StyleNeRF (Gu 2022, arXiv:2110.08985, section 3.2 and its program). Each is a module made from a number of channels
that takes features [B, C, H, W] to [B, C, 2H, 2W]; the two learned ones that its experiments use, ``PixelShuffle`` and
``NearestConcat``, add to nearest neighbours what a small network of 1x1 convolutions makes of each pixel.

B batch, C channels, H height, W width
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad, pixel_shuffle

from zoo.layers.stylegan2 import GAIN, Convolution, activate, fir_filter
from zoo.utils.ranges import at_least, given

Upsampler = Callable[[int], nn.Module]  # makes one from its channels; a config names the class


class Adapter(nn.Module):
    """Two 1x1 convolutions with equalised learning rates and a leaky relu between them.

    Args:
        channels_in, hidden, channels_out: widths.
    """

    def __init__(self, channels_in: int, hidden: int, channels_out: int) -> None:
        super().__init__()
        self.first, self.second = Convolution(channels_in, hidden, 1), Convolution(hidden, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(activate(self.first(x, GAIN)))


def smooth(x: Tensor) -> Tensor:
    """Filtered with [1, 3, 3, 1] both ways, which moves everything by half a pixel towards the lower right."""
    return fir_filter(x, (2, 1, 2, 1))


def upsample_nearest(x: Tensor) -> Tensor:
    """Every pixel four times."""
    return interpolate(x, scale_factor=2, mode="nearest")


class PixelShuffle(nn.Module):
    """Each pixel four times, and to each of the four something of its own is added, learned from the pixel.

    Args:
        channels: of the features.
        blur: whether the result is filtered.
    """

    def __init__(self, channels: int, blur: bool = True) -> None:
        super().__init__()
        self.adapter = Adapter(channels, channels // 4, 4 * channels)
        self.blur = blur

    def forward(self, x: Tensor) -> Tensor:
        y = upsample_nearest(x) + pixel_shuffle(self.adapter(x), 2)
        return smooth(y) if self.blur else y


class NearestConcat(nn.Module):
    """Each pixel four times, and to each of the four is added what is learned from it and from two of its neighbours.

    The upper left of the four sees the mean of the left and the upper neighbour, and so on; there are zeros beyond the
    border.

    Args:
        channels: of the features.
        blur: whether the result is filtered.
    """

    def __init__(self, channels: int, blur: bool = True) -> None:
        super().__init__()
        self.adapter = Adapter(2 * channels, channels // 4, channels)
        self.blur = blur

    def forward(self, x: Tensor) -> Tensor:
        # The adapter's first layer sees the repeated pixels and the neighbours' means side by side. It is linear, so it
        # comes before both, at the low resolution.
        own, near = (self.adapter.first.weight * (self.adapter.first.scale * GAIN)).chunk(2, dim=1)
        hidden = upsample_nearest(conv2d(x, own, self.adapter.first.bias * GAIN)) + neighbours(conv2d(x, near))
        y = upsample_nearest(x) + self.adapter.second(activate(hidden))
        return smooth(y) if self.blur else y


def neighbours(x: Tensor) -> Tensor:
    """[B, C, 2H, 2W]: for the four quarters of each pixel the mean of the two neighbours next to that quarter."""
    around = pad(x, (1, 1, 1, 1))
    left, right = around[:, :, 1:-1, :-2], around[:, :, 1:-1, 2:]
    above, below = around[:, :, :-2, 1:-1], around[:, :, 2:, 1:-1]
    quarters = torch.stack([left + above, above + right, left + below, below + right], dim=2)
    return pixel_shuffle(quarters.flatten(1, 2) * 0.5, 2)


class Interpolate(nn.Module):
    """Interpolated; corners stay corners, or, for nearest neighbours, filtered.

    Args:
        channels: of the features.
        mode: of interpolation.
        hidden: width of an adapter whose output, zero at first, is added; None for none.
    """

    def __init__(
        self, channels: int, mode: Literal["bilinear", "bicubic", "nearest"] = "bilinear", hidden: int | None = None
    ) -> None:
        at_least(1, self, channels=channels, **given(hidden=hidden))
        super().__init__()
        self.mode, self.adapter = mode, None
        if hidden is not None:
            self.adapter = Adapter(channels, hidden, channels)
            nn.init.zeros_(self.adapter.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = smooth(upsample_nearest(x)) if self.mode == "nearest" else upsample_aligned(x, self.mode)
        return y if self.adapter is None else y + self.adapter(y)


def upsample_aligned(x: Tensor, mode: str = "bilinear") -> Tensor:
    """[B, C, 2H, 2W], interpolated between corner pixels that stay where they are."""
    return interpolate(x, scale_factor=2, mode=mode, align_corners=True)


class LocalEnsemble(nn.Module):
    """Four guesses for each new pixel, from the four pixels around it and where it lies from each (LIIF, Chen 2021).

    As published, which is not as in that paper, a guess counts the more the farther away its pixel is.

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.adapter = Adapter(channels + 2, channels // 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        sides = x.shape[2:]
        rows, columns = ([ends(side, end, x) for end in (0, 1)] for side in sides)
        guesses, weights = [], []
        for row, down in rows:
            for column, right in columns:
                place = torch.stack(torch.broadcast_tensors(right * (2 / sides[1]), -down[:, None] * (2 / sides[0])))
                seen = torch.cat([x[:, :, row][..., column], place.expand(len(x), -1, -1, -1)], dim=1)
                guesses.append(self.adapter(seen))
                weights.append(down[:, None].abs() * right.abs())
        return sum(guess * weight for guess, weight in zip(guesses, weights, strict=True)) / sum(weights)


def ends(side: int, end: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """For each of 2 side pixels of a line the old one before (0) or after (1) it, and how far it lies from that."""
    place = (torch.arange(2 * side, device=like.device, dtype=like.dtype) + 0.5) / 2 - 0.5
    index = (place.floor() + end).clamp(0, side - 1)
    return index.long(), place - index
