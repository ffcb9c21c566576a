"""CIPS-3D: A 3D-Aware Generator of GANs Based on Conditionally-Independent Pixel Synthesis.

Zhou, Xie, Ni, Tian, 2021, arXiv:2110.09788.

What is unusual:

* a shallow radiance field (three sine layers) gives the shape, and one feature per ray; a deep network turns each ray's
  feature into a colour. Neither looks at neighbouring pixels: no convolution, no upsampling, any resolution;
* shape and appearance have a latent and a mapping network each;
* rays are independent, so gradients may be kept for some of them only, and only those take memory;
* the deep network could hide a mirrored shape, so a second discriminator scores colours of the field itself.

B batch, R rays, S samples, N = R S points, C channels, H image side
"""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from zoo import generator
from zoo.cips3d.inr import Inr, init_rgb_layer, layer_style
from zoo.draws import Draws, RayDraws, SampleDraws
from zoo.layers.stylegan2 import normalise
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
    with_sample_count,
)
from zoo.render.plan import Chunk, Plan, Work, check_chunk, differentiable, layout_of
from zoo.utils.errors import UserError
from zoo.utils.ranges import above, at_least, given, inside


class Latent(NamedTuple):
    """Standard normal numbers for the shape [B, C] and for the appearance [B, D]."""

    z_shape: Tensor
    z_appearance: Tensor


class Styles(NamedTuple):
    """Mapped codes: of the field's density and, the same in most generators, of its features; of the appearance.

    Each is the same for all layers [B, C], or has one for every layer [B, L, C].
    """

    shape: Tensor
    colour: Tensor
    appearance: Tensor


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
        """Not folded into the weights: the rounding of that would be seen in images, through importance sampling."""
        x = self.linear(x)
        if torch.is_grad_enabled():
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
        at_least(1, self, num_layers=num_layers, feature_dim=feature_dim, style_dim=style_dim)
        at_least(2, self, hidden_dim=hidden_dim)
        above(0, self, input_scale=input_scale)
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
        trunk = [layer.modulate(layer_style(styles.shape, i)) for i, layer in enumerate(self.layers)]
        return [*trunk, self.colour_sine.modulate(layer_style(styles.colour, -1))]

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
        at_least(1, self, latent_dim=latent_dim, style_dim=style_dim, num_layers=num_layers)
        widths = [latent_dim, *[style_dim] * num_layers]
        super().__init__(*linear_layers(widths, norm_hidden, norm_out))
        self.latent_dim, self.style_dim, self.style_shape = latent_dim, style_dim, (style_dim,)

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(normalise(z))


class Mapping(nn.Module):
    """Both mapping networks.

    Args:
        shape, appearance: from their latents; also ``zoo.cips3d.Heads``.
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
        shape, appearance = self.shape(latent.z_shape), self.appearance(latent.z_appearance)
        return Styles(shape, shape if self.colour is None else self.colour(appearance), appearance)


# Generator


class RenderedRays(NamedTuple):
    """Final and auxiliary colours of rays in [-1, 1] [B, R, 3], depth and opacity [B, R, 1]."""

    colour: Tensor
    auxiliary: Tensor
    depth: Tensor
    opacity: Tensor


class Generator(generator.Generator[Latent, Styles]):
    """Latents and cameras to images.

    Args:
        field: the shallow radiance field.
        inr: the deep network behind it.
        mapping: from latents to styles.
        renderer: the renderer.
        poses: distribution of cameras.
        resolution: default side of images [pixels].
        bounds: world box of the object, two corners.
        chunk: rays of all images together that are worked on at once where no gradient is kept; ``auto`` as
            ``zoo.render.plan`` decides, None for all.
        empty: colour in (-1, 1) that rays which hit nothing have before training; None for about grey, as published.

    Raises:
        UserError: one network's results are not as wide as what the next one takes.
    """

    def __init__(
        self,
        field: FilmSiren,
        inr: Inr,
        mapping: Mapping,
        renderer: Renderer,
        poses: Poses,
        resolution: int = 64,
        bounds: tuple[tuple[float, float, float], tuple[float, float, float]] = ((-0.12,) * 3, (0.12,) * 3),
        chunk: Chunk = "auto",
        empty: float | None = None,
    ) -> None:
        check_chunk(chunk, self)
        inside(-1, 1, self, **given(empty=empty))
        super().__init__(poses, resolution, bounds)
        for ours, theirs, a, b in (
            (field.feature_dim, inr.feature_dim, "field.feature_dim", "inr.feature_dim"),
            (mapping.shape.style_dim, field.style_dim, "mapping.shape.style_dim", "field.style_dim"),
            (mapping.appearance.style_dim, inr.style_dim, "mapping.appearance.style_dim", "inr.style_dim"),
        ):
            if ours != theirs:
                raise UserError(f"{a} ({ours}) and {b} ({theirs}) must be the same.")
        self.field, self.inr, self.mapping, self.renderer, self.chunk = field, inr, mapping, renderer, chunk
        self.plan = Plan()
        self.auxiliary = nn.Linear(field.feature_dim, 3)
        init_rgb_layer(self.auxiliary, 25)
        if empty is not None:
            for layers in ([self.auxiliary], inr.rgb_layers()):
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

    def map(self, latents: Latent, *, truncation: float = 1.0, condition: Camera | None = None) -> Styles:
        """Styles of latents; truncation below 1 moves them towards their means."""
        styles = self.mapping(latents)
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
        latent = Latent(
            draws.normal("mean_shape", (1, 10_000, self.mapping.shape.latent_dim))[0],
            draws.normal("mean_appearance", (1, 10_000, self.mapping.appearance.latent_dim))[0],
        )
        return Styles(*(style.mean(0, keepdim=True) for style in self.mapping(latent)))

    def prepare(self) -> "Generator":
        """Compute what a bundle stores beside what was learned: the mean styles."""
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
            draws: for jitter, importance samples, density noise and the choice of rays; None for none of them.
            density_noise: standard deviation of the noise on raw densities.
            gradient_rays: gradients pass through so many rays only, the same random ones in all images (section 3.4).
            samples: along a ray, and as many again where the renderer refines them; None for the renderer's own.
        """
        renderer = self.renderer if samples is None else with_sample_count(self.renderer, samples)
        rays = self.rays(camera, self.image_side(resolution))
        batch, total = rays.origins.shape[:2]
        own = None if draws is None else RayDraws(draws, total)
        modulated = self.field.modulate(styles), self.inr.modulate(styles.appearance)

        at_once = self.rays_at_once(renderer, rays, modulated)
        chunk, order = max(1, batch * total if at_once is None else at_once // batch), None
        if not torch.is_grad_enabled():
            with_gradient, without = [], chunk_slices(total, chunk)
        elif gradient_rays is None or gradient_rays >= total:
            with_gradient, without = [slice(None)], []
        elif draws is None:
            raise UserError("Which rays keep a gradient is random: gradient_rays needs draws.")
        else:
            order = draws.shared("gradient_rays", (total,)).argsort()
            with_gradient, without = [order[:gradient_rays]], order[gradient_rays:].split(chunk)
        parts = [self.render_rays(renderer, rays, own, part, modulated, density_noise) for part in with_gradient]
        with torch.no_grad():
            parts += [self.render_rays(renderer, rays, own, part, modulated, density_noise) for part in without]
        rendered = RenderedRays(*(torch.cat(values, dim=1) for values in zip(*parts, strict=True)))
        if order is not None:
            place = order.argsort()
            rendered = RenderedRays(*(values[:, place] for values in rendered))
        return Rendered(*(to_map(values) for values in rendered))

    def rays_at_once(self, renderer: Renderer, rays: Rays, modulated: tuple[Any, Any]) -> int | None:
        """Rays of all images to work on at once where no gradient is kept."""
        batch, total = rays.origins.shape[:2]
        device = rays.origins.device

        def some(count: int) -> RenderedRays:
            first = torch.zeros(count, dtype=torch.long, device=device)
            return self.render_rays(renderer, rays, None, first, differentiable(modulated), 0.0)

        depths = [getattr(renderer, name, None) for name in ("depths", "fine")]
        layout = partial(layout_of, self.inr, device, modulated, depths)
        work = Work(device, batch * total, 0, layout, some, points_of_one=batch, unit="rays")
        return self.plan.strategy(self.chunk, work).at_once

    def render_rays(
        self,
        renderer: Renderer,
        rays: Rays,
        draws: RayDraws | None,
        index: slice | Tensor,
        modulated: tuple[Any, Any],
        density_noise: float,
    ) -> RenderedRays:
        """The rays with these indices."""
        some = Rays(*(None if x is None else x[:, index] for x in rays[:3]), rays.pose)
        sines, weights = modulated
        drawn = None if draws is None else draws.take(index)
        integrated = renderer(self.field, some, sines, drawn, density_noise)
        features = integrated.features
        auxiliary = self.auxiliary(features).tanh()
        return RenderedRays(self.inr(features, weights), auxiliary, expected_depth(integrated), integrated.opacity)

    def density(self, points: Tensor, styles: Styles) -> Tensor:
        """Density per world length [B, N, 1] at points [B, N, 3]."""
        return self.renderer.density(points, self.field, self.field.modulate(styles))


def chunk_slices(total: int, length: int) -> list[slice]:
    """Slices of at most this length that cover the whole."""
    return [slice(start, start + length) for start in range(0, total, length)]


Augment = Callable[[Tensor, Draws], Any]
