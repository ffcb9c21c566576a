"""The published pi-GAN's checkpoints (github.com/marcoamonteiro/pi-GAN) and ours.

A training run of it leaves ``generator.pth`` and ``discriminator.pth``, whole modules; ``ema.pth`` and ``ema2.pth``,
averages of the generator's parameters as a bare list in their order; and optimizers. The published downloads hold the
first and the averages. Sizes are those of the tensors; cameras, depths and numbers of samples are in none of the files.
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
from zoo.weights.read import (
    Contents,
    Place,
    attributes,
    class_name,
    is_module,
    module_parameters,
    module_state,
    modules,
    read,
    tensors_in,
)

# ours -> published
GENERATOR = [
    (r"field\.layers\.(\d+)\.", r"siren.network.\1.layer."),
    (r"field\.density\.", "siren.final_layer."),
    (r"field\.colour_sine\.", "siren.color_layer_sine.layer."),
    (r"field\.colour\.", "siren.color_layer_linear.0."),
    (r"field\.embedding\.cube", "siren.spatial_embeddings"),
    (r"mapping\.layers\.(\d+)\.", lambda m: f"siren.mapping_network.network.{2 * int(m[1])}."),
]
DISCRIMINATOR = [
    (r"blocks\.(\d+)\.first\.conv\.", r"layers.\1.network.0.conv."),
    (r"blocks\.(\d+)\.second\.conv\.", r"layers.\1.network.2.conv."),
    (r"blocks\.(\d+)\.skip\.", r"layers.\1.proj."),
    (r"from_rgb\.(\d+)\.", r"fromRGB.\1.model.0."),
    (r"final\.", "final_layer."),
]
PLAIN_DISCRIMINATOR = [(pattern, to.replace(".conv.", ".")) for pattern, to in DISCRIMINATOR]  # without coordinates
AVERAGES = {"ema": "ema.pth", "ema2": "ema2.pth"}  # decays 0.999 and 0.9999; pictures and scores come from the first
EXPERIMENTS = {
    "TALLSIREN": ["pigan/carla128"],
    "SPATIALSIRENBASELINE": ["pigan/celeba64", "pigan/cats64"],
}
# class of the discriminator -> init_args that its tensors do not tell
DISCRIMINATORS: dict[str, dict[str, Any]] = {
    "CCSEncoderDiscriminator": {"coordinates": True, "downsample": "stride"},
    "CCSDiscriminator": {"coordinates": True, "downsample": "stride"},
    "StridedDiscriminator": {"coordinates": False, "downsample": "stride"},
    "ProgressiveEncoderDiscriminator": {"coordinates": True, "downsample": "pool"},
    "ProgressiveDiscriminator": {"coordinates": True, "downsample": "pool"},
}


# Files


def part(contents: Contents) -> str | None:
    """What a file of the published pi-GAN is: "generator", "discriminator" or "averages"; None for any other file."""
    value = contents.value
    if is_module(value) and value.name == "generators.generators.ImplicitGenerator3d":
        return "generator"
    if is_module(value) and value.name.startswith("discriminators.") and class_name(value) in DISCRIMINATORS:
        return "discriminator"
    if isinstance(value, Record) and value.name == "torch_ema.ema.ExponentialMovingAverage":
        return "averages"
    if isinstance(value, dict) and {"siren.network.0.layer.weight", "siren.final_layer.weight"} <= set(value):
        return "generator"
    return None


def experiments(contents: Contents) -> list[str] | None:
    """The published experiments that a generator may come from: its kind of SIREN tells the data set, or nearly."""
    if part(contents) != "generator":
        return None
    if not isinstance(contents.value, Record):
        return sorted({name for names in EXPERIMENTS.values() for name in names})
    return EXPERIMENTS.get(class_name(siren(contents.value)), [])


def convert(
    place: Place, contents: Contents, experiment: dict[str, Any] | None, weights: str | None = None
) -> Converted:
    """A generator, raw or averaged, or a discriminator.

    Args:
        place: of the file; averages are looked for beside it.
        contents: of the file.
        experiment: config of its generator, which gives what the file does not hold.
        weights: "raw", "ema" or "ema2"; by default ema where there is an ema.pth beside, else raw.

    Raises:
        ValueError: a file that is asked for is missing, or does not fit to the others.
    """
    found = part(contents)
    if found == "averages":
        raise ValueError(f"{place} holds averages without names: give the generator.pth that they belong to.")
    if found == "discriminator":
        return convert_discriminator(place, contents)
    return convert_generator(place, contents, experiment, weights)


def convert_generator(place: Place, contents: Contents, experiment: dict[str, Any], weights: str | None) -> Converted:
    """See ``convert``."""
    if experiment["class_path"] != "zoo.pigan.Generator":
        raise ValueError(f"{place} is a pi-GAN, and the experiment is of another system: {experiment['class_path']}.")
    record = contents.value if isinstance(contents.value, Record) else None
    state = tensors_in("", contents.value) if record is None else module_state(record)
    order = list(state if record is None else module_parameters(record))
    used = f"{place.name}, raw weights"
    averages = averages_beside(place, weights)
    if averages is not None:
        state |= dict(zip(order, shadow(averages, place, [state[name] for name in order]), strict=True))
        used = f"{place.name} with the averages in {averages.name}"
    config = resized(experiment, state, None if record is None else siren(record))
    step = None if record is None else attributes(record).get("step")
    card = {"system": "PiGAN", "weights": "raw" if averages is None else weights or "ema", "iterations": step}
    return Converted(*filled(config, state, GENERATOR, place), card, used)


def all_weights(place: Place, contents: Contents) -> dict[str, tuple[Place, Contents, str | None]]:
    """Everything that ``convert`` makes of a file and those beside it, by name, and what it takes."""
    found = {name: (place, contents, name) for name, file in AVERAGES.items() if place.beside(beside(place, file))}
    found["raw"] = (place, contents, "raw")
    judge = place.beside(beside(place, "discriminator.pth"))
    return found | ({} if judge is None else {"discriminator": (judge, read(judge), None)})


def official(parts: dict[str, Part]) -> dict[str, Any]:
    """State dicts for the published program, by name of a file; it keeps whole modules, which ours are not."""
    files = AVERAGES | {"raw": "generator.pth", "discriminator": "discriminator.pth"}
    made = {}
    for name, (config, tensors, _) in parts.items():
        judge = DISCRIMINATOR if config["init_args"].get("coordinates", True) else PLAIN_DISCRIMINATOR
        learned = {key: tensor for key, tensor in tensors.items() if not key.startswith("mean_")}
        made[files[name]] = to_published(learned, judge if name == "discriminator" else GENERATOR)
    return made


def averages_beside(place: Place, weights: str | None) -> Place | None:
    """The file of the averages that are meant, if any.

    Raises:
        ValueError: it is not there, or there are no such weights.
    """
    if weights == "raw":
        return None
    if weights not in (None, *AVERAGES):
        raise ValueError(f"A pi-GAN has no weights '{weights}': raw, {', '.join(AVERAGES)}.")
    name = beside(place, AVERAGES[weights or "ema"])
    found = place.beside(name)
    if found is None and weights is not None:
        raise ValueError(f"There is no {name} beside {place}; --weights raw needs none.")
    return found


def beside(place: Place, name: str) -> str:
    """The name of a file that was saved together with this one: ``05--12:30--ema.pth`` for ``...--generator.pth``."""
    return place.name[: max(0, place.name.find("generator"))] + name


def siren(generator: Record) -> Record:
    """The module that holds the field and the mapping network."""
    found = dict(modules(generator)).get("siren")
    if found is None:
        raise ValueError("The generator in the file has no SIREN.")
    return found


def shadow(place: Place, of: Place, parameters: list[Tensor]) -> list[Tensor]:
    """The averaged parameters in a file, in their order. (Its ``collected_params`` are a copy of the raw ones.)

    Raises:
        ValueError: they are not of these parameters.
    """
    held = read(place).value
    held = held if isinstance(held, dict) else attributes(held) if isinstance(held, Record) else {}
    averaged = held.get("shadow_params")
    if not isinstance(averaged, list) or not all(isinstance(tensor, Tensor) for tensor in averaged):
        raise ValueError(f"{place} holds no averages; --weights raw does without.")
    if [tensor.shape for tensor in averaged] != [tensor.shape for tensor in parameters]:
        raise ValueError(f"The averages in {place} are not of the parameters in {of}; --weights raw does without.")
    return averaged


def resized(config: dict[str, Any], state: dict[str, Tensor], field: Record | None) -> dict[str, Any]:
    """A generator's config with the sizes of published tensors; the field's input scale comes from its box, if any."""
    config = deepcopy(config)
    args = config["init_args"]
    args["mapping_dim"], args["latent_dim"] = size(state, "siren.mapping_network.network.0.weight", 2)
    own = args["field"].setdefault("init_args", {})
    own["hidden_dim"], _ = size(state, "siren.network.0.layer.weight", 2)
    own["num_layers"] = len([name for name in state if re.fullmatch(r"siren\.network\.\d+\.layer\.weight", name)])
    own["embedding"] = None
    if "siren.spatial_embeddings" in state:
        _, channels, resolution, *_ = size(state, "siren.spatial_embeddings", 5)
        sizes = {"channels": channels, "resolution": resolution}
        own["embedding"] = {"class_path": "zoo.pigan.SpatialEmbedding", "init_args": sizes}
    if field is not None:
        box = attributes(field)["_modules"].get("gridwarper")
        own["input_scale"] = 1.0 if box is None else float(attributes(box)["scale_factor"])
    return config


def size(state: dict[str, Tensor], name: str, axes: int) -> torch.Size:
    """The shape of a published tensor that has so many axes."""
    if name not in state or state[name].dim() != axes:
        raise ValueError(f"The file has no '{name}' with {axes} axes, which every pi-GAN of its kind has.")
    return state[name].shape


def convert_discriminator(place: Place, contents: Contents) -> Converted:
    """See ``convert``."""
    kind, state = class_name(contents.value), module_state(contents.value)
    levels = [name for name in state if re.fullmatch(r"fromRGB\.\d+\.model\.0\.weight", name)]
    outputs = size(state, "final_layer.weight", 4)[0]
    sizes = {
        "channels": [size(state, name, 4)[0] for name in levels],
        "latent_dim": outputs - 3 if outputs > 1 else 0,  # its guess, beside the score and two angles
    }
    config = {"class_path": "zoo.pigan.Discriminator", "init_args": sizes | DISCRIMINATORS[kind]}
    table = DISCRIMINATOR if DISCRIMINATORS[kind]["coordinates"] else PLAIN_DISCRIMINATOR
    card = {"system": "PiGAN", "weights": "discriminator", "iterations": attributes(contents.value).get("step")}
    return Converted(*filled(config, state, table, place), card, place.name)
