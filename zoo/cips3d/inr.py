"""Appearance: a deep network that processes each ray by itself (section 3.2; CIPS, Anokhin 2021)."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from zoo.utils.errors import UserError
from zoo.utils.ranges import at_least


def layer_style(style: Tensor, i: int) -> Tensor:
    """The style [B, C] of a layer, from one of ``Styles``."""
    return style if style.dim() == 2 else style[:, i]


class ModulatedLinear(nn.Module):
    """A linear layer without bias: a style scales its inputs, and each output's weights are brought to length 1."""

    def __init__(self, dim_in: int, dim_out: int, style_dim: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(style_dim, dim_in)
        # The weight is [in, out], so that what the initialisation takes for the inputs' number is the outputs'.
        self.weight = nn.Parameter(torch.empty(1, dim_in, dim_out))
        for weight in (self.modulation.weight, self.weight[0]):
            nn.init.kaiming_normal_(weight, a=0.2, nonlinearity="leaky_relu")

    def modulate(self, style: Tensor) -> Tensor:
        """The weights [B, C_in, C_out] of B styles."""
        scales = self.modulation(style) + 1
        lengths = scales.square() @ self.weight[0].square() + 1e-8
        return self.weight * scales[:, :, None] * lengths.rsqrt()[:, None]


class InrBlock(nn.Module):
    """Two modulated layers; optionally a skip connection around them, and a colour read off the result."""

    def __init__(self, dim_in: int, dim_out: int, style_dim: int, residual: bool, rgb_dim: int | None) -> None:
        super().__init__()
        self.first = ModulatedLinear(dim_in, dim_out, style_dim)
        self.second = ModulatedLinear(dim_out, dim_out, style_dim)
        self.residual, self.to_rgb = residual, None
        if rgb_dim is not None:
            self.to_rgb = nn.Linear(dim_out, rgb_dim)
            init_rgb_layer(self.to_rgb, 100)

    def modulate(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """The weights of both layers, from the style of each."""
        return self.first.modulate(first), self.second.modulate(second)

    def forward(self, x: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
        y = leaky_relu(torch.bmm(x, weights[0]), 0.2, inplace=True)
        y = leaky_relu(torch.bmm(y, weights[1]), 0.2, inplace=True)
        if not self.residual:
            return y
        return x + y if y.requires_grad else y.add_(x)


class Inr(nn.Module):
    """Ray features to colours; all rays on their own, whatever the resolution.

    Args:
        feature_dim: width of a ray's feature.
        hidden_dim, style_dim: widths.
        num_blocks: of two layers each.
        first_rgb: from this block on, the colour is summed up.
        first_residual: from this block on, there are skip connections.
        rgb_dim: width of that sum; above 3 a linear layer follows.
    """

    def __init__(
        self,
        feature_dim: int = 32,
        hidden_dim: int = 512,
        style_dim: int = 512,
        num_blocks: int = 9,
        first_rgb: int = 3,
        first_residual: int = 4,
        rgb_dim: int = 3,
    ) -> None:
        at_least(1, self, feature_dim=feature_dim, hidden_dim=hidden_dim, style_dim=style_dim, num_blocks=num_blocks)
        at_least(3, self, rgb_dim=rgb_dim)
        at_least(0, self, first_rgb=first_rgb, first_residual=first_residual)
        super().__init__()
        if first_rgb >= num_blocks:
            raise UserError(f"No colour comes of first_rgb {first_rgb} of {num_blocks} blocks: give less than those.")
        self.feature_dim, self.style_dim = feature_dim, style_dim
        self.blocks = nn.ModuleList(
            InrBlock(
                feature_dim if i == 0 else hidden_dim,
                hidden_dim,
                style_dim,
                residual=i >= first_residual,
                rgb_dim=rgb_dim if i >= first_rgb else None,
            )
            for i in range(num_blocks)
        )
        self.final = None
        if rgb_dim > 3:
            self.final = nn.Linear(rgb_dim, 3)
            init_rgb_layer(self.final, 100)

    def rgb_layers(self) -> list[nn.Linear]:
        """The layers whose biases sum up to the colour of a ray without any feature."""
        own = [block.to_rgb for block in self.blocks if block.to_rgb is not None]
        return own if self.final is None else [self.final]

    def modulate(self, style: Tensor) -> list[tuple[Tensor, Tensor]]:
        """All weights of B styles, see ``Styles``; once per image."""
        return [
            block.modulate(layer_style(style, 2 * i), layer_style(style, 2 * i + 1))
            for i, block in enumerate(self.blocks)
        ]

    def forward(self, x: Tensor, weights: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Colours in [-1, 1] [B, R, 3] of features [B, R, C]."""
        rgb = 0
        for block, own in zip(self.blocks, weights, strict=True):
            x = block(x, own)
            if block.to_rgb is not None:
                rgb = rgb + block.to_rgb(x)
        return (rgb if self.final is None else self.final(rgb)).tanh()


def init_rgb_layer(layer: nn.Linear, divisor: float) -> None:
    """A SIREN's bound on weights, made smaller."""
    bound = math.sqrt(6 / layer.in_features) / divisor
    nn.init.uniform_(layer.weight, -bound, bound)
