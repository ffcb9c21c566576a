"""VolumeGAN: 3D-Aware Image Synthesis via Learning Structural and Textural Representations.

Xu, Peng, Yang, Shen, Zhou, CVPR 2022, arXiv:2112.10759.

What is unusual:

* a small volume of features, made by 3D convolutions, holds the structure; the radiance field reads it at each point
  and adds the point's own coordinates, so it need not remember where things are in its weights;
* what is rendered along the rays is a map of features, not of colours; a 2D network without any spatial kernel but the
  upsampling filter turns it into the picture, so that views still agree nearly;
* structure and texture have codes of their own: the first layers of w drive the volume and the field, the others the
  2D network.

B batch, L layers that take w, D width of w, R rays, S samples, N = R S points, C channels, V side of the volume
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.functional import (
    avg_pool2d,
    conv3d,
    conv_transpose3d,
    interpolate,
    leaky_relu,
    pad,
)

from zoo.draws import Draws
from zoo.faults import parameters
from zoo.gan import GAN, Average, OptimizerFactory, frozen
from zoo.generator import BaseGenerator
from zoo.layers.lookup import trilinear
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
    finished,
    with_deviation,
)
from zoo.layers.winograd import directly
from zoo.losses import judged_fake, judged_real, path_lengths, r1_penalty
from zoo.precision import Precision
from zoo.render import (
    Camera,
    Poses,
    Rays,
    Rendered,
    Renderer,
    Samples,
    expected_depth,
    pixel_corners,
    through,
    to_map,
)


class Latent(NamedTuple):
    """z [B, latent_dim], standard normal."""

    z: Tensor


class Styles(NamedTuple):
    """What does not depend on the camera.

    w: one for each layer that takes it, [B, L, D]: first those of the field, then those of the 2D network.
    volume: structural features, axes z, y, x: [B, C, V, V, V].
    """

    w: Tensor
    volume: Tensor


def doublings(start: int, end: int, what: str) -> list[int]:
    """Twice the start, twice that, and so on, up to the end.

    Raises:
        ValueError: they miss the end.
    """
    sides = [start]
    while sides[-1] < end:
        sides.append(2 * sides[-1])
    if sides[-1] != end:
        raise ValueError(f"{what} must be {start}, doubled any number of times, not {end}.")
    return sides[1:]


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
        super().__init__()
        widths = [base_channels, base_channels]
        for _ in doublings(start, resolution, "The volume's side"):
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
            x = conv3d(x, conv.weight, conv.bias, padding=1) if i == 0 else doubled_conv3d(x, conv.weight, conv.bias)
            x = x - x.mean((2, 3, 4), keepdim=True)
            scale = scale[..., None, None, None] * (x.square().mean((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
            x = leaky_relu(torch.addcmul(shift[..., None, None, None], x, scale), SLOPE, inplace=True)
        return x


def doubled_conv3d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3x3x3 convolution of nearest neighbours at twice the resolution, with 8/27 of the arithmetic.

    Each output sees eight inputs only, those of them that coincide with the weights that fall on it summed.
    """
    sums = weight.transpose(0, 1).flip(2, 3, 4)
    for ends in ((0, 0, 0, 0), (0, 0), ()):
        sums = pad(sums, (*ends, 0, 1)) + pad(sums, (*ends, 1, 0))
    return conv_transpose3d(x, sums, bias, stride=2, padding=1)


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
        super().__init__()
        self.channels, self.num_layers = channels, num_layers
        self.register_buffer("frequencies", 2 ** torch.linspace(0, max_log2, frequencies), persistent=False)
        self.register_buffer("bounds", torch.tensor(bounds), persistent=False)
        widths = [channels + 3 + 6 * frequencies, *[hidden_dim] * num_layers]
        self.layers = nn.ModuleList(ModulatedConvolution(i, o, w_dim=w_dim) for i, o in itertools.pairwise(widths))
        self.density = Dense(hidden_dim, 1)
        self.colour = Dense(hidden_dim, colour_dim)

    def modulate(self, styles: Styles) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """What the field is asked with: the volume, and weights [B, C_in, C_out] and biases [C_out] of its layers.

        The volume's features lie side by side, [B, V, V, V, C]; the gain of the leaky relu is in weights and biases.
        """
        layers = [
            (layer.kernels(w, GAIN)[..., 0, 0].mT.contiguous(), layer.bias * GAIN)
            for layer, w in zip(self.layers, styles.w.unbind(1), strict=False)
        ]
        return styles.volume.movedim(1, -1).contiguous(), layers

    def forward(self, samples: Samples, condition: tuple[Tensor, list[tuple[Tensor, Tensor]]]) -> tuple[Tensor, Tensor]:
        """Raw density [B, R, S, 1] and hidden features [B, R, S, hidden_dim] of B x R x S samples.

        Colours are ``colour`` of the hidden features. It is linear, so what is composited are hidden features, and
        their colour is computed once a ray instead of once a sample.
        """
        volume, layers = condition
        points = samples.points.flatten(1, 2)
        x = torch.cat([trilinear(volume, points, self.bounds), self.encode(points)], dim=-1)
        for weight, bias in layers:
            x = leaky_relu(torch.baddbmm(bias, x, weight), SLOPE, inplace=True)
        shape = samples.t.shape[1:]
        return self.density(x).unflatten(1, shape), x.unflatten(1, shape)

    def encode(self, points: Tensor) -> Tensor:
        """Coordinates, and their sines and cosines at each frequency: [B, N, 3] to [B, N, 3 + 6 F]."""
        angles = points[..., None, :] * self.frequencies[:, None]
        return torch.cat([points, torch.stack([angles.sin(), angles.cos()], -2).flatten(-3)], dim=-1)


# The 2D neural renderer


def width(resolution: int, base: int, most: int) -> int:
    """Channels at a resolution: fewer, the finer it is."""
    return min(base // resolution, most)


class StyledLayer(nn.Module):
    """Modulated 1x1 convolution, image noise, bias, leaky relu."""

    def __init__(self, channels_in: int, channels_out: int, resolution: int, up: bool, w_dim: int) -> None:
        super().__init__()
        self.conv = ModulatedConvolution(channels_in, channels_out, w_dim=w_dim, up=up)
        self.noise = Noise(resolution)

    def forward(self, x: Tensor, w: Tensor, drawn: Tensor | None, clamp: float | None) -> Tensor:
        """x [B, C_in, H, W] and w [B, D] to [B, C_out, H, W], or twice as large."""
        y = self.conv(x, w, GAIN)
        return finished(y, self.conv.bias * GAIN, self.noise(drawn) * GAIN, clamp)


class PainterBlock(nn.Module):
    """Twice the resolution: two styled layers, and what they add to the picture."""

    def __init__(self, channels_in: int, channels_out: int, resolution: int, w_dim: int) -> None:
        super().__init__()
        self.resolution = resolution
        self.up = StyledLayer(channels_in, channels_out, resolution, True, w_dim)
        self.same = StyledLayer(channels_out, channels_out, resolution, False, w_dim)
        self.rgb = ModulatedConvolution(channels_out, 3, w_dim=w_dim, demodulate=False)


class Painter(nn.Module):
    """The 2D network from rendered features to pictures (section 3.3), and the blend of resolutions while it grows.

    Args:
        low: side of the feature map.
        resolution: side of the picture.
        base_channels, most_channels: a layer has base_channels / its resolution channels, but at most so many.
        clamp: bound of all activations, which 16 bits need; None for none.
        learned_start: the first picture is a layer of its own instead of the first three features.
        bounded_output: tanh of the picture.
        w_dim: size of w.
    """

    def __init__(
        self,
        low: int = 32,
        resolution: int = 256,
        base_channels: int = 32768,
        most_channels: int = 512,
        clamp: float | None = 256,
        learned_start: bool = False,
        bounded_output: bool = False,
        w_dim: int = 512,
    ) -> None:
        super().__init__()
        self.low, self.resolution, self.clamp, self.bounded_output = low, resolution, clamp, bounded_output
        sides = [low, *doublings(low, resolution, "The picture's side")]
        widths = [width(side, base_channels, most_channels) for side in sides]
        self.start = Convolution(widths[0], 3, 1) if learned_start else None
        self.blocks = nn.ModuleList(
            PainterBlock(widths[i], widths[i + 1], sides[i + 1], w_dim) for i in range(len(sides) - 1)
        )
        self.channels, self.num_layers = widths[0], 2 * len(sides)

    def forward(self, x: Tensor, w: Tensor, resolution: int, lod: float, draws: Draws | None) -> tuple[Tensor, Tensor]:
        """Pictures of this resolution, and at that of the features: [B, 3, H, H] and [B, 3, h, h].

        Args:
            x: features [B, C, h, h].
            w: [B, num_layers, D]; the first is read by none.
            resolution: side of the pictures.
            lod: how many of the finest levels are left out; a fraction is a blend. Levels that are left out are shown
                enlarged.
            draws: for image noise; None for the stored one.
        """
        levels = round(math.log2(resolution / self.low))
        raw = x[:, :3] if self.start is None else bounded(self.start(x), self.clamp)
        rgb = image = raw
        for i, block in enumerate(self.blocks[:levels]):
            missing = lod - (levels - 1 - i)  # at least 1: this level is left out; between 0 and 1: it fades in
            larger = interpolate(image, scale_factor=2, mode="nearest") if missing > 0 else None
            if missing < 1:
                for j, layer in enumerate((block.up, block.same)):
                    shape = (len(x), 1, block.resolution, block.resolution)
                    drawn = None if draws is None else draws.normal(f"noise{2 * i + j + 1}", shape)
                    x = layer(x, w[:, 2 * i + j + 1], drawn, self.clamp)
                bias = block.rgb.bias[:, None, None]
                rgb = bounded(block.rgb(x, w[:, 2 * i + 3]) + bias, self.clamp) + doubled(rgb)
            if missing <= 0:
                image = rgb
            elif missing < 1:
                image = torch.lerp(larger, rgb, 1 - missing)
            else:
                image = larger
        return (image.tanh() if self.bounded_output else image), raw


# Generator


class Generator(BaseGenerator):
    """Latents and cameras to images.

    Args:
        structure: makes the structural volume.
        field: the radiance field, which reads it.
        volume: the renderer.
        painter: the 2D network.
        poses: distribution of cameras.
        latent_dim: size of z.
        mapping_dim: width of the mapping network.
        mapping_layers: how many it has.
        mapping_rate: its learning rate, as a share of the others'.
        truncated_layers: layers, from the first, whose w truncation moves; None for all.
        bounds: world box of the object, two corners.
    """

    def __init__(
        self,
        structure: StructuralVolume,
        field: StyledField,
        volume: Renderer,
        painter: Painter,
        poses: Poses,
        latent_dim: int = 512,
        mapping_dim: int = 512,
        mapping_layers: int = 8,
        mapping_rate: float = 0.01,
        truncated_layers: int | None = 8,
        bounds: tuple[tuple[float, float, float], tuple[float, float, float]] = ((-0.15,) * 3, (0.15,) * 3),
    ) -> None:
        super().__init__(poses, painter.resolution, bounds)
        if field.channels != structure.channels:
            raise ValueError(
                f"The field reads {field.channels} features of a volume that has {structure.channels}: set the field's "
                "channels to that."
            )
        if field.colour.weight.shape[0] != painter.channels:
            raise ValueError(
                f"The field renders {field.colour.weight.shape[0]} features, but the 2D network takes "
                f"{painter.channels}: set the field's colour_dim to that."
            )
        self.structure, self.field, self.volume, self.painter = structure, field, volume, painter
        self.latent_dim, self.truncated_layers = latent_dim, truncated_layers
        self.num_layers = field.num_layers + painter.num_layers
        w_dim = structure.style.in_features
        self.mapping = Mapping(latent_dim, mapping_dim, w_dim, mapping_layers, mapping_rate)
        self.register_buffer("mean_w", torch.zeros(w_dim))
        self.register_buffer("lod", torch.zeros(()))  # how many of the finest levels are not trained yet

    def latents(self, n: int, draws: Draws) -> Latent:
        """n latents."""
        return Latent(draws.normal("z", (n, self.latent_dim)))

    def map(self, latent: Latent, *, truncation: float = 1.0, layers: int | None = None) -> Styles:
        """Styles of latents; truncation below 1 moves w towards its mean, in the first ``layers`` of them.

        Args:
            latent: B of them.
            truncation: share of the way from the mean that is kept.
            layers: by default ``truncated_layers``.
        """
        w = self.mapping(latent.z)[:, None].expand(-1, self.num_layers, -1)
        if truncation < 1:
            layers = self.truncated_layers if layers is None else layers
            layers = self.num_layers if layers is None else layers
            w = torch.cat([torch.lerp(self.mean_w.expand_as(w), w, truncation)[:, :layers], w[:, layers:]], dim=1)
        return self.styles(w)

    def styles(self, w: Tensor) -> Styles:
        """Styles from w [B, L, D]; the first one also makes the volume."""
        return Styles(w, self.structure(w[:, 0]))

    def codes(self, styles: Styles) -> dict[str, Tensor]:
        """w; the volume follows."""
        return {"w": styles.w}

    def with_codes(self, styles: Styles, codes: dict[str, Tensor]) -> Styles:
        """Styles of this w."""
        return self.styles(codes["w"])

    @torch.no_grad()
    def follow(self, w: Tensor, decay: float) -> None:
        """Move the mean w towards that of a batch [B, D]."""
        self.mean_w.lerp_(w.mean(0), 1 - decay)

    def rays(self, camera: Camera, resolution: int) -> Rays:
        """Unit rays [B, R, 3] of all pixels, row by row; the outermost ones lie on the border of the field of view."""
        return through(camera, pixel_corners(resolution, self.device, camera.pose.dtype))

    def render(
        self, styles: Styles, camera: Camera, *, resolution: int | None = None, draws: Draws | None = None
    ) -> Rendered:
        """Images of B styles from B cameras.

        Args:
            styles: from ``map``.
            camera: B cameras.
            resolution: side of the image [pixels]: that of the features, doubled up to the painter's.
            draws: for jitter, importance samples and image noise; None for none of them, and stored image noise.

        Raises:
            ValueError: there is no level of this resolution.
        """
        resolution = self.level(resolution or self.resolution)
        features, depth, opacity = self.render_features(styles, camera, draws)
        w = styles.w[:, self.field.num_layers :]
        image, raw = self.painter(features, w, resolution, missing_levels(self, resolution), draws)
        return Rendered(image, raw, depth, opacity)

    def level(self, resolution: int) -> int:
        """The resolution, if there is a level for it."""
        known = [self.painter.low, *(block.resolution for block in self.painter.blocks)]
        if resolution not in known:
            raise ValueError(f"VolumeGAN renders images of side {', '.join(map(str, known))}, not {resolution}.")
        return resolution

    def render_features(self, styles: Styles, camera: Camera, draws: Draws | None) -> tuple[Tensor, Tensor, Tensor]:
        """Maps of features, depth and opacity, [B, C or 1, h, h]."""
        rays = self.rays(camera, self.painter.low)
        integrated = self.volume(self.field, rays, self.field.modulate(styles), draws)
        added = 0 if integrated.added is None else integrated.added
        total = integrated.weights.sum(-1, keepdim=True)
        colour = self.field.colour
        features = colour(integrated.features - added) + colour.bias * (total - 1) + added
        return to_map(features), to_map(expected_depth(integrated)), to_map(integrated.opacity)

    def condition(self, styles: Styles) -> Any:
        """See ``StyledField.modulate``."""
        return self.field.modulate(styles)


def missing_levels(network: nn.Module, resolution: int) -> float:
    """How many of the finest levels of pictures of this resolution a network's ``lod`` leaves out."""
    return max(0.0, network.lod.item() - math.log2(network.resolution / resolution))


# Discriminator


class Judgement(NamedTuple):
    """Scores [B, 1]."""

    scores: Tensor


class DiscriminatorBlock(nn.Module):
    """Two convolutions, the second of which halves the resolution, and a shortcut around them."""

    def __init__(self, channels_in: int, channels_out: int, residual: bool) -> None:
        super().__init__()
        self.first = Convolution(channels_in, channels_in, 3)
        self.second = Convolution(channels_in, channels_out, 3, down=True)
        self.skip = Convolution(channels_in, channels_out, 1, down=True, bias=False) if residual else None

    def forward(self, x: Tensor, clamp: float | None) -> Tensor:
        y = activate(self.first(x, GAIN), clamp, gain=1)
        if self.skip is None:
            return activate(self.second(y, GAIN), clamp, gain=1)
        y = activate(self.second(y), clamp and clamp * math.sqrt(0.5), gain=1)
        return y + self.skip(x, math.sqrt(0.5))


class Discriminator(nn.Module):
    """Scores images; those of several resolutions, blended, while the generator grows (appendix).

    Args:
        resolution: side of the images.
        base_channels, most_channels: a layer has base_channels / its resolution channels, but at most so many.
        clamp: bound of all activations, which 16 bits need; None for none.
        groups: images that are compared by their standard deviation; 0 for no comparison.
        residual: with shortcuts around the blocks.
        last: side at which convolutions end.
    """

    def __init__(
        self,
        resolution: int = 256,
        base_channels: int = 32768,
        most_channels: int = 512,
        clamp: float | None = 256,
        groups: int = 4,
        residual: bool = True,
        last: int = 4,
    ) -> None:
        super().__init__()
        self.resolution, self.clamp, self.groups = resolution, clamp, groups
        self.sides = [last, *doublings(last, resolution, "The discriminator's resolution")][::-1]
        widths = [width(side, base_channels, most_channels) for side in self.sides]
        self.from_rgb = nn.ModuleList(Convolution(3, w, 1) for w in widths)
        self.blocks = nn.ModuleList(DiscriminatorBlock(i, o, residual) for i, o in itertools.pairwise(widths))
        self.final = Convolution(widths[-1] + (groups > 0), widths[-1], 3)
        self.dense = Dense(widths[-1] * last**2, widths[-1])
        self.score = Dense(widths[-1], 1)
        self.register_buffer("lod", torch.zeros(()))

    def forward(self, images: Tensor) -> Judgement:
        """Judge images [B, 3, H, H]: they enter at the level of their size, or where ``lod`` says, if that is lower.

        Raises:
            ValueError: no level takes images of this side, or the batch does not suit the groups.
        """
        if images.shape[-1] not in self.sides:
            names = ", ".join(map(str, self.sides))
            raise ValueError(f"This discriminator takes images of side {names}, not {images.shape[-1]}.")
        x = self.features(images, missing_levels(self, images.shape[-1]))
        if self.groups:
            x = with_deviation(x, self.groups)
        x = activate(self.final(x, GAIN), self.clamp, gain=1)
        x = activate(self.dense(x.flatten(1), GAIN), gain=1)
        return Judgement(self.score(x))

    def features(self, images: Tensor, lod: float) -> Tensor:
        """What is left at the lowest resolution, [B, C, last, last]; the finest ``lod`` levels are left out."""
        finest = self.sides.index(images.shape[-1])
        if lod >= len(self.sides) - finest:
            raise ValueError(f"lod is {lod}, but one of the {len(self.sides) - finest} levels must be there.")
        x = None
        for i, from_rgb in enumerate(self.from_rgb[finest:]):
            if lod < i + 1:
                if i - 1 < lod:  # images enter here, or fade into what the finer level made of them
                    entered = activate(from_rgb(images, GAIN), self.clamp, gain=1)
                    x = entered if i <= lod else torch.lerp(x, entered, lod - math.floor(lod))
                for block in self.blocks[finest + i : finest + i + 1]:  # after the last level there is none
                    x = block(x, self.clamp)
            if lod > i:
                images = avg_pool2d(images, 2)
        return x


# Training


@dataclass(frozen=True)
class Growth:
    """Progressive growing: after each ``hold`` images the next level fades in over ``fade`` images.

    Args:
        levels: that are left out at the start.
        hold, fade: images.
        every: iterations between changes.
    """

    levels: int = 3
    hold: int = 750_000
    fade: int = 750_000
    every: int = 4

    def __call__(self, images_seen: int) -> float:
        """How many of the finest levels are left out after so many images."""
        done, rest = divmod(images_seen, self.hold + self.fade)
        return max(0.0, self.levels - done - max(0, rest - self.hold) / self.fade)


class VolumeGAN(GAN):
    """The training algorithm of VolumeGAN, which is StyleGAN2's: generator, then discriminator, every iteration.

    Both have a regulariser of their own, which is computed, with a step of its own, only every so many iterations, and
    weighs as many times as much.

    Args:
        r1_weight: gamma; half of it multiplies the R1 penalty.
        r1_every: iterations.
        path_weight: of the path length penalty (Karras 2020, section 3.2).
        path_every: iterations.
        path_shrink: a batch of it is so many times smaller.
        path_decay: share of a batch in the mean path length.
        mixing: share of batches in which the 2D network's later layers get another latent's w.
        mean_decay: share of the old mean w in the new one.
        growth: progressive growing; None for all levels from the start. Batches smaller than the generator's resolution
            fix the level themselves.
        max_skips: as in ``zoo.gan.GAN``.
    """

    networks_2d = ("discriminator", "generator.painter")

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        optimizer_g: OptimizerFactory,
        optimizer_d: OptimizerFactory,
        averages: dict[str, Average] | None = None,
        seed: int = 0,
        precision: Precision = "float32",
        r1_weight: float = 10.0,
        r1_every: int = 16,
        path_weight: float = 2.0,
        path_every: int = 4,
        path_shrink: int = 2,
        path_decay: float = 0.01,
        mixing: float = 0.9,
        mean_decay: float = 0.995,
        growth: Growth | None = None,
        max_skips: int = 3,
    ) -> None:
        super().__init__(generator, discriminator, optimizer_g, optimizer_d, averages, seed, precision, max_skips)
        self.r1_weight, self.r1_every = r1_weight, r1_every
        self.path_weight, self.path_every, self.path_shrink = path_weight, path_every, path_shrink
        self.path_decay, self.mixing, self.mean_decay, self.growth = path_decay, mixing, mean_decay, growth
        self.register_buffer("mean_path", torch.zeros(()))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        real, draws = batch["image"], self.draws()
        optimizer_g, optimizer_d = self.optimizers()
        self.grow(real.shape[-1])

        with frozen(self.discriminator):
            terms = self.loss_g(len(real), real.shape[-1], draws)
            self.minimise(optimizer_g, "loss_g", terms)
        if self.path_weight and self.iterations % self.path_every == 0:
            # Lightning counts steps of this optimizer as iterations: the one above was this iteration's.
            optimizer_g._on_before_step = optimizer_g._on_after_step = lambda: None
            with self.full_precision():
                n = max(1, len(real) // self.path_shrink)
                self.minimise(optimizer_g, "loss_g", {"path": self.loss_path(n, real.shape[-1], draws)})

        with torch.no_grad():
            fake, _ = self.generate(len(real), real.shape[-1], draws)
        paid_fake = judged_fake(self.discriminator(fake).scores)
        self.accumulate("loss_d", {"fake": paid_fake}, last=False)
        paid_real = judged_real(self.discriminator(real).scores)
        self.accumulate("loss_d", {"real": paid_real})
        self.step(optimizer_d)
        if self.r1_weight and self.iterations % self.r1_every == 0:
            with self.full_precision():
                self.minimise(optimizer_d, "loss_d", {"r1": self.loss_r1(real)})

        # Without the regularisers, which would make the curves jump.
        self.log_dict({"loss_g": terms["fake"].detach(), "loss_d": (paid_fake + paid_real).detach()}, prog_bar=True)
        for mean in (self.generator.mean_w, self.mean_path):  # over the batches of all processes
            mean.copy_(self.trainer.strategy.reduce(mean.clone(), reduce_op="mean"))
        for average in self.averages.values():
            average.update(self.generator)
        self.count(len(real))

    def generate(self, n: int, resolution: int, draws: Draws) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, H] of n new latents from new cameras, and their w [B, L, D].

        The mean w follows the first latents. With style mixing, later layers of the 2D network follow second ones.
        """
        w = self.generator.mapping(self.generator.latents(n, draws).z)
        self.generator.follow(w, self.mean_decay)
        w = w[:, None].expand(-1, self.generator.num_layers, -1)
        if draws.shared("mixing", ()) < self.mixing:
            other = self.generator.mapping(draws.normal("mixed_z", (n, self.generator.latent_dim)))
            first, end = self.generator.field.num_layers, self.generator.num_layers
            cut = first + int(draws.shared("cut", ()) * (end - first))
            w = torch.cat([w[:, :cut], other[:, None].expand(-1, end - cut, -1)], dim=1)
        camera = self.generator.cameras(n, draws)
        rendered = self.generator.render(self.generator.styles(w), camera, resolution=resolution, draws=draws)
        return rendered.image, w

    def loss_g(self, n: int, resolution: int, draws: Draws) -> dict[str, Tensor]:
        """What the generator pays for n images."""
        fake, _ = self.generate(n, resolution, draws)
        return {"fake": judged_real(self.discriminator(fake).scores)}

    def loss_path(self, n: int, resolution: int, draws: Draws) -> Tensor:
        """What the generator pays for pictures that change faster or slower with w than the mean; moves that mean."""
        image, w = self.generate(n, resolution, draws)
        lengths = path_lengths(image, w, draws.normal("path_noise", image.shape))
        mean = torch.lerp(self.mean_path, lengths.mean(), self.path_decay)
        self.mean_path.copy_(mean.detach())
        return self.path_weight * self.path_every * (lengths - mean).square().mean()

    def loss_r1(self, real: Tensor) -> Tensor:
        """What the discriminator pays for gradients at real images."""
        real = real.detach().requires_grad_()
        with directly():
            scores = self.discriminator(real).scores
        penalty = r1_penalty(scores, real)
        return 0.5 * self.r1_weight * self.r1_every * penalty

    def grow(self, resolution: int) -> None:
        """Set both networks' level of detail; optimizers forget what they know when a level comes or has come."""
        smaller = math.log2(self.generator.resolution / resolution)
        if smaller == 0 and self.growth is not None:
            if self.iterations > 0 and (self.iterations + 1) % self.growth.every:
                return
            lod = self.growth(self.images_seen)
        else:
            lod = smaller
        before = self.generator.lod.item()
        for network in (self.generator, self.discriminator):
            network.lod.fill_(lod)
        if (math.ceil(before), math.floor(before)) != (math.ceil(lod), math.floor(lod)):
            for optimizer in self.optimizers():
                optimizer.optimizer.state.clear()

    def sanitise(self, optimizer: LightningOptimizer) -> None:
        """Make gradients finite, up to 1e5.

        A parameter that has had a gradient before but has none from this loss is stepped with zeros, as published: Adam
        then forgets a little of its past gradients.
        """
        for parameter in parameters(optimizer):
            if parameter.grad is not None:
                parameter.grad.nan_to_num_(0.0).clamp_(-1e5, 1e5)
            elif parameter in optimizer.optimizer.state:
                parameter.grad = torch.zeros_like(parameter)
