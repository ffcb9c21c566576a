"""Averaged generators: what samples, scores and weights are made from."""

from collections.abc import Callable
from copy import deepcopy
from typing import Literal

import torch
from torch import nn


class WarmUp:
    """Decay that starts low, min(limit, (1 + n) / (10 + n)) at update n, so that early averages forget the start."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def __call__(self, updates: int) -> float:
        return min(self.limit, (1 + updates) / (10 + updates))


class Average(nn.Module):
    """A generator whose parameters are a running average of the trained one's.

    Args:
        decay: share of the old average in the new one: a number, or a function of the number of this update (from 1).
        buffers: what becomes of buffers: copied, averaged like parameters, or kept as they were at the start.
    """

    def __init__(
        self, decay: float | Callable[[int], float] = 0.999, buffers: Literal["copy", "lerp", "keep"] = "copy"
    ) -> None:
        super().__init__()
        self.decay, self.buffer_rule = decay, buffers
        self.updates = 0

    def follow(self, generator: nn.Module) -> None:
        """Start as a copy of this generator."""
        self.module = deepcopy(generator).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, generator: nn.Module) -> None:
        """Move towards the generator."""
        self.updates += 1
        share = 1 - (self.decay(self.updates) if callable(self.decay) else self.decay)
        for mine, new in zip(self.module.parameters(), generator.parameters(), strict=True):
            mine.lerp_(new, share)
        for mine, new in zip(self.module.buffers(), generator.buffers(), strict=True):
            if self.buffer_rule == "copy":
                mine.copy_(new)
            elif self.buffer_rule == "lerp":
                mine.lerp_(new, share)

    def get_extra_state(self) -> dict[str, int]:
        return {"updates": self.updates}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.updates = state["updates"]
