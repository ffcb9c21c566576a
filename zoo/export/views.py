"""The same objects seen from several sides, for grids and videos; written once for every system."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.draws import SampleDraws
from zoo.errors import near
from zoo.evaluate.samples import evaluating
from zoo.render import Camera

BATCH = 8


class Views(NamedTuple):
    """image [L, V, 3, H, W] in [-1, 1]; depth [L, V, 1, h, w], NaN where there is nothing."""

    image: Tensor
    depth: Tensor


def turntable_views(
    generator: nn.Module,
    indices: Sequence[int],
    views: int,
    *,
    seed: int = 0,
    truncation: float = 1.0,
    resolution: int | None = None,
    edit: str | None = None,
) -> Views:
    """The objects of these samples from ``views`` sides, without jitter; results on the CPU.

    Args:
        generator: any system's generator.
        indices: which samples; sample i has the same latent here as in ``zoo sample --images`` and in scores.
        views: sides of each object.
        seed: of the set of samples.
        truncation: as in ``generator.map``.
        resolution: side of the image [pixels]; by default the generator's own.
        edit: name of an edit of the generator, whose frames are shown instead of sides.

    Raises:
        ValueError: the generator has no edit of this name.
    """
    change, rows = None if edit is None else edit_named(generator, edit), []
    with evaluating(generator):
        for index in indices:
            draws = SampleDraws(seed, [index], generator.bounds.device)
            latent = generator.latents(1, draws)
            latent, camera = change(generator, latent, views, draws) if change else generator.turntable(latent, views)
            for start in range(0, views, BATCH):
                part = slice(start, start + BATCH)
                styles = generator.map(type(latent)(*(x[part] for x in latent)), truncation=truncation)
                rows.append(generator.render(styles, Camera(*camera).take(part), resolution=resolution))
    shape = (len(indices), views)
    image = torch.cat([r.image.cpu() for r in rows]).unflatten(0, shape)
    return Views(image, torch.cat([r.depth.cpu() for r in rows]).unflatten(0, shape))


def edit_named(generator: nn.Module, name: str) -> Callable:
    """One of the generator's ``edits``: ``(generator, latent, frames, draws)`` to that many latents and cameras.

    Raises:
        ValueError: there is none of this name.
    """
    edits = getattr(generator, "edits", {})
    if not edits:
        raise ValueError(f"There is no edit '{name}': generators of this system have none. Leave --edit out.")
    if name not in edits:
        raise ValueError(f"There is no edit '{name}'.{near(name, list(edits))} There are: {', '.join(edits)}.")
    return edits[name]
