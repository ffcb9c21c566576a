"""Tensors to images: depth colours and grids; bytes are made by ``quantise``.

L latents, V views, N images, H W pixels
"""

import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from zoo.utils.images import is_format
from zoo.utils.images import save_image as save_image  # datamodules write with it, too
from zoo.utils.targets import file_target

# Near to far. Ten points of the viridis colour map (public domain, CC0), which looks evenly spaced to the eye.
DEPTH_COLOURS = "fde725 b5de2b 6ece58 35b779 1f9e89 26828e 31688e 3e4a89 482878 440154"
DEPTH_COLOURS = [tuple(bytes.fromhex(colour)) for colour in DEPTH_COLOURS.split()]


def depth_range(depth: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest and farthest depth [L, 1, 1, 1, 1] of each latent over all its views [L, V, 1, H, W]; NaN is nothing."""
    flat = depth.flatten(1)
    near = flat.nan_to_num(torch.inf).amin(1)
    far = flat.nan_to_num(-torch.inf).amax(1)
    return near.view(-1, 1, 1, 1, 1), far.view(-1, 1, 1, 1, 1)


def depth_to_bytes(depth: Tensor, scale: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Colours uint8 [L, V, 3, H, W] of depths [L, V, 1, H, W]: near is yellow, far is violet, nothing (NaN) is white.

    All views of a latent share one scale, so that they can be compared: that of ``depth_range``, by default of these.
    """
    near, far = depth_range(depth) if scale is None else scale
    table = torch.tensor(DEPTH_COLOURS, dtype=torch.float32, device=depth.device)
    place = ((depth - near) / (far - near).clamp(min=1e-6)).nan_to_num(0).clamp(0, 1) * (len(table) - 1)
    below = place.floor().long().clamp(max=len(table) - 2)
    share = (place - below)[..., None]
    colours = (table[below] * (1 - share) + table[below + 1] * share).round().to(torch.uint8)
    colours = torch.where(depth.isnan()[..., None], 255, colours)
    return colours.squeeze(2).movedim(-1, 2)


def with_depth_rows(images: Tensor, depth: Tensor | None, scale: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Rows of images uint8 [2L, V, 3, H, W]: the images of a latent, below them its depths; without depth [L, ...].

    Args:
        images: uint8 [L, V, 3, H, W].
        depth: at the renderer's own resolution, [L, V, 1, h, w]; enlarged by repetition.
        scale: as in ``depth_to_bytes``.
    """
    if depth is None:
        return images
    colours = depth_to_bytes(depth, scale)
    size = images.shape[-2:]
    if colours.shape[-2:] != size:
        colours = interpolate(colours.flatten(0, 1).float(), size, mode="nearest").to(torch.uint8)
        colours = colours.unflatten(0, depth.shape[:2])
    return torch.stack([images, colours], dim=1).flatten(0, 1)


def grid(rows: Tensor, gap: int = 2, min_width: int = 64) -> Image.Image:
    """One image of uint8 [rows, columns, 3, H, W], with white lines between.

    Args:
        rows: the cells.
        gap: width of the lines [pixels].
        min_width: smaller cells are enlarged by repetition to at least this width [pixels].
    """
    factor = max(1, math.ceil(min_width / rows.shape[-1]))
    cells = rows.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    pixels = pad(cells, (0, gap, 0, gap), value=255).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return Image.fromarray(pixels[: pixels.shape[0] - gap, : pixels.shape[1] - gap].cpu().numpy())


def to_pil_image(image: Tensor) -> Image.Image:
    """One image of uint8 [3, H, W]."""
    return Image.fromarray(image.permute(1, 2, 0).cpu().numpy())


def check_target(path: Path | str, option: str = "--out") -> Path:
    """The path, if an image can be written there.

    Raises:
        UserError: says why not.
    """
    suffix = Path(path).suffix.lower()
    suffixes = [suffix] if is_format(suffix) else [".png", ".jpg", ".webp"]
    return file_target(path, suffixes, option=option, what="An image")
