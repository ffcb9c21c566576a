"""GRAF: Generative Radiance Fields for 3D-Aware Image Synthesis.

Schwarz, Liao, Niemeyer, Geiger, NeurIPS 2020, arXiv:2007.02442.

What is unusual:

* the radiance field is a NeRF with two codes: one for the shape, which the density sees, and one for the appearance,
  which only the colour sees; there is no mapping network;
* the discriminator never sees a whole image, only patches of K x K points: a coarse grid over the whole image or a fine
  one over a part of it, and generated patches cost K x K rays whatever the resolution of the images is;
* patches start as large as the image and may become smaller as training goes on, so that detail comes last.

The published world has z up; here y is up. ``z_up`` leads from one to the other, in front of the field.

B batch, R rays, S samples, N = R S points, K side of a patch, C channels
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, instance_norm, leaky_relu, linear, normalize
from torch.nn.utils import spectral_norm
from torch.optim import Optimizer

from zoo.draws import Draws
from zoo.gan import GAN, Average, OptimizerFactory, frozen
from zoo.generator import BaseGenerator, density_at
from zoo.layers.encoding import positional_encoding
from zoo.losses import judged_fake, judged_real, r1_penalty
from zoo.precision import Precision
from zoo.render import (
    Camera,
    FineDepths,
    Integrated,
    Poses,
    Rays,
    Rendered,
    Renderer,
    Samples,
    Volume,
    expected_depth,
    orbit_cameras,
    to_map,
)


class Latent(NamedTuple):
    """Codes of shape [B, C] and appearance [B, C]."""

    shape: Tensor
    appearance: Tensor


def gaussian(n: int, size: int, draws: Draws) -> Tensor:
    """Codes [n, size], standard normal."""
    return draws.normal("z", (n, size))


def uniform(n: int, size: int, draws: Draws) -> Tensor:
    """Codes [n, size], uniform in [-1, 1]."""
    return 2 * draws.uniform("z", (n, size)) - 1


# Where the cameras are, and which rays they see


@dataclass(frozen=True)
class OnSphere:
    """Cameras on a part of a sphere around the origin, evenly by area, looking at it (section 4, supplement table 4).

    Angles are measured as published: the azimuth around the vertical, the polar angle from straight up. They are
    computed in double precision, also as published.

    Args:
        azimuth_deg, polar_deg: ranges [degrees].
        radius: range of distances from the origin [world units].
        fov_deg: field of view of the whole image, both ways [degrees].
    """

    azimuth_deg: tuple[float, float] = (0.0, 360.0)
    polar_deg: tuple[float, float] = (0.0, 85.0)
    radius: tuple[float, float] = (10.0, 10.0)
    fov_deg: float = 30.0

    def __call__(self, n: int, draws: Draws | None) -> Camera:
        if draws is None:
            middle = (sum(ends) / 2 for ends in (self.azimuth_deg, self.polar_deg, self.radius))
            azimuth, polar, radius = (torch.full((n, 1), x, dtype=torch.float64) for x in middle)
            return self.camera(azimuth.deg2rad(), polar.deg2rad(), radius)
        share = draws.uniform("azimuth", (n, 1))
        azimuth = between(*map(math.radians, self.azimuth_deg), share)
        cosine = between(*(math.cos(math.radians(x)) for x in self.polar_deg), draws.uniform("polar", (n, 1)))
        low, high = self.radius
        radius = between(low, high, draws.uniform("radius", (n, 1))) if low < high else low
        return self.camera(azimuth, cosine.arccos(), radius, share.dtype)

    def camera(
        self, azimuth: Tensor, polar: Tensor, radius: float | Tensor, dtype: torch.dtype | None = None
    ) -> Camera:
        """Cameras in these directions [rad] and distances, all [B, 1]; in this precision, or the default one."""
        camera = orbit_cameras(-azimuth.double(), polar.double(), radius, math.radians(self.fov_deg))
        return camera.to(dtype or torch.get_default_dtype())

    def turntable(self, n: int) -> Camera:
        """Along all azimuths, without the end of a full circle, at the middle polar angle and the largest radius."""
        first, last = self.azimuth_deg
        return self.around(torch.linspace(0, 1, n + (last - first >= 360), dtype=torch.float64)[:n])

    def around(self, turn: Tensor) -> Camera:
        """Cameras at these places [T] on the way of the turntable: 0 is its beginning, 1 its end."""
        azimuth = between(*self.azimuth_deg, turn[:, None])
        polar = torch.full_like(azimuth, sum(self.polar_deg) / 2)
        return self.camera(azimuth.deg2rad(), polar.deg2rad(), self.radius[1])


def between(low: float, high: float, share: Tensor) -> Tensor:
    return low + (high - low) * share.double()


def z_up(vectors: Tensor) -> Tensor:
    """Vectors [..., 3] of our world in the published one: its x is our x, its y our -z, its z our y."""
    x, y, z = vectors.unbind(-1)
    return torch.stack([x, -z, y], dim=-1)


def all_pixels(resolution: int, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Tensor:
    """Column and row of every pixel, [R, 2], row by row; in this precision, or the default one."""
    line = torch.arange(resolution, device=device, dtype=dtype or torch.get_default_dtype())
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([columns, rows], dim=-1).reshape(-1, 2)


# A lens makes rays [B, R, 3] from cameras, pixels [R, 2] and the image's resolution. The return type stays open, so
# that a config may name a class.
Lens = Callable[[Camera, Tensor, int], Any]


def perspective(camera: Camera, pixels: Tensor, resolution: int) -> Rays:
    """Rays from one point, through the top left corners of pixels; of length one along the optical axis.

    In the published order of operations: at 512 times the frequency the field sees every rounding of a ray.
    """
    focal = (resolution * camera.intrinsics[:, 0, 0, None]).to(pixels.dtype)
    x, y = (pixels - resolution / 2).unbind(-1)
    local = torch.stack([x / focal, -y / focal, -torch.ones_like(x / focal)], dim=-1)
    directions = (local[:, :, None] * camera.pose[:, None, :3, :3]).sum(-1)
    return Rays(camera.origins[:, None].expand_as(directions), directions)


def through_centres(camera: Camera, pixels: Tensor, resolution: int) -> Rays:
    """As ``perspective``, but through the centres of pixels, as most pictures are made. Not published: there, the whole
    image lies half a pixel further down and to the right."""
    return perspective(camera, pixels + 0.5, resolution)


@dataclass(frozen=True)
class Parallel:
    """Parallel rays; the image is ``width`` world units wide, whatever the camera's intrinsics say."""

    width: float

    def __call__(self, camera: Camera, pixels: Tensor, resolution: int) -> Rays:
        x, y = ((pixels - resolution / 2) * (self.width / resolution)).unbind(-1)
        local = torch.stack([x, -y, torch.zeros_like(x)], dim=-1)
        axes = camera.pose[:, None, :3, :3]
        origins = (local[:, None] * axes).sum(-1) + camera.origins[:, None]
        return Rays(origins, -axes[..., 2].expand_as(origins))


@dataclass(frozen=True)
class AlongAxis:
    """Stratified depths (NeRF, equation 2) between two planes, for cameras whose distance from the object varies.

    Args:
        near, far: depths of the planes, in lengths of the rays' directions, for a camera at ``radius``.
        samples: of each ray.
        radius: both planes are nearer by as much as a camera is nearer to the origin than this [world units]; None
            where all cameras are equally far.
    """

    near: float
    far: float
    samples: int
    radius: float | None = None

    def planes(self, rays: Rays) -> tuple[Tensor, Tensor]:
        """near and far of each ray, [B, R, 1]."""
        nearer = torch.zeros_like(rays.origins[..., :1])
        if self.radius is not None:  # the axes in published order, for the sake of the last bit
            nearer = self.radius - z_up(rays.origins).norm(dim=-1, keepdim=True)
        return self.near - nearer, self.far - nearer

    def __call__(self, rays: Rays, draws: Draws | None) -> Samples:
        near, far = self.planes(rays)
        share = torch.linspace(0, 1, self.samples, device=near.device, dtype=near.dtype)
        t = near * (1 - share) + far * share
        if draws is not None:
            middles = (t[..., 1:] + t[..., :-1]) / 2
            low, high = torch.cat([t[..., :1], middles], -1), torch.cat([middles, t[..., -1:]], -1)
            t = low + (high - low) * draws.uniform("jitter", t.shape)
        return Samples(*rays[:2], t)


@dataclass(frozen=True)
class Patches:
    """Where a patch has its points: an even grid that may cover all of the image or a part of it (section 3.1).

    Args:
        size: points of a patch each way, K.
        min_scale, max_scale: range of a patch's size as a share of the image's.
        anneal: the least scale falls from ``max_scale`` to ``min_scale`` by this rate; None for no annealing.
    """

    size: int = 32
    min_scale: float = 0.25
    max_scale: float = 1.0
    anneal: float | None = 0.0025

    def least_scale(self, iterations: int) -> float:
        """Least scale after so many iterations: exp(-3 anneal i / 1000) between the ends, and never above 0.9."""
        if self.anneal is None:
            return self.min_scale
        falling = self.max_scale * math.exp(-3 * (iterations // 1000) * self.anneal)
        return min(0.9, max(self.min_scale, falling))

    def __call__(self, n: int, iterations: int, draws: Draws) -> Tensor:
        """Places of n patches in their images, [n, K, K, 2], x to the right and y down.

        -1 and 1 are the centres of the outermost pixels.
        """
        share = draws.uniform("patch_scale", (n, 1))
        scale = between(self.least_scale(iterations), self.max_scale, share)
        shift = (1 - scale) * between(-1, 1, draws.uniform("patch_shift", (n, 2)))
        line = torch.linspace(-1, 1, self.size, device=share.device, dtype=share.dtype)
        rows, columns = torch.meshgrid(line, line, indexing="ij")
        grid = torch.stack([columns, rows], dim=-1)
        return grid * scale[:, None, None].to(share.dtype) + shift[:, None, None].to(share.dtype)


def cut(images: Tensor, places: Tensor) -> Tensor:
    """Patches [B, C, K, K] of images [B, C, H, H] at these places [B, K, K, 2]."""
    return grid_sample(images, places.to(images.dtype), align_corners=True)


# Generator


class RadianceField(nn.Module):
    """The conditional radiance field (section 3.1, figure 3): density from the shape, colour also from the rest.

    Codes enter linear layers, so what they add there is the same for all points of a sample: a bias.

    Args:
        shape_dim, appearance_dim: sizes of the codes.
        hidden_dim: width.
        num_layers: layers before the density; the point and the shape enter again after the fifth.
        point_octaves: frequencies of the encoding of points.
        view_octaves: those of the encoding of directions; None if the colour does not depend on them.
        outputs: numbers that the last layer gives where the colour depends neither on direction nor on appearance: one
            layer then gives colour and density. The first four are read.
    """

    def __init__(
        self,
        shape_dim: int = 128,
        appearance_dim: int = 128,
        hidden_dim: int = 256,
        num_layers: int = 8,
        point_octaves: int = 10,
        view_octaves: int | None = 4,
        outputs: int = 4,
    ) -> None:
        super().__init__()
        self.shape_dim, self.appearance_dim, self.hidden_dim = shape_dim, appearance_dim, hidden_dim
        self.point_octaves, self.view_octaves = point_octaves, view_octaves
        self.point_dim = 3 * (2 * point_octaves + 1)
        self.view_dim = 0 if view_octaves is None else 3 * (2 * view_octaves + 1)
        entering = self.point_dim + shape_dim
        widths = [entering, *[hidden_dim] * (num_layers - 1)]
        self.again = 5 if num_layers > 5 else None  # the layer that is given points and shape a second time
        if self.again is not None:
            widths[self.again] += entering
        self.layers = nn.ModuleList(nn.Linear(width, hidden_dim) for width in widths)
        self.output = self.density = self.feature = self.colour_hidden = self.colour = None
        if not self.view_dim + appearance_dim:
            self.output = nn.Linear(hidden_dim, outputs)
            return
        self.density = nn.Linear(hidden_dim, 1)
        self.feature = nn.Linear(hidden_dim, hidden_dim)
        self.colour_hidden = nn.Linear(hidden_dim + self.view_dim + appearance_dim, hidden_dim // 2)
        self.colour = nn.Linear(hidden_dim // 2, 3)

    def forward(self, samples: Samples, latent: Latent) -> tuple[Tensor, Tensor]:
        """Raw density [B, R, S, 1] and colour in [0, 1] [B, R, S, 3]."""
        x = self.trunk(z_up(samples.points).flatten(1, 2), latent.shape).unflatten(1, samples.t.shape[1:])
        if self.output is not None:
            raw = self.output(x)
            return raw[..., 3:4], raw[..., :3].sigmoid()
        wide = self.hidden_dim, self.view_dim, self.appearance_dim
        of_feature, of_view, of_appearance = self.colour_hidden.weight.split(wide, dim=1)
        added = self.colour_hidden.bias
        if self.appearance_dim:
            added = linear(latent.appearance, of_appearance, added)[:, None]
        if self.view_octaves is not None:
            seen = positional_encoding(normalize(z_up(samples.directions), dim=-1), self.view_octaves)
            added = linear(seen, of_view) + added
        # No activation follows the feature layer, so it and the next one are one.
        added = added + of_feature @ self.feature.bias
        hidden = linear(x, of_feature @ self.feature.weight).add_(added[..., None, :]).relu_()
        return self.density(x), self.colour(hidden).sigmoid()

    def trunk(self, points: Tensor, shape: Tensor) -> Tensor:
        """What density and colour are made of, [B, N, C], at published points [B, N, 3]."""
        encoded = positional_encoding(points, self.point_octaves)
        x = None
        for i, layer in enumerate(self.layers):
            if i in (0, self.again):
                of_point, of_shape, of_x = layer.weight.split(
                    [self.point_dim, self.shape_dim, layer.in_features - self.point_dim - self.shape_dim], dim=1
                )
                bias = linear(shape, of_shape, layer.bias)[:, None]
                before = torch.baddbmm(bias, encoded, of_point.mT.expand(len(shape), -1, -1))
                x = before if x is None else before + linear(x, of_x)
            else:
                x = layer(x)
            x = x.relu_()
        return x


class TwoNetworks(nn.Module):
    """A renderer with a second network (NeRF section 5.2): the first only says where that one is worth asking.

    The second is asked at the depths of both passes. As published nothing trains the first: no gradient passes through
    the choice of depths.

    Args:
        volume: renders the first network.
        depths: further depths, drawn where it found something.
        field: the second network.
    """

    def __init__(self, volume: Volume, depths: FineDepths, field: RadianceField) -> None:
        super().__init__()
        self.volume, self.depths, self.field = volume, depths, field

    def forward(
        self, field: nn.Module, rays: Rays, condition: Any, draws: Draws | None = None, density_noise: float = 0.0
    ) -> Integrated:
        """As ``Volume``."""
        with torch.no_grad():
            found = self.volume(field, rays, condition, draws, density_noise)
            further = self.depths(found.t, found.weights, draws)
            samples = Samples(*rays[:2], torch.cat([found.t, further], -1).sort(-1).values)
        first = self.volume
        second = Volume(lambda *_: samples, first.density, first.background, None, first.intervals, first.chunk)
        return second(self.field, rays, condition, draws, density_noise)

    def density(self, raw: Tensor, points: Tensor) -> Tensor:
        return self.volume.density(raw, points)


class Generator(BaseGenerator):
    """Latents and cameras to images.

    Args:
        field: the radiance field.
        volume: the renderer.
        poses: distribution of cameras.
        resolution: of images where none is asked for.
        bounds: world box of the object, two corners.
        prior: distribution of the codes, ``gaussian`` or ``uniform``.
        lens: ``perspective``, ``through_centres`` or ``Parallel``.
    """

    def __init__(
        self,
        field: RadianceField,
        volume: Renderer,
        poses: Poses,
        resolution: int = 64,
        bounds: tuple[tuple[float, float, float], tuple[float, float, float]] = ((-2.5,) * 3, (2.5,) * 3),
        prior: Callable[[int, int, Draws], Any] = gaussian,
        lens: Lens = perspective,
    ) -> None:
        super().__init__(poses, resolution, bounds)
        self.field, self.volume, self.prior, self.lens = field, volume, prior, lens

    def latents(self, n: int, draws: Draws) -> Latent:
        """n latents."""
        sizes = [self.field.shape_dim, self.field.appearance_dim]
        return Latent(*self.prior(n, sum(sizes), draws).split(sizes, dim=1))

    def map(self, latent: Latent, *, truncation: float = 1.0) -> Latent:
        """The codes themselves; truncation below 1 moves them towards zero."""
        return latent if truncation == 1 else Latent(*(truncation * code for code in latent))

    def rays(self, camera: Camera, resolution: int) -> Rays:
        """Rays [B, R, 3] of all pixels, row by row, through their top left corners, in the networks' precision."""
        camera = camera._replace(pose=camera.pose.to(self.dtype))
        return self.lens(camera, all_pixels(resolution, self.device, self.dtype), resolution)

    def patch_rays(self, camera: Camera, places: Tensor, resolution: int) -> Rays:
        """Rays [B, K K, 3] at places [B, K, K, 2] of images of this resolution, cut out just as real patches are."""
        whole = torch.cat(self.rays(camera, resolution)[:2], dim=-1)
        return Rays(*cut(to_map(whole), places).flatten(2).mT.split(3, dim=-1))

    def render(
        self,
        styles: Latent,
        camera: Camera,
        *,
        resolution: int | None = None,
        draws: Draws | None = None,
        density_noise: float = 0.0,
        places: Tensor | None = None,
    ) -> Rendered:
        """Images of B latents from B cameras, at any resolution.

        Args:
            styles: from ``map``.
            camera: B cameras.
            resolution: side of the image [pixels].
            draws: for jitter, importance samples and density noise; None for none of them.
            density_noise: standard deviation of the noise on raw densities.
            places: of patches [B, K, K, 2]; these are then rendered instead of the whole image.
        """
        resolution = resolution or self.resolution
        rays = self.rays(camera, resolution) if places is None else self.patch_rays(camera, places, resolution)
        integrated = self.volume(self.field, rays, styles, draws, density_noise)
        image = to_map(integrated.features) * 2 - 1
        distance = expected_depth(integrated) * rays.directions.norm(dim=-1, keepdim=True)
        return Rendered(image, image, to_map(distance), to_map(integrated.opacity))

    def density(self, points: Tensor, styles: Latent) -> Tensor:
        """Density per world length [B, N, 1] at points [B, N, 3]; of the second network where there are two."""
        return density_at(points, getattr(self.volume, "field", self.field), styles, self.volume)


# Discriminator


class Discriminator(nn.Module):
    """Scores patches (supplement, section 3.2): 4x4 convolutions with spectral norm, and instance norm between them.

    It is told neither where a patch is nor how large. In training mode each call improves the estimates of the
    convolutions' largest singular values by one power iteration.

    Args:
        size: side of the patches [points]: 32, 64 or 128.
        channels: unit of width; the last convolution but one has eight times as many.

    Raises:
        ValueError: patches of this size were not published.
    """

    def __init__(self, size: int = 32, channels: int = 64) -> None:
        super().__init__()
        if size not in (32, 64, 128):
            raise ValueError(f"Patches of {size}x{size} points cannot be judged; take a size of 32, 64 or 128.")
        self.size = size
        smaller = {32: [], 64: [channels], 128: [channels // 2, channels]}[size]
        widths = [3, *smaller, 2 * channels, 4 * channels, 8 * channels]
        strided = [nn.Conv2d(i, o, 4, stride=2, padding=1, bias=False) for i, o in itertools.pairwise(widths)]
        final = nn.Conv2d(widths[-1], 1, 4, bias=False)
        self.convolutions = nn.ModuleList(spectral_norm(conv) for conv in [*strided, final])
        self.first_norm = 0 if size == 32 else 1  # the convolution from which on instance norm follows

    def forward(self, patches: Tensor) -> Tensor:
        """Scores [B, 1] of patches [B, 3, K, K]; above zero is real.

        Raises:
            ValueError: the patches have another size.
        """
        if patches.shape[-1] != self.size:
            raise ValueError(f"This discriminator takes patches of side {self.size}, not {patches.shape[-1]}.")
        x = patches
        *strided, final = self.convolutions
        for i, convolution in enumerate(strided):
            x = convolution(x)
            if i >= self.first_norm:
                x = instance_norm(x)
            x = leaky_relu(x, 0.2)
        return final(x).flatten(1)


def mirrored(patches: Tensor, draws: Draws) -> Tensor:
    """Patches [B, 3, K, K], each mirrored or not by chance."""
    keep = draws.uniform("mirror", (len(patches), 1, 1, 1)) >= 0.5
    return torch.where(keep, patches, patches.flip(-1))


# Training


class GRAF(GAN):
    """The training algorithm of GRAF (section 3.3 and supplement): discriminator, then generator, every iteration.

    Args:
        discriminator: scores patches [B, 3, K, K]: ``Discriminator``, or another.
        patches: where patches have their points.
        r1_weight: lambda; multiplies the R1 penalty, which as published is averaged over the points of a patch: the
            penalty of the paper's equation 12 divided by K K.
        density_noise: standard deviation of the noise on raw densities at the start.
        noise_iterations: it falls linearly over these and stays at its last value above zero; 0 for no fall.
        mirror: half of all patches, real and generated, are mirrored before they are judged.
        milestones: both learning rates are multiplied by ``decay`` at each of these iterations.
        precision: of the discriminator, but for R1.
        max_skips: as in ``zoo.gan.GAN``.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: nn.Module,
        optimizer_g: OptimizerFactory,
        optimizer_d: OptimizerFactory,
        averages: dict[str, Average] | None = None,
        seed: int = 0,
        patches: Patches = Patches(),
        r1_weight: float = 10.0,
        density_noise: float = 1.0,
        noise_iterations: int = 5000,
        mirror: bool = False,
        milestones: Sequence[int] = (50_000, 100_000, 200_000),
        decay: float = 0.5,
        precision: Precision = "float32",
        max_skips: int = 3,
    ) -> None:
        super().__init__(generator, discriminator, optimizer_g, optimizer_d, averages, seed, precision, max_skips)
        self.patches, self.r1_weight, self.mirror = patches, r1_weight, mirror
        self.density_noise, self.noise_iterations = density_noise, noise_iterations
        self.milestones, self.decay = milestones, decay

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        images, draws = batch["image"], self.draws()
        optimizer_g, optimizer_d = self.optimizers()
        self.set_learning_rates()

        real = cut(images, self.patches(len(images), self.iterations, draws))
        latent = self.generator.latents(len(images), draws)
        with torch.no_grad():
            fake = self.generate(latent, images.shape[-1], draws, self.noise_at(self.iterations - 1))
        self.minimise(optimizer_d, "loss_d", self.loss_d(real, fake, draws))

        latent = self.generator.latents(len(images), draws)
        with frozen(self.discriminator):
            fake = self.generate(latent, images.shape[-1], draws, self.noise_at(self.iterations))
            self.minimise(optimizer_g, "loss_g", self.loss_g(fake, draws))

        for average in self.averages.values():
            average.update(self.generator)
        self.count(len(images))

    def generate(self, latent: Latent, resolution: int, draws: Draws, density_noise: float) -> Tensor:
        """Patches [B, 3, K, K] of images of this resolution, from random cameras."""
        camera = self.generator.cameras(len(latent.shape), draws)
        places = self.patches(len(latent.shape), self.iterations, draws)
        return self.generator.render(
            self.generator.map(latent),
            camera,
            resolution=resolution,
            draws=draws,
            density_noise=density_noise,
            places=places,
        ).image

    def judge(self, patches: Tensor, draws: Draws) -> Tensor:
        """Scores [B, 1] of patches."""
        return self.discriminator(mirrored(patches, draws) if self.mirror else patches)

    def loss_d(self, real: Tensor, fake: Tensor, draws: Draws) -> dict[str, Tensor]:
        """What the discriminator pays, by term."""
        real = real.detach().requires_grad_()
        with self.full_precision():  # R1 differentiates these scores
            scores = self.judge(real, draws)
        points = self.patches.size**2
        return {
            "real": judged_real(scores),
            "r1": self.r1_weight / points * r1_penalty(scores, real),
            "fake": judged_fake(self.judge(fake, draws)),
        }

    def loss_g(self, fake: Tensor, draws: Draws) -> dict[str, Tensor]:
        """What the generator pays, by term."""
        return {"fake": judged_real(self.judge(fake, draws))}

    def noise_at(self, iteration: int) -> float:
        """Standard deviation of the noise on raw densities for the generator's step of an iteration.

        The discriminator's step comes before the published code lowers it, and so has that of the iteration before.
        """
        if not self.noise_iterations:
            return self.density_noise
        return self.density_noise * (1 - min(max(iteration, 0), self.noise_iterations - 1) / self.noise_iterations)

    def configure_optimizers(self) -> list[Optimizer]:
        optimizers = super().configure_optimizers()
        self.learning_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        return optimizers

    def set_learning_rates(self) -> None:
        """Give both optimizers this iteration's learning rate, a function of the clock alone."""
        share = self.decay ** sum(self.iterations >= milestone for milestone in self.milestones)
        for optimizer, rates in zip(self.optimizers(), self.learning_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = share * rate
