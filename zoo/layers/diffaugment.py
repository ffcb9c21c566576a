"""Differentiable augmentation of what a discriminator sees: colour, translation, cutout.

Zhao, Liu, Lin, Zhu, Han, "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020, arXiv:2006.10738.
Everything is linear in the images, so that a penalty on gradients can be differentiated once more, and nothing is
clamped: values beyond [-1, 1] are as published.

B batch, C channels, H side
"""

import torch
from torch import Tensor

from zoo.draws import Draws


def diffaugment(images: Tensor, draws: Draws) -> Tensor:
    """All of it, in the published order, drawn anew for each of the images [B, C, H, H]."""
    n, size = len(images), images.shape[-1]
    images = brightness(images, draws.uniform("brightness", (n, 1, 1, 1)) - 0.5)
    images = saturation(images, draws.uniform("saturation", (n, 1, 1, 1)) * 2)
    images = contrast(images, draws.uniform("contrast", (n, 1, 1, 1)) + 0.5)
    most = largest_shift(size)
    rows = whole(draws.uniform("shift_rows", (n,)), 2 * most + 1) - most
    columns = whole(draws.uniform("shift_columns", (n,)), 2 * most + 1) - most
    images = translation(images, rows, columns)
    rows = whole(draws.uniform("cutout_row", (n,)), cutout_places(size))
    columns = whole(draws.uniform("cutout_column", (n,)), cutout_places(size))
    return cutout(images, rows, columns, cutout_side(size))


def whole(u: Tensor, count: int) -> Tensor:
    """Whole numbers from 0 to count - 1, from numbers in [0, 1)."""
    return (u * count).long().clamp(max=count - 1)


def largest_shift(size: int) -> int:
    """How far images of this side move, an eighth of it [pixels]."""
    return int(size * 0.125 + 0.5)


def cutout_side(size: int) -> int:
    """Side of the hole in images of this side, a fifth of it [pixels]."""
    return int(size * 0.2 + 0.5)


def cutout_places(size: int) -> int:
    """How many rows the middle of the hole may be in; an even hole's lies between two, so there is one more."""
    return size + 1 - cutout_side(size) % 2


def brightness(images: Tensor, added: Tensor) -> Tensor:
    """The same number added everywhere in an image."""
    return images + added


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Colours further from, or nearer to, the grey of their own pixel."""
    grey = images.mean(1, keepdim=True)
    return grey + (images - grey) * factor


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Values further from, or nearer to, the mean of the image."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * factor


def translation(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images moved up and left by whole pixels [B]; what comes in from outside is zero, middle grey."""
    line = torch.arange(images.shape[-1], device=images.device)
    from_rows, from_columns = ((line[:, None] + shift[:, None, None]) == line for shift in (rows, columns))
    # Products with matrices of zeros and ones: a gather's gradient is a slow scatter.
    moved = from_rows[:, None].to(images.dtype) @ images
    return moved @ from_columns[:, None].mT.to(images.dtype)


def cutout(images: Tensor, rows: Tensor, columns: Tensor, side: int) -> Tensor:
    """Images with a square hole of zeros around these pixels [B]."""
    line = torch.arange(images.shape[-1], device=images.device)
    starts = (middle[:, None] - side // 2 for middle in (rows, columns))
    inside_rows, inside_columns = ((line >= start) & (line < start + side) for start in starts)
    hole = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return images * ~hole
