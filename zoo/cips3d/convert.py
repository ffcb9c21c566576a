"""The published CIPS-3D's checkpoints (github.com/PeterouZh/CIPS-3D) and ours.

A training run of it leaves folders with ``generator.pth``, ``G_ema.pth`` (the average, from which pictures are made)
and ``discriminator.pth``, bare state dicts; ``*_model.pth``, the same as whole modules; and ``config_command.yaml``.
The published downloads are zips of such folders. Sizes are those of the tensors; cameras, depths and numbers of samples
come from an experiment. Optimizers are in none of the files.
"""

import re
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from zoo.weights.bundle import Part
from zoo.weights.convert import Converted
from zoo.weights.names import filled, to_published
from zoo.weights.pickles import Record
from zoo.weights.read import Contents, Place, class_name, is_module, module_state, read, tensors_in

# ours -> published
GENERATOR = [
    (r"field\.layers\.(\d+)\.gain\.", r"siren.network.\1.gain_fc."),
    (r"field\.layers\.(\d+)\.phase\.", r"siren.network.\1.bias_fc."),
    (r"field\.layers\.(\d+)\.", r"siren.network.\1."),
    (r"field\.density\.", "siren.final_layer."),
    (r"field\.colour_sine\.gain\.", "siren.color_layer_sine.gain_fc."),
    (r"field\.colour_sine\.phase\.", "siren.color_layer_sine.bias_fc."),
    (r"field\.colour_sine\.", "siren.color_layer_sine."),
    (r"field\.colour\.", "siren.color_layer_linear.0."),
    (r"mapping\.shape\.heads\.colour\.", "mapping_network_nerf.nerf_rgb."),
    (r"mapping\.shape\.heads\.(\d+)\.", r"mapping_network_nerf.nerf_w\1."),
    (r"mapping\.appearance\.heads\.(\d+)\.", lambda m: f"mapping_network_inr.inr_w{layer(m[1])}."),
    (r"mapping\.shape\.(base\.)?", "mapping_network_nerf.base_net."),
    (r"mapping\.appearance\.(base\.)?", "mapping_network_inr.base_net."),
    (r"mapping\.colour\.", "nerf_rgb_mapping."),
    (r"inr\.blocks\.(\d+)\.first\.", lambda m: f"inr_net.network.{side(m[1])}.mod1."),
    (r"inr\.blocks\.(\d+)\.second\.", lambda m: f"inr_net.network.{side(m[1])}.mod2."),
    (r"inr\.blocks\.(\d+)\.to_rgb\.", lambda m: f"inr_net.to_rgbs.{side(m[1])}.linear."),
    (r"inr\.final\.", "inr_net.tanh.0."),
    (r"auxiliary\.", "aux_to_rbg.0."),
]
PARTS = {"weight": "equal_conv.weight", "bias": "flrelu.bias"}  # of a convolution
DISCRIMINATOR = [
    (r"(\w+)\.from_rgb\.(\d+)\.(\w+)", lambda m: f"{tower(m[1])}.conv_in.{side(m[2])}.{PARTS[m[3]]}"),
    (r"(\w+)\.blocks\.(\d+)\.first\.(\w+)", lambda m: f"{tower(m[1])}.convs.{2 * side(m[2])}.conv1.{PARTS[m[3]]}"),
    (r"(\w+)\.blocks\.(\d+)\.second\.(\w+)", lambda m: f"{tower(m[1])}.convs.{2 * side(m[2])}.conv2.{PARTS[m[3]]}"),
    (r"(\w+)\.blocks\.(\d+)\.skip\.(\w+)", lambda m: f"{tower(m[1])}.convs.{2 * side(m[2])}.skip.{PARTS[m[3]]}"),
    (r"(\w+)\.final\.(\w+)", lambda m: f"{tower(m[1])}.final_conv.{PARTS[m[2]]}"),
    (r"(\w+)\.dense\.", lambda m: f"{tower(m[1])}.space_linear."),
    (r"(\w+)\.score\.", lambda m: f"{tower(m[1])}.out_linear."),
]
GENERATORS = {"GeneratorNerfINR", "GeneratorNerfINR_freeze_NeRF"}
DISCRIMINATORS = {"Discriminator_MultiScale_Aux"}
AVERAGE, RAW, JUDGE = "G_ema.pth", "generator.pth", "discriminator.pth"
EXPERIMENTS = ["cips3d/ffhq256", "cips3d/cartoon256", "cips3d/afhq256", "cips3d/ffhq128_noaux"]
# Those whose features follow the appearance; no such file was released.
EXPERIMENTS_V1 = ["cips3d/ffhq256_v1", "cips3d/afhq128", "cips3d/afhqcat256"]


# Names of tensors


def side(index: str | int) -> int:
    """The published name of our block or level of this number."""
    return 4 * 2 ** int(index)


def layer(index: str | int) -> str:
    """The published name of a layer of the deep network, two in each block."""
    return f"{side(int(index) // 2)}_{int(index) % 2}"


def tower(name: str) -> str:
    """The published name of a tower."""
    return {"main": "main_disc", "auxiliary": "aux_disc"}[name]


# Files


def part(contents: Contents) -> str | None:
    """What a file of the published CIPS-3D is: "generator", "discriminator", a module of one; None for any other file.

    A whole module holds what a state dict beside it holds, so in a folder it does not count.
    """
    value = contents.value
    if is_module(value):
        name = class_name(value)
        found = "generator" if name in GENERATORS else "discriminator" if name in DISCRIMINATORS else None
        return f"module of a {found}" if found else None
    if not isinstance(value, dict):
        return None
    if {"siren.final_layer.weight", "inr_net.network.4.mod1.weight"} <= set(value):
        return "generator"
    return "discriminator" if {"main_disc.out_linear.weight", "aux_disc.out_linear.weight"} <= set(value) else None


def state_of(contents: Contents) -> dict[str, Tensor]:
    """The tensors of a generator or discriminator, without the prefix that several processes leave."""
    value = contents.value
    state = module_state(value) if isinstance(value, Record) else tensors_in("", value)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def experiments(contents: Contents) -> list[str] | None:
    """The published experiments that a generator may come from."""
    if not str(part(contents)).endswith("generator"):
        return None
    return EXPERIMENTS_V1 if "nerf_rgb_mapping.weight" in state_of(contents) else EXPERIMENTS


def choose(found: list[Place]) -> Place | None:
    """The generator that is meant where a folder of a run holds raw and averaged ones; None where that is not so."""
    if len(found) == 2 and {place.name for place in found} == {AVERAGE, RAW}:
        return next(place for place in found if place.name == AVERAGE)
    return None


def convert(
    place: Place, contents: Contents, experiment: dict[str, Any] | None, weights: str | None = None
) -> Converted:
    """A generator, raw or averaged, or a discriminator.

    Args:
        place: of the file; the other generator is looked for beside it.
        contents: of the file.
        experiment: config of its generator, which gives what the file does not hold.
        weights: "raw" or "ema"; by default ema where it is there.

    Raises:
        ValueError: a file that is asked for is missing, or the experiment is of another system.
    """
    if str(part(contents)).endswith("discriminator"):
        return convert_discriminator(place, contents)
    if experiment["class_path"] != "zoo.cips3d.Generator":
        raise ValueError(f"{place} is a CIPS-3D, and the experiment is of another system: {experiment['class_path']}.")
    used = meant(place, weights)
    state = state_of(contents if used == place else read(used))
    card = {"system": "CIPS3D", "weights": "ema" if used.name.startswith("G_ema") else "raw"}
    card["iterations"] = iterations(place)
    return Converted(*filled(resized(experiment, state), state, GENERATOR, used), card, used.name)


def all_weights(place: Place, contents: Contents) -> dict[str, tuple[Place, Contents, str | None]]:
    """Everything that ``convert`` makes of a file and those beside it, by name, and what it takes."""
    own = "ema" if place.name.startswith("G_ema") else "raw"
    other = {"ema": "raw", "raw": "ema"}[own]
    found: dict = {own: (place, contents, own)}
    if place.beside({"raw": RAW, "ema": AVERAGE}[other]):
        found[other] = (place, contents, other)
    judge = place.beside(JUDGE)
    return found | ({} if judge is None else {"discriminator": (judge, read(judge), None)})


def official(parts: dict[str, Part]) -> dict[str, Any]:
    """Files of the published program, by name."""
    files = {"ema": AVERAGE, "raw": RAW, "discriminator": JUDGE}
    made = {}
    for name, (_, tensors, _) in parts.items():
        learned = {key: tensor for key, tensor in tensors.items() if not key.startswith("mean_")}
        made[files[name]] = to_published(learned, DISCRIMINATOR if name == "discriminator" else GENERATOR)
    return made


def meant(place: Place, weights: str | None) -> Place:
    """The file with the weights that are asked for.

    Raises:
        ValueError: it is not there, or there are no such weights.
    """
    if weights not in (None, "raw", "ema"):
        raise ValueError(f"A CIPS-3D has no weights '{weights}': raw or ema.")
    averaged = place.name.startswith("G_ema")
    if weights == ("ema" if averaged else "raw") or (averaged and weights is None):
        return place
    name = RAW if weights == "raw" else AVERAGE
    found = place.beside(name)
    if found is None and weights is not None:
        raise ValueError(f"There is no {name} beside {place}; --weights {'ema' if averaged else 'raw'} needs none.")
    return found or place


def iterations(place: Place) -> int | None:
    """How long its last stage was trained, if the file that says so lies beside."""
    counters = place.beside("state_dict.pth")
    held = {} if counters is None else read(counters).value
    step = held.get("step") if isinstance(held, dict) else None
    return step if isinstance(step, int) else None


def size(state: dict[str, Tensor], name: str, axes: int) -> torch.Size:
    """The shape of a published tensor that has so many axes."""
    if name not in state or state[name].dim() != axes:
        raise ValueError(f"The file has no '{name}' with {axes} axes, which every CIPS-3D has.")
    return state[name].shape


def count(state: dict[str, Tensor], pattern: str) -> int:
    """How many tensors have such names."""
    return len([name for name in state if re.fullmatch(pattern, name)])


def resized(config: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Any]:
    """A generator's config with the sizes of published tensors.

    Raises:
        ValueError: tensors are missing, or there are some that no published experiment has.
    """
    if any(re.match(r"mapping_network_(nerf|inr)\.(nerf|inr)_", name) for name in state):
        raise ValueError(
            "The generator has styles of single layers (head_layers), which no published experiment has and "
            "zoo convert does not read: load its tensors into a zoo.cips3d.Generator with zoo.cips3d.Heads."
        )
    config = deepcopy(config)
    args = config["init_args"]
    field, inr, mapping = (args[name].setdefault("init_args", {}) for name in ("field", "inr", "mapping"))
    field["hidden_dim"], field["style_dim"] = size(state, "siren.network.0.gain_fc.weight", 2)
    field["num_layers"] = count(state, r"siren\.network\.\d+\.linear\.weight")
    field["feature_dim"], _ = size(state, "siren.color_layer_linear.0.weight", 2)
    _, inr["feature_dim"], inr["hidden_dim"] = size(state, "inr_net.network.4.mod1.weight", 3)
    _, inr["style_dim"] = size(state, "inr_net.network.4.mod1.modulation.weight", 2)
    inr["num_blocks"] = count(state, r"inr_net\.network\.\d+\.mod1\.weight")
    inr["rgb_dim"], _ = size(state, f"inr_net.to_rgbs.{side(inr['num_blocks'] - 1)}.linear.weight", 2)
    mapping["features_from"] = "appearance" if "nerf_rgb_mapping.weight" in state else "shape"
    for name, published in (("shape", "mapping_network_nerf"), ("appearance", "mapping_network_inr")):
        sizes = mapping_sizes(state, f"{published}.base_net")
        mapping[name] = {"class_path": "zoo.cips3d.MappingNetwork", "init_args": sizes}
    return config


def mapping_sizes(state: dict[str, Tensor], prefix: str) -> dict[str, Any]:
    """``init_args`` of a mapping network: its normalisations have weights with one axis."""
    style_dim, latent_dim = size(state, f"{prefix}.0.weight", 2)
    numbers = sorted(int(n.split(".")[-2]) for n in state if re.fullmatch(re.escape(prefix) + r"\.\d+\.weight", n))
    axes = [state[f"{prefix}.{number}.weight"].dim() for number in numbers]
    return {
        "latent_dim": latent_dim,
        "style_dim": style_dim,
        "num_layers": axes.count(2),
        "norm_hidden": axes[:2] == [2, 1] and len(axes) > 2,
        "norm_out": axes[-1] == 1,
    }


def convert_discriminator(place: Place, contents: Contents) -> Converted:
    """See ``convert``."""
    state = state_of(contents)
    towers = {name: tower_config(state, f"{tower(name)}.") for name in ("main", "auxiliary")}
    config = {"class_path": "zoo.cips3d.Discriminator", "init_args": towers}
    card = {"system": "CIPS3D", "weights": "discriminator", "iterations": iterations(place)}
    return Converted(*filled(config, state, DISCRIMINATOR, place), card, place.name)


def tower_config(state: dict[str, Tensor], prefix: str) -> dict[str, Any]:
    """``class_path`` and ``init_args`` of a tower."""
    levels = count(state, re.escape(prefix) + r"conv_in\.\d+\.equal_conv\.weight")
    channels = [size(state, f"{prefix}conv_in.{side(i)}.equal_conv.weight", 4)[0] for i in range(levels)]
    inputs = size(state, f"{prefix}final_conv.equal_conv.weight", 4)[1]
    shrink_first = any(name.startswith(prefix) and name.endswith("conv1.down_blur.kernel") for name in state)
    group = 4 if inputs > channels[0] else 0  # how large groups were is in no file; 4 where any were used
    return {
        "class_path": "zoo.cips3d.Tower",
        "init_args": {"channels": channels, "shrink_first": shrink_first, "group": group},
    }
