"""3x3 convolutions of many channels with a quarter of the multiplications (Lavin 2016, arXiv:1509.09308).

For processors: on GPUs cuDNN does it itself. Rounding is about ten times that of the direct way, 1e-5
of the output's size.

B batch, C channels in, K channels out, H height, W width, L = H W / 16 tiles
"""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, unfold

from zoo.layers import is_plain

LEAST = 128  # channels; with fewer the transforms cost more than they save

# Of tiles of 6x6 inputs, of 3x3 kernels, and back to tiles of 4x4 outputs: F(4, 3) at the points 0, 1, -1, 2, -2.
INPUT = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
KERNEL = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
OUTPUT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def both_ways(matrix: list, like: Tensor) -> Tensor:
    """The matrix for rows and columns at once."""
    line = torch.tensor(matrix, dtype=like.dtype, device=like.device)
    return torch.kron(line, line)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 3x3 convolution that keeps the size, the faster way: x [B, C, H, W], weight [K, C, 3, 3], bias [K]."""
    if suits(x, weight) and not is_plain():
        return winograd(x, weight, bias)
    return conv2d(x, weight, bias, padding=1)


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether this way is the faster one, and nothing else rounds more."""
    is_large = min(weight.shape[:2]) >= LEAST and x.shape[2] * x.shape[3] >= 256
    is_float32 = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return is_large and is_float32 and x.shape[2] % 4 == x.shape[3] % 4 == 0


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As ``conv3x3``, for any channels; H and W must be multiples of four.

    All images of a batch go through each product together: the transformed kernels are four times as large as the
    kernels, and reading them is what takes the time of small images.
    """
    batch, channels, height, width = x.shape
    out, rows, columns = len(weight), height // 4, width // 4
    tiles = unfold(x, 6, padding=1, stride=4).view(batch, channels, 36, -1).permute(2, 1, 0, 3)  # [36, C, B, L]
    tiles = (both_ways(INPUT, x) @ tiles.flatten(1)).view(36, channels, -1)
    kernels = (both_ways(KERNEL, x) @ weight.flatten(2).flatten(0, 1).mT).view(36, out, channels)
    y = both_ways(OUTPUT, x) @ torch.bmm(kernels, tiles).flatten(1)  # [16, K B L]
    y = y.view(4, 4, out, batch, rows, columns).permute(3, 2, 4, 0, 5, 1).reshape(batch, out, height, width)
    return y if bias is None else y + bias[:, None, None]
