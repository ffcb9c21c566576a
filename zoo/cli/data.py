"""``zoo data``: what images and their cameras are like, and how they become other files."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.cli.options import LARGEST, refuse_unused
from zoo.utils.errors import UserError, near, printable
from zoo.utils.paths import read_experiment
from zoo.utils.ranges import between, given

if TYPE_CHECKING:
    from datamodules import ImageFolder


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


def check(
    path: Path, experiment: str | None = None, preset: str | None = None, out: Path | None = None, json: bool = False
) -> None:
    """Describe images before training: what can be used, sizes, duplicates, classes, cameras beside an experiment's.

    Args:
        path: a folder or zip of images.
        experiment: a name that 'zoo list' shows, or a yaml: for its crop, resolution, batch size and cameras.
        preset: read the path as this data set, such as celeba or celeba/graf; docs/datasets.md lists them.
        out: draw some images, with a box as their cameras see it, and the angles of all cameras.
        json: print everything as a json.
    """
    from zoo.export.images import check_target

    out = out and check_target(out)
    data = images_at(path, experiment, preset)
    data.files.on_bad = "skip"  # broken ones are in the description
    from datamodules import data_check
    from zoo.cli.data_sheet import draw_sheet, prior_of

    stages = data.stages if experiment else []
    sizes = {name: max((getattr(of, name) for of in stages), default=None) for name in ("resolution", "batch_size")}
    with unsaid():
        facts, prior = data_check.check(data, **sizes), None
        if experiment:
            facts["prior"] = {"experiment": experiment}
            try:
                prior = prior_of(experiment)
                facts["prior"] |= data_check.camera_facts(prior.camera)
                if "yaw" in facts["cameras"]:
                    facts["prior"]["differences"] = data_check.differences(facts["cameras"], facts["prior"])
            except UserError as error:
                facts["prior"]["problem"] = str(error)
        if out is not None:
            from zoo.export import save_image

            save_image(out, draw_sheet(data.files, data.resolution, prior))
    if json:
        from json import dumps

        print(dumps(facts, indent=1))
    else:
        drawn = [] if out is None else [("drawn", printable(out, 200))]
        print("\n".join(f"{title:<12} {line}" for title, line in [*data_check.lines(facts), *drawn]))


def pack(
    path: Path,
    out: Path,
    resolution: int | None = None,
    experiment: str | None = None,
    preset: str | None = None,
    filter: Literal["lanczos", "bicubic", "bilinear", "box", "nearest", "subsample"] | None = None,
    side: int | None = None,
    overwrite: bool = False,
) -> None:
    """Write images as training sees them, cropped and resized, into a zip that is read much faster.

    Args:
        path: a folder or zip of images.
        out: the zip. An interrupted command continues when it is given again.
        resolution: side of the packed images in pixels; by default the experiment's.
        experiment: a name that 'zoo list' shows, or a yaml: for its crop, filter and resolution.
        preset: the crop and filter of a paper for a data set, such as celeba/graf; docs/datasets.md lists them.
        filter: for resizing.
        side: of the square in the middle that is cut out, in pixels; by default the largest.
        overwrite: replace a zip that is there already.
    """
    from zoo.cli.help import version
    from zoo.utils.targets import file_target

    between(1, LARGEST, **given(resolution=resolution, side=side))
    out = file_target(out, (".zip",), what="A packed data set")
    if out.exists() and not overwrite:
        raise UserError(f"'{printable(out, 120)}' is there already: take another name, or replace it (--overwrite).")
    if resolution is None and experiment is None:
        raise UserError("How large will the images be? Give --resolution in pixels, or an --experiment that says it.")
    crop = None if side is None else {"side": side}
    data = images_at(path, experiment, preset, **given(resolution=resolution, filter=filter, crop=crop))
    from datamodules.data_check import bordered, largest_side
    from datamodules.pack import pack as write

    count = write(data, out, version())
    if (largest := largest_side(data.files)) < data.resolution:
        print(f"zoo: no image has more than {largest:g} pixels each way; all were enlarged.", file=sys.stderr)
    if small := len(bordered(data.files)):
        print(f"zoo: {small:,} images are smaller than the square and have black borders.", file=sys.stderr)
    print(f"Packed {count:,} images at {data.resolution}x{data.resolution} into '{printable(out, 120)}'.")


def images_at(path: Path, experiment: str | None, preset: str | None, **options: Any) -> "ImageFolder":
    """A datamodule of the images at a path.

    Args:
        path: a folder or zip.
        experiment: whose data block says how they are read; if its data are not files, only their size.
        preset: a data set of ``datamodules.presets``, or one of its presets after a slash; wins over the experiment's.
        options: of the datamodule; win over both.

    Raises:
        UserError: there are no such images, experiment or preset.
    """
    import datamodules
    from datamodules.presets import PRESETS
    from zoo.weights.bundle import build

    config: dict[str, Any] = {"class_path": "datamodules.ImageFolder", "init_args": {}}
    if experiment is not None:
        block = read_experiment(experiment).get("data")
        if not isinstance(block, dict) or "class_path" not in block:
            raise UserError(f"'{printable(experiment, 80)}' has no data block with a class_path: give an experiment.")
        config["init_args"] = dict(block.get("init_args") or {})
        if reads_files(block["class_path"]) and preset is None:
            config["class_path"] = block["class_path"]
        else:
            kept = ("resolution", "batch_size", "stages")
            config["init_args"] = {name: x for name, x in config["init_args"].items() if name in kept}
    if preset is not None:
        name, _, paper = preset.partition("/")
        if name not in PRESETS:
            raise UserError(
                f"There is no preset '{printable(preset, 60)}': give a data set, or one of its presets, such as "
                f"celeba/graf; there are {', '.join(PRESETS)}.{near(name, list(PRESETS))}"
            )
        of = next(each for each in datamodules.__all__ if each.lower() == name)
        config = {"class_path": f"datamodules.{of}", "init_args": config["init_args"] | given(preset=paper or None)}
    config["init_args"] |= {"path": str(path), **options}
    return build(config, datamodules.ImageFolder)


def reads_files(class_path: str) -> bool:
    """Whether a datamodule takes a path; one that cannot be imported is said to, and refused when it is built."""
    from zoo.utils.parser import parameters

    try:
        return "path" in parameters(class_path)
    except (ImportError, AttributeError, ValueError):
        return True


@contextmanager
def unsaid() -> Iterator[None]:
    """Inside, nothing is logged about files: the description says it."""
    log = logging.getLogger("zoo.utils.image_folders")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
