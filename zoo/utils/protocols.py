"""Protocols that configs fill in."""

from inspect import isfunction
from typing import Any, TypeVar

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
