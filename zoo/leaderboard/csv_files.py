"""CSV files of measured rows: fixed columns, values of their types, whole rows or none."""

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from itertools import zip_longest
from pathlib import Path
from typing import Any

from zoo.utils.errors import UserError, near, printable
from zoo.utils.files import locked, replacing

Row = dict[str, Any]


@dataclass(frozen=True)
class RowsFile:
    """What a kind of file holds.

    Args:
        noun: for a row of it, such as "result"; messages call the file one of results.
        columns: and what their values are.
        required: columns that every row has a value for.
        choices: of columns that have few values.
        earlier: columns of an earlier version of it, and what makes a row of those one of today.
        added: columns that files of a version in between may lack; they are empty then.
    """

    noun: str
    columns: Mapping[str, type]
    required: tuple[str, ...] = ()
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    earlier: tuple[list[str], Callable[[Mapping[str, str]], Row]] | None = None
    added: tuple[str, ...] = ()

    def check_row(self, row: Mapping[str, Any]) -> Row:
        """The row with every column, in order, each of its type.

        Raises:
            UserError: a column that is missing; and as ``check_values``.
        """
        checked = self.check_values(row)
        for column in self.required:
            if checked.get(column, "") == "":
                raise UserError(f"A {self.noun} needs a value for '{column}'.")
        return {column: checked.get(column, "") for column in self.columns}

    def check_values(self, values: Mapping[str, Any]) -> Row:
        """Values of some columns, each of its type, or empty.

        Raises:
            UserError: a column that is unknown; a value that is not of its type, or not finite.
        """
        return {
            column: "" if value in (None, "") else self.check_value(column, value) for column, value in values.items()
        }

    def check_value(self, column: str, value: Any) -> Any:
        """A value of the column's type.

        Raises:
            UserError: there is no such column; the value is not of its type, or not finite.
        """
        if column not in self.columns:
            raise UserError(
                f"A {self.noun} has no column '{printable(column, 60)}'.{near(str(column), list(self.columns))}"
            )
        kind, shown = self.columns[column], printable(repr(value), 60)
        wrong = f"'{column}' of a {self.noun} must be"
        try:
            checked = kind(value)
            if kind is int and float(value) != checked:
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise UserError(f"{wrong} {kind.__name__}, not {shown}.") from None
        if kind is str and any(c in checked for c in "\r\n"):
            raise UserError(f"{wrong} one line, not {shown}.")
        if column in self.choices and checked not in self.choices[column]:
            raise UserError(f"{wrong} one of {', '.join(self.choices[column])}, not {shown}.")
        if kind is float and not math.isfinite(checked):
            raise UserError(f"{wrong} finite, not {shown}.")
        return checked

    def read(self, path: Path | str, check_row: Callable[[Mapping[str, Any]], Row] | None = None) -> list[Row]:
        """All rows of a file, also of an earlier version; none where there is no file.

        Args:
            check_row: of each row, where its own does not say all.

        Raises:
            UserError: the file is of another kind; names the line and what is wrong with it.
        """
        path, check = Path(path), check_row or self.check_row
        if not path.exists():
            return []
        if not path.is_file():
            what = "a folder" if path.is_dir() else "a device"
            raise UserError(f"'{printable(path)}' is no file of {self.noun}s: it is {what}.")
        data = path.read_bytes()
        try:
            text = data.decode("utf-8-sig")  # Excel begins its files with a mark
        except UnicodeDecodeError as error:
            at = data.count(b"\n", 0, error.start) + 1
            raise broken(path, at, "is not text in UTF-8; save it as CSV in UTF-8") from None
        reader, rows, line, columns = csv.reader(StringIO(text, newline="")), [], 1, list(self.columns)
        known = [[c for c in columns if c not in self.added], *([self.earlier[0]] if self.earlier else [])]
        try:
            for cells in reader:
                if line == 1 and cells in known:
                    columns = cells
                if line == 1 and cells != columns:
                    first = next((a for a, b in zip_longest(self.columns, cells) if a != b), None)
                    wrong = f"has no column '{first}' where it belongs" if first else f"has {len(cells)} columns"
                    raise broken(path, 1, f"{wrong}, so this is no file of {self.noun}s; name another one")
                if len(cells) != len(columns):
                    wrong = f"has {len(cells)} values, not {len(columns)}" if cells else "is blank"
                    raise broken(path, line, f"{wrong}; mend or delete it")
                if line > 1:
                    try:
                        row = dict(zip(columns, cells, strict=True))
                        is_old = self.earlier is not None and columns == self.earlier[0]
                        rows.append(check(self.earlier[1](row) if is_old else row))
                    except UserError as error:
                        raise broken(path, line, f"is wrong: {error}") from None
                line = reader.line_num + 1
        except csv.Error as error:
            raise broken(path, line, f"is not CSV: {error}") from None
        return rows

    def append(
        self, added: list[Row], path: Path | str, check_row: Callable[[Mapping[str, Any]], Row] | None = None
    ) -> None:
        """Add rows that were checked to a file: all of them, or nothing; ``check_row`` as of ``read``."""
        path = Path(path)
        # Two runs that end together both get their row.
        with locked(path.with_name(f".{path.name}.lock"), f"Waiting for another process that adds a row to {path}."):
            rows = [*self.read(path, check_row), *added]
            with replacing(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(self.columns), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


def broken(path: Path, line: int, what: str) -> UserError:
    """The error for a line of a file."""
    return UserError(f"'{printable(path, 120)}', line {line} {what.rstrip('.')}.")
