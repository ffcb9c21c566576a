"""Sine layers whose frequencies and phases are a style's (FiLM-SIREN; pi-GAN, equation 5).

B batch, N points, C channels
"""

import torch
from torch import Tensor, nn


def fold(layer: nn.Linear, frequencies: Tensor, phases: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [B, C_in, C_out] and biases [B, 1, C_out] that frequencies and phases [B, C_out] of B styles went into.

    sin(frequency (W x + b) + phase) is the sine of one linear layer.
    """
    weight = (frequencies[:, :, None] * layer.weight).mT.contiguous()
    return weight, (frequencies * layer.bias + phases)[:, None]


def sine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A sine layer with its own weights and biases, from ``fold``, for each of B inputs [B, N, C_in]: [B, N, C_out]."""
    x = torch.baddbmm(bias, x, weight)
    return x.sin() if x.requires_grad else x.sin_()  # in place is faster
