"""Orbit videos, image beside depth: GIF or WebP, written by Pillow, or MP4, by imageio-ffmpeg."""

import logging
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from shutil import which
from subprocess import DEVNULL, PIPE, Popen
from tempfile import TemporaryFile

import numpy as np
from PIL import Image

from zoo.export.images import depth_range, grid, with_depth_rows
from zoo.export.views import Views
from zoo.utils.errors import Stopped, UserError, printable
from zoo.utils.files import replacing
from zoo.utils.targets import file_target

SUFFIXES = (".gif", ".webp", ".mp4")
SHORTEST = 20  # milliseconds that a frame of a GIF or WebP is shown; browsers take less for a mistake, and show 100
SLOWEST, FASTEST = 0.002, 1000.0  # frames in a second; a frame of a GIF is shown for 655 seconds at most

log = logging.getLogger(__name__)


def orbit_frames(views: Views, depth: bool = True, min_width: int = 64) -> Iterator[Image.Image]:
    """One frame a view, made lazily; a row for each latent, its image and beside it its depth; width as of ``grid``."""
    scale = depth_range(views.depth)
    for view in range(views.image.shape[1]):
        part = slice(view, view + 1)
        rows = with_depth_rows(views.image[:, part], views.depth[:, part] if depth else None, scale)
        yield grid(rows[:, 0].unflatten(0, (len(views.image), -1)), min_width=min_width)


def save_orbit(path: Path | str, frames: Iterable[Image.Image], rate: float = 12.0) -> None:
    """Write a video; GIF and WebP loop.

    Args:
        path: ends in .gif, .webp or .mp4.
        frames: of equal size.
        rate: frames in a second; of a GIF or WebP at most 50, which is said.

    Raises:
        UserError: another suffix, a rate that no video has, or .mp4 without imageio-ffmpeg.
        Stopped: ffmpeg could not write it; an older file stays.
    """
    path, frames = check_target(path), iter(frames)
    check_rate(rate)
    options = {"quality": 90, "method": 4} if path.suffix.lower() == ".webp" else {"optimize": True}
    duration = max(SHORTEST, round(1000 / rate))
    if 1000 / rate < SHORTEST and path.suffix.lower() != ".mp4":
        log.warning(
            "'%s' shows %d frames in a second, not %.4g: no %s is faster. Take fewer frames or more seconds, or .mp4.",
            *(printable(path, 80), 1000 // SHORTEST, rate, path.suffix),
        )
    with replacing(path) as part:
        if path.suffix.lower() == ".mp4":
            if problem := write_mp4(part, frames, rate):
                raise Stopped(f"ffmpeg could not write '{path}': {problem}. Make room, or write a .gif or .webp.")
        else:
            next(frames).save(part, save_all=True, append_images=frames, duration=duration, loop=0, **options)


def write_mp4(path: Path, frames: Iterator[Image.Image], rate: float) -> str | None:
    """An MP4 that every player shows: H.264, with even sides, padded with white where they are odd.

    Returns:
        what went wrong; None where nothing did.
    """
    from imageio_ffmpeg import get_ffmpeg_exe

    first = next(frames)
    odd = [(0, first.height % 2), (0, first.width % 2), (0, 0)]
    size = f"{first.width + odd[1][1]}x{first.height + odd[0][1]}"
    frames_in = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", str(Fraction(rate).limit_denominator())]
    video_out = ["-an", "-pix_fmt", "yuv420p", "-crf", "10", f"file:{path.absolute()}"]
    command = [get_ffmpeg_exe(), "-y", "-v", "error", *frames_in, "-i", "-", *video_out]
    with TemporaryFile() as said, Popen(command, stdin=PIPE, stdout=DEVNULL, stderr=said) as ffmpeg:
        try:
            for frame in chain([first], frames):
                ffmpeg.stdin.write(np.pad(np.asarray(frame), odd, constant_values=255).tobytes())
            ffmpeg.stdin.close()
        except BrokenPipeError:  # it has ended before; why is known below
            with suppress(BrokenPipeError):
                ffmpeg.stdin.close()  # what it holds of a frame goes nowhere, and would raise once more
        except BaseException:
            ffmpeg.kill()
            raise
        code, written = ffmpeg.wait(), path.is_file() and path.stat().st_size > 0
        if code == 0 and written:
            return None
        said.seek(0)
        lines = said.read().decode(errors="replace").replace(str(path.absolute()), "").split("\n")
    if code < 0:
        return f"it was killed ({signal.strsignal(-code)})"
    first_line = next(
        filter(None, map(str.strip, lines)),
        f"it ended with code {code}, having written {'something' if written else 'nothing'}",
    )
    return printable(first_line.rpartition("] ")[2].rstrip("."), 120)


def check_rate(rate: float) -> None:
    """Refuse a number of frames in a second that no video has.

    Raises:
        UserError: says which there are.
    """
    if not SLOWEST <= rate <= FASTEST:
        raise UserError(
            f"A video shows from {SLOWEST:g} to {FASTEST:,.0f} frames in a second, not {rate:.4g}: change --frames or "
            "--seconds."
        )


def check_target(path: Path | str, option: str = "--out") -> Path:
    """The path, if a video can be written there.

    Raises:
        UserError: says why not.
    """
    path = file_target(path, SUFFIXES, option=option, what="A video")
    if path.suffix.lower() != ".mp4":
        return path
    if find_spec("imageio_ffmpeg") is None:
        raise UserError("MP4 videos need imageio-ffmpeg: pip install 'gan3d-zoo[video]', or write .gif or .webp.")
    from imageio_ffmpeg import get_ffmpeg_exe

    try:
        program = get_ffmpeg_exe()  # $IMAGEIO_FFMPEG_EXE, unseen, or the one that comes with the package
    except RuntimeError:
        program = "ffmpeg"
    if which(program) is None:
        raise UserError(
            f"MP4 videos need ffmpeg, and '{printable(program, 80)}' cannot be run: set $IMAGEIO_FFMPEG_EXE to it, or "
            "write .gif or .webp."
        )
    return path
