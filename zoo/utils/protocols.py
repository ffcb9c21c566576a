"""What configs fill in with functions and classes: protocols, and other parts that are called."""

from inspect import isbuiltin, isfunction, signature
from typing import Any, TypeVar

from zoo.utils.errors import UserError, printable

P = TypeVar("P")


def untyped_in_configs(protocol: type[P]) -> type[P]:
    """A protocol that a config fills in with any function or class of so many arguments.

    Its annotations are for readers and type checkers. jsonargparse compares them with those of what a config names, and
    refuses what has others, subtypes, or none; so it finds ``Any``.
    """
    for method in vars(protocol).values():
        if isfunction(method) and method.__module__ == protocol.__module__:
            method.__annotations__ = dict.fromkeys(method.__annotations__, Any)
    return protocol


def check_made(made: Any, shapes: list[Any], of: object, name: str) -> None:
    """Refuse what a part has made, unless it is a tensor, or a tuple of tensors, of these shapes.

    Raises:
        UserError: names the part.
    """
    tensors = made if isinstance(made, tuple) else (made,)
    if [getattr(tensor, "shape", None) for tensor in tensors] != shapes:
        found = [list(getattr(tensor, "shape", ())) or type(tensor).__name__ for tensor in tensors]
        wanted = ", ".join(str(list(shape)) for shape in shapes)
        raise UserError(
            f"{name} of {type(of).__name__} makes {printable(', '.join(map(str, found)), 60)} where {wanted} is "
            "needed: name a function or class that makes that."
        )


def check_call(arguments: str, of: object, /, **parts: Any) -> None:
    """Refuse parts that cannot be called as their role is.

    What is written in C is refused as the parser refuses it for a protocol: it does not say what it takes, and no part
    of a network is. A function of ours that takes several things is for another role if it names them otherwise: their
    types, mostly Tensor, do not tell.

    Args:
        arguments: names of what such a part is called with, such as "raw, points".
        of: whose parts they are; the name of its class is said.
        parts: by the names that users know; None is left out.

    Raises:
        UserError: names the part.
    """
    names = arguments.split(", ")
    for name, part in parts.items():
        is_layer = not isinstance(part, type) and hasattr(part, "forward")  # of torch, whose __call__ takes anything
        try:
            if isbuiltin(part):
                raise TypeError
            if part is not None:
                taken = signature(part.forward if is_layer else part)
                taken.bind(*names)
                if is_ours(part) and len(names) > 1 and [*taken.parameters][: len(names)] != names:
                    raise TypeError
        except (TypeError, ValueError):
            shown = getattr(part, "__qualname__", None) or type(part).__qualname__
            raise UserError(
                f"{name} of {type(of).__name__} is {printable(shown, 60)}, which cannot be called with ({arguments}): "
                "name a function or class of Python that can."
            ) from None


def is_ours(part: Any) -> bool:
    """Whether it is a function of this library that a config can name."""
    return isfunction(part) and part.__module__.startswith("zoo.") and "<" not in part.__qualname__
