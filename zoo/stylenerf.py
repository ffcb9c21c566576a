"""StyleNeRF: A Style-based 3D-Aware Generator for High-resolution Image Synthesis.

Gu, Liu, Wang, Theobalt, ICLR 2022, arXiv:2110.08985.

What is unusual:

* a radiance field whose layers are modulated by w, as those of StyleGAN2, is rendered as a small map of features;
  1x1 convolutions and upsamplers that hardly mix pixels make the large picture of it, so that views still agree;
* what lies behind the object is a second field with a latent of its own, on the inside of a sphere turned inside out;
* some pixels of each picture are made a second time the slow way, each sample along their rays through all layers
  before they are composited, and the picture must agree with them: the path of a NeRF;
* the picture grows from the field's size to its own, while more layers are blended in.

The paper's world has z up and its camera on the positive x axis: its fields count in those axes (towards the camera, to
the right, up), and what the outside sees in the zoo's, where these are z, x and y.

B batch, L layers that take w, D width of w, R rays, S samples, C channels, H width of a field, P side of a grid
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from einops import rearrange
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu, normalize, pad

from zoo.draws import Draws
from zoo.gan import GAN, Average, OptimizerFactory, frozen
from zoo.generator import BaseGenerator
from zoo.layers.ada import Augmentation
from zoo.layers.encoding import positional_encoding
from zoo.layers.stylegan2 import (
    GAIN,
    SLOPE,
    Convolution,
    Dense,
    Mapping,
    ModulatedConvolution,
    Noise,
    activate,
    bounded,
    doubled,
    halved,
    with_deviation,
)
from zoo.layers.upsampling import Upsampler
from zoo.losses import judged_fake, judged_real, path_lengths, r1_penalty
from zoo.precision import Precision
from zoo.render import (
    Background,
    Camera,
    Density,
    Importance,
    Integrated,
    Poses,
    Rays,
    Rendered,
    Renderer,
    Samples,
    black,
    expected_depth,
    last_sample,
    pixel_centres,
    query,
    relu,
    to_map,
    transmission_weights,
)


class Latent(NamedTuple):
    """z [B, latent_dim] of the object and z_background [B, background_dim], standard normal."""

    z: Tensor
    background: Tensor


class Styles(NamedTuple):
    """What does not depend on the camera.

    w: one for each layer that takes it, [B, L, D]: first those of the field, then those of the 2D network.
    background: z of the background, [B, background_dim].
    planes: what a foreground field computes from w once for all cameras, if anything.
    """

    w: Tensor
    background: Tensor
    planes: Tensor | None = None


def paper_axes(x: Tensor) -> Tensor:
    """(right, up, towards the camera), the zoo's axes, to (towards the camera, right, up), the paper's; [..., 3].

    Sums of squares are taken in the paper's order, too: the encoding's frequencies of 2^9 pi show how they are rounded.
    """
    return x[..., [2, 0, 1]]


def encoded(points: Tensor, octaves: int, with_points: bool = False) -> Tensor:
    """Sines and cosines of 2^i pi points, i < octaves; [..., C] to [..., 2 C octaves], the points themselves last."""
    waves = positional_encoding(points, octaves, base=math.pi, identity=False)
    return torch.cat([waves, points], dim=-1) if with_points else waves


def rays_through(camera: Camera, film: Tensor) -> Rays:
    """Rays [B, R, 3] through film coordinates [B, R, 2] or [R, 2]; they count depth along the optical axis.

    As ``zoo.render.through``, but rounded as published, as the difference of two points: the encoding's frequencies of
    2^9 pi show even that.
    """
    focal = 2 * camera.intrinsics[:, [0, 1], [0, 1]]
    middle = 2 * camera.intrinsics[:, None, :2, 2] - 1
    film = film - middle * middle.new_tensor([1.0, -1.0])
    matrix = torch.cat([camera.pose[:, :3, :2] / focal[:, None], camera.pose[:, :3, 2:]], dim=-1)
    ends = (torch.ones_like(film[..., :1]) * end for end in (-1, 1))
    targets = (matrix @ torch.cat([film, *ends], dim=-1).mT).mT
    origins = camera.origins[:, None].expand_as(targets)
    return Rays(origins, targets - origins)


# The two radiance fields (section 3.1)


class StyledField(nn.Module):
    """Points to density and hidden features, by layers that w modulates; colours and features of hidden ones.

    Args:
        hidden_dim: width.
        num_layers: modulated layers before density and features.
        feature_dim: of the rendered features.
        octaves: of the positional encoding.
        with_points: whether the encoding ends with the points themselves.
        scale: points are divided by this.
        separate_rgb: colours are a layer after the features; else three more features.
        w_dim: size of w.
    """

    def __init__(
        self,
        hidden_dim: int = 128,
        num_layers: int = 8,
        feature_dim: int = 256,
        octaves: int = 10,
        with_points: bool = False,
        scale: float = 1.0,
        separate_rgb: bool = True,
        w_dim: int = 512,
    ) -> None:
        super().__init__()
        self.hidden_dim, self.feature_dim, self.octaves, self.w_dim = hidden_dim, feature_dim, octaves, w_dim
        self.with_points, self.scale, self.num_styles = with_points, scale, num_layers + 2
        widths = [6 * octaves + 3 * with_points, *[hidden_dim] * max(num_layers, 1)]
        self.layers = nn.ModuleList(ModulatedConvolution(i, o, w_dim=w_dim) for i, o in itertools.pairwise(widths))
        self.density = ModulatedConvolution(hidden_dim, 1, w_dim=w_dim, demodulate=False)
        features = feature_dim if separate_rgb else feature_dim + 3
        self.features = ModulatedConvolution(hidden_dim, features, w_dim=w_dim, demodulate=False)
        self.rgb = Convolution(feature_dim, 3, 1) if separate_rgb else None

    def planes(self, w: Tensor, draws: Draws | None, follow: bool) -> None:
        """Nothing of it can be computed before the points are known."""
        return None

    def modulate(self, styles: Styles) -> list[tuple[Tensor, Tensor]]:
        """What the field is asked with: weights [B, C_in, C_out] and biases [C_out] of its layers, density's last.

        The gain of the leaky relu is in weights and biases.
        """
        w = styles.w
        layers = [(kernel(layer, w[:, i], GAIN), layer.bias * GAIN) for i, layer in enumerate(self.layers)]
        return [*layers, (kernel(self.density, w[:, self.num_styles - 2]), self.density.bias)]

    def forward(self, samples: Samples, condition: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Raw density [B, R, S, 1] and hidden features [B, R, S, H] of B x R x S samples."""
        points = paper_axes(samples.points.flatten(1, 2))
        x = encoded(points if self.scale == 1 else points / self.scale, self.octaves, self.with_points)
        *layers, (density, bias) = condition
        for weight, shift in layers:
            x = leaky_relu(torch.baddbmm(shift, x, weight), SLOPE, inplace=True)
        shape = samples.t.shape[1:]
        return torch.baddbmm(bias, x, density).unflatten(1, shape), x.unflatten(1, shape)

    def colours(self, hidden: Tensor, total: Tensor | float, styles: Styles) -> Tensor:
        """Colours and features, [B, N, 3 + C], of hidden features [B, N, H] that were summed with weights.

        All of this is linear, so it is the same before and after the sum, and there are fewer rays than samples.

        Args:
            total: the sums of those weights, [B, N, 1].
        """
        x = torch.bmm(hidden, kernel(self.features, styles.w[:, self.num_styles - 1])) + self.features.bias * total
        return x if self.rgb is None else with_rgb(x, total, self.rgb)


def kernel(layer: ModulatedConvolution, w: Tensor, gain: float = 1.0) -> Tensor:
    """Weights [B, C_in, C_out] of a 1x1 convolution that w [B, D] has gone into, times a gain."""
    return layer.kernels(w, gain)[..., 0, 0].mT.contiguous()


def with_rgb(features: Tensor, total: Tensor | float, layer: Convolution) -> Tensor:
    """The layer's colours of weighted sums of features [B, N, C], and the features: [B, N, 3 + C]."""
    weight = layer.weight[..., 0, 0] * layer.scale
    return torch.cat([features @ weight.mT + layer.bias * total, features], dim=-1)


class PlainField(nn.Module):
    """As ``StyledField``, for the background: no styles, but a latent beside the encoded point, and plain layers.

    Args:
        hidden_dim: width.
        num_layers: layers before density and features.
        feature_dim: of the rendered features.
        octaves: of the positional encoding.
        latent_dim: size of z.
    """

    def __init__(
        self,
        hidden_dim: int = 64,
        num_layers: int = 4,
        feature_dim: int = 256,
        octaves: int = 10,
        latent_dim: int = 32,
    ) -> None:
        super().__init__()
        self.octaves, self.latent_dim = octaves, latent_dim
        widths = [8 * octaves + latent_dim, *[hidden_dim] * max(num_layers, 1)]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(widths))
        self.density, self.features = nn.Linear(hidden_dim, 1), nn.Linear(hidden_dim, feature_dim)
        self.rgb = Convolution(feature_dim, 3, 1)

    def forward(self, samples: Samples, z: Tensor) -> tuple[Tensor, Tensor]:
        """Raw density [B, R, S, 1] and hidden features [B, R, S, H] at inverse distances samples.t from the middle."""
        first, *others = self.layers
        on_sphere = turned_inside_out(paper_axes(samples.origins), paper_axes(samples.directions), samples.t)
        x = encoded(torch.cat([on_sphere, samples.t[..., None]], dim=-1), self.octaves)
        of_points, of_z = first.weight.split([x.shape[-1], self.latent_dim], dim=1)
        x = (x @ of_points.mT + (z @ of_z.mT + first.bias)[:, None, None]).relu()
        for layer in others:
            x = layer(x).relu()
        return self.density(x), x

    def colours(self, hidden: Tensor, total: Tensor | float) -> Tensor:
        """As ``StyledField.colours``."""
        return with_rgb(hidden @ self.features.weight.mT + self.features.bias * total, total, self.rgb)


def turned_inside_out(origins: Tensor, directions: Tensor, inverse: Tensor) -> Tensor:
    """Directions [B, R, S, 3] of points on rays outside the unit sphere (NeRF++, Zhang 2020, section 4).

    Args:
        origins, directions: of rays that cross the sphere, [B, R, 3].
        inverse: one over the points' distances from the middle, between 0 and 1, [B, R, S].
    """
    forward = normalize(directions, dim=-1)
    to_middle = -(forward * origins).sum(-1, keepdim=True)
    nearest = origins + to_middle * forward
    height = nearest.norm(dim=-1, keepdim=True)
    leaving = origins + (to_middle + (1 - height.square()).sqrt()) * forward
    axis = normalize(torch.linalg.cross(origins, leaving), dim=-1)[..., None, :]
    angle = (height.asin() - (height * inverse).asin())[..., None]
    leaving = leaving[..., None, :]
    along = (axis * leaving).sum(-1, keepdim=True) * axis
    across = torch.linalg.cross(axis.expand(*angle.shape[:-1], 3), leaving.expand(*angle.shape[:-1], 3))
    return normalize(leaving * angle.cos() + across * angle.sin() + along * (1 - angle.cos()), dim=-1)


# Volume rendering (section 3.1)


class Straight(nn.Module):
    """Distances along rays from near to far, in even steps.

    Args:
        near, far: in lengths of the rays' directions.
    """

    def __init__(self, near: float, far: float) -> None:
        super().__init__()
        self.near, self.far = near, far

    def distance(self, t: Tensor) -> Tensor:
        """How far along the ray, in lengths of its direction, a share t of the way is."""
        return self.near * (1 - t) + self.far * t

    def placed(self, points: Tensor) -> Tensor:
        """Where the field is asked instead of at these points."""
        return points

    @property
    def rate(self) -> float:
        """Share of the way for a unit of distance, at the middle of the world."""
        return 1 / (self.far - self.near)


class Warped(Straight):
    """Even steps of one over the distance, and all of the world inside a sphere of radius two (Barron 2022).

    So there is one field for object and background.
    """

    def distance(self, t: Tensor) -> Tensor:
        return 1 / ((1 / self.near) * (1 - t) + (1 / self.far) * t)

    def placed(self, points: Tensor) -> Tensor:
        length = paper_axes(points).norm(dim=-1, keepdim=True)
        far = length.clamp(min=1)
        return torch.where(length < 1, points, (2 - 1 / far) * (points / far))

    @property
    def rate(self) -> float:
        return 1 / (1 / self.near - 1 / self.far)


def jittered(t: Tensor, draws: Draws | None, name: str) -> Tensor:
    """Each of increasing numbers [..., S] drawn from its own cell: halfway to its neighbours, not beyond the ends."""
    if draws is None:
        return t
    middles = (t[..., 1:] + t[..., :-1]) / 2
    low, high = torch.cat([t[..., :1], middles], -1), torch.cat([middles, t[..., -1:]], -1)
    return low + (high - low) * draws.uniform(name, t.shape)


class StretchedVolume(nn.Module):
    """Volume rendering of one field, with the call signature of ``zoo.render.Volume``, in shares of the way to the end.

    It differs in that: depths are drawn, and drawn anew where there is something, as shares from 0 to 1 of the way; and
    noise on densities is drawn once for each sample, not once for each use.

    Args:
        line: what distance a share stands for.
        samples: along each ray, and as many again where the first ones found something.
        fine: whether there are those.
        density: what makes the raw output a density.
        background: what light that hit nothing becomes: ``black`` leaves it to a background field.
        in_shares: whether a sample stands for a share of the way, not for a distance.
        chunk: points that the field sees at once, see ``zoo.render.query``; None for all of them.
    """

    def __init__(
        self,
        line: Straight,
        samples: int,
        fine: bool = True,
        density: Density = relu,
        background: Background = black,
        in_shares: bool = False,
        chunk: int | None = 4096,
    ) -> None:
        super().__init__()
        self.line, self.samples, self.activation, self.background = line, samples, density, background
        self.fine = Importance(samples) if fine else None
        self.in_shares, self.chunk = in_shares, chunk

    def density(self, raw: Tensor, points: Tensor) -> Tensor:
        """Density per world length of raw outputs [B, R, S, 1]; with ``in_shares`` as it is near the middle."""
        return self.activation(raw, points) * (self.line.rate if self.in_shares else 1.0)

    def forward(
        self, field: nn.Module, rays: Rays, condition: Any, draws: Draws | None = None, density_noise: float = 0.0
    ) -> Integrated:
        """As ``zoo.render.Volume``."""
        t = torch.linspace(0, 1, self.samples, device=rays.origins.device, dtype=rays.origins.dtype)
        t = jittered(t.expand(*rays.origins.shape[:-1], -1), draws, "jitter")
        raw, features = self.ask(field, rays, t, condition, draws, density_noise, "coarse")
        order = None
        if self.fine is not None:
            with torch.no_grad():
                fine_t = self.fine(t, self.weigh(rays, t, raw), draws)
            fine_raw, fine_features = self.ask(field, rays, fine_t, condition, draws, density_noise, "fine")
            t, order = torch.cat([fine_t, t], -1).sort(-1)
            raw, features = torch.cat([fine_raw, raw], 2).gather(2, order[..., None]), (fine_features, features)
        weights = self.weigh(rays, t, raw)
        opacity = weights.sum(-1, keepdim=True)
        weights, added = self.background(weights)
        if order is None:
            composite = weighted(weights, features) + added
        else:
            asked = torch.zeros_like(weights).scatter(-1, order, weights).split([x.shape[2] for x in features], dim=-1)
            composite = sum(map(weighted, asked, features)) + added
        distance = self.line.distance(t)
        depth = (weights * distance).sum(-1, keepdim=True)
        return Integrated(composite, depth, opacity, distance, weights, raw, features, order, added)

    def ask(
        self,
        field: nn.Module,
        rays: Rays,
        t: Tensor,
        condition: Any,
        draws: Draws | None,
        density_noise: float,
        name: str,
    ) -> tuple[Tensor, Tensor]:
        """Raw density with its noise [B, R, S, 1] and features [B, R, S, C] at shares t [B, R, S] of the way."""
        points = Samples(rays.origins, rays.directions, self.line.distance(t)).points
        samples = Samples(rays.origins, rays.directions, t, self.line.placed(points))
        raw, features = query(field, samples, condition, self.chunk)
        if draws is not None and density_noise > 0:
            raw = raw + density_noise * draws.normal(f"{name}_density_noise", raw.shape)
        return raw, features

    def weigh(self, rays: Rays, t: Tensor, raw: Tensor) -> Tensor:
        """Share of the light that each sample gives, [B, R, S]; the last one stands for no length."""
        place = t if self.in_shares else self.line.distance(t)
        lengths = pad(place.diff(dim=-1), (0, 1)) * paper_axes(rays.directions).norm(dim=-1, keepdim=True)
        return transmission_weights(self.activation(raw, None)[..., 0], lengths)


def weighted(weights: Tensor, features: Tensor) -> Tensor:
    """Weighted sums along rays, [B, R, C], of features [B, R, S, C] with weights [B, R, S]."""
    return torch.einsum("brs,brsc->brc", weights, features)


class Behind(NamedTuple):
    """What rays meet in the background: weights [B, R, S], which sum to one, and hidden features [B, R, S, H]."""

    weights: Tensor
    hidden: Tensor


class OutsideVolume(nn.Module):
    """The background: a field marched outside the unit sphere, in even steps of one over the distance from its middle.

    Args:
        field: asked at (direction, one over distance).
        samples: along each ray.
        start: one over the distance at which it begins.
        chunk: points that the field sees at once; None for all of them.
    """

    def __init__(self, field: PlainField, samples: int = 4, start: float = 0.5, chunk: int | None = 4096) -> None:
        super().__init__()
        self.field, self.samples, self.start, self.chunk = field, samples, start, chunk

    def forward(self, rays: Rays, z: Tensor, draws: Draws | None = None, density_noise: float = 0.0) -> Behind:
        """What rays [B, R, 3] meet in backgrounds of latents z [B, background_dim]; the last sample ends all of them.

        Args:
            draws: for jitter and density noise; None for none of them.
            density_noise: standard deviation of the noise on raw densities.
        """
        line = torch.linspace(-1, 0, self.samples, device=z.device, dtype=z.dtype) * self.start
        place = jittered(line.expand(*rays.origins.shape[:-1], -1), draws, "background_jitter")
        samples = Samples(rays.origins, rays.directions, -place)
        raw, hidden = query(self.field, samples, z, self.chunk)
        if draws is not None and density_noise > 0:
            raw = raw + density_noise * draws.normal("background_density_noise", raw.shape)
        weights = transmission_weights(raw[..., 0].relu(), pad(place.diff(dim=-1), (0, 1)))
        return Behind(last_sample(weights)[0], hidden)


# The 2D network (section 3.2)


def width(resolution: int, base: int, most: int) -> int:
    """Channels at a resolution: fewer, the finer it is."""
    return min(base // resolution, most)


class StyledLayer(nn.Module):
    """Modulated convolution of what is divided by its average size, upsampling, noise, bias, leaky relu.

    Args:
        channels_in, channels_out: widths.
        size: of the kernel.
        w_dim: size of w.
        up: doubles the output; None for not at all.
        fir_up: the convolution doubles it, as in StyleGAN2.
        noise: resolution of image noise; None for none.
        decay: share of the old average size in the new one; None to divide by nothing.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        size: int = 1,
        w_dim: int = 512,
        up: nn.Module | None = None,
        fir_up: bool = False,
        noise: int | None = None,
        decay: float | None = 0.999,
    ) -> None:
        super().__init__()
        self.conv = ModulatedConvolution(channels_in, channels_out, size, w_dim, up=fir_up)
        self.up, self.decay = up, decay
        self.noise = None if noise is None else Noise(noise)
        self.register_buffer("magnitude", None if decay is None else torch.ones(()))

    def forward(
        self,
        x: Tensor,
        w: Tensor,
        drawn: Tensor | None = None,
        *,
        bound: float | None = 256,
        follow: bool = False,
        alone: bool = False,
        gain: float = 1.0,
    ) -> Tensor:
        """x [B, C_in, H, W] and w [B, D] to [B, C_out, H, W], or twice as large.

        Args:
            drawn: image noise [B, 1, H, W]; None for the stored one.
            bound: of the output.
            follow: move the average size before it is used.
            alone: neither upsampling nor noise: what becomes of each pixel by itself.
            gain: of the output and its bound.
        """
        if follow and self.magnitude is not None:
            with torch.no_grad():
                self.magnitude.lerp_(x.to(self.magnitude.dtype).square().mean(), 1 - self.decay)
        turned = self.conv.size > 1 and self.up is not None and not alone
        # As published, kernels before an upsampler are turned around, as those of a transposed convolution are.
        divided = 1.0 if self.magnitude is None else self.magnitude.rsqrt()
        y = self.conv(x.flip(2, 3) if turned else x, w, divided)
        y = y.flip(2, 3) if turned else y
        if self.up is not None and not alone:
            y = self.up(y)
        if self.noise is not None and not alone:
            y = y + self.noise(drawn)
        y = y + self.conv.bias[:, None, None]
        return activate(y, None if bound is None else bound * gain, GAIN * gain)


class Block(nn.Module):
    """Twice the resolution: two styled layers, and what they add to the picture.

    Args:
        channels_in, channels_out: widths.
        resolution: side of its output.
        upsampler: of features; None for StyleGAN2's, in the convolution.
        image_up: of pictures.
        size: of the kernels.
        w_dim: size of w.
        image_channels: of the picture.
        noise: whether there is image noise.
        decay: as in ``StyledLayer``.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        resolution: int,
        upsampler: Upsampler | None,
        image_up: Callable[[Tensor], Any] = doubled,
        size: int = 1,
        w_dim: int = 512,
        image_channels: int = 3,
        noise: bool = False,
        decay: float | None = 0.999,
    ) -> None:
        super().__init__()
        self.resolution, self.image_up, self.has_noise = resolution, image_up, noise
        up = {"fir_up": True} if upsampler is None else {"up": upsampler(channels_out)}
        more = {"noise": resolution if noise else None, "decay": decay}
        self.first = StyledLayer(channels_in, channels_out, size, w_dim, **up, **more)
        self.second = StyledLayer(channels_out, channels_out, size, w_dim, **more)
        self.rgb = ModulatedConvolution(channels_out, image_channels, w_dim=w_dim, demodulate=False)

    def forward(
        self,
        x: Tensor,
        image: Tensor,
        w: Tensor,
        draws: Draws | None = None,
        *,
        bound: float | None = 256,
        follow: bool = False,
        alone: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Features [B, C_out, 2H, 2W] and picture [B, 3, 2H, 2W] of features, picture and w [B, 3, D].

        Args:
            draws: for image noise; None for the stored one.
            bound, follow, alone: as in ``StyledLayer``.

        Raises:
            ValueError: StyleGAN2's upsampling cannot be left out of its convolution.
        """
        if alone and self.first.up is None:
            raise ValueError(
                "The NeRF path needs an upsampler that can be left out, such as zoo.layers.upsampling.NearestConcat: "
                "choose one as the painter's upsampler, or set path_side to 0."
            )
        for i, layer in enumerate((self.first, self.second)):
            drawn = None
            if self.has_noise and draws is not None:
                drawn = draws.normal(f"noise{self.resolution}_{i}", (len(x), 1, self.resolution, self.resolution))
            x = layer(x, w[:, i], drawn, bound=bound, follow=follow, alone=alone)
        added = bounded(self.rgb(x, w[:, 2]) + self.rgb.bias[:, None, None], bound)
        return x, added + (image if alone else self.image_up(image))


class Painter(nn.Module):
    """The layers from rendered features to pictures, in blocks that double the resolution.

    Args:
        low: side of the feature map.
        resolution: side of the picture.
        feature_dim: of the feature map.
        upsampler: of features, made for each block from its channels; None for StyleGAN2's.
        image_up: of pictures.
        base_channels, most_channels: a block has base_channels / its resolution channels, but at most so many.
        size: of the kernels.
        clamp: bound of all activations, which 16 bits need; None for none.
        w_dim: size of w.
        noise: whether there is image noise.
        decay: as in ``StyledLayer``.
    """

    def __init__(
        self,
        low: int = 32,
        resolution: int = 256,
        feature_dim: int = 256,
        upsampler: Upsampler | None = None,
        image_up: Callable[[Tensor], Any] = doubled,
        base_channels: int = 32768,
        most_channels: int = 1024,
        size: int = 1,
        clamp: float | None = 256,
        w_dim: int = 512,
        noise: bool = False,
        decay: float | None = 0.999,
    ) -> None:
        super().__init__()
        self.low, self.resolution, self.feature_dim, self.clamp = low, resolution, feature_dim, clamp
        sides = [low * 2 ** (i + 1) for i in range(doublings(low, resolution))]
        widths = [feature_dim, *(width(side, base_channels, most_channels) for side in sides)]
        self.blocks = nn.ModuleList(
            Block(widths[i], widths[i + 1], side, upsampler, image_up, size, w_dim, 3, noise, decay)
            for i, side in enumerate(sides)
        )
        self.num_styles = 2 * len(sides) + 1

    def forward(
        self,
        x: Tensor,
        image: Tensor,
        w: Tensor,
        levels: int,
        draws: Draws | None = None,
        *,
        follow: bool = False,
        alone: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The pictures after the first so many blocks, and those one block before.

        Args:
            x: features [B, C, h, h].
            image: the picture so far, [B, 3, h, h].
            w: [B, num_styles, D]; the layer of colours shares its own with the next block.
            levels: how many blocks.
            draws: for image noise; None for the stored one.
            follow: move the average sizes of activations.
            alone: each pixel by itself, without upsampling: [B, C, H, W] to [B, 3, H, W].
        """
        before = image
        for i, block in enumerate(self.blocks[:levels]):
            before = image
            own = w[:, 2 * i : 2 * i + 3]
            x, image = block(x, image, own, draws, bound=self.clamp, follow=follow, alone=alone)
        return image, before


def doublings(low: int, high: int) -> int:
    """How often a side is doubled to get from one to the other.

    Raises:
        ValueError: that is no whole number.
    """
    levels = math.log2(high / low)
    if levels != int(levels) or levels < 0:
        raise ValueError(f"A side of {high} must be {low}, doubled any number of times.")
    return int(levels)


# Growing


class Grown(NamedTuple):
    """How far a network has grown: the side of its pictures, and how far their finest level has faded in."""

    side: int
    share: float


def grown(alpha: Tensor, start: int | None, end: int) -> Grown:
    """After a share alpha of the growth from one side to another; below 0 and from 1 on there is nothing to grow.

    Where a level begins, its share is 0: the level before is shown enlarged.
    """
    if start is None or not 0 <= alpha < 1:
        return Grown(end, 1.0)
    if alpha == 0:
        return Grown(start, 1.0)
    place = (alpha * doublings(start, end)).item()
    return Grown(start * 2 ** (int(place) + 1), place - int(place))


@dataclass(frozen=True)
class Growth:
    """Progressive growing: from ``begin`` images on, even until ``end`` (section 3.3)."""

    begin: int = 500_000
    end: int = 5_000_000

    def __call__(self, images_seen: int) -> float:
        """Share of the growth after so many images."""
        return min(max((images_seen - self.begin) / (self.end - self.begin), 0.0), 1.0)


# Generator


class NerfPath(NamedTuple):
    """Some pixels of a picture, P x P in a grid, composited after the 2D network instead of before it.

    index: which pixels, counted row by row, [B, P P].
    samples: colours of all samples along their rays as a picture of P x P pieces, [B, 3, P l, P m] of l m samples.
    weights: of the samples, [B, P P, l m].
    """

    index: Tensor
    samples: Tensor
    weights: Tensor

    def loss(self, image: Tensor) -> Tensor:
        """How far the picture [B, 3, H, H] is from these pixels: squares, summed over colours, for each image [B]."""
        side = math.isqrt(self.index.shape[1])
        samples = rearrange(self.samples, "b c (l h) (m w) -> b (h w) (l m) c", h=side, w=side)
        seen = image.flatten(2).mT.gather(1, self.index[..., None].expand(-1, -1, 3))
        return (seen - weighted(self.weights, samples)).square().sum(-1).mean(1)


class Synthesised(NamedTuple):
    """A picture that is learned from: ``Rendered``, and the pixels that must agree with it, if any."""

    rendered: Rendered
    path: NerfPath | None = None


class Generator(BaseGenerator):
    """Latents and cameras to images.

    Args:
        foreground: the field of the object.
        volume: renders it; what it leaves of the light goes to the background.
        painter: the 2D network.
        poses: distribution of cameras.
        background: the field behind; None for none.
        latent_dim: size of z.
        mapping_layers: layers of the mapping network.
        truncated_layers: layers, from the first, whose w truncation moves; None for all.
        start: side of pictures at which growing begins; below the painter's lowest side the field's map itself grows.
            None for no growing.
        volume_start: side of the field's map at which it begins to grow to the painter's lowest side, in all
            resolutions; None for no such growing.
        spare_layers: layers of w that nothing reads.
        bounds: world box of the object, two corners.
    """

    def __init__(
        self,
        foreground: nn.Module,
        volume: Renderer,
        painter: Painter,
        poses: Poses,
        background: OutsideVolume | None = None,
        latent_dim: int = 512,
        mapping_layers: int = 8,
        truncated_layers: int | None = None,
        start: int | None = 32,
        volume_start: int | None = None,
        spare_layers: int = 0,
        bounds: tuple[tuple[float, float, float], tuple[float, float, float]] = ((-0.12,) * 3, (0.12,) * 3),
    ) -> None:
        super().__init__(poses, painter.resolution, bounds)
        if foreground.feature_dim != painter.feature_dim:
            raise ValueError(
                f"The field renders {foreground.feature_dim} features, but the painter takes {painter.feature_dim}: "
                "give both the same feature_dim."
            )
        if start is not None:
            doublings(start, painter.resolution)
        self.foreground, self.volume, self.painter = foreground, volume, painter
        self.background, self.start, self.volume_start = background, start, volume_start
        self.latent_dim, self.truncated_layers = latent_dim, truncated_layers
        self.num_layers = foreground.num_styles + painter.num_styles + spare_layers
        self.mapping = Mapping(latent_dim, foreground.w_dim, foreground.w_dim, mapping_layers)
        self.register_buffer("mean_w", torch.zeros(foreground.w_dim))
        self.register_buffer("alpha", torch.ones(()))  # how far it has grown, see ``grown``

    def latents(self, n: int, draws: Draws) -> Latent:
        """n latents."""
        z = draws.normal("z", (n, self.latent_dim))
        if self.background is None:
            return Latent(z, z[:, :0])
        return Latent(z, draws.normal("z_background", (n, self.background.field.latent_dim)))

    def map(self, latent: Latent, *, truncation: float = 1.0, layers: int | None = None) -> Styles:
        """Styles of latents; truncation below 1 moves w towards its mean, in the first ``layers`` of them.

        Args:
            latent: B of them.
            truncation: share of the way from the mean that is kept.
            layers: by default ``truncated_layers``.
        """
        w = self.mapping(latent.z)[:, None].expand(-1, self.num_layers, -1)
        if truncation != 1:
            layers = layers or self.truncated_layers or self.num_layers
            w = torch.cat([torch.lerp(self.mean_w.expand_as(w), w, truncation)[:, :layers], w[:, layers:]], dim=1)
        return self.styles(w, latent.background)

    def styles(self, w: Tensor, background: Tensor, draws: Draws | None = None, follow: bool = False) -> Styles:
        """Styles from w [B, L, D] and z of the background; draws and follow as in ``synthesise``."""
        return Styles(w, background, self.foreground.planes(w, draws, follow))

    @torch.no_grad()
    def follow(self, w: Tensor, decay: float) -> None:
        """Move the mean w towards that of a batch [B, D]."""
        self.mean_w.lerp_(w.mean(0), 1 - decay)

    def grow(self, alpha: float) -> Grown:
        """Set how far this has grown, from 0 to 1, and say what that means."""
        self.alpha.fill_(alpha)
        if hasattr(self.poses, "alpha"):  # cameras that are learned later than the first pictures
            self.poses.alpha.fill_(alpha)
        return grown(self.alpha, self.start, self.resolution)

    def rays(self, camera: Camera, resolution: int) -> Rays:
        """Rays [B, R, 3] of all pixels, row by row; they count depth along the optical axis."""
        return rays_through(camera, pixel_centres(resolution, self.device))

    def render(
        self,
        styles: Styles,
        camera: Camera,
        *,
        resolution: int | None = None,
        draws: Draws | None = None,
        background_camera: Camera | None = None,
    ) -> Rendered:
        """Images of B styles from B cameras. Levels that have not grown yet are shown enlarged.

        Args:
            styles: from ``map``.
            camera: B cameras.
            resolution: side of the image [pixels]: the first one of growing, or the painter's lowest, doubled up to the
                generator's own.
            draws: for jitter and importance samples; None for none of them.
            background_camera: where the background is seen from, if that is somewhere else.

        Raises:
            ValueError: there is no level of this resolution.
        """
        resolution = resolution or self.resolution
        lowest = min(self.start or self.painter.low, self.painter.low)
        known = [lowest * 2**i for i in range(doublings(lowest, self.resolution) + 1)]
        if resolution not in known:
            raise ValueError(f"StyleNeRF renders images of side {', '.join(map(str, known))}, not {resolution}.")
        now = grown(self.alpha, self.start, self.resolution)
        now = now if resolution >= now.side else Grown(resolution, 1.0)
        rendered = self.synthesise(styles, camera, now, draws, background_camera=background_camera).rendered
        if now.side < resolution:
            return rendered._replace(image=interpolate(rendered.image, resolution, mode="bilinear"))
        return rendered

    def synthesise(
        self,
        styles: Styles,
        camera: Camera,
        level: Grown,
        draws: Draws | None = None,
        *,
        density_noise: float = 0.0,
        follow: bool = False,
        path_side: int = 0,
        background_camera: Camera | None = None,
    ) -> Synthesised:
        """Images of this level, and what is needed to learn from them.

        Args:
            styles: B of them.
            camera: B cameras.
            level: side of the pictures, and how far its last level has faded in.
            draws: for everything random.
            density_noise: standard deviation of the noise on raw densities.
            follow: move the average sizes of activations.
            path_side: P, if P x P pixels of each picture are to be made a second time; 0 for none.
            background_camera: where the background is seen from, if that is somewhere else.
        """
        side = min(level.side, self.volume_side)
        film = pixel_centres(side, self.device).expand(len(styles.w), -1, -1)
        index = None
        if path_side:
            index = path_pixels(draws.uniform("path_pixels", (len(film), 2)), path_side, level.side)
            film = torch.cat([film, pixel_centres(level.side, self.device)[index]], dim=1)
        rays = rays_through(camera, film)
        front = self.volume(self.foreground, rays, self.foreground.modulate(styles), draws, density_noise)
        behind = None
        if self.background is not None:
            behind_rays = rays if background_camera is None else rays_through(background_camera, film)
            behind = self.background(behind_rays, styles.background, draws, density_noise)

        pixels = slice(0, side**2)
        colours = to_map(self.composite(front, behind, styles)[:, pixels])
        if side < min(level.side, self.painter.low):  # the field's own map is still growing
            colours = interpolate(colours, self.painter.low, mode="bilinear")
        raw, features = colours[:, :3], colours[:, 3:]
        levels = len([block for block in self.painter.blocks if block.resolution <= level.side])
        w = styles.w[:, self.foreground.num_styles :]
        image, before = self.painter(features, raw, w, levels, draws, follow=follow)
        if level.share < 1 and levels > 0:
            image = torch.lerp(interpolate(before, scale_factor=2, mode="bilinear"), image, level.share)
        depth = expected_depth(front) * rays.directions.norm(dim=-1, keepdim=True)
        rendered = Rendered(image, raw, to_map(depth[:, pixels]), to_map(front.opacity[:, pixels]))
        if index is None:
            return Synthesised(rendered)
        picture, weights = self.samples(front, behind, styles, slice(side**2, None))
        samples, _ = self.painter(picture[:, 3:], picture[:, :3], w, levels, follow=follow, alone=True)
        return Synthesised(rendered, NerfPath(index, samples, weights))

    @property
    def volume_side(self) -> int:
        """Side of the map that the field is rendered as, at most."""
        if self.volume_start is None or not 0 <= self.alpha < 1:
            return self.painter.low
        return round(self.volume_start + self.alpha.item() * (self.painter.low - self.volume_start))

    def composite(self, front: Integrated, behind: Behind | None, styles: Styles) -> Tensor:
        """Colours and features of rays, [B, R, 3 + C]: the foreground's, and the background's through what is left."""
        added = 0 if front.added is None else front.added
        total = front.weights.sum(-1, keepdim=True)
        colours = self.foreground.colours(front.features - added, total, styles) + added
        if behind is None:
            return colours
        hidden = weighted(behind.weights, behind.hidden)
        return colours + (1 - front.opacity) * self.background.field.colours(hidden, 1.0)

    def samples(self, front: Integrated, behind: Behind | None, styles: Styles, rays: slice) -> tuple[Tensor, Tensor]:
        """Colours and features of all samples along P x P rays as a picture [B, 3 + C, P l, P m], and their weights.

        It lays P x P pieces side by side, one for each of l m samples, l and m as equal as possible.
        """
        asked, order = front.asked, front.order
        asked = asked[:, rays] if order is None else tuple(x[:, rays] for x in asked)
        hidden = front._replace(asked=asked, order=None if order is None else order[:, rays]).sampled
        weights = front.weights[:, rays]
        shape = hidden.shape[1:3]
        colours = self.foreground.colours(hidden.flatten(1, 2), 1.0, styles).unflatten(1, shape)
        if behind is not None:
            colours = torch.cat([colours, self.background.field.colours(behind.hidden[:, rays], 1.0)], dim=2)
            weights = torch.cat([weights, behind.weights[:, rays] * (1 - front.opacity[:, rays])], dim=2)
        count = colours.shape[2]
        rows = next(n for n in range(math.isqrt(count), 0, -1) if count % n == 0)
        side = math.isqrt(colours.shape[1])
        return rearrange(colours, "b (h w) (l m) c -> b c (l h) (m w)", h=side, l=rows), weights

    def density(self, points: Tensor, styles: Styles) -> Tensor:
        """Density of the object per world length [B, N, 1] at points [B, N, 3]."""
        placed = self.volume.line.placed(points) if hasattr(self.volume, "line") else points
        samples = Samples(placed, torch.zeros_like(placed), torch.zeros_like(placed[..., :1]))
        raw, _ = query(self.foreground, samples, self.foreground.modulate(styles), chunk=4096)
        return self.volume.density(raw, points[:, :, None])[:, :, 0]


def path_pixels(u: Tensor, side: int, resolution: int) -> Tensor:
    """Which pixels of an image make an even grid of side x side of them, shifted at random: [B, side side].

    Args:
        u: numbers in [0, 1) for the shift to the right and down, [B, 2].
        side: of the grid.
        resolution: side of the image.

    Raises:
        ValueError: the image is smaller than the grid.
    """
    stride = resolution // side
    if stride == 0:
        raise ValueError(f"The NeRF path's grid of {side} x {side} pixels does not fit into images of {resolution}.")
    columns, rows = ((u * stride).long()[:, :, None] + torch.arange(side, device=u.device) * stride).unbind(1)
    return (rows[:, :, None] * resolution + columns[:, None]).flatten(1)


# Discriminator


class Judgement(NamedTuple):
    """Scores [B, 1]."""

    scores: Tensor


class DiscriminatorBlock(nn.Module):
    """What the picture adds at this resolution, and two convolutions, the second of which halves it."""

    def __init__(self, channels_in: int, channels_out: int, image_channels: int = 3) -> None:
        super().__init__()
        self.from_rgb = Convolution(image_channels, channels_in, 1)
        self.first = Convolution(channels_in, channels_in, 3)
        self.second = Convolution(channels_in, channels_out, 3, down=True)

    def enter(self, images: Tensor, clamp: float | None) -> Tensor:
        """Features of images [B, 3, H, H]."""
        return activate(self.from_rgb(images, GAIN), clamp, gain=1)

    def forward(self, x: Tensor, clamp: float | None) -> Tensor:
        """Features [B, C_in, H, H] to [B, C_out, H/2, H/2]."""
        x = activate(self.first(x, GAIN), clamp, gain=1)
        return activate(self.second(x, GAIN), clamp, gain=1)


class Discriminator(nn.Module):
    """Scores images of several sizes, which enter at the block of their own.

    Args:
        resolution: side of the largest images.
        base_channels, most_channels: a block has base_channels / its resolution channels, but at most so many.
        clamp: bound of activations, which 16 bits need; None for none.
        groups: images that are compared by their standard deviation.
        start: side of images at which growing begins; None for no growing.
        fades_in: while it grows, images larger than its level are made smaller, and shown to the block of the level
            before too, ever less. The published program means to, but never does once growing has begun.
        doubles: features of images that enter below the largest size count twice in the first block, as published.
        image_channels: of what it looks at.
    """

    def __init__(
        self,
        resolution: int = 256,
        base_channels: int = 32768,
        most_channels: int = 512,
        clamp: float | None = 256,
        groups: int = 4,
        start: int | None = 32,
        fades_in: bool = False,
        doubles: bool = True,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        self.resolution, self.clamp, self.groups = resolution, clamp, groups
        self.start, self.fades_in, self.doubles = start, fades_in, doubles
        self.sides = [resolution // 2**i for i in range(doublings(8, resolution) + 1)]
        widths = [width(side, base_channels, most_channels) for side in [*self.sides, 4]]
        self.blocks = nn.ModuleList(DiscriminatorBlock(i, o, image_channels) for i, o in itertools.pairwise(widths))
        self.from_rgb = Convolution(image_channels, widths[-1], 1)
        self.final = Convolution(widths[-1] + 1, widths[-1], 3)
        self.dense = Dense(widths[-1] * 16, widths[-1])
        self.score = Dense(widths[-1], 1)
        self.register_buffer("alpha", torch.ones(()))  # how far it has grown, see ``grown``

    def forward(self, images: Tensor) -> Judgement:
        """Judge images [B, 3, H, H].

        Raises:
            ValueError: no block takes images of this side, or the batch does not suit the groups.
        """
        return Judgement(self.score(self.judged(self.entered(*self.reduced(*self.sized(images))))))

    def sized(self, images: Tensor) -> tuple[Tensor, float]:
        """Images that are not too large for what this has grown to, and how far their own level has faded in."""
        if images.shape[-1] not in self.sides:
            names = ", ".join(map(str, self.sides))
            raise ValueError(f"This discriminator takes images of side {names}, not {images.shape[-1]}.")
        level = grown(self.alpha, self.start, self.resolution)
        if not self.fades_in and self.alpha > 0:
            return images, 1.0
        if images.shape[-1] > level.side:
            images = interpolate(images, level.side, mode="bilinear")
        return images, level.share if images.shape[-1] == level.side else 1.0

    def reduced(self, images: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Features after all blocks, [B, C, 4, 4], and the images as small."""
        begin = self.sides.index(images.shape[-1])
        smaller = interpolate(images, scale_factor=0.5, mode="bilinear") if share < 1 else None
        x = None
        for i, block in enumerate(self.blocks[begin:]):
            if i == 1 and smaller is not None:
                images = torch.lerp(smaller, images, share)
                x = torch.lerp(block.enter(smaller, self.clamp), x, share)
            entered = block.enter(images, self.clamp)
            twice = i == 0 and begin > 0 and self.doubles
            x = (entered + entered if twice else entered) if x is None else x + entered
            x, images = block(x, self.clamp), halved(images)
        return x, images

    def entered(self, x: Tensor, images: Tensor) -> Tensor:
        """Features [B, C, 4, 4] of both."""
        return x + activate(self.from_rgb(images, GAIN), gain=1)

    def judged(self, x: Tensor) -> Tensor:
        """Features [B, C, 4, 4] to those that the score is a layer of, [B, C]."""
        x = activate(self.final(with_deviation(x, self.groups), GAIN), self.clamp, gain=1)
        return activate(self.dense(x.flatten(1), GAIN), gain=1)


# Training


class StyleNeRF(GAN):
    """The training algorithm of StyleNeRF, which is StyleGAN2's and the NeRF path: generator, then discriminator.

    Both have a regulariser of their own, which is computed, with a step of its own, only every so many iterations, and
    weighs as many times as much.

    Args:
        nerf_path_weight: of the NeRF path's loss (equation 9).
        nerf_path_side: it is computed for so many pixels squared of each picture; 0 for none.
        density_noise: standard deviation of the noise on raw densities.
        r1_weight: gamma; half of it multiplies the R1 penalty.
        r1_every: iterations.
        path_weight: of the path length penalty (Karras 2020, section 3.2).
        path_every: iterations.
        path_shrink: a batch of it is so many times smaller.
        path_decay: share of a batch in the mean path length.
        mixing: share of batches in which later layers get another latent's w.
        mean_decay: share of the old mean w in the new one.
        growth: progressive growing; None for all levels from the start. Larger pictures of a batch are made as small as
            the generator's; smaller ones fix the level themselves.
        augment: changes what the discriminator sees, see ``zoo.layers.ada``; None for nothing.
        max_skips: as in ``zoo.gan.GAN``.
    """

    networks_2d = ("discriminator", "generator.painter")

    def __init__(
        self,
        generator: Generator,
        discriminator: nn.Module,
        optimizer_g: OptimizerFactory,
        optimizer_d: OptimizerFactory,
        averages: dict[str, Average] | None = None,
        seed: int = 0,
        precision: Precision = "float32",
        nerf_path_weight: float = 2.0,
        nerf_path_side: int = 16,
        density_noise: float = 1.0,
        r1_weight: float = 0.5,
        r1_every: int = 16,
        path_weight: float = 2.0,
        path_every: int = 4,
        path_shrink: int = 2,
        path_decay: float = 0.01,
        mixing: float = 0.9,
        mean_decay: float = 0.995,
        growth: Growth | None = None,
        augment: Augmentation | None = None,
        max_skips: int = 3,
    ) -> None:
        super().__init__(generator, discriminator, optimizer_g, optimizer_d, averages, seed, precision, max_skips)
        self.nerf_path_weight, self.nerf_path_side = nerf_path_weight, nerf_path_side
        self.density_noise, self.r1_weight, self.r1_every = density_noise, r1_weight, r1_every
        self.path_weight, self.path_every, self.path_shrink = path_weight, path_every, path_shrink
        self.path_decay, self.mixing, self.mean_decay, self.growth = path_decay, mixing, mean_decay, growth
        self.augment = augment
        self.register_buffer("mean_path", torch.zeros(()))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        draws = self.draws()
        optimizer_g, optimizer_d = self.optimizers()
        level = self.grow(batch["image"].shape[-1])
        real = shrunk(batch["image"], level.side)

        with frozen(self.discriminator):
            terms = self.loss_g(len(real), level, draws)
            self.minimise(optimizer_g, "loss_g", terms)
        if self.path_weight and self.iterations % self.path_every == 0:
            # Lightning counts steps of this optimizer as iterations: the one above was this iteration's.
            optimizer_g._on_before_step = optimizer_g._on_after_step = lambda: None
            with self.full_precision():
                n = max(1, len(real) // self.path_shrink)
                self.minimise(optimizer_g, "loss_g", {"path": self.loss_path(n, level, draws)})

        with torch.no_grad():
            fake, _ = self.generate(len(real), level, draws)
        paid_fake = judged_fake(self.judge(fake.rendered.image, draws).scores)
        self.accumulate("loss_d", {"fake": paid_fake}, last=False)
        paid_real = judged_real(self.judge_real(real, draws))
        self.accumulate("loss_d", {"real": paid_real})
        self.step(optimizer_d)
        if self.r1_weight and self.iterations % self.r1_every == 0:
            with self.full_precision():
                self.minimise(optimizer_d, "loss_d", {"r1": self.loss_r1(real, draws)})

        # Without the regularisers, which would make the curves jump.
        self.log_dict({"loss_g": sum(terms.values()).detach(), "loss_d": (paid_fake + paid_real).detach()}, True)
        for running in self.running():
            running.copy_(self.trainer.strategy.reduce(running.clone(), reduce_op="mean"))
        for average in self.averages.values():
            average.update(self.generator)
        if self.augment is not None:
            self.augment.adjust(self.iterations, len(real) * self.trainer.world_size)
        self.count(len(real))

    def running(self) -> list[Tensor]:
        """What follows the batches of one process, to be averaged over all of them at the end of an iteration."""
        sizes = [part.magnitude for part in self.generator.modules() if getattr(part, "magnitude", None) is not None]
        noted = [] if self.augment is None else self.augment.running()
        return [self.generator.mean_w, self.mean_path, *sizes, *noted]

    def grow(self, side: int) -> Grown:
        """Set how far both networks have grown; the level of this iteration's pictures."""
        fixed = self.growth is None or side < self.generator.resolution
        alpha = 1.0 if fixed else self.growth(self.images_seen)
        self.discriminator.alpha.fill_(alpha)
        level = self.generator.grow(alpha)
        return level if side >= level.side else Grown(side, 1.0)

    def generate(self, n: int, level: Grown, draws: Draws) -> tuple[Synthesised, Tensor]:
        """Pictures of n new latents from new cameras, and their w [B, L, D].

        The mean w follows the first latents. With style mixing, later layers follow second ones.
        """
        generator = self.generator
        latent = generator.latents(n, draws)
        w = generator.mapping(latent.z)
        generator.follow(w, self.mean_decay)
        w = w[:, None].expand(-1, generator.num_layers, -1)
        if draws.shared("mixing", ()) < self.mixing:
            other = generator.mapping(draws.normal("mixed_z", (n, generator.latent_dim)))
            cut = 1 + int(draws.shared("cut", ()) * (generator.num_layers - 1))
            w = torch.cat([w[:, :cut], other[:, None].expand(-1, generator.num_layers - cut, -1)], dim=1)
        made = generator.synthesise(
            generator.styles(w, latent.background, draws, follow=True),
            generator.cameras(n, draws),
            level,
            draws,
            density_noise=self.density_noise,
            follow=True,
            path_side=self.nerf_path_side if generator.alpha != 0 else 0,
        )
        return made, w

    def judge(self, images: Tensor, draws: Draws) -> Any:
        """The discriminator's judgement of images, changed by the augmentation."""
        return self.discriminator(images if self.augment is None else self.augment(images, draws))

    def judge_real(self, images: Tensor, draws: Draws) -> Tensor:
        """Scores of real images, which the augmentation adapts to."""
        scores = self.judge(images, draws).scores
        if self.augment is not None:
            self.augment.observe(scores.detach())
        return scores

    def loss_g(self, n: int, level: Grown, draws: Draws) -> dict[str, Tensor]:
        """What the generator pays for n images."""
        fake, _ = self.generate(n, level, draws)
        terms = {"fake": judged_real(self.judge(fake.rendered.image, draws).scores)}
        if fake.path is not None:
            terms["nerf_path"] = self.nerf_path_weight * fake.path.loss(fake.rendered.image).mean()
        return terms

    def loss_path(self, n: int, level: Grown, draws: Draws) -> Tensor:
        """What the generator pays for pictures that change faster or slower with w than the mean; moves that mean."""
        made, w = self.generate(n, level, draws)
        lengths = path_lengths(made.rendered.image, w, draws.normal("path_noise", made.rendered.image.shape))
        mean = torch.lerp(self.mean_path, lengths.mean(), self.path_decay)
        self.mean_path.copy_(mean.detach())
        loss = self.path_weight * self.path_every * (lengths - mean).square().mean()
        # What pictures depend on but lengths do not has a gradient of zero, as published, so that Adam ages there too.
        return loss + 0 * made.rendered.image[:, 0, 0, 0].mean()

    def loss_r1(self, real: Tensor, draws: Draws) -> Tensor:
        """What the discriminator pays for gradients at real images."""
        real = real.detach().requires_grad_()
        scores = self.judge_real(real, draws)
        loss = 0.5 * self.r1_weight * self.r1_every * r1_penalty(scores, real)
        return loss + 0 * scores.mean()  # see loss_path

    def step(self, optimizer: LightningOptimizer, clip_norm: float | None = None) -> None:
        """As in the base, with gradients that are not finite replaced: infinite ones by 1e5, others by 0."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.nan_to_num_(0.0, 1e5, -1e5)
        super().step(optimizer, clip_norm)


def shrunk(images: Tensor, side: int) -> Tensor:
    """Images [B, 3, H, H] in [-1, 1] at a power of two times fewer pixels, rounded to bytes as published.

    Lanczos' window of eight pixels of the large image, whatever the factor: the program's library does no more.
    """
    factor = images.shape[-1] // side
    if factor == 1:
        return images
    place = torch.arange(-3.5, 4.0, device=images.device)
    taps = torch.sinc(place) * torch.sinc(place / 4)
    first = torch.arange(side, device=images.device)[:, None] * factor + factor // 2
    index = (first + torch.arange(-4, 4, device=images.device)).clamp(0, images.shape[-1] - 1)
    lines = torch.zeros(side, images.shape[-1], device=images.device).index_put(
        (torch.arange(side, device=images.device)[:, None].expand_as(index), index),
        (taps / taps.sum()).expand_as(index),
        accumulate=True,
    )
    small = lines @ ((images + 1) * 127.5) @ lines.mT
    return small.round().clamp(0, 255) / 127.5 - 1
