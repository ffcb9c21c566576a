"""Cases of augmentation, upsamplers and discriminators."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.parity.harness import Case
from tests.parity.replay import Replay
from tests.parity.stylenerf.build import fill, load_discriminator
from tests.parity.stylenerf.draws import Constant
from zoo.layers.ada import SYM6, Augmentation, band_filters
from zoo.layers.stylegan2 import upsample
from zoo.layers.upsampling import Upsampler
from zoo.stylenerf import convert as stylenerf
from zoo.stylenerf.extras import DualDiscriminator
from zoo.stylenerf.synthesis import Block, StyledLayer
from zoo.weights.bundle import build


def augment(case: Case) -> None:
    images = case.inputs["img"]
    for name in case.outputs:
        if not (found := re.fullmatch(r"(p|percentile)([\d.]+)\.(\w+)", name)):
            continue
        kind, number, pipe = found[1], float(found[2]), found[3]
        probability = number if kind == "p" else 1.0
        weights, options = augmentation_arguments(case.config["pipes"][pipe])
        augmentation = Augmentation(weights, probability, **options)
        draws = Constant(case, number)
        if kind == "p":
            recorded = {n.removeprefix(f"p{found[2]}."): t for n, t in case.inputs.items()}
            draws = Replay([(re.sub(r"_[iutn]$", "", n).replace("_p", "_gate"), t) for n, t in recorded.items()])
        case.compare(name, augmentation(images, draws))
    line = torch.tensor(SYM6)
    case.compare("Hz_geom", line / line.sum())
    case.compare("Hz_fbank", band_filters())


def augmentation_arguments(given: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Weights and other arguments of our augmentation for those of the published pipe."""
    weights, strengths, options = {}, {}, {}
    for name, value in given.items():
        change = re.sub(r"_(std|max|size)$", "", name)
        if name == "imgfilter_bands":
            options["bands"] = tuple(value)
        elif name == change:
            weights[name] = float(value)
        else:
            strengths[change] = float(value)
    return weights, options | ({"strengths": strengths} if strengths else {})


class Options(nn.Module):
    """Of a synthesis network's blocks, built from a config."""

    def __init__(self, upsampler: Upsampler | None = None, image_up: Callable[[Tensor], Any] = upsample) -> None:
        super().__init__()
        self.upsampler, self.image_up = upsampler, image_up


def options(mode: str) -> Options:
    config = stylenerf.upsampler_config(mode)
    return build({"class_path": "tests.parity.stylenerf.networks.Options", "init_args": config}, nn.Module)


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
        fill(layer, weights, stylenerf.LAYER)
        bound = of["conv_clamp"]
        case.compare(name, layer(x, w, bound=bound))
        if case.outputs[f"{name}.skip_up"].numel() > 1:
            case.compare(f"{name}.skip_up", layer(x, w, bound=bound, pixelwise=True))
        silent = torch.zeros(len(x), 1, of["resolution"], of["resolution"])
        case.compare(f"{name}.gain0.5", 0.5 * layer(x, w, silent, bound=bound))
    for name in dict.fromkeys(re.findall(r"block\.(\w+)\.", " ".join(case.outputs))):
        made = options(name)
        block = Block(
            *sizes, of["resolution"], made.upsampler, made.image_up, w_dim=of["w_dim"], decay=of["magnitude_ema_beta"]
        )
        fill(block, case.weights(f"block.{name}."), stylenerf.BLOCK)
        features, image = block(x, inputs["img"], inputs["ws3"], bound=of["conv_clamp"])
        case.compare(f"block.{name}.x", features)
        case.compare(f"block.{name}.img", image)
        features, _ = block(x, inputs["img"], inputs["ws3"], bound=of["conv_clamp"], update_magnitude=True)
        case.compare(f"block.{name}.train.x", features)
        case.compare(f"block.{name}.train.conv0.w_avg", block.first.magnitude)


@torch.no_grad()
def discriminator(case: Case) -> None:
    discriminator = load_discriminator(case.config["discriminator"], case.weights("discriminator."))
    for name, mode in case.config["modes"].items():
        discriminator.alpha.fill_(mode["alpha"])
        discriminator.fades_in = isinstance(mode["curr_status"], list)
        case.compare(name, discriminator(case.inputs[mode["image"]]).scores)


@torch.no_grad()
def discriminator_variants(case: Case) -> None:
    images, raw = case.inputs["img32"], case.inputs["img_nerf"]
    for name, config in case.config["variants"].items():
        discriminator = load_discriminator(config | case.config["common"], case.weights(f"discriminator_{name}."))
        discriminator.alpha.fill_(1.0)
        output = discriminator(images, raw) if isinstance(discriminator, DualDiscriminator) else discriminator(images)
        case.compare(f"{name}.logits", output.scores)
        if f"{name}.camera" in case.outputs:
            case.compare(f"{name}.camera", output.camera)
        if f"{name}.camera_loss" in case.outputs:
            case.compare(f"{name}.camera_loss", (output.camera - case.inputs["camera_UV"]).square().mean())
        if f"{name}.logits_without_img_nerf" in case.outputs:
            case.compare(f"{name}.logits_without_img_nerf", discriminator(images).scores)
