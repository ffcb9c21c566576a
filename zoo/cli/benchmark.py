"""``zoo benchmark``: how long rendering, training and reading images take."""

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.cli.options import LARGEST, refuse_unused
from zoo.utils.devices import check_device_name, use_device
from zoo.utils.errors import UserError
from zoo.utils.paths import read_experiment
from zoo.utils.ranges import between, given
from zoo.utils.targets import file_target

if TYPE_CHECKING:
    from zoo.leaderboard.csv_files import RowsFile

MOST_THREADS = 1024  # OpenMP ends the process where it cannot start as many as it is told to


def run(
    config: str | None = None,
    work: Literal["render", "train", "data", "views"] = "render",
    resolution: int | None = None,
    batch: int = 1,
    threads: int | None = None,
    steps: int = 3,
    beside_load: bool = False,
    device: str = "auto",
    devices: int = 1,
    precision: Literal["float32", "bf16", "fp16"] | None = None,
    compile: bool = False,
    json: bool = False,
    out: Path | None = None,
    path: str | None = None,
    views: int = 36,
) -> None:
    """Time rendering (seconds per image) or training (seconds per step) of an experiment, or reading (images/s).

    Args:
        config: an experiment, a file or a name that 'zoo list' shows; none for data, and weights for views.
        work: what to time; data: reading images from a folder, a zip, and a zip of PNGs of the resolution; views: many
            of one object, as of 'zoo orbit', with and without what is in empty space.
        resolution: side of the images in pixels; by default the generator's own, and 64, 128 and 256 for data.
        batch: images at once.
        threads: of the CPU; by default as many as training uses.
        steps: repetitions, after one warm-up; the median is printed. Of views, objects, of which the mean is.
        beside_load: repeat it while another process keeps one CPU busy, and print the ratio.
        device: auto (a CUDA GPU where there is one, else the CPU), cpu, cuda, cuda:1 or mps.
        devices: processes that train together, each on a CPU's threads or a GPU of its own, compared with one.
        precision: of the 2D networks in training, instead of the experiment's own.
        compile: networks run as compiled code, as with --model.compile true.
        json: print one line of JSON.
        out: CSV file to add the numbers to, such as benchmarks/h100.csv, or benchmarks/views.csv for views; nothing
            else should run meanwhile.
        path: folder or zip of images for data; by default images are made.
        views: of each object.
    """
    between(1, LARGEST, batch=batch, steps=steps, views=views, **given(resolution=resolution))
    between(1, MOST_THREADS, devices=devices, **given(threads=threads))
    check_device_name(device)
    if work == "data":
        unused = {"batch": batch, "threads": threads, "steps": steps, "beside_load": beside_load, "device": device}
        unused |= {"config": config, "devices": devices, "precision": precision, "compile": compile, "out": out}
        unused |= {"views": views}
        refuse_unused("with --work data", run, **unused)
        from zoo.cli import data_speed

        reading = data_speed.measure(path, resolution)
        print(jsonlib.dumps(reading) if json else data_speed.table(reading))
        return
    refuse_unused("without --work data", run, path=path)
    if work == "views":
        unused = {"batch": batch, "beside_load": beside_load, "devices": devices, "precision": precision}
        refuse_unused("with --work views", run, **unused)
        if config is None:
            raise UserError("Views are of weights: give some that 'zoo list' shows, such as pigan-cars32.")
        from zoo.cli import views_speed
        from zoo.leaderboard import speeds

        table = out and checked_table(out, speeds.VIEWS)
        facts = views_speed.measure(config, resolution, views, threads, steps, use_device(device))
        print_facts(facts, json)
        if table:
            add_facts(facts, table, speeds.VIEWS)
        return
    refuse_unused("without --work views", run, views=views)
    if work == "render":
        refuse_unused("with --work render, which always computes in float32", run, precision=precision)
        refuse_unused("with --work render, which takes one process", run, devices=devices)
    if devices > 1:
        refuse_unused("with --devices, which compares several with one", run, beside_load=beside_load, out=out)
    if out is not None:
        refuse_unused(
            "with --out, whose numbers are those of a machine with nothing else to do", run, beside_load=beside_load
        )
        from zoo.leaderboard import speeds

        out = checked_table(out, speeds.FILE)
    if config is None:
        raise UserError("Rendering and training are of an experiment: give one that 'zoo list' shows.")
    experiment = read_experiment(config)
    try:
        experiment["model"]["init_args"]["generator"]["class_path"]
    except (KeyError, TypeError):
        raise UserError(f"{config} is no experiment: it has no model with a generator.") from None
    chosen = use_device(device)
    from zoo.utils.user_code import working_folder_last

    working_folder_last()
    facts = {"experiment": config}
    if devices > 1:
        from zoo.cli import scaling

        facts |= scaling.measure(experiment, resolution, batch, threads, steps, chosen, precision, compile, devices)
    else:
        from zoo.cli import speed

        facts |= speed.measure(
            experiment, work, resolution, batch, threads, steps, beside_load, chosen, precision, compile
        )
    print_facts(facts, json)
    if out is not None:
        add_facts(facts, out, speeds.FILE)


def checked_table(path: Path, file: "RowsFile") -> Path:
    """Where to add what is measured; a file of another kind is refused before that takes long."""
    path = file_target(path, (".csv",), what="A table of benchmarks")
    file.read(path)
    return path


def add_facts(facts: dict[str, Any], path: Path, file: "RowsFile") -> None:
    """Add them to a table."""
    from zoo.leaderboard import speeds

    speeds.append_row(facts, path, file)
    print(f"Added to {path}.", file=sys.stderr)


def print_facts(facts: dict[str, Any], json: bool) -> None:
    """A line for each fact, or one of JSON."""
    width = max(map(len, facts))
    print(jsonlib.dumps(facts) if json else "\n".join(f"{name:<{width}} {value}" for name, value in facts.items()))
