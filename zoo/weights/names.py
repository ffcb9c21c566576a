"""Renames the tensors of published state dicts, both ways, by each system's table of patterns (ours -> published)."""

import re

from torch import Tensor

from zoo.weights.bundle import UNUSED


def published_name(name: str, table: list) -> str:
    """The published name of one of our tensors."""
    if name.startswith(UNUSED):
        return name.removeprefix(UNUSED)
    for pattern, to in table:
        if re.match(pattern, name):
            return re.sub(pattern, to, name, count=1)
    raise KeyError(f"'{name}' has no counterpart among the published names.")


def from_published(state: dict[str, Tensor], names: list[str], table: list) -> dict[str, Tensor]:
    """A published state dict under our names; what our network never reads is kept under ``unused.``.

    Raises:
        ValueError: a tensor that our network needs is not there.
    """
    state, ours = dict(state), {}
    for name in names:
        published = published_name(name, table)
        if published not in state:
            raise ValueError(f"The published state dict has no '{published}', which our '{name}' needs.")
        ours[name] = state.pop(published)
    return ours | {UNUSED + name: tensor for name, tensor in state.items()}


def to_published(state: dict[str, Tensor], table: list) -> dict[str, Tensor]:
    """The way back."""
    return {published_name(name, table): tensor for name, tensor in state.items()}
