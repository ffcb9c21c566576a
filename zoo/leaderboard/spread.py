"""Trainings that can be compared: those of equal budgets; and several seeds of one recipe as one row."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from statistics import mean, stdev

from zoo.leaderboard.csv_files import Row
from zoo.leaderboard.table import format_value, rank_rows

Terms = tuple[str, int, str]  # of a training: data set, resolution, budget


def terms_of(row: Row) -> Terms:
    """The budget is the processor time as in "25 min"; empty where it was not counted."""
    budget = f"{row['processor_seconds'] / 60:.0f} min" if row["processor_seconds"] != "" else ""
    return row["dataset"], row["resolution"], budget


def shared_budgets(rows: Iterable[Row]) -> list[Terms]:
    """Those that two recipes or more were trained on, in order."""
    trained = sorted({(terms_of(row), row["config"]) for row in rows if row["config"] and terms_of(row)[2]})
    return [terms for terms, of in groupby(trained, key=lambda one: one[0]) if len([*of]) > 1]


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
    """``spread_text`` of each system, all measured alike; in Markdown, where those are bold that no other one beats,
    unless that is all of them."""
    means = {name: averaged(rows) for name, rows in systems.items()}
    best = {id(row) for rank, row in rank_rows(means.values()) if rank == 1}
    texts = {name: spread_text(rows) for name, rows in systems.items()}
    is_bold = {name: id(row) in best and len(best) < len(means) for name, row in means.items()}
    return {name: f"**{text}**" if is_bold[name] else text for name, text in texts.items()}
