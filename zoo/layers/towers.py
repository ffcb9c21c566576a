"""Residual blocks of StyleGAN2's discriminator (Karras 2020, appendix B), and R1 without second derivatives.

What passes through them may be told how to pass, see ``Passing``: between two bends of its leaky ReLUs such a
network is linear, and that is all that R1 needs to know.

B batch, C channels, H image side
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu, linear

from zoo.layers.winograd import conv3x3
from zoo.losses import judged_real


class Blur(torch.autograd.Function):
    """Filters every channel with [1, 3, 3, 1] both ways, with zeros around, and scales; differentiable without end.

    The gradient of a convolution with groups, differentiated again, is many times slower than what it computes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, padding: int, stride: int, transposed: bool = False) -> Tensor:
        ctx.how = scale, padding, stride, transposed
        line = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device) / 8
        kernel = (line[:, None] * line * scale).expand(x.shape[1], 1, 4, 4)
        filtered = conv_transpose2d if transposed else conv2d
        with torch.autocast(x.device.type, enabled=False):
            return filtered(x, kernel, padding=padding, stride=stride, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *how, transposed = ctx.how
        return Blur.apply(gradient, *how, not transposed), None, None, None, None


class Passing:
    """How biases and activations act on what passes through a tower."""

    def shift(self, x: Tensor, bias: Tensor) -> Tensor:
        """Add a bias [C] to features [B, C, ...]. May overwrite x."""
        return x.add_(bias.view(-1, *[1] * (x.dim() - 2)))

    def bend(self, x: Tensor) -> Tensor:
        """Leaky ReLU. May overwrite x."""
        return leaky_relu(x, 0.2, inplace=True)


class Remembering(Passing):
    """Remembers on which side of each leaky ReLU everything passed."""

    def __init__(self) -> None:
        self.sides: list[Tensor] = []

    def bend(self, x: Tensor) -> Tensor:
        y = super().bend(x)
        self.sides.append(y.detach() > 0)
        return y


class PassingAgain(Passing):
    """Passes every leaky ReLU on the side where other images did: a tower is then a linear function and a constant.

    Args:
        sides: as they were remembered, in order.
        weights: of the constants, one for each image [B].
    """

    def __init__(self, sides: list[Tensor], weights: Tensor) -> None:
        self.sides, self.weights = iter(sides), weights

    def shift(self, x: Tensor, bias: Tensor) -> Tensor:
        return x + torch.outer(self.weights, bias).view(*x.shape[:2], *[1] * (x.dim() - 2))

    def bend(self, x: Tensor) -> Tensor:
        return torch.where(next(self.sides), x, 0.2 * x)


PASSING = Passing()


class EqualConv(nn.Module):
    """A convolution whose weights are standard normal and scaled when used; a bias only where there is an activation.

    What is scaled is the input, which is smaller than the weights, and need not be kept.

    Args:
        kernel: side.
        shrink: blur, and halve the resolution.
        activation: a leaky ReLU.
        gain: of the result; StyleGAN2's after an activation is sqrt(2).
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        shrink: bool = False,
        activation: bool = True,
        gain: float = math.sqrt(2),
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(channels_out)) if activation else None
        self.kernel, self.shrink, self.gain = kernel, shrink, gain
        self.scale = gain / math.sqrt(channels_in * kernel**2)  # an activation scales with its input

    def forward(self, x: Tensor, passing: Passing = PASSING) -> Tensor:
        if not self.shrink:
            x = x * self.scale
            x = conv3x3(x, self.weight) if self.kernel == 3 else conv2d(x, self.weight, padding=self.kernel // 2)
        elif self.kernel == 1:  # what the stride leaves out needs no blur either
            x = conv2d(Blur.apply(x, self.scale, 1, 2), self.weight)
        else:
            x = conv2d(Blur.apply(x, self.scale, 2, 1), self.weight, stride=2)
        return x if self.bias is None else passing.bend(passing.shift(x, self.bias * self.gain))


class EqualLinear(nn.Module):
    """A linear layer whose weights are standard normal and scaled when used."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(dim_out, dim_in)), nn.Parameter(torch.zeros(dim_out))
        self.scale = 1 / math.sqrt(dim_in)

    def forward(self, x: Tensor, passing: Passing = PASSING, gain: float = 1.0) -> Tensor:
        return passing.shift(linear(x * (self.scale * gain), self.weight), self.bias * gain)


class ResidualBlock(nn.Module):
    """Residual block that halves the resolution, in its first or in its second convolution."""

    def __init__(self, channels_in: int, channels_out: int, shrink_first: bool) -> None:
        super().__init__()
        # The sum of both ways is divided by sqrt(2), here beforehand.
        self.first = EqualConv(channels_in, channels_in, 3, shrink=shrink_first)
        self.second = EqualConv(channels_in, channels_out, 3, shrink=not shrink_first, gain=1.0)
        self.skip = EqualConv(channels_in, channels_out, 1, shrink=True, activation=False, gain=math.sqrt(0.5))

    def forward(self, x: Tensor, passing: Passing = PASSING) -> Tensor:
        return self.second(self.first(x, passing), passing) + self.skip(x)


def real_and_r1(
    images: Tensor, shares: list[tuple[nn.Module, Tensor]], alpha: float, r1_weight: float
) -> tuple[Tensor, Tensor]:
    """What discriminators pay for real images, and R1 times a weight: the first with the gradient of the sum of both.

    Between two bends of its leaky ReLUs a tower T is linear but for a constant, and so must the augmentation be. The
    gradient of R1 = |g|^2, g = T'(x), is that of T' times the fixed vector 2 g; that of a loss L is that of T(x) times
    the fixed number L'. The sum of both is one linear pass of L' x + 2 g, with the constant weighted by L', past the
    same bends: no second derivatives, and half the memory.

    Args:
        images: requires a gradient, [B, 3, H, H].
        shares: towers, modules that are called with images, alpha and a ``Passing``, and what each sees of the images.
        alpha: handed to the towers.
        r1_weight: of the mean squared length of a score's gradient.
    """
    passes, scores, slopes = [Remembering() for _ in shares], [], []
    for (tower, part), passing in zip(shares, passes, strict=True):
        part = part.detach().requires_grad_()
        constant = {name: parameter.detach() for name, parameter in tower.named_parameters()}
        scores.append(functional_call(tower, constant, (part, alpha, passing)))
        slopes += torch.autograd.grad(scores[-1].sum(), part)
    scores = torch.cat(scores).detach().requires_grad_()
    real = judged_real(scores)
    (for_scores,) = torch.autograd.grad(real, scores)

    slopes = [slope.requires_grad_() for slope in slopes]
    (gradient,) = torch.autograd.grad([part for _, part in shares], images, slopes, create_graph=True)
    r1 = r1_weight * gradient.square().flatten(1).sum(1).mean()
    for_slopes = torch.autograd.grad(r1, slopes)

    combined = 0
    split = for_scores.split([len(part) for _, part in shares])
    for (tower, part), passing, own, added in zip(shares, passes, split, for_slopes, strict=True):
        linear_in = part.detach() * own[..., None, None] + added
        combined = combined + tower(linear_in, alpha, PassingAgain(passing.sides, own[:, 0])).sum()
    return real.detach() + combined - combined.detach(), r1.detach()
