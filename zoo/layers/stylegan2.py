"""Blocks of StyleGAN2 (Karras 2020, arXiv:1912.04958) in plain torch: all of them can be differentiated twice.

Equalised learning rates: weights are stored with variance one and scaled when they are used, so that Adam, whose steps
do not depend on the size of gradients, moves all layers alike. After a layer comes a leaky relu times sqrt(2), which
keeps the variance.

B batch, C channels, H height, W width, D width of w
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, interpolate, leaky_relu, linear, pad

from zoo.draws import Draws
from zoo.layers.winograd import conv3x3
from zoo.utils.constants import constant
from zoo.utils.errors import UserError
from zoo.utils.ranges import above, at_least

SLOPE, GAIN = 0.2, math.sqrt(2)  # of the leaky relu


def to_float32(x: Tensor) -> Tensor:
    """16-bit floats as float32, all else as it is: what fp16 would overflow or underflow is computed with these."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def activate(x: Tensor, bound: float | None = None) -> Tensor:
    """Leaky relu of slope 0.2, between -bound and bound. May overwrite x, which is to have been multiplied by GAIN."""
    return clamp(leaky_relu(x, SLOPE, inplace=True), bound)


def clamp(x: Tensor, bound: float | None) -> Tensor:
    """x between -bound and bound; all of it with None. Overwrites x where nothing is learned."""
    if bound is None:
        return x
    return x.clamp(-bound, bound) if torch.is_grad_enabled() else x.clamp_(-bound, bound)


def added(x: Tensor, y: Tensor) -> Tensor:
    """x + y. Overwrites x where nothing is learned: large images take twice as long in memory of their own."""
    if torch.is_grad_enabled() or torch.result_type(x, y) != x.dtype:
        return x + y
    return x.add_(y)


def normalise(z: Tensor) -> Tensor:
    """Vectors [B, C] with a mean square of one."""
    z = to_float32(z)
    return z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()


# Dense layers


class Dense(nn.Module):
    """Affine layer with equalised learning rate.

    Args:
        channels_in, channels_out: widths.
        bias: at the start.
        rate: learning rate, as a share of the others'.
    """

    def __init__(self, channels_in: int, channels_out: int, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in).div_(rate))
        self.bias = nn.Parameter(torch.full((channels_out,), bias / rate))
        self.scale, self.rate = rate / math.sqrt(channels_in), rate

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """[..., C_in] to [..., C_out], times a gain."""
        return linear(x, self.weight * (self.scale * gain), self.bias * (self.rate * gain))


class Mapping(nn.Module):
    """z to w: normalisation, then dense layers (section B).

    Args:
        latent_dim: size of z.
        hidden_dim: width of all layers but the last.
        w_dim: size of w.
        layers: how many.
        rate: their learning rate, as a share of the others'.
    """

    def __init__(
        self, latent_dim: int, hidden_dim: int = 512, w_dim: int = 512, layers: int = 8, rate: float = 0.01
    ) -> None:
        at_least(1, self, latent_dim=latent_dim, hidden_dim=hidden_dim, w_dim=w_dim)
        at_least(0, self, layers=layers)
        above(0, self, rate=rate)
        super().__init__()
        widths = [latent_dim, *[hidden_dim] * (layers - 1), w_dim]
        self.layers = nn.ModuleList(Dense(widths[i], widths[i + 1], rate=rate) for i in range(layers))

    def forward(self, z: Tensor) -> Tensor:
        """[B, latent_dim] to [B, w_dim]."""
        x = normalise(z)
        for layer in self.layers:
            x = activate(layer(x, GAIN))
        return x


def truncate(w: Tensor, mean: Tensor, truncation: float, layers: int) -> Tensor:
    """w [B, L, D] of which the first so many layers are moved towards the mean [D] (Karras 2019, section B).

    Args:
        truncation: share of the way from the mean that is kept.
    """
    return torch.cat([torch.lerp(mean.expand_as(w), w, truncation)[:, :layers], w[:, layers:]], dim=1)


# The filter [1, 3, 3, 1], in both directions


def binomial(like: Tensor, gain: float = 1.0) -> Tensor:
    """The filter [4, 4], whose sum is the gain."""
    line = constant([1.0, 3.0, 3.0, 1.0], like)
    return torch.outer(line, line) * (gain / 64)


def fir_filter(x: Tensor, padding: tuple[int, int, int, int], stride: int = 1, gain: float = 1.0) -> Tensor:
    """x [B, C, H, W] padded with zeros (left, right, top, bottom), filtered, and every stride-th pixel of it."""
    left, right, top, bottom = padding
    if left == right and top == bottom:
        return Filtered.apply(x, (top, left), stride, gain)
    return Filtered.apply(pad(x, padding), (0, 0), stride, gain)


class Filtered(torch.autograd.Function):
    """The filter of every channel by itself; its gradient is ``Spread``.

    Torch's own gradient of such a convolution costs many times as much once it is itself differentiated, since it
    then asks for that of the filter, too, which is constant.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, padding: tuple[int, int], stride: int, gain: float) -> Tensor:
        ctx.size, ctx.arguments = x.shape[2:], (padding, stride, gain)
        kernel = binomial(x, gain).expand(x.shape[1], 1, 4, 4)
        return conv2d(x, kernel, stride=stride, padding=padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return Spread.apply(gradient, ctx.size, *ctx.arguments), None, None, None


class Spread(torch.autograd.Function):
    """The adjoint of ``Filtered``, to its input's size; its gradient is ``Filtered``."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, size: tuple[int, int], padding: tuple[int, int], stride: int, gain: float
    ) -> Tensor:
        ctx.arguments = (padding, stride, gain)
        kernel = binomial(y, gain).expand(y.shape[1], 1, 4, 4)
        rest = [n + 2 * p - 4 - stride * (m - 1) for n, p, m in zip(size, padding, y.shape[2:], strict=True)]
        return conv_transpose2d(y, kernel, stride=stride, padding=padding, output_padding=rest, groups=y.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return Filtered.apply(gradient, *ctx.arguments), None, None, None, None


def upsample(x: Tensor) -> Tensor:
    """[B, C, 2H, 2W]: zeros between the pixels, filtered, times four; beyond the border there are zeros.

    Inside, that is bilinear interpolation; the outermost pixels get a quarter from beyond the border.
    """
    y = interpolate(x, scale_factor=2, mode="bilinear")
    rows, columns = (y.new_ones(side) for side in y.shape[2:])
    for line in (rows, columns):
        line[0] = line[-1] = 0.75  # lists of indices would have to be sent to the device
    return y * torch.outer(rows, columns)


def downsample(x: Tensor) -> Tensor:
    """[B, C, H/2, W/2]: filtered, and every second pixel of it."""
    return fir_filter(x, (1, 1, 1, 1), stride=2)


# Convolutions


class Convolution(nn.Module):
    """Convolution with equalised learning rate, of stride two on a filtered input where ``down``.

    Args:
        channels_in, channels_out: widths.
        size: of the kernel.
        down: whether it halves the resolution.
        bias: whether it has one.
    """

    def __init__(self, channels_in: int, channels_out: int, size: int, down: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, size, size))
        self.bias = nn.Parameter(torch.zeros(channels_out)) if bias else None
        self.scale, self.size, self.down = 1 / math.sqrt(channels_in * size**2), size, down

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """[B, C_in, H, W] to [B, C_out, H, W], or half as large, times a gain."""
        weight = self.weight * (self.scale * gain)
        bias = None if self.bias is None else self.bias * gain
        if not self.down:
            return conv3x3(x, weight, bias) if self.size == 3 else conv2d(x, weight, bias, padding=self.size // 2)
        if self.size == 1:  # the filter and the kernel commute; this way round there is a quarter to compute
            return conv2d(downsample(x), weight, bias)
        around = self.size // 2 + 1
        return conv2d(fir_filter(x, (around,) * 4), weight, bias, stride=2)


class ModulatedConvolution(nn.Module):
    """Convolution whose input channels are scaled by a style, one for each image (section 2.2).

    With ``demodulate`` the output channels get back the variance they would have without; equalised learning rates
    then cancel, so there are none.

    Args:
        channels_in, channels_out: widths.
        size: of the kernel.
        w_dim: size of w.
        demodulate: see above.
        up: whether it doubles the resolution.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        size: int = 1,
        w_dim: int = 512,
        demodulate: bool = True,
        up: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, size, size))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self.style = Dense(w_dim, channels_in, bias=1.0)
        self.size, self.demodulate, self.up = size, demodulate, up
        inputs = channels_in * size**2
        # Demodulation undoes any scale. This one keeps sums in the range of fp16, and a power of two rounds nothing.
        self.scale = 2.0 ** -round(math.log2(inputs) / 2) if demodulate else 1 / math.sqrt(inputs)

    def kernels(self, w: Tensor, gain: float = 1.0) -> Tensor:
        """Kernels [B, C_out, C_in, size, size] that the styles of w [B, D] have gone into, times a gain."""
        kernels = self.weight * self.style(w)[:, None, :, None, None]
        if self.demodulate:
            return kernels * (gain * (kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt())
        return kernels * (self.scale * gain)

    def forward(self, x: Tensor, w: Tensor, gain: float = 1.0) -> Tensor:
        """[B, C_in, H, W] to [B, C_out, H, W], or twice as large, times a gain; without the bias."""
        if self.size == 1:
            kernels = self.kernels(w, gain)[..., 0, 0].to(x.dtype)
            y = torch.bmm(kernels, x.flatten(2)).unflatten(2, x.shape[2:])
            return upsample(y) if self.up else y
        # Scaling activations is faster than kernels for each image, which need a grouped convolution.
        style = self.style(w)
        x = x * (style * (self.scale * gain))[:, :, None, None]
        if self.up:
            y = fir_filter(conv_transpose2d(x, self.weight.transpose(0, 1), stride=2), (1, 1, 1, 1), gain=4.0)
        else:
            y = conv2d(x, self.weight, padding=self.size // 2)
        if not self.demodulate:
            return y
        with torch.autocast(x.device.type, enabled=False):
            strength = to_float32(style).square() @ self.weight.square().sum((2, 3)).mT
        return y * ((strength + 1e-8).rsqrt() / self.scale).to(y.dtype)[:, :, None, None]


class Noise(nn.Module):
    """Image noise with a learned strength, which is zero at the start.

    Args:
        resolution: of the stored noise.
    """

    constant_buffers = ("stored",)  # of training: no process sends it to others

    def __init__(self, resolution: int) -> None:
        super().__init__()
        self.register_buffer("stored", torch.randn(1, 1, resolution, resolution))
        self.strength = nn.Parameter(torch.zeros(()))

    def forward(self, drawn: Tensor | None) -> Tensor:
        """What to add, [B, 1, H, W], from normal draws of this shape, or from the stored noise."""
        return (self.stored if drawn is None else drawn) * self.strength


class StyledLayer(nn.Module):
    """Modulated convolution, image noise, bias, leaky relu.

    Args:
        channels_in, channels_out, size, w_dim, up: as in ``ModulatedConvolution``.
        noise: resolution of image noise; None for none.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        size: int = 1,
        w_dim: int = 512,
        up: bool = False,
        noise: int | None = None,
    ) -> None:
        super().__init__()
        self.conv = ModulatedConvolution(channels_in, channels_out, size, w_dim, up=up)
        self.noise = None if noise is None else Noise(noise)

    def forward(self, x: Tensor, w: Tensor, drawn: Tensor | None = None, bound: float | None = 256) -> Tensor:
        """x [B, C_in, H, W] and w [B, D] to [B, C_out, H, W], or twice as large; ``drawn`` as in ``Noise``."""
        y = self.conv(x, w, GAIN)
        if self.noise is not None:
            y = added(y, self.noise(drawn) * GAIN)
        return activate(added(y, self.conv.bias[:, None, None] * GAIN), bound)


class SynthesisBlock(nn.Module):
    """Two styled layers, and what they add to the image.

    Args:
        channels_in, channels_out: widths.
        resolution: side of its output.
        image_channels: of the image.
        up: whether it doubles the resolution.
        w_dim: size of w.
        noise: whether there is image noise.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        resolution: int,
        image_channels: int,
        up: bool = True,
        w_dim: int = 512,
        noise: bool = True,
    ) -> None:
        super().__init__()
        self.resolution, self.up, side = resolution, up, resolution if noise else None
        self.first = StyledLayer(channels_in, channels_out, 3, w_dim, up=up, noise=side)
        self.second = StyledLayer(channels_out, channels_out, 3, w_dim, noise=side)
        self.rgb = ModulatedConvolution(channels_out, image_channels, w_dim=w_dim, demodulate=False)

    def forward(
        self, x: Tensor, image: Tensor, w: Tensor, draws: Draws | None, name: str, bound: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features and image of features, image and w [B, 3, D]; twice as large where it doubles.

        Args:
            draws: for image noise; None for the stored one.
            name: of the noise's draws.
            bound: of activations.
        """
        for i, layer in enumerate((self.first, self.second)):
            x = styled(layer, x, w[:, i], draws, f"{name}{self.resolution}_{i}", bound)
        return x, to_image(self.rgb, x, w[:, 2], bound) + (upsample(image) if self.up else image)


def styled(layer: StyledLayer, x: Tensor, w: Tensor, draws: Draws | None, name: str, bound: float | None) -> Tensor:
    """Features after a layer, with image noise of this name where it has any."""
    drawn = None
    if draws is not None and layer.noise is not None:
        drawn = draws.normal(name, (len(x), *layer.noise.stored.shape[1:]))
    return layer(x, w, drawn, bound)


def to_image(layer: ModulatedConvolution, x: Tensor, w: Tensor, bound: float | None) -> Tensor:
    """What features add to the image."""
    return clamp(added(layer(x, w), layer.bias[:, None, None]), bound)


def minibatch_stddev(x: Tensor, groups: int = 4) -> Tensor:
    """x [B, C, H, W] with one more channel: the mean standard deviation among images (Karras 2018, section 3).

    Images i, i + B / G, i + 2 B / G... are compared, G = min(groups, B) of them.

    Raises:
        UserError: the batch cannot be divided so.
    """
    batch, _, height, width = x.shape
    size = min(groups, batch)
    if batch % size:
        raise UserError(f"The discriminator compares {size} images: a batch of {batch} must be a multiple of that.")
    y = to_float32(x).unflatten(0, (size, batch // size))
    y = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3)).to(x.dtype)
    return torch.cat([x, y.repeat(size)[:, None, None, None].expand(-1, 1, height, width)], dim=1)


# Sizes of networks that double or halve the resolution


def resolutions(low: int, high: int) -> list[int]:
    """Sides from one to another, each twice that before it.

    Raises:
        UserError: they miss the end.
    """
    sides = [low]
    while sides[-1] < high:
        sides.append(2 * sides[-1])
    if sides[-1] != high:
        raise UserError(f"A side must be {low}, doubled any number of times, not {high}.")
    return sides


def width(resolution: int, base: int, most: int) -> int:
    """Channels at a resolution: fewer, the finer it is."""
    return min(base // resolution, most)
