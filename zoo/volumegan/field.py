"""The structural feature volume and the radiance field that reads it (section 3.2)."""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose3d, leaky_relu

from zoo.layers.lookup import trilinear
from zoo.layers.stylegan2 import GAIN, SLOPE, Dense, ModulatedConvolution, resolutions
from zoo.render import Samples
from zoo.utils.ranges import at_least, finite


class Styles(NamedTuple):
    """What does not depend on the camera.

    w: one for each layer that takes it, [B, L, D]: first those of the field, then those of the 2D network.
    feature_volume: structural features, axes z, y, x: [B, C, V, V, V].
    """

    w: Tensor
    feature_volume: Tensor


# The structural feature volume


class StructuralVolume(nn.Module):
    """w to a volume of features (section 3.2): a learned constant, 3D convolutions, and AdaIN after each.

    Args:
        resolution: side of the volume.
        start: side of the constant.
        base_channels: of the constant and the first stage; each further stage has half of those before it.
        channels: what that halving stops at.
        w_dim: size of w.
    """

    def __init__(
        self, resolution: int = 32, start: int = 4, base_channels: int = 256, channels: int = 32, w_dim: int = 512
    ) -> None:
        at_least(1, self, resolution=resolution, start=start, base_channels=base_channels)
        at_least(1, self, channels=channels, w_dim=w_dim)
        super().__init__()
        widths = [base_channels, base_channels]
        for _ in resolutions(start, resolution)[1:]:
            widths.append(max(widths[-1] // 2, channels))
        self.channels = widths[-1]
        self.constant = nn.Parameter(torch.ones(1, base_channels, start, start, start))
        self.convs = nn.ModuleList(nn.Conv3d(i, o, 3, padding=1) for i, o in itertools.pairwise(widths))
        self.style = nn.Linear(w_dim, 2 * sum(widths[1:]))
        nn.init.kaiming_normal_(self.style.weight, a=SLOPE, nonlinearity="leaky_relu")
        with torch.no_grad():
            self.style.weight *= 0.25

    def forward(self, w: Tensor) -> Tensor:
        """[B, D] to [B, C, V, V, V]."""
        scales, shifts = (x.split([c.out_channels for c in self.convs], 1) for x in self.style(w).chunk(2, dim=1))
        x = self.constant
        for i, (conv, scale, shift) in enumerate(zip(self.convs, scales, shifts, strict=True)):
            # The instance norm takes out the convolution's bias again; it is there because the published one has it.
            x = conv(x) if i == 0 else upsampled_conv3d(x, conv.weight, conv.bias)
            x = x - x.mean((2, 3, 4), keepdim=True)
            scale = scale[..., None, None, None] * (x.square().mean((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
            x = leaky_relu(torch.addcmul(shift[..., None, None, None], x, scale), SLOPE, inplace=True)
        return x


def upsampled_conv3d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3x3x3 convolution of nearest neighbours at twice the resolution, with 8/27 of the multiplications.

    Along each axis a new voxel sees two old ones: one through two taps of the kernel, the other through one. So it is
    a transposed convolution of stride two whose four taps are the three, each added to the next.

    Args:
        x: [B, C, V, V, V].
        weight: [C_out, C, 3, 3, 3].
        bias: [C_out].

    Returns:
        [B, C_out, 2V, 2V, 2V].
    """
    taps = weight.transpose(0, 1).flip(2, 3, 4)
    for axis in (2, 3, 4):
        zero = torch.zeros_like(taps.narrow(axis, 0, 1))
        taps = torch.cat([taps, zero], axis) + torch.cat([zero, taps], axis)
    return conv_transpose3d(x, taps, bias, stride=2, padding=1)


# The radiance field


class StyledField(nn.Module):
    """Structural features and coordinates of points to density and features (section 3.2).

    Args:
        channels: of the structural volume.
        hidden_dim: width.
        num_layers: style-modulated layers.
        colour_dim: of the rendered features.
        frequencies: of the positional encoding: so many from 1 to 2^max_log2.
        max_log2: see there.
        bounds: world box that the volume fills, two corners.
        w_dim: size of w.
    """

    def __init__(
        self,
        channels: int = 32,
        hidden_dim: int = 256,
        num_layers: int = 4,
        colour_dim: int = 512,
        frequencies: int = 10,
        max_log2: float = 9,
        bounds: tuple[tuple[float, float, float], tuple[float, float, float]] = (
            (-0.1886, -0.1671, -0.1956),
            (0.1887, 0.1692, 0.1872),
        ),
        w_dim: int = 512,
    ) -> None:
        at_least(1, self, channels=channels, hidden_dim=hidden_dim, num_layers=num_layers, colour_dim=colour_dim)
        at_least(1, self, w_dim=w_dim)
        at_least(0, self, frequencies=frequencies, max_log2=max_log2)
        finite(self, bounds=bounds)
        super().__init__()
        self.channels, self.num_layers = channels, num_layers
        self.register_buffer("frequencies", torch.linspace(0, max_log2, frequencies).exp2_(), persistent=False)
        self.register_buffer("bounds", torch.tensor(bounds), persistent=False)
        widths = [channels + 3 + 6 * frequencies, *[hidden_dim] * num_layers]
        self.layers = nn.ModuleList(ModulatedConvolution(i, o, w_dim=w_dim) for i, o in itertools.pairwise(widths))
        self.density = Dense(hidden_dim, 1)
        self.colour = Dense(hidden_dim, colour_dim)

    def modulate(self, styles: Styles) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """The field's condition: the feature volume, and weights [B, C_in, C_out] and biases [C_out] of its layers.

        Channels of the volume come last, [B, V, V, V, C]; the gain of the leaky relu is in weights and biases.
        """
        layers = [
            (layer.kernels(w, GAIN)[..., 0, 0].mT.contiguous(), layer.bias * GAIN)
            for layer, w in zip(self.layers, styles.w.unbind(1), strict=False)
        ]
        return styles.feature_volume.movedim(1, -1).contiguous(), layers

    def forward(self, samples: Samples, condition: tuple[Tensor, list[tuple[Tensor, Tensor]]]) -> tuple[Tensor, Tensor]:
        """Raw density [B, R, S, 1] and hidden features [B, R, S, hidden_dim] of B x R x S samples.

        Colours are ``colour`` of the hidden features. It is linear, so what is composited are hidden features, and
        their colour is computed once a ray instead of once a sample.
        """
        feature_volume, layers = condition
        points = samples.points.flatten(1, 2)
        x = torch.cat([trilinear(feature_volume, points, self.bounds), self.encode(points)], dim=-1)
        for weight, bias in layers:
            x = leaky_relu(torch.baddbmm(bias, x, weight), SLOPE, inplace=True)
        shape = samples.t.shape[1:]
        return self.density(x).unflatten(1, shape), x.unflatten(1, shape)

    def encode(self, points: Tensor) -> Tensor:
        """Coordinates, and their sines and cosines at each frequency: [B, N, 3] to [B, N, 3 + 6 F]."""
        angles = points[..., None, :] * self.frequencies[:, None]
        return torch.cat([points, torch.stack([angles.sin(), angles.cos()], -2).flatten(-3)], dim=-1)
