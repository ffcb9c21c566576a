"""From densities and colours along a ray to one colour: the quadrature of volume rendering (Max 1995; NeRF equation 3).

What papers do differently is a callable that is passed in:

* density ``(raw [B, R, S, 1], points [B, R, S, 3]) -> density``: what makes the field's raw output a density;
* intervals ``(t [B, R, S], directions [B, R, 3]) -> lengths [B, R, S]``: how much of the ray a sample stands for;
* background ``(weights [B, R, S]) -> (weights [B, R, S], added [B, R, 1] or None)``: what becomes of light that hit
  nothing.

B batch, R rays, S samples, C channels
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# The return types stay open: only then may a config name a callable class as well as a function.
Density = Callable[[Tensor, Tensor], Any]
Intervals = Callable[[Tensor, Tensor], Any]
Background = Callable[[Tensor], Any]


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


# Densities


def relu(raw: Tensor, points: Tensor) -> Tensor:
    return raw.relu()


def softplus(raw: Tensor, points: Tensor) -> Tensor:
    return torch.nn.functional.softplus(raw)


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

    def __call__(self, raw: Tensor, points: Tensor) -> Tensor:
        inside = (points.new_tensor(self.half) - points.abs()).amin(-1, keepdim=True)
        return (self.scale * raw + self.shift).relu() * (inside / self.margin).clamp(0, 1)


# Intervals


def open_ended(t: Tensor, directions: Tensor) -> Tensor:
    """From each sample to the next one, and from the last one on for ever: what is there at all is opaque there."""
    return _to_next(t, directions, 1e10)


def closed(t: Tensor, directions: Tensor) -> Tensor:
    """From each sample to the next one; the last one stands for nothing."""
    return _to_next(t, directions, 0.0)


def _to_next(t: Tensor, directions: Tensor, last: float) -> Tensor:
    steps = torch.cat([t[..., 1:] - t[..., :-1], torch.full_like(t[..., :1], last)], dim=-1)
    return steps * directions.norm(dim=-1, keepdim=True)


# Backgrounds


def black(weights: Tensor) -> tuple[Tensor, None]:
    """Light that hit nothing is dark."""
    return weights, None


def white(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Light that hit nothing is white, 1 in every channel."""
    return weights, 1 - weights.sum(-1, keepdim=True)


def last_sample(weights: Tensor) -> tuple[Tensor, None]:
    """Light that hit nothing takes the colour of the last sample."""
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
