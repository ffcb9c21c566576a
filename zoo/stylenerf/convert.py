"""The published StyleNeRF's checkpoints (github.com/facebookresearch/StyleNeRF) and ours.

A file ``network-snapshot-000123.pkl`` holds whole modules: the generator, its average ``G_ema``, from which pictures
are made, the discriminator, and the arguments they were built with, as nodes of a configuration. So nothing has to come
from an experiment; the released files of 512 and 1024 pixels differ from the program's own configurations.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.weights.bundle import UNUSED, Part, build, check_fit
from zoo.weights.convert import Converted
from zoo.weights.names import from_published, to_published
from zoo.weights.pickles import Record
from zoo.weights.read import Contents, Place, attributes, class_name, is_module, module_state

# weights -> name in the file
MODELS = {"ema": "G_ema", "raw": "G", "discriminator": "D"}
MAX_DEPTH = 16  # of values in values


def part(contents: Contents) -> str | None:
    """What a file of the published StyleNeRF is: "generator", or None for any other file."""
    value = contents.value
    network = value.get("G_ema") if isinstance(value, dict) else None
    if not is_module(network) or class_name(network) != "Generator":
        return None
    inner = attributes(network)["_modules"].get("synthesis")
    return "generator" if is_module(inner) and class_name(inner) == "NeRFSynthesisNetwork" else None


def experiments(contents: Contents) -> None:
    """None: the file holds the arguments that its networks were built with."""
    return None


def convert(
    place: Place, contents: Contents, experiment: dict[str, Any] | None, weights: str | None = None
) -> Converted:
    """A generator, averaged or raw, or a discriminator.

    Args:
        place: of the file.
        contents: of the file.
        experiment: not needed; the file says all of it.
        weights: "ema", "raw" or "discriminator"; by default ema.

    Raises:
        ValueError: there are no such weights, or they do not fit what the file says.
    """
    weights = weights or "ema"
    if weights not in MODELS:
        raise ValueError(f"A StyleNeRF has no weights '{weights}': {', '.join(MODELS)}.")
    network = contents.value.get(MODELS[weights])
    if not is_module(network):
        there = [name for name, model in MODELS.items() if is_module(contents.value.get(model))]
        raise ValueError(f"{place} has no weights '{weights}'; --weights can be {', '.join(there)}.")
    given, state = arguments(network), module_state(network)
    config = discriminator_config(given) if weights == "discriminator" else generator_config(given)
    with torch.device("meta"):  # a file that claims impossible sizes is found out before there is any memory
        planned = build(config, nn.Module)
    ours = shaped(from_published(state, list(planned.state_dict()), table_of(planned)), planned.state_dict())
    used = {name: tensor for name, tensor in ours.items() if not name.startswith(UNUSED)}
    check_fit(planned, used, place)
    filled = build(config, nn.Module)
    filled.load_state_dict(used)
    images = re.search(r"network-snapshot-(\d+)", place.name)
    card = {"system": "StyleNeRF", "weights": weights, "images_seen": int(images[1]) * 1000 if images else None}
    unused = {name: tensor for name, tensor in ours.items() if name.startswith(UNUSED)}
    return Converted(filled, config, unused, card, "; ".join([f"{place.name}, {MODELS[weights]}", *notes(given)]))


def all_weights(place: Place, contents: Contents) -> dict[str, tuple[Place, Contents, str]]:
    """Everything that ``convert`` makes of a file, by name, and what it takes."""
    return {name: (place, contents, name) for name, model in MODELS.items() if is_module(contents.value.get(model))}


def official(parts: Mapping[str, Part]) -> dict[str, Any]:
    """State dicts of the published program's modules, by their names in its files.

    Its own files hold the modules themselves, with their source text.
    """
    models = {}
    for name, (config, tensors, _) in parts.items():
        with torch.device("meta"):
            network = build(config, nn.Module)
        models[MODELS[name]] = published_state(network, tensors)
    return {"network-snapshot.pt": models}


def table_of(network: nn.Module) -> list:
    """The names of a network's tensors."""
    if hasattr(network, "painter"):
        inner = getattr(network.foreground, "network", None)
        return generator_table(network.painter.low, 8 if inner is None else inner.start)
    return discriminator_table(network.resolution, 4 * 2 ** len(getattr(network, "small", None) or []))


def shaped(ours: dict[str, Tensor], planned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stored noise, which the published program keeps as one picture [H, W], as ours."""
    return {
        name: tensor[None, None] if name.endswith("noise.stored") and tensor.dim() == 2 else tensor
        for name, tensor in ours.items()
    }


def published_state(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back: a published state dict of such a network's tensors, ``unused.`` ones included."""
    state = {name: tensor[0, 0] if name.endswith("noise.stored") else tensor for name, tensor in tensors.items()}
    return to_published(state, table_of(network))


# Arguments in a file


def arguments(network: Record) -> dict[str, Any]:
    """What the published program built a recorded network with.

    Raises:
        ValueError: the file does not say, or not in a way that ends.
    """
    given = attributes(network).get("_init_kwargs")
    if not isinstance(given, dict):
        raise ValueError(f"The file's {class_name(network)} does not say what it was built with.")
    return {name: plain(value) for name, value in given.items()}


def plain(value: Any, depth: int = 0) -> Any:
    """A node of a configuration, or of numpy, as plain values; references in it looked up."""
    if depth > MAX_DEPTH:
        raise ValueError("The file's arguments are nested too deep, or refer to themselves.")
    if isinstance(value, Record):
        held = attributes(value)
        if "_val" in held:
            return looked_up(value, held["_val"], depth)
        return plain(held.get("_content"), depth + 1)
    if isinstance(value, dict):
        return {name: plain(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, depth + 1) for inner in value]
    return value.item() if hasattr(value, "item") else value


def looked_up(node: Record, value: Any, depth: int) -> Any:
    """A value, or what it refers to from the root of its configuration: ``${spec.map}``."""
    found = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    if found is None:
        return value
    for _ in range(MAX_DEPTH):
        parent = attributes(node).get("_parent")
        if not isinstance(parent, Record):
            break
        node = parent
    for name in found[1].split("."):
        held = attributes(node).get("_content") if isinstance(node, Record) else None
        if not isinstance(held, dict) or name not in held:
            raise ValueError(f"The file's arguments refer to '{found[1]}', which is not in them.")
        node = held[name]
    return plain(node, depth + 1)


# Names of arguments that are read below, and of those that change neither weights nor pictures
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


def notes(given: Mapping[str, Any]) -> list[str]:
    """What to say about those of a file's arguments that are left out or changed."""
    unknown = sorted(set(names_in(given)) - KNOWN)
    found = [f"its arguments {', '.join(unknown)} are not known here and are left out"] if unknown else []
    radius = ((given.get("synthesis_kwargs") or {}).get("camera_kwargs") or {}).get("range_radius")
    if radius and radius[0] != radius[1]:
        found.append(f"its cameras' distances, {radius[0]} to {radius[1]}, become their mean")
    return found


def names_in(given: Mapping[str, Any]) -> Iterator[str]:
    """The names of all arguments, those within others, too."""
    for name, value in given.items():
        yield name
        if isinstance(value, dict):
            yield from names_in(value)


# Published arguments in our words

LAYERS, EXTRAS = "zoo.layers.upsampling.", "zoo.stylenerf.extras."


def upsampler_config(mode: str) -> dict[str, Any]:
    """``upsampler`` and ``image_up`` of our painter for a published ``upsample_mode``.

    Raises:
        ValueError: there is no such mode.
    """
    image_up = f"{LAYERS}stretched" if mode in ("bilinear_all", "bilinear_ada") else "zoo.layers.stylegan2.doubled"
    if mode == "default":
        return {"upsampler": None, "image_up": image_up}
    name, *rest = mode.split("_")
    if mode.startswith("nn_cat"):
        name, rest = "nn_cat", mode.split("_")[2:]
    if name in ("pixelshuffle", "nn_cat") and rest in ([], ["noblur"]):
        kind = "PixelShuffle" if name == "pixelshuffle" else "NearestConcat"
        made = {"class_path": f"{LAYERS}{kind}", "init_args": {"blur": not rest}}
    elif name in ("bilinear", "bicubic", "nearest") and rest in ([], ["all"], ["ada"]):
        hidden = 8 if rest == ["ada"] else None
        made = {"class_path": f"{LAYERS}Interpolated", "init_args": {"mode": name, "hidden": hidden}}
    elif mode == "liif":
        made = {"class_path": f"{LAYERS}LocalEnsemble"}
    else:
        raise ValueError(f"The published upsample_mode '{mode}' has no counterpart here.")
    return {"upsampler": made, "image_up": image_up}


def augmentation_arguments(given: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
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


def generator_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """Our config for the arguments of the published generator.

    Raises:
        ValueError: one of them has no counterpart here.
    """
    of = dict(given["synthesis_kwargs"])
    check_fixed(given, {"c_dim": (0,), "img_channels": (3,)})
    check_fixed(of, {"architecture": ("skip",)})
    cameras, marching = of.get("camera_kwargs") or {}, of.get("renderer_kwargs") or {}
    check_fixed(cameras, {"ray_align_corner": (False,)})
    top, low = given["img_resolution"], of["resolution_vol"]
    start = of.get("resolution_start") or low
    has_background = not marching.get("no_background")
    args: dict[str, Any] = {
        "foreground": foreground_config(given, of, cameras),
        "volume": volume_config(cameras, marching),
        "painter": painter_config(given, of),
        "poses": poses_config(cameras),
        "latent_dim": given["z_dim"],
        "mapping_layers": (given.get("mapping_kwargs") or {}).get("num_layers", 8),
        "start": start if of.get("progressive", True) else None,
        "bounds": [[-box_side(cameras) / 2] * 3, [box_side(cameras) / 2] * 3],
    }
    if of.get("prog_nerf_only") and not of.get("progressive") and start < low:
        args["volume_start"] = start
    if has_background:
        args["background"] = background_config(of, marching, cameras)
    if of.get("predict_camera"):
        poses = {"class_path": f"{EXTRAS}LearnedPoses", "init_args": {"poses": args["poses"]}}
        args |= {"poses": poses, "spare_layers": 1}
    doublings_fit = top % low == 0
    if not doublings_fit:
        raise ValueError(f"Pictures of {top} cannot be made from feature maps of {low}.")
    return {"class_path": "zoo.stylenerf.Generator", "init_args": args}


def check_fixed(given: Mapping[str, Any], known: dict[str, tuple]) -> None:
    """Fail where an argument has another than the values that can be translated."""
    for name, values in known.items():
        if name in given and given[name] is not None and given[name] not in values:
            raise ValueError(f"The published '{name}' {given[name]!r} has no counterpart here.")


def box_side(cameras: Mapping[str, Any]) -> float:
    """Of the cube around the object: twice the way from the nearest sample to the middle of the world."""
    return round(2 * (sum(cameras["range_radius"]) / 2 - cameras["depth_range"][0]), 9)


def foreground_config(given: Mapping[str, Any], of: Mapping[str, Any], cameras: Mapping[str, Any]) -> dict[str, Any]:
    """Our config for the published foreground."""
    fg = dict(of.get("foreground_kwargs") or {})
    fixed = {"positional_encoding": ("normal",), "use_viewdirs": (False,), "predict_rgb": (True, False)}
    check_fixed(fg, fixed)
    check_fixed(of, {"z_dim": (0,)})
    sizes = {
        "hidden_dim": fg.get("hidden_size", 128),
        "num_layers": fg.get("n_blocks", 8),
        "feature_dim": of.get("rgb_out_dim", 128),
        "separate_rgb": not fg.get("add_rgb", False),
        "w_dim": given["w_dim"],
    }
    inputs = of.get("input_kwargs") or {}
    if not inputs:
        more = {
            "octaves": fg.get("n_freq_posenc", 10),
            "with_points": bool(fg.get("use_pos", False)),
            "scale": float(fg.get("downscale_p_by", 1)),
        }
        return {"class_path": "zoo.stylenerf.StyledField", "init_args": sizes | more}
    check_fixed(inputs, {"output_mode": ("tri_plane_reshape",), "input_mode": ("random",)})
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
    """Of average sizes; the published program has none below zero."""
    beta = of.get("magnitude_ema_beta", -1)
    return float(beta) if beta > 0 else None


def background_config(of: Mapping[str, Any], marching: Mapping[str, Any], cameras: Mapping[str, Any]) -> dict[str, Any]:
    """Our config for the published background."""
    bg = dict(of.get("background_kwargs") or {})
    check_fixed(bg, {"positional_encoding": ("normal",), "use_viewdirs": (False,), "inverse_sphere": (True,)})
    if not of.get("z_dim_bg"):
        raise ValueError("The published background without a latent of its own (z_dim_bg 0) has no counterpart here.")
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
    return {"class_path": "zoo.stylenerf.OutsideVolume", "init_args": args}


def volume_config(cameras: Mapping[str, Any], marching: Mapping[str, Any]) -> dict[str, Any]:
    """Our config for the published sampling and compositing."""
    transform = cameras.get("depth_transform")
    check_fixed(cameras, {"depth_transform": ("InverseWarp",)})
    check_fixed(marching, {"sigma_type": ("relu",)})
    near, far = (float(x) for x in cameras["depth_range"])
    kind = "Warped" if transform else "Straight"
    return {
        "class_path": "zoo.stylenerf.StretchedVolume",
        "init_args": {
            "line": {"class_path": f"zoo.stylenerf.{kind}", "init_args": {"near": near, "far": far}},
            "samples": marching.get("n_ray_samples", 14),
            "fine": bool(marching.get("hierarchical", True)),
            "background": "zoo.render.last_sample" if marching.get("no_background") else "zoo.render.black",
            "in_shares": bool(cameras.get("dists_normalized", False)),
        },
    }


def painter_config(given: Mapping[str, Any], of: Mapping[str, Any]) -> dict[str, Any]:
    """Our config for the published 2D network."""
    own = dict(of.get("upsampler_kwargs") or {})
    nothing = (False, None)
    names = ("no_2d_renderer", "no_residual_img", "block_reses", "shared_rgb_style")
    check_fixed(own, dict.fromkeys(names, nothing))
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
    return {"class_path": "zoo.stylenerf.Painter", "init_args": sizes}


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
        ValueError: one of them has no counterpart here.
    """
    check_fixed(given, {"architecture": ("skip",), "c_dim": (0,), "img_channels": (3,)})
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
        return {"class_path": f"{EXTRAS}CameraDiscriminator", "init_args": sizes}
    if given.get("dual_discriminator"):
        return {"class_path": f"{EXTRAS}DualDiscriminator", "init_args": sizes}
    if given.get("dual_input_ratio"):
        sizes["ratio"] = given["dual_input_ratio"]
        return {"class_path": f"{EXTRAS}DoubleDiscriminator", "init_args": sizes}
    return {"class_path": "zoo.stylenerf.Discriminator", "init_args": sizes}


# Tensors, ours -> published

LAYER = [
    (r"conv\.style\.", "affine."),
    (r"conv\.", ""),
    (r"magnitude$", "w_avg"),
    (r"noise\.stored$", "noise_const"),
    (r"noise\.strength$", "noise_strength"),
    (r"up\.adapter\.first\.", "adapter.0."),
    (r"up\.adapter\.second\.", "adapter.1."),
]


def layer_name(name: str) -> str:
    """The published name of a tensor of a ``StyledLayer``."""
    return next(re.sub(pattern, to, name, count=1) for pattern, to in LAYER if re.match(pattern, name))


def block_name(name: str) -> str:
    """The published name of a tensor of a ``Block``."""
    part, rest = name.split(".", 1)
    if part == "rgb":
        return "torgb." + rest.replace("style.", "affine.")
    return f"{ {'first': 'conv0', 'second': 'conv1'}[part] }.{layer_name(rest)}"


def field_name(name: str) -> str:
    """The published name of a tensor of a field."""
    if found := re.match(r"layers\.(\d+)\.(.*)", name):
        number, rest = int(found[1]), found[2].replace("style.", "affine.")
        return f"fc_in.{rest}" if number == 0 else f"blocks.{number - 1}.{rest}"
    part, rest = name.split(".", 1)
    published = {"density": "sigma_out", "features": "feat_out", "rgb": "to_rgb"}[part]
    return f"{published}.{rest.replace('style.', 'affine.')}"


def generator_table(low: int, planes_start: int = 8) -> list:
    """Patterns of our names and what the published ones are, for feature maps of side ``low``."""
    first = f"synthesis.in_b{planes_start}."
    return [
        (r"mapping\.layers\.(\d+)\.", r"mapping.fc\1."),
        (r"mean_w$", "mapping.w_avg"),
        (r"alpha$", "synthesis.alpha"),
        (r"foreground\.network\.constant$", f"{first}const"),
        (r"foreground\.network\.layer\.(.*)", lambda m: f"{first}conv1.{layer_name(m[1])}"),
        (r"foreground\.network\.(rgb\..*)", lambda m: first + block_name(m[1])),
        (
            r"foreground\.network\.blocks\.(\d+)\.(.*)",
            lambda m: f"synthesis.in_b{planes_start * 2 ** (int(m[1]) + 1)}.{block_name(m[2])}",
        ),
        (r"foreground\.(.*)", lambda m: f"synthesis.fg_nerf.{field_name(m[1])}"),
        (r"background\.field\.(.*)", lambda m: f"synthesis.bg_nerf.{field_name(m[1])}"),
        (
            r"painter\.blocks\.(\d+)\.(.*)",
            lambda m: f"synthesis.b{low * 2 ** (int(m[1]) + 1)}.{block_name(m[2])}",
        ),
        (r"poses\.network\.first\.", "synthesis.camera_generator.affine1."),
        (r"poses\.network\.second\.", "synthesis.camera_generator.affine2."),
        (r"poses\.network\.last\.", "synthesis.camera_generator.proj."),
    ]


def discriminator_table(resolution: int, small: int = 8) -> list:
    """As ``generator_table``, for a discriminator of pictures of this side, and of small ones."""

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
