"""``zoo evaluate``: scores, added to a table."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.cli.options import LARGEST, MOST_IMAGES, SampleOptions, refuse_unused
from zoo.utils.devices import use_device
from zoo.utils.errors import UserError, missing_file
from zoo.utils.paths import read_experiment
from zoo.utils.ranges import between, given
from zoo.utils.targets import file_target

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

    from zoo.weights.bundle import BundleInfo


def run(
    source: str,
    real: str = "datamodules.Cars",
    extractor: Literal["cars", "dinov2", "efficientnetlite0", "inception2015"] | None = None,
    inception_weights: Path | None = None,
    dinov2_weights: Path | None = None,
    count: int | None = None,
    real_count: int | None = None,
    batch_size: int = 32,
    resolution: int | None = None,
    consistency: int = 0,
    record: bool = False,
    results: Path = Path("runs/results.csv"),
    **drawn: Any,
) -> None:
    """Score weights or a folder of images against real images, and add rows to a table.

    Args:
        source: a name that 'zoo list' shows, the folder of a weights bundle, a .ckpt of a run, or a folder of images.
        real: real images: a class such as datamodules.Cars, a yaml with a class_path or a data block (an experiment),
            or a folder or zip of images.
        extractor: network whose features are compared; by default cars for procedural cars, else efficientnetlite0.
        inception_weights: local file for inception2015.
        dinov2_weights: local file for dinov2.
        count: generated images; by default 1,000, or all of a folder.
        real_count: real images; by default all.
        batch_size: images at once.
        resolution: side that the images of a folder are resized to; by default the shorter side of the first one.
        consistency: also print the 3D consistency of so many samples (weights only).
        record: also add the rows to the table that the project publishes.
        results: the table of your own scores.
    """
    options = SampleOptions(source, resolution=resolution, **drawn)
    between(1, LARGEST, batch_size=batch_size)
    between(2, MOST_IMAGES, **given(count=count, real_count=real_count))
    between(0, MOST_IMAGES, consistency=consistency)
    if extractor != "inception2015":
        refuse_unused("without --extractor inception2015", run, inception_weights=inception_weights)
    if extractor != "dinov2":
        refuse_unused("without --extractor dinov2", run, dinov2_weights=dinov2_weights)
    results = file_target(results, option="--results")
    from datamodules.images import ImageFolder, fit
    from zoo.evaluate import ImagePathDataset, load_extractor, score
    from zoo.evaluate import consistency as measure
    from zoo.evaluate.extractors import check_suits, default_extractor
    from zoo.evaluate.images import holds_images, resizing
    from zoo.evaluate.metrics.consistency import MEANINGS
    from zoo.leaderboard import RESULTS, check_values, read

    tables = [results, *[file_target(RESULTS, option="--record")] * record]
    for table in tables:
        read(table)
    if holds_images(Path(source)) and not holds_weights(Path(source)):
        where = "for a folder of images, which is scored as it is"
        refuse_unused(where, run, consistency=consistency)
        refuse_unused(where, SampleOptions, truncation=options.truncation, seed=options.seed)
        scored = ImagePathDataset(source, resolution=resolution, fit=fit)
        device = use_device(options.device)
        about = {"system": "images", "weights": scored.name, "weights_sha256": scored.digest()}
    else:
        refuse_unused("for weights, which are scored at their own resolution", run, resolution=resolution)
        scored, info = options.load()
        device = scored.device
        about = about_weights(info)
    compared = real_images(real, scored.resolution)
    extractor = extractor or default_extractor(compared)
    check_suits(extractor, compared)
    network = load_extractor(extractor, inception_weights or dinov2_weights)
    check_values(about | {"dataset": compared.name})
    folders = [scored.images] if isinstance(scored, ImagePathDataset) else []
    folders += [compared.files] if Path(real).exists() and isinstance(compared, ImageFolder) else []
    for line in dict.fromkeys(filter(None, (resizing(images, scored.resolution) for images in folders))):
        print(line, file=sys.stderr)
    if consistency:
        for name, value in measure(scored, consistency, seed=options.seed, truncation=options.truncation).items():
            print(f"{name:<24} {value:<10.4g} {MEANINGS[name]}", flush=True)
    scores = score(
        scored,
        compared,
        network,
        n_fake=count,
        n_real=real_count,
        truncation=options.truncation,
        seed=options.seed,
        batch_size=batch_size,
        device=device,
        progress=True,
    )
    for name, value in scores.values.items():
        print(f"{name:<24} {value:.4g}", flush=True)
    add_rows(scores.rows(**about), *tables)
    print(f"Added to {results}; 'zoo leaderboard' shows the table.")


def add_rows(rows: list[dict[str, Any]], *tables: Path) -> None:
    """Add these rows to each of the results files, which are made where they do not exist."""
    from zoo.leaderboard import append_row

    for table in tables:
        for row in rows:
            append_row(row, table)


def holds_weights(folder: Path) -> bool:
    """Whether this is a bundle or the folder of a run; either may have images beside its weights."""
    from zoo.weights.store import TENSORS

    return (folder / TENSORS).is_file() or (folder / "checkpoints").is_dir()


def about_weights(info: "BundleInfo") -> dict[str, Any]:
    """The columns of a results file that identify the weights."""
    card = info.card
    return {
        "system": card.get("system") or info.config["class_path"].split(".")[-2],
        "config": card.get("experiment"),
        "weights": info.name,
        "weights_sha256": info.sha256,
        "images_seen": card.get("images_seen"),
        "seconds": card.get("seconds"),
        "precision": "float32",
    }


def real_images(name: str, resolution: int) -> "LightningDataModule":
    """The datamodule that a class name, a yaml, or a folder or zip of images stands for, ready to be read.

    Args:
        name: see ``run``.
        resolution: of the images to compare with; used where the name doesn't fix one.
    """
    from pytorch_lightning import LightningDataModule

    from zoo.utils.user_code import working_folder_last
    from zoo.weights.bundle import build

    working_folder_last()
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        config = read_experiment(name)
        config = config.get("data", config)
        if not isinstance(config, str) and (not isinstance(config, dict) or "class_path" not in config):
            raise UserError(f"'{name}' names no real images: it has neither a class_path nor a data block with one.")
    elif path.exists():
        config = {"class_path": "datamodules.ImageFolder", "init_args": {"path": name, "resolution": resolution}}
    elif "/" not in name and "." in name and not name.endswith(".zip"):
        config = {"class_path": name, "init_args": {"resolution": resolution}}
    else:
        raise FileNotFoundError(missing_file(path))
    data = build(config, LightningDataModule)
    getattr(data, "prepare_validation", data.prepare_data)()  # ours need no training images for a score
    data.setup("validate")
    return data
