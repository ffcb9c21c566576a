"""How the published EG3D's options and tensors become our networks."""

import copy
import json
import re
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from tests.parity.harness import Case
from zoo.eg3d.convert import GENERATOR, discriminator_config, generator_config, table
from zoo.eg3d.discriminator import DualDiscriminator
from zoo.eg3d.model import Generator
from zoo.weights.bundle import UNUSED, build
from zoo.weights.names import from_published, published_name, with_noise_axes


def load(case: Case, network: nn.Module, state: dict[str, Tensor], names: list) -> Any:
    """The network with a published state dict, in which stored noise may be left out."""
    state = with_noise_axes(state)
    for name, tensor in network.state_dict().items():
        if name.endswith("noise.stored"):
            state.setdefault(published_name(name, names), case.cast(torch.zeros_like(tensor)))
    ours = from_published(state, list(network.state_dict()), names)
    unused = [name for name in ours if name.startswith(UNUSED)]
    odd = [n for n in unused if not re.search(r"resample_filter$|dataset_label_std$|noise_(const|strength)$", n)]
    assert not odd, odd
    missing, _ = network.load_state_dict({n: t for n, t in ours.items() if n not in unused}, strict=False)
    assert set(missing) <= {"render_side"}, missing
    return network.eval()


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
    generator = load(case, made(config), case.weights("generator."), GENERATOR)
    generator.renderer.chunk = None  # so that parts can be watched
    return generator


def load_discriminator(case: Case, **changed: Any) -> DualDiscriminator:
    network = made(discriminator_config(case.config["discriminator"] | changed))
    return load(case, network, case.weights("discriminator."), table(network))


def halves(intervals: Tensor) -> Tensor:
    """Weights of samples [B, R, S] of those of intervals [B, R, S - 1], which give a half to both of their ends."""
    return (pad(intervals, (0, 1)) + pad(intervals, (1, 0))) / 2


def number(case: Case, name: str, pattern: str) -> float:
    """What the meaning of an output says."""
    return float(re.search(pattern, case.info["outputs"][name]["meaning"])[1])


def as_images(case: Case, values: Tensor) -> Tensor:
    return values.to(case.dtype) / 127.5 - 1
