"""The runs of ``zoo compare``: the commands that make them, what they still lack, and what was run."""

import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zoo.cli.comparison import Protocol, Run, merged
from zoo.leaderboard import read
from zoo.utils.errors import UserError
from zoo.utils.files import replacing
from zoo.weights.fetch import sha256_of
from zoo.weights.store import TENSORS

CURVE, BUDGET = "callbacks.curve.Curve", "callbacks.budget.Budget"
NOTES = "commands.csv"  # in the folder of a run: what was run for it
SYSTEMS = "systems.png"  # in the folder of a comparison
COLUMNS = ("made", "seconds", "code", "said", "date", "command")
NEEDED = ("training", "weights")  # without which there is nothing to draw or score


def commands(protocol: Protocol, run: Run, folder: Path, results: Path) -> dict[str, list[str]]:
    """The commands that make all of a run, without ``zoo``, by what they make.

    Args:
        folder: of the run; the training itself is in a folder of that.
        results: table that its scores are added to.
    """
    training, weights = folder / "training", str(folder)
    config = merged(run.recipe)
    callbacks = (config.get("trainer") or {}).get("callbacks") or []
    has_curve = any(CURVE in (one, isinstance(one, dict) and one.get("class_path")) for one in callbacks)
    last = training / "checkpoints" / "last.ckpt"
    fit = ["fit", *(word for name in run.recipe for word in ("-c", name))]
    fit += ["--trainer.default_root_dir", str(training), "--trainer.max_steps=-1", "--device", protocol.device]
    fit += ["--seed_everything", str(run.seed), "--model.seed", str(run.seed)]
    fit += ["--checkpoint.every", str(protocol.checkpoint_every)]
    fit += [] if has_curve else [f"--trainer.callbacks+={CURVE}"]
    fit += [f"--trainer.callbacks+={BUDGET}", f"--trainer.callbacks.{protocol.clock}", f"{protocol.limit:g}"]
    fit += ["--ckpt_path", str(last)] * last.is_file()
    card = ["--experiment", run.recipe[0], "--data", protocol.data["class_path"]]
    card += ["--license", protocol.license] if protocol.license else []
    on = ["--device", protocol.device]
    drawn = ["--seeds", protocol.samples, *on]
    measured = ["--real", str(protocol.file), "--metrics", protocol.metrics, "--count", str(protocol.count)]
    measured += ["--objects", str(protocol.objects), "--results", str(results), *on]
    return {
        "training": fit,
        "weights": ["bundle", str(last), weights, *card],
        "grid.png": ["sample", weights, "--out", str(folder / "grid.png"), *drawn],
        "orbit.gif": ["orbit", weights, "--out", str(folder / "orbit.gif"), *drawn],
        "mesh.png": [
            *("mesh", weights, "--out", str(training / "mesh.ply"), "--picture", str(folder / "mesh.png")),
            *("--seeds", protocol.samples, "--cells", "64", *on),
        ],
        "scores": ["evaluate", weights, *measured],
    }


def lacking(protocol: Protocol, run: Run, folder: Path, results: Path) -> dict[str, list[str]]:
    """The commands that a run still needs, by what they make: of one whose rows are there without its weights, none."""
    rows, weights = rows_of(run, results), folder / TENSORS
    if rows and not weights.is_file():
        return {}
    needed = commands(protocol, run, folder, results)
    if not weights.is_file():
        return needed
    there = {*NEEDED, *(made for made in needed if (folder / made).is_file())}
    if sha256_of(weights) in {row["weights_sha256"] for row in rows}:
        there.add("scores")
    return {made: words for made, words in needed.items() if made not in there}


def side_by_side(protocol: Protocol, out: Path) -> list[str]:
    """The command that draws one sample of each system beside the others, of the first run whose weights are there."""
    first: dict[str, str] = {}
    for run in protocol.runs():
        if (out / run.name / TENSORS).is_file():
            first.setdefault(run.system, str(out / run.name))
    words = ["sample", ",".join(first.values()), "--out", str(out / SYSTEMS), "--seeds", "0", "--views", "4"]
    return [*words, "--device", protocol.device] if len(first) > 1 else []


def rows_of(run: Run, results: Path) -> list[dict[str, Any]]:
    """The rows of results that a run has."""
    return [row for row in read(results) if row["weights"] == run.name]


def note(folder: Path, **facts: Any) -> None:
    """Add a command that was run to the table of a run's folder."""
    rows = [*noted(folder), facts | {"date": datetime.now(UTC).isoformat(timespec="seconds")}]
    with replacing(folder / NOTES) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def noted(folder: Path) -> list[dict[str, str]]:
    """The commands that were run for a run, in order.

    Raises:
        UserError: the file is not what was written.
    """
    path = folder / NOTES
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not all(row.keys() == {*COLUMNS} and None not in row.values() for row in rows):
        raise UserError(f"'{path}' is damaged: delete it.")
    return rows
