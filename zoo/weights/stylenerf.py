"""The published StyleNeRF's checkpoints (github.com/facebookresearch/StyleNeRF) and ours."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.weights.bundle import UNUSED, build, check_fit
from zoo.weights.convert import Converted
from zoo.weights.names import from_published, to_published
from zoo.weights.read import Contents, Place

# Published arguments in our words

LAYERS = "zoo.layers.upsampling."


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
    return f"{ {'first': 'conv0', 'second': 'conv1'}[part]}.{layer_name(rest)}"
