"""``zoo leaderboard``: the table of scores."""

from pathlib import Path


def run(
    dataset: str | None = None,
    metric: str | None = None,
    results: Path = Path("runs/results.csv"),
    published: bool = False,
    markdown: bool = False,
    top: int = 20,
) -> None:
    """Print the table of scores: measured by this project, and your own.

    Args:
        dataset: only this one.
        metric: only metrics whose names begin so, such as fid or kid-cars.
        results: the table of your own scores.
        published: add the numbers of the papers, in a table of their own.
        markdown: as Markdown.
        top: rows of each table.
    """
    from zoo.leaderboard import RESULTS, show

    shown = show(
        (results, RESULTS), dataset=dataset, metric=metric, markdown=markdown, with_published=published, top=top
    )
    print(shown)
