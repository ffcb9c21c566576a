"""Measured results and the tables made from them."""

from zoo.utils.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    table="PUBLISHED RESULTS append_row append_rows check_row check_values read show",
    pages="update_page update_pages",
)
