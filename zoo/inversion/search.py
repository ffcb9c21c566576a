"""Which latent, camera, styles and weights make a generator draw a given image; written once for every system.

The way is a list of stages, each a search by gradient that goes on where the one before has ended:

* samples of the prior are compared with the image, and the best few are the starts;
* ``latent``: what they were drawn with moves, together with their cameras. A latent is a function of its draws, so
  codes, boxes and rotations move alike, and each knows its prior;
* ``styles``: the codes that the best latent was mapped to move freely (as pi-GAN's own inversion; W+ of StyleGANs);
* ``weights``: the generator itself moves, with all that was found held fast (pivotal tuning, Roich 2021,
  arXiv:2106.05744).

The distance between images is that of their pyramids, which needs no network and no download.

K candidates, searched side by side; B batch, H W pixels
"""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from zoo.draws import SampleDraws
from zoo.generator import Generator, draws_for, take
from zoo.render import Camera, Rendered, orbited

BATCH = 8


# What there is to find


class Found(NamedTuple):
    """K candidates: what their latents were drawn with, their styles and cameras."""

    draws: "KeptDraws"
    styles: Any
    camera: Camera

    def take(self, index: Tensor) -> "Found":
        """Those with these indices."""
        return Found(self.draws.take(index), take(self.styles, index), self.camera.take(index))


class KeptDraws:
    """The draws of samples, made when they are first asked for and then kept, so that they can be moved.

    Args:
        source: where they come from.
    """

    def __init__(self, source: SampleDraws) -> None:
        self.source = source
        self.normals: dict[str, Tensor] = {}
        self.uniforms: dict[str, Tensor] = {}
        self.shared = source.shared

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        if name not in self.normals:
            self.normals[name] = self.source.normal(name, shape)
        return self.normals[name]

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        if name not in self.uniforms:
            self.uniforms[name] = self.source.uniform(name, shape)
        return 1 - (1 - self.uniforms[name] % 2).abs()  # what leaves [0, 1] is reflected back

    def take(self, index: Tensor) -> "KeptDraws":
        """Those of the samples with these indices."""
        source = self.source
        part = KeptDraws(SampleDraws(source.seed, [source.indices[i] for i in index], source.device, source.dtype))
        part.normals = {name: x[index].detach() for name, x in self.normals.items()}
        part.uniforms = {name: x[index].detach() for name, x in self.uniforms.items()}
        return part


class Inverted(NamedTuple):
    """What draws the image.

    generator: a copy of the one that was asked, with weights of its own where they were tuned.
    latent: where the search of latents has ended.
    styles, camera: what is rendered; one of each.
    rendered: the reconstruction.
    losses: distance before each step of each stage, and where it has ended, of the candidate that was best then.
    psnr: of the best candidate after each stage [dB].
    """

    generator: Generator
    latent: Any
    styles: Any
    camera: Camera
    rendered: Rendered
    losses: dict[str, list[float]]
    psnr: dict[str, float]


# Distances between images


def distance(images: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """How far images [B, 3, H, W] are from a target [1, 3, H, W], [B].

    The mean of |x| + x^2 over the differences x at full size, half of it, and so on down to about 4 pixels: coarse
    levels see from afar where things have to move, fine ones see edges.

    Args:
        mask: what counts, from 0 to 1, [1, 1, H, W].
    """
    differences = [images - target if mask is None else (images - target) * (mask / mask.mean())]
    while differences[-1].shape[-1] >= 8:
        differences.append(avg_pool2d(differences[-1], 2))
    return torch.stack([(x.abs() + x.square()).mean((1, 2, 3)) for x in differences]).mean(0)


def psnr(images: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio of images in [-1, 1] [dB]."""
    return -10 * math.log10(max(1e-10, float(((images.clamp(-1, 1) - target) / 2).square().mean())))


# Stages


@dataclass
class Search:
    """What all stages of an inversion share.

    generator: a copy of its own.
    target: [1, 3, H, W] in [-1, 1].
    mask: see ``distance``.
    find_camera: whether cameras move.
    means, spreads: of the codes of styles over samples of the prior, [...] each.
    others: samples that weights shall still draw as before: styles, camera and image of each.
    locality: what a change of those costs.
    """

    generator: Generator
    target: Tensor
    mask: Tensor | None = None
    find_camera: bool = True
    means: dict[str, Tensor] = field(default_factory=dict)
    spreads: dict[str, Tensor] = field(default_factory=dict)
    others: list[tuple[Any, Camera, Tensor]] = field(default_factory=list)
    locality: float = 0.0

    def render(self, styles: Any, camera: Camera) -> Rendered:
        return self.generator.render(styles, camera, resolution=self.target.shape[-1])

    @torch.no_grad()
    def image(self, found: Found) -> Tensor:
        """Of all candidates."""
        return self.render(found.styles, found.camera).image

    def distance(self, images: Tensor) -> Tensor:
        return distance(images, self.target, self.mask)


class Moves(NamedTuple):
    """What a stage moves.

    groups: tensors, and the length of their steps in learning rates.
    now: what the candidates are at the moment.
    price: what they cost beside their distance, [K] or a number.
    """

    groups: list[tuple[list[Tensor], float]]
    now: Callable[[], Found]
    price: Callable[[], Tensor]


class Stage(NamedTuple):
    """A part of the way.

    name: for progress and losses.
    begin: (search, candidates) to what moves.
    steps: of Adam; 0 skips the stage.
    learning_rate: of the first steps, in units of the prior's spread where there is one; it falls to zero.
    candidates: how many of the best go on into this stage.
    """

    name: str
    begin: Callable[[Search, Found], Moves]
    steps: int
    learning_rate: float
    candidates: int = 1


def move_latent(search: Search, found: Found) -> Moves:
    """The draws of latents, and cameras; codes are kept as long as the prior's are."""
    generator, draws = search.generator, found.draws
    normals, uniforms = ([x.requires_grad_() for x in kind.values()] for kind in (draws.normals, draws.uniforms))
    angles, camera = aimed(search, found.camera)

    def now() -> Found:
        return Found(draws, generator.map(generator.latents(len(found.camera.pose), draws)), camera())

    def price() -> Tensor:
        lengths = torch.stack([x.flatten(1).square().mean(1) for x in normals])
        return 0.01 * (lengths - 1).square().mean(0)

    return Moves([(normals, 1.0), (uniforms, 0.1), (angles, 0.1)], now, price)


def move_styles(search: Search, found: Found) -> Moves:
    """The codes of styles, each in units of its spread in the prior, and cameras; codes are drawn to their means."""
    generator = search.generator
    codes = generator.free_parameters(found.styles)
    offsets = {name: torch.zeros_like(code).requires_grad_() for name, code in codes.items()}
    angles, camera = aimed(search, found.camera)

    def moved() -> dict[str, Tensor]:
        return {name: code + search.spreads[name] * offsets[name] for name, code in codes.items()}

    def now() -> Found:
        return Found(found.draws, generator.with_free_parameters(found.styles, moved()), camera())

    def price() -> Tensor:
        away = [(x - search.means[name]) / (search.spreads[name] + 1e-6) for name, x in moved().items()]
        return 0.0005 * torch.cat([x.flatten(1) for x in away], dim=1).square().mean(1)

    return Moves([(list(offsets.values()), 1.0), (angles, 0.1)], now, price)


def move_weights(search: Search, found: Found) -> Moves:
    """All weights, with styles and cameras as they are; other samples' images stay where there is a locality."""
    weights = [x.requires_grad_() for x in search.generator.parameters()]
    others = cycle(search.others)

    def price() -> Tensor:
        if not search.locality:
            return torch.zeros(())
        styles, camera, image = next(others)
        return search.locality * distance(search.render(styles, camera).image, image).mean()

    return Moves([(weights, 1.0)], lambda: found, price)


def aimed(search: Search, camera: Camera) -> tuple[list[Tensor], Callable[[], Camera]]:
    """Angles by which cameras move round the origin, and the cameras there."""
    if not search.find_camera:
        return [], lambda: camera
    yaw, elevation = (torch.zeros_like(camera.pose[:, :1, 3]).requires_grad_() for _ in range(2))
    return [yaw, elevation], lambda: orbited(camera, yaw, elevation)


STAGES = (
    Stage("latent", move_latent, 150, 0.1, candidates=4),
    Stage("styles", move_styles, 150, 0.1),
    Stage("weights", move_weights, 100, 3e-4),
)


def descend(
    search: Search, moves: Moves, stage: Stage, tell: Callable[[str, float], None]
) -> tuple[Found, list[Tensor]]:
    """Take a stage's steps; each candidate where it cost least, and the distances [K] before each step and at the end.

    So a stage never leaves a candidate worse than it was.
    """
    groups = [{"params": tensors, "share": share} for tensors, share in moves.groups if tensors]
    optimizer, distances = torch.optim.Adam(groups, betas=(0.9, 0.99)), []
    moved = [x for tensors, _ in moves.groups for x in tensors]
    least, kept = torch.tensor(torch.inf), [x.detach().clone() for x in moved]
    for step in range(stage.steps + 1):
        found = moves.now()
        here = search.distance(search.render(found.styles, found.camera).image)
        cost = here + moves.price()
        better = cost.detach() < least
        least = torch.where(better, cost.detach(), least)
        for copy, x in zip(kept, moved, strict=True):  # axis 0 is the candidate, or there is only one
            copy.copy_(torch.where(better.view(-1, *[1] * (x.dim() - 1)), x.detach(), copy).view_as(x))
        distances.append(here.detach())
        tell(stage.name, float(distances[-1].min()))
        if step < stage.steps:
            for group in optimizer.param_groups:
                group["lr"] = group["share"] * stage.learning_rate * ramp(step / stage.steps)
            optimizer.zero_grad()
            if not cost.requires_grad:
                raise ValueError(
                    f"What the {stage.name} stage moves does not change images of this kind: give it 0 steps."
                )
            cost.sum().backward()
            optimizer.step()
    with torch.no_grad():
        for copy, x in zip(kept, moved, strict=True):
            x.requires_grad_(False).copy_(copy)
        return moves.now(), distances


def ramp(share: float) -> float:
    """The learning rate's share: up within the first twentieth, then down a half cosine."""
    return min(1.0, share / 0.05 + 0.1) * (0.5 + 0.5 * math.cos(math.pi * share))


# The whole way


def invert(
    generator: Generator,
    target: Tensor,
    *,
    stages: Sequence[Stage] = STAGES,
    camera: Camera | None = None,
    find_camera: bool = True,
    samples: int = 128,
    mask: Tensor | None = None,
    locality: float = 0.0,
    seed: int = 0,
    tell: Callable[[str, float], None] = lambda name, loss: None,
) -> Inverted:
    """Find what makes a generator draw an image.

    Args:
        generator: any system's; it is not changed.
        target: [3, H, H] in [-1, 1].
        stages: in order.
        camera: where searches start, one camera; by default those of the samples.
        find_camera: whether cameras move.
        samples: of the prior; the best are the starts.
        mask: what of the image counts, from 0 to 1, [1, H, H].
        locality: while weights move, what changes of other samples' images cost, compared with this one's.
        seed: of the samples.
        tell: called with the stage's name and the distance before each step and at the end.

    Raises:
        ValueError: there are fewer samples than starts; a stage has diverged, or moves nothing that images show.
    """
    starts = max(stage.candidates for stage in stages)
    if samples < starts:
        raise ValueError(f"The best {starts} samples are the starts, so there must be at least so many, not {samples}.")
    generator = deepcopy(generator).eval().requires_grad_(False)
    target, mask = (None if x is None else x[None].to(generator.bounds) for x in (target, mask))
    search = Search(generator, target, mask, find_camera, locality=locality)
    found, here = start(search, camera, samples, starts, seed)
    if locality:
        search.others = [other_sample(search, index, seed) for index in range(samples, samples + 8)]
    losses, quality = {"start": [float(here[0])]}, {"start": psnr(search.image(found)[:1], target)}
    for stage in stages:
        best = here.argsort()[: stage.candidates]
        found, here = found.take(best), here[best]
        if stage.steps == 0:
            continue
        found, distances = descend(search, stage.begin(search, found), stage, tell)
        image = search.image(found)
        here = search.distance(image)
        if not here.isfinite().any():
            raise ValueError(f"The search of {stage.name} has diverged: take fewer steps or another seed.")
        losses[stage.name] = [float(x[here.argmin()]) for x in [*distances[:-1], here]]
        quality[stage.name] = psnr(image[here.argmin()], target)
    found = found.take(here.argmin()[None])
    latent = generator.latents(1, found.draws)
    with torch.no_grad():
        rendered = search.render(found.styles, found.camera)
    return Inverted(generator.requires_grad_(), latent, found.styles, found.camera, rendered, losses, quality)


def camera_at(generator: Generator, yaw: float | None = None, elevation: float | None = None) -> Camera:
    """The prior's middle camera, moved round the origin.

    Args:
        yaw: from the front, +z, to the right, +x [rad]; None leaves it.
        elevation: above the horizon [rad]; None leaves it.
    """
    camera = generator.cameras(1, None)
    moves = (0 if to is None else to - at for to, at in zip((yaw, elevation), camera_angles(camera), strict=True))
    return orbited(camera, *(camera.pose.new_tensor([[move]]) for move in moves))


def camera_angles(camera: Camera) -> tuple[float, float]:
    """Yaw and elevation of one camera, as in ``camera_at`` [rad]."""
    x, y, z = camera.origins[0].tolist()
    return math.atan2(x, z), math.atan2(y, math.hypot(x, z))


def start(search: Search, camera: Camera | None, samples: int, count: int, seed: int) -> tuple[Found, Tensor]:
    """The ``count`` samples that are nearest to the image, and their distances; notes the spread of all codes."""
    generator, distances, codes = search.generator, [], []

    def at(indices: Sequence[int]) -> Found:
        draws = KeptDraws(draws_for(generator, seed, indices))
        styles = generator.map(generator.latents(len(indices), draws))
        if camera is None:
            return Found(draws, styles, generator.cameras(len(indices), draws.source))
        return Found(draws, styles, Camera(*(x.to(generator.bounds).repeat(len(indices), 1, 1) for x in camera)))

    with torch.no_grad():
        for first in range(0, samples, BATCH):
            found = at(range(first, min(first + BATCH, samples)))
            codes.append(generator.free_parameters(found.styles))
            distances.append(search.distance(search.image(found)))
        for name in codes[0]:
            values = torch.cat([part[name] for part in codes])
            search.means[name], search.spreads[name] = values.mean(0), values.std(0, correction=0)
        here, order = torch.cat(distances).sort()
        return at(order[:count].tolist()), here[:count]


def other_sample(search: Search, index: int, seed: int) -> tuple[Any, Camera, Tensor]:
    """Styles, camera and image of a sample."""
    generator = search.generator
    with torch.no_grad():
        latents, camera = generator.sample(1, draws_for(generator, seed, [index]))
        styles = generator.map(latents, condition=camera)
        return styles, camera, search.render(styles, camera).image
