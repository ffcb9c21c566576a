"""Renames the tensors of published state dicts, in both directions, by the tables of each converter, and reads sizes.

A table lists patterns of our names, and what stands for them in the published ones: text or a function of the match, as
``re.sub`` takes them; None for tensors that ``prepare`` computes, which no published file holds.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.utils.errors import UserError
from zoo.weights.bundle import UNUSED, build, check_fit, plan
from zoo.weights.read import Place

Table = list[tuple[str, Any]]


def inside(ours: str, published: str, table: Table) -> Table:
    """The table of a part, for the whole that holds it under these names."""

    def longer(to: str | Callable) -> str | Callable:
        return (lambda match: published + to(match)) if callable(to) else published + to

    return [(ours + pattern, longer(to)) for pattern, to in table]


# Ours and those of StyleGAN2's program for a layer with a style, and for one that also has noise
STYLE: Table = [(r"style\.", "affine."), ("", "")]
STYLED_LAYER: Table = [
    *inside(r"conv\.", "", STYLE),
    (r"noise\.stored$", "noise_const"),
    (r"noise\.strength$", "noise_strength"),
]


def with_noise_axes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict in which stored noise, one image [H, W] there, has axes for samples and channels."""
    images = [name for name, tensor in state.items() if name.endswith("noise_const") and tensor.dim() == 2]
    return state | {name: state[name][None, None] for name in images}


def without_noise_axes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse."""
    images = [name for name in state if name.endswith("noise_const")]
    return state | {name: state[name].reshape(state[name].shape[-2:]) for name in images}


@functools.cache
def compiled(pattern: str) -> re.Pattern:
    """The pattern; ``re`` remembers 512, and forgets each before its turn comes again where tables have more."""
    return re.compile(pattern)


def published_name(name: str, table: Table) -> str | None:
    """The published name of one of our tensors; None where no published file holds it."""
    if name.startswith(UNUSED):
        return name.removeprefix(UNUSED)
    for pattern, to in table:
        if compiled(pattern).match(name):
            return None if to is None else compiled(pattern).sub(to, name, count=1)
    raise KeyError(f"'{name}' has no counterpart among the published names.")


def from_published(state: dict[str, Tensor], names: list[str], table: Table) -> dict[str, Tensor]:
    """A published state dict under our names; tensors that our network does not read are kept under ``unused.``.

    Raises:
        UserError: a tensor that our network needs is not there.
    """
    state, ours = dict(state), {}
    for name in names:
        published = published_name(name, table)
        if published is None:
            continue
        if published not in state:
            raise UserError(f"The published state dict has no '{published}', which our '{name}' needs.")
        ours[name] = state.pop(published)
    return ours | {UNUSED + name: tensor for name, tensor in state.items()}


def to_published(state: Mapping[str, Tensor], table: Table) -> dict[str, Tensor]:
    """Our tensors under their published names."""
    renamed = {published_name(name, table): tensor for name, tensor in state.items()}
    return {name: tensor for name, tensor in renamed.items() if name is not None}


def load_published(
    config: dict[str, Any], state: dict[str, Tensor], table: Callable[[nn.Module], Table], place: Place
) -> tuple[nn.Module, dict[str, Tensor]]:
    """The network with these published tensors, and those that it never reads, under ``unused.``.

    Raises:
        UserError: they do not fit the config.
    """
    planned = plan(config, nn.Module)
    needed = planned.state_dict()
    ours = from_published(state, list(needed), table(planned))
    used = {name: tensor for name, tensor in ours.items() if not name.startswith(UNUSED)}
    check_fit(planned, needed | used, place)
    network = build(config, nn.Module)
    network.load_state_dict(used, strict=False)
    return network, {name: tensor for name, tensor in ours.items() if name not in used}


def size(state: dict[str, Tensor], name: str, axes: int = 2) -> torch.Size:
    """The shape of a published tensor that has so many axes.

    Raises:
        UserError: it is not there, or has others.
    """
    if name not in state or state[name].dim() != axes:
        raise UserError(f"The file has no '{name}' with {axes} axes, which every network of its kind has.")
    return state[name].shape


def count(state: dict[str, Tensor], pattern: str) -> int:
    """How many tensors have such names."""
    return len([name for name in state if re.fullmatch(pattern, name)])


def check_arguments(arguments: Mapping[str, Any], fixed: Mapping[str, tuple]) -> None:
    """Fail where a published argument has another value than those that can be translated."""
    for name, values in fixed.items():
        if name in arguments and arguments[name] not in values:
            raise UserError(f"The published '{name}' {arguments[name]!r} has no counterpart here.")
