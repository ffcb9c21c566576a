"""The published GIRAFFE's checkpoints (github.com/autonomousvision/giraffe) and ours.

One file holds all: discriminator, generator and its EMA, ``generator_test``, from which images are made. Widths
are those of the tensors; cameras, ranges of boxes, depths and numbers of samples are in none of the files.
"""

from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from zoo.giraffe.model import Discriminator
from zoo.utils.errors import UserError
from zoo.weights.convert import Published
from zoo.weights.names import Table, count, inside, size
from zoo.weights.read import Contents, Place, tensors_in

NAME = "GIRAFFE"
WEIGHTS = {"ema": "generator_test.", "raw": "generator.", "discriminator": "discriminator."}  # prefixes of tensors
# number of times that the size doubles -> experiments
EXPERIMENTS = {
    2: [f"giraffe/{name}64" for name in ("cats", "celeba", "chairs", "church", "compcars")],
    4: [f"giraffe/{name}" for name in ("celebahq256", "church256", "clevr2_256", "compcars256", "ffhq256")],
}
MANY = ["giraffe/clevr2345_256"]  # the only one whose fields are half as wide

# ours -> published; for a field, a renderer, a discriminator alone
FIELD = [
    (r"first\.", "fc_in."),
    (r"shape\.", "fc_z."),
    (r"layers\.(\d+)\.", r"blocks.\1."),
    (r"skip_shapes\.(\d+)\.", r"fc_z_skips.\1."),
    (r"skip_points\.(\d+)\.", r"fc_p_skips.\1."),
    (r"density\.", "sigma_out."),
    (r"appearance\.", "fc_z_view."),
    (r"colour\.", "feat_view."),
    (r"view\.", "fc_view."),
    (r"features\.", "feat_out."),
]
RENDERER = [
    (r"enter\.", "conv_in."),
    (r"layers\.(\d+)\.", r"conv_layers.\1."),
    (r"colours\.(\d+)\.", r"conv_rgb.\1."),
    (r"colour\.", "conv_rgb."),
    (r"colour_up\.kernel", "upsample_rgb.1.f"),
    (r"up\.kernel", "upsample_2.1.f"),
]
GENERATOR = [
    *inside(r"scene\.objects\.", "decoder.", FIELD),
    *inside(r"scene\.background\.", "background_generator.", FIELD),
    *inside(r"neural_renderer\.", "neural_renderer.", RENDERER),
]
DISCRIMINATOR = [(r"layers\.(\d+)\.", r"blocks.\1."), (r"score\.", "conv_out.")]


def table(network: nn.Module) -> Table:
    """The names of a network's tensors."""
    return DISCRIMINATOR if isinstance(network, Discriminator) else GENERATOR


def part(contents: Contents) -> str | None:
    """A file of the published GIRAFFE holds a generator, or is none."""
    needed = {"decoder.fc_in.weight", "background_generator.fc_in.weight"}
    states = states_in(contents.value)
    return "generator" if any(needed <= set(states[name]) for name in ("ema", "raw") if name in states) else None


def experiments(contents: Contents) -> list[str]:
    """The published experiments that have as many sizes and fields as wide."""
    states = states_in(contents.value)
    state = tensors_in("", states.get("raw") or states["ema"])
    if size(state, "decoder.fc_in.weight")[0] == 64:
        return MANY
    return EXPERIMENTS.get(count(state, r"neural_renderer\.conv_layers\.\d+\.weight"), [])


def published(place: Place, contents: Contents, weights: str) -> Published | None:
    """The tensors that begin so in the one state dict of the file."""
    state = states_in(contents.value).get(weights)
    about = {"iterations": contents.value.get("it")}
    return Published(tensors_in("", state), f"{place.name}, {weights} weights", about) if state else None


def config(published: Published, weights: str, experiment: dict[str, Any] | None) -> dict[str, Any]:
    """The experiment's with the sizes of the tensors; a discriminator's are all that there is to it."""
    if weights == "discriminator":
        return discriminator_config(published.state)
    return resized(experiment, published.state)


def official(networks: dict[str, dict[str, Tensor]], card: dict[str, str]) -> dict[str, Any]:
    """One file, without the optimizers."""
    model = {WEIGHTS[name] + key: tensor for name, state in networks.items() for key, tensor in state.items()}
    return {"model.pt": {"model": model, "it": int(card.get("iterations", 0))}}


def states_in(value: Any) -> dict[str, dict]:
    """The state dicts in a file, by weights; a bare generator's counts as the EMA."""
    model = value.get("model", value) if isinstance(value, dict) else None
    if not isinstance(model, dict):
        return {}
    names = [name for name in model if isinstance(name, str)]
    if "decoder.fc_in.weight" in model:
        return {"ema": {name: model[name] for name in names}}
    states = {
        weights: {name.removeprefix(prefix): model[name] for name in names if name.startswith(prefix)}
        for weights, prefix in WEIGHTS.items()
    }
    return {weights: state for weights, state in states.items() if state}


# Sizes


def resized(experiment: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Any]:
    """A generator's config with the widths of published tensors."""
    config = deepcopy(experiment)
    args = config["init_args"]
    for field, published in (("objects", "decoder"), ("background", "background_generator")):
        own = args[field].setdefault("init_args", {})
        own["hidden_dim"], own["latent_dim"] = size(state, f"{published}.fc_z.weight")
        own["num_layers"] = count(state, rf"{published}\.blocks\.\d+\.weight") + 1
        own["features"] = size(state, f"{published}.feat_out.weight")[0]
    own = args["neural_renderer"].setdefault("init_args", {})
    own["stages"] = count(state, r"neural_renderer\.conv_layers\.\d+\.weight")
    own["channels"] = size(state, "neural_renderer.conv_layers.0.weight", 4)[1]
    own["least"] = size(state, f"neural_renderer.conv_layers.{own['stages'] - 1}.weight", 4)[0]
    own["channels_in"] = args["objects"]["init_args"]["features"]
    return config


def discriminator_config(state: dict[str, Tensor]) -> dict[str, Any]:
    """Our config of a published discriminator: each layer halves the image, down to 4 pixels."""
    layers = count(state, r"blocks\.\d+\.weight")
    if layers > 12:
        raise UserError(f"The file's discriminator has {layers} layers, more than any published GIRAFFE.")
    sizes = {
        "resolution": 4 * 2**layers,
        "channels": size(state, "conv_out.weight", 4)[1],
        "image_channels": size(state, "blocks.0.weight", 4)[1],
    }
    return {"class_path": "zoo.giraffe.Discriminator", "init_args": sizes}
