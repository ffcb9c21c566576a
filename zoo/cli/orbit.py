"""``zoo orbit``: films of objects from all sides."""

from pathlib import Path
from typing import Any, Literal

from zoo.cli.options import SampleOptions, numbers


def run(
    out: Path = Path("orbit.gif"),
    seeds: str = "0-3",
    frames: int = 36,
    seconds: float = 3.0,
    path: Literal["turntable", "wobble", "rise", "spiral", "zoom", "still"] = "turntable",
    interpolate: bool = False,
    depth: bool = True,
    edit: str | None = None,
    **drawn: Any,
) -> None:
    """Film objects from all sides, a row for each: its image and beside it its depth.

    Args:
        out: the film's file: .gif, .webp, or .mp4 where imageio-ffmpeg is installed.
        seeds: which samples, as in 0-3,8.
        frames: images of the film.
        seconds: for all of them.
        path: of the camera: the turntable, an ellipse in front (wobble), up and down (rise), round and up and down
            (spiral), nearer and back (zoom), or none (still); always within the poses that the generator knows.
        interpolate: one row only, which becomes each of the samples in turn, and the first again.
        depth: draw depths: near is yellow, far is violet, nothing is white.
        edit: frames show what this edit does to a scene, instead of its sides; systems that compose scenes have edits.
    """
    options, indices = SampleOptions(**drawn), numbers(seeds)
    if edit is not None and (interpolate or path != "turntable"):
        raise ValueError("An edit has a camera and samples of its own: leave out --edit, or --path and --interpolate.")
    if frames < 1 or seconds <= 0:
        raise ValueError(f"A film has at least one frame and takes some time, not {frames} in {seconds:g} seconds.")
    from zoo.export.orbit import check_suffix, orbit_frames, save_orbit
    from zoo.export.views import interpolated_views, turntable_views

    check_suffix(out)
    generator, _ = options.load()
    how = {"path": path, "progress": True, **options.drawn}
    if interpolate:
        filmed = interpolated_views(generator, indices, frames, **how)
    else:
        filmed = turntable_views(generator, indices, frames, edit=edit, **how)
    save_orbit(out, orbit_frames(filmed, depth), frames / seconds)
    print(out)
