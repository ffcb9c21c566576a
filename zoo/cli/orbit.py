"""``zoo orbit``: videos of objects from all sides."""

from pathlib import Path
from typing import Any, Literal

from zoo.cli.options import LARGEST, SampleOptions, numbers, refuse_unused
from zoo.utils.errors import UserError
from zoo.utils.ranges import above, between

MIN_WIDTH = 128  # of an image in a frame, so that videos of small images can be watched [pixels]


def run(
    out: Path = Path("orbit.gif"),
    seeds: str = "0-3",
    frames: int = 36,
    seconds: float = 3.0,
    path: Literal["turntable", "wobble", "rise", "spiral", "zoom", "still"] = "turntable",
    interpolate: bool = False,
    depth: bool = True,
    edit: str | None = None,
    exact: bool = False,
    **drawn: Any,
) -> None:
    """Render a video of objects from all sides, a row for each: its image and beside it its depth. Images of less than
    128 pixels are enlarged by repetition.

    Args:
        out: the video's file: .gif, .webp, or .mp4 where imageio-ffmpeg is installed.
        seeds: which samples, as in 0-3,8.
        frames: of the video.
        seconds: length of the video.
        path: of the camera: the turntable, an ellipse in front (wobble), up and down (rise), round and up and down
            (spiral), nearer and back (zoom), or none (still); always within the pose prior of the generator.
        interpolate: one row only, which interpolates through the samples and back to the first.
        depth: draw depths: near is yellow, far is violet, nothing is white.
        edit: frames show what this edit does to a scene, instead of its sides; systems that compose scenes have edits.
        exact: also compute what is in empty space, which is left out as far as a coarse grid finds nothing there.
    """
    options, indices = SampleOptions(**drawn), numbers(seeds)
    if edit is not None and (interpolate or path != "turntable"):
        raise UserError("An edit has a camera and samples of its own: leave out --edit, or --path and --interpolate.")
    if edit is not None or interpolate:
        refuse_unused("of frames that show different scenes, which are computed everywhere", run, exact=exact)
    between(1, LARGEST, frames=frames)
    above(0, seconds=seconds)
    from zoo.export.orbit import check_rate, check_target, orbit_frames, save_orbit
    from zoo.export.views import interpolated_views, turntable_views

    out = check_target(out)
    check_rate(frames / seconds)
    generator, _ = options.load()
    how = {"path": path, "progress": True, **options.drawn}
    if interpolate:
        rendered = interpolated_views(generator, indices, frames, **how)
    else:
        rendered = turntable_views(generator, indices, frames, edit=edit, exact=exact, **how)
    save_orbit(out, orbit_frames(rendered, depth, min_width=MIN_WIDTH), frames / seconds)
    print(out)
