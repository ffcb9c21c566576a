"""Cases of the discriminator, and the field at the single points of cases of images."""

import itertools
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.functional import instance_norm

from tests.parity.graf.build import codes, flat, load_discriminator
from tests.parity.graf.draws import published_draws
from tests.parity.harness import Case
from tests.parity.published import hearing
from tests.parity.replay import Replay
from zoo.graf.convert import DISCRIMINATOR
from zoo.graf.model import RadianceField
from zoo.graf.training import random_flip
from zoo.layers.encoding import positional_encoding
from zoo.render import Samples, to_map
from zoo.weights.names import to_published


@torch.no_grad()
def discriminator(case: Case) -> None:
    for of in case.config["models"]:
        size, prefix = of["imsize"], f"imsize{of['imsize']}"
        discriminator = load_discriminator(case, size, of["ndf"], f"discriminator.{prefix}.").eval()
        patches = to_map(case.inputs[f"patch{size}"].unflatten(0, (-1, size**2)))
        with hearing(dict(enumerate(discriminator.convolutions))) as heard:
            case.compare(f"{prefix}.eval", discriminator(patches).scores[..., None, None])
        calls = [call for (call,) in heard.values()]
        compare_activations(case, f"{prefix}.eval.act", discriminator.first_norm, calls)
        if f"{prefix}.eval_hflip" in case.outputs:
            draws = Replay(published_draws(case, "hflip", {}))
            case.compare(f"{prefix}.eval_hflip", discriminator(random_flip(patches, draws)).scores[..., None, None])
        discriminator.train()
        case.compare(f"{prefix}.train1", discriminator(patches).scores[..., None, None])
        case.compare(f"{prefix}.train2", discriminator(patches).scores[..., None, None])
        after = to_published(discriminator.state_dict(), DISCRIMINATOR[size])
        for name, tensor in case.recorded(f"{prefix}.after.", after).items():
            case.compare(name, tensor)


def compare_activations(case: Case, prefix: str, first_norm: int, calls: list[tuple]) -> None:
    """Published layers in order, of calls of the convolutions: convolution, norm where there is one, activation."""
    layers = []
    for i, ((_, result), ((activated,), _)) in enumerate(itertools.pairwise(calls)):
        layers += [result, instance_norm(result), activated] if i >= first_norm else [result, activated]
    layers.append(calls[-1][1])
    for name, layer in case.recorded(prefix, {f"{i:02d}": layer for i, layer in enumerate(layers)}).items():
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

    ours = [unswap(x)[:, None] for x in (torch.zeros_like(directions), directions)]
    placed = unswap(points)[:, None]
    with hearing({"last": last_layer(field)}) as heard, patch.object(Tensor, "relu_", remember):
        raw, _ = field(Samples(*ours, torch.zeros(len(z), 1, points.shape[1]), placed), latent)
    parts = [positional_encoding(points, field.point_octaves), latent.shape_code]
    if field.view_octaves is not None:
        parts.append(positional_encoding(directions, field.view_octaves))
    parts.append(latent.appearance_code)
    parts = [x if x.dim() == 3 else x[:, None].expand(-1, points.shape[1], -1) for x in parts]
    case.compare("query.network_input", flat(torch.cat(parts, dim=-1)))
    case.compare("query.pts_linears", torch.stack([flat(x) for x in before[: len(field.layers)]]))
    case.relative("query.raw", torch.cat([heard["last"][0][1][..., :3], raw], dim=-1)[:, 0])


def last_layer(field: RadianceField) -> nn.Module:
    """The layer that makes colours."""
    return field.output if field.output is not None else field.colour


def unswap(vectors: Tensor) -> Tensor:
    """Published vectors in our world; the way back from ``z_up``."""
    x, y, z = vectors.unbind(-1)
    return torch.stack([x, z, -y], dim=-1)
