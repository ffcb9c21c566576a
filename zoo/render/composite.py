"""From densities and colours along a ray to one colour: the quadrature of volume rendering (Max 1995; NeRF equation 3).

What papers do differently is a ``Quadrature`` and the callables that it is made of.

B batch, R rays, S samples, C channels
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from zoo.draws import Draws
from zoo.render.depths import Samples
from zoo.utils.constants import constant
from zoo.utils.protocols import check_call, check_made, untyped_in_configs
from zoo.utils.ranges import above, finite

# What a quadrature is made of


@untyped_in_configs
class Density(Protocol):
    """``(raw [B, R, S, 1], points [B, R, S, 3]) -> density``: what makes the field's raw output a density."""

    def __call__(self, raw: Tensor, points: Tensor, /) -> Tensor: ...


@untyped_in_configs
class Intervals(Protocol):
    """``(t [B, R, S], directions [B, R, 3]) -> lengths [B, R, S]``: how much of the ray a sample stands for."""

    def __call__(self, t: Tensor, directions: Tensor, /) -> Tensor: ...


@untyped_in_configs
class Background(Protocol):
    """``(weights [B, R, S]) -> (weights, added [B, R, 1] or None)``: what becomes of the remaining light."""

    def __call__(self, weights: Tensor, /) -> tuple[Tensor, Tensor | None]: ...


def transmission_weights(density: Tensor, lengths: Tensor) -> Tensor:
    """Share of the ray's light that each sample gives.

    Args:
        density: extinction per world length, not negative, [B, R, S].
        lengths: length of ray that each sample stands for [world units], [B, R, S].

    Returns:
        w_i = (1 - exp(-density_i length_i)) prod_{j<i} (exp(-density_j length_j) + 1e-10), [B, R, S].
    """
    alpha = 1 - torch.exp(-density * lengths)
    passed = torch.cumprod(1 - alpha[..., :-1] + 1e-10, dim=-1)
    return alpha * torch.cat([torch.ones_like(alpha[..., :1]), passed], dim=-1)


def accumulate_along_rays(weights: Tensor, features: Tensor) -> Tensor:
    """Weighted sums along rays, [B, R, C], of features [B, R, S, C] with weights [B, R, S]."""
    return torch.einsum("brs,brsc->brc", weights, features)


def add_density_noise(raw: Tensor, name: str, draws: Draws | None, deviation: float) -> Tensor:
    """Raw densities with gaussian noise (NeRF, appendix A); without draws as they are."""
    return raw if draws is None or deviation <= 0 else raw + deviation * draws.normal(name, raw.shape)


# Densities


def relu(raw: Tensor, points: Tensor) -> Tensor:
    return raw.relu()


def softplus(raw: Tensor, points: Tensor) -> Tensor:
    return torch.nn.functional.softplus(raw)


def shifted_softplus(raw: Tensor, points: Tensor) -> Tensor:
    """softplus(raw - 1), as in Mip-NeRF: a new field is nearly empty."""
    return torch.nn.functional.softplus(raw - 1)


@dataclass(frozen=True)
class BoundedRelu:
    """relu(scale * raw + shift), faded out at the surface of a sphere around the origin.

    Without data poses a generator is free to put colour anywhere between the camera and the background; a density that
    cannot be outside the object's bounds leaves the object as the only place.

    Args:
        scale, shift: with a negative shift a new field starts almost empty.
        radius: nothing is outside this distance from the origin [world units].
        margin: width of the fade inside the radius [world units].
    """

    scale: float = 1.0
    shift: float = 0.0
    radius: float = 1.0
    margin: float = 0.1

    def __post_init__(self) -> None:
        finite(self, scale=self.scale, shift=self.shift)
        above(0, self, radius=self.radius, margin=self.margin)

    def __call__(self, raw: Tensor, points: Tensor) -> Tensor:
        fade = ((self.radius - points.norm(dim=-1, keepdim=True)) / self.margin).clamp(0, 1)
        return (self.scale * raw + self.shift).relu() * fade


@dataclass(frozen=True)
class BoxedRelu:
    """As ``BoundedRelu``, but within a box around the origin: tighter around most objects than a sphere.

    Args:
        scale, shift: with a negative shift a new field starts almost empty.
        half: half the lengths of the box along x, y and z [world units].
        margin: width of the fade inside its faces [world units].
    """

    scale: float = 1.0
    shift: float = 0.0
    half: tuple[float, float, float] = (1.0, 1.0, 1.0)
    margin: float = 0.1

    def __post_init__(self) -> None:
        finite(self, scale=self.scale, shift=self.shift)
        above(0, self, half=self.half, margin=self.margin)

    def __call__(self, raw: Tensor, points: Tensor) -> Tensor:
        inside = (constant(self.half, points) - points.abs()).amin(-1, keepdim=True)
        return (self.scale * raw + self.shift).relu() * (inside / self.margin).clamp(0, 1)


# Intervals


def infinite_last_interval(t: Tensor, directions: Tensor) -> Tensor:
    """From each sample to the next; the last interval is infinite, so that any density there is opaque."""
    return _to_next(t, directions, 1e10)


def zero_last_interval(t: Tensor, directions: Tensor) -> Tensor:
    """From each sample to the next; the last interval has length zero."""
    return _to_next(t, directions, 0.0)


def _to_next(t: Tensor, directions: Tensor, last: float) -> Tensor:
    return pad(t.diff(dim=-1), (0, 1), value=last) * directions.norm(dim=-1, keepdim=True)


# Backgrounds


def black(weights: Tensor) -> tuple[Tensor, None]:
    """The remaining light is black."""
    return weights, None


def white(weights: Tensor) -> tuple[Tensor, Tensor]:
    """The remaining light is white, 1 in every channel."""
    return weights, 1 - weights.sum(-1, keepdim=True)


def last_sample(weights: Tensor) -> tuple[Tensor, None]:
    """The remaining light takes the colour of the last sample."""
    rest = 1 - weights.sum(-1, keepdim=True)
    return torch.cat([weights[..., :-1], weights[..., -1:] + rest], dim=-1), None


class ByMode(nn.Module):
    """One background while the generator trains, another in evaluation mode (pi-GAN's ``eval_last_back``).

    Args:
        training, evaluation: the backgrounds.
    """

    def __init__(self, training: Background, evaluation: Background) -> None:
        super().__init__()
        self.while_training, self.otherwise = training, evaluation

    def forward(self, weights: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.while_training(weights) if self.training else self.otherwise(weights)


# Quadratures


class RayWeights(NamedTuple):
    """Shares of the light of rays."""

    weights: Tensor  # each sample's, with the background's where it goes into a sample, [B, R, S]
    opacity: Tensor  # their sum before any background, [B, R, 1]
    background: Tensor | None = None  # what the background adds to each of the features, [B, R, 1]; None for nothing


class Quadrature(nn.Module):
    """Weights of samples: each one's density is that of the way to the next.

    Args:
        density: what makes the raw output a density.
        intervals: length of ray that each sample stands for.
        background: what the remaining light becomes.
    """

    def __init__(
        self, density: Density = relu, intervals: Intervals = infinite_last_interval, background: Background = black
    ) -> None:
        check_call("raw, points", self, density=density)
        check_call("t, directions", self, intervals=intervals)
        check_call("weights", self, background=background)
        super().__init__()
        self.density, self.intervals, self.background = density, intervals, background

    def forward(self, raw: Tensor, samples: Samples) -> RayWeights:
        """Weights from raw densities [B, R, S, 1] at samples of increasing depth."""
        weights = self.weigh(raw, samples)
        opacity = weights.sum(-1, keepdim=True)
        weights, added = self.background(weights)
        return RayWeights(weights, opacity, added)

    def weigh(self, raw: Tensor, samples: Samples) -> Tensor:
        """As ``forward``, but only the weights [B, R, S] before any background."""
        density, lengths = self.density(raw, samples.points), self.intervals(samples.t, samples.directions)
        check_made(density, [raw.shape], self, "density")
        check_made(lengths, [samples.t.shape], self, "intervals")
        return transmission_weights(density[..., 0], lengths)


class MidpointQuadrature(Quadrature):
    """Raw density, features and depth of an interval are the means of its two ends (EG3D; MipNeRF's marching).

    A sum of such means is linear in features, so each end takes half of the interval's weight. The last sample only
    ends an interval, whatever ``intervals`` makes of it.
    """

    def weigh(self, raw: Tensor, samples: Samples) -> Tensor:
        raw, points = ((x[:, :, 1:] + x[:, :, :-1]) / 2 for x in (raw, samples.points))
        lengths = self.intervals(samples.t, samples.directions)[..., :-1]
        halves = transmission_weights(self.density(raw, points)[..., 0], lengths) / 2
        return pad(halves, (0, 1)) + pad(halves, (1, 0))
