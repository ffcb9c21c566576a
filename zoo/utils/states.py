"""Values that a checkpoint holds, compared with what such a run has: damage is named before it is met."""

import math
from numbers import Real
from types import UnionType
from typing import Any

from torch import Tensor

from zoo.utils.errors import UserError, printable


def check_state(value: Any, like: Any, name: str) -> None:
    """Refuse a state that is not like one of the same part.

    Args:
        value: what the checkpoint holds.
        like: what the part has now, or a type. A dict's entries must be there, and more may be.
        name: of the part, in the sentence.

    Raises:
        UserError: names the first difference.
    """
    if problem := difference(value, like, name):
        raise damaged(problem)


def damaged(problem: str) -> UserError:
    """The error for a state that no run has left."""
    return UserError(
        f"The checkpoint is damaged or of another program: {printable(problem, 140)}. Take another one, or start a "
        "new run from its weights with --init_from."
    )


def difference(value: Any, like: Any, name: str) -> str:
    """See ``check_state``: in words, or nothing."""
    if isinstance(like, dict) and isinstance(value, dict):
        missing = next((f"{name} has no '{key}'" for key in like if key not in value), "")
        parts = (difference(value[key], like[key], f"{name}.{key}") for key in like if key in value)
        return missing or next(filter(None, parts), "")
    if isinstance(like, list | tuple) and isinstance(value, list | tuple) and len(value) == len(like):
        parts = (difference(*pair, f"{name}.{index}") for index, pair in enumerate(zip(value, like, strict=True)))
        return next(filter(None, parts), "")
    wanted = ""
    if isinstance(like, type | UnionType):
        wanted = "" if isinstance(value, like) else f"a value of {getattr(like, '__name__', like)}"
    elif isinstance(like, dict):
        wanted = "names and values"
    elif isinstance(like, list | tuple):
        wanted = f"{len(like)} values"
    elif isinstance(like, bool):
        wanted = "" if isinstance(value, bool) else "true or false"
    elif isinstance(like, int):
        wanted = "" if type(value) is int and 0 <= value < 2**62 else "a count"
    elif isinstance(like, float):
        wanted = "" if is_number(value) else "a number"
    return f"{name} is {shown(value)} instead of {wanted}" if wanted else ""


def is_number(value: Any) -> bool:
    """Whether it is a number, alone or in a tensor; NaN is none."""
    value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def shown(value: Any) -> str:
    """A value of a checkpoint in few words."""
    if isinstance(value, Tensor):
        return f"a tensor of {list(value.shape)}" if value.numel() != 1 else str(value.item())
    return f"a {type(value).__name__}" if isinstance(value, dict | list | tuple) else printable(value, 40) or "empty"
