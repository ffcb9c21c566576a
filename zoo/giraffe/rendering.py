"""Ray marching through a scene of several fields, and how their densities and features mix (section 3.2)."""

from collections.abc import Callable
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
from zoo.utils.protocols import check_call, check_made
from zoo.utils.ranges import at_least, given


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

    The same numbers as marching through ``Scene`` as one field, for a fraction of the work: an object's field is only
    queried at points inside its box, and features are summed along rays before the fields' last, linear layer.

    Args:
        depths: depths along a ray.
        quadrature: makes weights of the fields' common density.
        chunk: points that a field sees at once: small enough for the processor's cache is fastest. None: all.
        recompute: with gradients, compute each chunk again in the backward pass instead of keeping what it needs: less
            memory for a fifth more time.
    """

    def __init__(
        self,
        depths: Depths,
        quadrature: Quadrature | None = None,
        chunk: int | None = 4096,
        recompute: bool = False,
    ) -> None:
        at_least(1, self, **given(chunk=chunk))
        check_call("rays, draws", self, depths=depths)
        super().__init__()
        self.depths, self.quadrature, self.chunk, self.recompute = depths, quadrature or Quadrature(), chunk, recompute

    def forward(
        self, field: Scene, rays: Rays, condition: Latent, draws: Draws | None = None, density_noise: float = 0.0
    ) -> Integrated:
        """As ``zoo.render.VolumeRenderer``; the features of every sample never exist."""
        samples, latent = self.depths(rays, draws), condition
        local = field.place(samples, latent)
        batch, count, per_image, per_ray = local.points.shape[:-1]
        none = samples.t.new_zeros(batch, count + 1, per_image, per_ray)
        noise = add_density_noise(none, "density_noise", draws, density_noise)

        inside = field.inside(local.points, latent).flatten().nonzero()[:, 0]
        raw, hidden = self.objects(field.objects, local, latent, inside)
        raw = raw + noise[:, :-1].flatten()[inside]
        objects = raw.new_zeros(batch * count * per_image * per_ray).index_put((inside,), raw.relu())
        objects = objects.unflatten(0, (batch, count, per_image, per_ray))

        raw_behind, hidden_behind = self.background(field.background, local, latent)
        behind = (raw_behind + noise[:, -1]).relu() * latent.present[:, -1, None, None]
        density, shares = field.composed(torch.cat([objects.transpose(0, 1), behind[None]]))
        raw = density[..., None]
        weights, opacity, added = self.quadrature(raw, samples)

        shares = weights * shares
        ray = inside // (count * per_image * per_ray) * per_image + inside // per_ray % per_image  # of B R rays
        share = shares[:-1].transpose(0, 1).flatten()[inside]
        summed = hidden.new_zeros(batch * per_image, hidden.shape[-1]).index_add(0, ray, share[:, None] * hidden)
        total = shares[:-1].sum((0, 3))[..., None]
        features = field.objects.finish(summed.unflatten(0, (batch, per_image)), total)
        summed = torch.einsum("brs,brsc->brc", shares[-1], hidden_behind)
        features = features + field.background.finish(summed, shares[-1].sum(-1, keepdim=True))
        features = features if added is None else features + added
        depth = (weights * samples.t).sum(-1, keepdim=True)
        return Integrated(features, depth, opacity, samples, weights, raw, background=added)

    def density(self, points: Tensor, field: Scene, condition: Latent) -> Tensor:
        """Density per world length [B, N, 1] of all fields at points [B, N, 3]."""
        return self.quadrature.density(raw_density(points, field, condition), points[:, :, None])[:, :, 0]

    def objects(self, field: Field, local: LocalSamples, latent: Latent, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Raw densities and hidden features of the points inside boxes, given by their index into [B N R S]."""
        terms = field.terms(latent.shape_code, latent.appearance_code).flatten(0, 1)
        points, directions = local.points.flatten(0, 3), local.directions.flatten(0, 2)
        per_ray = local.points.shape[3]
        per_box = local.points.shape[2] * per_ray

        def part(index: Tensor) -> tuple[Tensor, Tensor]:
            return field(points[index], directions[index // per_ray], terms[index // per_box])

        chunk = max(1, len(inside)) if self.chunk is None else self.chunk
        return concatenate([self.run(part, index) for index in inside.split(chunk)], 0)

    def background(self, field: Field, local: LocalSamples, latent: Latent) -> tuple[Tensor, Tensor]:
        """Raw densities [B, R, S] and hidden features [B, R, S, C] of the background."""
        terms = field.terms(latent.background_shape_code, latent.background_appearance_code)[:, None, None]
        batch, per_image, per_ray = local.background_points.shape[:-1]

        def part(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
            return field(points, directions[:, :, None], terms)

        step = per_image if self.chunk is None else max(1, self.chunk // (batch * per_ray))
        chunks = zip(local.background_points.split(step, 1), local.background_directions.split(step, 1), strict=True)
        return concatenate([self.run(part, *chunk) for chunk in chunks], 1)

    def run(self, part: Callable, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        if self.recompute and self.chunk is not None and torch.is_grad_enabled():
            from torch.utils.checkpoint import checkpoint  # torch 2.7 imports sympy with it, which takes a second

            return checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)
        return part(*inputs)


def concatenate(parts: list[tuple[Tensor, Tensor]], axis: int) -> tuple[Tensor, Tensor]:
    return tuple(torch.cat(tensors, axis) for tensors in zip(*parts, strict=True))
