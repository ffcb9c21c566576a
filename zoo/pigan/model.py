"""pi-GAN: Periodic Implicit Generative Adversarial Networks for 3D-Aware Image Synthesis.

Chan, Monteiro, Kellnhofer, Wu, Wetzstein, CVPR 2021, arXiv:2012.00926.

What is unusual:

* the radiance field is a SIREN, all sines; a latent acts only through the frequency and phase of each layer (FiLM);
* the image is rendered from that field directly, without any convolution, so views are consistent by construction;
* the discriminator grows with the resolution, and may predict the latent and the camera of generated images.

B batch, R rays, S samples, N = R S points, L sine layers, C channels
"""

import itertools
import math
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, leaky_relu

from zoo import generator
from zoo.draws import Draws, SampleDraws
from zoo.layers.coordconv import CoordBlock
from zoo.layers.discriminator import DiscriminatorOutput
from zoo.layers.film import fold, sine
from zoo.render import Camera, Poses, Rays, Rendered, Renderer, Samples, expected_depth, pixel_corners, through, to_map
from zoo.utils.errors import UserError
from zoo.utils.ranges import above, at_least, filled


class Latent(NamedTuple):
    """z [B, latent_dim], standard normal."""

    z: Tensor


class Styles(NamedTuple):
    """FiLM pairs as the mapping network gives them: frequencies and phases, both [B, L, C]."""

    frequencies: Tensor
    phases: Tensor


class MappingNetwork(nn.Module):
    """z to the frequency and phase of every sine unit (section 3.1): an MLP of three hidden layers."""

    def __init__(self, latent_dim: int, hidden_dim: int, num_layers: int, film_dim: int) -> None:
        super().__init__()
        self.film = (num_layers, film_dim)
        widths = [latent_dim, hidden_dim, hidden_dim, hidden_dim, 2 * num_layers * film_dim]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(widths))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, a=0.2, nonlinearity="leaky_relu")
        with torch.no_grad():
            self.layers[-1].weight *= 0.25

    def forward(self, z: Tensor) -> Styles:
        for layer in self.layers[:-1]:
            z = leaky_relu(layer(z), 0.2)
        frequencies, phases = self.layers[-1](z).chunk(2, dim=-1)
        return Styles(frequencies.unflatten(-1, self.film), phases.unflatten(-1, self.film))


class SpatialEmbedding(nn.Module):
    """A learned cube of features [1, C, D, D, D] over [-1, 1]^3, interpolated trilinearly; zero outside."""

    def __init__(self, channels: int, resolution: int, std: float = 0.01) -> None:
        at_least(1, self, channels=channels, resolution=resolution)
        at_least(0, self, std=std)
        super().__init__()
        self.cube = nn.Parameter(torch.randn(1, channels, resolution, resolution, resolution) * std)

    def forward(self, points: Tensor) -> Tensor:
        """Features [B, N, C] at points [B, N, 3]."""
        grid = points[:, None, None].to(self.cube.dtype)
        cube = self.cube.expand(len(points), -1, -1, -1, -1)
        return grid_sample(cube, grid, align_corners=True)[:, :, 0, 0].mT


class FilmSiren(nn.Module):
    """The radiance field (section 3.1, figure 2): sine layers modulated by styles, then density and colour.

    Args:
        hidden_dim: width.
        num_layers: sine layers before the density head; the colour has one more.
        input_scale: multiplies world points, so that the object fills about [-1, 1]^3.
        embedding: optional cube of features that joins the first layer's input.
    """

    def __init__(
        self,
        hidden_dim: int = 256,
        num_layers: int = 8,
        input_scale: float = 1.0,
        embedding: SpatialEmbedding | None = None,
    ) -> None:
        at_least(1, self, hidden_dim=hidden_dim, num_layers=num_layers)
        above(0, self, input_scale=input_scale)
        super().__init__()
        self.hidden_dim, self.num_layers, self.input_scale = hidden_dim, num_layers, input_scale
        self.embedding = embedding
        first = 3 + (0 if embedding is None else embedding.cube.shape[1])
        self.layers = nn.ModuleList(nn.Linear(first if i == 0 else hidden_dim, hidden_dim) for i in range(num_layers))
        self.density = nn.Linear(hidden_dim, 1)
        self.colour_sine = nn.Linear(3 + hidden_dim, hidden_dim)
        self.colour = nn.Linear(hidden_dim, 3)
        nn.init.uniform_(self.layers[0].weight, -1 / 3, 1 / 3)
        for layer in [*self.layers[1:], self.density, self.colour_sine, self.colour]:
            bound = math.sqrt(6 / layer.in_features) / 25
            nn.init.uniform_(layer.weight, -bound, bound)

    def modulate(self, styles: Styles) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases of all sine layers for B styles, see ``zoo.layers.film.fold``."""
        frequencies, phases = 15 * styles.frequencies + 30, styles.phases
        layers = [*self.layers, self.colour_sine]
        return [fold(*of) for of in zip(layers, frequencies.unbind(1), phases.unbind(1), strict=True)]

    def forward(
        self, samples: Samples, sines: list[tuple[Tensor, Tensor]], lock_view: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Raw density [B, R, S, 1] and colour in [0, 1] [B, R, S, 3].

        Args:
            samples: B x R x S of them.
            sines: from ``modulate``.
            lock_view: whether the colour is as if everything were seen along -z.
        """
        points = samples.points.flatten(1, 2) * self.input_scale
        x = points if self.embedding is None else torch.cat([self.embedding(points), points], dim=-1)
        *trunk, last = sines
        for weight, bias in trunk:
            x = sine(x, weight, bias)
        raw = self.density(x)
        directions = samples.directions
        if lock_view:
            directions = directions.new_tensor([0.0, 0.0, -1.0]).expand_as(directions)
        directions = directions.repeat_interleave(samples.t.shape[-1], dim=1)
        colour = self.colour(sine(torch.cat([directions, x], dim=-1), *last)).sigmoid()
        return raw.unflatten(1, samples.t.shape[1:]), colour.unflatten(1, samples.t.shape[1:])


class Generator(generator.Generator[Latent, Styles]):
    """Latents and cameras to images.

    Args:
        field: the radiance field.
        renderer: the renderer.
        poses: distribution of cameras.
        latent_dim: size of z.
        mapping_dim: width of the mapping network.
        resolution: default side of images [pixels].
        bounds: world box of the object, two corners.
    """

    def __init__(
        self,
        field: FilmSiren,
        renderer: Renderer,
        poses: Poses,
        latent_dim: int = 256,
        mapping_dim: int = 256,
        resolution: int = 64,
        bounds: tuple[tuple[float, float, float], tuple[float, float, float]] = ((-0.12,) * 3, (0.12,) * 3),
    ) -> None:
        at_least(1, self, latent_dim=latent_dim, mapping_dim=mapping_dim)
        super().__init__(poses, resolution, bounds)
        self.field, self.renderer, self.latent_dim = field, renderer, latent_dim
        self.mapping = MappingNetwork(latent_dim, mapping_dim, field.num_layers + 1, field.hidden_dim)
        shape = (1, field.num_layers + 1, field.hidden_dim)
        self.register_buffer("mean_frequencies", torch.full(shape, torch.nan))
        self.register_buffer("mean_phases", torch.full(shape, torch.nan))

    def latents(self, n: int, draws: Draws) -> Latent:
        """n latents."""
        return Latent(draws.normal("z", (n, self.latent_dim)))

    def map(self, latents: Latent, *, truncation: float = 1.0, condition: Camera | None = None) -> Styles:
        """Frequencies and phases of latents; truncation below 1 moves them towards their means (section 4.4)."""
        styles = self.mapping(latents.z)
        if truncation == 1:
            return styles
        mean = self.mean_styles()
        return Styles(*(m + truncation * (s - m) for m, s in zip(mean, styles, strict=True)))

    @torch.no_grad()
    def mean_styles(self) -> Styles:
        """Mean frequencies and phases [1, L, C], over 10,000 fixed latents unless they are stored with the weights."""
        stored = Styles(self.mean_frequencies, self.mean_phases)
        if not stored.frequencies.isnan().any():
            return stored
        z = SampleDraws(0, [0], self.device, self.dtype).normal("mean_styles", (1, 10_000, self.latent_dim))[0]
        return Styles(*(x.mean(0, keepdim=True) for x in self.mapping(z)))

    def prepare(self) -> "Generator":
        """Compute what a bundle stores beside what was learned: the mean styles."""
        styles = self.mean_styles()
        self.mean_frequencies.copy_(styles.frequencies)
        self.mean_phases.copy_(styles.phases)
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
        lock_view: bool = False,
    ) -> Rendered:
        """Images of B styles from B cameras, at any resolution.

        Args:
            draws: for jitter, importance samples and density noise; None for none of them.
            density_noise: standard deviation of the noise on raw densities.
            lock_view: the colour sees every ray as coming from the front; the geometry is the same.
        """
        rays = self.rays(camera, self.image_side(resolution))
        field = partial(self.field, lock_view=True) if lock_view else self.field
        integrated = self.renderer(field, rays, self.field.modulate(styles), draws, density_noise)
        image = to_map(integrated.features) * 2 - 1
        return Rendered(image, image, to_map(expected_depth(integrated)), to_map(integrated.opacity))

    def density(self, points: Tensor, styles: Styles) -> Tensor:
        """Density per world length [B, N, 1] at points [B, N, 3]."""
        return self.renderer.density(points, self.field, self.field.modulate(styles))


# Discriminator


class Discriminator(nn.Module):
    """Scores images of several resolutions; images enter at the level of their size (section 3.3).

    Args:
        channels: widths of the levels, from the largest images to 2x2: image side 2^len(channels) enters first.
        coordinates: whether convolutions get row and column as input (CoordConv).
        downsample: how a block halves the resolution.
        latent_dim: size of the latent to guess, together with pitch and yaw; 0 for neither.
    """

    def __init__(
        self,
        channels: list[int],
        coordinates: bool = True,
        downsample: Literal["stride", "pool"] = "stride",
        latent_dim: int = 256,
    ) -> None:
        filled(self, channels=channels)
        at_least(1, self, channels=channels)
        at_least(0, self, latent_dim=latent_dim)
        super().__init__()
        self.latent_dim, self.pool = latent_dim, downsample == "pool"
        self.from_rgb = nn.ModuleList(nn.Conv2d(3, c, 1) for c in channels)
        pairs = itertools.pairwise(channels)
        self.blocks = nn.ModuleList(CoordBlock(i, o, coordinates, downsample) for i, o in pairs)
        self.final = nn.Conv2d(channels[-1], 1 + (latent_dim + 2 if latent_dim else 0), 2)

    def forward(self, images: Tensor, alpha: float = 1.0) -> DiscriminatorOutput:
        """Scores of images [B, 3, H, H], with guesses of the latent and of pitch and yaw if there are any.

        Below 1, alpha is the share of the first block in a blend with a half-size image.

        Raises:
            UserError: the image's side is not a power of two that a level takes.
        """
        levels = len(self.from_rgb)
        level = levels - round(math.log2(images.shape[-1]))
        if not 0 <= level < levels or 2 ** (levels - level) != images.shape[-1]:
            sides = ", ".join(str(2 ** (i + 1)) for i in range(levels))
            raise UserError(f"This discriminator takes images of side {sides}, not {images.shape[-1]}.")
        x = leaky_relu(self.from_rgb[level](images), 0.2)
        for i, block in enumerate(self.blocks[level:]):
            if i == 1 and (alpha < 1 or self.pool):
                small = leaky_relu(self.from_rgb[level + 1](images[..., ::2, ::2]), 0.2)
                x = alpha * x + (1 - alpha) * small
            x = block(x)
        output = self.final(x).flatten(1)
        if not self.latent_dim:
            return DiscriminatorOutput(output)
        return DiscriminatorOutput(output[:, :1], output[:, 1:-2], output[:, -2:])
