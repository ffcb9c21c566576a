"""The 2D network from rendered features to images (section 3.3)."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from zoo.draws import Draws
from zoo.layers.stylegan2 import (
    Convolution,
    ModulatedConvolution,
    StyledLayer,
    clamp,
    resolutions,
    to_image,
    upsample,
    width,
)
from zoo.utils.ranges import above, at_least, given


class SynthesisBlock(nn.Module):
    """Twice the resolution: two styled layers, and what they add to the image."""

    def __init__(self, channels_in: int, channels_out: int, resolution: int, w_dim: int) -> None:
        super().__init__()
        self.resolution = resolution
        self.up = StyledLayer(channels_in, channels_out, w_dim=w_dim, up=True, noise=resolution)
        self.same = StyledLayer(channels_out, channels_out, w_dim=w_dim, noise=resolution)
        self.rgb = ModulatedConvolution(channels_out, 3, w_dim=w_dim, demodulate=False)


class SynthesisNetwork(nn.Module):
    """The 2D network from rendered features to images (section 3.3), and the blend of resolutions while it grows.

    Args:
        low: side of the feature map.
        resolution: side of the image.
        base_channels, most_channels: a layer has base_channels / its resolution channels, but at most so many.
        clamp: bound of all activations, which 16 bits need; None for none.
        learned_start: the first image is a layer of its own instead of the first three features.
        bounded_output: tanh of the image.
        w_dim: size of w.
    """

    def __init__(
        self,
        low: int = 32,
        resolution: int = 256,
        base_channels: int = 32768,
        most_channels: int = 512,
        clamp: float | None = 256,
        learned_start: bool = False,
        bounded_output: bool = False,
        w_dim: int = 512,
    ) -> None:
        at_least(1, self, low=low, resolution=resolution, most_channels=most_channels, w_dim=w_dim)
        at_least(resolution, self, base_channels=base_channels)
        above(0, self, **given(clamp=clamp))
        super().__init__()
        self.low, self.resolution, self.clamp, self.bounded_output = low, resolution, clamp, bounded_output
        sides = resolutions(low, resolution)
        widths = [width(side, base_channels, most_channels) for side in sides]
        self.start = Convolution(widths[0], 3, 1) if learned_start else None
        self.blocks = nn.ModuleList(
            SynthesisBlock(widths[i], widths[i + 1], sides[i + 1], w_dim) for i in range(len(sides) - 1)
        )
        self.channels, self.num_layers = widths[0], 2 * len(sides)

    def forward(self, x: Tensor, w: Tensor, resolution: int, lod: float, draws: Draws | None) -> tuple[Tensor, Tensor]:
        """Images of this resolution, and at that of the features: [B, 3, H, H] and [B, 3, h, h].

        Args:
            x: features [B, C, h, h].
            w: [B, num_layers, D]; the first is read by none.
            resolution: side of the images.
            lod: how many of the finest levels are left out; a fraction is a blend. Levels that are left out are shown
                enlarged.
            draws: for image noise; None for the stored one.
        """
        levels = round(math.log2(resolution / self.low))
        raw = x[:, :3] if self.start is None else clamp(self.start(x), self.clamp)
        rgb = image = raw
        for i, block in enumerate(self.blocks[:levels]):
            missing = lod - (levels - 1 - i)  # at least 1: this level is left out; between 0 and 1: it fades in
            larger = interpolate(image, scale_factor=2, mode="nearest") if missing > 0 else None
            if missing < 1:
                for j, layer in enumerate((block.up, block.same)):
                    shape = (len(x), 1, block.resolution, block.resolution)
                    drawn = None if draws is None else draws.normal(f"noise{2 * i + j + 1}", shape)
                    x = layer(x, w[:, 2 * i + j + 1], drawn, self.clamp)
                rgb = to_image(block.rgb, x, w[:, 2 * i + 3], self.clamp) + upsample(rgb)
            if missing <= 0:
                image = rgb
            elif missing < 1:
                image = torch.lerp(larger, rgb, 1 - missing)
            else:
                image = larger
        return (image.tanh() if self.bounded_output else image), raw
