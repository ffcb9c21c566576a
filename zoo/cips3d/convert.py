"""The published CIPS-3D's checkpoints (github.com/PeterouZh/CIPS-3D) and ours.

A training run of it leaves folders with ``generator.pth``, ``G_ema.pth`` (the EMA, from which images are made)
and ``discriminator.pth``, bare state dicts; ``*_model.pth``, the same as whole modules; and ``config_command.yaml``.
The published downloads are zips of such folders. Sizes are those of the tensors; cameras, depths and numbers of samples
come from an experiment. Optimizers are in none of the files.
"""

import re
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from zoo.cips3d.discriminator import Discriminator
from zoo.utils.errors import UserError
from zoo.utils.records import Record
from zoo.weights.convert import Published
from zoo.weights.names import Table, count, inside, size
from zoo.weights.read import Contents, Place, class_name, is_module, module_state, read, tensors_in

NAME = "CIPS3D"
WEIGHTS = {"ema": "G_ema.pth", "raw": "generator.pth", "discriminator": "discriminator.pth"}  # files in a folder
CLASSES = {  # of whole modules
    "GeneratorNerfINR": "generator",
    "GeneratorNerfINR_freeze_NeRF": "generator",
    "Discriminator_MultiScale_Aux": "discriminator",
}
EXPERIMENTS = ["cips3d/ffhq256", "cips3d/cartoon256", "cips3d/afhq256", "cips3d/ffhq128_noaux"]
# Those whose features follow the appearance; no such file was released.
EXPERIMENTS_V1 = ["cips3d/ffhq256_v1", "cips3d/afhq128", "cips3d/afhqcat256"]


def side(index: str | int) -> int:
    """The published name of our block or level of this number."""
    return 4 * 2 ** int(index)


def layer(index: str | int) -> str:
    """The published name of a layer of the deep network, two in each block."""
    return f"{side(int(index) // 2)}_{int(index) % 2}"


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
    (r"mean_", None),
]
PARTS = {"weight": "equal_conv.weight", "bias": "flrelu.bias"}  # of a convolution
TOWER = [
    (r"from_rgb\.(\d+)\.(\w+)", lambda m: f"conv_in.{side(m[1])}.{PARTS[m[2]]}"),
    (r"blocks\.(\d+)\.first\.(\w+)", lambda m: f"convs.{2 * side(m[1])}.conv1.{PARTS[m[2]]}"),
    (r"blocks\.(\d+)\.second\.(\w+)", lambda m: f"convs.{2 * side(m[1])}.conv2.{PARTS[m[2]]}"),
    (r"blocks\.(\d+)\.skip\.(\w+)", lambda m: f"convs.{2 * side(m[1])}.skip.{PARTS[m[2]]}"),
    (r"final\.(\w+)", lambda m: f"final_conv.{PARTS[m[1]]}"),
    (r"dense\.", "space_linear."),
    (r"score\.", "out_linear."),
]
TOWERS = {"main": "main_disc.", "auxiliary": "aux_disc."}
DISCRIMINATOR = [entry for ours, to in TOWERS.items() for entry in inside(rf"{ours}\.", to, TOWER)]


def table(network: nn.Module) -> Table:
    """The names of a network's tensors."""
    return DISCRIMINATOR if isinstance(network, Discriminator) else GENERATOR


def part(contents: Contents) -> str | None:
    """A state dict is a generator or discriminator; a whole module holds what a state dict beside it does, too."""
    value = contents.value
    if is_module(value):
        return f"module of a {CLASSES[class_name(value)]}" if class_name(value) in CLASSES else None
    names = set(value) if isinstance(value, dict) else set()
    if {"siren.final_layer.weight", "inr_net.network.4.mod1.weight"} <= names:
        return "generator"
    return "discriminator" if {"main_disc.out_linear.weight", "aux_disc.out_linear.weight"} <= names else None


def experiments(contents: Contents) -> list[str] | None:
    """The published experiments with features of the shape, or of the appearance."""
    if not str(part(contents)).endswith("generator"):
        return None
    return EXPERIMENTS_V1 if "nerf_rgb_mapping.weight" in state_of(contents) else EXPERIMENTS


def published(place: Place, contents: Contents, weights: str) -> Published | None:
    """The file itself, or the one beside it; a discriminator has none."""
    own = "ema" if place.name.startswith("G_ema") else "raw"
    own = "discriminator" if str(part(contents)).endswith("discriminator") else own
    file = place if weights == own else None if own == "discriminator" else place.beside(WEIGHTS[weights])
    if file is None:
        return None
    state = state_of(contents if file == place else read(file))
    return Published(state, file.name, {"iterations": iterations(place)})


def config(published: Published, weights: str, experiment: dict[str, Any] | None) -> dict[str, Any]:
    """The experiment's with the sizes of the tensors; a discriminator's are all that there is to it."""
    state = published.state
    if weights != "discriminator":
        return resized(experiment, state)
    towers = {name: tower_config(state, prefix) for name, prefix in TOWERS.items()}
    return {"class_path": "zoo.cips3d.Discriminator", "init_args": towers}


def official(networks: dict[str, dict[str, Tensor]], card: dict[str, str]) -> dict[str, Any]:
    """One file for each."""
    return {WEIGHTS[name]: state for name, state in networks.items()}


def state_of(contents: Contents) -> dict[str, Tensor]:
    """The tensors of a generator or discriminator, without the prefix that several processes leave."""
    value = contents.value
    state = module_state(value) if isinstance(value, Record) else tensors_in("", value)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def iterations(place: Place) -> int | None:
    """Iterations of its last stage, if the file with that number lies beside."""
    counters = place.beside("state_dict.pth")
    value = {} if counters is None else read(counters).value
    step = value.get("step") if isinstance(value, dict) else None
    return step if isinstance(step, int) else None


# Sizes


def resized(experiment: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Any]:
    """A generator's config with the sizes of published tensors.

    Raises:
        UserError: tensors are missing, or there are some that no published experiment has.
    """
    if any(re.match(r"mapping_network_(nerf|inr)\.(nerf|inr)_", name) for name in state):
        raise UserError(
            "The generator has styles of single layers (head_layers), which no published experiment has and "
            "zoo convert does not read: load its tensors into a zoo.cips3d.Generator with zoo.cips3d.Heads."
        )
    config = deepcopy(experiment)
    args = config["init_args"]
    field, inr, mapping = (args[name].setdefault("init_args", {}) for name in ("field", "inr", "mapping"))
    field["hidden_dim"], field["style_dim"] = size(state, "siren.network.0.gain_fc.weight")
    field["num_layers"] = count(state, r"siren\.network\.\d+\.linear\.weight")
    field["feature_dim"], _ = size(state, "siren.color_layer_linear.0.weight")
    _, inr["feature_dim"], inr["hidden_dim"] = size(state, "inr_net.network.4.mod1.weight", 3)
    _, inr["style_dim"] = size(state, "inr_net.network.4.mod1.modulation.weight")
    inr["num_blocks"] = count(state, r"inr_net\.network\.\d+\.mod1\.weight")
    inr["rgb_dim"], _ = size(state, f"inr_net.to_rgbs.{side(inr['num_blocks'] - 1)}.linear.weight")
    mapping["features_from"] = "appearance" if "nerf_rgb_mapping.weight" in state else "shape"
    for name, published in (("shape", "mapping_network_nerf"), ("appearance", "mapping_network_inr")):
        sizes = mapping_sizes(state, f"{published}.base_net")
        mapping[name] = {"class_path": "zoo.cips3d.MappingNetwork", "init_args": sizes}
    return config


def mapping_sizes(state: dict[str, Tensor], prefix: str) -> dict[str, Any]:
    """``init_args`` of a mapping network: its normalisations have weights with one axis."""
    style_dim, latent_dim = size(state, f"{prefix}.0.weight")
    numbers = sorted(int(n.split(".")[-2]) for n in state if re.fullmatch(re.escape(prefix) + r"\.\d+\.weight", n))
    axes = [state[f"{prefix}.{number}.weight"].dim() for number in numbers]
    return {
        "latent_dim": latent_dim,
        "style_dim": style_dim,
        "num_layers": axes.count(2),
        "norm_hidden": axes[:2] == [2, 1] and len(axes) > 2,
        "norm_out": axes[-1] == 1,
    }


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
