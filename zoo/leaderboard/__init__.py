"""Measured results and the tables made from them.

append_row(row, path) -> row             check and add a result; atomic
read(path) -> rows
show(results=..., dataset=, metric=, markdown=False, with_published=False, top=20) -> text
update_page(page, results=RESULTS) -> changed     the table between the markers of a page
update_pages(root) -> changed pages               those of README.md and of each system's page
"""

from zoo.leaderboard.table import (
    PUBLISHED,
    RESULTS,
    append_row,
    check_row,
    read,
    show,
    table,
    update_page,
    update_pages,
)

__all__ = ["PUBLISHED", "RESULTS", "append_row", "check_row", "read", "show", "table", "update_page", "update_pages"]
