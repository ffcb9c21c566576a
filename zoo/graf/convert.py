"""The published GRAF's checkpoints (github.com/autonomousvision/graf) and ours.

One file holds the state dicts of both networks, of the averaged generator and of the optimizers. Widths are those of
the tensors; cameras, depths, samples and the resolution are in none.
"""

from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from zoo.graf.model import Discriminator
from zoo.utils.errors import UserError
from zoo.weights.convert import Published
from zoo.weights.names import Table, count, inside, size
from zoo.weights.read import Contents, Place, tensors_in

NAME = "GRAF"
WEIGHTS = {"ema": "generator_test", "raw": "generator", "discriminator": "discriminator"}
BIRDS = ["graf/cub64"]  # the only ones whose colour does not depend on the direction
OTHERS = [
    *(f"graf/carla{resolution}" for resolution in (64, 128, 256, 512)),
    *("graf/cats64", "graf/celeba128", "graf/celeba64", "graf/celebahq256", "graf/celebahq512"),
]

# ours -> published; the second network of hierarchical sampling, which no published experiment has, is generator_fine
FIELD = [
    (r"layers\.(\d+)\.", r"pts_linears.\1."),
    (r"density\.", "alpha_linear."),
    (r"feature\.", "feature_linear."),
    (r"colour_hidden\.", "views_linears.0."),
    (r"colour\.", "rgb_linear."),
    (r"output\.", "output_linear."),
]
GENERATOR = [*inside(r"field\.", "generator.", FIELD), *inside(r"renderer\.field\.", "generator_fine.", FIELD)]
# by the side of the patches: norms and activations are counted too, and no norm follows the first convolution for large
SMALL = [(r"convolutions\.(\d+)\.", lambda m: f"main.{3 * int(m[1])}.")]
LARGE = [(r"convolutions\.(\d+)\.", lambda m: f"main.{max(0, 3 * int(m[1]) - 1)}.")]
DISCRIMINATOR = {32: SMALL, 64: LARGE, 128: LARGE}


def table(network: nn.Module) -> Table:
    """The names of a network's tensors."""
    return DISCRIMINATOR[network.size] if isinstance(network, Discriminator) else GENERATOR


def part(contents: Contents) -> str | None:
    """A file of the published GRAF holds a generator, or is none."""
    state = generator_in(contents.value)
    return "generator" if {"pts_linears.0.weight", "pts_linears.1.weight"} <= set(state) else None


def experiments(contents: Contents) -> list[str]:
    """The published experiments whose colour depends on as much."""
    state = tensors_in("generator", generator_in(contents.value))
    width = size(state, "generator.pts_linears.1.weight")[0]
    if "generator.views_linears.0.weight" not in state:
        return []
    return BIRDS if size(state, "generator.views_linears.0.weight")[1] == width + 128 else OTHERS


def published(place: Place, contents: Contents, weights: str) -> Published | None:
    """One of the state dicts in the file."""
    value, states = contents.value, states_in(contents.value)
    if WEIGHTS[weights] not in states:
        return None
    if weights != "discriminator" and "generator_fine" in value:
        raise UserError(f"{place} has a second network for hierarchical sampling, which no experiment here has.")
    state = tensors_in("" if weights == "discriminator" else "generator", states[WEIGHTS[weights]])
    return Published(state, f"{place.name}, {weights} weights", {"iterations": value.get("it")}, complete=True)


def states_in(value: Any) -> dict[str, dict]:
    """The state dicts in a file, by name; a bare one counts as the EMA."""
    if not isinstance(value, dict):
        return {}
    if "pts_linears.0.weight" in value:
        return {WEIGHTS["ema"]: value}
    return {name: value[name] for name in WEIGHTS.values() if isinstance(value.get(name), dict)}


def generator_in(value: Any) -> dict:
    """The state dict of either generator; empty where there is none."""
    states = states_in(value)
    return states.get("generator") or states.get("generator_test") or {}


def config(published: Published, weights: str, experiment: dict[str, Any] | None) -> dict[str, Any]:
    """The experiment's with the sizes of the tensors; a discriminator's are all that there is to it."""
    if weights == "discriminator":
        return discriminator_config(published.state)
    return resized(experiment, published.state)


def official(networks: dict[str, dict[str, Tensor]], card: dict[str, str]) -> dict[str, Any]:
    """One file, without the optimizers."""
    model = {
        WEIGHTS[name]: {key.removeprefix("generator."): tensor for key, tensor in state.items()}
        for name, state in networks.items()
    }
    return {"model.pt": model | {"it": int(card.get("iterations", 0))}}


# Sizes


def resized(experiment: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Any]:
    """A generator's config with the sizes of published tensors; the numbers of octaves are the experiment's."""
    config = deepcopy(experiment)
    own = config["init_args"]["field"].setdefault("init_args", {})
    width, entering = size(state, "generator.pts_linears.0.weight")
    point, view = own.get("point_octaves", 10), own.get("view_octaves", 4)
    own["hidden_dim"] = width
    own["num_layers"] = count(state, r"generator\.pts_linears\.\d+\.weight")
    own["shape_dim"] = entering - 3 * (2 * point + 1)
    seen = size(state, "generator.views_linears.0.weight")[1]
    own["appearance_dim"] = seen - width - (0 if view is None else 3 * (2 * view + 1))
    if min(own["shape_dim"], own["appearance_dim"]) < 0:
        raise UserError("The file's networks take fewer numbers than the experiment's: take another experiment.")
    return config


def discriminator_config(state: dict[str, Tensor]) -> dict[str, Any]:
    """Our config of a published discriminator: patches twice as large have one more convolution."""
    names = [name for name in state if name.endswith(".weight_orig")]
    sizes = {4: 32, 5: 64, 6: 128}
    if len(names) not in sizes or state[names[-1]].dim() != 4:
        raise UserError(f"The file's discriminator has {len(names)} convolutions, and every published GRAF 4, 5 or 6.")
    sizes_of = {"size": sizes[len(names)], "channels": max(1, state[names[-1]].shape[1] // 8)}
    return {"class_path": "zoo.graf.Discriminator", "init_args": sizes_of}
