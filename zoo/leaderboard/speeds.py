"""Measured speeds, which ``zoo benchmark --out`` adds to files, and the tables made of them.

benchmarks/<device>.csv has speeds of experiments, benchmarks/views.csv those of many views of one object.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zoo.leaderboard.csv_files import Row, RowsFile
from zoo.leaderboard.table import grid

# Columns and what their values are; all are facts of ``zoo.cli.speed.measure``.
COLUMNS = {
    "machine": str,  # model of the GPU or CPU
    "device": str,  # cpu, cuda:0, ...
    "threads": int,  # of the CPU
    "torch": str,
    "commit": str,
    "date": str,
    "experiment": str,
    "system": str,
    "work": str,
    "precision": str,  # of 2D networks
    "mode": str,
    "resolution": int,
    "batch": int,
    "steps": int,  # that were timed
    "seconds_per_image": float,
    "seconds_per_step": float,
    "images_per_second": float,
    "peak_rss_mib": int,  # of the host
    "peak_gpu_mib": int,
    "gflop": float,  # of all networks, in one image or step
    "matrix_gflops": float,  # the device's rate at this precision
    "matrix_share": float,
    "parameters": int,  # of the generator
}
EMPTY = ("threads", "commit", "seconds_per_image", "seconds_per_step", "peak_rss_mib", "peak_gpu_mib")  # in some rows
CHOICES = {
    "work": ("render", "train"),
    "precision": ("float32", "bf16", "fp16"),
    "mode": ("eager", "compiled"),
}
FILE = RowsFile("benchmark", COLUMNS, tuple(column for column in COLUMNS if column not in EMPTY), CHOICES)
VIEW_COLUMNS = {  # all are facts of ``zoo.cli.views_speed.measure``
    "machine": str,
    "device": str,
    "threads": int,
    "torch": str,
    "commit": str,
    "date": str,
    "weights": str,
    "resolution": int,
    "views": int,  # of each object
    "steps": int,  # objects that were timed
    "plain_seconds_per_view": float,
    "seconds_per_view": float,  # without empty space
    "speedup": float,
    "occupied_share": float,  # of the samples
    "reciprocal_of_share": float,
    "speedup_of_reciprocal": float,
    "psnr": float,  # of views without empty space against plain ones [dB]
}
VIEWS = RowsFile("views benchmark", VIEW_COLUMNS, tuple(column for column in VIEW_COLUMNS if column != "commit"))
# Rows alike in these are measurements of the same thing, of which the newest is shown.
ALIKE = ("experiment", "work", "resolution", "batch", "precision", "mode", "machine", "device", "threads")
VIEWS_ALIKE = ("weights", "resolution", "views", "machine", "device", "threads")


def append_row(facts: Mapping[str, Any], path: Path | str, file: RowsFile = FILE) -> Row:
    """Add what was measured to a file: all of it, or nothing.

    Args:
        facts: at least the columns; what else there is of them is left out.
        file: what it holds, ``FILE`` or ``VIEWS``.

    Raises:
        UserError: a column is missing, or the file is of another kind; it is left as it was.
    """
    row = file.check_row({column: facts.get(column) for column in file.columns})
    file.append([row], path)
    return row


def tables(folder: Path | str) -> dict[str, str]:
    """The tables of the CSV files in a folder, as Markdown, by the names of their places on the page.

    Raises:
        UserError: a file is of another kind; names the line and what is wrong with it.
    """
    views = Path(folder, "views.csv")
    paths = [path for path in sorted(Path(folder).glob("*.csv")) if path != views]
    rows = [row for path in paths for row in FILE.read(path)]
    return {"speeds": table(rows), "many-views": views_table(VIEWS.read(views))}


def views_table(rows: Iterable[Row]) -> str:
    """The newest measurements of many views of one object, as Markdown."""
    newest = {tuple(row[column] for column in VIEWS_ALIKE): row for row in sorted(rows, key=lambda row: row["date"])}
    lines = [
        {
            "weights": row["weights"],
            "views": f"{row['views']} of {row['resolution']}x{row['resolution']}",
            "plain": f"{row['plain_seconds_per_view']:.3g} s a view",
            "without empty space": f"{row['seconds_per_view']:.3g} s a view",
            "speedup": f"{row['speedup']:.3g}",
            "reciprocal of the occupied share": f"{row['reciprocal_of_share']:.3g}",
            "share of it": f"{row['speedup_of_reciprocal']:.2g}",
            "PSNR": f"{row['psnr']:.0f} dB",
            "machine": row["machine"],
            "threads": str(row["threads"]),
            "torch": row["torch"],
            "commit": row["commit"],
            "measured": row["date"][:10],
        }
        for _, row in sorted(newest.items(), key=lambda item: str(item[0]))
    ]
    return grid(lines, markdown=True) if lines else "No speeds yet: `--out benchmarks/views.csv` adds them."


def table(rows: Iterable[Row]) -> str:
    """The newest measurements as Markdown, those of one machine under the other."""
    newest = {tuple(row[column] for column in ALIKE): row for row in sorted(rows, key=lambda row: row["date"])}
    sections = []
    for machine in sorted({row["machine"] for row in newest.values()}):
        own = [row for _, row in sorted(newest.items(), key=lambda item: str(item[0])) if row["machine"] == machine]
        sections.append(f"**{machine}**\n\n{grid([cells(row) for row in own], markdown=True)}")
    return "\n\n".join(sections) or "No speeds yet: `zoo benchmark --out benchmarks/<device>.csv` adds them."


def cells(row: Row) -> dict[str, str]:
    """What the table shows of a row."""
    rendering = row["work"] == "render"
    seconds = row["seconds_per_image"] if rendering else row["seconds_per_step"]
    return {
        "experiment": row["experiment"],
        "work": row["work"],
        "resolution": str(row["resolution"]),
        "batch": str(row["batch"]),
        "precision": row["precision"] + (", compiled" if row["mode"] == "compiled" else ""),
        "seconds": f"{seconds:.3g} {'an image' if rendering else 'a step'}",
        "images/s": f"{row['images_per_second']:.3g}",
        "MiB": "" if row["peak_rss_mib"] == "" else f"{row['peak_rss_mib']:,}",
        "GPU MiB": "" if row["peak_gpu_mib"] == "" else f"{row['peak_gpu_mib']:,}",
        "matrix rate": f"{row['matrix_share']:.0%} of {row['matrix_gflops'] / 1000:.3g} TFLOP/s",
        "threads": str(row["threads"]),
        "torch": row["torch"],
        "commit": row["commit"],
        "measured": row["date"][:10],
    }
