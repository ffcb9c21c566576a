"""How the published EG3D's options and tensors become our networks."""

import copy
import json
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from tests.parity.harness import Case
from tests.parity.published import load
from zoo.eg3d.convert import GENERATOR, discriminator_config, generator_config, table
from zoo.eg3d.discriminator import DualDiscriminator
from zoo.eg3d.model import Generator
from zoo.weights.bundle import build
from zoo.weights.names import published_name, with_noise_axes


def fill(case: Case, network: nn.Module, state: dict[str, Tensor], names: list) -> Any:
    """The network with a published state dict, in which stored noise may be left out."""
    state = with_noise_axes(state)
    for name, tensor in network.state_dict().items():
        if name.endswith("noise.stored"):
            state.setdefault(published_name(name, names), case.cast(torch.zeros_like(tensor)))
    unread = r"resample_filter$|dataset_label_std$|noise_(const|strength)$"
    return load(network, state, names, unread, unknown="render_side").eval()


def made(config: dict[str, Any]) -> Any:
    """What a config builds; a copy where it was built before, since the parser takes longer than most cases."""
    return copy.deepcopy(built(json.dumps(config), torch.get_default_dtype()))


@cache
def built(config: str, dtype: torch.dtype) -> nn.Module:
    return build(json.loads(config), nn.Module)


def load_generator(case: Case, without: str = "", **changed: Any) -> Generator:
    """Our generator for the published constructor's arguments, with the case's weights.

    Args:
        without: an entry of its ``rendering_kwargs`` that is left out.
        changed: other values of them.
    """
    given = case.config["generator"]
    marching = {name: v for name, v in given["rendering_kwargs"].items() if name != without} | changed
    config = generator_config(given, marching, case.config["geometry"])
    generator = fill(case, made(config), case.weights("generator."), GENERATOR)
    generator.renderer.chunk = None  # so that parts can be watched
    return generator


def load_discriminator(case: Case, **changed: Any) -> DualDiscriminator:
    network = made(discriminator_config(case.config["discriminator"] | changed))
    return fill(case, network, case.weights("discriminator."), table(network))


def halves(intervals: Tensor) -> Tensor:
    """Weights of samples [B, R, S] of those of intervals [B, R, S - 1], which give a half to both of their ends."""
    return (pad(intervals, (0, 1)) + pad(intervals, (1, 0))) / 2


def as_images(case: Case, values: Tensor) -> Tensor:
    return values.to(case.dtype) / 127.5 - 1
