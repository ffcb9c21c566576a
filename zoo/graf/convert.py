"""The published GRAF's checkpoints (github.com/autonomousvision/graf) and ours.

One file holds the state dicts of both networks, of the averaged generator and of the optimizers. Widths are those of
the tensors; cameras, depths, samples and the resolution are in none.
"""

import re
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from zoo.weights.bundle import Part, build, check_fit
from zoo.weights.convert import Converted
from zoo.weights.names import from_published, to_published
from zoo.weights.read import Contents, Place, tensors_in

# ours -> published; the second network of hierarchical sampling, which no published experiment has, is generator_fine
FIELD = [
    (r"layers\.(\d+)\.", r"pts_linears.\1."),
    (r"density\.", "alpha_linear."),
    (r"feature\.", "feature_linear."),
    (r"colour_hidden\.", "views_linears.0."),
    (r"colour\.", "rgb_linear."),
    (r"output\.", "output_linear."),
]
GENERATOR = [
    *((r"field\." + pattern, "generator." + to) for pattern, to in FIELD),
    *((r"volume\.field\." + pattern, "generator_fine." + to) for pattern, to in FIELD),
]
# by the side of the patches: norms and activations are counted too, and no norm follows the first convolution for large
DISCRIMINATOR = {
    32: [(r"convolutions\.(\d+)\.", lambda m: f"main.{3 * int(m[1])}.")],
    64: [(r"convolutions\.(\d+)\.", lambda m: f"main.{max(0, 3 * int(m[1]) - 1)}.")],
    128: [(r"convolutions\.(\d+)\.", lambda m: f"main.{max(0, 3 * int(m[1]) - 1)}.")],
}

# pictures and scores come from the first
WEIGHTS = {"ema": "generator_test", "raw": "generator", "discriminator": "discriminator"}
BIRDS = ["graf/cub64"]  # the only ones whose colour does not depend on the direction
OTHERS = [
    *(f"graf/carla{resolution}" for resolution in (64, 128, 256, 512)),
    *("graf/cats64", "graf/celeba128", "graf/celeba64", "graf/celebahq256", "graf/celebahq512"),
]


def part(contents: Contents) -> str | None:
    """What a file of the published GRAF is: "generator"; None for any other file."""
    value = contents.value
    if not isinstance(value, dict) or not isinstance(value.get("generator"), dict):
        return None
    return "generator" if {"pts_linears.0.weight", "pts_linears.1.weight"} <= set(value["generator"]) else None


def experiments(contents: Contents) -> list[str]:
    """The published experiments that a generator may come from."""
    state = tensors_in("", contents.value["generator"])
    width = size(state, "pts_linears.1.weight")[0]
    if "views_linears.0.weight" not in state:
        return []
    return BIRDS if size(state, "views_linears.0.weight")[1] == width + 128 else OTHERS


def convert(
    place: Place, contents: Contents, experiment: dict[str, Any] | None, weights: str | None = None
) -> Converted:
    """The generator, raw or averaged, or the discriminator.

    Args:
        place: of the file.
        contents: of the file.
        experiment: config of its generator, which gives what the file does not hold.
        weights: "raw", "ema" or "discriminator"; by default ema where the file has it, else raw.

    Raises:
        ValueError: the file has no such weights, has a second network, or does not fit the experiment.
    """
    weights = weights or ("ema" if WEIGHTS["ema"] in contents.value else "raw")
    if weights not in WEIGHTS or WEIGHTS[weights] not in contents.value:
        there = " and ".join(name for name, key in WEIGHTS.items() if key in contents.value)
        raise ValueError(f"{place} has no weights '{weights}', but {there}.")
    if weights == "discriminator":
        state = tensors_in("", contents.value[WEIGHTS[weights]])
        config = discriminator_config(state)
        table = DISCRIMINATOR[config["init_args"]["size"]]
    else:
        if experiment["class_path"] != "zoo.graf.Generator":
            raise ValueError(f"{place} is a GRAF, and the experiment is of another system: {experiment['class_path']}.")
        if "generator_fine" in contents.value:
            raise ValueError(f"{place} has a second network for hierarchical sampling, which no experiment here has.")
        state = tensors_in("generator", contents.value[WEIGHTS[weights]])
        config = resized(experiment, {name.removeprefix("generator."): tensor for name, tensor in state.items()})
        table = GENERATOR
    with torch.device("meta"):  # a file that claims impossible sizes is found out before there is any memory
        planned = build(config, nn.Module)
    ours = from_published(state, list(planned.state_dict()), table)
    check_fit(planned, ours, place)  # nothing is left over: the networks read every tensor
    network = build(config, nn.Module)
    network.load_state_dict(ours)
    card = {"system": "GRAF", "weights": weights, "iterations": contents.value.get("it")}
    return Converted(network, config, {}, card, f"{place.name}, {weights} weights")


def all_weights(place: Place, contents: Contents) -> dict[str, tuple[Place, Contents, str]]:
    """Everything that ``convert`` makes of a file, by name, and what it takes."""
    return {name: (place, contents, name) for name, key in WEIGHTS.items() if key in contents.value}


def official(parts: dict[str, Part]) -> dict[str, Any]:
    """Files of the published program, by name."""
    model: dict[str, Any] = {}
    for name, (config, tensors, card) in parts.items():
        is_judge = name == "discriminator"
        table = DISCRIMINATOR[config["init_args"].get("size", 32)] if is_judge else GENERATOR
        state = to_published(tensors, table)
        model[WEIGHTS[name]] = {key.removeprefix("generator."): tensor for key, tensor in state.items()}
        model["it"] = int(card.get("iterations", 0))
    return {"model.pt": model}


def discriminator_config(state: dict[str, Tensor]) -> dict[str, Any]:
    """Our config of a published discriminator: patches twice as large have one more convolution."""
    names = [name for name in state if name.endswith(".weight_orig")]
    sizes = {4: 32, 5: 64, 6: 128}
    if len(names) not in sizes or state[names[-1]].dim() != 4:
        raise ValueError(f"The file's discriminator has {len(names)} convolutions, and every published GRAF 4, 5 or 6.")
    sizes_of = {"size": sizes[len(names)], "channels": max(1, state[names[-1]].shape[1] // 8)}
    return {"class_path": "zoo.graf.Discriminator", "init_args": sizes_of}


def resized(config: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Any]:
    """A generator's config with the sizes of published tensors; the numbers of octaves are the config's."""
    config = deepcopy(config)
    own = config["init_args"]["field"].setdefault("init_args", {})
    width, entering = size(state, "pts_linears.0.weight")
    point, view = own.get("point_octaves", 10), own.get("view_octaves", 4)
    own["hidden_dim"] = width
    own["num_layers"] = len([name for name in state if re.fullmatch(r"pts_linears\.\d+\.weight", name)])
    own["shape_dim"] = entering - 3 * (2 * point + 1)
    seen = size(state, "views_linears.0.weight")[1]
    own["appearance_dim"] = seen - width - (0 if view is None else 3 * (2 * view + 1))
    if min(own["shape_dim"], own["appearance_dim"]) < 0:
        raise ValueError("The file's networks take fewer numbers than the experiment's: take another experiment.")
    return config


def size(state: dict[str, Tensor], name: str) -> torch.Size:
    """The shape of a published matrix."""
    if name not in state or state[name].dim() != 2:
        raise ValueError(f"The file has no matrix '{name}', which every published GRAF has.")
    return state[name].shape
