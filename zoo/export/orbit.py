"""Turning objects as moving pictures, image beside depth: GIF or WebP, written by Pillow."""

from pathlib import Path

import torch
from PIL import Image

from zoo.export.pictures import beside, grid
from zoo.export.views import Views

SUFFIXES = (".gif", ".webp")


def orbit_frames(views: Views, depth: bool = True) -> list[Image.Image]:
    """One frame a view; a row for each latent, its image and beside it its depth."""
    rows = beside(views.image, views.depth if depth else None)
    rows = rows.unflatten(0, (len(views.image), -1))  # [L, 1 or 2, V, 3, H, W]
    return [grid(frame) for frame in torch.unbind(rows, 2)]


def save_orbit(path: Path | str, frames: list[Image.Image], seconds: float = 3.0) -> None:
    """Write an endless animation.

    Args:
        path: ends in .gif or .webp.
        frames: of equal size.
        seconds: for one turn.

    Raises:
        ValueError: another suffix.
    """
    path = check_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"quality": 90, "method": 4} if path.suffix.lower() == ".webp" else {"optimize": True}
    duration = max(20, round(1000 * seconds / len(frames)))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=duration, loop=0, **options)


def check_suffix(path: Path | str) -> Path:
    """The path, if its suffix is one that can be written."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"An orbit is written as {' or '.join(SUFFIXES)}, not as '{path.name}'.")
    return path
