"""CIPS-3D: A 3D-Aware Generator of GANs Based on Conditionally-Independent Pixel Synthesis.

Zhou, Xie, Ni, Tian, 2021, arXiv:2110.09788.

What is unusual:

* a shallow radiance field (three sine layers) gives the shape, and one feature per ray; a deep network turns each ray's
  feature into a colour. Neither looks at neighbouring pixels: no convolution, no upsampling, any resolution;
* shape and appearance have a latent and a mapping network each;
* rays are independent, so gradients may be kept for some of them only: memory is paid for those;
* the deep network could hide a mirrored shape, so a second discriminator sees colours read off the field itself.

B batch, R rays, S samples, N = R S points, C channels, H image side
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, leaky_relu

from zoo.draws import Draws, RayDraws, SampleDraws
from zoo.gan import GAN, Average, OptimizerFactory, frozen, set_learning_rate
from zoo.generator import BaseGenerator
from zoo.layers.stylegan2 import normalised, with_deviation
from zoo.layers.towers import PASSING, EqualConv, EqualLinear, Passing, ResidualBlock, real_and_r1
from zoo.losses import judged_fake, judged_real, r1_penalty
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
    with_samples,
)
from zoo.stages import current, falling, in_order, rising


class Latent(NamedTuple):
    """Standard normal numbers for the shape [B, C] and for the appearance [B, D]."""

    shape: Tensor
    appearance: Tensor


class Styles(NamedTuple):
    """Mapped codes: of the field's density and, the same in most generators, of its features; of the appearance.

    Each is the same for all layers [B, C], or has one for every layer [B, L, C].
    """

    shape: Tensor
    colour: Tensor
    appearance: Tensor


def of_layer(style: Tensor, i: int) -> Tensor:
    """The style [B, C] of a layer, from one of ``Styles``."""
    return style if style.dim() == 2 else style[:, i]


# Shape: a shallow radiance field (section 3.1)


class FilmLayer(nn.Module):
    """A sine layer whose frequencies and phases are linear in a style: sin((15 gain(s) + 30) W x + phase(s))."""

    def __init__(self, dim_in: int, dim_out: int, style_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim_in, dim_out)
        self.gain, self.phase = nn.Linear(style_dim, dim_out), nn.Linear(style_dim, dim_out)
        bound = math.sqrt(6 / dim_in) / 25
        nn.init.uniform_(self.linear.weight, -bound, bound)
        with torch.no_grad():
            self.gain.weight *= 0.25
            self.phase.weight *= 0.25

    def modulate(self, style: Tensor) -> tuple[Tensor, Tensor]:
        """Frequencies and phases of B styles, both [B, 1, C]."""
        return (15 * self.gain(style) + 30)[:, None], self.phase(style)[:, None]

    def forward(self, x: Tensor, frequencies: Tensor, phases: Tensor) -> Tensor:
        """Not folded into the weights: the rounding of that would be seen in pictures, through importance sampling."""
        x = self.linear(x)
        if x.requires_grad or frequencies.requires_grad:
            return torch.sin(x * frequencies + phases)
        return x.mul_(frequencies).add_(phases).sin_()  # in place is faster


class FilmSiren(nn.Module):
    """The radiance field: sine layers, then density and, through one more of half the width, features.

    Args:
        hidden_dim: width.
        num_layers: sine layers before the density.
        feature_dim: what a sample contributes to its ray's feature.
        style_dim: width of the styles.
        input_scale: multiplies world points, so that the object fills about [-1, 1]^3.
    """

    def __init__(
        self,
        hidden_dim: int = 128,
        num_layers: int = 2,
        feature_dim: int = 32,
        style_dim: int = 128,
        input_scale: float = 2 / 0.24,
    ) -> None:
        super().__init__()
        self.feature_dim, self.style_dim, self.input_scale = feature_dim, style_dim, input_scale
        widths = [3, *[hidden_dim] * num_layers]
        self.layers = nn.ModuleList(FilmLayer(i, o, style_dim) for i, o in itertools.pairwise(widths))
        self.density = nn.Linear(hidden_dim, 1)
        self.colour_sine = FilmLayer(hidden_dim, hidden_dim // 2, style_dim)
        self.colour = nn.Linear(hidden_dim // 2, feature_dim)
        nn.init.kaiming_normal_(self.colour.weight, a=0.2, nonlinearity="leaky_relu")

    def modulate(self, styles: Styles) -> list[tuple[Tensor, Tensor]]:
        """Frequencies and phases of all sine layers for B styles, see ``FilmLayer.modulate``."""
        trunk = [layer.modulate(of_layer(styles.shape, i)) for i, layer in enumerate(self.layers)]
        return [*trunk, self.colour_sine.modulate(of_layer(styles.colour, -1))]

    def forward(self, samples: Samples, sines: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Raw density [B, R, S, 1] and features [B, R, S, C]; the view direction plays no part.

        Args:
            samples: B x R x S of them.
            sines: from ``modulate``.
        """
        x = samples.points.flatten(1, 2) * self.input_scale
        *trunk, last = sines
        for layer, own in zip(self.layers, trunk, strict=True):
            x = layer(x, *own)
        raw, features = self.density(x), self.colour(self.colour_sine(x, *last))
        return raw.unflatten(1, samples.t.shape[1:]), features.unflatten(1, samples.t.shape[1:])


# Appearance: a deep network that sees one ray at a time (section 3.2; CIPS, Anokhin 2021)


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
        return Scaled.apply(self.weight, scales, lengths.rsqrt())


class Scaled(torch.autograd.Function):
    """weight [1, C_in, C_out] with its rows scaled by [B, C_in] and its columns by [B, C_out].

    Autograd alone would keep one more copy of the weights of every image.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(weight, rows, columns)
        return (weight * rows[:, :, None]).mul_(columns[:, None])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight, rows, columns = ctx.saved_tensors
        product = gradient * weight
        for_rows, for_columns = (product @ columns[:, :, None])[..., 0], (rows[:, None] @ product)[:, 0]
        return (gradient * rows[:, :, None] * columns[:, None]).sum(0, keepdim=True), for_rows, for_columns


class InrBlock(nn.Module):
    """Two modulated layers; optionally a skip connection around them, and a colour read off the result."""

    def __init__(self, dim_in: int, dim_out: int, style_dim: int, residual: bool, rgb_dim: int | None) -> None:
        super().__init__()
        self.first = ModulatedLinear(dim_in, dim_out, style_dim)
        self.second = ModulatedLinear(dim_out, dim_out, style_dim)
        self.residual, self.to_rgb = residual, None
        if rgb_dim is not None:
            self.to_rgb = nn.Linear(dim_out, rgb_dim)
            init_readout(self.to_rgb, 100)

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
        super().__init__()
        if rgb_dim < 3 or first_rgb >= num_blocks:
            raise ValueError(f"No colour comes of rgb_dim {rgb_dim} and first_rgb {first_rgb} of {num_blocks} blocks.")
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
            init_readout(self.final, 100)

    def readouts(self) -> list[nn.Linear]:
        """The layers whose biases sum up to the colour of a ray without any feature."""
        own = [block.to_rgb for block in self.blocks if block.to_rgb is not None]
        return own if self.final is None else [self.final]

    def modulate(self, style: Tensor) -> list[tuple[Tensor, Tensor]]:
        """All weights of B styles, see ``Styles``; once per image."""
        return [
            block.modulate(of_layer(style, 2 * i), of_layer(style, 2 * i + 1)) for i, block in enumerate(self.blocks)
        ]

    def forward(self, x: Tensor, weights: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Colours in [-1, 1] [B, R, 3] of features [B, R, C]."""
        rgb = 0
        for block, own in zip(self.blocks, weights, strict=True):
            x = block(x, own)
            if block.to_rgb is not None:
                rgb = rgb + block.to_rgb(x)
        return (rgb if self.final is None else self.final(rgb)).tanh()


def init_readout(layer: nn.Linear, divisor: float) -> None:
    """A SIREN's bound on weights, made smaller."""
    bound = math.sqrt(6 / layer.in_features) / divisor
    nn.init.uniform_(layer.weight, -bound, bound)


# Mapping networks


def linear_layers(widths: list[int], norm_hidden: bool = False, norm_out: bool = False) -> list[nn.Module]:
    """Linear layers from width to width with leaky ReLUs between them, and normalisations (LayerNorm) after them."""
    layers: list[nn.Module] = []
    for i, (dim_in, dim_out) in enumerate(itertools.pairwise(widths)):
        layers.append(nn.Linear(dim_in, dim_out))
        nn.init.kaiming_normal_(layers[-1].weight, a=0.2, nonlinearity="leaky_relu")
        is_last = i == len(widths) - 2
        if norm_out if is_last else norm_hidden:
            layers.append(nn.LayerNorm(dim_out))
        if not is_last:
            layers.append(nn.LeakyReLU(0.2))
    return layers


class MappingNetwork(nn.Sequential):
    """z, brought to length one per number, to a style: linear layers with leaky ReLUs between them.

    Args:
        latent_dim: size of z.
        style_dim: width.
        num_layers: linear layers.
        norm_hidden: normalise after each of them but the last one (LayerNorm).
        norm_out: normalise the style.
    """

    def __init__(
        self, latent_dim: int, style_dim: int, num_layers: int, norm_hidden: bool = False, norm_out: bool = False
    ) -> None:
        widths = [latent_dim, *[style_dim] * num_layers]
        super().__init__(*linear_layers(widths, norm_hidden, norm_out))
        self.latent_dim, self.style_dim, self.style_shape = latent_dim, style_dim, (style_dim,)

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(normalised(z))


class Mapping(nn.Module):
    """Both mapping networks.

    Args:
        shape, appearance: from their latents; also ``zoo.cips3d_extras.Heads``.
        features_from: whose style the field's features have: the shape's (released generators), or the appearance's
            through a linear layer, so that the field's colours follow the appearance (``generator_v1``).
    """

    def __init__(
        self,
        shape: nn.Module,
        appearance: nn.Module,
        features_from: Literal["shape", "appearance"] = "shape",
    ) -> None:
        super().__init__()
        self.shape, self.appearance = shape, appearance
        self.colour = nn.Linear(appearance.style_dim, shape.style_dim) if features_from == "appearance" else None

    def forward(self, latent: Latent) -> Styles:
        shape, appearance = self.shape(latent.shape), self.appearance(latent.appearance)
        return Styles(shape, shape if self.colour is None else self.colour(appearance), appearance)


# Generator


class Painted(NamedTuple):
    """What rays look like: final and auxiliary colours in [-1, 1] [B, R, 3], depth and opacity [B, R, 1]."""

    colour: Tensor
    auxiliary: Tensor
    depth: Tensor
    opacity: Tensor


class Generator(BaseGenerator):
    """Latents and cameras to images.

    Args:
        field: the shallow radiance field.
        inr: the deep network behind it.
        mapping: from latents to styles.
        volume: the renderer.
        poses: distribution of cameras.
        resolution: of images where none is asked for.
        bounds: world box of the object, two corners.
        chunk: rays of all images together that are worked on at once where no gradient is kept.
        empty: colour in (-1, 1) that rays which hit nothing have before training; None for about grey, as published.

    Raises:
        ValueError: one network's results are not as wide as what the next one takes.
    """

    def __init__(
        self,
        field: FilmSiren,
        inr: Inr,
        mapping: Mapping,
        volume: Renderer,
        poses: Poses,
        resolution: int = 64,
        bounds: tuple[tuple[float, float, float], tuple[float, float, float]] = ((-0.12,) * 3, (0.12,) * 3),
        chunk: int = 512,
        empty: float | None = None,
    ) -> None:
        super().__init__(poses, resolution, bounds)
        for ours, theirs, a, b in (
            (field.feature_dim, inr.feature_dim, "field.feature_dim", "inr.feature_dim"),
            (mapping.shape.style_dim, field.style_dim, "mapping.shape.style_dim", "field.style_dim"),
            (mapping.appearance.style_dim, inr.style_dim, "mapping.appearance.style_dim", "inr.style_dim"),
        ):
            if ours != theirs:
                raise ValueError(f"{a} ({ours}) and {b} ({theirs}) must be the same.")
        self.field, self.inr, self.mapping, self.volume, self.chunk = field, inr, mapping, volume, chunk
        self.auxiliary = nn.Linear(field.feature_dim, 3)
        init_readout(self.auxiliary, 25)
        if empty is not None:
            for layers in ([self.auxiliary], inr.readouts()):
                for layer in layers:
                    nn.init.constant_(layer.bias, math.atanh(empty) / len(layers))
        colour = mapping.shape.style_shape if mapping.colour is None else (mapping.shape.style_dim,)
        shapes = Styles(mapping.shape.style_shape, colour, mapping.appearance.style_shape)
        for name, shape in shapes._asdict().items():
            self.register_buffer(f"mean_{name}", torch.full((1, *shape), torch.nan))

    def latents(self, n: int, draws: Draws) -> Latent:
        """n latents."""
        return Latent(
            draws.normal("z_shape", (n, self.mapping.shape.latent_dim)),
            draws.normal("z_appearance", (n, self.mapping.appearance.latent_dim)),
        )

    def map(self, latent: Latent, *, truncation: float = 1.0) -> Styles:
        """Styles of latents; truncation below 1 moves them towards their means."""
        styles = self.mapping(latent)
        if truncation == 1:
            return styles
        return Styles(*(m + truncation * (s - m) for m, s in zip(self.mean_styles(), styles, strict=True)))

    @torch.no_grad()
    def mean_styles(self) -> Styles:
        """Mean styles [1, ...], over 10,000 fixed latents unless they are stored with the weights."""
        stored = Styles(self.mean_shape, self.mean_colour, self.mean_appearance)
        if not any(mean.isnan().any() for mean in stored):
            return stored
        draws = SampleDraws(0, [0], self.device, self.dtype)
        widths = Latent(self.mapping.shape.latent_dim, self.mapping.appearance.latent_dim)
        latent = Latent(
            *(draws.normal(f"mean_{n}", (1, 10_000, w))[0] for n, w in zip(Latent._fields, widths, strict=True))
        )
        return Styles(*(style.mean(0, keepdim=True) for style in self.mapping(latent)))

    def prepare(self) -> "Generator":
        """Compute what is stored with finished weights but not learned: the mean styles."""
        for name, mean in self.mean_styles()._asdict().items():
            getattr(self, f"mean_{name}").copy_(mean)
        return self

    def rays(self, camera: Camera, resolution: int) -> Rays:
        """Unit rays [B, R, 3] of all pixels, row by row; the outermost ones lie on the border of the field of view."""
        return through(camera, pixel_corners(resolution, self.device, camera.pose.dtype))

    def render(
        self,
        styles: Styles,
        camera: Camera,
        *,
        resolution: int | None = None,
        draws: Draws | None = None,
        density_noise: float = 0.0,
        gradient_rays: int | None = None,
        samples: int | None = None,
    ) -> Rendered:
        """Images of B styles from B cameras, at any resolution; ``raw`` are the colours read off the field itself.

        Args:
            styles: from ``map``.
            camera: B cameras.
            resolution: side of the image [pixels].
            draws: for jitter, importance samples, density noise and the choice of rays; None for none of them.
            density_noise: standard deviation of the noise on raw densities.
            gradient_rays: gradients pass through so many rays only, the same random ones in all images (section 3.4).
            samples: along a ray, and as many again where the renderer refines them; None for the renderer's own.
        """
        volume = self.volume if samples is None else with_samples(self.volume, samples)
        rays = self.rays(camera, resolution or self.resolution)
        batch, total = rays.origins.shape[:2]
        own = None if draws is None else RayDraws(draws, total)
        modulated = self.condition(styles), self.inr.modulate(styles.appearance)

        chunk, order = max(1, self.chunk // batch), None
        if not torch.is_grad_enabled():
            with_gradient, without = [], pieces(total, chunk)
        elif gradient_rays is None or gradient_rays >= total:
            with_gradient, without = [slice(None)], []
        elif draws is None:
            raise ValueError("Which rays keep a gradient is random: gradient_rays needs draws.")
        else:
            order = draws.shared("gradient_rays", (total,)).argsort()
            with_gradient, without = [order[:gradient_rays]], order[gradient_rays:].split(chunk)
        parts = [self.paint(volume, rays, own, part, modulated, density_noise) for part in with_gradient]
        with torch.no_grad():
            parts += [self.paint(volume, rays, own, part, modulated, density_noise) for part in without]
        painted = Painted(*(torch.cat(values, dim=1) for values in zip(*parts, strict=True)))
        if order is not None:
            place = order.argsort()
            painted = Painted(*(values[:, place] for values in painted))
        return Rendered(*(to_map(values) for values in painted))

    def paint(
        self,
        volume: Renderer,
        rays: Rays,
        draws: RayDraws | None,
        index: slice | Tensor,
        modulated: tuple[Any, Any],
        density_noise: float,
    ) -> Painted:
        """The rays with these indices."""
        some = Rays(*(None if x is None else x[:, index] for x in rays[:3]), rays.pose)
        sines, weights = modulated
        drawn = None if draws is None else draws.take(index)
        integrated = volume(self.field, some, sines, drawn, density_noise)
        features = integrated.features
        auxiliary = self.auxiliary(features).tanh()
        return Painted(self.inr(features, weights), auxiliary, expected_depth(integrated), integrated.opacity)

    def condition(self, styles: Styles) -> list[tuple[Tensor, Tensor]]:
        """Frequencies and phases of the sine layers."""
        return self.field.modulate(styles)


def pieces(total: int, length: int) -> list[slice]:
    """Slices of at most this length that cover the whole."""
    return [slice(start, start + length) for start in range(0, total, length)]


# Discriminators: towers of StyleGAN2's residual blocks, see ``zoo.layers.towers``


class Tower(nn.Module):
    """Scores images of several resolutions; images enter at the level of their size.

    Args:
        channels: widths of the levels, from 4x4 upwards.
        shrink_first: where blocks halve the resolution, see ``zoo.layers.towers.ResidualBlock``.
        group: images whose spread is shown to the last convolution; 0 for no such thing.
    """

    def __init__(self, channels: list[int], shrink_first: bool = False, group: int = 0) -> None:
        super().__init__()
        if group == 1:
            raise ValueError("The spread of a group of one image is nothing: give a group of 2 or more, or 0.")
        self.group = group
        self.from_rgb = nn.ModuleList(EqualConv(3, c, 1) for c in channels)
        self.blocks = nn.ModuleList(ResidualBlock(i, o, shrink_first) for o, i in itertools.pairwise(channels))
        self.final = EqualConv(channels[0] + (group > 0), channels[0], 3)
        self.dense = EqualLinear(16 * channels[0], channels[0])
        self.score = EqualLinear(channels[0], 1)

    def forward(self, images: Tensor, alpha: float = 1.0, passing: Passing = PASSING) -> Tensor:
        """Scores [B, 1] of images [B, 3, H, H]; below 1, alpha is the share of the first block in a blend.

        Raises:
            ValueError: the image's side is not that of a level.
        """
        sides = [4 * 2**i for i in range(len(self.from_rgb))]
        if images.shape[-1] not in sides:
            raise ValueError(
                f"This discriminator takes images of side {', '.join(map(str, sides))}, not {images.shape[-1]}."
            )
        level = sides.index(images.shape[-1])
        x = self.from_rgb[level](images, passing)
        for i in reversed(range(level)):
            x = self.blocks[i](x, passing)
            if i == level - 1 and alpha < 1:
                x = alpha * x + (1 - alpha) * self.from_rgb[i](avg_pool2d(images, 2), passing)
        if self.group:
            x = with_deviation(x, self.group)
        x = self.dense(self.final(x, passing).flatten(1), passing, gain=math.sqrt(2))
        return self.score(passing.bend(x), passing)


Augment = Callable[[Tensor, Draws], Any]


class Discriminator(nn.Module):
    """The tower for final images, and a smaller one for the colours of the field (section 3.3).

    Args:
        main, auxiliary: the towers.
    """

    def __init__(self, main: Tower, auxiliary: Tower) -> None:
        super().__init__()
        self.main, self.auxiliary = main, auxiliary

    @property
    def compares(self) -> bool:
        """Whether images of a batch are compared with each other."""
        return self.main.group > 0 or self.auxiliary.group > 0

    def forward(
        self,
        images: Tensor,
        alpha: float = 1.0,
        auxiliary: bool = False,
        augment: Augment | None = None,
        draws: Draws | None = None,
    ) -> Tensor:
        """Scores [B, 1] of images [B, 3, H, H].

        Args:
            images: for the main tower, or one half for each tower.
            alpha: see ``Tower``.
            auxiliary: whether the second half is for the auxiliary tower.
            augment: changes images at random before a tower sees them.
            draws: for ``augment``.
        """
        shares = self.shares(images, auxiliary, augment, draws)
        return torch.cat([tower(part, alpha) for tower, part in shares])

    def shares(
        self, images: Tensor, auxiliary: bool, augment: Augment | None, draws: Draws | None
    ) -> list[tuple[Tower, Tensor]]:
        """What each tower sees."""
        towers = [self.main, self.auxiliary] if auxiliary else [self.main]
        parts = images.chunk(len(towers))
        if augment is not None:
            parts = [augment(part, draws) for part in parts]
        return list(zip(towers, parts, strict=True))


# Training


@dataclass(frozen=True)
class Stage:
    """Part of a curriculum, a run of its own in the published program; the pictures' resolution is the data's to say.

    Args:
        start: its first iteration. All that is counted in iterations counts from here, and optimizers start anew.
        lr_g, lr_d: learning rates; None for those that the optimizers were made with.
        auxiliary_every: the auxiliary discriminator takes part every so many iterations; 0 for never.
        fade_iterations: the discriminator's newest level is blended in over these; 0 for at once.
        noise_iterations: the noise on densities falls linearly from 1 to 0 over these; 0 for no noise.
        augment: changes what the discriminator sees, such as ``zoo.layers.diffaugment.diffaugment``.
        frozen: parts of the generator that don't learn, such as "field"; they start from the first average's.
        gradient_rays: the generator learns from so many rays of each image; None for all.
        batch_split: slices of the batch that are generated one after the other, for memory; the generator's gradient is
            their sum, as published.
        average_start: iterations before the averages follow.
        samples: along each ray in training, see ``Generator.render``; pictures to look at have the renderer's own.
    """

    start: int = 0
    lr_g: float | None = None
    lr_d: float | None = None
    auxiliary_every: int = 1
    fade_iterations: int = 0
    noise_iterations: int = 5000
    augment: Augment | None = None
    frozen: tuple[str, ...] = ()
    gradient_rays: int | None = None
    batch_split: int = 1
    average_start: int = 1000
    samples: int | None = None


class CIPS3D(GAN):
    """The training algorithm of CIPS-3D: discriminators, then generator, every iteration.

    Args:
        r1_weight: gamma; half of it multiplies the R1 penalty.
        r1_every: the penalty is paid every so many iterations, and so many times.
        clip_norm: longest gradient of each network.
        stages: the curriculum, in order.
        precision: of the discriminators, but for R1.
        max_skips: as in ``zoo.gan.GAN``.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        optimizer_g: OptimizerFactory,
        optimizer_d: OptimizerFactory,
        averages: dict[str, Average] | None = None,
        seed: int = 0,
        r1_weight: float = 10.0,
        r1_every: int = 1,
        clip_norm: float = 10.0,
        stages: list[Stage] | None = None,
        precision: Precision = "float32",
        max_skips: int = 3,
    ) -> None:
        super().__init__(generator, discriminator, optimizer_g, optimizer_d, averages, seed, precision, max_skips)
        self.r1_weight, self.r1_every, self.clip_norm = r1_weight, r1_every, clip_norm
        self.stages = in_order(stages or [Stage()])
        parts = dict(generator.named_modules())
        if unknown := sorted({part for stage in self.stages for part in stage.frozen if part not in parts}):
            raise ValueError(f"The generator has no parts to freeze named {', '.join(unknown)}; it has 'field', ...")

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        real, draws, stage = batch["image"], self.draws(), self.stage
        optimizer_g, optimizer_d = self.optimizers()
        if self.since_start == 0:
            self.begin(stage, [optimizer_g, optimizer_d])
        for optimizer, lr in ((optimizer_g, stage.lr_g), (optimizer_d, stage.lr_d)):
            set_learning_rate(optimizer, lr)
        self.freeze(stage)

        with torch.no_grad():
            fake = self.fakes(real, draws)
        on_real = self.loss_real(real, draws)
        self.accumulate("loss_d", on_real, last=False)  # one after the other: half the memory
        on_real = {name: term.detach() for name, term in on_real.items()}
        self.minimise(optimizer_d, "loss_d", on_real | self.loss_fake(fake, draws), self.clip_norm)

        *first, final = self.slices(real, draws)
        with frozen(self.discriminator):
            for latent in (*first, final):
                fake = torch.cat(self.generate(latent, real, draws))
                self.accumulate("loss_g", self.loss_g(fake, draws), last=latent is final)
        self.step(optimizer_g, self.clip_norm)

        if self.since_start >= stage.average_start:
            for average in self.averages.values():
                average.update(self.generator)
        self.count(len(real))

    def begin(self, stage: Stage, optimizers: list) -> None:
        """What happens between two stages: optimizers forget, and what freezes is the best there is of it."""
        for optimizer in optimizers:
            optimizer.optimizer.state.clear()
        if self.averages:
            averaged = self.sampler
            for part in stage.frozen:
                self.generator.get_submodule(part).load_state_dict(averaged.get_submodule(part).state_dict())

    def freeze(self, stage: Stage) -> None:
        """Have those parts of the generator learn that shall."""
        self.generator.requires_grad_(True)
        for part in stage.frozen:
            self.generator.get_submodule(part).requires_grad_(False)

    def slices(self, real: Tensor, draws: Draws) -> list[Latent]:
        """Latents of as many images as there are real ones, in slices."""
        latent = self.generator.latents(len(real), draws)
        return [Latent(*parts) for parts in zip(*(z.chunk(self.stage.batch_split) for z in latent), strict=True)]

    def generate(self, latent: Latent, like: Tensor, draws: Draws) -> list[Tensor]:
        """Images from random cameras, as large as those given, and those of the field if needed."""
        rendered = self.generator(
            latent,
            self.generator.cameras(len(latent.shape), draws),
            resolution=like.shape[-1],
            draws=draws,
            density_noise=self.density_noise,
            gradient_rays=self.stage.gradient_rays,
            samples=self.stage.samples,
        )
        return [rendered.image, rendered.raw] if self.auxiliary else [rendered.image]

    def fakes(self, real: Tensor, draws: Draws) -> Tensor:
        """As many images as there are real ones; below them those of the field, if needed."""
        slices = [self.generate(latent, real, draws) for latent in self.slices(real, draws)]
        return torch.cat([torch.cat(parts) for parts in zip(*slices, strict=True)])

    def judge(self, images: Tensor, draws: Draws) -> Tensor:
        """Scores of both towers, or of the main one."""
        return self.discriminator(images, self.alpha, self.auxiliary, self.stage.augment, draws)

    def loss_real(self, real: Tensor, draws: Draws) -> dict[str, Tensor]:
        """What the discriminators pay for real images, by term; both towers weigh the same."""
        real = torch.cat([real, real]) if self.auxiliary else real
        if self.since_start % self.r1_every != 0:
            return {"real": judged_real(self.judge(real, draws))}
        real, weight = real.detach().requires_grad_(), 0.5 * self.r1_weight * self.r1_every
        with self.full_precision():
            if self.discriminator.compares:  # images with each other: R1 must be differentiated
                judged = self.judge(real, draws)
                return {"real": judged_real(judged), "r1": weight * r1_penalty(judged, real)}
            shares = self.discriminator.shares(real, self.auxiliary, self.stage.augment, draws)
            paid, r1 = real_and_r1(real, shares, self.alpha, weight)
        return {"real": paid, "r1": r1}

    def loss_fake(self, fake: Tensor, draws: Draws) -> dict[str, Tensor]:
        """What the discriminators pay for generated images."""
        return {"fake": judged_fake(self.judge(fake, draws))}

    def loss_g(self, fake: Tensor, draws: Draws) -> dict[str, Tensor]:
        """What the generator pays."""
        return {"fake": judged_real(self.judge(fake, draws))}

    @property
    def stage(self) -> Stage:
        """The stage of this iteration."""
        return current(self.stages, self.iterations)

    @property
    def since_start(self) -> int:
        """Iterations of this stage."""
        return self.iterations - self.stage.start

    @property
    def auxiliary(self) -> bool:
        """Whether the auxiliary discriminator takes part in this iteration."""
        every = self.stage.auxiliary_every
        return every > 0 and self.since_start % every == 0

    @property
    def alpha(self) -> float:
        """Share of the newest resolution in the discriminators' blend."""
        return rising(self.since_start, self.stage.fade_iterations)

    @property
    def density_noise(self) -> float:
        """Standard deviation of the noise on raw densities."""
        return falling(self.since_start, self.stage.noise_iterations)
