"""Cases of discriminators."""

import torch

from tests.parity.harness import Case
from tests.parity.stylesdf.build import make_discriminator
from zoo.layers.stylegan2 import minibatch_stddev


def discriminator_stage1(case: Case) -> None:
    image = case.inputs["image"]
    network, without = make_discriminator(case), make_discriminator(case, "discriminator_nopose.")
    x = torch.nn.functional.leaky_relu(network.from_rgb(image), 0.2)
    case.scores("convs.0", x)
    for i, block in enumerate(network.blocks, 1):
        x = block(x)
        case.scores(f"convs.{i}", x)
    case.scores("score", network(image).scores)
    case.scores("viewpoint", network(image).camera)
    case.scores("nopose.score", without(image).scores)


def discriminator_stage2(case: Case) -> None:
    network = make_discriminator(case)
    for name in [name for name in case.outputs if name.startswith("score_")]:
        n = int(name.removeprefix("score_"))
        images = case.inputs["image"][:n]
        case.scores(name, network(images).scores)
        x = network.features(images)
        case.scores(f"stddev_{n}", minibatch_stddev(x, network.group(n))[:, -1:])
        if f"trunk_{n}" in case.outputs:
            case.scores(f"trunk_{n}", x)
