"""The pluggable renderer: rays -> depths -> field -> quadrature -> composite.

``VolumeRenderer`` wires the functions of this folder for the systems that march rays through one field. A field is any
callable ``(samples, condition) -> (raw density [B, R, S, 1], features [B, R, S, C])``; the renderer never looks inside
``condition``. Everything in which papers differ is an object handed to the constructor, and a whole other renderer is
any class with the methods of ``Renderer``. A system that merges several fields does so in a field of its own.

B batch, R rays, S samples, N points, C channels
"""

from copy import copy
from dataclasses import is_dataclass, replace
from functools import reduce
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from zoo.draws import Draws
from zoo.render.composite import Quadrature, RayWeights, accumulate_along_rays, add_density_noise
from zoo.render.depths import Depths, FineDepths, Samples, has_length
from zoo.render.occupancy import EmptySpace
from zoo.render.plan import Chunk, Plan, check_chunk
from zoo.render.query import Condition, Field, query_hits, raw_density
from zoo.render.rays import Rays
from zoo.utils.errors import UserError
from zoo.utils.protocols import check_call, untyped_in_configs

Part = TypeVar("Part", Depths, FineDepths)


class Integrated(NamedTuple):
    """What a renderer returns: composites along the rays, and what they were made from."""

    features: Tensor  # [B, R, C]
    depth: Tensor  # sum of weight times depth, not divided by opacity, [B, R, 1]
    opacity: Tensor  # sum of the weights before any background, [B, R, 1]
    samples: Samples  # of increasing depth
    weights: Tensor  # with the background's share where it goes into a sample, [B, R, S]
    raw: Tensor  # the field's raw density at the samples, [B, R, S, 1]
    queried: tuple[Tensor, ...] = ()  # the field's features, one [B, R, S, C] for each time that it was queried
    order: Tensor | None = None  # which of all those each sample is, [B, R, S]; None for the same order
    background: Tensor | None = None  # what the background adds to each of the features, [B, R, 1]; None for nothing

    @property
    def sampled(self) -> Tensor:
        """The field's features at the samples, [B, R, S, C]."""
        features = torch.cat(self.queried, dim=2)
        return features if self.order is None else features.gather(2, self.order[..., None].expand_as(features))


@untyped_in_configs
class Renderer(Protocol):
    """What generators render with: ``VolumeRenderer``, or any class with these methods."""

    def __call__(
        self,
        field: Field[Condition],
        rays: Rays,
        condition: Condition,
        draws: Draws | None = None,
        density_noise: float = 0.0,
        /,
    ) -> Integrated:
        """Render rays, see ``VolumeRenderer``."""
        ...

    def density(self, points: Tensor, field: Field[Condition], condition: Condition, /) -> Tensor:
        """Density per world length that is rendered at points [B, N, 3]: [B, N, 1]."""
        ...


class VolumeRenderer(nn.Module):
    """Volume rendering of one field, with an optional second, importance-sampled set of depths in the same field.

    Args:
        depths: the first depths along a ray.
        quadrature: makes weights of raw densities; by default that of NeRF, before a black background.
        fine: further depths drawn from the weights of the first; both sets are composited together.
        coarse: makes the weights that ``fine`` draws from, if another quadrature does.
        chunk: points that the field sees at once, see ``query``: ``auto`` as ``zoo.render.plan`` decides, or None for
            all of them.
        noise_once: density noise stays with a sample (EG3D); else the composite gets noise of its own (pi-GAN).
    """

    def __init__(
        self,
        depths: Depths,
        quadrature: Quadrature | None = None,
        fine: FineDepths | None = None,
        coarse: Quadrature | None = None,
        chunk: Chunk = "auto",
        noise_once: bool = False,
    ) -> None:
        check_chunk(chunk, self)
        check_call("rays, draws", self, depths=depths)
        check_call("t, weights, draws", self, fine=fine)
        super().__init__()
        self.depths, self.quadrature = depths, quadrature or Quadrature()
        self.fine, self.coarse, self.chunk, self.noise_once = fine, coarse, chunk, noise_once
        self.plan = Plan()
        self.empty_space: EmptySpace | None = None  # while views of one object are rendered, what to leave out

    def forward(
        self,
        field: Field[Condition],
        rays: Rays,
        condition: Condition,
        draws: Draws | None = None,
        density_noise: float = 0.0,
    ) -> Integrated:
        """Render rays.

        Args:
            field: what to render.
            rays: origins and directions, [B, R, 3].
            condition: handed to the field as it is.
            draws: for jitter, importance samples and density noise; None for none of them.
            density_noise: standard deviation of the noise on raw densities; no effect without draws.
        """
        samples, space = self.depths(rays, draws), self.empty_space
        if space is None or draws is not None or not space.pays(samples):
            return self.march(field, samples, condition, draws, density_noise)
        live = space.live_rays(field, samples, condition, self.quadrature)
        found = self.march(field, samples.take(live), condition, space=space)
        space.count_left_out(found.samples)
        return spread(found, live, samples, self.quadrature)

    def march(
        self,
        field: Field[Condition],
        samples: Samples,
        condition: Condition,
        draws: Draws | None = None,
        density_noise: float = 0.0,
        space: EmptySpace | None = None,
    ) -> Integrated:
        """As ``forward``, from the first samples on; queried only where this space is not empty, if there is one."""
        rays, order = samples[:2], None
        hit = has_length(samples)
        raw, features = self.query_hits(field, samples, hit, condition, space)
        queried: tuple[Tensor, ...] = (features,)
        if self.noise_once:
            raw = add_density_noise(raw, "coarse_density_noise", draws, density_noise)
        if self.fine is not None:
            with torch.no_grad():
                noised = raw
                if not self.noise_once:
                    noised = add_density_noise(raw, "coarse_density_noise", draws, density_noise)
                weights = (self.coarse or self.quadrature).weigh(noised, samples)
                fine = Samples(*rays, self.fine(samples.t, weights, draws))
            fine_raw, fine_features = self.query_hits(field, fine, hit, condition, space)
            if self.noise_once:
                fine_raw = add_density_noise(fine_raw, "fine_density_noise", draws, density_noise)
            t, order = torch.cat([fine.t, samples.t], -1).sort(-1)
            samples, queried = Samples(*rays, t), (fine_features, features)
            raw = torch.cat([fine_raw, raw], 2).gather(2, order[..., None])
        noised = raw if self.noise_once else add_density_noise(raw, "final_density_noise", draws, density_noise)
        return integrate(self.quadrature(noised, samples), samples, raw, queried, order)

    def density(self, points: Tensor, field: Field[Condition], condition: Condition) -> Tensor:
        """Density per world length [B, N, 1] at points [B, N, 3]."""
        if self.empty_space is None:
            raw = raw_density(points, field, condition, self.plan)
        else:
            raw = self.empty_space.raw_density(points, field, condition, self.quadrature, self.plan)
        return self.quadrature.density(raw, points[:, :, None])[:, :, 0]

    def query_hits(
        self,
        field: Field[Condition],
        samples: Samples,
        hit: Tensor,
        condition: Condition,
        space: EmptySpace | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As ``query``, with zeros on rays that hit nothing, bool [B, R], and where this space is empty."""
        if space is not None:
            return space.query(field, samples, condition, self.quadrature, chunk=self.chunk, plan=self.plan)
        return query_hits(field, samples, hit, condition, self.chunk, self.plan)


def spread(found: Integrated, rays: Tensor, samples: Samples, quadrature: Quadrature) -> Integrated:
    """What all rays show where those with these indices [B, K] show this, and the others nothing; without ``queried``.

    Args:
        samples: the first ones of all rays.
    """
    t = pad(samples.t, (0, found.weights.shape[-1] - samples.t.shape[-1]), mode="replicate")
    nothing, background = quadrature.background(torch.zeros_like(t))

    def of_all(shown: Tensor, others: Tensor) -> Tensor:
        index = rays.view(*rays.shape, *[1] * (shown.dim() - 2)).expand_as(shown)
        return others.expand(-1, -1, *shown.shape[2:]).scatter(1, index, shown.to(others))

    zeros = t.new_zeros(*t.shape[:2], 1)
    background = zeros if background is None else background
    return Integrated(
        of_all(found.features, background),
        of_all(found.depth, zeros),
        of_all(found.opacity, zeros),
        samples._replace(t=of_all(found.samples.t, t), positions=None),
        of_all(found.weights, nothing),
        of_all(found.raw, zeros[..., None]),
        background=None if found.background is None else of_all(found.background, background),
    )


def with_sample_count(renderer: Renderer, samples: int) -> Renderer:
    """The same renderer with another number of samples along a ray, and as many again where it refines them.

    Raises:
        UserError: it has no such numbers.
    """
    if not isinstance(renderer, VolumeRenderer):
        raise UserError(
            f"{type(renderer).__name__} has no number of samples: leave samples out, or use VolumeRenderer."
        )
    changed = copy(renderer)
    changed.depths = _with_sample_count(renderer.depths, samples)
    changed.fine = None if renderer.fine is None else _with_sample_count(renderer.fine, samples)
    return changed


def _with_sample_count(part: Part, samples: int) -> Part:
    if not is_dataclass(part) or isinstance(part, type) or not hasattr(part, "samples"):
        raise UserError(f"{type(part).__name__} has no samples to set: leave samples out, or use zoo.render's depths.")
    return replace(part, samples=samples)


def integrate(
    ray_weights: RayWeights, samples: Samples, raw: Tensor, queried: tuple[Tensor, ...], order: Tensor | None
) -> Integrated:
    """Sum features along rays; arguments as in ``Integrated``."""
    weights, opacity, background = ray_weights
    of_queries = weights  # sorting weights back is much cheaper than sorting features
    if order is not None:
        of_queries = torch.zeros_like(weights).scatter(-1, order, weights)
    parts = of_queries.split([x.shape[2] for x in queried], dim=-1)
    features = reduce(torch.add, map(accumulate_along_rays, parts, queried))
    features = features if background is None else features + background
    depth = (weights * samples.t).sum(-1, keepdim=True)
    return Integrated(features, depth, opacity, samples, weights, raw, queried, order, background)


class Rendered(NamedTuple):
    """A generator's image."""

    image: Tensor  # in [-1, 1], [B, 3, H, W]
    raw: Tensor  # the system's own low-resolution colour, [B, 3, h, w]
    depth: Tensor  # distance along the unit ray [world units]; NaN where opacity is below 1e-3; [B, 1, h, w]
    opacity: Tensor  # in [0, 1], [B, 1, h, w]


def to_map(values: Tensor) -> Tensor:
    """Values of all pixels row by row, [B, R, C], as a square map [B, C, H, W]."""
    side = round(values.shape[1] ** 0.5)
    # Contiguous: convolutions of few channels-last channels have been seen to corrupt memory on CPUs (torch 2.14).
    return values.unflatten(1, (side, -1)).permute(0, 3, 1, 2).contiguous()


def expected_depth(integrated: Integrated) -> Tensor:
    """Mean depth of what was hit, [B, R, 1]; NaN where opacity is below 1e-3."""
    weights = integrated.weights
    total = weights.sum(-1, keepdim=True)
    return torch.where(integrated.opacity < 1e-3, torch.nan, integrated.depth / total.clamp(min=1e-3))
