"""The published GIRAFFE's checkpoints (github.com/autonomousvision/giraffe) and ours.

One file holds all: discriminator, generator and its average, ``generator_test``, from which pictures are made. Widths
are those of the tensors; cameras, ranges of boxes, depths and numbers of samples are in none of the files.
"""

import re
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from zoo.weights.bundle import Part, build, check_fit
from zoo.weights.convert import Converted
from zoo.weights.names import UNUSED, from_published, to_published
from zoo.weights.read import Contents, Place, tensors_in

# ours -> published; for a field, a renderer, a discriminator alone
FIELD = [
    (r"first\.", "fc_in."),
    (r"shape\.", "fc_z."),
    (r"layers\.(\d+)\.", r"blocks.\1."),
    (r"skip_shapes\.(\d+)\.", r"fc_z_skips.\1."),
    (r"skip_points\.(\d+)\.", r"fc_p_skips.\1."),
    (r"density\.", "sigma_out."),
    (r"appearance\.", "fc_z_view."),
    (r"colour\.", "feat_view."),
    (r"view\.", "fc_view."),
    (r"features\.", "feat_out."),
]
RENDERER = [
    (r"enter\.", "conv_in."),
    (r"layers\.(\d+)\.", r"conv_layers.\1."),
    (r"colours\.(\d+)\.", r"conv_rgb.\1."),
    (r"colour\.", "conv_rgb."),
    (r"colour_up\.kernel", "upsample_rgb.1.f"),
    (r"up\.kernel", "upsample_2.1.f"),
]
DISCRIMINATOR = [(r"layers\.(\d+)\.", r"blocks.\1."), (r"score\.", "conv_out.")]
BLOCK = [(r"first\.", "conv_0."), (r"second\.", "conv_1."), (r"skip\.", "conv_s.")]


def inside(ours: str, published: str, table: list) -> list:
    """The table of a part, for the whole that holds it."""
    return [(ours + pattern, published + to) for pattern, to in table]


GENERATOR = [
    *inside(r"scene\.objects\.", "decoder.", FIELD),
    *inside(r"scene\.background\.", "background_generator.", FIELD),
    *inside(r"renderer\.", "neural_renderer.", RENDERER),
]
# The 2D baseline: between its blocks the published lists hold what changes the size, so every other number is missing.
RESIDUAL = [
    *((rf"blocks\.{i}\.{pattern}", f"resnet.{2 * i}.{to}") for i in range(10) for pattern, to in BLOCK),
    (r"enter\.", "conv_img."),
]
GENERATOR_2D = [*RESIDUAL[:-1], (r"enter\.", "fc."), (r"colour\.", "conv_img.")]
DISCRIMINATOR_2D = [*RESIDUAL, (r"score\.", "fc.")]

# weights -> prefix of their tensors; pictures and scores come from the average
WEIGHTS = {"ema": "generator_test.", "raw": "generator."}
NETWORKS = WEIGHTS | {"discriminator": "discriminator."}
# number of times that the size doubles -> experiments
EXPERIMENTS = {
    2: [f"giraffe/{name}64" for name in ("cats", "celeba", "chairs", "church", "compcars")],
    4: [f"giraffe/{name}" for name in ("celebahq256", "church256", "clevr2_256", "compcars256", "ffhq256")],
}
MANY = ["giraffe/clevr2345_256"]  # the only one whose fields are half as wide


def part(contents: Contents) -> str | None:
    """What a file of the published GIRAFFE is: "generator", or None for any other file."""
    model = contents.value.get("model") if isinstance(contents.value, dict) else None
    needed = {"generator.decoder.fc_in.weight", "generator.background_generator.fc_in.weight"}
    return "generator" if isinstance(model, dict) and needed <= set(model) else None


def experiments(contents: Contents) -> list[str] | None:
    """The published experiments that have as many sizes and fields as wide."""
    state = under("generator.", contents)
    if len(state["decoder.fc_in.weight"]) == 64:
        return MANY
    return EXPERIMENTS.get(len(numbered(state, r"neural_renderer\.conv_layers\.\d+\.weight")), [])


def convert(
    place: Place, contents: Contents, experiment: dict[str, Any] | None, weights: str | None = None
) -> Converted:
    """A generator, averaged or raw, or the discriminator.

    Args:
        place: of the file.
        contents: of the file.
        experiment: config of its generator, which gives what the file does not hold.
        weights: "ema", "raw" or "discriminator"; by default ema.

    Raises:
        ValueError: there are no such weights, or they do not fit the experiment.
    """
    if weights not in (None, *NETWORKS):
        raise ValueError(f"A GIRAFFE has no weights '{weights}': {', '.join(NETWORKS)}.")
    weights = weights or "ema"
    state = under(NETWORKS[weights], contents)
    if not state:
        raise ValueError(f"{place} has no {'average' if weights == 'ema' else weights}; --weights takes another.")
    if weights == "discriminator":
        config, table = discriminator_config(state), DISCRIMINATOR
    elif experiment["class_path"] != "zoo.giraffe.Generator":
        raise ValueError(f"{place} is a GIRAFFE, and the experiment is of another system: {experiment['class_path']}.")
    else:
        config, table = resized(experiment, state), GENERATOR
    with torch.device("meta"):  # a file that claims impossible sizes is found out before there is any memory
        planned = build(config, nn.Module)
    ours = from_published(state, list(planned.state_dict()), table)
    used = {name: tensor for name, tensor in ours.items() if not name.startswith(UNUSED)}
    check_fit(planned, used, place)
    network = build(config, nn.Module)
    network.load_state_dict(used)
    card = {"system": "GIRAFFE", "weights": weights, "iterations": contents.value.get("it")}
    unused = {name: tensor for name, tensor in ours.items() if name.startswith(UNUSED)}
    return Converted(network, config, unused, card, f"{place.name}, {weights} weights")


def all_weights(place: Place, contents: Contents) -> dict[str, tuple[Place, Contents, str]]:
    """Everything that ``convert`` makes of a file, by name, and what it takes."""
    return {name: (place, contents, name) for name, prefix in NETWORKS.items() if under(prefix, contents)}


def official(parts: dict[str, Part]) -> dict[str, Any]:
    """Files of the published program, by name."""
    model, iterations = {}, 0
    for name, (_, tensors, card) in parts.items():
        state = to_published(tensors, DISCRIMINATOR if name == "discriminator" else GENERATOR)
        model |= {NETWORKS[name] + key: tensor for key, tensor in state.items()}
        iterations = int(card.get("iterations", 0))
    return {"model.pt": {"model": model, "it": iterations}}


def discriminator_config(state: dict[str, Tensor]) -> dict[str, Any]:
    """Our config of a published discriminator: each layer halves the image, down to 4 pixels."""
    layers = numbered(state, r"blocks\.\d+\.weight")
    first, score = (state.get(name, torch.empty(0)) for name in ("blocks.0.weight", "conv_out.weight"))
    if {first.dim(), score.dim()} != {4} or len(layers) > 12:
        raise ValueError("The file's discriminator is not of the kind that every published GIRAFFE has.")
    sizes = {"resolution": 4 * 2 ** len(layers), "channels": score.shape[1], "image_channels": first.shape[1]}
    return {"class_path": "zoo.giraffe.Discriminator", "init_args": sizes}


def under(prefix: str, contents: Contents) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that."""
    tensors = tensors_in("", contents.value["model"])
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def numbered(state: dict[str, Tensor], pattern: str) -> list[str]:
    return [name for name in state if re.fullmatch(pattern, name)]


def resized(config: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Any]:
    """A generator's config with the widths of published tensors."""
    config = deepcopy(config)
    args = config["init_args"]

    def shape(name: str) -> list[int]:
        if name not in state or state[name].dim() < 2:
            raise ValueError(f"The file has no matrix '{name}', which every GIRAFFE has.")
        return list(state[name].shape)

    for field, published in (("objects", "decoder"), ("background", "background_generator")):
        own = args[field].setdefault("init_args", {})
        own["hidden_dim"], own["latent_dim"] = shape(f"{published}.fc_z.weight")
        own["num_layers"] = len(numbered(state, rf"{published}\.blocks\.\d+\.weight")) + 1
        own["features"] = shape(f"{published}.feat_out.weight")[0]
    layers = numbered(state, r"neural_renderer\.conv_layers\.\d+\.weight")
    last = f"neural_renderer.conv_layers.{len(layers) - 1}.weight"
    own = args["renderer"].setdefault("init_args", {})
    own["stages"], own["channels"] = len(layers), shape("neural_renderer.conv_layers.0.weight")[1]
    own["channels_in"], own["least"] = args["objects"]["init_args"]["features"], shape(last)[0]
    return config
