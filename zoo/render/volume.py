"""The pluggable renderer: rays -> depths -> field -> composite.

``Volume`` wires the functions of this folder for the systems that march rays through one field. A field is any callable
``(samples, condition) -> (raw density [B, R, S, 1], features [B, R, S, C])``; the renderer never looks inside
``condition``. Everything in which papers differ is an object handed to the constructor, and a whole other renderer is
any class with the call signature of ``Volume``. A system that merges several fields does so in a field of its own.

B batch, R rays, S samples, C channels
"""

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from zoo.draws import Draws
from zoo.render.composite import Background, Density, Intervals, black, open_ended, relu, transmission_weights
from zoo.render.depths import Depths, FineDepths, Samples
from zoo.render.query import Field, chosen_first, query
from zoo.render.rays import Rays


class Integrated(NamedTuple):
    """What a renderer returns: composites along the rays, and what they were made from."""

    features: Tensor  # [B, R, C]
    depth: Tensor  # sum of weight times depth, not divided by opacity, [B, R, 1]
    opacity: Tensor  # sum of the weights before any background, [B, R, 1]
    t: Tensor  # depths of all samples, increasing, [B, R, S]
    weights: Tensor  # with the background's share where it goes into a sample, [B, R, S]
    raw: Tensor  # the field's raw density at the samples, [B, R, S, 1]
    asked: Tensor  # the field's features in the order in which it was asked, [B, R, S, C]; a pair where it was twice
    order: Tensor | None = None  # which of those each sample is, [B, R, S]; None for the same order
    added: Tensor | None = None  # what the background adds to each of the features, [B, R, 1]; None for nothing

    @property
    def sampled(self) -> Tensor:
        """The field's features at the samples, [B, R, S, C]."""
        return self.asked if self.order is None else _reorder(self.order, *self.asked)


# What can stand in for ``Volume``: (field, rays, condition, draws=None, density_noise=0.0) -> Integrated.
Renderer = Callable[..., Any]


class Volume(nn.Module):
    """Volume rendering of one field, with an optional second, importance-sampled set of depths in the same field.

    Args:
        depths: the first depths along a ray.
        density: what makes the raw output a density.
        background: what light that hit nothing becomes.
        fine: further depths drawn where the first ones found something; both sets are composited together.
        intervals: length of ray that each sample stands for.
        chunk: points that the field sees at once, see ``query``; None for all of them.
    """

    def __init__(
        self,
        depths: Depths,
        density: Density = relu,
        background: Background = black,
        fine: FineDepths | None = None,
        intervals: Intervals = open_ended,
        chunk: int | None = 4096,
    ) -> None:
        super().__init__()
        self.depths, self.density, self.background = depths, density, background
        self.fine, self.intervals, self.chunk = fine, intervals, chunk

    def forward(
        self, field: Field, rays: Rays, condition: Any, draws: Draws | None = None, density_noise: float = 0.0
    ) -> Integrated:
        """Render rays.

        Args:
            field: what to render.
            rays: origins and directions, [B, R, 3].
            condition: handed to the field as it is.
            draws: for jitter, importance samples and density noise; None for none of them.
            density_noise: standard deviation of the noise on raw densities; no effect without draws.
        """
        samples = self.depths(rays, draws)
        hits = chosen_first(samples.t[..., -1] > samples.t[..., 0])  # the other rays have no length
        raw, features = self.query_hits(field, samples, hits, condition)
        order = None
        if self.fine is not None:
            with torch.no_grad():
                weights = self.weigh(samples, raw, draws, density_noise, "coarse")
                fine = Samples(*rays[:2], self.fine(samples.t, weights, draws))
            fine_raw, fine_features = self.query_hits(field, fine, hits, condition)
            t, order = torch.cat([fine.t, samples.t], -1).sort(-1)
            samples = Samples(*rays[:2], t)
            raw, features = _reorder(order, fine_raw, raw), (fine_features, features)
        weights = self.weigh(samples, raw, draws, density_noise, "final")
        opacity = weights.sum(-1, keepdim=True)
        weights, added = self.background(weights)
        if order is None:
            composite = composited(weights, features)
        else:  # sorting weights back is much cheaper than sorting features
            asked = torch.zeros_like(weights).scatter(-1, order, weights).split([x.shape[2] for x in features], dim=-1)
            composite = sum(map(composited, asked, features))
        if added is not None:
            composite = composite + added
        depth = (weights * samples.t).sum(-1, keepdim=True)
        return Integrated(composite, depth, opacity, samples.t, weights, raw, features, order, added)

    def weigh(self, samples: Samples, raw: Tensor, draws: Draws | None, density_noise: float, name: str) -> Tensor:
        """Share of the light that each sample gives, [B, R, S], from raw densities [B, R, S, 1]."""
        if draws is not None and density_noise > 0:
            raw = raw + density_noise * draws.normal(f"{name}_density_noise", raw.shape)
        density = self.density(raw, samples.points)[..., 0]
        return transmission_weights(density, self.intervals(samples.t, samples.directions))

    def query_hits(self, field: Field, samples: Samples, hits: Tensor, condition: Any) -> tuple[Tensor, Tensor]:
        """As ``query``, but only on the rays with these indices [B, K]; zeros on the others."""
        if hits.shape[1] in (0, samples.t.shape[1]):
            return query(field, samples, condition, self.chunk)
        found = query(field, samples.take(hits), condition, self.chunk)
        at = (torch.arange(len(hits), device=hits.device)[:, None], hits)
        return tuple(x.new_zeros(*samples.t.shape, x.shape[-1]).index_put(at, x) for x in found)


def with_samples(volume: Renderer, samples: int) -> Renderer:
    """The same renderer with another number of samples along a ray, and as many again where it refines them.

    Raises:
        ValueError: it has no such numbers.
    """
    parts = {name: part for name in ("depths", "fine") if (part := getattr(volume, name, None)) is not None}
    if "depths" not in parts or not all(hasattr(part, "samples") for part in parts.values()):
        raise ValueError("This renderer's samples cannot be told: leave samples out, or use zoo.render.Volume.")
    changed = copy(volume)
    for name, part in parts.items():
        setattr(changed, name, replace(part, samples=samples))
    return changed


def composited(weights: Tensor, features: Tensor) -> Tensor:
    """Weighted sums along rays, [B, R, C], of features [B, R, S, C] with weights [B, R, S]."""
    return torch.einsum("brs,brsc->brc", weights, features)


def _reorder(order: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
    values = torch.cat([fine, coarse], dim=-2)
    return values.gather(-2, order[..., None].expand_as(values))


class Rendered(NamedTuple):
    """A generator's picture."""

    image: Tensor  # in [-1, 1], [B, 3, H, W]
    raw: Tensor  # the system's own low-resolution colour, [B, 3, h, w]
    depth: Tensor  # distance along the unit ray [world units]; NaN where opacity is below 1e-3; [B, 1, h, w]
    opacity: Tensor  # in [0, 1], [B, 1, h, w]


def to_map(values: Tensor) -> Tensor:
    """Values of all pixels row by row, [B, R, C], as a square map [B, C, H, W]."""
    side = round(values.shape[1] ** 0.5)
    # Contiguous: convolutions of few channels-last channels have been seen to corrupt memory on CPUs (torch 2.14).
    return rearrange(values, "b (h w) c -> b c h w", h=side).contiguous()


def expected_depth(integrated: Integrated) -> Tensor:
    """Mean depth of what was hit, [B, R, 1]; NaN where opacity is below 1e-3."""
    weights = integrated.weights
    total = weights.sum(-1, keepdim=True)
    return torch.where(integrated.opacity < 1e-3, torch.nan, integrated.depth / total.clamp(min=1e-3))
