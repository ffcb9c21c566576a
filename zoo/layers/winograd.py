"""3x3 convolutions of many channels with a quarter of the multiplications (Lavin 2016, arXiv:1509.09308).

For processors: on graphics cards the library does it itself. Rounding is about ten times that of the direct way, 1e-5
of the output's size.

B batch, C channels in, K channels out, H height, W width, L = H W / 16 tiles
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pixel_shuffle, unfold

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


_directly = ContextVar("directly", default=False)


@contextmanager
def directly() -> Iterator[None]:
    """Inside, ``conv3x3`` is always the direct way: for a penalty on gradients.

    Its own gradients of biases are tiny remainders, which the faster way's rounding changes by some thousandths.
    """
    before = _directly.set(True)
    try:
        yield
    finally:
        _directly.reset(before)


def both_ways(matrix: list, like: Tensor) -> Tensor:
    """The matrix for rows and columns at once."""
    line = torch.tensor(matrix, dtype=like.dtype, device=like.device)
    return torch.kron(line, line)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 3x3 convolution that keeps the size, the faster way: x [B, C, H, W], weight [K, C, 3, 3], bias [K]."""
    suits = min(weight.shape[:2]) >= LEAST and x.shape[2] % 4 == x.shape[3] % 4 == 0 and x.shape[2] * x.shape[3] >= 256
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if suits and plain and not _directly.get():
        return winograd(x, weight, bias)
    return conv2d(x, weight, bias, padding=1)


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As ``conv3x3``, for any channels; H and W must be multiples of four."""
    batch, channels, height, width = x.shape
    out, count = len(weight), height * width // 16
    tiles = unfold(x, 6, padding=1, stride=4).view(batch * channels, 36, count)
    tiles = torch.bmm(both_ways(INPUT, x).expand(len(tiles), -1, -1), tiles).view(batch, channels, 36, count)
    kernels = (both_ways(KERNEL, x) @ weight.flatten(2).flatten(0, 1).mT).view(36, out, channels)
    products = torch.stack([torch.bmm(kernels, image.transpose(0, 1)) for image in tiles])  # [B, 36, K, L]
    products = products.transpose(1, 2).reshape(batch * out, 36, count)
    y = torch.bmm(both_ways(OUTPUT, x).expand(len(products), -1, -1), products)
    y = pixel_shuffle(y.view(batch, out * 16, height // 4, width // 4), 4)
    return y if bias is None else y + bias[:, None, None]
