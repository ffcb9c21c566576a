"""Exponential moving averages (EMA) of a generator's parameters; samples, scores and bundles are those of an EMA."""

from collections.abc import Callable
from copy import deepcopy
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.utils.protocols import check_call
from zoo.utils.ranges import between
from zoo.utils.states import check_state


class WarmUpDecay:
    """Decay min(limit, (1 + n) / (10 + n)) at update n, so that an EMA soon forgets the initial weights."""

    def __init__(self, limit: float) -> None:
        between(0, 1, self, limit=limit)
        self.limit = limit

    def __call__(self, updates: int) -> float:
        return min(self.limit, (1 + updates) / (10 + updates))


class EMA(nn.Module):
    """A copy of a generator whose parameters are the exponential moving average of the trained one's.

    Args:
        decay: of the old value at each update: a number, or a function of the number of this update (from 1).
        buffers: of the trained generator are copied, averaged like parameters, or kept as they were at the start.
    """

    def __init__(
        self, decay: float | Callable[[int], float] = 0.999, buffers: Literal["copy", "lerp", "keep"] = "copy"
    ) -> None:
        if callable(decay):
            check_call("updates", self, decay=decay)
        for value in (decay(1), decay(2)) if callable(decay) else (decay,):
            between(0, 1, self, decay=value.item() if isinstance(value, Tensor) else value)
        super().__init__()
        self.decay, self.buffer_rule = decay, buffers
        self.updates = 0

    def init_from(self, generator: nn.Module) -> None:
        """Start as a copy of this generator."""
        self.module = deepcopy(generator).eval().requires_grad_(False)

    def restart(self, generator: nn.Module) -> None:
        """Start again as a copy, after iterations that are not to be averaged."""
        self.module.load_state_dict(generator.state_dict())
        self.updates = 0

    @torch.no_grad()
    def update(self, generator: nn.Module) -> None:
        """Move the average towards this generator's parameters."""
        self.updates += 1
        share = 1 - (self.decay(self.updates) if callable(self.decay) else self.decay)
        lerp([*self.module.parameters()], [*generator.parameters()], share)
        mine, new = [*self.module.buffers()], [*generator.buffers()]
        if self.buffer_rule == "copy" and mine:
            torch._foreach_copy_(mine, new)
        elif self.buffer_rule == "lerp":
            lerp(mine, new, share)

    def get_extra_state(self) -> dict[str, int]:
        return {"updates": self.updates}

    def set_extra_state(self, state: dict[str, int]) -> None:
        check_state(state, {"updates": 0}, "an EMA's state")
        self.updates = state["updates"]


def lerp(mine: list[Tensor], new: list[Tensor], share: float | Tensor) -> None:
    """Move tensors towards new ones by a share of the way: on a GPU in a few launches for all of them."""
    if len(mine) != len(new):
        raise ValueError(f"An EMA of {len(mine)} tensors cannot follow {len(new)}.")
    if mine:
        torch._foreach_lerp_(mine, new, [share] * len(mine) if isinstance(share, Tensor) else share)
