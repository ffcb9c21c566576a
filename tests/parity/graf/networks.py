"""Cases of the discriminator, and the field at the single points of cases of images."""

from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import instance_norm

from tests.parity.graf.build import codes, flat, load_discriminator
from tests.parity.graf.draws import published_draws
from tests.parity.harness import Case, Replay
from zoo.graf.convert import DISCRIMINATOR
from zoo.graf.model import RadianceField
from zoo.graf.training import random_flip
from zoo.layers.encoding import positional_encoding
from zoo.render import Samples, to_map
from zoo.weights.names import published_name


@torch.no_grad()
def discriminator(case: Case) -> None:
    for of in case.config["models"]:
        size, prefix = of["imsize"], f"imsize{of['imsize']}"
        discriminator = load_discriminator(case, size, of["ndf"], f"discriminator.{prefix}.").eval()
        patches = to_map(case.inputs[f"patch{size}"].unflatten(0, (-1, size**2)))
        inputs, outputs = [], []

        def remember(module, given, result, inputs=inputs, outputs=outputs) -> None:
            inputs.append(given[0])
            outputs.append(result)

        for convolution in discriminator.convolutions:
            convolution.register_forward_hook(remember)
        case.compare(f"{prefix}.eval", discriminator(patches).scores[..., None, None])
        compare_activations(case, f"{prefix}.eval.act", discriminator.first_norm, inputs, outputs)
        if f"{prefix}.eval_hflip" in case.outputs:
            draws = Replay(published_draws(case, "hflip", {}))
            case.compare(f"{prefix}.eval_hflip", discriminator(random_flip(patches, draws)).scores[..., None, None])
        discriminator.train()
        case.compare(f"{prefix}.train1", discriminator(patches).scores[..., None, None])
        case.compare(f"{prefix}.train2", discriminator(patches).scores[..., None, None])
        for name, tensor in discriminator.state_dict().items():
            published = f"{prefix}.after.{published_name(name, DISCRIMINATOR[size])}"
            if published in case.outputs:
                case.compare(published, tensor)


def compare_activations(case: Case, prefix: str, first_norm: int, inputs: list, outputs: list) -> None:
    """Published layers in order: convolution, norm where there is one, activation."""
    layers = []
    for i, (given, result) in enumerate(zip(inputs[1:], outputs[:-1], strict=True)):
        layers += [result, instance_norm(result), given] if i >= first_norm else [result, given]
    layers.append(outputs[-1])
    for i, layer in enumerate(layers):
        name = f"{prefix}{i:02d}"
        if name in case.outputs:
            case.compare(name, layer)


def query(case: Case, field: RadianceField) -> None:
    """The network at single points; each ray has a latent of its own, so it is a sample of its own."""
    points, directions, z = (case.inputs[f"query.{name}"] for name in ("points", "viewdirs", "z"))
    latent = codes(case.config, z)
    before: list[Tensor] = []
    activate = Tensor.relu_

    def remember(x: Tensor) -> Tensor:
        before.append(x.clone())
        return activate(x)

    colours: list[Tensor] = []
    last = field.output if field.output is not None else field.colour
    hook = last.register_forward_hook(lambda *call: colours.append(call[2]))
    ours = [unswap(x)[:, None] for x in (torch.zeros_like(directions), directions)]
    placed = unswap(points)[:, None]
    with patch.object(Tensor, "relu_", remember):
        raw, _ = field(Samples(*ours, torch.zeros(len(z), 1, points.shape[1]), placed), latent)
    hook.remove()
    parts = [positional_encoding(points, field.point_octaves), latent.shape_code]
    if field.view_octaves is not None:
        parts.append(positional_encoding(directions, field.view_octaves))
    parts.append(latent.appearance_code)
    parts = [x if x.dim() == 3 else x[:, None].expand(-1, points.shape[1], -1) for x in parts]
    case.compare("query.network_input", flat(torch.cat(parts, dim=-1)))
    case.compare("query.pts_linears", torch.stack([flat(x) for x in before[: len(field.layers)]]))
    case.relative("query.raw", torch.cat([colours[0][..., :3], raw], dim=-1)[:, 0])


def unswap(vectors: Tensor) -> Tensor:
    """Published vectors in our world; the way back from ``z_up``."""
    x, y, z = vectors.unbind(-1)
    return torch.stack([x, z, -y], dim=-1)
