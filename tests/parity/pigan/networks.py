"""Cases of discriminators, and the field at the single points of cases of images."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

import zoo.pigan.model
from tests.parity.harness import Case
from tests.parity.pigan.build import IMAGE, load_discriminator
from tests.parity.published import watching
from zoo.pigan.model import Generator, Latent
from zoo.render import Samples


@torch.no_grad()
def discriminator(case: Case) -> None:
    for kind in case.config["classes"]:
        discriminator = load_discriminator(case, kind, case.config["channel_map"], f"discriminator.{kind}.")
        for name in case.outputs:
            if not name.startswith(f"{kind}."):
                continue
            size, rest = name.removeprefix(f"{kind}.size").split(".", 1)
            alpha, what = rest.removeprefix("alpha").rsplit(".", 1)
            activations: list[Tensor] = []
            keep = partial(remember, activations)
            hooks = [m.register_forward_hook(keep) for m in [*discriminator.from_rgb, *discriminator.blocks]]
            output = discriminator(case.inputs[f"image{size}"], float(alpha))
            for hook in hooks:
                hook.remove()
            field = {"score": "scores", "latent": "latent", "position": "camera"}.get(what)
            case.compare(name, getattr(output, field) if field else activations[int(what.removeprefix("act"))])


def remember(activations: list[Tensor], module: nn.Module, inputs: tuple, output: Tensor) -> None:
    activations.append(leaky_relu(output, 0.2) if isinstance(module, nn.Conv2d) else output)


def query(case: Case, generator: Generator) -> None:
    """The field at single points: each is a ray of one sample."""
    points, directions = case.inputs["query_points"], case.inputs["query_dirs"]
    samples = Samples(points, directions, torch.zeros_like(points[..., :1]))
    styles = generator.map(Latent(case.inputs["z"]))
    with watching(zoo.pigan.model, "sine") as watched:
        raw, colour = generator.field(samples, generator.field.modulate(styles))
    case.compare("query.film_activations", torch.stack([result for _, result in watched.calls]), IMAGE)
    case.relative("query.rgb_sigma", torch.cat([colour, raw], -1)[:, :, 0])
