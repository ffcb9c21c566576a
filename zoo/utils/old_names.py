"""Names that have changed, so that configs, bundles and checkpoints of earlier versions keep working.

Whatever reads one of these files hands its plain values through ``renamed``, and its tensors, once the network that
they belong to is there, through ``renamed_tensors``; nothing else knows old names.

In all tables but the first, a class is named by its package and its own name, as in ``zoo.render.Camera``, in whatever
module of the package it is.
"""

import re
from collections.abc import Callable
from typing import Any, TypeVar

V = TypeVar("V")
Values = dict[str, Any]

# Beginnings of class paths: modules that are elsewhere now.
MODULES = {
    "callbacks.gauges.": "callbacks.diagnostics.",
    "zoo.gan.": "zoo.training.",
    "zoo.giraffe_scenes.": "zoo.giraffe.",
    "zoo.giraffe_extras.": "zoo.giraffe.",
    "zoo.stylenerf_2d.": "zoo.stylenerf.",
    "zoo.stylenerf_fields.": "zoo.stylenerf.",
    "zoo.stylenerf_extras.": "zoo.stylenerf.",
    "zoo.volumegan_extras.": "zoo.volumegan.",
    "zoo.cips3d_extras.": "zoo.cips3d.",
}

# Classes of the LightningModules, each of which is named by its package or by ``zoo`` alone.
SYSTEMS = {
    "pigan": "PiGAN",
    "graf": "GRAF",
    "giraffe": "GIRAFFE",
    "stylenerf": "StyleNeRF",
    "cips3d": "CIPS3D",
    "volumegan": "VolumeGAN",
}

# What became of the init_args of a class; a function from those of any earlier version to those of today. Those of a
# class in ``CLASSES`` become those of its successor.
ARGUMENTS: dict[str, Callable[[Values], Values]] = {
    "zoo.render.VolumeRenderer": lambda values: with_quadrature(with_quadrature(values, "coarse", "coarse_")),
    "zoo.giraffe.SceneRenderer": lambda values: with_quadrature(values),
    "zoo.stylenerf.NormalisedDepthRenderer": lambda values: arguments(line="spacing", in_shares="normalised_intervals")(
        with_quadrature(values, intervals="zoo.stylenerf.zero_last_interval")
    ),
    "zoo.graf.HierarchicalRenderer": lambda values: arguments(volume="renderer")(values),
    "zoo.pigan.Generator": lambda values: arguments(volume="renderer")(values),
    "zoo.graf.Generator": lambda values: arguments(volume="renderer")(values),
    "zoo.cips3d.Generator": lambda values: arguments(volume="renderer")(values),
    "zoo.volumegan.Generator": lambda values: arguments(volume="renderer", painter="synthesis")(values),
    "zoo.stylenerf.Generator": lambda values: arguments(
        volume="renderer", painter="synthesis", volume_start="feature_start"
    )(values),
    "zoo.giraffe.Generator": lambda values: (
        arguments(renderer="neural_renderer", volume="renderer", volume_resolution="feature_resolution")(values)
        if "volume" in values  # which is needed, and today's renderer was another thing then
        else values
    ),
    **{
        path: lambda values: with_stages(arguments(averages="emas")(values))
        for package, name in SYSTEMS.items()
        for path in (f"zoo.{name}", f"zoo.{package}.{name}")
    },
}

# Classes and functions that have another name now, or that another one has replaced; in the order in which that came
# about.
CLASSES: dict[str, str] = {
    "zoo.volumegan.TwiceWeighed": "zoo.render.VolumeRenderer",
    "zoo.render.Shifted": "zoo.render.JitteredUniform",
    "zoo.render.open_ended": "zoo.render.infinite_last_interval",
    "zoo.render.closed": "zoo.render.zero_last_interval",
    "zoo.stylenerf.closed_lengths": "zoo.stylenerf.zero_last_interval",
    "zoo.volumegan.late_softplus": "zoo.volumegan.shifted_softplus",
    "zoo.volumegan.shifted_softplus": "zoo.render.shifted_softplus",
    "zoo.volumegan.equal": "zoo.volumegan.unit_intervals",
    "zoo.volumegan.Until": "zoo.volumegan.FarLastInterval",
    "callbacks.diagnostics.Gauges": "callbacks.diagnostics.Diagnostics",
    "zoo.render.Volume": "zoo.render.VolumeRenderer",
    "zoo.giraffe.SceneVolume": "zoo.giraffe.SceneRenderer",
    "zoo.graf.TwoNetworks": "zoo.graf.HierarchicalRenderer",
    "zoo.stylenerf.StretchedVolume": "zoo.stylenerf.NormalisedDepthRenderer",
    "zoo.stylenerf.OutsideVolume": "zoo.stylenerf.BackgroundRenderer",
    "zoo.stylenerf.Straight": "zoo.stylenerf.LinearSpacing",
    "zoo.stylenerf.Warped": "zoo.stylenerf.ContractedSpacing",
    "zoo.stylenerf.Painter": "zoo.stylenerf.SynthesisNetwork",
    "zoo.volumegan.Painter": "zoo.volumegan.SynthesisNetwork",
    "zoo.graf.Parallel": "zoo.graf.Orthographic",
    "zoo.layers.repeated": "zoo.layers.upsampling.upsample_nearest",
    "zoo.layers.stretched": "zoo.layers.upsampling.upsample_aligned",
    "zoo.layers.Interpolated": "zoo.layers.upsampling.Interpolate",
    "zoo.layers.doubled": "zoo.layers.stylegan2.upsample",
    "zoo.training.Average": "zoo.training.EMA",
    "zoo.training.WarmUp": "zoo.training.WarmUpDecay",
}

# By class of a module, names of its tensors: beginnings, as patterns, and what they became. Outer modules come first.
# Styles, which ``zoo invert`` writes, are named by their class, too.
TENSORS: dict[str, dict[str, str]] = {
    "zoo.training.GAN": {r"averages\.": "emas."},
    **{f"zoo.{package}.Generator": {r"volume\.": "renderer."} for package in ("pigan", "graf", "cips3d")},
    "zoo.graf.HierarchicalRenderer": {r"volume\.": "renderer."},
    "zoo.giraffe.Generator": {
        r"renderer\.(?=(up|colour_up|enter|layers|colours?)\.)": "neural_renderer.",
        r"volume\.": "renderer.",
    },
    "zoo.graf.Latent": {r"(shape|appearance)$": r"\1_code"},
    "zoo.giraffe.Latent": {r"((background_)?(shape|appearance))$": r"\1_code"},
    "zoo.volumegan.Styles": {r"volume$": "feature_volume"},
    "zoo.stylenerf.Generator": {r"volume\.": "renderer.", r"painter\.": "synthesis."},
    "zoo.volumegan.Generator": {r"volume\.": "renderer.", r"painter\.": "synthesis."},
}


def arguments(**names: str) -> Callable[[Values], Values]:
    """For ``ARGUMENTS``: init_args, new by old, that have another name and nothing else."""
    return lambda values: {names.get(name, name): value for name, value in values.items()}


def with_quadrature(values: Values, name: str = "quadrature", prefix: str = "", **others: str) -> Values:
    """For ``ARGUMENTS`` of a renderer, whose density, intervals and background were given to it apart."""
    old = {f"{prefix}{part}": part for part in ("density", "intervals", "background") if f"{prefix}{part}" in values}
    rest = {key: value for key, value in values.items() if key not in old}
    parts = {part: values[key] for key, part in old.items()}
    return rest | {name: others | parts} if parts else values


def with_stages(values: Values) -> Values:
    """For ``ARGUMENTS`` of a system: those of the stages of its curriculum, which have no class path."""
    stages = values.get("stages")
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        return values
    return values | {"stages": [arguments(average_start="ema_start")(stage) for stage in stages]}


def renamed(config: Any) -> Any:
    """Plain values, as read from yaml or a checkpoint, with the names of today."""
    if isinstance(config, str) and re.fullmatch(r"(zoo|callbacks|datamodules)(\.\w+)+", config):
        built = renamed_object({"class_path": config})
        return renamed(built) if "init_args" in built else built["class_path"]
    if isinstance(config, list):
        return [renamed(value) for value in config]
    if not isinstance(config, dict):
        return config
    if isinstance(config.get("class_path"), str):
        config = renamed_object(config)
    return {key: value if key == "class_path" else renamed(value) for key, value in config.items()}


def renamed_object(config: Values) -> Values:
    """``class_path`` and ``init_args`` with the names of today, but for what is inside the latter."""
    path, values = config["class_path"], config.get("init_args") or {}
    if not isinstance(values, dict):  # left to the parser, which says what is wrong with it
        return config
    for old, new in MODULES.items():
        path = new + path.removeprefix(old) if path.startswith(old) else path
    values = ARGUMENTS.get(home(path), dict)(values)
    for old, new in CLASSES.items():
        if home(path) == old:
            path, values = new, ARGUMENTS.get(new, dict)(values)
    return config | {"class_path": path} | ({"init_args": values} if values or "init_args" in config else {})


def home(path: str) -> str:
    """``zoo.render.Camera`` of ``zoo.render.cameras.Camera``."""
    parts = path.split(".")
    return ".".join([*parts[:-1][:2], parts[-1]])


def renamed_tensors(state: dict[str, V], module: Any) -> dict[str, V]:
    """What belongs to the tensors of a module, by name, under the names of today."""
    for place, part in module.named_modules():
        for kind in type(part).__mro__:
            state = renamed_own_tensors(state, f"{kind.__module__}.{kind.__name__}", f"{place}." if place else "")
    return state


def renamed_own_tensors(state: dict[str, V], path: str, prefix: str = "") -> dict[str, V]:
    """As ``renamed_tensors``, of a module of this class, but not of the modules inside it."""
    for old, new in TENSORS.get(home(path), {}).items():
        pattern = re.compile(f"^{re.escape(prefix)}{old}")
        state = {pattern.sub(prefix + new, name): value for name, value in state.items()}
    return state
