"""The published VolumeGAN's checkpoints (github.com/genforce/volumegan) and ours.

One file holds all: generator, its EMA ``generator_smooth``, from which images are made, discriminator, and the
arguments that they were built with. A file may also hold the tensors alone; then cameras, depths and numbers of samples
come from an experiment.
"""

import math
import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from zoo.utils.errors import UserError
from zoo.volumegan.discriminator import Discriminator
from zoo.weights.convert import Published
from zoo.weights.names import Table, check_arguments, count
from zoo.weights.read import Contents, Place, tensors_in

NAME = "VolumeGAN"
WEIGHTS = {"ema": "generator_smooth", "raw": "generator", "discriminator": "discriminator"}
POSES = {
    "uniform": "UniformPoses",
    "gaussian": "GaussianPoses",
    "normal": "GaussianPoses",
    "hybrid": "HybridPoses",
    "truncated_gaussian": "TruncatedGaussianPoses",
    "spherical_uniform": "SpherePoses",
}
DENSITIES = {
    "relu": "zoo.render.relu",
    "softplus": "zoo.render.softplus",
    "mipnerf": "zoo.render.shifted_softplus",
}
# Published arguments that only one value of can be translated, with that value.
FIXED = {
    "label_dim": (0, None),
    "label_size": (0, None),
    "bg_cfg": (None,),
    "noise_type": ("spatial",),
    "image_channels": (3,),
    "normalize_z": (True,),
    "repeat_w": (True,),
    "demodulate": (True,),
    "use_wscale": (True,),
    "mapping_use_wscale": (True,),
    "wscale_gain": (1,),
    "mapping_wscale_gain": (1,),
    "lr_mul": (1,),
    "filter_kernel": ((1, 3, 3, 1), [1, 3, 3, 1]),
    "eps": (1e-8,),
    "mbstd_channels": (1,),
    "w_dim": (512,),  # the published field has this written into it
    "activation_type": ("lrelu",),
    "input_dim": (3,),
    "num_per_group": (None,),
    "fill_mode": (None,),
    "noise_std": (0,),
}
# All other published arguments: those that are translated, by block, and those that no number depends on.
KNOWN = {
    "generator": "model_type resolution nerf_res z_dim mapping_layers mapping_fmaps mapping_lr_mul out_dim conv_clamp "
    "fmaps_base fmaps_max rgb_init_res_out final_tanh fused_modulate fp16_res impl embed_cfg fg_cfg fv_cfg ps_cfg "
    "hs_cfg vr_cfg",
    "embed_cfg": "max_freq_log2 N_freqs",
    "fg_cfg": "num_layers hidden_dim",
    "fv_cfg": "feat_res init_res base_channels output_channels bounds",
    "ps_cfg": "num_steps ray_start ray_end radius horizontal_mean horizontal_stddev vertical_mean vertical_stddev "
    "camera_dist fov perturb_mode",
    "hs_cfg": "clamp_mode render_mode max_depth",
    "vr_cfg": "clamp_mode render_mode max_depth last_back white_back",
    "discriminator": "model_type resolution init_res architecture fmaps_base fmaps_max conv_clamp mbstd_groups "
    "fp16_res impl",
}


def layer(match: re.Match) -> str:
    """The published name of a layer of the 2D network, two in each block."""
    return f"synthesis.layer{2 * int(match[1]) + {'up': 1, 'same': 2}[match[2]]}"


# ours -> published
GENERATOR = [
    (r"mapping\.layers\.(\d+)\.", r"mapping.dense\1."),
    (r"mean_w", "w_avg"),
    (r"lod", "synthesis.lod"),
    (r"structure\.constant", "nerfmlp.fv.const"),
    (r"structure\.convs\.(\d+)\.", r"nerfmlp.fv.layer\1."),
    (r"structure\.style\.", "nerfmlp.fv.mapping_network."),
    (r"field\.layers\.(\d+)\.", r"nerfmlp.fg_mlps.\1."),
    (r"field\.density\.", "nerfmlp.fg_density."),
    (r"field\.colour\.", "nerfmlp.fg_color."),
    (r"synthesis\.start\.", "synthesis.rgb_init_res."),
    (r"synthesis\.blocks\.(\d+)\.rgb\.", lambda m: f"synthesis.output{int(m[1]) + 1}."),
    (r"synthesis\.blocks\.(\d+)\.(up|same)\.conv\.", lambda m: f"{layer(m)}."),
    (r"synthesis\.blocks\.(\d+)\.(up|same)\.noise\.strength", lambda m: f"{layer(m)}.noise_strength"),
    (r"synthesis\.blocks\.(\d+)\.(up|same)\.noise\.stored", lambda m: f"{layer(m)}.noise"),
]


def discriminator_table(blocks: int) -> list:
    """As ``GENERATOR``, for a discriminator of so many blocks."""
    return [
        (r"lod", "lod"),
        (r"from_rgb\.(\d+)\.", r"input\1."),
        (r"blocks\.(\d+)\.first\.", lambda m: f"layer{2 * int(m[1])}."),
        (r"blocks\.(\d+)\.second\.", lambda m: f"layer{2 * int(m[1]) + 1}."),
        (r"blocks\.(\d+)\.skip\.", r"residual\1."),
        (r"final\.", f"layer{2 * blocks}."),
        (r"dense\.", f"layer{2 * blocks + 1}."),
        (r"score\.", "output."),
    ]


def table(network: nn.Module) -> Table:
    """The names of a network's tensors."""
    return discriminator_table(len(network.blocks)) if isinstance(network, Discriminator) else GENERATOR


def part(contents: Contents) -> str | None:
    """A file of the published VolumeGAN holds a generator, or is none."""
    states = states_in(contents.value)
    needed = {"nerfmlp.fv.const", "nerfmlp.fg_density.weight"}
    return "generator" if any(needed <= set(state) for state in states.values()) else None


def experiments(contents: Contents) -> list[str] | None:
    """None where the file holds the arguments that its networks were built with; else the published experiment."""
    return None if arguments(contents.value, "generator_smooth") else ["volumegan/ffhq256"]


def published(place: Place, contents: Contents, weights: str) -> Published | None:
    """One of the state dicts in the file."""
    value, model = contents.value, WEIGHTS[weights]
    states = states_in(value)
    if model not in states:
        return None
    about = value.get("running_metadata") or {}
    card = {"iterations": about.get("iter"), "images_seen": about.get("seen_img")}
    return Published(tensors_in("", states[model]), f"{place.name}, {model}", card, arguments(value, model))


def config(published: Published, weights: str, experiment: dict[str, Any] | None) -> dict[str, Any]:
    """What the file's arguments say; the experiment's where it has none."""
    if weights == "discriminator":
        return discriminator_config(published.settings, published.state)
    return generator_config(published.settings) if published.settings else deepcopy(experiment)


def official(networks: dict[str, dict[str, Tensor]], card: dict[str, str]) -> dict[str, Any]:
    """One file, as the published program's runner reads it: the models alone."""
    models = {WEIGHTS[name]: state for name, state in networks.items()}
    about = {"iter": int(card.get("iterations", 0)), "seen_img": int(card.get("images_seen", 0))}
    return {"checkpoint.pth": {"models": models, "running_metadata": about}}


def states_in(value: Any) -> dict[str, Mapping]:
    """The state dicts of a file, by name of the model; a bare one counts as the EMA."""
    if not isinstance(value, Mapping):
        return {}
    if "nerfmlp.fv.const" in value:
        return {"generator_smooth": value}
    models = value.get("models", value)
    models = models if isinstance(models, Mapping) else {}
    return {name: models[name] for name in WEIGHTS.values() if isinstance(models.get(name), Mapping)}


def arguments(value: Any, model: str) -> dict[str, Any]:
    """What the published program built a network with; nothing where the file does not say."""
    kwargs = value.get("model_kwargs_init") if isinstance(value, Mapping) else None
    own = kwargs.get(model) or kwargs.get("generator") if isinstance(kwargs, Mapping) else None
    return dict(own) if isinstance(own, Mapping) else {}


# Published arguments in our words


def generator_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """Our config for the arguments of the published generator.

    Raises:
        UserError: one of them has no counterpart here.
    """
    check(given, "generator")
    blocks = {name: dict(given.get(name) or {}) for name in KNOWN if name.endswith("_cfg")}
    for name, block in blocks.items():
        check(block, name)
    fg, embed, structural, cameras = (blocks[name] for name in ("fg_cfg", "embed_cfg", "fv_cfg", "ps_cfg"))
    structure = {
        "resolution": structural.get("feat_res", 32),
        "start": structural.get("init_res", 4),
        "base_channels": structural.get("base_channels", 256),
        "channels": structural.get("output_channels", 32),
    }
    halvings = round(math.log2(structure["resolution"] / structure["start"]))
    channels = structure["base_channels"]
    for _ in range(halvings):
        channels = max(channels // 2, structure["channels"])
    field = {
        "channels": channels,
        "hidden_dim": fg.get("hidden_dim", 256),
        "num_layers": fg.get("num_layers", 4),
        "colour_dim": given.get("out_dim", 512),
        "frequencies": embed.get("N_freqs", 10),
        "max_log2": embed.get("max_freq_log2", 9),
    }
    if structural.get("bounds") is not None:
        field["bounds"] = [[float(x) for x in corner] for corner in structural["bounds"]]
    synthesis = {
        "low": given.get("nerf_res", 32),
        "resolution": given.get("resolution", 256),
        "base_channels": given.get("fmaps_base", 32768),
        "most_channels": given.get("fmaps_max", 512),
        "clamp": given.get("conv_clamp"),
        "learned_start": bool(given.get("rgb_init_res_out", True)),  # the published class's default
        "bounded_output": bool(given.get("final_tanh", False)),
    }
    needed = min(synthesis["base_channels"] // synthesis["low"], synthesis["most_channels"])
    if field["colour_dim"] != needed:
        raise UserError(f"The published 'out_dim' {field['colour_dim']} must be {needed}, what the 2D network takes.")
    return {
        "class_path": "zoo.volumegan.Generator",
        "init_args": {
            "structure": {"class_path": "zoo.volumegan.StructuralVolume", "init_args": structure},
            "field": {"class_path": "zoo.volumegan.StyledField", "init_args": field},
            "renderer": renderer_config(cameras, blocks["hs_cfg"], blocks["vr_cfg"]),
            "synthesis": {"class_path": "zoo.volumegan.SynthesisNetwork", "init_args": synthesis},
            "poses": poses_config(cameras),
            "latent_dim": given.get("z_dim", 512),
            "mapping_dim": given.get("mapping_fmaps", 512),
            "mapping_layers": given.get("mapping_layers", 8),
            "mapping_rate": given.get("mapping_lr_mul", 0.01),
        },
    }


def poses_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """Our config for a published distribution of cameras."""
    return {
        "class_path": f"zoo.render.{POSES.get(given.get('camera_dist', 'gaussian'), 'FixedPoses')}",
        "init_args": {
            "yaw_mean": float(given.get("horizontal_mean", math.pi / 2)),
            "yaw_spread": float(given.get("horizontal_stddev", 0.3)),
            "pitch_mean": float(given.get("vertical_mean", math.pi / 2)),
            "pitch_spread": float(given.get("vertical_stddev", 0.155)),
            "radius": float(given.get("radius", 1)),
            "fov_deg": float(given.get("fov", 12)),
        },
    }


def renderer_config(cameras: Mapping[str, Any], coarse: Mapping[str, Any], final: Mapping[str, Any]) -> dict[str, Any]:
    """Our config for published arguments of sampling, of importance sampling and of compositing.

    Raises:
        UserError: one of them has no counterpart here.
    """
    samples = cameras.get("num_steps", 12)
    line = {
        "near": float(cameras.get("ray_start", 0.8)),
        "far": float(cameras.get("ray_end", 1.2)),
        "samples": samples,
    }
    mode = cameras.get("perturb_mode")
    kind = "Stratified" if mode == "mid" else "JitteredUniform"
    depths: dict[str, Any] = {"class_path": f"zoo.render.{kind}", "init_args": line}
    if mode == "none":
        depths = {"class_path": "zoo.volumegan.Unjittered", "init_args": {"depths": depths}}
    background = "zoo.render.black"
    if final.get("last_back") and final.get("white_back"):
        raise UserError("The published backgrounds 'last_back' and 'white_back' exclude each other.")
    if final.get("last_back"):
        background = "zoo.render.last_sample"
    elif final.get("white_back"):
        background = "zoo.render.white"
    args = {
        "depths": depths,
        "quadrature": quadrature_config(final, background),
        "fine": {"class_path": "zoo.render.Importance", "init_args": {"samples": samples, "floor": 2.0e-5}},
    }
    if (other := quadrature_config(coarse, background)) != args["quadrature"]:
        args["coarse"] = other
    return {"class_path": "zoo.render.VolumeRenderer", "init_args": args}


def quadrature_config(given: Mapping[str, Any], background: str) -> dict[str, Any]:
    """Our config for published words of compositing: ``clamp_mode``, ``render_mode`` and ``max_depth``."""
    density, mode = given.get("clamp_mode", "relu"), given.get("render_mode")
    if density not in DENSITIES:
        raise UserError(f"The published clamp_mode '{density}' has no counterpart here: {', '.join(DENSITIES)}.")
    if mode not in (None, "no_dist"):
        raise UserError(f"The published render_mode '{mode}' has no counterpart here, only no_dist.")
    intervals: Any = "zoo.render.infinite_last_interval"
    if mode == "no_dist":
        intervals = "zoo.volumegan.unit_intervals"
    elif given.get("max_depth") is not None:
        intervals = {"class_path": "zoo.volumegan.FarLastInterval", "init_args": {"far": float(given["max_depth"])}}
    args = {"density": DENSITIES[density], "intervals": intervals, "background": background}
    return {"class_path": "zoo.render.Quadrature", "init_args": args}


def discriminator_config(given: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Our config for the arguments of the published discriminator; those that a file does not say are its tensors'.

    Raises:
        UserError: one of them has no counterpart here.
    """
    check(given, "discriminator")
    architecture = given.get("architecture", "resnet" if "residual0.weight" in state else "origin")
    if architecture not in ("resnet", "origin"):
        raise UserError(f"The published architecture '{architecture}' never worked; only resnet and origin did.")
    last = given.get("init_res", 4)
    sizes = {
        "resolution": given.get("resolution", last * 2 ** blocks_in(state)),
        "base_channels": given.get("fmaps_base", 32768),
        "most_channels": given.get("fmaps_max", 512),
        "clamp": given.get("conv_clamp") if given else 256,  # None is the published class's default
        "groups": given.get("mbstd_groups", 4),
        "residual": architecture == "resnet",
        "last": last,
    }
    return {"class_path": "zoo.volumegan.Discriminator", "init_args": sizes}


def check(given: Mapping[str, Any], block: str) -> None:
    """Fail where an argument is unknown, or has another than the one value that can be translated."""
    check_arguments(given, FIXED)
    if unknown := [name for name in given if name not in FIXED and name not in KNOWN[block].split()]:
        raise UserError(f"The published '{unknown[0]}' {given[unknown[0]]!r} of the {block} is unknown here.")


def blocks_in(state: Mapping[str, Tensor]) -> int:
    """Blocks of a published discriminator: it has one fewer than layers that take images."""
    return count(state, r"input\d+\.weight") - 1
