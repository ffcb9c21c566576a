"""Renames the tensors of published state dicts, both ways, by each system's table of patterns (ours -> published)."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from zoo.weights.bundle import UNUSED, build, check_fit
from zoo.weights.read import Place


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


def filled(
    config: dict[str, Any], state: dict[str, Tensor], table: list, place: Place
) -> tuple[nn.Module, dict[str, Any], dict[str, Tensor]]:
    """The network with these published tensors, its config, and the tensors that it never reads.

    Raises:
        ValueError: they do not fit the config.
    """
    with torch.device("meta"):  # a file that claims impossible sizes is found out before there is any memory
        planned = build(config, nn.Module)
    learned = [name for name in planned.state_dict() if not name.startswith("mean_")]
    ours = from_published(state, learned, table)
    unused = {name: tensor for name, tensor in ours.items() if name.startswith(UNUSED)}
    used = {name: ours[name] for name in learned}
    check_fit(planned, used | {n: t for n, t in planned.state_dict().items() if n not in used}, place)
    network = build(config, nn.Module)
    network.load_state_dict(used, strict=False)
    return network, config, unused
