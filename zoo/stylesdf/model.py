"""StyleSDF: High-Resolution 3D-Consistent Image and Geometry Generation.

Or-El, Luo, Shan, Shechtman, Park, Kemelmacher-Shlizerman, CVPR 2022, arXiv:2112.11427.

What is unusual:

* the field is a signed distance: a density follows from it by one learned number, which becomes sharper while training
  goes on, so that an object has one surface, and meshes need no level to be chosen;
* two stages: first the volume renderer alone learns to make images of 64x64 pixels, then a StyleGAN2 learns to make
  large ones of its features, while the renderer stays as it is;
* the cameras' angles are what the first discriminator has to guess: no camera of a real image is known.

The field and how it is rendered are in ``field.py``, the StyleGAN2 in ``decoder.py``; here is the generator that is
made of them.

B batch, L layers of the decoder, D size of its latents, R rays, N points
"""

from copy import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from zoo import generator
from zoo.draws import Draws, SampleDraws
from zoo.render import (
    Camera,
    Integrated,
    Poses,
    Rays,
    Rendered,
    VolumeRenderer,
    expected_depth,
    pixel_centres,
    through,
    to_map,
)
from zoo.render.query import raw_density
from zoo.stylesdf.decoder import Decoder
from zoo.stylesdf.field import DifferentiablePoints, SDFField, SigmoidDensity
from zoo.utils.errors import UserError
from zoo.utils.host_numbers import number
from zoo.utils.ranges import at_least


class Latent(NamedTuple):
    """z [B, latent_dim], standard normal."""

    z: Tensor


class Styles(NamedTuple):
    """w [B, style_dim] of the field, and latents [B, L, D] of the decoder, where there is one."""

    w: Tensor
    latents: Tensor | None = None


class Mapping(nn.Module):
    """z to w: plain linear layers with leaky relus.

    Args:
        latent_dim: size of z.
        style_dim: size of w.
        layers: how many.
    """

    def __init__(self, latent_dim: int, style_dim: int, layers: int = 3) -> None:
        at_least(1, self, latent_dim=latent_dim, style_dim=style_dim, layers=layers)
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(style_dim if i else latent_dim, style_dim) for i in range(layers))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, a=0.2, nonlinearity="leaky_relu")

    def forward(self, z: Tensor) -> Tensor:
        """[B, latent_dim] to [B, style_dim]."""
        for layer in self.layers:
            z = leaky_relu(layer(z), 0.2)
        return z


class Generator(generator.Generator[Latent, Styles]):
    """Latents and cameras to images.

    Args:
        field: signed distances, colours and features.
        renderer: of the field.
        poses: distribution of cameras.
        decoder: makes large images of rendered features; None for the first stage alone, whose images have any side.
        latent_dim: size of z.
        mapping_layers: layers of the mapping network.
        render_side: side of rendered images [pixels], without a decoder: a decoder says its own.
        truncates_twice: the decoder's latents are those of the truncated w, truncated once more, as published; else
            those of w as it was, truncated once.
        density_noise: standard deviation of noise on what the field gives, for one of densities (raw_noise_std).
        bounds: world box of the object, two corners.
    """

    mean_w: Tensor

    def __init__(
        self,
        field: SDFField,
        renderer: VolumeRenderer,
        poses: Poses,
        decoder: Decoder | None = None,
        latent_dim: int = 256,
        mapping_layers: int = 3,
        render_side: int = 64,
        truncates_twice: bool = True,
        density_noise: float = 0.0,
        bounds: tuple[tuple[float, float, float], tuple[float, float, float]] = ((-0.12,) * 3, (0.12,) * 3),
    ) -> None:
        at_least(1, self, latent_dim=latent_dim, mapping_layers=mapping_layers, render_side=render_side)
        at_least(0, self, density_noise=density_noise)
        super().__init__(poses, render_side if decoder is None else decoder.resolution, bounds)
        if decoder is not None and (decoder.feature_dim, decoder.style_dim) != (field.hidden_dim, field.style_dim):
            raise UserError(
                f"The field has {field.hidden_dim} features and {field.style_dim} numbers of w, but the decoder takes "
                f"{decoder.feature_dim} and {decoder.style_dim}: give it feature_dim and style_dim as those."
            )
        self.field, self.renderer, self.decoder = field, renderer, decoder
        self.latent_dim, self.render_side = latent_dim, render_side if decoder is None else decoder.render_side
        self.truncates_twice, self.density_noise = truncates_twice, density_noise
        self.mapping = Mapping(latent_dim, field.style_dim, mapping_layers)
        self.register_buffer("mean_w", torch.full((field.style_dim,), torch.nan))

    # Latents and styles

    def latents(self, n: int, draws: Draws) -> Latent:
        """n latents."""
        return Latent(draws.normal("z", (n, self.latent_dim)))

    def map(self, latents: Latent, *, truncation: float = 1.0, condition: Camera | None = None) -> Styles:
        """Styles of latents; truncation below 1 moves them towards their means, see ``truncates_twice``."""
        w = self.mapping(latents.z)
        styles = self.styles(w)
        return styles if truncation == 1 else self.truncate(styles, truncation, *self.means())

    def styles(self, w: Tensor, other: Tensor | None = None, cut: int = 0) -> Styles:
        """Styles of w; the decoder's layers from ``cut`` on get those of another w, if there is one."""
        return Styles(w, None if self.decoder is None else self.decoder.latents(w, other, cut))

    def truncate(
        self, styles: Styles, truncation: float, mean_w: Tensor, mean_latent: Tensor | None, *mixed: Tensor | int
    ) -> Styles:
        """Styles that are moved towards means.

        Args:
            truncation: share of the way from the means that is kept.
            mean_w, mean_latent: means of w and of the decoder's latents, from ``means``.
            mixed: another w and the first layer that has it, as of ``styles``, for truncated twice.
        """
        w = torch.lerp(mean_w.expand_as(styles.w), styles.w, truncation)
        if self.decoder is None:
            return Styles(w)
        latents = styles.latents
        if self.truncates_twice:
            others = [torch.lerp(mean_w.expand_as(x), x, truncation) if isinstance(x, Tensor) else x for x in mixed]
            latents = self.decoder.latents(w, *others)
        return Styles(w, torch.lerp(mean_latent.expand_as(latents), latents, truncation))

    @torch.no_grad()
    def means(self) -> tuple[Tensor, Tensor | None]:
        """Mean w [style_dim] and mean latent of the decoder [D], of 10,000 fixed z unless they are stored."""
        stored = self.mean_w, None if self.decoder is None else self.decoder.mean_latent
        if not any(mean is not None and mean.isnan().any() for mean in stored):
            return stored
        z = SampleDraws(0, [0], self.device, self.dtype).normal("mean_styles", (1, 10_000, self.latent_dim))[0]
        return self.means_of(z)

    def means_of(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Means as of ``means``, of these z; the decoder's is that of w as it is."""
        w = self.mapping(z)
        return w.mean(0), None if self.decoder is None else self.decoder.mapping(w).mean(0)

    def prepare(self) -> "Generator":
        """Compute what a bundle stores beside what was learned: the means."""
        mean_w, mean_latent = self.means()
        self.mean_w.copy_(mean_w)
        if self.decoder is not None:
            self.decoder.mean_latent.copy_(mean_latent)
        return self

    def free_parameters(self, styles: Styles) -> dict[str, Tensor]:
        """w and, where there is a decoder, its latents."""
        return {name: part for name, part in styles._asdict().items() if part is not None}

    # Images

    def rays(self, camera: Camera, resolution: int) -> Rays:
        """Rays [B, R, 3] through the centres of all pixels, row by row, of length one along the optical axis."""
        return through(camera, pixel_centres(resolution, self.device, camera.pose.dtype), unit=False)

    def image_side(self, resolution: int | None = None) -> int:
        """The side that is asked for; with a decoder, if it is its own."""
        side = super().image_side(resolution)
        if self.decoder is not None and side != self.resolution:
            raise UserError(f"This StyleSDF's decoder makes images of side {self.resolution}, not {side}.")
        return side

    def render(
        self, styles: Styles, camera: Camera, *, resolution: int | None = None, draws: Draws | None = None
    ) -> Rendered:
        """Images of B styles from B cameras; while its decoder is not trained yet, rendered ones, enlarged.

        Depth and opacity are those of all samples but the last, which stands for the background.

        Args:
            resolution: side of the image [pixels]; without a decoder, any.
            draws: for jitter and image noise; None for neither: the stored noise.
        """
        side, decoder = self.image_side(resolution), self.decoder
        decodes = decoder is not None and number(decoder.trained) != 0
        integrated = self.integrate(styles, camera, side if decoder is None else self.render_side, draws, decodes)
        raw = image = to_map(integrated.features[..., :3]) * 2 - 1
        if decodes:
            image = decoder(to_map(integrated.features[..., 3:]), styles.latents, draws)
        elif decoder is not None:
            image = interpolate(raw, side, mode="bilinear")
        solid = without_last(integrated)
        # Depths count in lengths of rays that are not unit ones.
        norms = integrated.samples.directions.norm(dim=-1, keepdim=True)
        return Rendered(image, raw, to_map(expected_depth(solid) * norms), to_map(solid.opacity))

    def integrate(
        self,
        styles: Styles,
        camera: Camera,
        side: int,
        draws: Draws | None,
        with_features: bool = False,
        differentiable: bool = False,
    ) -> Integrated:
        """Colours in [0, 1], with features after them, and what they were made from: ``raw`` are signed distances.

        Args:
            side: of the image [pixels].
            differentiable: ``samples.positions`` are world points that distances can be differentiated by.
        """
        renderer = self.renderer
        if differentiable:
            renderer = copy(renderer)
            renderer.depths = DifferentiablePoints(self.renderer.depths)
        condition = self.field.condition(styles.w, camera.pose, with_features)
        return renderer(self.field, self.rays(camera, side), condition, draws, self.density_noise)

    # Geometry

    def density(self, points: Tensor, styles: Styles) -> Tensor:
        """Density per world length [B, N, 1] at points [B, N, 3]."""
        return self.renderer.density(points, self.field, self.field.condition(styles.w))

    def signed_distance(self, points: Tensor, styles: Styles) -> Tensor:
        """Distance from the surface [B, N, 1] at world points [B, N, 3], negative inside [world units].

        Raises:
            UserError: the field is one of densities.
        """
        if not isinstance(self.renderer.quadrature.density, SigmoidDensity):
            raise UserError("This StyleSDF renders densities, not distances: it has no surface.")
        return raw_density(points, self.field, self.field.condition(styles.w), self.renderer.plan)[:, :, 0]


def without_last(integrated: Integrated) -> Integrated:
    """Depth, opacity and weights without the last sample.

    Its interval has no end as published, so it takes all light that is left, however far it is from the surface: a
    density that is nowhere zero makes every ray opaque.
    """
    weights = integrated.weights[..., :-1]
    depth = (weights * integrated.samples.t[..., :-1]).sum(-1, keepdim=True)
    return integrated._replace(depth=depth, opacity=weights.sum(-1, keepdim=True), weights=weights)
