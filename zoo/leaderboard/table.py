"""The leaderboard: rows of results.csv, checked, grouped and ranked. They are the only source of numbers.

Only rows measured alike are ranked together: same metric name, resolution, real images and extractor. Published
numbers (published.csv) were measured by other protocols and have a table of their own.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from zoo.utils.errors import UserError
from zoo.utils.files import locked, replacing

RESULTS = Path(__file__).with_name("results.csv")
PUBLISHED = Path(__file__).with_name("published.csv")

# Columns and what their values are; only those of OPTIONAL may be empty.
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
    "n_real": int,
    "n_fake": int,
    "truncation": float,
    "draws": str,
    "seed": int,
    "extractor_sha256": str,
    "precision": str,
    "images_seen": int,
    "seconds": float,
    "hardware": str,
    "commit": str,
    "date": str,
}
OPTIONAL = {"config", "truncation", "draws", "seed", "precision", "images_seen", "seconds", "commit"}
GROUP = ("dataset", "resolution", "metric", "n_real", "dataset_digest", "extractor_sha256")

Row = dict[str, Any]


def check_row(row: Mapping[str, Any]) -> Row:
    """The row with every column, in order, each of its type.

    Raises:
        UserError: a column that is missing, unknown, or not of its type; a value that is not finite.
    """
    if unknown := set(row) - set(COLUMNS):
        raise ValueError(f"Unknown columns {sorted(unknown)}; a result has {', '.join(COLUMNS)}.")
    checked = {}
    for column, kind in COLUMNS.items():
        value = row.get(column, "")
        if value is None or value == "":
            if column not in OPTIONAL:
                raise ValueError(f"A result needs a value for '{column}'.")
            checked[column] = ""
            continue
        try:
            checked[column] = kind(value)
            if kind is int and float(value) != checked[column]:
                raise ValueError
        except (TypeError, ValueError):
            raise ValueError(f"'{column}' of a result must be {kind.__name__}, not {value!r}.") from None
        if kind is str and any(c in checked[column] for c in "\r\n"):
            raise ValueError(f"'{column}' of a result must be one line, not {value!r}.")
        if kind is float and not math.isfinite(checked[column]):
            raise ValueError(f"'{column}' of a result must be finite, not {value!r}.")
    return checked


def read(path: Path | str) -> list[Row]:
    """All rows of a results file; none where there is no file.

    Raises:
        UserError: the file is not a results file; names the line.
    """
    path = Path(path)
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader, None)
        if header is None:
            return []
        if header != list(COLUMNS):
            raise UserError(f"{path} is not a results file: its first line should be {','.join(COLUMNS)}.")
        rows = []
        for cells in reader:
            try:
                rows.append(check_row(dict(zip(COLUMNS, cells, strict=True))))
            except ValueError as error:
                raise UserError(f"{path}, line {reader.line_num}: {error}") from None
        return rows


def append_row(row: Mapping[str, Any], path: Path | str) -> Row:
    """Check a row and add it to a results file: all of it, or nothing.

    Raises:
        UserError: as ``check_row`` and ``read``; the file is left as it was.
    """
    path, row = Path(path), check_row(row)
    # Two runs that end together both get their row.
    with locked(path.with_name(f".{path.name}.lock"), f"Waiting for another process that adds a row to {path}."):
        rows = [*read(path), row]
        with replacing(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(COLUMNS), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return row


def rank_rows(rows: Iterable[Row]) -> list[tuple[int, Row]]:
    """(rank, row) of rows that were measured alike, best first; those that print the same share a rank."""
    result: list[tuple[int, Row]] = []
    for place, row in enumerate(sorted(rows, key=lambda row: row["value"]), start=1):  # FID and KID: less is better
        tie = result and format_value(result[-1][1]) == format_value(row)
        result.append((result[-1][0] if tie else place, row))
    return result


def groups(rows: Iterable[Row]) -> list[tuple[str, list[tuple[int, Row]]]]:
    """Title and ranked rows of each set of rows that were measured alike; a row that is there twice counts once."""
    unique = {tuple(row.values()): row for row in rows}.values()
    by = sorted(unique, key=lambda row: tuple(row[column] for column in GROUP))
    result = []
    for key, members in groupby(by, key=lambda row: tuple(row[column] for column in GROUP)):
        dataset, resolution, metric, n_real, digest, extractor = key
        title = (
            f"{dataset} {resolution}x{resolution}: {metric}, less is better "
            f"({n_real:,} real images, data {digest[:8]}, extractor {extractor[:8]})"
        )
        result.append((title, rank_rows(members)))
    return result


def format_value(row: Row) -> str:
    return f"{row['value']:#.4g}".rstrip(".")


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
    return {
        "#": str(rank),
        "system": row["system"],
        row["metric"].split("-")[0].upper(): format_value(row),
        "images seen": f"{row['images_seen']:,}" if row["images_seen"] != "" else "",
        "training": format_duration(row["seconds"]),
        "truncation": f"{row['truncation']:g}" if row["truncation"] not in ("", 1.0) else "",
        "config": Path(row["config"]).stem,
        "weights": f"{Path(row['weights']).name} {row['weights_sha256'][:8]}",
        "measured": row["date"][:10],
    }


RIGHT = {"#", "FID", "KID", "images seen", "training", "truncation", "resolution"}


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


def published(*, markdown: bool = False) -> str:
    """Numbers that papers report, each by its own protocol; for orientation only, never ranked against ours."""
    with open(PUBLISHED, newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    head = "Published numbers. Protocols differ: compare only within one source."
    return f"{head}\n{chr(10) if markdown else ''}{grid(lines, markdown)}"


def show(
    results: Sequence[Path | str] = ("runs/results.csv", RESULTS),
    *,
    dataset: str | None = None,
    metric: str | None = None,
    markdown: bool = False,
    with_published: bool = False,
    top: int = 20,
) -> str:
    """The leaderboard as text.

    Args:
        results: results files; those that do not exist count as empty, and a row in two of them counts once.
        dataset: only this one.
        metric: only metrics whose names begin so, such as fid or kid-cars.
        markdown: as Markdown, else for a terminal.
        with_published: add the numbers of the papers, in a table of their own.
        top: rows of each table.
    """
    rows = [row for path in results for row in read(path)]
    rows = [row for row in rows if dataset in (None, row["dataset"]) and row["metric"].startswith(metric or "")]
    text = table(rows, markdown=markdown, top=top)
    return f"{text}\n\n{published(markdown=markdown)}" if with_published else text
