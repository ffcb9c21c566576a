"""GRAF: Generative Radiance Fields for 3D-Aware Image Synthesis.

Schwarz, Liao, Niemeyer, Geiger, NeurIPS 2020, arXiv:2007.02442.

What is unusual:

* the radiance field is a NeRF with two codes: one for the shape, on which the density depends, and one for the
  appearance, on which only the colour depends; there is no mapping network;
* the discriminator never sees a whole image, only patches of K x K points: a coarse grid over the whole image or a fine
  one over a part of it, and generated patches cost K x K rays whatever the resolution of the images is;
* patches start as large as the image and may become smaller during training, so that details are learned last.

The published world has z up; here y is up. ``z_up`` leads from one to the other, in front of the field.

B batch, R rays, S samples, N = R S points, K side of a patch, C channels
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import instance_norm, leaky_relu, linear, normalize
from torch.nn.utils import spectral_norm

from zoo import generator
from zoo.draws import Draws
from zoo.graf.rays import Lens, all_pixels, perspective, sample_patches, z_up
from zoo.layers.discriminator import DiscriminatorOutput
from zoo.layers.encoding import positional_encoding
from zoo.render import (
    Camera,
    FineDepths,
    Integrated,
    Poses,
    Rays,
    Rendered,
    Renderer,
    Samples,
    VolumeRenderer,
    expected_depth,
    to_map,
)
from zoo.utils.errors import UserError
from zoo.utils.protocols import check_call, check_made
from zoo.utils.ranges import at_least, given


class Latent(NamedTuple):
    """Codes of shape and appearance, both [B, C]."""

    shape_code: Tensor
    appearance_code: Tensor


def gaussian(n: int, size: int, draws: Draws) -> Tensor:
    """Codes [n, size], standard normal."""
    return draws.normal("z", (n, size))


def uniform(n: int, size: int, draws: Draws) -> Tensor:
    """Codes [n, size], uniform in [-1, 1]."""
    return 2 * draws.uniform("z", (n, size)) - 1


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
        at_least(0, self, shape_dim=shape_dim, appearance_dim=appearance_dim)
        at_least(0, self, point_octaves=point_octaves, **given(view_octaves=view_octaves))
        at_least(1, self, num_layers=num_layers)
        at_least(2, self, hidden_dim=hidden_dim)
        at_least(4, self, outputs=outputs)
        super().__init__()
        self.shape_dim, self.appearance_dim, self.hidden_dim = shape_dim, appearance_dim, hidden_dim
        self.point_octaves, self.view_octaves = point_octaves, view_octaves
        self.point_dim = 3 * (2 * point_octaves + 1)
        self.view_dim = 0 if view_octaves is None else 3 * (2 * view_octaves + 1)
        entering = self.point_dim + shape_dim
        widths = [entering, *[hidden_dim] * (num_layers - 1)]
        self.skip_layer = 5 if num_layers > 5 else None  # the layer that is given points and shape a second time
        if self.skip_layer is not None:
            widths[self.skip_layer] += entering
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
        x = self.trunk(z_up(samples.points).flatten(1, 2), latent.shape_code).unflatten(1, samples.t.shape[1:])
        if self.output is not None:
            raw = self.output(x)
            return raw[..., 3:4], raw[..., :3].sigmoid()
        wide = self.hidden_dim, self.view_dim, self.appearance_dim
        of_feature, of_view, of_appearance = self.colour_hidden.weight.split(wide, dim=1)
        added = self.colour_hidden.bias
        if self.appearance_dim:
            added = linear(latent.appearance_code, of_appearance, added)[:, None]
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
            if i in (0, self.skip_layer):
                of_point, of_shape, of_x = layer.weight.split(
                    [self.point_dim, self.shape_dim, layer.in_features - self.point_dim - self.shape_dim], dim=1
                )
                bias = linear(shape, of_shape, layer.bias)[:, None]
                before = torch.baddbmm(bias, encoded, of_point.mT.expand(len(shape), -1, -1))
                x = before if x is None else before.baddbmm_(x, of_x.mT.expand(len(shape), -1, -1))
            else:
                x = layer(x)
            x = x.relu_()
        return x


class HierarchicalRenderer(nn.Module):
    """Hierarchical sampling with a coarse and a fine network (NeRF section 5.2).

    The fine network is queried at the depths of both passes. As published nothing trains the coarse one: no gradient
    passes through the choice of depths.

    Args:
        renderer: renders the coarse network.
        depths: further depths, drawn from its weights.
        field: the fine network.
    """

    def __init__(self, renderer: VolumeRenderer, depths: FineDepths, field: RadianceField) -> None:
        super().__init__()
        self.renderer, self.depths, self.field = renderer, depths, field

    def forward(
        self, field: nn.Module, rays: Rays, condition: Any, draws: Draws | None = None, density_noise: float = 0.0
    ) -> Integrated:
        """As ``VolumeRenderer``."""
        with torch.no_grad():
            coarse = self.renderer(field, rays, condition, draws, density_noise)
            t = coarse.samples.t
            samples = Samples(*rays[:2], torch.cat([t, self.depths(t, coarse.weights, draws)], -1).sort(-1).values)
        second = VolumeRenderer(lambda *_: samples, self.renderer.quadrature, chunk=self.renderer.chunk)
        second.plan = self.renderer.plan
        return second(self.field, rays, condition, draws, density_noise)

    def density(self, points: Tensor, field: nn.Module, condition: Any) -> Tensor:
        """As ``VolumeRenderer``; of the fine network."""
        return self.renderer.density(points, self.field, condition)


class Generator(generator.Generator[Latent, Latent]):
    """Latents and cameras to images.

    Args:
        field: the radiance field.
        renderer: the renderer.
        poses: distribution of cameras.
        resolution: default side of images [pixels].
        bounds: world box of the object, two corners.
        prior: distribution of the codes, ``gaussian`` or ``uniform``.
        lens: ``perspective``, ``through_centres`` or ``Orthographic``.
    """

    def __init__(
        self,
        field: RadianceField,
        renderer: Renderer,
        poses: Poses,
        resolution: int = 64,
        bounds: tuple[tuple[float, float, float], tuple[float, float, float]] = ((-2.5,) * 3, (2.5,) * 3),
        prior: Callable[[int, int, Draws], Any] = gaussian,
        lens: Lens = perspective,
    ) -> None:
        check_call("n, size, draws", self, prior=prior)
        check_call("camera, pixels, resolution", self, lens=lens)
        super().__init__(poses, resolution, bounds)
        self.field, self.renderer, self.prior, self.lens = field, renderer, prior, lens

    def latents(self, n: int, draws: Draws) -> Latent:
        """n latents."""
        sizes = [self.field.shape_dim, self.field.appearance_dim]
        codes = self.prior(n, sum(sizes), draws)
        check_made(codes, [torch.Size((n, sum(sizes)))], self, "prior")
        return Latent(*codes.split(sizes, dim=1))

    def map(self, latents: Latent, *, truncation: float = 1.0, condition: Camera | None = None) -> Latent:
        """The codes themselves; truncation below 1 moves them towards zero."""
        return latents if truncation == 1 else Latent(*(truncation * code for code in latents))

    def rays(self, camera: Camera, resolution: int) -> Rays:
        """Rays [B, R, 3] of all pixels, row by row, through their top left corners, in the networks' precision."""
        camera = camera._replace(pose=camera.pose.to(self.dtype))
        return self.lens(camera, all_pixels(resolution, self.device, self.dtype), resolution)

    def patch_rays(self, camera: Camera, places: Tensor, resolution: int) -> Rays:
        """Rays [B, K K, 3] at places [B, K, K, 2] of images of this resolution, cut out just as real patches are."""
        whole = torch.cat(self.rays(camera, resolution)[:2], dim=-1)
        return Rays(*sample_patches(to_map(whole), places).flatten(2).mT.split(3, dim=-1))

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
            draws: for jitter, importance samples and density noise; None for none of them.
            density_noise: standard deviation of the noise on raw densities.
            places: of patches [B, K, K, 2]; these are then rendered instead of the whole image.
        """
        resolution = self.image_side(resolution)
        rays = self.rays(camera, resolution) if places is None else self.patch_rays(camera, places, resolution)
        integrated = self.renderer(self.field, rays, styles, draws, density_noise)
        image = to_map(integrated.features) * 2 - 1
        distance = expected_depth(integrated) * rays.directions.norm(dim=-1, keepdim=True)
        return Rendered(image, image, to_map(distance), to_map(integrated.opacity))

    def density(self, points: Tensor, styles: Latent) -> Tensor:
        """Density per world length [B, N, 1] at points [B, N, 3]."""
        return self.renderer.density(points, self.field, styles)


# Discriminator


class Discriminator(nn.Module):
    """Scores patches (supplement, section 3.2): 4x4 convolutions with spectral norm, and instance norm between them.

    It knows neither the place nor the scale of a patch. In training mode each call improves the estimates of the
    convolutions' largest singular values by one power iteration.

    Args:
        size: side of the patches [points]: 32, 64 or 128.
        channels: unit of width; the last convolution but one has eight times as many.

    Raises:
        UserError: patches of this size were not published.
    """

    def __init__(self, size: int = 32, channels: int = 64) -> None:
        at_least(1, self, size=size)
        at_least(2 if size == 128 else 1, self, channels=channels)
        super().__init__()
        if size not in (32, 64, 128):
            raise UserError(f"This discriminator cannot take patches of side {size}: give a size of 32, 64 or 128.")
        self.size = size
        smaller = {32: [], 64: [channels], 128: [channels // 2, channels]}[size]
        widths = [3, *smaller, 2 * channels, 4 * channels, 8 * channels]
        strided = [nn.Conv2d(i, o, 4, stride=2, padding=1, bias=False) for i, o in itertools.pairwise(widths)]
        final = nn.Conv2d(widths[-1], 1, 4, bias=False)
        self.convolutions = nn.ModuleList(spectral_norm(conv) for conv in [*strided, final])
        self.first_norm = 0 if size == 32 else 1  # the convolution from which on instance norm follows

    def forward(self, patches: Tensor) -> DiscriminatorOutput:
        """Scores of patches [B, 3, K, K].

        Raises:
            UserError: the patches have another size.
        """
        if patches.shape[-1] != self.size:
            raise UserError(f"This discriminator takes patches of side {self.size}, not {patches.shape[-1]}.")
        x = patches
        *strided, final = self.convolutions
        for i, convolution in enumerate(strided):
            x = convolution(x)
            if i >= self.first_norm:
                x = instance_norm(x)
            x = leaky_relu(x, 0.2)
        return DiscriminatorOutput(final(x).flatten(1))
