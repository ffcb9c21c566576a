"""The generated pictures that are scored and that ``zoo sample --images`` writes; each a function of (seed, index)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from zoo.draws import SampleDraws
from zoo.render import Rendered

DrawsPolicy = Literal["per-sample", "none"]


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards every module is as it was."""
    training = [module for network in networks for module in network.modules() if module.training]
    for network in networks:
        network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def render_samples(
    generator: nn.Module,
    indices: Sequence[int],
    seed: int = 0,
    truncation: float = 1.0,
    resolution: int | None = None,
    draws: DrawsPolicy = "per-sample",
    device: torch.device | str | None = None,
) -> Rendered:
    """The samples with these indices, in one batch; each depends on (seed, index) only, not on its neighbours.

    Args:
        generator: any system's generator.
        indices: which samples, at least 0 each.
        truncation: as in ``generator.map``.
        resolution: side of the image [pixels]; by default the generator's own.
        draws: ``per-sample``: the renderer jitters with numbers that belong to the sample; ``none``: no jitter.
            Latents and cameras are random either way.
        device: where; by default where the generator is.
    """
    random = SampleDraws(seed, indices, generator.bounds.device if device is None else device)
    with evaluating(generator):
        styles = generator.map(generator.latents(len(indices), random), truncation=truncation)
        camera = generator.cameras(len(indices), random)
        return generator.render(
            styles, camera, resolution=resolution, draws={"per-sample": random, "none": None}[draws]
        )
