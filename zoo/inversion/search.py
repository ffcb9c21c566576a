"""GAN inversion: the latent, camera, styles and weights with which any generator reproduces an image.

A list of stages, each an optimisation by gradients that starts where the one before has ended:

* samples of the prior are compared with the image, and the nearest few are the initial candidates;
* ``latent``: their random draws are optimised, together with their cameras. A latent is a function of its draws, so
  codes, boxes and rotations are all treated alike, and each has its prior;
* ``styles``: the free parameters of the best latent's styles are optimised (as pi-GAN's own inversion; W+ of
  StyleGANs);
* ``weights``: the generator is finetuned, with everything else fixed (pivotal tuning, Roich 2021, arXiv:2106.05744).

The distance between images is that of their pyramids, which needs no network and no download.

K candidates, optimised side by side; B batch, H W pixels
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
from zoo.render import Camera, Rendered, orbit_camera
from zoo.render.cameras import ORIGIN
from zoo.utils.errors import UserError
from zoo.utils.memory import images_at_once

# Candidates and results


class Candidates(NamedTuple):
    """K candidates: the draws of their latents, their styles and cameras."""

    draws: "CachedDraws"
    styles: Any
    camera: Camera

    def take(self, index: Tensor) -> "Candidates":
        """Those with these indices."""
        return Candidates(self.draws.take(index), take(self.styles, index), self.camera.take(index))


class CachedDraws:
    """The draws of samples, made at first use and then kept, so that they can be optimised.

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
        return 1 - (1 - self.uniforms[name] % 2).abs()  # reflected back into [0, 1]

    def take(self, index: Tensor) -> "CachedDraws":
        """Those of the samples with these indices."""
        source = self.source
        part = CachedDraws(SampleDraws(source.seed, [source.indices[i] for i in index], source.device, source.dtype))
        part.normals = {name: x[index].detach() for name, x in self.normals.items()}
        part.uniforms = {name: x[index].detach() for name, x in self.uniforms.items()}
        return part


class Inversion(NamedTuple):
    """The result of an inversion.

    generator: a copy, with finetuned weights if there was such a stage.
    latent: after its stage.
    styles, camera: of the reconstruction; one of each.
    rendered: the reconstruction.
    losses: distance before each step of each stage and after the last one, of the best candidate at that time.
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
    levels give gradients over long distances, fine ones see edges.

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
    find_camera: whether cameras are optimised.
    means, stds: of the free parameters of styles over samples of the prior, [...] each.
    references: samples whose images finetuning should preserve: styles, camera and image of each.
    locality: weight of their change in the loss.
    """

    generator: Generator
    target: Tensor
    mask: Tensor | None = None
    find_camera: bool = True
    means: dict[str, Tensor] = field(default_factory=dict)
    stds: dict[str, Tensor] = field(default_factory=dict)
    references: list[tuple[Any, Camera, Tensor]] = field(default_factory=list)
    locality: float = 0.0

    def render(self, styles: Any, camera: Camera) -> Rendered:
        return self.generator.render(styles, camera, resolution=self.target.shape[-1])

    @torch.no_grad()
    def image(self, candidates: Candidates) -> Tensor:
        """Images of all candidates."""
        return self.render(candidates.styles, candidates.camera).image

    def distance(self, images: Tensor) -> Tensor:
        return distance(images, self.target, self.mask)


class Variables(NamedTuple):
    """What a stage optimises.

    groups: tensors, and the factor of their learning rate.
    current: the candidates with the present values.
    regulariser: added to the distance in the loss, [K] or a number.
    """

    groups: list[tuple[list[Tensor], float]]
    current: Callable[[], Candidates]
    regulariser: Callable[[], Tensor]


class Stage(NamedTuple):
    """One stage of an inversion.

    name: for progress and losses.
    begin: (search, candidates) to ``Variables``.
    steps: of Adam; 0 skips the stage.
    learning_rate: at its highest, in units of the prior's standard deviation where there is one; it decays to zero.
    candidates: how many of the best enter this stage.
    """

    name: str
    begin: Callable[[Search, Candidates], Variables]
    steps: int
    learning_rate: float
    candidates: int = 1


def optimise_latent(search: Search, candidates: Candidates) -> Variables:
    """The draws of latents, and cameras; normal draws keep the mean squared length of the prior's."""
    generator, draws = search.generator, candidates.draws
    normals, uniforms = ([x.requires_grad_() for x in kind.values()] for kind in (draws.normals, draws.uniforms))
    angles, camera = camera_offsets(search, candidates.camera)

    def current() -> Candidates:
        return Candidates(draws, generator.map(generator.latents(len(candidates.camera.pose), draws)), camera())

    def regulariser() -> Tensor:
        lengths = torch.stack([x.flatten(1).square().mean(1) for x in normals])
        return 0.01 * (lengths - 1).square().mean(0)

    return Variables([(normals, 1.0), (uniforms, 0.1), (angles, 0.1)], current, regulariser)


def optimise_styles(search: Search, candidates: Candidates) -> Variables:
    """The free parameters of styles, in units of their standard deviation in the prior, and cameras."""
    generator = search.generator
    parameters = generator.free_parameters(candidates.styles)
    offsets = {name: torch.zeros_like(parameter).requires_grad_() for name, parameter in parameters.items()}
    angles, camera = camera_offsets(search, candidates.camera)

    def values() -> dict[str, Tensor]:
        return {name: parameter + search.stds[name] * offsets[name] for name, parameter in parameters.items()}

    def current() -> Candidates:
        return Candidates(candidates.draws, generator.with_free_parameters(candidates.styles, values()), camera())

    def regulariser() -> Tensor:
        deviations = [(x - search.means[name]) / (search.stds[name] + 1e-6) for name, x in values().items()]
        return 0.0005 * torch.cat([x.flatten(1) for x in deviations], dim=1).square().mean(1)

    return Variables([(list(offsets.values()), 1.0), (angles, 0.1)], current, regulariser)


def optimise_weights(search: Search, candidates: Candidates) -> Variables:
    """All weights, with fixed styles and cameras; with a locality, other samples' images are preserved."""
    weights = [x.requires_grad_() for x in search.generator.parameters()]
    references = cycle(search.references)

    def regulariser() -> Tensor:
        if not search.locality:
            return torch.zeros(())
        styles, camera, image = next(references)
        return search.locality * distance(search.render(styles, camera).image, image).mean()

    return Variables([(weights, 1.0)], lambda: candidates, regulariser)


def camera_offsets(search: Search, camera: Camera) -> tuple[list[Tensor], Callable[[], Camera]]:
    """Angles by which cameras are moved round the pivot, and the moved cameras."""
    if not search.find_camera:
        return [], lambda: camera
    yaw, elevation = (torch.zeros_like(camera.pose[:, :1, 3]).requires_grad_() for _ in range(2))
    return [yaw, elevation], lambda: orbit_camera(camera, yaw, elevation, search.generator.pivot)


STAGES = (
    Stage("latent", optimise_latent, 150, 0.1, candidates=4),
    Stage("styles", optimise_styles, 150, 0.1),
    Stage("weights", optimise_weights, 100, 3e-4),
)


def optimise(
    search: Search, variables: Variables, stage: Stage, callback: Callable[[str, float], None]
) -> tuple[Candidates, list[Tensor]]:
    """Run a stage; each candidate at its lowest loss, and the distances [K] before each step and at the end.

    So a stage never makes a candidate worse.
    """
    groups = [{"params": tensors, "share": share} for tensors, share in variables.groups if tensors]
    optimizer, history = torch.optim.Adam(groups, betas=(0.9, 0.99)), []
    values = [x for tensors, _ in variables.groups for x in tensors]
    lowest, best = torch.tensor(torch.inf), [x.detach().clone() for x in values]
    for step in range(stage.steps + 1):
        candidates = variables.current()
        distances = search.distance(search.render(candidates.styles, candidates.camera).image)
        loss = distances + variables.regulariser()
        better = loss.detach() < lowest
        lowest = torch.where(better, loss.detach(), lowest)
        for copy, x in zip(best, values, strict=True):  # axis 0 is the candidate, or there is only one
            copy.copy_(torch.where(better.view(-1, *[1] * (x.dim() - 1)), x.detach(), copy).view_as(x))
        history.append(distances.detach())
        callback(stage.name, float(history[-1].min()))
        if step < stage.steps:
            for group in optimizer.param_groups:
                group["lr"] = group["share"] * stage.learning_rate * learning_rate_factor(step / stage.steps)
            optimizer.zero_grad()
            if not loss.requires_grad:
                raise UserError(
                    f"What the {stage.name} stage optimises does not change images of this kind: give it 0 steps."
                )
            loss.sum().backward()
            optimizer.step()
    with torch.no_grad():
        for copy, x in zip(best, values, strict=True):
            x.requires_grad_(False).copy_(copy)
        return variables.current(), history


def learning_rate_factor(share: float) -> float:
    """Factor of the learning rate: linear warm-up over the first twentieth, then cosine decay."""
    return min(1.0, share / 0.05 + 0.1) * (0.5 + 0.5 * math.cos(math.pi * share))


# The whole inversion


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
    callback: Callable[[str, float], None] = lambda name, loss: None,
) -> Inversion:
    """Find the latent, camera, styles and weights with which a generator reproduces an image.

    Args:
        generator: any system's; it is not changed.
        target: [3, H, H] in [-1, 1].
        stages: in order.
        camera: initial camera; by default those of the samples.
        find_camera: whether cameras are optimised.
        samples: of the prior; the nearest are the initial candidates.
        mask: weights of the pixels, from 0 to 1, [1, H, H].
        locality: weight of other samples' images in the loss while weights are finetuned.
        seed: of the samples.
        callback: called with the stage's name and the distance, before each step and at the end.

    Raises:
        UserError: fewer samples than candidates; a black mask; a stage has diverged, or optimises nothing that images
            depend on.
    """
    initial = max(stage.candidates for stage in stages)
    if samples < initial:
        raise UserError(
            f"The nearest {initial} samples are the initial candidates, so take at least so many, not {samples}."
        )
    if mask is not None and not mask.any():
        raise UserError("The mask is black throughout the square that is used: make white what the image is to match.")
    generator = deepcopy(generator).eval().requires_grad_(False)
    target, mask = (None if x is None else x[None].to(generator.bounds) for x in (target, mask))
    search = Search(generator, target, mask, find_camera, locality=locality)
    candidates, distances = initial_candidates(search, camera, samples, initial, seed)
    if locality:
        search.references = [reference_sample(search, index, seed) for index in range(samples, samples + 8)]
    losses, quality = {"start": [float(distances[0])]}, {"start": psnr(search.image(candidates)[:1], target)}
    for stage in stages:
        best = distances.argsort()[: stage.candidates]
        candidates, distances = candidates.take(best), distances[best]
        if stage.steps == 0:
            continue
        candidates, history = optimise(search, stage.begin(search, candidates), stage, callback)
        image = search.image(candidates)
        distances = search.distance(image)
        if not distances.isfinite().any():
            raise UserError(f"The {stage.name} stage has diverged: take fewer steps or another seed.")
        losses[stage.name] = [float(x[distances.argmin()]) for x in [*history[:-1], distances]]
        quality[stage.name] = psnr(image[distances.argmin()], target)
    candidates = candidates.take(distances.argmin()[None])
    latent = generator.latents(1, candidates.draws)
    with torch.no_grad():
        rendered = search.render(candidates.styles, candidates.camera)
    return Inversion(
        generator.requires_grad_(), latent, candidates.styles, candidates.camera, rendered, losses, quality
    )


def camera_at(generator: Generator, yaw: float | None = None, elevation: float | None = None) -> Camera:
    """The prior's middle camera, moved round the pivot.

    Args:
        yaw: from the front, +z, to the right, +x [rad]; None keeps it.
        elevation: above the horizon [rad]; None keeps it.
    """
    camera = generator.cameras(1, None)
    angles = camera_angles(camera, generator.pivot)
    moves = (0 if to is None else to - at for to, at in zip((yaw, elevation), angles, strict=True))
    return orbit_camera(camera, *(camera.pose.new_tensor([[move]]) for move in moves), generator.pivot)


def camera_angles(camera: Camera, pivot: Sequence[float] | Tensor = ORIGIN) -> tuple[float, float]:
    """Yaw and elevation of one camera round a point [3], by default the origin, as in ``camera_at`` [rad]."""
    x, y, z = (camera.origins[0] - torch.as_tensor(pivot).to(camera.pose)).tolist()
    return math.atan2(x, z), math.atan2(y, math.hypot(x, z))


def initial_candidates(
    search: Search, camera: Camera | None, samples: int, count: int, seed: int
) -> tuple[Candidates, Tensor]:
    """The ``count`` samples that are nearest to the image, and their distances; sets ``means`` and ``stds``."""
    generator, distances, parameters = search.generator, [], []

    def at(indices: Sequence[int]) -> Candidates:
        draws = CachedDraws(draws_for(generator, seed, indices))
        styles = generator.map(generator.latents(len(indices), draws))
        if camera is None:
            return Candidates(draws, styles, generator.cameras(len(indices), draws.source))
        return Candidates(draws, styles, Camera(*(x.to(generator.bounds).repeat(len(indices), 1, 1) for x in camera)))

    with torch.no_grad():
        at_once = images_at_once(search.target.shape[-1], generator.device)
        for first in range(0, samples, at_once):
            candidates = at(range(first, min(first + at_once, samples)))
            parameters.append(generator.free_parameters(candidates.styles))
            distances.append(search.distance(search.image(candidates)))
        for name in parameters[0]:
            values = torch.cat([part[name] for part in parameters])
            search.means[name] = values.mean(0)
            search.stds[name] = (values - values.mean(0)).square().mean(0).sqrt()  # std() warns of empty parameters
        nearest, order = torch.cat(distances).sort()
        return at(order[:count].tolist()), nearest[:count]


def reference_sample(search: Search, index: int, seed: int) -> tuple[Any, Camera, Tensor]:
    """Styles, camera and image of a sample."""
    generator = search.generator
    with torch.no_grad():
        latents, camera = generator.sample(1, draws_for(generator, seed, [index]))
        styles = generator.map(latents, condition=camera)
        return styles, camera, search.render(styles, camera).image
