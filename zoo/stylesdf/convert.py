"""The published StyleSDF's checkpoints (github.com/royorel/StyleSDF) and ours.

A file of either stage holds plain state dicts: the generator ``g``, its EMA ``g_ema``, from which images are made, and
the discriminator ``d``. A file of the first stage, ``*_vol_renderer.pt``, has no decoder, and the discriminator of
rendered images; one of the second has both parts of the generator, and the discriminator of large images. Sizes are
those of the tensors; cameras, depths and numbers of samples come from an experiment. Optimizers are in none of them.
"""

import re
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from zoo.layers.stylegan2 import binomial
from zoo.stylesdf.model import Generator
from zoo.utils.paths import config_names
from zoo.weights.convert import Published
from zoo.weights.names import Table, count, inside, size
from zoo.weights.read import Contents, Place, tensors_in

NAME = "StyleSDF"
WEIGHTS = {"ema": "g_ema", "raw": "g", "discriminator": "d"}  # entries of a file
NEEDED = {"style.0.weight", "renderer.network.pts_linears.0.gamma.weight", "renderer.network.sigma_linear.weight"}

# ours -> published
SINE = [(r"linear\.", ""), (r"frequency\.", "gamma."), (r"phase\.", "beta.")]
MODULATED = [(r"weight$", "conv.weight"), (r"style\.", "conv.modulation.")]
STYLED = [(r"conv\.bias$", "activate.bias"), (r"noise\.strength$", "noise.weight"), *inside(r"conv\.", "", MODULATED)]
IMAGE = [(r"bias$", "bias"), *MODULATED]
GENERATOR: Table = [
    (r"(mean_w|decoder\.(mean_latent|trained))$", None),
    (r"mapping\.layers\.", "style."),
    (r"renderer\.quadrature\.density\.beta$", "renderer.sigmoid_beta"),
    *inside(r"field\.layers\.(\d+)\.", r"renderer.network.pts_linears.\1.", SINE),
    *inside(r"field\.view_layer\.", "renderer.network.views_linears.", SINE),
    (r"field\.distance\.", "renderer.network.sigma_linear."),
    (r"field\.colour\.", "renderer.network.rgb_linear."),
    (r"decoder\.mapping\.layers\.(\d+)\.", lambda m: f"decoder.style.{int(m[1]) + 1}."),
    (r"decoder\.layer\.noise\.stored$", "decoder.noises.noise_0"),
    (r"decoder\.blocks\.(\d+)\.first\.noise\.stored$", lambda m: f"decoder.noises.noise_{2 * int(m[1]) + 1}"),
    (r"decoder\.blocks\.(\d+)\.second\.noise\.stored$", lambda m: f"decoder.noises.noise_{2 * int(m[1]) + 2}"),
    *inside(r"decoder\.layer\.", "decoder.conv1.", STYLED),
    *inside(r"decoder\.rgb\.", "decoder.to_rgb1.", IMAGE),
    *(
        entry
        for i in range(16)
        for entry in [
            *inside(rf"decoder\.blocks\.{i}\.first\.", f"decoder.convs.{2 * i}.", STYLED),
            *inside(rf"decoder\.blocks\.{i}\.second\.", f"decoder.convs.{2 * i + 1}.", STYLED),
            *inside(rf"decoder\.blocks\.{i}\.rgb\.", f"decoder.to_rgbs.{i}.", IMAGE),
        ]
    ),
]


def block(match: re.Match) -> str:
    """The published name of a discriminator's block, whose first one is what images enter by."""
    return f"convs.{int(match[1]) + 1}."


VOLUME_DISCRIMINATOR: Table = [
    (r"from_rgb\.weight$", "convs.0.conv.weight"),
    (r"from_rgb\.bias$", "convs.0.activation.bias"),
    (r"blocks\.(\d+)\.first\.conv\.weight$", lambda m: block(m) + "conv1.conv.conv.weight"),
    (r"blocks\.(\d+)\.first\.conv\.bias$", lambda m: block(m) + "conv1.activation.bias"),
    (r"blocks\.(\d+)\.second\.conv\.weight$", lambda m: block(m) + "conv2.conv.conv.weight"),
    (r"blocks\.(\d+)\.second\.conv\.bias$", lambda m: block(m) + "conv2.activation.bias"),
    (r"blocks\.(\d+)\.skip\.", lambda m: block(m) + "skip.conv."),
    (r"final\.", "final_conv.conv."),
]
IMAGE_DISCRIMINATOR: Table = [
    (r"from_rgb\.0\.weight$", "convs.0.0.weight"),
    (r"from_rgb\.0\.bias$", "convs.0.1.bias"),
    (r"blocks\.(\d+)\.first\.weight$", lambda m: block(m) + "conv1.0.weight"),
    (r"blocks\.(\d+)\.first\.bias$", lambda m: block(m) + "conv1.1.bias"),
    (r"blocks\.(\d+)\.second\.weight$", lambda m: block(m) + "conv2.1.weight"),
    (r"blocks\.(\d+)\.second\.bias$", lambda m: block(m) + "conv2.2.bias"),
    (r"blocks\.(\d+)\.skip\.weight$", lambda m: block(m) + "skip.1.weight"),
    (r"final\.weight$", "final_conv.0.weight"),
    (r"final\.bias$", "final_conv.1.bias"),
    (r"dense\.", "final_linear.0."),
    (r"score\.", "final_linear.1."),
]
# Both stages call their discriminator's tensors alike, so here the stage goes before them.
DISCRIMINATOR = [
    *inside(r"volume\.", "volume.", VOLUME_DISCRIMINATOR),
    *inside(r"image\.", "image.", IMAGE_DISCRIMINATOR),
]


def table(network: nn.Module) -> Table:
    """The names of a network's tensors."""
    return GENERATOR if isinstance(network, Generator) else DISCRIMINATOR


def part(contents: Contents) -> str | None:
    """A file of the published StyleSDF holds a generator, or is none."""
    return "generator" if set(generator_in(contents)) >= NEEDED else None


def generator_in(contents: Contents) -> dict:
    """The state dict of either generator; a bare one counts as the EMA."""
    held = contents.value if isinstance(contents.value, dict) else {}
    found = held.get("g_ema") or held.get("g") or held
    return found if isinstance(found, dict) else {}


def experiments(contents: Contents) -> list[str] | None:
    """The published experiments whose images are as large; of the first stage alone, all."""
    sides = noise_sides(generator_in(contents))
    names = [name for name in config_names() if name.startswith("stylesdf/") and not name.endswith("cars32")]
    return [name for name in names if not sides or name.endswith(str(sides[-1]))]


def published(place: Place, contents: Contents, weights: str) -> Published | None:
    """One of the state dicts in the file."""
    entry, value = WEIGHTS[weights], contents.value
    held = {"g_ema": value} if generator_in(contents) is value else value
    if not isinstance(held.get(entry), dict):
        return None
    state, number = without_axes(tensors_in("", held[entry])), re.search(r"models_(\d+)", place.name)
    if weights == "discriminator":
        stage = "volume" if "final_conv.conv.weight" in state else "image"
        state = {f"{stage}.{name}": tensor for name, tensor in state.items()}
    return Published(state, f"{place.name}, {entry}", {"iterations": int(number[1]) if number else None})


def config(published: Published, weights: str, experiment: dict[str, Any] | None) -> dict[str, Any]:
    """The experiment's with the sizes of the tensors; a discriminator's are all that there is to it."""
    if weights != "discriminator":
        return resized(experiment, published.state)
    is_small = "volume.final_conv.conv.weight" in published.state
    part = {"volume": volume_config(published.state)} if is_small else {"image": image_config(published.state)}
    return {"class_path": "zoo.stylesdf.StagedDiscriminator", "init_args": part}


def official(networks: dict[str, dict[str, Tensor]], card: dict[str, str]) -> dict[str, Any]:
    """A file for each stage: the second's, where there is a decoder, and the first's, where it is all or was kept."""
    states = {WEIGHTS[name]: with_axes(state) for name, state in networks.items()}
    discriminators, files = states.pop("d", {}), {}
    volume, image = (
        {name.removeprefix(stage): tensor for name, tensor in discriminators.items() if name.startswith(stage)}
        for stage in ("volume.", "image.")
    )
    decodes = any(name.startswith("decoder.") for state in states.values() for name in state)
    if image or decodes:
        files["full_pipeline.pt"] = states | ({"d": image} if image else {})
    if volume or not files:
        rendering = {
            entry: {name: tensor for name, tensor in state.items() if not name.startswith("decoder.")}
            for entry, state in states.items()
        }
        files["volume_renderer.pt"] = rendering | ({"d": volume} if volume else {})
    return {file: {entry: completed(state) for entry, state in held.items()} for file, held in files.items()}


# Shapes and constants


def without_axes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict in our shapes: without axes of length one that kernels, strengths and colours have."""
    ours = {}
    for name, tensor in state.items():
        if re.fullmatch(r"decoder\..*(conv|noise)\.weight", name) and tensor.dim() in (1, 5) and len(tensor) == 1:
            tensor = tensor[0]
        elif re.fullmatch(r"decoder\.to_rgb.*\.bias", name) and tensor.dim() == 4:
            tensor = tensor[0, :, 0, 0]
        ours[name] = tensor
    return ours


def with_axes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse."""
    theirs = {}
    for name, tensor in state.items():
        if re.fullmatch(r"decoder\..*(conv|noise)\.weight", name):
            tensor = tensor[None]
        elif re.fullmatch(r"decoder\.to_rgb[^.]*(\.\d+)?\.bias", name):
            tensor = tensor[None, :, None, None]
        theirs[name] = tensor
    return theirs


def completed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """With what the published networks hold beside, which is the same in all: filters, and biases that nothing reads.

    Without these, the published program would refuse weights that were trained here.
    """
    constant = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"(decoder\.(?:conv1|convs\.\d+)\.)activate\.bias", name):
            constant[f"{match[1]}bias"] = torch.zeros_like(tensor)[None, :, None, None]
        if match := re.fullmatch(r"(decoder\.convs\.\d*[02468]\.conv\.)weight", name):
            constant[f"{match[1]}blur.kernel"] = binomial(tensor, 4.0)
        if match := re.fullmatch(r"(decoder\.to_rgbs\.\d+\.)bias", name):
            constant[f"{match[1]}upsample.kernel"] = binomial(tensor, 4.0)
        if match := re.fullmatch(r"(convs\.\d+\.(?:conv2|skip)\.)1\.weight", name):
            constant[f"{match[1]}0.kernel"] = binomial(tensor)
    return constant | state


# Sizes


def noise_sides(state: dict[str, Tensor]) -> list[int]:
    """Sides of the stored noise of a decoder's layers, in their order; none where there is no decoder."""
    return [size(state, f"decoder.noises.noise_{i}", 4)[-1] for i in range(count(state, r"decoder\.noises\.noise_\d+"))]


def resized(experiment: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Any]:
    """A generator's config with the sizes of published tensors, and with a decoder only if they have one."""
    config = deepcopy(experiment)
    args = config["init_args"]
    field, renderer = (args[name].setdefault("init_args", {}) for name in ("field", "renderer"))
    args["mapping_layers"] = count(state, r"style\.\d+\.weight")
    args["latent_dim"] = size(state, "style.0.weight")[1]
    field["num_layers"] = count(state, r"renderer\.network\.pts_linears\.\d+\.weight")
    field["hidden_dim"], field["style_dim"] = size(state, "renderer.network.pts_linears.0.gamma.weight")
    quadrature = renderer.setdefault("quadrature", {})
    if "class_path" in quadrature:  # which an experiment may leave out
        quadrature = quadrature.setdefault("init_args", {})
    has_surface = "renderer.sigmoid_beta" in state
    quadrature["density"] = {"class_path": "zoo.stylesdf.SigmoidDensity"} if has_surface else "zoo.render.softplus"
    published = args.get("decoder")
    if published:
        args["render_side"] = min(map(int, published["init_args"]["widths"]))
    args["decoder"] = decoder_config(state) if noise_sides(state) else None
    return config


def decoder_config(state: dict[str, Tensor]) -> dict[str, Any]:
    """Our config of a published decoder."""
    sides = noise_sides(state)
    width, features = size(state, "decoder.conv1.conv.weight", 4)[:2]
    widths = {sides[0]: width}
    for i, side in enumerate(sides[2::2]):
        widths[side] = size(state, f"decoder.convs.{2 * i + 1}.conv.weight", 4)[0]
    latent_dim, style_dim = size(state, "decoder.style.1.weight")
    sizes = {"widths": widths, "feature_dim": features, "style_dim": style_dim, "latent_dim": latent_dim}
    sizes["mapping_layers"] = count(state, r"decoder\.style\.\d+\.weight")
    return {"class_path": "zoo.stylesdf.Decoder", "init_args": sizes}


def volume_config(state: dict[str, Tensor]) -> dict[str, Any]:
    """Our config of the published discriminator of rendered images."""
    blocks = count(state, r"volume\.convs\.\d+\.conv1\.conv\.conv\.weight")
    names = ["volume.convs.0.conv.weight"] + [f"volume.convs.{i + 1}.conv1.conv.conv.weight" for i in range(blocks)]
    sizes = {
        "channels": [size(state, name, 4)[0] for name in names],
        "guesses_pose": size(state, "volume.final_conv.conv.weight", 4)[0] == 3,
    }
    return {"class_path": "zoo.stylesdf.PoseDiscriminator", "init_args": sizes}


def image_config(state: dict[str, Tensor]) -> dict[str, Any]:
    """Our config of the published discriminator of large images."""
    blocks = count(state, r"image\.convs\.\d+\.conv1\.0\.weight")
    names = ["image.convs.0.0.weight"] + [f"image.convs.{i + 1}.conv2.1.weight" for i in range(blocks)]
    widths = {4 * 2 ** (blocks - i): size(state, name, 4)[0] for i, name in enumerate(names)}
    return {"class_path": "zoo.stylesdf.ImageDiscriminator", "init_args": {"widths": widths}}
