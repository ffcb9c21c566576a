"""Cases of decoders, neural renderers and discriminators."""

import re

import torch
from torch import Tensor, nn

from tests.parity.giraffe.build import (
    BLOCK,
    NEVER_READ,
    build_discriminator,
    build_encodings,
    build_field,
    build_renderer,
    load_residual,
)
from tests.parity.harness import Case
from tests.parity.published import hearing, load
from zoo.giraffe.convert import DISCRIMINATOR, FIELD, RENDERER
from zoo.giraffe.edits import between_codes
from zoo.giraffe.extras import Block
from zoo.giraffe.model import SmoothUp
from zoo.giraffe.rendering import densest, weighted
from zoo.render import infinite_last_interval, transmission_weights, zero_last_interval


@torch.no_grad()
def modules(case: Case) -> None:
    points, directions, shape, appearance = (case.inputs[n] for n in ("points", "dirs", "z_shape", "z_app"))
    for variant, of in case.config["decoders"].items():
        name = f"decoder_{variant}"
        field = load(build_field(of, of["z_dim"]), case.weights(f"{name}."), FIELD, NEVER_READ)
        terms = field.terms(shape, appearance)[:, None]
        encoders = build_encodings(of)
        if of.get("positional_encoding") == "gauss":
            for key, encoder in zip(("gauss_B_pos", "gauss_B_view"), encoders, strict=True):
                torch.testing.assert_close(case.inputs[key][0], encoder.directions, rtol=2**-23, atol=0)
        case.compare(f"{name}.posenc", encoders[0](points[:, :8]))
        case.compare(f"{name}.posenc_view", encoders[1](nn.functional.normalize(directions[:, :8], dim=-1)))
        for suffix, seen in (("", directions), ("_no_dirs", None)):
            if f"{name}.feat{suffix}" in case.outputs:
                raw, hidden = field(points, seen, terms)
                case.compare(f"{name}.feat{suffix}", field.finish(hidden, torch.ones_like(hidden[..., :1])))
        case.relative(f"{name}.sigma", raw)
    for variant, of in case.config["renderers"].items():
        neural_renderer = load(build_renderer(of), case.weights(f"renderer_{variant}."), RENDERER, NEVER_READ)
        case.compare(f"renderer_{variant}.image", neural_renderer(case.inputs["feat_map"])[0])
    case.compare("blur", SmoothUp().blur(case.inputs["blur_in"]))
    case.compare("rgb_upsample", SmoothUp()(case.inputs["blur_in"]))
    shares = numbers_after(case, "interpolate_sphere", " at ")
    case.compare("interpolate_sphere", torch.stack([between_codes(shape[:1], appearance[:1], x) for x in shares]))
    into, out = case.inputs["res_in"].shape[1], case.outputs["resblock"].shape[1]
    case.compare("resblock", load(Block(into, out), case.weights("resblock."), BLOCK)(case.inputs["res_in"]))
    for name, compose in (("composite", weighted), ("composite_max", densest)):
        density, shares = compose(case.inputs["comp_sigma"])
        case.compare(f"{name}.sigma_sum", density)
        case.compare(f"{name}.feat", (shares[..., None] * case.inputs["comp_feat"]).sum(0))
    for name, intervals in (("weights", infinite_last_interval), ("weights_last0", zero_last_interval)):
        lengths = intervals(case.inputs["vol_depth"], case.inputs["vol_ray"])
        case.compare(f"volume.{name}", transmission_weights(case.inputs["vol_sigma"].relu(), lengths))


def numbers_after(case: Case, name: str, text: str) -> Tensor:
    """The numbers that an output's meaning lists behind this text."""
    meaning = case.info["outputs"][name]["meaning"]
    return torch.tensor([float(x) for x in re.findall(r"[\d.]+", meaning.split(text)[1])])


@torch.no_grad()
def discriminator(case: Case) -> None:
    for variant, of in case.config["dc"].items():
        discriminator = load(build_discriminator(of), case.weights(f"dc_{variant}."), DISCRIMINATOR)
        images = case.inputs[f"x_{discriminator.resolution}"] * 2 - 1
        with hearing(dict(enumerate(discriminator.layers))) as heard:
            case.compare(f"dc_{variant}.score", discriminator(images).scores)
        layers = {i: nn.functional.leaky_relu(x, 0.2).flatten(1) for i, ((_, x),) in heard.items()}
        ours = {f"block{i}_mean_std": torch.stack([x.mean(1), x.std(1)]) for i, x in layers.items()}
        for name, value in case.recorded(f"dc_{variant}.", ours).items():
            case.compare(name, value)
        more = torch.cat([images, images[:, :1]], dim=1)
        case.compare(f"dc_{variant}.score_extra_channels", discriminator(more).scores)
    for variant, of in case.config["resnet"].items():
        discriminator = load_residual(case, of, f"resnet_{variant}.")
        case.compare(f"resnet_{variant}.score", discriminator(case.inputs[f"x_{of.get('image_size', 64)}"]).scores)
