"""``zoo leaderboard``: the table of scores."""

import sys
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

from zoo.cli.options import refuse_unused
from zoo.leaderboard.table import OWN_RESULTS, RESULTS, show
from zoo.utils.errors import missing_file
from zoo.utils.targets import folder_target

FEWER = (
    "Fewer tables: zoo leaderboard cars --resolution 32 --metric fid-cars-none-5k --condition own. As a page for a "
    "browser: zoo leaderboard --html page."
)


def run(
    dataset: str | None = None,
    results: Path = OWN_RESULTS,
    published: bool = False,
    html: Path | None = None,
    images: bool = True,
    **shown: Any,
) -> None:
    """Print the table of scores: measured by this project, and your own. Or write it as a page for a browser.

    Args:
        dataset: only this one.
        results: the table of your own scores.
        published: add the numbers of the papers, in a table of their own.
        html: a folder for a page with all scores, plots and images, which needs nothing from outside of it; a page that
            is there is brought up to date.
        images: of the page: draw all weights that are here and that it does not show yet, some seconds each.
    """
    if results != OWN_RESULTS and not results.exists():
        raise FileNotFoundError(missing_file(results))
    if html is None:
        refuse_unused("without --html", run, images=images)
        text = show((results, RESULTS), dataset=dataset, with_published=published, **shown)
        print(text, flush=True)
        if sys.stdout.isatty() and text.count("\n") > get_terminal_size().lines:
            print(FEWER, file=sys.stderr)
        return
    refuse_unused("with --html: the page has all rows and filters", run, dataset=dataset, published=published)
    refuse_unused("with --html: the page has all rows and filters", show, **shown)
    from zoo.leaderboard.html_page import to_draw, write_page

    html, tables = folder_target(html, option="--html"), (results, RESULTS)
    page = write_page(html, tables)
    if images and (files := to_draw(html, tables)):
        from zoo.cli.leaderboard_images import draw_images

        draw_images(files)
        write_page(html, tables)
    print(page)
