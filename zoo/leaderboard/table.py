"""The leaderboard: rows of results.csv, checked, grouped and ranked. They are the only source of numbers.

Only rows measured alike are ranked together: same metric name, resolution, real images, extractor, condition and
cameras. Published numbers (published.csv) were measured by other protocols and have a table of their own.
"""

import csv
import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from zoo.leaderboard.csv_files import Row, RowsFile
from zoo.leaderboard.migrate import OLD_COLUMNS, migrated
from zoo.utils.errors import UserError, near, printable
from zoo.utils.ranges import at_least

RESULTS = Path(__file__).with_name("results.csv")
PUBLISHED = Path(__file__).with_name("published.csv")
OWN_RESULTS = Path("runs/results.csv")  # there are none before a first 'zoo evaluate'

# Columns and what their values are.
COLUMNS = {
    "system": str,
    "config": str,
    "weights": str,
    "weights_sha256": str,
    "dataset": str,
    "dataset_digest": str,
    "resolution": int,
    "metric": str,
    "value": float,
    "standard_error": float,
    "better": str,
    "condition": str,  # own, fixed, or none where the generator has none
    "cameras": str,  # prior, dataset or uniform
    "n_real": int,
    "n_fake": int,  # images, or objects
    "truncation": float,
    "draws": str,
    "seed": int,
    "extractor_sha256": str,
    "precision": str,
    "images_seen": int,
    "seconds": float,  # of training, scores on the way included
    "processor_seconds": float,  # of training steps alone, where they were counted
    "parameters": int,  # of the generator
    "seconds_per_image": float,
    "processor_seconds_per_image": float,
    "peak_memory_mib": int,
    "hardware": str,
    "commit": str,
    "date": str,
    "record": str,  # what else is needed to measure it again, as JSON
}
REQUIRED = [
    "system",
    "weights",
    "weights_sha256",
    "dataset",
    "resolution",
    "metric",
    "value",
    "better",
    "condition",
    "n_fake",
    "hardware",
    "date",
]
COMPARED = ["dataset_digest", "n_real", "extractor_sha256"]  # of metrics that compare with real images
CHOICES = {"better": ("less", "more"), "condition": ("own", "fixed", "none")}
ADDED = ("processor_seconds",)  # columns that files of a while ago lack
FILE = RowsFile("result", COLUMNS, choices=CHOICES, earlier=(OLD_COLUMNS, migrated), added=ADDED)
GROUP = ("dataset", "resolution", "metric", "n_real", "dataset_digest", "extractor_sha256", "cameras")
MEASURED = ("system", "weights", "weights_sha256", "condition", "n_fake", "truncation", "draws", "seed")
# What is shown where nothing is asked for: one number a question; of FID, that of the most images.
HEADLINES = [
    "fid",
    "kid",
    "fid_inf",
    "precision",
    "recall",
    "density",
    "coverage",
    "psnr",
    "plane_ratio",
    "depth_conflict",
    "surface",
    "fit_psnr",
    "camera_error_deg",
    "camera_error_aligned_deg",
    "camera_floor_deg",
]
STANDARD_ERRORS = 2  # a difference within so many is a tie


def check_row(row: Mapping[str, Any]) -> Row:
    """The row with every column, in order, each of its type.

    Raises:
        UserError: a column that is missing; and as ``check_values``.
    """
    checked = check_values(row)
    needed = REQUIRED if is_of_objects(str(checked.get("metric", ""))) else [*REQUIRED, *COMPARED]
    for column in needed:
        if checked.get(column, "") == "":
            raise UserError(f"A result of '{checked.get('metric', '')}' needs a value for '{column}'.")
    return {column: checked.get(column, "") for column in COLUMNS}


def is_of_objects(metric: str) -> bool:
    """Whether a metric of this name is of single objects, such as psnr-64objects-32views: no real images are needed."""
    return re.fullmatch(r"\w+-\d+objects(-\d+views)?", metric) is not None


def row_id(row: Row) -> str:
    """A short name of a row, which follows from what it says; columns that are empty do not count."""
    said = "\n".join(f"{column}={row[column]!r}" for column in sorted(COLUMNS) if row[column] != "")
    return hashlib.sha256(said.encode()).hexdigest()[:8]


def check_values(values: Mapping[str, Any]) -> Row:
    """``RowsFile.check_values`` of results."""
    return FILE.check_values(values)


def read(path: Path | str) -> list[Row]:
    """All rows of a results file, also of an earlier version; none where there is no file.

    Raises:
        UserError: the file is not a results file; names the line and what is wrong with it.
    """
    return FILE.read(path, check_row)


def append_row(row: Mapping[str, Any], path: Path | str) -> Row:
    """``append_rows`` of one."""
    return append_rows([row], path)[0]


def append_rows(rows: Iterable[Mapping[str, Any]], path: Path | str) -> list[Row]:
    """Check rows and add them to a results file: all of them, or nothing.

    Raises:
        UserError: as ``check_row`` and ``read``, or a row does not say how to measure it again; the file is left as it
            was.
    """
    checked = [check_row(row) for row in rows]
    if not all(row["record"] for row in checked):
        raise UserError("A result needs a value for 'record', without which it could not be measured again.")
    FILE.append(checked, path, check_row)
    return checked


def is_better(a: Row, b: Row) -> bool:
    """Whether a row is better than another one measured alike, by more than what the samples may make of it.

    Where a standard error is missing, those that print the same are equal.
    """
    ahead = (b["value"] - a["value"]) * (1 if a["better"] == "less" else -1)
    if "" in (a["standard_error"], b["standard_error"]):
        return ahead > 0 and format_value(a) != format_value(b)
    return ahead > STANDARD_ERRORS * math.hypot(a["standard_error"], b["standard_error"])


def rank_rows(rows: Iterable[Row]) -> list[tuple[int, Row]]:
    """(rank, row) of rows that were measured alike, best first; the rank counts those that are better."""
    ordered = sorted(rows, key=lambda row: row["value"] * (1 if row["better"] == "less" else -1))
    return [(1 + sum(is_better(other, row) for other in ordered), row) for row in ordered]


def groups(rows: Iterable[Row]) -> list[tuple[str, list[tuple[int, Row]]]]:
    """Title and ranked rows of each set of rows that were measured alike; of what was measured twice, the later row.

    Generators without a condition stand beside those with their own one and beside those with the fixed one.
    """
    latest = {(group_of(row), *(row[c] for c in MEASURED)): row for row in sorted(rows, key=lambda row: row["date"])}
    by = sorted(latest.values(), key=lambda row: (row["dataset"], row["resolution"], place_of(row), group_of(row)))
    result = []
    for key, alike in groupby(by, key=group_of):
        members = [*alike]
        conditions = sorted({row["condition"] for row in members} - {"none"}, reverse=True)  # own before fixed
        for condition in conditions or ["none"]:
            chosen = [row for row in members if row["condition"] in (condition, "none")]
            result.append((title_of(key, chosen[0]["better"], condition), rank_rows(chosen)))
    return result


def headlines(rows: Iterable[Row]) -> list[Row]:
    """Those of the rows that are shown where nothing is asked for: of what differs in the number of generated images
    alone, that of the most."""

    def kind(row: Row) -> tuple[Any, ...]:
        columns = [column for column in (*GROUP, *MEASURED) if column not in ("metric", "n_fake")]
        return (number_of(row), *(row[column] for column in columns))

    by = sorted((row for row in rows if number_of(row) in HEADLINES), key=lambda row: row["n_fake"])
    most = {kind(row): row["n_fake"] for row in by}
    return [row for row in by if row["n_fake"] == most[kind(row)]]


def number_of(row: Row) -> str:
    """What the name of a metric begins with."""
    return str(row["metric"]).partition("-")[0]


def place_of(row: Row) -> tuple[bool, int]:
    """Where a metric stands: those of sets of images before those of single objects, the ``HEADLINES`` first."""
    name = number_of(row)
    return is_of_objects(row["metric"]), HEADLINES.index(name) if name in HEADLINES else len(HEADLINES)


def group_of(row: Row) -> tuple[Any, ...]:
    """What rows that are ranked together have in common; images that were not rendered stand beside the prior's."""
    return tuple(row[column] if column != "cameras" else row[column] or "prior" for column in GROUP)


def title_of(key: tuple[Any, ...], better: str, condition: str) -> str:
    """How a table is called."""
    dataset, resolution, metric, n_real, digest, extractor, cameras = key
    known = [f"{n_real:,} real images, data {digest[:8]}, extractor {extractor[:8]}"] if n_real != "" else []
    known += [f"{cameras} cameras"] if cameras != "prior" and n_real != "" else []
    known += [f"condition {condition}"] if condition != "none" else []
    end = f" ({', '.join(known)})" if known else ""
    return f"{dataset} {resolution}x{resolution}: {metric}, {better} is better{end}"


def format_value(row: Row) -> str:
    return f"{row['value']:#.4g}".rstrip(".")


def format_number(value: float | str, form: str) -> str:
    """A number of a row in Python's format; empty where the row has none."""
    return "" if value == "" else format(value, form)


def format_duration(seconds: float | str) -> str:
    """90 -> 1.5 min"""
    if seconds == "":
        return ""
    for limit, unit, size in ((100, "s", 1), (6000, "min", 60), (48 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:.3g} days"


def cells(rank: int, row: Row) -> dict[str, str]:
    """What a table shows of a row."""
    error = format_number(row["standard_error"], ".2g")
    return {
        "#": str(rank),
        "system": row["system"],
        heading(row): format_value(row) + (error and f" ± {error}"),
        "images seen": format_number(row["images_seen"], ","),
        "training": format_duration(row["seconds"]),
        "processor time": format_duration(row["processor_seconds"]),
        "truncation": f"{row['truncation']:g}" if row["truncation"] not in ("", 1.0) else "",
        "config": Path(row["config"]).stem,
        "weights": f"{Path(row['weights']).name} {row['weights_sha256'][:8]}",
        "measured": row["date"][:10],
        "row": row_id(row),
    }


def heading(row: Row) -> str:
    """What the column of values is called."""
    name = number_of(row)
    return name.upper() if name in ("fid", "kid") else name


RIGHT = {"#", "FID", "KID", "images seen", "training", "processor time", "truncation", "resolution", "parameters"}
RIGHT |= {"training images/s", "ms/image", "processor ms/image", "MiB", "GPU MiB", "batch", "seconds", "images/s"}
RIGHT |= {"matrix rate", "threads"}


def grid(lines: Sequence[Mapping[str, str]], markdown: bool) -> str:
    """Lines with equal keys as a table; columns that are empty throughout are left out."""
    heads = [head for head in lines[0] if any(line[head] for line in lines)]
    widths = {head: max(2, len(head), *(len(line[head]) for line in lines)) for head in heads}

    def row(texts: Mapping[str, str]) -> str:
        padded = [texts[h].rjust(widths[h]) if h in RIGHT else texts[h].ljust(widths[h]) for h in heads]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    def rule(head: str) -> str:
        return "-" * (widths[head] - 1) + ":" if markdown and head in RIGHT else "-" * widths[head]

    body = [line if not markdown else {h: t.replace("|", "\\|") for h, t in line.items()} for line in lines]
    return "\n".join([row({h: h for h in heads}), row({h: rule(h) for h in heads}), *map(row, body)])


def table(rows: Iterable[Row], *, markdown: bool = False, top: int = 20) -> str:
    """All groups, one under the other, for a terminal or as Markdown; the best ``top`` rows of each."""
    sections = []
    for title, members in groups(rows):
        text = grid([cells(rank, row) for rank, row in members[:top]], markdown)
        rest = f"\n{'' if not markdown else chr(10)}... and {len(members) - top} more" if len(members) > top else ""
        sections.append(f"**{title}**\n\n{text}{rest}" if markdown else f"{title}\n{text}{rest}")
    return "\n\n".join(sections) or "No results yet: `zoo evaluate` adds them."


def costs(rows: Iterable[Row], *, markdown: bool = False) -> str:
    """What training and images of each of the weights have cost, as their newest rows say; empty without such rows."""
    measured = [row for row in rows if row["seconds_per_image"] != ""]
    newest = {
        (row["system"], row["weights"], row["resolution"]): row for row in sorted(measured, key=lambda r: r["date"])
    }
    lines = [
        {
            "system": row["system"],
            "weights": Path(row["weights"]).name,
            "resolution": str(row["resolution"]),
            "parameters": format_number(row["parameters"], ","),
            "training images/s": f"{row['images_seen'] / row['seconds']:.3g}"
            if row["seconds"] and row["images_seen"]
            else "",
            "ms/image": f"{row['seconds_per_image'] * 1000:.3g}",
            "processor ms/image": f"{row['processor_seconds_per_image'] * 1000:.3g}",
            "MiB": format_number(row["peak_memory_mib"], ","),
            "hardware": row["hardware"],
        }
        for _, row in sorted(newest.items())
    ]
    head = "What they cost: time of images rendered in batches, and the most memory that the process had."
    return f"{head}\n{chr(10) if markdown else ''}{grid(lines, markdown)}" if lines else ""


def published(*, markdown: bool = False) -> str:
    """Numbers that papers report, each by its own protocol; for orientation only, never ranked against ours."""
    with open(PUBLISHED, newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    head = "Published numbers. Protocols differ: compare only within one source."
    return f"{head}\n{chr(10) if markdown else ''}{grid(lines, markdown)}"


def show(
    results: Sequence[Path | str] = (OWN_RESULTS, RESULTS),
    *,
    dataset: str | None = None,
    metric: str | None = None,
    resolution: int | None = None,
    condition: Literal["own", "fixed"] | None = None,
    markdown: bool = False,
    with_published: bool = False,
    top: int = 20,
) -> str:
    """The leaderboard as text.

    Args:
        results: results files; those that do not exist count as empty, and a row in two of them counts once.
        dataset: only this one.
        metric: only metrics whose names begin so, such as fid or kid-cars; by default one a question, and costs.
        resolution: only images of this side.
        condition: of generators that have one, only rows with it; those without a condition stand beside them.
        markdown: as Markdown, else for a terminal.
        with_published: add the numbers of the papers, in a table of their own.
        top: rows of each table.

    Raises:
        UserError: there are results, but none of this dataset or metric; and as ``read``.
    """
    at_least(1, top=top)
    rows = [row for path in results for row in read(path)]
    filters = {"dataset": dataset, "metric": metric, "resolution": resolution, "condition": condition}
    for column, wanted in filters.items():
        known = sorted({row[column] for row in rows})
        rows = [row for row in rows if wanted is None or is_wanted(row[column], wanted, column)]
        if known and not rows:
            names = [*map(str, known)]
            short = [name.split("-")[0] for name in names] if column == "metric" else []
            names = near(str(wanted), [*short, *names]) or f" There are: {printable(', '.join(names), 150)}."
            raise UserError(f"There are no results of the {column} '{printable(wanted, 60)}'.{names}")
    shown = headlines(rows) if metric is None else rows
    spent = costs(shown, markdown=markdown) if metric is None else ""
    text = "\n\n".join(filter(None, [table(shown, markdown=markdown, top=top), spent]))
    others = sorted({number_of(row) for row in rows} - {number_of(row) for row in shown})
    if others:
        text += f"\n\nNot shown: {', '.join(others)}; 'zoo leaderboard --metric NAME' does."
    return f"{text}\n\n{published(markdown=markdown)}" if with_published else text


def is_wanted(value: Any, wanted: Any, column: str) -> bool:
    """Whether it is the dataset, resolution or condition, or no condition at all, or a metric whose name begins so."""
    if column == "metric":
        return value.startswith(wanted)
    return value == wanted or (column == "condition" and value == "none")
