"""Trainings that can be compared: those of equal budgets; and several seeds of one recipe as one row."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev

from zoo.leaderboard.csv_files import Row
from zoo.leaderboard.table import format_value, rank_rows


def budget_of(row: Row) -> str:
    """The processor time of a training as a budget, such as "25 min"; empty where it was not counted."""
    return f"{row['processor_seconds'] / 60:.0f} min" if row["processor_seconds"] != "" else ""


def shared_budgets(rows: Iterable[Row]) -> set[tuple[str, int, str]]:
    """Data set, resolution and budget that two recipes or more were trained with."""
    trained = {
        (row["dataset"], row["resolution"], budget, row["config"])
        for row in rows
        if row["config"] and (budget := budget_of(row))
    }
    terms = [terms for *terms, _ in sorted(trained)]
    return {tuple(one) for one in terms if terms.count(one) > 1}


def averaged(rows: Sequence[Row]) -> Row:
    """The newest of the rows, with the mean of their values.

    Its standard error is what other seeds would change of that mean, or what other samples of the same generators
    would, where that is more; the latter alone of a single training.
    """
    newest, count = max(rows, key=lambda row: row["date"]), len(rows)
    values, errors = [row["value"] for row in rows], [row["standard_error"] for row in rows]
    of_samples = "" if "" in errors else math.hypot(*errors) / count
    of_seeds = [stdev(values) / math.sqrt(count)] if count > 1 else []
    known = [error for error in (of_samples, *of_seeds) if error != ""]
    return newest | {"value": mean(values), "standard_error": max(known, default="")}


def spread_text(rows: Sequence[Row]) -> str:
    """The mean of some trainings, and their smallest and largest value where there are several."""
    values = sorted((row["value"], format_value(row)) for row in rows)
    text = format_value(averaged(rows))
    return text if len(rows) == 1 else f"{text} ({values[0][1]} to {values[-1][1]})"


def spread_texts(systems: Mapping[str, Sequence[Row]]) -> dict[str, str]:
    """``spread_text`` of each system, all measured alike; those that no other one beats are bold, in Markdown."""
    means = {name: averaged(rows) for name, rows in systems.items()}
    best = {id(row) for rank, row in rank_rows(means.values()) if rank == 1 < len(means)}
    texts = {name: spread_text(rows) for name, rows in systems.items()}
    return {name: f"**{text}**" if id(means[name]) in best else text for name, text in texts.items()}
