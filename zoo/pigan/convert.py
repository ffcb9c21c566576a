"""The published pi-GAN's checkpoints (github.com/marcoamonteiro/pi-GAN) and ours.

A training run of it leaves ``generator.pth`` and ``discriminator.pth``, whole modules; ``ema.pth`` and ``ema2.pth``,
EMAs of the generator's parameters, as a bare list in their order; and optimizers. The published downloads hold the
first and the EMAs. Sizes are those of the tensors; cameras, depths and numbers of samples are in none of the files.
"""

import re
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from zoo.pigan.model import Discriminator
from zoo.utils.errors import UserError
from zoo.utils.records import Record
from zoo.weights.convert import NotBuilt, Published
from zoo.weights.names import Table, count, size
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

NAME = "PiGAN"
# files in a folder; EMAs have decays of 0.999 and 0.9999, and images and scores come from the first
WEIGHTS = {"ema": "ema.pth", "raw": "generator.pth", "ema2": "ema2.pth", "discriminator": "discriminator.pth"}
EXPERIMENTS = {
    "TALLSIREN": ["pigan/carla128"],
    "SPATIALSIRENBASELINE": ["pigan/celeba64", "pigan/cats64"],
}
# class of the discriminator -> init_args that do not follow from its tensors
DISCRIMINATORS: dict[str, dict[str, Any]] = {
    "CCSEncoderDiscriminator": {"coordinates": True, "downsample": "stride"},
    "CCSDiscriminator": {"coordinates": True, "downsample": "stride"},
    "StridedDiscriminator": {"coordinates": False, "downsample": "stride"},
    "ProgressiveEncoderDiscriminator": {"coordinates": True, "downsample": "pool"},
    "ProgressiveDiscriminator": {"coordinates": True, "downsample": "pool"},
}

# ours -> published
GENERATOR = [
    (r"field\.layers\.(\d+)\.", r"siren.network.\1.layer."),
    (r"field\.density\.", "siren.final_layer."),
    (r"field\.colour_sine\.", "siren.color_layer_sine.layer."),
    (r"field\.colour\.", "siren.color_layer_linear.0."),
    (r"field\.embedding\.cube", "siren.spatial_embeddings"),
    (r"mapping\.layers\.(\d+)\.", lambda m: f"siren.mapping_network.network.{2 * int(m[1])}."),
    (r"mean_", None),
]
DISCRIMINATOR = [
    (r"blocks\.(\d+)\.first\.conv\.", r"layers.\1.network.0.conv."),
    (r"blocks\.(\d+)\.second\.conv\.", r"layers.\1.network.2.conv."),
    (r"blocks\.(\d+)\.skip\.", r"layers.\1.proj."),
    (r"from_rgb\.(\d+)\.", r"fromRGB.\1.model.0."),
    (r"final\.", "final_layer."),
]
PLAIN_DISCRIMINATOR = [(pattern, to.replace(".conv.", ".")) for pattern, to in DISCRIMINATOR]  # without coordinates


def table(network: nn.Module) -> Table:
    """The names of a network's tensors."""
    if not isinstance(network, Discriminator):
        return GENERATOR
    with_coordinates = any(getattr(module, "coordinates", False) for module in network.modules())
    return DISCRIMINATOR if with_coordinates else PLAIN_DISCRIMINATOR


def part(contents: Contents) -> str | None:
    """A whole module, or a bare state dict of a generator; EMAs have no names of their own."""
    value = contents.value
    if is_module(value) and value.name == "generators.generators.ImplicitGenerator3d":
        return "generator"
    if is_module(value) and value.name.startswith("discriminators.") and class_name(value) in DISCRIMINATORS:
        return "discriminator"
    if isinstance(value, Record) and value.name == "torch_ema.ema.ExponentialMovingAverage":
        return "ema"
    if isinstance(value, dict) and {"siren.network.0.layer.weight", "siren.final_layer.weight"} <= set(value):
        return "generator"
    return None


def experiments(contents: Contents) -> list[str] | None:
    """The data sets whose experiments have its kind of SIREN."""
    if part(contents) != "generator":
        return None
    if not isinstance(contents.value, Record):
        return sorted({name for names in EXPERIMENTS.values() for name in names})
    return EXPERIMENTS.get(class_name(siren(contents.value)), [])


def published(place: Place, contents: Contents, weights: str) -> Published | None:
    """The file itself, with the EMAs or the discriminator that were saved together with it.

    Raises:
        UserError: they are of something else.
    """
    kind = part(contents)
    if kind == "ema":
        raise UserError(f"{place} holds EMAs without names: give the generator.pth that they belong to.")
    if kind == "discriminator":
        return discriminator_in(place, contents) if weights == "discriminator" else None
    is_bare = isinstance(contents.value, dict)  # as 'zoo convert --to official' writes it, also an EMA
    own = next((w for w in ("ema", "ema2") if is_bare and place.name.endswith(WEIGHTS[w])), "raw")
    # ``05--12:30--ema.pth`` belongs to ``05--12:30--generator.pth``
    together = place.name[: max(0, place.name.find(WEIGHTS[own].removesuffix(".pth")))] + WEIGHTS[weights]
    found = place if weights == own else place.beside(together)
    if found is None:
        return None
    held = contents if found == place else read(found)
    if weights == "discriminator":
        if isinstance(held.value, dict):
            raise NotBuilt(f"{found.name} holds bare tensors, which do not say how a discriminator was built.")
        return discriminator_in(found, held)
    if part(held) == "generator" and isinstance(held.value, dict):
        return Published(tensors_in("", held.value), f"{found.name}, {weights} weights", {})
    record = contents.value if isinstance(contents.value, Record) else None
    state = tensors_in("", contents.value) if record is None else module_state(record)
    about = {"iterations": None if record is None else attributes(record).get("step")}
    field = None if record is None else siren(record)
    if weights == "raw":
        return Published(state, f"{place.name}, raw weights", about, field)
    order = list(state if record is None else module_parameters(record))
    state |= dict(zip(order, shadow(found, place, [state[name] for name in order]), strict=True))
    return Published(state, f"{place.name} with the EMAs in {found.name}", about, field)


def config(published: Published, weights: str, experiment: dict[str, Any] | None) -> dict[str, Any]:
    """The experiment's with the sizes of the tensors; a discriminator's other options follow from its class."""
    if weights == "discriminator":
        return discriminator_config(published.state, published.settings)
    return resized(experiment, published.state, published.settings)


def official(networks: dict[str, dict[str, Tensor]], card: dict[str, str]) -> dict[str, Any]:
    """State dicts, one file for each; the published program keeps whole modules, which ours are not."""
    return {WEIGHTS[name]: state for name, state in networks.items()}


def discriminator_in(place: Place, contents: Contents) -> Published:
    """The discriminator that is a file."""
    if part(contents) != "discriminator":
        raise UserError(f"{place} holds no discriminator of the published pi-GAN.")
    value = contents.value
    return Published(module_state(value), place.name, {"iterations": attributes(value).get("step")}, class_name(value))


def siren(generator: Record) -> Record:
    """The module that holds the field and the mapping network."""
    found = dict(modules(generator)).get("siren")
    if found is None:
        raise UserError("The generator in the file has no SIREN.")
    return found


def shadow(place: Place, of: Place, parameters: list[Tensor]) -> list[Tensor]:
    """The averaged parameters in a file, in their order. (Its ``collected_params`` are a copy of the raw ones.)

    Raises:
        UserError: they are not of these parameters.
    """
    value = read(place).value
    value = value if isinstance(value, dict) else attributes(value) if isinstance(value, Record) else {}
    averaged = value.get("shadow_params")
    if not isinstance(averaged, list) or not all(isinstance(tensor, Tensor) for tensor in averaged):
        raise UserError(f"{place} holds no EMAs; --weights raw does without.")
    if [tensor.shape for tensor in averaged] != [tensor.shape for tensor in parameters]:
        raise UserError(f"The EMAs in {place} are not of the parameters in {of}; --weights raw does without.")
    return averaged


# Sizes


def resized(experiment: dict[str, Any], state: dict[str, Tensor], field: Record | None) -> dict[str, Any]:
    """A generator's config with the sizes of published tensors; the field's input scale comes from its box, if any."""
    config = deepcopy(experiment)
    args = config["init_args"]
    args["mapping_dim"], args["latent_dim"] = size(state, "siren.mapping_network.network.0.weight")
    own = args["field"].setdefault("init_args", {})
    own["hidden_dim"], _ = size(state, "siren.network.0.layer.weight")
    own["num_layers"] = count(state, r"siren\.network\.\d+\.layer\.weight")
    own["embedding"] = None
    if "siren.spatial_embeddings" in state:
        _, channels, resolution, *_ = size(state, "siren.spatial_embeddings", 5)
        sizes = {"channels": channels, "resolution": resolution}
        own["embedding"] = {"class_path": "zoo.pigan.SpatialEmbedding", "init_args": sizes}
    if field is not None:
        box = attributes(field)["_modules"].get("gridwarper")
        own["input_scale"] = 1.0 if box is None else float(attributes(box)["scale_factor"])
    return config


def discriminator_config(state: dict[str, Tensor], kind: str) -> dict[str, Any]:
    """Our config of a published discriminator of this class."""
    outputs = size(state, "final_layer.weight", 4)[0]
    sizes = {
        "channels": [
            size(state, name, 4)[0] for name in state if re.fullmatch(r"fromRGB\.\d+\.model\.0\.weight", name)
        ],
        "latent_dim": outputs - 3 if outputs > 1 else 0,  # its guess, beside the score and two angles
    }
    return {"class_path": "zoo.pigan.Discriminator", "init_args": sizes | DISCRIMINATORS[kind]}
