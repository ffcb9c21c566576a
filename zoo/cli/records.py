"""What a row of results holds so that it can be measured again, and measuring it again.

A record names the weights or images, how the real images are built, the extractor, how the metric is built, and which
of its numbers it is. The other columns have the hashes of all that, numbers of images, seeds and so on.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.utils.devices import use_device
from zoo.utils.errors import UserError, missing_file, near, printable
from zoo.utils.paths import read_experiment

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

    from zoo.evaluate import Extractor
    from zoo.generator import Generator

CLOSE = 1e-3  # relative difference of a value that another processor may make


def real_spec(name: str, resolution: int) -> dict[str, Any]:
    """How the real images are built that a class name, a yaml, or a folder or zip of images stands for.

    Args:
        name: as of ``zoo evaluate --real``.
        resolution: of the images to compare with; used where the name doesn't fix one.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        config = read_experiment(name)
        config = config.get("data", config)
        if isinstance(config, str):
            return {"class_path": config}
        if not isinstance(config, dict) or "class_path" not in config:
            raise UserError(f"'{name}' names no real images: it has neither a class_path nor a data block with one.")
        return config
    if path.exists():
        return {"class_path": "datamodules.ImageFolder", "init_args": {"path": name, "resolution": resolution}}
    if "/" not in name and "." in name and not name.endswith(".zip"):
        return {"class_path": name, "init_args": {"resolution": resolution}}
    raise FileNotFoundError(missing_file(path))


def load_real(spec: dict[str, Any]) -> "LightningDataModule":
    """The real images, of which nothing is read yet."""
    from pytorch_lightning import LightningDataModule

    from zoo.weights.bundle import build

    return build(spec, LightningDataModule)


def prepare_real(data: "LightningDataModule") -> None:
    """Make real images ready to be read."""
    getattr(data, "prepare_validation", data.prepare_data)()  # ours need no training images for a score
    data.setup("validate")


def check_unchanged(source: str, row: dict[str, Any]) -> None:
    """Refuse a row that has just been measured of weights that have changed since.

    Raises:
        UserError: it could not be measured again.
    """
    from zoo.weights.fetch import sha256_of
    from zoo.weights.find import find
    from zoo.weights.store import TENSORS

    if row["system"] != "images":
        path = find(source)
        if sha256_of(path / TENSORS if path.is_dir() else path) != row["weights_sha256"]:
            raise UserError(f"{source} has changed while it was scored: score a copy of it, which stays.")


def record_of(row: dict[str, Any], source: str, real: dict[str, Any], extractor: "Extractor | None") -> str:
    """The record of a row that has just been measured.

    Raises:
        UserError: it could not be measured again, since something is no plain value.
    """
    from zoo.leaderboard.table import is_of_objects

    by = extractor.name if extractor and not is_of_objects(row["metric"]) else None
    about = {"source": source, "real": real, "extractor": by}
    try:
        return json.dumps(about | row["record"], sort_keys=True)
    except TypeError as error:
        raise UserError(f"The real images could not be built again from a row of results: {error}.") from None


def redo(name: str, table: Path, extractor_weights: Path | None, batch_size: int, device: str = "auto") -> None:
    """Measure a row of results once more and print both values.

    Args:
        name: of the row, or its beginning.
        table: of the user's own scores; those of the project are looked through, too.
        extractor_weights: local file of the extractor's weights.

    Raises:
        UserError: there is no such row, it says too little, or what it names has changed; or the values differ by more
            than another processor may make of it.
    """
    from zoo.evaluate import load_extractor, score
    from zoo.evaluate.metrics.features import FeatureMetric
    from zoo.evaluate.presets import built, compares
    from zoo.utils.user_code import working_folder_last

    working_folder_last()
    row = row_named(name, table)
    try:
        record = json.loads(row["record"])
        source, real, extractor = record["source"], record["real"], record["extractor"]
        metric, number = record["metric"], record["number"]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"The row {name} does not say how it was measured, so it cannot be measured again.") from None
    scored = source_of(row, source)
    (measured,) = built([metric])
    of_images = isinstance(measured, FeatureMetric)
    compared = load_real(real)
    network = load_extractor(extractor, extractor_weights) if of_images else None
    if compares(measured):
        prepare_real(compared)
        check_same("real images", compared.digest(), row["dataset_digest"])
        sha256 = network.sha256 if network else measured.protocol["extractor_sha256"]
        check_same(f"weights of {extractor or measured.name}", sha256, row["extractor_sha256"])
    drawn = {} if row["system"] == "images" else {"truncation": row["truncation"], "seed": row["seed"]}
    seen = {"draws": row["draws"], "cameras": row["cameras"]} if of_images and drawn else {}
    scores = score(
        scored if row["system"] == "images" else scored.to(use_device(device)),
        compared,
        network,
        [measured],
        n_fake=row["n_fake"] if of_images else None,
        n_real=row["n_real"] if of_images else None,
        n_objects=1 if of_images else row["n_fake"] * measured.share,
        condition="fixed" if row["condition"] == "fixed" else "own",
        batch_size=batch_size,
        progress=True,
        **drawn,
        **seen,
    )
    again = next(one["value"] for one in scores.results.values() if one["record"]["number"] == number)
    print(f"{row['metric']} of {row['weights']}: {row['value']:.6g} in the table, {again:.6g} now")
    if not abs(again - row["value"]) <= CLOSE * abs(row["value"]) + 1e-6:
        raise UserError(f"The row {name} was measured as {row['value']:.6g}, but is {again:.6g} now.")


def row_named(name: str, table: Path) -> dict[str, Any]:
    """The row of this name, or beginning of it, in the user's table or the project's."""
    from zoo.leaderboard import RESULTS, read
    from zoo.leaderboard.table import row_id

    rows = {row_id(row): row for path in (table, RESULTS) for row in read(path)}
    found = [row for key, row in rows.items() if key.startswith(name)]
    if len(found) != 1:
        what = "is the beginning of several rows' names" if found else "is no row"
        hint = near(name, list(rows)) or " 'zoo leaderboard' shows the names of rows."
        raise UserError(f"'{printable(name, 40)}' {what}.{hint}")
    return found[0]


def source_of(row: dict[str, Any], source: str) -> "Generator | Any":
    """The weights or images that the row is of.

    Raises:
        UserError: they are not there, or others are.
    """
    from datamodules.images import fit
    from zoo.evaluate import ImagePathDataset
    from zoo.weights import load_bundle

    if row["system"] == "images":
        images = ImagePathDataset(source, resolution=row["resolution"], fit=fit)
        check_same("images", images.digest(), row["weights_sha256"])
        return images
    generator, info = load_bundle(source)
    check_same("weights", info.sha256, row["weights_sha256"])
    return generator


def check_same(what: str, found: str, expected: str) -> None:
    """Refuse what has another hash than the row has."""
    if found != expected:
        raise UserError(f"The row was measured with other {what}, of sha256 {expected[:12]}, not {found[:12]}.")
