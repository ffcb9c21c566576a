"""Ranges of numbers that users give, checked where they are given: ``at_least(1, views=views, frames=frames)``.

The names of the keywords are what users read, so they are those of the options or of the ``init_args``; a class says
whose they are, ``at_least(1, self, every=every)``. A value can be a list, tuple or dict of numbers: each is checked.
NaN and null are in no range, and infinity only in that of ``between(low, math.inf)``; ``given`` leaves out what need
not be given: ``at_least(1, **given(resolution=None))``.
"""

import math
from collections.abc import Callable, Iterator
from numbers import Real
from typing import Any, get_args

from zoo.utils.errors import UserError, printable


def at_least(low: float, of: object = None, /, **values: Any) -> None:
    """Refuse numbers below ``low``.

    Raises:
        UserError: names the value and the range.
    """
    refuse_outside(lambda value: low <= value < math.inf, f"of at least {low:g}", of, values)


def above(low: float, of: object = None, /, **values: Any) -> None:
    """Refuse numbers that are not greater than ``low``.

    Raises:
        UserError: names the value and the range.
    """
    refuse_outside(lambda value: low < value < math.inf, f"above {low:g}", of, values)


def between(low: float, high: float, of: object = None, /, **values: Any) -> None:
    """Refuse numbers outside of ``low`` to ``high``, which are allowed themselves.

    Raises:
        UserError: names the value and the range.
    """
    refuse_outside(lambda value: low <= value <= high, f"from {low:g} to {high:.12g}", of, values)


def inside(low: float, high: float, of: object = None, /, **values: Any) -> None:
    """Refuse numbers that are not between ``low`` and ``high``, or are one of them.

    Raises:
        UserError: names the value and the range.
    """
    refuse_outside(lambda value: low < value < high, f"above {low:g} and below {high:g}", of, values)


def finite(of: object = None, /, **values: Any) -> None:
    """Refuse what is no number, or none that is finite.

    Raises:
        UserError: names the value.
    """
    refuse_outside(lambda value: -math.inf < value < math.inf, "that is finite", of, values)


def filled(of: object = None, /, **values: Any) -> None:
    """Refuse lists of numbers that hold none.

    Raises:
        UserError: names the value.
    """
    for name, value in values.items():
        if value in ([], (), {}):
            raise UserError(f"{name}{whose(of)} is empty: give at least one number.")


def one_of(kind: Any, **values: Any) -> None:
    """Refuse what is none of the names of a ``Literal``: null, which the parser of options lets through, too.

    Raises:
        UserError: names the value and all that are allowed.
    """
    for name, value in values.items():
        if value not in get_args(kind):
            shown = "null" if value is None else f"'{printable(value, 40)}'"
            raise UserError(f"{name} is {shown}: give one of {', '.join(get_args(kind))}.")


def given(**values: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def refuse_outside(allowed: Callable[[Any], bool], range: str, of: object, values: dict[str, Any]) -> None:
    """Refuse the first number that is not allowed.

    Args:
        allowed: whether a number is in the range.
        range: its description, such as "of at least 1".
        of: whose values they are; the name of its class is said.
        values: numbers, by the names that users know.

    Raises:
        UserError: names the first value that is not allowed, and the range.
    """
    for name, value in values.items():
        for number in numbers_in(value):
            if not isinstance(number, Real) or not allowed(number):
                shown = printable(number, 40)
                verb = "is" if number is value else "holds"
                raise UserError(
                    f"{name}{whose(of)} {verb} {shown}: give {'a number' if verb == 'is' else 'numbers'} {range}."
                )


def whose(of: object) -> str:
    """Words for the class that values belong to, if one is given."""
    return "" if of is None else f" of {type(of).__name__}"


def numbers_in(value: Any) -> Iterator[Any]:
    """The value, or each of those that it holds."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from numbers_in(part)
    else:
        yield value
