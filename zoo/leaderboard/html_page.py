"""The leaderboard for a browser: a folder with ``index.html``, from which no request leaves.

Its files are those of ``page/``, copied as they are, ``data.js``, which holds what ``page_data`` collects, and
``images/``. Whatever comes from a csv file is shown as text: no markup is made of it, here or there, and the policy of
the page runs no other scripts than its own.
"""

import csv
import hashlib
import json
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.leaderboard.table import (
    COLUMNS,
    OWN_RESULTS,
    PUBLISHED,
    RESULTS,
    Row,
    cells,
    format_duration,
    format_number,
    group_of,
    groups,
    heading,
    headlines,
    is_of_objects,
    read,
    row_id,
)
from zoo.utils.errors import UserError, printable
from zoo.utils.files import replacing_files
from zoo.utils.paths import BUNDLED, config_path
from zoo.weights.catalogue import NO_LICENCE, released
from zoo.weights.fetch import sha256_of
from zoo.weights.store import TENSORS

PAGE = Path(__file__).with_name("page")
MARK = '<meta name="generator" content="zoo leaderboard --html">'  # of every index.html that was made here
IMAGES = "images"  # folder within
# How weights are drawn; a change draws all anew.
SEEDS, VIEWS, FRAMES = "0-3", 6, 18
KINDS = ("orbit", "still", "grid")
COSTS = {  # column, title of an axis, its unit in those of the column
    "seconds": ("training [min]", 1 / 60),
    "processor_seconds_per_image": ("processor time of an image [ms]", 1000),
    "seconds_per_image": ("time of an image [ms]", 1000),
    "images_seen": ("images seen in training", 1),
    "parameters": ("parameters", 1),
    "peak_memory_mib": ("memory [MiB]", 1),
}


def write_page(folder: Path, results: Sequence[Path] = (OWN_RESULTS, RESULTS)) -> Path:
    """Write the page, with the images that are in the folder already; images of other weights than its rows' go.

    Args:
        folder: a new or empty one, or one that this has written before.
        results: as of ``zoo.leaderboard.show``.

    Returns:
        its index.html.

    Raises:
        UserError: as ``check_folder`` and ``zoo.leaderboard.read``.
    """
    check_folder(folder)
    data = page_data(results, {path.name for path in (folder / IMAGES).glob("*.webp")})
    with replacing_files(folder) as made:
        for file in PAGE.iterdir():
            shutil.copyfile(file, made / file.name)
        (made / "data.js").write_text(f"const leaderboard = {json.dumps(data)};\n", encoding="utf-8")
    used = {name for weights in data["weights"] for name in weights["images"].values()}
    for path in (folder / IMAGES).glob(f"{'[0-9a-f]' * 16}-*.webp"):
        if path.name not in used:
            path.unlink()
    return folder / "index.html"


def check_folder(folder: Path) -> None:
    """Refuse a folder that something else is in.

    Raises:
        UserError: says so.
    """
    index = folder / "index.html"
    is_ours = index.is_file() and MARK in index.read_text(encoding="utf-8", errors="replace")
    if folder.is_dir() and any(folder.iterdir()) and not is_ours:
        raise UserError(
            f"'{printable(folder, 120)}' holds other files than a page of 'zoo leaderboard --html': give a new or an "
            "empty folder."
        )


def page_data(results: Sequence[Path], images: Iterable[str] = ()) -> dict[str, Any]:
    """All that the page shows, as JSON.

    Args:
        results: as of ``zoo.leaderboard.show``.
        images: names of the images that there are.
    """
    found = {row_id(row): (row, path) for path in results for row in read(path)}
    rows = [row for row, _ in found.values()]
    conditions = sorted({row["condition"] for row in rows} - {"none"}, reverse=True) or ["none"]  # own before fixed
    tables = [table for condition in conditions for table in tables_of(rows, condition)]
    shown = {name for table in tables for _, name in table["rows"]}
    weights = weights_of(row for name, (row, _) in found.items() if name in shown)
    places = {key: place for place, key in enumerate(weights)}
    with open(PUBLISHED, newline="", encoding="utf-8") as file:
        published = [*csv.DictReader(file)]
    return {
        "conditions": conditions,
        "tables": tables,
        "rows": {
            name: row_data(row) | {"weights_place": places[key_of(row)], "again": again(name, *found[name])}
            for name, (row, _) in found.items()
            if name in shown
        },
        "weights": [weights_data(alike, {*images}) for alike in weights.values()],
        "costs": {column: title for column, (title, _) in COSTS.items()},
        "published": published,
        "drawn": {"seeds": SEEDS, "views": VIEWS},
    }


def tables_of(rows: Iterable[Row], condition: str) -> list[dict[str, Any]]:
    """The ranked tables of rows with this condition or none."""
    alike = [row for row in rows if row["condition"] in (condition, "none")]
    main = {row["metric"] for row in headlines(alike)}
    tables = []
    for title, members in groups(alike):
        row = members[0][1]
        named = {column: row[column] for column in ("dataset", "resolution", "metric", "better", "n_real")}
        named |= {"condition": condition, "cameras": row["cameras"] or "prior"}
        kind = {"is_main": row["metric"] in main, "of_objects": is_of_objects(row["metric"])}
        ranked = [(rank, row_id(row)) for rank, row in members]
        tables.append({"title": title, "group": repr(group_of(row)), "rows": ranked} | named | kind)
    return tables


def row_data(row: Row) -> dict[str, Any]:
    """Values of a row, to sort by, and the texts that are shown of some."""
    shown = cells(0, row)
    texts = {
        "value": shown[heading(row)],
        "images_seen": shown["images seen"],
        "seconds": shown["training"],
        "processor_seconds": shown["processor time"],
        "parameters": format_number(row["parameters"], ","),
        "peak_memory_mib": format_number(row["peak_memory_mib"], ",") and f"{row['peak_memory_mib']:,} MiB",
        "date": shown["measured"],
    }
    for column in ("seconds_per_image", "processor_seconds_per_image"):
        texts[column] = format_duration_of_image(row[column])
    texts = {column: text for column, text in texts.items() if text}
    return {column: row[column] for column in COLUMNS if column != "record" and row[column] != ""} | {"texts": texts}


def format_duration_of_image(seconds: float | str) -> str:
    """0.0123 -> 12.3 ms"""
    return "" if seconds == "" else f"{seconds * 1000:.3g} ms" if seconds < 1 else format_duration(seconds)


def again(name: str, row: Row, path: Path) -> str:
    """The command that measures a row again; empty where the row does not say how."""
    table = [] if path in (OWN_RESULTS, RESULTS) else ["--results", str(path)]
    return shlex.join(["zoo", "evaluate", "--row", name, *table]) if row["record"] else ""


# Weights


def key_of(row: Row) -> tuple[Any, ...]:
    """What rows of the same weights have in common."""
    return row["weights"], row["weights_sha256"], row["resolution"]


def weights_of(rows: Iterable[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by their weights, oldest first."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["date"]):
        found.setdefault(key_of(row), []).append(row)
    return found


def folder_of(row: Row) -> Path | None:
    """The folder of a row's weights: bundled, or where the user keeps them; None if they are not there, or have
    changed."""
    for folder in (BUNDLED / Path(row["weights"]).name, Path(row["weights"])):
        if (folder / TENSORS).is_file() and sha256_of(folder / TENSORS) == row["weights_sha256"]:
            return folder
    return None


def image_names(sha256: str) -> dict[str, str]:
    """Files of the images of weights, by kind; named after the weights and how they are drawn."""
    name = hashlib.sha256(f"{sha256} {SEEDS} {VIEWS} {FRAMES}".encode()).hexdigest()[:16]
    return {kind: f"{name}-{kind}.webp" for kind in KINDS}


def to_draw(folder: Path, results: Sequence[Path]) -> dict[Path, dict[str, Path]]:
    """The folders of weights that the page's folder lacks images of, each with the files to write, by kind."""
    rows = {row["weights_sha256"]: row for path in results for row in read(path) if row["system"] != "images"}
    files = {
        sha256: {kind: folder / IMAGES / name for kind, name in image_names(sha256).items()} for sha256 in sorted(rows)
    }
    lacking = {sha256: named for sha256, named in files.items() if not all(path.is_file() for path in named.values())}
    return {found: named for sha256, named in lacking.items() if (found := folder_of(rows[sha256]))}


def weights_data(rows: Sequence[Row], images: set[str]) -> dict[str, Any]:
    """What the page says of weights, of which these are the rows."""
    row, folder = rows[-1], folder_of(rows[-1])
    card, entry = card_of(folder) if folder else {}, released().get(row["weights"])
    names = image_names(row["weights_sha256"]).items() if row["system"] != "images" else ()
    recipe = config_path(row["config"]) if row["config"] else None
    config = folder / "config.yaml" if folder else None
    licence = (entry.weights_licence or NO_LICENCE) if entry else "not stated" if row["config"] else ""
    return {
        "name": Path(row["weights"]).name,
        "source": row["weights"],
        "system": row["system"],
        "licence": card.get("license", licence),
        "data": card.get("data", (entry.data_licence if entry else None) or ""),
        "config": config.read_text(encoding="utf-8") if config and config.is_file() else "",
        "recipe": recipe.read_text(encoding="utf-8") if recipe else "",
        "curve": curve_of(folder / "curve.csv") if folder else [],
        "images": {kind: name for kind, name in names if name in images},
        "costs": costs_of(rows),
    }


def card_of(folder: Path) -> Mapping[str, str]:
    """The facts that a bundle's tensors are saved with."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / TENSORS, "numpy") as opened:
            return opened.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{folder / TENSORS} is damaged or not a safetensors file: {error}.") from None


def curve_of(path: Path) -> list[dict[str, float]]:
    """Rows of a curve that a training has left; none where there is none.

    Raises:
        UserError: it is something else.
    """
    if not path.is_file():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(file)]
    except (TypeError, ValueError, csv.Error):
        raise UserError(
            f"'{printable(path, 120)}' is no curve of a training: delete it, or mend its numbers."
        ) from None


def costs_of(rows: Sequence[Row]) -> dict[str, float]:
    """What the newest rows say of each kind of cost, in the unit of its axis."""
    return {column: row[column] * unit for row in rows for column, (_, unit) in COSTS.items() if row[column] != ""}
