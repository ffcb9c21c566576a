"""``zoo evaluate``: scores, added to a table."""

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.cli.options import LARGEST, MOST_IMAGES, SampleOptions, refuse_unused
from zoo.utils.devices import use_device
from zoo.utils.errors import UserError
from zoo.utils.ranges import between, given
from zoo.utils.targets import file_target

if TYPE_CHECKING:
    from zoo.evaluate import ImagePathDataset
    from zoo.evaluate.measuring import Metric
    from zoo.generator import Generator
    from zoo.weights.bundle import BundleInfo


def run(
    source: str | None = None,
    real: str = "datamodules.Cars",
    metrics: str = "image",
    extractor: Literal["cars", "dinov2", "efficientnetlite0", "inception2015"] | None = None,
    inception_weights: Path | None = None,
    dinov2_weights: Path | None = None,
    count: int | None = None,
    real_count: int | None = None,
    objects: int = 64,
    condition: Literal["both", "own", "fixed"] = "both",
    cameras: Literal["prior", "dataset", "uniform"] = "prior",
    batch_size: int = 32,
    resolution: int | None = None,
    consistency: int = 0,
    exact: bool = False,
    record: bool = False,
    results: Path = Path("runs/results.csv"),
    row: str | None = None,
    json: bool = False,
    **drawn: Any,
) -> None:
    """Score weights or a folder of images against real images, and add rows to a table.

    Args:
        source: a name that 'zoo list' shows, the folder of a weights bundle, a .ckpt of a run, or a folder of images.
        real: real images: a class such as datamodules.Cars, a yaml with a class_path or a data block (an experiment),
            or a folder or zip of images.
        metrics: image, 3d, all, fid_kid, a paper's protocol (graf_1k, pigan_8k2k, giraffe_20k, nvidia_50k_full,
            cips_2k), or a yaml that lists metrics.
        extractor: network whose features are compared; by default that of a paper's protocol, else cars for procedural
            cars and efficientnetlite0 for all other images.
        inception_weights: local file for inception2015.
        dinov2_weights: local file for dinov2.
        count: generated images; by default those of a paper's protocol, else 1,000, or all of a folder.
        real_count: real images; by default those of a paper's protocol, else all.
        objects: for the metrics of 3D; fits take an eighth of them.
        condition: camera that a conditioned generator is told: that of each image, one for all, or both in turn.
        cameras: that images are seen from: the generator's own, those of the real images, or uniform on its turntable.
        batch_size: images at once.
        resolution: side that the images of a folder are resized to; by default the shorter side of the first one.
        consistency: also print the 3D consistency of so many samples (weights only).
        exact: for that, also compute what is in empty space, as all scores do.
        record: also add the rows to the table that the project publishes.
        results: the table of your own scores.
        row: measure this row of a table once more instead, named as 'zoo leaderboard' shows it, and compare.
        json: print the rows as one line of JSON.
    """
    between(1, LARGEST, batch_size=batch_size)
    between(1, MOST_IMAGES, objects=objects)
    between(2, MOST_IMAGES, **given(count=count, real_count=real_count))
    between(0, MOST_IMAGES, consistency=consistency)
    if not consistency:
        refuse_unused("without --consistency", run, exact=exact)
    if row is not None:
        what = {"source": source, "real": real, "metrics": metrics, "count": count, "real_count": real_count}
        how = {"objects": objects, "condition": condition, "cameras": cameras, "resolution": resolution}
        how |= {"extractor": extractor, "consistency": consistency, "record": record, "json": json}
        options = SampleOptions("", **drawn)
        refuse_unused("beside --row, which says all", run, **what, **how)
        refuse_unused("beside --row, which says all", SampleOptions, truncation=options.truncation, seed=options.seed)
        from zoo.cli.records import redo

        redo(row, results, inception_weights or dinov2_weights, batch_size, options.device)
        return
    if source is None:
        raise UserError("Name what to score: weights that 'zoo list' shows, a checkpoint, or a folder of images.")
    options = SampleOptions(source, resolution=resolution, **drawn)
    results = file_target(results, option="--results")
    from datamodules.images import ImageFolder, fit
    from zoo.cli.records import check_unchanged, load_real, prepare_real, real_spec, record_of
    from zoo.evaluate import ImagePathDataset, load_extractor, score
    from zoo.evaluate import consistency as measure
    from zoo.evaluate.extractors import check_suits, default_extractor
    from zoo.evaluate.images import holds_images, resizing
    from zoo.evaluate.metrics.consistency import MEANINGS
    from zoo.evaluate.metrics.features import FeatureMetric
    from zoo.evaluate.presets import chosen_metrics, compares, preset
    from zoo.leaderboard import RESULTS, check_values, read
    from zoo.leaderboard.table import grid
    from zoo.utils.user_code import working_folder_last

    working_folder_last()
    chosen = preset(metrics)
    for name, file in (("inception2015", inception_weights), ("dinov2", dinov2_weights)):
        if (extractor or chosen.extractor) != name:
            refuse_unused(f"without --extractor {name}", run, **{f"{name.removesuffix('2015')}_weights": file})
    tables = [results, *[file_target(RESULTS, option="--record")] * record]
    for table in tables:
        read(table)
    if holds_images(Path(source)) and not holds_weights(Path(source)):
        where = "for a folder of images, which is scored as it is"
        refuse_unused(where, run, consistency=consistency, objects=objects, condition=condition, cameras=cameras)
        refuse_unused(where, SampleOptions, truncation=options.truncation, seed=options.seed)
        scored = ImagePathDataset(source, resolution=resolution, fit=fit)
        device = use_device(options.device)
        about = {"system": "images", "weights": scored.name, "weights_sha256": scored.digest()}
    else:
        refuse_unused("for weights, which are scored at their own resolution", run, resolution=resolution)
        scored, info = options.load()
        device = scored.device
        about = about_weights(info)
    count = chosen.generated(scored) if count is None else count
    spec = real_spec(real, scored.resolution)
    compared = load_real(spec)
    measured = possible(chosen_metrics(metrics, count, compared), scored)
    if any(map(compares, measured)):
        prepare_real(compared)
    network, of_images = None, any(isinstance(metric, FeatureMetric) for metric in measured)
    if of_images:
        extractor = extractor or chosen.extractor or default_extractor(compared)
        check_suits(extractor, compared)
        network = load_extractor(extractor, inception_weights or dinov2_weights)
    check_values(about | {"dataset": compared.name})
    folders = [scored.images] if isinstance(scored, ImagePathDataset) else []
    folders += [compared.files] if of_images and Path(real).exists() and isinstance(compared, ImageFolder) else []
    for line in dict.fromkeys(filter(None, (resizing(images, scored.resolution) for images in folders))):
        print(line, file=sys.stderr)
    if consistency:
        how = {"seed": options.seed, "truncation": options.truncation, "exact": exact}
        for name, value in measure(scored, consistency, **how).items():
            print(f"{name:<24} {value:<10.4g} {MEANINGS[name]}", flush=True)
    rows, lines = [], []
    for told in ("own", "fixed") if condition == "both" and is_conditioned(scored) else (condition,):
        scores = score(
            scored,
            compared,
            network,
            measured,
            n_fake=count,
            n_real=chosen.real(compared) if of_images and real_count is None else real_count,
            n_objects=objects,
            condition="fixed" if told == "fixed" else "own",
            cameras=cameras,
            truncation=options.truncation,
            seed=options.seed,
            batch_size=batch_size,
            device=device,
            progress=True,
        )
        check_unchanged(source, about)
        lines += scores.lines()
        rows += [row | {"record": record_of(row, source, spec, network)} for row in scores.rows(**about)]
    print(jsonlib.dumps(rows) if json else grid(lines, markdown=False), flush=True)
    if unknown := [line["metric"] for line in lines if line["value"] == "nan"]:
        print(f"Not added, as too few images or objects say nothing of it: {', '.join(unknown)}.", file=sys.stderr)
    add_rows(rows, *tables)
    print(f"Added to {results}; 'zoo leaderboard' shows the table.", file=sys.stderr if json else sys.stdout)


def possible(metrics: "list[Metric]", source: "Generator | ImagePathDataset") -> "list[Metric]":
    """Those of the metrics that the source has what they need for; says of the others what that is.

    Raises:
        UserError: there is none.
    """
    from zoo.evaluate.measuring import lacks

    errors = [lacks(metric, source) for metric in metrics]
    if all(errors):
        raise errors[0]
    for error in filter(None, errors):
        print(f"Left out: {error}", file=sys.stderr)
    return [metric for metric, error in zip(metrics, errors, strict=True) if not error]


def is_conditioned(source: "Generator | ImagePathDataset") -> bool:
    """Whether there are two ways to condition it."""
    return getattr(source, "is_conditioned", False)


def add_rows(rows: list[dict[str, Any]], *tables: Path) -> None:
    """Add these rows to each of the results files, which are made where they do not exist."""
    from zoo.leaderboard import append_rows

    for table in tables:
        append_rows(rows, table)


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
        "processor_seconds": card.get("processor_seconds"),
        "precision": "float32",
    }
