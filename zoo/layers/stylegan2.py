"""Blocks of StyleGAN2 (Karras 2020, arXiv:1912.04958) in plain torch: all of them can be differentiated twice.

Equalised learning rates: weights are stored with variance one and scaled when they are used, so that Adam, whose steps
do not depend on the size of gradients, moves all layers alike. After a layer comes a leaky relu times sqrt(2), which
keeps the variance.

B batch, C channels, H height, W width, D width of w
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, interpolate, leaky_relu, linear, pad

from zoo.layers.winograd import conv3x3

Taps = tuple[float, float, float]
SLOPE, GAIN = 0.2, math.sqrt(2)  # of the leaky relu
IN_CACHE = 2**18  # numbers that a processor's cache holds


def widened(x: Tensor) -> Tensor:
    """16-bit floats as float32, all else as it is: what fp16 would overflow or underflow is computed with these."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def activate(x: Tensor, bound: float | None = None, gain: float = GAIN) -> Tensor:
    """Leaky relu of slope 0.2 times a gain, between -bound and bound. May overwrite x."""
    return bounded(leaky_relu(x if gain == 1 else x * gain, SLOPE, inplace=True), bound)


def bounded(x: Tensor, bound: float | None) -> Tensor:
    """x between -bound and bound; all of it with None."""
    if bound is None:
        return x
    return x.clamp(-bound, bound) if x.requires_grad else x.clamp_(-bound, bound)


def pieces(*features: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Features [B, C, ...], a few channels at a time: so few that a processor's cache holds those of the first."""
    few = max(1, IN_CACHE // features[0][:, 0].numel())
    return zip(*(x.split(few, 1) for x in features), strict=True)


def finished(y: Tensor, bias: Tensor, noise: Tensor | None, bound: float | None, gain: float = 1.0) -> Tensor:
    """What follows a convolution: y times a gain, plus noise and bias, leaky relu, bound. May overwrite y.

    Without gradients a few channels at a time, which stay in the processor's cache from one step to the next.

    Args:
        y: [B, C, H, W].
        bias: [C].
        noise: [B, 1, H, W]; None for none.
        bound: as in ``activate``.
        gain: of y alone.
    """
    bias = bias[:, None, None]
    if y.requires_grad:
        y = y if gain == 1 else y * gain
        return activate(y + bias if noise is None else y + noise + bias, bound, gain=1)
    for part, of_part in pieces(y, bias[None]):
        if gain != 1:
            part.mul_(gain)
        if noise is not None:
            part.add_(noise)
        activate(part.add_(of_part), bound, gain=1)
    return y


def normalised(z: Tensor) -> Tensor:
    """Vectors [B, C] with a mean square of one."""
    z = widened(z)
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
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in) / rate)
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
        super().__init__()
        widths = [latent_dim, *[hidden_dim] * (layers - 1), w_dim]
        self.layers = nn.ModuleList(Dense(widths[i], widths[i + 1], rate=rate) for i in range(layers))

    def forward(self, z: Tensor) -> Tensor:
        """[B, latent_dim] to [B, w_dim]."""
        x = normalised(z)
        for layer in self.layers:
            x = activate(layer(x, GAIN), gain=1)
        return x


# The filter [1, 3, 3, 1], in both directions


def binomial(like: Tensor, gain: float = 1.0) -> Tensor:
    """The filter [4, 4], whose sum is the gain."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=like.dtype, device=like.device)
    return torch.outer(line, line) * (gain / 64)


def filtered(x: Tensor, padding: tuple[int, int, int, int], stride: int = 1, gain: float = 1.0) -> Tensor:
    """x [B, C, H, W] padded with zeros (left, right, top, bottom), filtered, and every stride-th pixel of it."""
    if stride == 1 and not x.requires_grad and x.device.type == "cpu" and x.dtype.itemsize >= 4:
        return filtered_in_pieces(x, padding, gain)
    kernel = binomial(x, gain).expand(x.shape[1], 1, 4, 4)
    left, right, top, bottom = padding
    if left == right and top == bottom:
        return conv2d(x, kernel, stride=stride, padding=(top, left), groups=x.shape[1])
    return conv2d(pad(x, padding), kernel, stride=stride, groups=x.shape[1])


def filtered_in_pieces(x: Tensor, padding: tuple[int, int, int, int], gain: float) -> Tensor:
    """As ``filtered``, one way and then the other, a few channels at a time: twice as fast on processors."""
    left, right, top, bottom = padding
    height, width = x.shape[2] + top + bottom - 3, x.shape[3] + left + right - 3
    y = x.new_empty(*x.shape[:2], height, width)
    for part, result in pieces(x, y):
        rows = taps(pad(part, padding), 2, height)
        torch.mul(taps(rows, 3, width), gain / 64, out=result)
    return y


def taps(x: Tensor, dim: int, length: int) -> Tensor:
    """[1, 3, 3, 1] times neighbours along a dimension, summed."""
    first, second, third, fourth = (x.narrow(dim, i, length) for i in range(4))
    return torch.add(first, fourth).add_(second, alpha=3).add_(third, alpha=3)


def doubled(x: Tensor) -> Tensor:
    """[B, C, 2H, 2W]: zeros between the pixels, filtered, times four; beyond the border there are zeros.

    Inside, that is bilinear interpolation; the outermost pixels get a quarter from beyond the border.
    """
    if not x.requires_grad:
        y = x.new_empty(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
        for result, part in pieces(y, x):
            result.copy_(between(part, (0.25, 0.75, 0.0), (0.0, 0.75, 0.25)))
        return y
    y = interpolate(x, scale_factor=2, mode="bilinear")
    rows, columns = (y.new_ones(side) for side in y.shape[2:])
    rows[[0, -1]] = columns[[0, -1]] = 0.75
    return y * torch.outer(rows, columns)


def between(x: Tensor, first: Taps, second: Taps) -> Tensor:
    """[B, C, 2H, 2W]: two new pixels for each old one, both ways, weighted sums of that before, itself, that after it.

    Beyond the border there are zeros.
    """
    for dim in (3, 2):
        around = pad(x, (1, 1) if dim == 3 else (0, 0, 1, 1))
        before, after = around.narrow(dim, 0, x.shape[dim]), around.narrow(dim, 2, x.shape[dim])
        y = x.new_empty(*x.shape[: dim + 1], 2, *x.shape[dim + 1 :])  # four times as fast as torch.stack
        for i, weights in enumerate((first, second)):
            new = y.select(dim + 1, i).zero_()
            for weight, old in zip(weights, (before, x, after), strict=True):
                if weight:
                    new.add_(old, alpha=weight)
        x = y.flatten(dim, dim + 1)
    return x


def halved(x: Tensor) -> Tensor:
    """[B, C, H/2, W/2]: filtered, and every second pixel of it."""
    return filtered(x, (1, 1, 1, 1), stride=2)


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
            return conv2d(halved(x), weight, bias)
        around = self.size // 2 + 1
        return conv2d(filtered(x, (around,) * 4), weight, bias, stride=2)


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
            return doubled(y) if self.up else y
        # Scaling activations is faster than kernels for each image, which need a grouped convolution.
        style = self.style(w)
        x = x * (style * (self.scale * gain))[:, :, None, None]
        if self.up:
            y = filtered(conv_transpose2d(x, self.weight.transpose(0, 1), stride=2), (1, 1, 1, 1), gain=4.0)
        else:
            y = conv2d(x, self.weight, padding=self.size // 2)
        if not self.demodulate:
            return y
        with torch.autocast(x.device.type, enabled=False):
            strength = widened(style).square() @ self.weight.square().sum((2, 3)).mT
        return y * ((strength + 1e-8).rsqrt() / self.scale).to(y.dtype)[:, :, None, None]


class Noise(nn.Module):
    """Image noise with a learned strength, which is zero at the start.

    Args:
        resolution: of the stored noise.
    """

    def __init__(self, resolution: int) -> None:
        super().__init__()
        self.register_buffer("stored", torch.randn(1, 1, resolution, resolution))
        self.strength = nn.Parameter(torch.zeros(()))

    def forward(self, drawn: Tensor | None) -> Tensor:
        """What to add, [B, 1, H, W], from normal draws of this shape, or from the stored noise."""
        return (self.stored if drawn is None else drawn) * self.strength


def with_deviation(x: Tensor, groups: int = 4) -> Tensor:
    """x [B, C, H, W] with one more channel: the mean standard deviation among images (Karras 2018, section 3).

    Images i, i + B / G, i + 2 B / G... are compared, G = min(groups, B) of them.

    Raises:
        ValueError: the batch cannot be divided so.
    """
    batch, _, height, width = x.shape
    size = min(groups, batch)
    if batch % size:
        raise ValueError(f"The discriminator compares {size} images: a batch of {batch} must be a multiple of that.")
    y = widened(x).unflatten(0, (size, batch // size))
    y = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3)).to(x.dtype)
    return torch.cat([x, y.repeat(size)[:, None, None, None].expand(-1, 1, height, width)], dim=1)
