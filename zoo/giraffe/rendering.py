"""Ray marching through a scene of several fields, and how their densities and features mix (section 3.2)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from zoo.draws import Draws
from zoo.giraffe.field import Field
from zoo.giraffe.scenes import Latent, rotate_points, to_paper
from zoo.render import (
    Depths,
    Integrated,
    Quadrature,
    Rays,
    Samples,
    Stratified,
    add_density_noise,
    raw_density,
    stratify,
)
from zoo.render.plan import Chunk, Plan, Strategy, Work, check_chunk, differentiable, layout_of
from zoo.utils.protocols import check_call, check_made


class StratifiedDepths(Stratified):
    """As ``zoo.render.Stratified``, in the published order of arithmetic.

    The highest octave of the fields makes a thousandth of the rounding of a point's place into a visible difference, so
    that here and in the generator's rays the order of operations is part of the model.
    """

    def __call__(self, rays: Rays, draws: Draws | None) -> Samples:
        line = torch.linspace(0, 1, self.samples, device=rays.origins.device, dtype=rays.origins.dtype)
        t = (self.near + line * (self.far - self.near)).expand(*rays.origins.shape[:-1], -1)
        return Samples(rays.origins, rays.directions, stratify(t, draws))


# Composition: densities [F, B, R, S] of all fields to their common density [B, R, S] and each one's share of the
# features there [F, B, R, S].

Compose = Callable[[Tensor], Any]


def weighted(densities: Tensor) -> tuple[Tensor, Tensor]:
    """Densities add up, and features are their mean weighted by density (section 3.2, equation 8)."""
    density = densities.sum(0)
    return density, densities / torch.where(density == 0, 1e-4, density)


def densest(densities: Tensor) -> tuple[Tensor, Tensor]:
    """The densest field alone counts."""
    density, index = densities.max(0)
    return density, one_hot(index, len(densities)).movedim(-1, 0).to(density.dtype)


class LocalSamples(NamedTuple):
    """Samples as the fields see them: points [B, N, R, S, 3] and [B, R, S, 3], directions [B, N, R, 3], [B, R, 3]."""

    points: Tensor
    directions: Tensor
    background_points: Tensor
    background_directions: Tensor


class Scene(nn.Module):
    """Objects in boxes and a background: as a whole a field like any other.

    Args:
        objects: the field of all objects.
        background: the field of the background.
        compose: how fields mix where they meet.
    """

    margin = 1.1  # in its box an object may reach this far beyond [-1, 1]

    def __init__(self, objects: Field, background: Field, compose: Compose = weighted) -> None:
        check_call("densities", self, compose=compose)
        super().__init__()
        self.objects, self.background, self.compose = objects, background, compose

    def place(self, samples: Samples, latent: Latent) -> LocalSamples:
        """World points to boxes, R (p - t) / s, and to the turned background (section 3.1, equation 6)."""
        origins, directions = to_paper(samples.origins), to_paper(samples.directions)
        ahead = torch.stack([origins, origins + directions], 1)[:, None]  # [B, 1, 2, R, 3]: both are moved as points
        boxed = rotate_points(ahead - latent.place[:, :, None, None], latent.rotation[:, :, None, None])
        boxed = boxed / latent.scale[:, :, None, None]
        behind = rotate_points(ahead[:, 0], latent.background_rotation[:, None, None])
        starts, rays = boxed[:, :, 0], boxed[:, :, 1] - boxed[:, :, 0]
        start, ray = behind[:, 0], behind[:, 1] - behind[:, 0]
        t = samples.t[..., None]
        points = starts[..., None, :] + t[:, None] * rays[..., None, :]
        return LocalSamples(points, rays, start[..., None, :] + t * ray[..., None, :], ray)

    def inside(self, points: Tensor, latent: Latent) -> Tensor:
        """Which points [B, N, ..., 3] belong to a box with an object in it, bool [B, N, ...]."""
        within = (points.abs() <= self.margin).all(-1)
        there = latent.present[:, :-1]
        return within & there.view(*there.shape, *[1] * (within.dim() - 2))

    def query(self, local: LocalSamples, latent: Latent) -> tuple[Tensor, Tensor]:
        """Raw densities [F, B, R, S] and features [F, B, R, S, C] of all fields at all samples, also outside boxes."""
        terms = self.objects.terms(latent.shape_code, latent.appearance_code)[:, :, None, None]
        raw, hidden = self.objects(local.points, local.directions[..., None, :], terms)
        features = self.objects.finish(hidden, torch.ones_like(hidden[..., :1]))
        terms = self.background.terms(latent.background_shape_code, latent.background_appearance_code)[:, None, None]
        behind = local.background_points, local.background_directions[..., None, :]
        raw_behind, hidden = self.background(*behind, terms)
        features_behind = self.background.finish(hidden, torch.ones_like(hidden[..., :1]))
        return (
            torch.cat([raw.transpose(0, 1), raw_behind[None]]),
            torch.cat([features.transpose(0, 1), features_behind[None]]),
        )

    def densities(self, raw: Tensor, local: LocalSamples, latent: Latent, noise: Tensor | None = None) -> Tensor:
        """Densities [F, B, R, S] from raw ones; the noise [B, F, R, S] is added first."""
        raw = raw if noise is None else raw + noise.transpose(0, 1)
        there = self.inside(local.points, latent).transpose(0, 1)
        behind = latent.present[:, -1, None, None].expand_as(raw[-1])
        return raw.relu() * torch.cat([there, behind[None]])

    def composed(self, densities: Tensor) -> tuple[Tensor, Tensor]:
        """Common density [B, R, S] of densities [F, B, R, S], and each field's share of the features [F, B, R, S]."""
        made = self.compose(densities)
        check_made(made, [densities.shape[1:], densities.shape], self, "compose")
        return made

    def forward(self, samples: Samples, latent: Latent) -> tuple[Tensor, Tensor]:
        """Common density [B, R, S, 1] and features [B, R, S, C], for any renderer of the zoo."""
        local = self.place(samples, latent)
        raw, features = self.query(local, latent)
        density, shares = self.composed(self.densities(raw, local, latent))
        return density[..., None], (shares[..., None] * features).sum(0)


class SceneRenderer(nn.Module):
    """Volume rendering of a scene, called as ``zoo.render.VolumeRenderer`` is (section 3.2, equations 9 and 10).

    The same numbers as marching through ``Scene`` as one field, for a fraction of the work: features are summed along
    rays before the fields' last, linear layer, and on CPUs an object's field is only queried at points inside its box.

    Args:
        depths: depths along a ray.
        quadrature: makes weights of the fields' common density.
        chunk: points that a field sees at once: ``auto`` as ``zoo.render.plan`` decides, None for all.
        recompute: with gradients, compute each chunk again in the backward pass instead of keeping what it needs: less
            memory for a fifth more time. On a GPU ``auto`` does so where there would not be the memory.
    """

    def __init__(
        self,
        depths: Depths,
        quadrature: Quadrature | None = None,
        chunk: Chunk = "auto",
        recompute: bool = False,
    ) -> None:
        check_chunk(chunk, self)
        check_call("rays, draws", self, depths=depths)
        super().__init__()
        self.depths, self.quadrature, self.chunk, self.recompute = depths, quadrature or Quadrature(), chunk, recompute
        self.plan = Plan()

    def forward(
        self, field: Scene, rays: Rays, condition: Latent, draws: Draws | None = None, density_noise: float = 0.0
    ) -> Integrated:
        """As ``zoo.render.VolumeRenderer``; the features of every sample never exist."""
        samples, latent = self.depths(rays, draws), condition
        local = field.place(samples, latent)
        batch, count, per_image, per_ray = local.points.shape[:-1]
        none = samples.t.new_zeros(batch, count + 1, per_image, per_ray)
        noise = add_density_noise(none, "density_noise", draws, density_noise)

        terms = field.objects.terms(latent.shape_code, latent.appearance_code)[:, :, None, None]
        inside = field.inside(local.points, latent)
        asked = Asked(field.objects, local.points, local.directions, terms)
        how = self.strategy(asked)
        query = self.query_inside if how.selects else self.query_everywhere
        objects, sum_objects = query(asked, inside, noise[:, :-1], how)

        behind, sum_behind = self.query_background(field.background, local, latent, noise[:, -1])
        behind = behind * latent.present[:, -1, None, None]
        density, shares = field.composed(torch.cat([objects.transpose(0, 1), behind[None]]))
        raw = density[..., None]
        weights, opacity, added = self.quadrature(raw, samples)

        shares = weights * shares
        total = shares[:-1].sum((0, 3))[..., None]
        features = field.objects.finish(sum_objects(shares[:-1].transpose(0, 1)), total)
        features = features + field.background.finish(sum_behind(shares[-1]), shares[-1].sum(-1, keepdim=True))
        features = features if added is None else features + added
        depth = (weights * samples.t).sum(-1, keepdim=True)
        return Integrated(features, depth, opacity, samples, weights, raw, background=added)

    def density(self, points: Tensor, field: Scene, condition: Latent) -> Tensor:
        """Density per world length [B, N, 1] of all fields at points [B, N, 3]."""
        return self.quadrature.density(raw_density(points, field, condition, self.plan), points[:, :, None])[:, :, 0]

    def strategy(self, asked: "Asked") -> Strategy:
        """How to query a field."""
        field, points, directions, terms = asked

        def some(count: int) -> tuple[Tensor, Tensor]:
            first = points.flatten(0, -2)[:1], directions.flatten(0, -2)[:1], terms.flatten(0, -3)[:1]
            return field(*differentiable([x.expand(count, *x.shape[1:]) for x in first]))

        layout = partial(layout_of, field, points.device, terms.dtype)
        work = Work(points.device, points.shape[:-1].numel(), int(torch.is_grad_enabled()), layout, some)
        how = self.plan.strategy(self.chunk, work)
        keeps = not self.recompute and (how.selects or self.chunk != "auto")
        return replace(how, recomputes=False) if keeps else how

    def query_inside(
        self, asked: "Asked", inside: Tensor, noise: Tensor, how: Strategy
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """As ``query_everywhere``, but the field is only queried at points that are inside."""
        batch, count, per_image, per_ray = inside.shape
        index = inside.flatten().nonzero()[:, 0]
        points, directions, terms = (
            asked.points.flatten(0, 3),
            asked.directions.flatten(0, 2),
            asked.terms.flatten(0, 3),
        )

        def part(index: Tensor) -> tuple[Tensor, Tensor]:
            return asked.field(points[index], directions[index // per_ray], terms[index // (per_image * per_ray)])

        at_once = max(1, len(index)) if how.at_once is None else how.at_once
        raw, hidden = concatenate([run(part, how, some) for some in index.split(at_once)], 0)
        raw = raw + noise.flatten()[index]
        densities = raw.new_zeros(inside.numel()).index_put((index,), raw.relu()).view_as(inside)

        def along_rays(shares: Tensor) -> Tensor:
            ray = index // (count * per_image * per_ray) * per_image + index // per_ray % per_image  # of B R rays
            share = shares.flatten()[index]
            summed = hidden.new_zeros(batch * per_image, hidden.shape[-1])
            return summed.index_add(0, ray, share[:, None] * hidden).unflatten(0, (batch, per_image))

        return densities, along_rays

    def query_everywhere(
        self, asked: "Asked", inside: Tensor, noise: Tensor, how: Strategy
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Densities of objects [B, N, R, S], and what sums hidden features along rays, weighted by shares like those.

        Args:
            asked: of all objects: N of them, in their boxes.
            inside: where there may be a density, bool [B, N, R, S].
            noise: on raw densities, [B, N, R, S].
            how: many points at once.
        """
        raw, hidden = query_rays(asked, how)
        densities = torch.where(inside, raw + noise, 0).relu()
        return densities, lambda shares: torch.einsum("bnrs,bnrsc->brc", shares, hidden)

    def query_background(
        self, field: Field, local: LocalSamples, latent: Latent, noise: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """As ``query_everywhere``, of the background: densities [B, R, S]."""
        terms = field.terms(latent.background_shape_code, latent.background_appearance_code)[:, None, None]
        behind = Asked(field, local.background_points, local.background_directions, terms)
        raw, hidden = query_rays(behind, self.strategy(behind))
        return (raw + noise).relu(), lambda shares: torch.einsum("brs,brsc->brc", shares, hidden)


class Asked(NamedTuple):
    """What a field is asked, of one or more objects."""

    field: Field
    points: Tensor  # [..., R, S, 3]
    directions: Tensor  # [..., R, 3]
    terms: Tensor  # of codes, [..., 1, 1, T, C]


def query_rays(asked: Asked, how: Strategy) -> tuple[Tensor, Tensor]:
    """Raw densities [..., R, S] and hidden features [..., R, S, C], so many rays at once."""

    def part(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        return asked.field(points, directions[..., None, :], asked.terms)

    rays = asked.points.shape[-3]
    step = rays if how.at_once is None else max(1, how.at_once * rays // asked.points.shape[:-1].numel())
    chunks = zip(asked.points.split(step, -3), asked.directions.split(step, -2), strict=True)
    return concatenate([run(part, how, *chunk) for chunk in chunks], asked.points.dim() - 3)


def run(part: Callable, how: Strategy, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """A part of a query, which is computed again in the backward pass if a strategy says so."""
    if how.recomputes and torch.is_grad_enabled():
        from torch.utils.checkpoint import checkpoint  # torch 2.7 imports sympy with it, which takes a second

        return checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)
    return part(*inputs)


def concatenate(parts: list[tuple[Tensor, Tensor]], axis: int) -> tuple[Tensor, Tensor]:
    return tuple(torch.cat(tensors, axis) for tensors in zip(*parts, strict=True))
