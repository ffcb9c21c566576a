"""``zoo data``: what images come with, converted."""

from pathlib import Path

from zoo.cli.options import LARGEST, refuse_unused
from zoo.utils.errors import UserError, printable
from zoo.utils.ranges import between, given


def cameras(source: Path, out: Path, resolution: int | None = None, overwrite: bool = False) -> None:
    """Convert the cameras of images to the format of EG3D or NeRF, from theirs, SRN's or that of GRAF's CARLA.

    Args:
        source: a file of cameras; or a folder or zip of images that come with cameras, or of poses.
        out: dataset.json for EG3D's format, transforms.json for NeRF's.
        resolution: side of the images in pixels, for programs that read a transforms.json with a lens in pixels.
        overwrite: replace a file that is there already.
    """
    from datamodules.camera_files import check_target, read_cameras, write_cameras

    between(1, LARGEST, **given(resolution=resolution))
    out = check_target(out)
    if out.name == "dataset.json":
        refuse_unused("in a dataset.json", cameras, resolution=resolution)
    if out.exists() and not overwrite:
        raise UserError(f"'{printable(out, 120)}' is there already: take another name, or replace it (--overwrite).")
    found = read_cameras(source)
    write_cameras(found, out, resolution)
    print(f"Wrote {len(found.names):,} cameras of {found.source} to '{printable(out, 120)}'.")
