"""Cases of the discriminator."""

import torch

from tests.parity.harness import Case
from tests.parity.published import Watched
from tests.parity.volumegan.build import load_discriminator
from zoo.layers.stylegan2 import minibatch_stddev


@torch.no_grad()
def discriminator(case: Case) -> None:
    discriminator, images = load_discriminator(case), case.inputs["image"]
    watched = discriminator.features = Watched(discriminator.features)
    for name in case.outputs:
        if name.startswith("score_lod_") and name != "score_lod_arg":
            discriminator.lod.fill_(float(name.removeprefix("score_lod_")))
            case.scores(name, discriminator(images).scores)
    if "score_lod_arg" in case.outputs:
        discriminator.lod.fill_(1.0)  # what it was given as an argument
        case.scores("score_lod_arg", discriminator(images).scores)
    discriminator.lod.fill_(0.0)
    for name in case.outputs:
        if name.startswith("score_batch"):
            case.scores(name, discriminator(images[: int(name.removeprefix("score_batch"))]).scores)
    discriminator(images)
    features = watched.calls[-1][1]
    case.scores("feat_before_mbstd", features)
    if "mbstd_channel" in case.outputs:
        case.compare("mbstd_channel", minibatch_stddev(features, discriminator.groups)[:, -1:])
