"""``zoo leaderboard``: the table of scores."""

from pathlib import Path
from typing import Any

from zoo.leaderboard.table import RESULTS, show


def run(
    dataset: str | None = None, results: Path = Path("runs/results.csv"), published: bool = False, **shown: Any
) -> None:
    """Print the table of scores: measured by this project, and your own.

    Args:
        dataset: only this one.
        results: the table of your own scores.
        published: add the numbers of the papers, in a table of their own.
    """
    print(show((results, RESULTS), dataset=dataset, with_published=published, **shown))
