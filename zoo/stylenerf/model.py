"""StyleNeRF: A Style-based 3D-Aware Generator for High-resolution Image Synthesis.

Gu, Liu, Wang, Theobalt, ICLR 2022, arXiv:2110.08985.

What is unusual:

* a radiance field whose layers are modulated by w, as those of StyleGAN2, is rendered as a small map of features;
  1x1 convolutions and upsamplers that hardly mix pixels make the large image of it, so that views still agree;
* the background is a second field with a latent of its own, in an inverted sphere (NeRF++);
* some pixels of each image are also computed as a NeRF would, each sample along their rays through all layers before
  they are composited, and a loss makes the image agree with them: the NeRF path;
* the image grows from the field's size to its own, while more layers are blended in.

The fields and how they are rendered are in ``field.py``, the 2D networks in ``synthesis.py`` and ``discriminator.py``,
how they grow in ``growing.py``; here is the generator that is made of them.

B batch, L layers that take w, D width of w, R rays, S samples, C channels, P side of a grid
"""

import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import interpolate

from zoo import generator
from zoo.draws import Draws
from zoo.layers.stylegan2 import Mapping, resolutions, truncate
from zoo.render import (
    Camera,
    Integrated,
    Poses,
    Rays,
    Rendered,
    Renderer,
    accumulate_along_rays,
    expected_depth,
    pixel_centres,
    to_map,
)
from zoo.stylenerf.field import BackgroundRenderer, BackgroundSamples, Styles, rays_through
from zoo.stylenerf.growing import Grown, grown
from zoo.stylenerf.synthesis import SynthesisNetwork
from zoo.utils.errors import UserError
from zoo.utils.host_numbers import fill, number
from zoo.utils.ranges import above, at_least, given


class Latent(NamedTuple):
    """z [B, latent_dim] of the object and z_background [B, background_dim], standard normal."""

    z: Tensor
    background: Tensor


# Generator


class NerfPath(NamedTuple):
    """Some pixels of an image, P x P in a grid, composited after the 2D network instead of before it.

    index: which pixels, counted row by row, [B, P P].
    samples: colours of all samples along their rays as an image of P x P pieces, [B, 3, P l, P m] of l m samples.
    weights: of the samples, [B, P P, l m].
    """

    index: Tensor
    samples: Tensor
    weights: Tensor

    def loss(self, image: Tensor) -> Tensor:
        """Squared distance of the image [B, 3, H, H] from these pixels, summed over colours, for each image [B]."""
        side = math.isqrt(self.index.shape[1])
        samples = rearrange(self.samples, "b c (l h) (m w) -> b (h w) (l m) c", h=side, w=side)
        pixels = image.flatten(2).mT.gather(1, self.index[..., None].expand(-1, -1, 3))
        return (pixels - accumulate_along_rays(self.weights, samples)).square().sum(-1).mean(1)


class Synthesised(NamedTuple):
    """A training image: ``Rendered``, and the pixels of the NeRF path, if any."""

    rendered: Rendered
    path: NerfPath | None = None


class Generator(generator.Generator[Latent, Styles]):
    """Latents and cameras to images.

    Args:
        foreground: the field of the object.
        renderer: renders it; its remaining transmittance goes to the background.
        synthesis: the 2D network.
        poses: distribution of cameras.
        background: renders the background field; None for no background.
        latent_dim: size of z.
        mapping_layers: layers of the mapping network.
        mapping_rate: its learning rate, as a share of the others'.
        truncated_layers: layers, from the first, whose w truncation moves; None for all.
        start: side of images at which growing begins; below the synthesis network's lowest side the feature map itself
            grows. None for no growing.
        feature_start: side of the feature map at which it begins to grow to the synthesis network's lowest side, in all
            resolutions; None for no such growing.
        spare_layers: layers of w that nothing reads.
        bounds: world box of the object, two corners.
    """

    def __init__(
        self,
        foreground: nn.Module,
        renderer: Renderer,
        synthesis: SynthesisNetwork,
        poses: Poses,
        background: BackgroundRenderer | None = None,
        latent_dim: int = 512,
        mapping_layers: int = 8,
        mapping_rate: float = 0.01,
        truncated_layers: int | None = None,
        start: int | None = 32,
        feature_start: int | None = None,
        spare_layers: int = 0,
        bounds: tuple[tuple[float, float, float], tuple[float, float, float]] = ((-0.12,) * 3, (0.12,) * 3),
    ) -> None:
        at_least(1, self, latent_dim=latent_dim, **given(start=start, feature_start=feature_start))
        at_least(0, self, spare_layers=spare_layers, **given(truncated_layers=truncated_layers))
        at_least(0, self, mapping_layers=mapping_layers)
        above(0, self, mapping_rate=mapping_rate)
        super().__init__(poses, synthesis.resolution, bounds)
        if foreground.feature_dim != synthesis.feature_dim:
            raise UserError(
                f"The field renders {foreground.feature_dim} features, but the synthesis network takes "
                f"{synthesis.feature_dim}: give both the same feature_dim."
            )
        if start is not None:
            resolutions(start, synthesis.resolution)
        self.foreground, self.renderer, self.synthesis = foreground, renderer, synthesis
        self.background, self.start, self.feature_start = background, start, feature_start
        self.latent_dim, self.truncated_layers = latent_dim, truncated_layers
        self.num_layers = foreground.num_styles + synthesis.num_styles + spare_layers
        self.mapping = Mapping(latent_dim, foreground.w_dim, foreground.w_dim, mapping_layers, mapping_rate)
        self.register_buffer("mean_w", torch.zeros(foreground.w_dim))
        self.register_buffer("alpha", torch.ones(()))  # how far it has grown, see ``grown``

    def latents(self, n: int, draws: Draws) -> Latent:
        """n latents."""
        z = draws.normal("z", (n, self.latent_dim))
        if self.background is None:
            return Latent(z, z[:, :0])
        return Latent(z, draws.normal("z_background", (n, self.background.field.latent_dim)))

    def map(
        self, latents: Latent, *, truncation: float = 1.0, condition: Camera | None = None, layers: int | None = None
    ) -> Styles:
        """Styles of latents; truncation below 1 moves w towards its mean, in the first ``layers`` of them.

        Args:
            truncation: share of the way from the mean that is kept.
            layers: by default ``truncated_layers``.
        """
        w = self.mapping(latents.z)[:, None].expand(-1, self.num_layers, -1)
        if truncation != 1:
            layers = self.truncated_layers if layers is None else layers
            w = truncate(w, self.mean_w, truncation, self.num_layers if layers is None else layers)
        return self.styles(w, latents.background)

    def styles(
        self, w: Tensor, background: Tensor, draws: Draws | None = None, update_magnitude: bool = False
    ) -> Styles:
        """Styles from w [B, L, D] and z of the background; draws and update_magnitude as in ``synthesise``."""
        return Styles(w, background, self.foreground.planes(w, draws, update_magnitude))

    def free_parameters(self, styles: Styles) -> dict[str, Tensor]:
        """w and the background's z; planes follow."""
        return {"w": styles.w, "background": styles.background}

    def with_free_parameters(self, styles: Styles, values: dict[str, Tensor]) -> Styles:
        """Styles of these codes."""
        return self.styles(values["w"], values["background"])

    def grow(self, alpha: float) -> Grown:
        """Set how far this has grown, from 0 to 1, and say what that means."""
        fill(self.alpha, alpha)
        if hasattr(self.poses, "alpha"):  # cameras are learned once growing has begun
            fill(self.poses.alpha, alpha)
        return grown(self.alpha, self.start, self.resolution)

    def rays(self, camera: Camera, resolution: int) -> Rays:
        """Rays [B, R, 3] of all pixels, row by row; they count depth along the optical axis."""
        return rays_through(camera, pixel_centres(resolution, self.device, camera.pose.dtype))

    def image_side(self, resolution: int | None = None) -> int:
        """The side that is asked for, if there is a level of it."""
        side = super().image_side(resolution)
        known = resolutions(min(self.start or self.synthesis.low, self.synthesis.low), self.resolution)
        if side not in known:
            raise UserError(f"StyleNeRF renders images of side {', '.join(map(str, known))}, not {side}.")
        return side

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
            resolution: side of the image [pixels]: that at which growing begins or the synthesis network's lowest,
                doubled up to the generator's own.
            draws: for jitter and importance samples; None for none of them.
            background_camera: where the background is seen from, if that is somewhere else.

        Raises:
            UserError: there is no level of this resolution.
        """
        resolution = self.image_side(resolution)
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
        update_magnitude: bool = False,
        path_side: int = 0,
        background_camera: Camera | None = None,
    ) -> Synthesised:
        """Images of this level, and what their losses need.

        Args:
            styles: B of them.
            camera: B cameras.
            level: side of the images, and how far its last level has faded in.
            draws: for everything random.
            density_noise: standard deviation of the noise on raw densities.
            update_magnitude: update the running magnitudes of activations.
            path_side: P, if P x P pixels of each image are to be made a second time; 0 for none.
            background_camera: where the background is seen from, if that is somewhere else.
        """
        side = min(level.side, self.feature_side)
        film = pixel_centres(side, self.device, camera.pose.dtype).expand(len(styles.w), -1, -1)
        index = None
        if path_side:
            index = path_pixels(draws.uniform("path_pixels", (len(film), 2)), path_side, level.side)
            film = torch.cat([film, pixel_centres(level.side, self.device, camera.pose.dtype)[index]], dim=1)
        rays = rays_through(camera, film)
        front = self.renderer(self.foreground, rays, self.foreground.modulate(styles), draws, density_noise)
        behind = None
        if self.background is not None:
            behind_rays = rays if background_camera is None else rays_through(background_camera, film)
            behind = self.background(behind_rays, styles.background, draws, density_noise)

        pixels = slice(0, side**2)
        colours = to_map(self.composite(front, behind, styles)[:, pixels])
        if side < min(level.side, self.synthesis.low):  # the field's own map is still growing
            colours = interpolate(colours, self.synthesis.low, mode="bilinear")
        raw, features = colours[:, :3], colours[:, 3:]
        levels = len([block for block in self.synthesis.blocks if block.resolution <= level.side])
        w = styles.w[:, self.foreground.num_styles :]
        image, before = self.synthesis(features, raw, w, levels, draws, update_magnitude=update_magnitude)
        if level.share < 1 and levels > 0:
            image = torch.lerp(interpolate(before, scale_factor=2, mode="bilinear"), image, level.share)
        depth = expected_depth(front) * rays.directions.norm(dim=-1, keepdim=True)
        rendered = Rendered(image, raw, to_map(depth[:, pixels]), to_map(front.opacity[:, pixels]))
        if index is None:
            return Synthesised(rendered)
        grid, weights = self.samples(front, behind, styles, slice(side**2, None))
        samples, _ = self.synthesis(
            grid[:, 3:], grid[:, :3], w, levels, update_magnitude=update_magnitude, pixelwise=True
        )
        return Synthesised(rendered, NerfPath(index, samples, weights))

    @property
    def feature_side(self) -> int:
        """Side of the map that the field is rendered as, at most."""
        if self.feature_start is None or not 0 <= number(self.alpha) < 1:
            return self.synthesis.low
        return round(self.feature_start + number(self.alpha) * (self.synthesis.low - self.feature_start))

    def composite(self, front: Integrated, behind: BackgroundSamples | None, styles: Styles) -> Tensor:
        """Colours and features of rays, [B, R, 3 + C]: the foreground's, and the background's through what is left."""
        added = 0 if front.background is None else front.background
        total = front.weights.sum(-1, keepdim=True)
        colours = self.foreground.colours(front.features - added, total, styles) + added
        if behind is None:
            return colours
        hidden = accumulate_along_rays(behind.weights, behind.hidden)
        return colours + (1 - front.opacity) * self.background.field.colours(hidden, 1.0)

    def samples(
        self, front: Integrated, behind: BackgroundSamples | None, styles: Styles, rays: slice
    ) -> tuple[Tensor, Tensor]:
        """Colours and features of all samples along P x P rays as an image [B, 3 + C, P l, P m], and their weights.

        It lays P x P pieces side by side, one for each of l m samples, l and m as equal as possible.
        """
        queried, order = tuple(x[:, rays] for x in front.queried), front.order
        hidden = front._replace(queried=queried, order=None if order is None else order[:, rays]).sampled
        weights = front.weights[:, rays]
        shape = hidden.shape[1:3]
        colours = self.foreground.colours(hidden.flatten(1, 2), 1.0, styles).unflatten(1, shape)
        if behind is not None:
            colours = torch.cat([colours, self.background.field.colours(behind.hidden[:, rays], 1.0)], dim=2)
            weights = torch.cat([weights, behind.weights[:, rays] * (1 - front.opacity[:, rays])], dim=2)
        if front.background is not None:  # the remaining light is one more sample
            colours = torch.cat([colours, torch.ones_like(colours[:, :, :1])], dim=2)
            weights = torch.cat([weights, front.background[:, rays]], dim=2)
        count = colours.shape[2]
        rows = next(n for n in range(math.isqrt(count), 0, -1) if count % n == 0)
        side = math.isqrt(colours.shape[1])
        return rearrange(colours, "b (h w) (l m) c -> b c (l h) (m w)", h=side, l=rows), weights

    def density(self, points: Tensor, styles: Styles) -> Tensor:
        """Density of the object per world length [B, N, 1] at points [B, N, 3]."""
        return self.renderer.density(points, self.foreground, self.foreground.modulate(styles))


def path_pixels(u: Tensor, side: int, resolution: int) -> Tensor:
    """Which pixels of an image make an even grid of side x side of them, shifted at random: [B, side side].

    Args:
        u: numbers in [0, 1) for the shift to the right and down, [B, 2].
        side: of the grid.
        resolution: side of the image.

    Raises:
        UserError: the image is smaller than the grid.
    """
    stride = resolution // side
    if stride == 0:
        raise UserError(f"The NeRF path's grid of {side} x {side} pixels does not fit into images of {resolution}.")
    columns, rows = ((u * stride).long()[:, :, None] + torch.arange(side, device=u.device) * stride).unbind(1)
    return (rows[:, :, None] * resolution + columns[:, None]).flatten(1)
