"""The published StyleNeRF's checkpoints (github.com/facebookresearch/StyleNeRF) and ours.

A file ``network-snapshot-000123.pkl`` holds whole modules: the generator, its EMA ``G_ema``, from which images
are made, the discriminator, and the arguments they were built with, as nodes of a configuration. So nothing has to come
from an experiment; the released files of 512 and 1024 pixels differ from the program's own configurations.
"""

import math
import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from zoo.stylenerf.model import Generator
from zoo.utils.errors import UserError
from zoo.utils.paths import config_names
from zoo.weights.convert import NotBuilt, Published
from zoo.weights.names import (
    STYLE,
    STYLED_LAYER,
    Table,
    check_arguments,
    inside,
    with_noise_axes,
    without_noise_axes,
)
from zoo.weights.read import Contents, Place, attributes, class_name, is_module, module_state, plain, tensors_in

NAME = "StyleNeRF"
WEIGHTS = {"ema": "G_ema", "raw": "G", "discriminator": "D"}
LAYERS, EXTRAS = "zoo.layers.upsampling.", "zoo.stylenerf.extras."
UPSAMPLERS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "default": (None, {}),
    "liif": ("LocalEnsemble", {}),
    **{f"pixelshuffle{end}": ("PixelShuffle", {"blur": not end}) for end in ("", "_noblur")},
    **{f"nn_cat{end}": ("NearestConcat", {"blur": not end}) for end in ("", "_noblur")},
    **{
        mode + end: ("Interpolate", {"mode": mode, "hidden": hidden})
        for mode in ("bilinear", "bicubic", "nearest")
        for end, hidden in (("", None), ("_all", None), ("_ada", 8))
    },
}
# Published arguments of which only these values can be translated, by block.
FIXED = {
    "generator": {"c_dim": (0, None), "img_channels": (3, None)},
    "discriminator": {"c_dim": (0, None), "img_channels": (3, None), "architecture": ("skip", None)},
    "synthesis_kwargs": {"architecture": ("skip", None), "z_dim": (0, None)},
    "camera_kwargs": {"ray_align_corner": (False, None), "depth_transform": ("InverseWarp", None)},
    "renderer_kwargs": {"sigma_type": ("relu", None)},
    "foreground_kwargs": {
        "positional_encoding": ("normal", None),
        "use_viewdirs": (False, None),
        "predict_rgb": (True, False, None),
    },
    "input_kwargs": {"output_mode": ("tri_plane_reshape", None), "input_mode": ("random", None)},
    "background_kwargs": {
        "positional_encoding": ("normal", None),
        "use_viewdirs": (False, None),
        "inverse_sphere": (True, None),
    },
    "upsampler_kwargs": dict.fromkeys(
        ("no_2d_renderer", "no_residual_img", "block_reses", "shared_rgb_style"), (False, None)
    ),
}
# Names of arguments that are read below, and of those that change neither weights nor images
NAMES = """
    abs_sigma activation add_rgb angular_camera architecture background_kwargs bg_start block_reses c_dim camera_kwargs
    channel_base channel_max conv_clamp depth_range depth_transform dists_normalized downscale_p_by dual_discriminator
    dual_input_ratio dual_input_res epilogue_kwargs foreground_kwargs fov gaussian_camera hidden_size hierarchical
    img_channels img_resolution in_res input_kwargs input_mode inverse_sphere kernel_size lowres_head
    magnitude_ema_beta mapping_kwargs margin mbstd_group_size module_name n_bg_samples n_blocks n_freq_posenc
    n_ray_samples n_reg_samples no_2d_renderer no_background no_bbox no_residual_img num_fp16_res num_layers out_dim
    out_res output_mode positional_encoding predict_3d_camera predict_9d_camera predict_camera predict_rgb
    prog_nerf_only progressive range_radius range_u range_v ray_align_corner reg_full renderer_kwargs
    resize_real_early resolution_start resolution_vol rgb_out_dim saperate_camera shared_rgb_style sigma_type skips
    synthesis_kwargs upsample_mode upsample_type upsampler_kwargs use_noise use_pos use_style use_viewdirs w_dim z_dim
    z_dim_bg
"""
KNOWN = frozenset(NAMES.split())

# ours -> published; for a ``StyledLayer``, a ``Block`` and a field alone
LAYER = [
    *STYLED_LAYER,
    (r"magnitude$", "w_avg"),
    (r"up\.adapter\.first\.", "adapter.0."),
    (r"up\.adapter\.second\.", "adapter.1."),
]
BLOCK = [
    *inside(r"first\.", "conv0.", LAYER),
    *inside(r"second\.", "conv1.", LAYER),
    *inside(r"rgb\.", "torgb.", STYLE),
]
FIELD = [
    *inside(r"layers\.0\.", "fc_in.", STYLE),
    (r"layers\.(\d+)\.style\.", lambda m: f"blocks.{int(m[1]) - 1}.affine."),
    (r"layers\.(\d+)\.", lambda m: f"blocks.{int(m[1]) - 1}."),
    *inside(r"density\.", "sigma_out.", STYLE),
    *inside(r"features\.", "feat_out.", STYLE),
    *inside(r"rgb\.", "to_rgb.", STYLE),
]


def table(network: nn.Module) -> Table:
    """The names of a network's tensors; those of blocks hold the sides of their images."""
    if not isinstance(network, Generator):
        return discriminator_table(network.resolution, 4 * 2 ** len(getattr(network, "small", None) or []))
    planes = getattr(network.foreground, "network", None)
    return generator_table(network.synthesis.low, 8 if planes is None else planes.start)


def generator_table(low: int, planes: int = 8) -> Table:
    """As ``table``, for feature maps of side ``low``, and planes that begin with this side."""
    doublings = range(1, 16)
    first = f"synthesis.in_b{planes}."
    return [
        (r"mapping\.layers\.(\d+)\.", r"mapping.fc\1."),
        (r"mean_w$", "mapping.w_avg"),
        (r"alpha$", "synthesis.alpha"),
        (r"foreground\.network\.constant$", f"{first}const"),
        *inside(r"foreground\.network\.layer\.", f"{first}conv1.", LAYER),
        *inside(r"foreground\.network\.", first, BLOCK),
        *(
            entry
            for i in doublings
            for ours, published in (
                (rf"foreground\.network\.blocks\.{i - 1}\.", f"synthesis.in_b{planes * 2**i}."),
                (rf"synthesis\.blocks\.{i - 1}\.", f"synthesis.b{low * 2**i}."),
            )
            for entry in inside(ours, published, BLOCK)
        ),
        *inside(r"foreground\.", "synthesis.fg_nerf.", FIELD),
        *inside(r"background\.field\.", "synthesis.bg_nerf.", FIELD),
        (r"poses\.network\.first\.", "synthesis.camera_generator.affine1."),
        (r"poses\.network\.second\.", "synthesis.camera_generator.affine2."),
        (r"poses\.network\.last\.", "synthesis.camera_generator.proj."),
    ]


def discriminator_table(resolution: int, small: int = 8) -> Table:
    """As ``table``, for a discriminator of images of this side, and of small ones."""

    def side(match: re.Match) -> str:
        letter, largest = ("b", resolution) if match[1] == "blocks" else ("c", small)
        return f"{letter}{largest // 2 ** int(match[2])}."

    return [
        (r"alpha$", "alpha"),
        (r"(blocks|small)\.(\d+)\.from_rgb\.", lambda m: side(m) + "fromrgb."),
        (r"(blocks|small)\.(\d+)\.first\.", lambda m: side(m) + "conv0."),
        (r"(blocks|small)\.(\d+)\.second\.", lambda m: side(m) + "conv1."),
        (r"guess\.", "projector."),
        (r"embed\.", "mapping.embed."),
        (r"mapping\.layers\.(\d+)\.", r"mapping.fc\1."),
        (r"from_rgb\.", "b4.fromrgb."),
        (r"final\.", "b4.conv."),
        (r"dense\.", "b4.fc."),
        (r"score\.", "b4.out."),
    ]


def part(contents: Contents) -> str | None:
    """A file of the published StyleNeRF holds a generator, or is none."""
    network = generator_in(contents)
    if isinstance(network, dict):  # tensors alone
        return "generator" if any(str(name).startswith("synthesis.fg_nerf.") for name in network) else None
    if not is_module(network) or class_name(network) != "Generator":
        return None
    inner = attributes(network)["_modules"].get("synthesis")
    return "generator" if is_module(inner) and class_name(inner) == "NeRFSynthesisNetwork" else None


def generator_in(contents: Contents) -> Any:
    """The module, or state dict, of either generator; a bare state dict counts as the EMA."""
    value = contents.value
    held = value if isinstance(value, dict) else {}
    return held.get("G_ema") or held.get("G") or held


def experiments(contents: Contents) -> list[str] | None:
    """None where the file holds the arguments that its networks were built with; else those of its size."""
    network = generator_in(contents)
    if not isinstance(network, dict):
        return None
    sides = [int(found[1]) for name in network if (found := re.match(r"synthesis\.b(\d+)\.", str(name)))]
    return [name for name in config_names() if re.fullmatch(rf"stylenerf/[a-z]+{max(sides, default=0)}(_\w+)?", name)]


def published(place: Place, contents: Contents, weights: str) -> Published | None:
    """One of the modules in the file, and what it was built with.

    Raises:
        UserError: the file does not say that, or not in a way that ends.
    """
    held = {"G_ema": contents.value} if generator_in(contents) is contents.value else contents.value
    module = held.get(entry := WEIGHTS[weights])
    if isinstance(module, dict):
        if weights == "discriminator":
            raise NotBuilt(f"{place.name} holds bare tensors of D, which do not say how a discriminator was built.")
        return Published(with_noise_axes(tensors_in("", module)), f"{place.name}, {entry}", {})
    if not is_module(module):
        return None
    given = plain(attributes(module).get("_init_kwargs"))
    if not isinstance(given, dict) or "${" in str(given):  # a reference that leads nowhere
        raise UserError(f"The file's {class_name(module)} does not say what it was built with.")
    images = re.search(r"network-snapshot-(\d+)", place.name)
    card = {"images_seen": int(images[1]) * 1000 if images else None}
    return Published(
        with_noise_axes(module_state(module)), "; ".join([f"{place.name}, {entry}", *notes(given)]), card, given
    )


def config(published: Published, weights: str, experiment: dict[str, Any] | None) -> dict[str, Any]:
    """What the file's arguments say; the experiment's where it has none."""
    if published.settings is None:
        return deepcopy(experiment)
    make = discriminator_config if weights == "discriminator" else generator_config
    return make(published.settings)


def official(networks: dict[str, dict[str, Tensor]], card: dict[str, str]) -> dict[str, Any]:
    """State dicts of the modules, in one file; the program's own hold the modules, with their source text."""
    return {"network-snapshot.pt": {WEIGHTS[name]: without_noise_axes(state) for name, state in networks.items()}}


def notes(given: Mapping[str, Any]) -> list[str]:
    """What to say about those of a file's arguments that are left out or changed."""
    unknown = sorted(set(names_in(given)) - KNOWN)
    found = [f"its arguments {', '.join(unknown)} are not known here and are left out"] if unknown else []
    radius = ((given.get("synthesis_kwargs") or {}).get("camera_kwargs") or {}).get("range_radius")
    if radius and radius[0] != radius[1]:
        found.append(f"its cameras' distances, {radius[0]} to {radius[1]}, become their mean")
    return found


def names_in(given: Any) -> list[str]:
    """The names of all arguments, those within others, too."""
    return [n for name, value in given.items() for n in (name, *names_in(value))] if isinstance(given, dict) else []


# Published arguments in our words


def upsampler_config(mode: str) -> dict[str, Any]:
    """``upsampler`` and ``image_up`` of our synthesis network for a published ``upsample_mode``.

    Raises:
        UserError: there is no such mode.
    """
    if mode not in UPSAMPLERS:
        raise UserError(f"The published upsample_mode '{mode}' has no counterpart here.")
    kind, args = UPSAMPLERS[mode]
    image_up = f"{LAYERS}upsample_aligned" if mode.startswith("bilinear_a") else "zoo.layers.stylegan2.upsample"
    return {"upsampler": kind and {"class_path": f"{LAYERS}{kind}", "init_args": args}, "image_up": image_up}


def generator_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """Our config for the arguments of the published generator.

    Raises:
        UserError: one of them has no counterpart here.
    """
    of = dict(given["synthesis_kwargs"])
    cameras, marching = of.get("camera_kwargs") or {}, of.get("renderer_kwargs") or {}
    blocks = {"generator": given, "synthesis_kwargs": of, "camera_kwargs": cameras, "renderer_kwargs": marching}
    for name, block in blocks.items():
        check_arguments(block, FIXED[name])
    top, low = given["img_resolution"], of["resolution_vol"]
    if top % low:
        raise UserError(f"Images of {top} cannot be made from feature maps of {low}.")
    start = of.get("resolution_start") or low
    args: dict[str, Any] = {
        "foreground": foreground_config(given, of, cameras),
        "renderer": renderer_config(cameras, marching),
        "synthesis": synthesis_config(given, of),
        "poses": poses_config(cameras),
        "latent_dim": given["z_dim"],
        "mapping_layers": (given.get("mapping_kwargs") or {}).get("num_layers", 8),
        "start": start if of.get("progressive", True) else None,
        "bounds": [[-box_side(cameras) / 2] * 3, [box_side(cameras) / 2] * 3],
    }
    if of.get("prog_nerf_only") and not of.get("progressive") and start < low:
        args["feature_start"] = start
    if not marching.get("no_background"):
        args["background"] = background_config(of, marching, cameras)
    if of.get("predict_camera"):
        poses = {"class_path": f"{EXTRAS}LearnedPoses", "init_args": {"poses": args["poses"]}}
        args |= {"poses": poses, "spare_layers": 1}
    return {"class_path": "zoo.stylenerf.Generator", "init_args": args}


def box_side(cameras: Mapping[str, Any]) -> float:
    """Of the cube around the object: twice the way from the nearest sample to the middle of the world."""
    return round(2 * (sum(cameras["range_radius"]) / 2 - cameras["depth_range"][0]), 9)


def foreground_config(given: Mapping[str, Any], of: Mapping[str, Any], cameras: Mapping[str, Any]) -> dict[str, Any]:
    """Our config for the published foreground."""
    fg = dict(of.get("foreground_kwargs") or {})
    check_arguments(fg, FIXED["foreground_kwargs"])
    sizes = {
        "hidden_dim": fg.get("hidden_size", 128),
        "num_layers": fg.get("n_blocks", 8),
        "feature_dim": of.get("rgb_out_dim", 128),
        "separate_rgb": not fg.get("add_rgb", False),
        "w_dim": given["w_dim"],
    }
    inputs = of.get("input_kwargs") or {}
    if not inputs:
        more = {"with_points": bool(fg.get("use_pos", False)), "scale": float(fg.get("downscale_p_by", 1))}
        sizes |= {"octaves": fg.get("n_freq_posenc", 10)} | more
        return {"class_path": "zoo.stylenerf.StyledField", "init_args": sizes}
    check_arguments(inputs, FIXED["input_kwargs"])
    network = {
        "start": 2 * inputs.get("in_res", 4),
        "resolution": inputs.get("out_res", 256),
        "channels": inputs.get("out_dim", 32),
        "base_channels": channels(inputs.get("channel_base", of.get("channel_base", 1))),
        "most_channels": inputs.get("channel_max", of.get("channel_max", 512)),
        "size": inputs.get("kernel_size", 3),
        "clamp": of.get("conv_clamp"),
        "w_dim": given["w_dim"],
        "decay": decay(of),
    }
    sizes["network"] = {"class_path": f"{EXTRAS}PlaneNetwork", "init_args": network}
    near, far = cameras["depth_range"]
    sizes |= {"plane_channels": network["channels"], "extent": 2 * (far - near)}
    return {"class_path": f"{EXTRAS}TriPlaneField", "init_args": sizes}


def channels(base: float) -> int:
    """``channel_base`` of the published program is counted in 32,768."""
    return int(base * 32768)


def decay(of: Mapping[str, Any]) -> float | None:
    """Of running magnitudes; the published program has none below zero."""
    beta = of.get("magnitude_ema_beta", -1)
    return float(beta) if beta > 0 else None


def background_config(of: Mapping[str, Any], marching: Mapping[str, Any], cameras: Mapping[str, Any]) -> dict[str, Any]:
    """Our config for the published background."""
    bg = dict(of.get("background_kwargs") or {})
    check_arguments(bg, FIXED["background_kwargs"])
    if not of.get("z_dim_bg"):
        raise UserError("The published background without a latent of its own (z_dim_bg 0) has no counterpart here.")
    field = {
        "hidden_dim": bg.get("hidden_size", 128),
        "num_layers": bg.get("n_blocks", 8),
        "feature_dim": of.get("rgb_out_dim", 128),
        "octaves": bg.get("n_freq_posenc", 10),
        "latent_dim": of["z_dim_bg"],
    }
    args = {
        "field": {"class_path": "zoo.stylenerf.PlainField", "init_args": field},
        "samples": marching.get("n_bg_samples", 4),
        "start": float(cameras.get("bg_start", 0.5)),
    }
    return {"class_path": "zoo.stylenerf.BackgroundRenderer", "init_args": args}


def renderer_config(cameras: Mapping[str, Any], marching: Mapping[str, Any]) -> dict[str, Any]:
    """Our config for the published sampling and compositing."""
    transform = cameras.get("depth_transform")
    near, far = (float(x) for x in cameras["depth_range"])
    kind = "ContractedSpacing" if transform else "LinearSpacing"
    return {
        "class_path": "zoo.stylenerf.NormalisedDepthRenderer",
        "init_args": {
            "spacing": {"class_path": f"zoo.stylenerf.{kind}", "init_args": {"near": near, "far": far}},
            "samples": marching.get("n_ray_samples", 14),
            "fine": bool(marching.get("hierarchical", True)),
            "quadrature": {
                "class_path": "zoo.render.Quadrature",
                "init_args": {
                    "intervals": "zoo.stylenerf.zero_last_interval",
                    "background": "zoo.render.last_sample" if marching.get("no_background") else "zoo.render.black",
                },
            },
            "normalised_intervals": bool(cameras.get("dists_normalized", False)),
        },
    }


def synthesis_config(given: Mapping[str, Any], of: Mapping[str, Any]) -> dict[str, Any]:
    """Our config for the published 2D network."""
    own = dict(of.get("upsampler_kwargs") or {})
    check_arguments(own, FIXED["upsampler_kwargs"])
    sizes = {
        "low": of["resolution_vol"],
        "resolution": given["img_resolution"],
        "feature_dim": of.get("rgb_out_dim", 128),
        **upsampler_config(own.get("upsample_mode", of.get("upsample_mode", "default"))),
        "base_channels": channels(own.get("channel_base", of.get("channel_base", 1))),
        "most_channels": own.get("channel_max", of.get("channel_max", 512)),
        "size": own.get("kernel_size", of.get("kernel_size", 3)),
        "clamp": of.get("conv_clamp"),
        "w_dim": given["w_dim"],
        "noise": bool(of.get("use_noise", True)),
        "decay": decay(of),
    }
    return {"class_path": "zoo.stylenerf.SynthesisNetwork", "init_args": sizes}


def poses_config(cameras: Mapping[str, Any]) -> dict[str, Any]:
    """Our config for the published distribution of cameras, whose azimuth runs from the front the other way round."""
    u, v = cameras["range_u"], cameras["range_v"]
    return {
        "class_path": f"zoo.render.{'GaussianPoses' if cameras.get('gaussian_camera') else 'UniformPoses'}",
        "init_args": {
            "yaw_mean": math.pi / 2 - (u[0] + u[1]) / 2,
            "yaw_spread": (u[1] - u[0]) / 2,
            "pitch_mean": (v[0] + v[1]) / 2,
            "pitch_spread": (v[1] - v[0]) / 2,
            "radius": sum(cameras["range_radius"]) / 2,
            "fov_deg": float(cameras["fov"]),
        },
    }


def discriminator_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """Our config for the arguments of the published discriminator.

    Raises:
        UserError: one of them has no counterpart here.
    """
    check_arguments(given, FIXED["discriminator"])
    sizes = {
        "resolution": given["img_resolution"],
        "base_channels": channels(given.get("channel_base", 1)),
        "most_channels": given.get("channel_max", 512),
        "clamp": given.get("conv_clamp"),
        "groups": (given.get("epilogue_kwargs") or {}).get("mbstd_group_size", 4),
        "start": given.get("lowres_head") if given.get("progressive") else None,
    }
    if given.get("predict_camera"):
        numbers = 9 if given.get("predict_9d_camera") else 3 if given.get("predict_3d_camera") else 16
        layers = (given.get("mapping_kwargs") or {}).get("num_layers", 8)
        sizes |= {"numbers": numbers, "separate": bool(given.get("saperate_camera")), "mapping_layers": layers}
        kind = f"{EXTRAS}CameraDiscriminator"
    elif given.get("dual_discriminator"):
        kind = f"{EXTRAS}DualDiscriminator"
    elif given.get("dual_input_ratio"):
        kind, sizes["ratio"] = f"{EXTRAS}DoubleDiscriminator", given["dual_input_ratio"]
    else:
        kind = "zoo.stylenerf.Discriminator"
    return {"class_path": kind, "init_args": sizes}
