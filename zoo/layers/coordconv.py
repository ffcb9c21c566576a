"""Convolutions that know where they are (CoordConv, Liu 2018, arXiv:1807.03247), and residual blocks of them.

B batch, C channels, H height, W width
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, leaky_relu


class CoordConv(nn.Module):
    """3x3 convolution, optionally with two more input channels: row and column in [-1, 1].

    Args:
        channels_in, channels_out: widths, without those two.
        stride: of the convolution.
        coordinates: whether there are those two.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, coordinates: bool) -> None:
        super().__init__()
        self.coordinates = coordinates
        self.conv = nn.Conv2d(channels_in + 2 * coordinates, channels_out, 3, stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] to [B, C_out, H / stride, W / stride]."""
        if self.coordinates:
            batch, _, height, width = x.shape
            rows = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype).view(1, 1, -1, 1)
            columns = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype).view(1, 1, 1, -1)
            place = [axis.expand(batch, 1, height, width) for axis in (rows, columns)]
            x = torch.cat([x, *place], dim=1)
        return self.conv(x)


class CoordBlock(nn.Module):
    """Residual block that halves the resolution, by strides or by average pooling.

    Args:
        channels_in, channels_out: widths.
        coordinates: as in ``CoordConv``, of both convolutions.
        downsample: how it halves.
    """

    def __init__(
        self, channels_in: int, channels_out: int, coordinates: bool, downsample: Literal["stride", "pool"]
    ) -> None:
        super().__init__()
        self.pool = downsample == "pool"
        stride = 1 if self.pool else 2
        self.first = CoordConv(channels_in, channels_out, 1, coordinates)
        self.second = CoordConv(channels_out, channels_out, stride, coordinates)
        needs_skip = channels_in != channels_out or not self.pool
        self.skip = nn.Conv2d(channels_in, channels_out, 1, stride) if needs_skip else nn.Identity()
        if not self.pool:
            for conv in (self.first.conv, self.second.conv):
                nn.init.kaiming_normal_(conv.weight, a=0.2, nonlinearity="leaky_relu")

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] to [B, C_out, H / 2, W / 2]."""
        y = leaky_relu(self.second(leaky_relu(self.first(x), 0.2)), 0.2)
        if self.pool:
            x, y = avg_pool2d(x, 2), avg_pool2d(y, 2)
        return (y + self.skip(x)) / math.sqrt(2)
