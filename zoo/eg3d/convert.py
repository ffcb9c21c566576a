"""The published EG3D's checkpoints (github.com/NVlabs/eg3d) and ours.

A file ``ffhq512-128.pkl`` is a plain pickle of whole modules with the source text of their classes: the generator, its
EMA ``G_ema``, from which images are made, and the discriminator. Their attributes say how they were built, and how they
render; of the cameras of the data set they only know the point that these look at and its distance.
"""

import math
import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from zoo.eg3d.field import AXES
from zoo.eg3d.model import Generator
from zoo.utils.errors import UserError, printable
from zoo.utils.paths import config_names
from zoo.utils.records import Record
from zoo.weights.convert import NotBuilt, Published
from zoo.weights.names import (
    STYLE,
    STYLED_LAYER,
    Table,
    check_arguments,
    inside,
    size,
    with_noise_axes,
    without_noise_axes,
)
from zoo.weights.read import Contents, Place, attributes, class_name, is_module, module_state, plain, tensors_in

NAME = "EG3D"
WEIGHTS = {"ema": "G_ema", "raw": "G", "discriminator": "D"}
# Published superresolution modules: whether the first block doubles, and how features are resized.
MODULES: dict[str, dict[str, Any]] = {
    "8XDC": {"doubles_first": True},
    "8X": {"doubles_first": True},
    "4X": {"doubles_first": False, "shrinks": False},
    "2X": {"doubles_first": False},
    "Deepfp32": {"doubles_first": False, "shrinks": False, "antialias": False},
}
# Published arguments of which only these values can be translated
FIXED = {
    "c_dim": (25,),
    "img_channels": (3,),
    "cmap_dim": (None,),
    "architecture": ("skip", "resnet"),
    "clamp_mode": ("softplus",),
}
# Fields of view of the data sets, which no file holds: 2985.29 / 700 of the width, and 525 / 512 of ShapeNet's cars
FACES, CARS = math.degrees(2 * math.atan(0.5 * 700 / 2985.29)), math.degrees(2 * math.atan(0.5 * 512 / 525))

# ours -> published
BLOCK = [
    *inside(r"first\.", "conv0.", STYLED_LAYER),
    *inside(r"second\.", "conv1.", STYLED_LAYER),
    *inside(r"rgb\.", "torgb.", STYLE),
]
GENERATOR = [
    (r"mapping\.embed\.", "backbone.mapping.embed."),
    (r"mapping\.layers\.(\d+)\.", r"backbone.mapping.fc\1."),
    (r"mean_w$", "backbone.mapping.w_avg"),
    (r"render_side$", None),
    (r"poses\.", None),
    (r"plane_network\.constant$", "backbone.synthesis.b4.const"),
    *inside(r"plane_network\.layer\.", "backbone.synthesis.b4.conv1.", STYLED_LAYER),
    *inside(r"plane_network\.rgb\.", "backbone.synthesis.b4.torgb.", STYLE),
    *(
        entry
        for i in range(16)
        for entry in inside(rf"plane_network\.blocks\.{i}\.", f"backbone.synthesis.b{8 * 2**i}.", BLOCK)
    ),
    *inside(r"superresolution\.first\.", "superresolution.block0.", BLOCK),
    *inside(r"superresolution\.second\.", "superresolution.block1.", BLOCK),
    (r"field\.hidden\.", "decoder.net.0."),
    (r"field\.output\.", "decoder.net.2."),
]


def table(network: nn.Module) -> Table:
    """The names of a network's tensors."""
    return GENERATOR if isinstance(network, Generator) else discriminator_table(network.resolution)


def discriminator_table(resolution: int) -> Table:
    """As ``GENERATOR``, for a discriminator of images of this side; names of blocks hold the side of what enters."""

    def side(match: re.Match) -> str:
        return f"b{resolution // 2 ** int(match[1])}."

    return [
        (r"from_rgb\.0\.", f"b{resolution}.fromrgb."),
        (r"blocks\.(\d+)\.first\.", lambda m: side(m) + "conv0."),
        (r"blocks\.(\d+)\.second\.", lambda m: side(m) + "conv1."),
        (r"blocks\.(\d+)\.skip\.", lambda m: side(m) + "skip."),
        (r"embed\.", "mapping.embed."),
        (r"mapping\.layers\.(\d+)\.", r"mapping.fc\1."),
        (r"final\.", "b4.conv."),
        (r"dense\.", "b4.fc."),
        (r"score\.", "b4.out."),
    ]


def part(contents: Contents) -> str | None:
    """A file of the published EG3D holds a generator, or is none."""
    network = generator_in(contents)
    if isinstance(network, dict):  # tensors alone
        needed = {"backbone.synthesis.b4.const", "decoder.net.0.weight"}
        return "generator" if needed <= {str(name) for name in network} else None
    return "generator" if is_module(network) and class_name(network) == "TriPlaneGenerator" else None


def generator_in(contents: Contents) -> Any:
    """The module, or state dict, of either generator; a bare state dict counts as the EMA."""
    value = contents.value
    held = value if isinstance(value, dict) else {}
    return held.get("G_ema") or held.get("G") or held


def experiments(contents: Contents) -> list[str] | None:
    """None where the file holds what its networks were built with; else all of them that have superresolution."""
    if not isinstance(generator_in(contents), dict):
        return None
    return [name for name in config_names() if name.startswith("eg3d/") and not name.endswith("cars32")]


def published(place: Place, contents: Contents, weights: str) -> Published | None:
    """One of the modules in the file, and what it was built with."""
    held = {"G_ema": contents.value} if generator_in(contents) is contents.value else contents.value
    module = held.get(entry := WEIGHTS[weights])
    if isinstance(module, dict):
        if weights == "discriminator":
            raise NotBuilt(f"{place.name} holds bare tensors of D, which do not say how a discriminator was built.")
        return Published(with_noise_axes(tensors_in("", module)), f"{place.name}, {entry}", {})
    if not is_module(module):
        return None
    state = with_noise_axes(module_state(module))
    images = re.search(r"network-snapshot-(\d+)", place.name)
    card = {"images_seen": int(images[1]) * 1000 if images else None}
    settings = {"given": plain(attributes(module).get("_init_kwargs")) or {}}
    used = f"{place.name}, {entry}"
    if weights != "discriminator":
        settings |= {"marching": plain(attributes(module).get("rendering_kwargs")) or {}, "geometry": geometry(module)}
        used += "; it does not hold the cameras of its data set, so their distribution and field of view are ours"
    return Published(state, used, card, settings)


def geometry(module: Record) -> dict[str, Any]:
    """The sizes of a recorded generator, and what else only its parts know."""
    state, larger = module_state(module), within(module, "superresolution")
    own = attributes(larger)
    return {
        "plane_resolution": attributes(within(module, "backbone", "synthesis")).get("img_resolution"),
        "plane_features": size(state, "decoder.net.0.weight")[1],
        "hidden_features": size(state, "decoder.net.0.weight")[0],
        "features": size(state, "decoder.net.2.weight")[0] - 1,
        "w_dim": size(state, "backbone.mapping.w_avg", 1)[0],
        "sr_module": class_name(larger).removeprefix("SuperresolutionHybrid"),
        "sr_input_resolution": own.get("input_resolution"),
        "sr_block_channels": [size(state, f"superresolution.block{i}.conv1.weight", 4)[0] for i in (0, 1)],
        "sr_clamp": plain(attributes(within(larger, "block0", "conv0")).get("conv_clamp")),
        "neural_rendering_resolution": plain(attributes(module).get("neural_rendering_resolution")),
        "plane_axes": axes_of(attributes(within(module, "renderer")).get("plane_axes")),
    }


def within(module: Record, *names: str) -> Record:
    """A recorded module in a module.

    Raises:
        UserError: it is not there.
    """
    for name in names:
        module = attributes(module)["_modules"].get(name)
        if not is_module(module):
            raise UserError(f"The file's generator has no part '{name}', which every EG3D has.")
    return module


def axes_of(matrices: Any) -> str:
    """Which of our axes those of published matrices [3, 3, 3] are; the columns of their inverses are coordinates.

    Raises:
        UserError: they are others.
    """
    if matrices is None:
        return "official"
    if isinstance(matrices, Tensor) and matrices.shape == (3, 3, 3):
        pairs = tuple(tuple(m.T.argmax(0)[:2].tolist()) for m in matrices)
        for name, axes in AXES.items():
            if pairs == axes and torch.equal(matrices.sum(1), torch.ones_like(matrices[0])):
                return name
    raise UserError(
        "The file's planes have axes that have no counterpart here: only those of the published program do."
    )


def config(published: Published, weights: str, experiment: dict[str, Any] | None) -> dict[str, Any]:
    """What the file's arguments say; the experiment's where it has none."""
    if not published.settings:
        return deepcopy(experiment)
    make = discriminator_config if weights == "discriminator" else generator_config
    return make(**published.settings)


def official(networks: dict[str, dict[str, Tensor]], card: dict[str, str]) -> dict[str, Any]:
    """State dicts of the modules, in one file; the program's own hold the modules, with their source text."""
    return {"network-snapshot.pt": {WEIGHTS[name]: without_noise_axes(state) for name, state in networks.items()}}


# Published arguments in our words


def generator_config(
    given: Mapping[str, Any], marching: Mapping[str, Any], geometry: Mapping[str, Any]
) -> dict[str, Any]:
    """Our config for a published generator.

    Args:
        given: arguments of its constructor.
        marching: its ``rendering_kwargs``.
        geometry: as of the function of this name.

    Raises:
        UserError: one of them has no counterpart here.
    """
    check_arguments(given, FIXED)
    check_arguments(marching, FIXED)
    stated(given, "z_dim")
    stated(marching, "box_warp", "ray_start", "ray_end", "depth_resolution")
    stated(geometry, "plane_resolution", "sr_input_resolution", "neural_rendering_resolution")
    side, w_dim = geometry["sr_input_resolution"], geometry["w_dim"]
    module = geometry["sr_module"]
    if module not in MODULES:
        raise UserError(f"The published superresolution '{module}' has no counterpart here: {', '.join(MODULES)}.")
    features = geometry.get("features", 32)
    planes = {
        "resolution": geometry["plane_resolution"],
        "channels": geometry["plane_features"],
        "base_channels": given.get("channel_base", 32768),
        "most_channels": given.get("channel_max", 512),
        "clamp": given.get("conv_clamp"),
        "w_dim": w_dim,
    }
    field = {
        "channels": geometry["plane_features"],
        "hidden_dim": geometry.get("hidden_features", 64),
        "feature_dim": features,
        "extent": float(marching["box_warp"]),
        "plane_axes": geometry.get("plane_axes", "official"),
        "rate": float(marching.get("decoder_lr_mul", 1)),
    }
    superresolution = {
        **MODULES[module],
        "low": side,
        "channels": [*geometry["sr_block_channels"]],
        "antialias": MODULES[module].get("antialias", bool(marching.get("sr_antialias", True))),
        "clamp": geometry.get("sr_clamp", 256 if given.get("sr_num_fp16_res", 0) > 0 else None),
        "noise": marching.get("superresolution_noise_mode", "none") != "none",
        "feature_dim": features,
        "w_dim": w_dim,
    }
    is_conditioned = not marching.get("c_gen_conditioning_zero", False)
    args = {
        "plane_network": {"class_path": "zoo.eg3d.PlaneNetwork", "init_args": planes},
        "field": {"class_path": "zoo.eg3d.TriPlaneField", "init_args": field},
        "renderer": renderer_config(marching),
        "superresolution": {"class_path": "zoo.eg3d.Superresolution", "init_args": superresolution},
        "poses": poses_config(marching),
        "latent_dim": given["z_dim"],
        "mapping_layers": (given.get("mapping_kwargs") or {}).get("num_layers", 8),
        "condition_scale": float(marching.get("c_scale", 0)) if is_conditioned else 0.0,
        "render_side": geometry["neural_rendering_resolution"],
        "density_noise": float(marching.get("density_noise", 0)),
    }
    return {"class_path": "zoo.eg3d.Generator", "init_args": args}


def stated(values: Mapping[str, Any], *names: str) -> None:
    """Fail where a number is not stated; "auto" counts as one."""
    for name in names:
        if not isinstance(values.get(name), int | float) and values.get(name) != "auto":
            shown = printable(values.get(name), 40)
            raise UserError(f"The file's '{name}' is {shown}, which is no number: without it nothing can be built.")


def renderer_config(marching: Mapping[str, Any]) -> dict[str, Any]:
    """Our config for published ``rendering_kwargs``."""
    near, far, fine = marching["ray_start"], marching["ray_end"], marching.get("depth_resolution_importance", 0)
    if near == far == "auto":
        depths: dict[str, Any] = {
            "class_path": "zoo.eg3d.BoxLimits",
            "init_args": {"side": float(marching["box_warp"]), "samples": marching["depth_resolution"]},
        }
    else:
        line = {"near": float(near), "far": float(far), "samples": marching["depth_resolution"]}
        line["disparity"] = bool(marching.get("disparity_space_sampling", False))
        depths = {"class_path": "zoo.eg3d.FixedLimits", "init_args": line}
    quadrature = {
        "class_path": "zoo.render.MidpointQuadrature",
        "init_args": {
            "density": "zoo.render.shifted_softplus",
            "background": "zoo.render.white" if marching.get("white_back") else "zoo.render.black",
        },
    }
    args = {"depths": depths, "quadrature": quadrature, "chunk": 65536, "noise_once": True}
    if fine > 0:
        args["fine"] = {"class_path": "zoo.eg3d.SmoothedImportance", "init_args": {"samples": fine}}
    return {"class_path": "zoo.render.VolumeRenderer", "init_args": args}


def poses_config(marching: Mapping[str, Any]) -> dict[str, Any]:
    """Cameras round the point that those of the data set look at: in front of faces, and all round and above cars."""
    is_cars = bool(marching.get("white_back"))
    spread = {"yaw_spread": 0.3, "pitch_spread": 0.155}
    if is_cars:
        spread = {"yaw_spread": math.pi, "pitch_mean": math.pi / 4, "pitch_spread": math.pi / 4}
    return {
        "class_path": "zoo.render.SpherePoses" if is_cars else "zoo.eg3d.LookAtPoses",
        "init_args": {
            **spread,
            "radius": float(marching.get("avg_camera_radius", 2.7)),
            "pivot": [float(x) for x in marching.get("avg_camera_pivot", [0, 0, 0])],
            "fov_deg": CARS if is_cars else FACES,
        },
    }


def discriminator_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """Our config for the arguments of the published discriminator.

    Raises:
        UserError: one of them has no counterpart here.
    """
    check_arguments(given, FIXED)
    stated(given, "img_resolution")
    sizes = {
        "resolution": given["img_resolution"],
        "base_channels": given.get("channel_base", 32768),
        "most_channels": given.get("channel_max", 512),
        "clamp": given.get("conv_clamp"),
        "groups": (given.get("epilogue_kwargs") or {}).get("mbstd_group_size", 4),
        "mapping_layers": (given.get("mapping_kwargs") or {}).get("num_layers", 8),
        "camera_noise": float(given.get("disc_c_noise", 0)),
    }
    return {"class_path": "zoo.eg3d.DualDiscriminator", "init_args": sizes}
