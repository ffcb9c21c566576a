"""The memory layout that convolutions on GPUs are fastest in: channels last (NHWC). Values and files stay the same."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim import Optimizer

if TYPE_CHECKING:
    from zoo.training.gan import GAN

CHANNELS_LAST_ON = ("cuda",)  # on CPUs convolutions of few channels have been seen to corrupt memory (torch 2.14)


def use_channels_last(gan: "GAN") -> None:
    """Lay out the weights of the 2D networks, and of their EMAs, in this way where the device gains by it."""
    for name in gan.networks_2d if gan.device.type in CHANNELS_LAST_ON else ():
        copies = [f"emas.{ema}.module.{name.removeprefix('generator.')}" for ema in gan.emas]
        for place in (name, *(copies if name.startswith("generator.") else ())):
            gan.get_submodule(place).to(memory_format=torch.channels_last)


def match_layout(optimizer: Optimizer) -> None:
    """Lay out moments, which are restored without layout, as their parameters: steps in one kernel need that."""
    for parameter, state in optimizer.state.items():
        for name, moment in state.items():
            is_moment = isinstance(moment, Tensor) and moment.shape == parameter.shape  # and no count of steps
            if is_moment and moment.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)
