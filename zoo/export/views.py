"""Objects seen from several sides, or along a camera's path, for grids and videos."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from zoo.draws import MixedDraws
from zoo.export.camera_paths import frames_along_path
from zoo.generator import (
    Edit,
    Generator,
    HasEdits,
    WithoutEmptySpace,
    are_alike,
    draws_for,
    evaluating,
    quantise,
    render_foreground,
    require,
    take,
)
from zoo.render import Camera, Rendered
from zoo.utils.errors import UserError, near
from zoo.utils.memory import images_at_once


class Views(NamedTuple):
    """image uint8 [L, V, 3, H, W]; depth [L, V, 1, h, w] of the objects alone, NaN where there is nothing."""

    image: Tensor
    depth: Tensor


def turntable_views(
    generator: Generator,
    indices: Sequence[int],
    views: int,
    *,
    seed: int = 0,
    truncation: float = 1.0,
    resolution: int | None = None,
    edit: str | None = None,
    path: str = "turntable",
    exact: bool = False,
    progress: bool = False,
) -> Views:
    """The objects of these samples from ``views`` sides, without jitter; results on the CPU.

    Args:
        indices: which samples; sample i has the same latent here as in ``zoo sample --images`` and in scores.
        views: sides of each object.
        seed: of the set of samples.
        truncation: as in ``generator.map``.
        resolution: side of the image [pixels]; by default the generator's own.
        edit: name of an edit of the generator, whose frames are shown instead of sides.
        path: name of one of ``camera_paths.PATHS``.
        exact: also query fields in empty space, see ``zoo.generator.WithoutEmptySpace``.
        progress: show a bar, if stderr is a terminal.

    Raises:
        UserError: the generator has no edit of this name, or it changes nothing.
    """
    change = None if edit is None else find_edit(generator, edit)

    def scene(index: int) -> Iterator[Rendered]:
        draws = draws_for(generator, seed, [index])
        latent, _ = generator.sample(1, draws)
        if change is not None:
            edited = change(generator, latent, views, draws)
            if views > 1 and all(map(are_alike, edited)):
                raise UserError(f"--edit {edit} changes nothing: what it moves has a single place in these scenes.")
            return mapped_in_batches(generator, *edited, truncation, resolution)
        styles = generator.map(latent, truncation=truncation)
        return in_batches(generator, *frames_along_path(generator, styles, path, views), resolution, exact)

    return collected(generator, map(scene, indices), len(indices), views, progress)


def interpolated_views(
    generator: Generator,
    indices: Sequence[int],
    views: int,
    *,
    seed: int = 0,
    truncation: float = 1.0,
    resolution: int | None = None,
    path: str = "turntable",
    progress: bool = False,
) -> Views:
    """One object, interpolated through these samples and back to the first: a smooth loop of ``views`` frames.

    Latents are interpolated, not styles: all systems' latents are drawn from a known distribution, which ``MixedDraws``
    keeps, so that every frame is a sample of the prior; their styles are frequencies, scenes or whole feature volumes,
    and a mean of two of those need not look like anything.

    Args:
        indices: samples to interpolate, at least two; the others as in ``turntable_views``.

    Raises:
        UserError: less than two samples.
    """
    if len(indices) < 2:
        raise UserError("Interpolation needs at least two samples: give more of them, such as --seeds 0-3.")
    draws = MixedDraws(draws_for(generator, seed, indices), loop_weights(len(indices), views))
    latents, _ = generator.sample(views, draws)
    latents, camera = frames_along_path(generator, latents, path, views)
    rendered = mapped_in_batches(generator, latents, camera, truncation, resolution)
    return collected(generator, [rendered], 1, views, progress)


def loop_weights(keyframes: int, frames: int) -> Tensor:
    """Weights [frames, keyframes] of a closed spline through the keyframes."""
    return spline_weights(keyframes, torch.arange(frames) * (keyframes / frames), lambda i: i % keyframes)


def path_weights(keyframes: int, frames: int) -> Tensor:
    """As ``loop_weights``, of an open spline from the first keyframe to the last."""
    return spline_weights(keyframes, torch.linspace(0, keyframes - 1, frames), lambda i: i.clamp(0, keyframes - 1))


def spline_weights(keyframes: int, place: Tensor, neighbour: Callable[[Tensor], Tensor]) -> Tensor:
    """Weights [T, keyframes] of a spline (Catmull and Rom 1974) at places [T], whole numbers at keyframes.

    Args:
        neighbour: keyframes instead of those before the first and after the last.
    """
    last, f = place.floor().long(), place % 1
    spline = [f * (-0.5 + f * (1 - 0.5 * f)), 1 + f * f * (-2.5 + 1.5 * f), f * (0.5 + f * (2 - 1.5 * f))]
    spline = torch.stack([*spline, f * f * (-0.5 + 0.5 * f)], dim=1)
    neighbours = neighbour(last[:, None] + torch.arange(-1, 3))
    return torch.zeros(len(place), keyframes).scatter_add(1, neighbours, spline)


def collected(
    generator: Generator, scenes: Iterable[Iterable[Rendered]], count: int, views: int, progress: bool
) -> Views:
    """All images of ``count`` scenes of ``views`` views each; only bytes and depths are kept."""
    images, depths = [], []
    with evaluating(generator), tqdm(total=count * views, unit="view", disable=None if progress else True) as bar:
        for rendered in chain.from_iterable(scenes):
            images.append(quantise(rendered.image).cpu())
            depths.append(rendered.depth.cpu())
            bar.update(len(images[-1]))
    return Views(*(torch.cat(x).unflatten(0, (count, views)) for x in (images, depths)))


def in_batches(
    generator: Generator, styles: Any, camera: Camera, resolution: int | None, exact: bool = False
) -> Iterator[Rendered]:
    """A few views at a time, so that memory does not grow with their number; the fewer the larger they are."""
    pixels = len(camera.pose) * generator.image_side(resolution) ** 2
    without_empty_space = WithoutEmptySpace(generator, styles, pixels, exact)
    for part in batches(generator, camera, resolution):
        with without_empty_space:
            rendered = render_foreground(generator, take(styles, part), camera.take(part), resolution)
        yield rendered


def mapped_in_batches(
    generator: Generator, latents: Any, camera: Camera, truncation: float, resolution: int | None
) -> Iterator[Rendered]:
    """As ``in_batches``, of latents that differ from view to view."""
    for part in batches(generator, camera, resolution):
        styles = generator.map(take(latents, part), truncation=truncation)
        yield render_foreground(generator, styles, camera.take(part), resolution)


def batches(generator: Generator, camera: Camera, resolution: int | None) -> list[slice]:
    """Which views to render at once."""
    at_once = images_at_once(generator.image_side(resolution), generator.device)
    return [slice(start, start + at_once) for start in range(0, len(camera.pose), at_once)]


def find_edit(generator: Generator, name: str) -> Edit:
    """One of the generator's edits.

    Raises:
        UserError: there is none of this name.
    """
    require(generator, f"--edit {name}", HasEdits)
    if name not in generator.edits:
        known = generator.edits
        raise UserError(f"There is no edit '{name}'.{near(name, list(known))} There are: {', '.join(known)}.")
    return generator.edits[name]
