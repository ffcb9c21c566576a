"""What ``zoo compare`` says: its plan, curves, and the report of what was measured."""

import csv
import shlex
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

from zoo.cli.comparison import Protocol, Run
from zoo.cli.comparison_runs import BUDGET, NEEDED, SYSTEMS, lacking, noted, rows_of
from zoo.export.plots import save_plot
from zoo.leaderboard import read
from zoo.leaderboard.spread import averaged, spread_texts
from zoo.leaderboard.table import (
    Row,
    format_duration,
    format_number,
    format_value,
    grid,
    group_of,
    headlines,
    number_of,
    place_of,
)
from zoo.utils.files import replacing

PICTURES = {"grid.png": "samples", "mesh.png": "meshes", "curve.svg": "curve", "orbit.gif": "orbit"}
Commands = Mapping[str, list[str]]

# Plan


def plan_of(protocol: Protocol, out: Path, results: Path, jobs: int) -> str:
    """What would be run, about how long that takes, and the commands."""
    runs = protocol.runs()
    todo = {run: lacking(protocol, run, out / run.name, results) for run in runs}
    past = {run: noted(out / run.name) for run in runs}
    lines, texts, known, unknown = [], [], 0.0, set()
    for run, needed in todo.items():
        share = spent(protocol, out / run.name) if "training" in needed else 0.0
        seconds = {made: expected(made, run, past, protocol) for made in needed}
        seconds |= {"training": seconds["training"] * (1 - share)} if "training" in needed else {}
        unknown |= {made for made, value in seconds.items() if value is None}
        time = sum(value for value in seconds.values() if value)
        known += time
        words = [f"{made} from {share:.0%} on" if made == "training" and share else made for made in needed]
        left = ", ".join(words) or "nothing: its rows are there"
        lines.append({"run": run.name, "to do": left, "about": format_duration(time) if time else ""})
        texts += [shlex.join(["zoo", *words]) for words in needed.values()]
    end = (
        f"In all about {format_duration(known / jobs)}, {jobs} at once, if {'each has' if jobs > 1 else 'it has'} a CPU"
    )
    end += f"; not measured yet, and not in it: {', '.join(sorted(unknown))}." if unknown else "."
    return "\n\n".join(["\n".join(texts), grid(lines, markdown=False), end] if texts else [grid(lines, markdown=False)])


def expected(made: str, run: Run, past: Mapping[Run, list[dict[str, str]]], protocol: Protocol) -> float | None:
    """Seconds that a command took of the same system, or else of others; of a training that nobody has run, its budget;
    None where nothing is known."""
    for others in ([one for one in past if one.system == run.system], [*past]):
        took = [
            sum(float(row["seconds"]) for row in past[one] if row["made"] == made)
            for one in others
            if any(row["made"] == made and row["code"] == "0" for row in past[one])
        ]
        if took:
            return mean(took)
    return protocol.limit if made == "training" else None


def spent(protocol: Protocol, folder: Path) -> float:
    """The share of its budget that a training has used until its last checkpoint."""
    last = folder / "training" / "checkpoints" / "last.ckpt"
    if not last.is_file():
        return 0.0
    from zoo.training.checkpoint_files import read_checkpoint

    states = read_checkpoint(last).get("callbacks") or {}
    return min(1.0, states.get(BUDGET.rpartition(".")[2], {}).get(protocol.clock, 0.0) / protocol.limit)


# Curves


def read_curve(folder: Path) -> list[dict[str, float]]:
    """Rows of a run's curve; none where there is no curve."""
    if not (folder / "curve.csv").is_file():
        return []
    with open(folder / "curve.csv", newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def draw_curve(protocol: Protocol, folder: Path) -> None:
    """Plot FID and losses of a run over what it has used of its budget."""
    rows = read_curve(folder)
    names = [name for name in (rows[-1] if rows else {}) if name.startswith(("fid", "loss"))]
    lines = {name: minutes(protocol, rows, name) for name in names}
    save_plot(folder / "curve.svg", lines, across(protocol), "")


def across(protocol: Protocol) -> str:
    """The title of an axis."""
    return f"{protocol.clock.replace('_seconds', '')} minutes of training"


def minutes(protocol: Protocol, rows: Sequence[Mapping[str, float]], name: str) -> list[tuple[float, float]]:
    """A column of a curve over minutes of the budget's clock."""
    return [(row[protocol.clock] / 60, row[name]) for row in rows if name in row]


# Report


def write_report(protocol: Protocol, out: Path, results: Path) -> Path:
    """Write README.md, report.csv and curves.svg into the folder of a comparison, of what is there."""
    runs = protocol.runs()
    of = {run.name: run for run in runs}
    rows = [row for row in read(results) if row["weights"] in of]
    write_spread(out / "report.csv", tables(rows, of))
    parts = [
        f"# {protocol.file.stem[:1].upper()}{protocol.file.stem[1:]}",
        said_of(protocol),
        *overview(out),
        "## Scores",
        scores(tables(headlines(rows), of)),
        "## Runs",
    ]
    parts.append(grid([line_of(run, out, results) for run in runs], markdown=True))
    read_curves = {run.name: rows for run in runs if (rows := read_curve(out / run.name))}
    if curves := {name: minutes(protocol, rows, fid) for name, rows in read_curves.items() if (fid := fid_in(rows))}:
        save_plot(out / "curves.svg", curves, across(protocol), "FID during training")
        parts += [f"![FID over {across(protocol)}](curves.svg)"]
    parts += ["## Samples", *[shown for run in runs if (shown := pictures(run, out))]]
    left = [
        line for run in runs for line in left_out(run, out / run.name, lacking(protocol, run, out / run.name, results))
    ]
    parts += ["## Skipped or failed", "\n".join(left) or "Nothing."]
    parts += ["## Commands", *[f"```bash\n{text}\n```" for run in runs if (text := ran(out / run.name))]]
    with replacing(out / "README.md") as part:
        part.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return out / "README.md"


def said_of(protocol: Protocol) -> str:
    """What all runs have in common."""
    data = ", ".join(f"{name} {value}" for name, value in (protocol.data.get("init_args") or {}).items())
    budget = f"{protocol.limit:,g} {protocol.clock.replace('_', ' ')}"
    return (
        f"Every system was trained for {budget} of training steps, scores and images apart, on "
        f"{protocol.data['class_path']} ({data}) and {protocol.device}. Scores: `{protocol.metrics}`, of "
        f"{protocol.count:,} images and {protocol.objects} objects; of several seeds the mean, the smallest and the "
        f"largest value. `zoo compare {protocol.file}` made this page."
    )


def overview(out: Path) -> list[str]:
    """The systems side by side, and the command that drew them."""
    made = {row["made"]: row["command"] for row in noted(out) if row["code"] == "0"}
    if SYSTEMS not in made or not (out / SYSTEMS).is_file():
        return []
    return [f"![A sample of each system from four sides, with its depth]({SYSTEMS})", f"```bash\n{made[SYSTEMS]}\n```"]


Table = tuple[tuple[Any, ...], dict[str, list[Row]]]  # what its rows were measured alike in, and rows by system


def tables(rows: Sequence[Row], of: Mapping[str, Run]) -> list[Table]:
    """Rows of each metric, by system and condition; of what was measured twice, the later row."""
    latest = {(group_of(row), row["weights"], row["condition"]): row for row in sorted(rows, key=lambda r: r["date"])}

    def label(row: Row) -> str:
        return of[row["weights"]].system + (f", {row['condition']}" if row["condition"] != "none" else "")

    by = sorted(latest.values(), key=lambda row: (place_of(row), group_of(row)))
    found = []
    for key, alike in groupby(by, key=group_of):
        systems: dict[str, list[Row]] = {}
        for row in alike:
            systems.setdefault(label(row), []).append(row)
        found.append((key, systems))
    return found


def scores(found: Sequence[Table]) -> str:
    """A line for each metric, a column for each system: mean over seeds, smallest, largest; the best are bold."""
    names = list(dict.fromkeys(name for _, systems in found for name in systems))
    lines = []
    for _, systems in found:
        (first, *_), *_ = systems.values()
        about = {"metric": first["metric"], "better": first["better"]}
        lines.append(about | dict.fromkeys(names, "") | spread_texts(systems))
    return grid(lines, markdown=True) if lines else "Nothing was scored yet."


def write_spread(path: Path, found: Sequence[Table]) -> None:
    """All metrics, a line for each system."""
    columns = ("metric", "better", "system", "seeds", "mean", "smallest", "largest", "standard_error")
    with replacing(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for _, systems in found:
            for name, rows in systems.items():
                row, values = averaged(rows), [one["value"] for one in rows]
                facts = (row["value"], min(values), max(values), row["standard_error"])
                writer.writerow((row["metric"], row["better"], name, len(rows), *facts))


def line_of(run: Run, out: Path, results: Path) -> dict[str, str]:
    """What a run is, scored and cost."""
    rows, curve = rows_of(run, results), read_curve(out / run.name)
    score = next((row for row in headlines(rows) if number_of(row) == "fid"), None)
    row = rows[-1] if rows else dict.fromkeys(("images_seen", "seconds", "processor_seconds", "parameters"), "")
    counted = {"processor_seconds_per_image": "", "peak_memory_mib": "", "hardware": ""} | row
    per_image = counted["processor_seconds_per_image"]
    return {
        "system": run.system,
        "seed": str(run.seed),
        "recipe": ", ".join(run.recipe),
        "FID": format_value(score) if score else "",
        "iterations": f"{curve[-1]['iteration']:,.0f}" if curve else "",
        "images seen": format_number(row["images_seen"], ","),
        "processor time": format_duration(row["processor_seconds"]),
        "training": format_duration(row["seconds"]),
        "parameters": format_number(row["parameters"], ","),
        "processor ms/image": f"{per_image * 1000:.3g}" if per_image != "" else "",
        "MiB": format_number(counted["peak_memory_mib"], ","),
        "hardware": counted["hardware"],
    }


def fid_in(rows: Sequence[Mapping[str, float]]) -> str | None:
    """The column of a curve that has the FID."""
    return next((name for name in rows[-1] if name.startswith("fid")), None)


def pictures(run: Run, out: Path) -> str:
    """Those of a run that there are."""
    there = [
        f"![{run.name}: {title}]({run.name}/{name})"
        for name, title in PICTURES.items()
        if (out / run.name / name).is_file()
    ]
    return "\n".join([f"### {run.name}\n", *there]) if there else ""


def left_out(run: Run, folder: Path, needed: Commands) -> list[str]:
    """A line for each command of a run that failed or was not run."""
    last = {row["made"]: row for row in noted(folder)}
    waits = any(made in needed for made in NEEDED)
    lines = []
    for made, words in needed.items():
        if waits and made not in NEEDED:
            continue  # what is drawn and scored needs weights
        why = last[made]["said"] or f"exit code {last[made]['code']}" if made in last else "not run yet"
        lines.append(f"- {run.name}: {made}: {why} `{shlex.join(['zoo', *words])}`")
    return lines[:1] if waits else lines


def ran(folder: Path) -> str:
    """The commands that made what is there of a run, each once."""
    worked = {row["made"]: row["command"] for row in noted(folder) if row["code"] == "0"}
    return "\n".join(worked.values())
