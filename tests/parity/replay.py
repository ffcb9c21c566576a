"""Recorded numbers in place of those that our code would draw or compute."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.render import Importance, Integrated, Rays, Samples, VolumeRenderer


class Replay:
    """Draws that were recorded elsewhere, by the name we ask for them with; each name's in order.

    Args:
        recorded: pairs of name and numbers; a name may come several times.
    """

    def __init__(self, recorded: Sequence[tuple[str, Tensor]]) -> None:
        self.queues: dict[str, list[Tensor]] = {}
        for name, numbers in recorded:
            self.queues.setdefault(name, []).append(numbers)

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        queue = self.queues.get(name)
        assert queue, f"'{name}' was asked for more often than it was recorded"
        numbers = queue.pop(0)
        assert numbers.numel() == torch.Size(shape).numel(), f"'{name}' has {tuple(numbers.shape)}, not {tuple(shape)}"
        return numbers.reshape(tuple(shape))

    normal = shared = uniform

    def used_up(self) -> bool:
        return not any(self.queues.values())


class Followed:
    """Importance samples; what comes after them starts from those that were recorded, if any were.

    In cells which are nearly empty rounding moves them a thousand times as far, so they are compared by themselves.
    Afterwards ``weights`` are those that were given, and ``t`` the depths that were drawn.

    Args:
        fine: draws them.
        weights: recorded ones that they are drawn from instead of those that are given; None for none.
        t: recorded depths; None for none.
    """

    def __init__(self, fine: Importance, weights: Tensor | None, t: Tensor | None) -> None:
        self.fine, self.recorded_weights, self.recorded_t = fine, weights, t

    def __call__(self, t: Tensor, weights: Tensor, draws: Any) -> Tensor:
        self.weights = weights
        given = weights if self.recorded_weights is None else self.recorded_weights.view_as(weights)
        self.t = self.fine(t, given, draws)
        return self.t if self.recorded_t is None else self.recorded_t.view_as(self.t)


def even_quantiles(edges: Tensor, recorded: Tensor) -> Tensor:
    """Evenly spaced numbers from 0 to 1, the last one beyond all cells where the published program's was.

    The cells' shares sum up to 1 but for rounding, which decides where the last cell is too empty to interpolate in.
    """
    u = torch.linspace(0, 1, recorded.shape[-1]).repeat(*recorded.shape[:-1], 1)
    u[..., -1] += torch.where((recorded[..., -1] - edges[..., -1]).abs() < 1e-6, 1e-9, -1e-9)
    return u


def composited(
    renderer: VolumeRenderer,
    t: Tensor,
    raw: Tensor,
    features: Tensor,
    draws: Any = None,
    density_noise: float = 0.0,
    rays: Rays | None = None,
) -> Integrated:
    """Compositing of given samples: a field that knows their raw densities and features already.

    Args:
        rays: None for rays along -z.
    """
    if rays is None:
        ahead = torch.tensor([0.0, 0.0, -1.0]).expand(*t.shape[:2], 3)
        rays = Rays(torch.zeros_like(ahead), ahead)
    renderer.depths = lambda rays, draws: Samples(*rays[:2], t)
    return renderer(lambda samples, _: (raw, features), rays, None, draws, density_noise)
