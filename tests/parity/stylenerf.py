"""How the published StyleNeRF's arguments, names and draws translate into ours."""

import math
import re
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from tests.parity.harness import Case, Replay
from zoo.layers.ada import SYM6, Augmentation, band_filters
from zoo.layers.stylegan2 import doubled
from zoo.layers.upsampling import Upsampler
from zoo.stylenerf import Block, StyledLayer
from zoo.weights import stylenerf
from zoo.weights.bundle import build

# Augmentation


class Constant:
    """The published pipe's percentiles: every draw at the same place of its distribution, and nothing left out."""

    def __init__(self, percentile: float) -> None:
        self.percentile = percentile

    def uniform(self, name: str, shape) -> Tensor:
        value = 0.0 if name.endswith("_gate") else 0.5 if name == "postrotate" else self.percentile
        return torch.full(tuple(shape), value)

    def normal(self, name: str, shape) -> Tensor:
        return torch.full(tuple(shape), torch.erfinv(torch.tensor(2 * self.percentile - 1)).item())


def augment(case: Case) -> None:
    images = case.inputs["img"]
    for name in case.outputs:
        if not (found := re.fullmatch(r"(p|percentile)([\d.]+)\.(\w+)", name)):
            continue
        kind, number, pipe = found[1], float(found[2]), found[3]
        probability = number if kind == "p" else 1.0
        weights, options = stylenerf.augmentation_arguments(case.config["pipes"][pipe])
        augmentation = Augmentation(weights, probability, **options)
        draws = Constant(number)
        if kind == "p":
            recorded = {n.removeprefix(f"p{found[2]}."): t for n, t in case.inputs.items()}
            draws = Replay([(re.sub(r"_[iutn]$", "", n).replace("_p", "_gate"), t) for n, t in recorded.items()])
        case.compare(name, augmentation(images, draws))
    line = torch.tensor(SYM6)
    case.compare("Hz_geom", line / line.sum())
    case.compare("Hz_fbank", band_filters())


# Upsamplers


class Options(nn.Module):
    """Of a painter's blocks, built from a config."""

    def __init__(self, upsampler: Upsampler | None = None, image_up: Callable[[Tensor], Any] = doubled) -> None:
        super().__init__()
        self.upsampler, self.image_up = upsampler, image_up


def options(mode: str) -> Options:
    config = stylenerf.upsampler_config(mode)
    return build({"class_path": "tests.parity.stylenerf.Options", "init_args": config}, nn.Module)


def fill(network: nn.Module, published: dict[str, Tensor], name: Callable[[str], str]) -> None:
    """Load published tensors, all of which must be known or constants."""
    published = dict(published)
    ours = {n: published.pop(name(n)).view_as(t) for n, t in network.state_dict().items()}
    assert all(re.search(r"(resample_filter|coords|diffs|coeffs)$", n) for n in published), published.keys()
    network.load_state_dict(ours)


@torch.no_grad()
def upsamplers(case: Case) -> None:
    of, inputs = case.config["layer"], case.inputs
    sizes = of["in_channels"], of["out_channels"]
    x, w = inputs["x"], inputs["w"]
    for name in case.config["cases"]:
        mode, size = name.rsplit(".k", 1)
        made, weights = options(mode), case.weights(f"{name}.")
        layer = StyledLayer(
            *sizes,
            int(size),
            of["w_dim"],
            up=None if made.upsampler is None else made.upsampler(of["out_channels"]),
            fir_up=made.upsampler is None,
            noise=of["resolution"] if "noise_const" in weights else None,
            decay=of["magnitude_ema_beta"],
        )
        fill(layer, weights, stylenerf.layer_name)
        bound = of["conv_clamp"]
        case.compare(name, layer(x, w, bound=bound))
        if case.outputs[f"{name}.skip_up"].numel() > 1:
            case.compare(f"{name}.skip_up", layer(x, w, bound=bound, alone=True))
        silent = torch.zeros(len(x), 1, of["resolution"], of["resolution"])
        case.compare(f"{name}.gain0.5", layer(x, w, silent, bound=bound, gain=0.5))
    for name in dict.fromkeys(re.findall(r"block\.(\w+)\.", " ".join(case.outputs))):
        made = options(name)
        block = Block(
            *sizes, of["resolution"], made.upsampler, made.image_up, w_dim=of["w_dim"], decay=of["magnitude_ema_beta"]
        )
        fill(block, case.weights(f"block.{name}."), stylenerf.block_name)
        features, image = block(x, inputs["img"], inputs["ws3"], bound=of["conv_clamp"])
        case.compare(f"block.{name}.x", features)
        case.compare(f"block.{name}.img", image)
        features, _ = block(x, inputs["img"], inputs["ws3"], bound=of["conv_clamp"], follow=True)
        case.compare(f"block.{name}.train.x", features)
        case.compare(f"block.{name}.train.conv0.w_avg", block.first.magnitude)


KINDS = {"augment": augment, "upsamplers": upsamplers}
NO_SKIP = "left out of a convolution it is part of, upsampling has no meaning; the program returns a placeholder"
ABSENT: dict[str, dict[str, str]] = {
    "upsamplers": {"default.k1.skip_up": NO_SKIP, "default.k3.skip_up": NO_SKIP},
}
