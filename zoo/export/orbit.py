"""Orbit videos, image beside depth: GIF or WebP, written by Pillow, or MP4, by imageio-ffmpeg."""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from zoo.export.images import depth_range, grid, with_depth_rows
from zoo.export.views import Views
from zoo.utils.errors import UserError
from zoo.utils.files import replacing

SUFFIXES = (".gif", ".webp", ".mp4")


def orbit_frames(views: Views, depth: bool = True) -> Iterator[Image.Image]:
    """One frame a view, made lazily; a row for each latent, its image and beside it its depth."""
    scale = depth_range(views.depth)
    for view in range(views.image.shape[1]):
        part = slice(view, view + 1)
        rows = with_depth_rows(views.image[:, part], views.depth[:, part] if depth else None, scale)
        yield grid(rows[:, 0].unflatten(0, (len(views.image), -1)))


def save_orbit(path: Path | str, frames: Iterable[Image.Image], rate: float = 12.0) -> None:
    """Write a video; GIF and WebP loop.

    Args:
        path: ends in .gif, .webp or .mp4.
        frames: of equal size.
        rate: frames in a second.

    Raises:
        UserError: another suffix, or .mp4 without imageio-ffmpeg.
    """
    path = check_suffix(path)
    frames = iter(frames)
    options = {"quality": 90, "method": 4} if path.suffix.lower() == ".webp" else {"optimize": True}
    duration = max(20, round(1000 / rate))
    with replacing(path) as part:
        if path.suffix.lower() == ".mp4":
            write_mp4(part, frames, rate)
        else:
            next(frames).save(part, save_all=True, append_images=frames, duration=duration, loop=0, **options)


def write_mp4(path: Path, frames: Iterator[Image.Image], rate: float) -> None:
    """An MP4 that every player shows: H.264, with even sides, padded with white where they are odd."""
    from imageio_ffmpeg import write_frames

    first = next(frames)
    odd = [(0, first.height % 2), (0, first.width % 2), (0, 0)]
    size = (first.width + odd[1][1], first.height + odd[0][1])
    writer = write_frames(path, size, fps=rate, quality=8, macro_block_size=2)
    writer.send(None)
    for frame in chain([first], frames):
        writer.send(np.ascontiguousarray(np.pad(np.asarray(frame), odd, constant_values=255)))
    writer.close()


def check_suffix(path: Path | str) -> Path:
    """The path, if a video can be written there."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"A video is written as {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, not as '{path.name}'.")
    if path.suffix.lower() == ".mp4" and find_spec("imageio_ffmpeg") is None:
        raise UserError("MP4 videos need imageio-ffmpeg: pip install 'gan3d-zoo[video]', or write .gif or .webp.")
    return path
