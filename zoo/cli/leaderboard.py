"""``zoo leaderboard``: the table of scores."""

from pathlib import Path
from typing import Any

from zoo.leaderboard.table import RESULTS, show
from zoo.utils.errors import missing_file

OWN_RESULTS = Path("runs/results.csv")  # there are none before a first 'zoo evaluate'


def run(dataset: str | None = None, results: Path = OWN_RESULTS, published: bool = False, **shown: Any) -> None:
    """Print the table of scores: measured by this project, and your own.

    Args:
        dataset: only this one.
        results: the table of your own scores.
        published: add the numbers of the papers, in a table of their own.
    """
    if results != OWN_RESULTS and not results.exists():
        raise FileNotFoundError(missing_file(results))
    print(show((results, RESULTS), dataset=dataset, with_published=published, **shown))
