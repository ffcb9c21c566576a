"""Several trainings of one recipe, which differ by their seeds, as one row."""

import math
from collections.abc import Sequence
from statistics import mean, stdev

from zoo.leaderboard.csv_files import Row
from zoo.leaderboard.table import format_value


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
