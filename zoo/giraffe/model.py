"""GIRAFFE: Representing Scenes as Compositional Generative Neural Feature Fields.

Niemeyer, Geiger, CVPR 2021, arXiv:2011.12100.

What is unusual:

* a scene is composed: each object is a feature field of its own in a posed box, one more field is the background, and
  all objects share one network, so that they can be moved, turned, added and exchanged after training;
* the camera hardly moves: objects are seen from all sides because their boxes turn;
* few rays are marched, 16x16, and they carry features: a small 2D network makes the image of them.

The fields are in ``field.py``; where objects and cameras are, and the axes they count in, in ``scenes.py``; how rays
are marched through a scene in ``rendering.py``; edits of scenes in ``edits.py``; the 2D GAN that the paper compares
with in ``extras.py``.

B batch, N objects, F = N + 1 fields (the background last), R rays, S samples, P points, C channels
"""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate, leaky_relu, pad

from zoo import generator
from zoo.draws import Draws
from zoo.giraffe.edits import EDITS
from zoo.giraffe.field import Field
from zoo.giraffe.rendering import Compose, Scene, weighted
from zoo.giraffe.scenes import BoxPrior, Counts, Latent, ScenePoses, between, vertical_rotation
from zoo.layers.discriminator import DiscriminatorOutput
from zoo.render import Camera, Rays, Rendered, Renderer, expected_depth, to_map
from zoo.utils.constants import constant
from zoo.utils.errors import UserError
from zoo.utils.ranges import at_least, finite

# From features to the image


class SmoothUp(nn.Module):
    """Twice the size, bilinearly, and then blurred by 1-2-1 both ways; the border is mirrored."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.tensor([1.0, 2.0, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.blur(interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))

    def blur(self, x: Tensor) -> Tensor:
        kernel = self.kernel / self.kernel.sum()
        channels = x.shape[1]
        x = pad(x, (1, 1, 1, 1), mode="reflect")
        x = conv2d(x, kernel.view(1, 1, 1, 3).expand(channels, -1, -1, -1), groups=channels)
        return conv2d(x, kernel.view(1, 1, 3, 1).expand(channels, -1, -1, -1), groups=channels)


class NearestUp(nn.Module):
    """Twice the size, every pixel repeated."""

    def forward(self, x: Tensor) -> Tensor:
        return interpolate(x, scale_factor=2, mode="nearest")


class NeuralRenderer(nn.Module):
    """The 2D network that makes the image of the feature map (section 3.3, figure 4).

    Args:
        stages: how often the size doubles.
        channels_in: C of the feature map.
        channels: of the first convolution's input; halved at every stage.
        least: fewest channels.
        skips: colours are made at every size and added up; else at the end only.
        norm: normalise features of each image and channel.
        up: doubles the size of features; by default repeats pixels.
        colour_up: doubles the size of colours; by default smooth.
        sigmoid: colours in [0, 1].
    """

    def __init__(
        self,
        stages: int = 2,
        channels_in: int = 128,
        channels: int = 128,
        least: int = 32,
        skips: bool = True,
        norm: bool = False,
        up: nn.Module | None = None,
        colour_up: nn.Module | None = None,
        sigmoid: bool = True,
    ) -> None:
        at_least(0, self, stages=stages)
        at_least(1, self, channels_in=channels_in, channels=channels, least=least)
        super().__init__()
        if channels // 2 < least:
            raise UserError(
                f"Half of {channels} channels are fewer than {least}: set least to {channels // 2} or less."
            )
        self.stages, self.norm, self.sigmoid = stages, norm, sigmoid
        self.up = NearestUp() if up is None else up
        self.colour_up = (SmoothUp() if colour_up is None else colour_up) if skips else None
        self.enter = nn.Identity() if channels == channels_in else nn.Conv2d(channels_in, channels, 1)
        widths = [channels, *(max(channels // 2 ** (i + 1), least) for i in range(stages))]
        self.layers = nn.ModuleList(nn.Conv2d(widths[i], widths[i + 1], 3, padding=1) for i in range(stages))
        if skips:
            self.colours = nn.ModuleList(nn.Conv2d(c, 3, 3, padding=1) for c in [channels_in, *widths[1:]])
        else:
            self.colour = nn.Conv2d(widths[-1], 3, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The image [B, 3, 2^stages h, 2^stages w] in [0, 1] and the small one [B, 3, h, w] that it starts from."""
        skips = self.colour_up is not None
        squash = torch.sigmoid if self.sigmoid else nn.Identity()
        colours = small = self.colours[0](features) if skips else None
        x = self.enter(features)
        for stage, layer in enumerate(self.layers):
            x = layer(self.up(x))
            if self.norm:
                x = torch.nn.functional.instance_norm(x)
            x = leaky_relu(x, 0.2)
            if skips:
                colours = self.colour_up(colours) + self.colours[stage + 1](x)
        if skips:
            return squash(colours), squash(small)
        colours = squash(self.colour(x))
        return colours, avg_pool2d(colours, 2**self.stages)


class Generator(generator.Generator[Latent, Latent]):
    """Scenes and cameras to images.

    Args:
        objects, background: the two fields.
        boxes: distribution of the objects' boxes.
        poses: distribution of cameras.
        renderer: renders the feature map.
        neural_renderer: makes the image of it.
        compose: how fields mix where they meet.
        feature_resolution: side of the feature map [pixels].
        background_rotation: first and last turn of the background about the vertical axis [full turns].
        counts: how many boxes hold an object; None: all.
        density_noise: standard deviation of the noise on raw densities wherever draws are given.
    """

    edits = EDITS

    def __init__(
        self,
        objects: Field,
        background: Field,
        boxes: BoxPrior,
        poses: ScenePoses,
        renderer: Renderer,
        neural_renderer: NeuralRenderer,
        compose: Compose = weighted,
        feature_resolution: int = 16,
        background_rotation: tuple[float, float] = (0.0, 0.0),
        counts: Counts | None = None,
        density_noise: float = 1.0,
    ) -> None:
        at_least(1, self, feature_resolution=feature_resolution)
        at_least(0, self, density_noise=density_noise)
        finite(self, background_rotation=background_rotation)
        super().__init__(poses, feature_resolution * 2**neural_renderer.stages, boxes.bounds())
        self.scene = Scene(objects, background, compose)
        self.boxes, self.renderer, self.neural_renderer = boxes, renderer, neural_renderer
        self.feature_resolution, self.background_rotation = feature_resolution, background_rotation
        self.counts, self.density_noise = counts, density_noise

    def latents(self, n: int, draws: Draws) -> Latent:
        """n scenes."""
        return self.scenes(n, draws, draws.uniform("background_rotation", (n,)))

    def scenes(self, n: int, draws: Draws, background_turn: Tensor) -> Latent:
        """n scenes whose background is turned by this share of its range, [n] or one for all."""
        objects = (n, self.boxes.count, self.scene.objects.latent_dim)
        behind = (n, self.scene.background.latent_dim)
        codes = [draws.normal(name, objects) for name in ("shape", "appearance")]
        codes += [draws.normal(name, behind) for name in ("background_shape", "background_appearance")]
        boxes = self.boxes(n, draws)
        rotation = vertical_rotation(between(*self.background_rotation, background_turn)).expand(n, 3, 3)
        present = torch.ones(n, self.boxes.count + 1, dtype=torch.bool, device=rotation.device)
        if self.counts is not None:
            present[:, :-1] = self.counts(n, self.boxes.count, draws)
        return Latent(*(x.to(self.device) for x in (*codes, *boxes, rotation, present)))

    def map(self, latents: Latent, *, truncation: float = 1.0, condition: Camera | None = None) -> Latent:
        """The scene itself; truncation below 1 makes its codes smaller. The paper's videos take 0.65."""
        codes = (x if truncation == 1 else truncation * x for x in latents[:4])
        return Latent(*codes, *latents[4:])

    def free_parameters(self, styles: Latent) -> dict[str, Tensor]:
        """Codes, and how large boxes are and where; rotations are bound to be rotations."""
        return dict(list(styles._asdict().items())[:6])

    def rays(self, camera: Camera, resolution: int, farthest: Tensor | float | None = None) -> Rays:
        """Rays [B, R, 3] of all pixels of a feature map, row by row; the outermost ones lie on the border of the image.

        Along the optical axis they are as long as the camera's distance from the origin, measured in that of the
        ``farthest``: by default of the prior, in published training of the batch. Computed in double precision, then
        rounded to the networks'.
        """
        camera = camera.to(torch.float64)
        farthest = self.poses.farthest if farthest is None else farthest
        reach = torch.ones_like(camera.pose[:, 0, 0]) if farthest is None else camera.origins.norm(dim=-1) / farthest
        dtype = self.dtype
        inverse = 1 / constant(self.poses.focal, self.bounds)
        lengths = torch.stack([*(reach / (2 * camera.intrinsics[:, i, i] * inverse) for i in (0, 1)), reach], -1)
        axes = (camera.pose[:, :3, :3] * lengths[:, None]).to(dtype)  # the published camera's, which are not rigid
        line = 2 * torch.arange(resolution, device=self.device, dtype=dtype) / (resolution - 1) - 1
        y, x = (film.flatten() for film in torch.meshgrid(-line, line, indexing="ij"))
        x = x - (2 * camera.intrinsics[:, 0, 2, None] - 1).to(dtype)
        y = y + (2 * camera.intrinsics[:, 1, 2, None] - 1).to(dtype)
        right, up, back = (axes[:, None, :, i] for i in range(3))
        origins = camera.origins.to(dtype)[:, None]
        points = x[..., None] * (right * inverse) + y[..., None] * (up * inverse) - back + origins
        return Rays(origins.expand_as(points), points - origins)

    def image_side(self, resolution: int | None = None) -> int:
        """The side that is asked for, if its feature map has a whole number of pixels, at least two."""
        side, factor = super().image_side(resolution), 2**self.neural_renderer.stages
        if side % factor or side < 2 * factor:
            raise UserError(
                f"This generator renders images whose side is a multiple of {factor} from {2 * factor} on, such as "
                f"{self.resolution}, not {side}."
            )
        return side

    def feature_side(self, resolution: int | None = None) -> int:
        """Side of the feature map [pixels] for images of this side."""
        return self.image_side(resolution) // 2**self.neural_renderer.stages

    def render(
        self,
        styles: Latent,
        camera: Camera,
        *,
        resolution: int | None = None,
        draws: Draws | None = None,
        farthest: Tensor | None = None,
    ) -> Rendered:
        """Images of B scenes from B cameras.

        Args:
            resolution: side of the image [pixels]; changes the number of rays, the 2D network stays the same.
            draws: for jitter and density noise, as in the paper's training and scores; None for neither.
            farthest: as in ``rays``.

        Raises:
            UserError: the 2D network cannot make an image of that side.
        """
        rays = self.rays(camera, self.feature_side(resolution), farthest)
        integrated = self.renderer(self.scene, rays, styles, draws, self.density_noise)
        image, raw = self.neural_renderer(to_map(integrated.features))
        depth = expected_depth(integrated) * rays.directions.norm(dim=-1, keepdim=True)
        return Rendered(image * 2 - 1, raw * 2 - 1, to_map(depth), to_map(integrated.opacity))

    def foreground_only(self, styles: Latent) -> Latent:
        """The scenes without their backgrounds: then depth and opacity are those of the objects alone."""
        present = styles.present.clone()
        present[:, -1] = False
        return styles._replace(present=present)

    def with_backdrop(self, styles: Latent, camera: Camera) -> Latent:
        """Scenes whose backgrounds have gone round with cameras [B], as far as these are beyond their own azimuths."""
        right, _, front = camera.origins.unbind(-1)
        azimuth = torch.atan2(right, front) / (2 * math.pi)
        turn = vertical_rotation(azimuth - azimuth.clamp(min(self.poses.azimuth), max(self.poses.azimuth)))
        return styles._replace(background_rotation=styles.background_rotation @ turn.to(styles.place).mT)

    def density(self, points: Tensor, styles: Latent) -> Tensor:
        """Density per world length [B, N, 1] of the objects, without the background, at points [B, N, 3]."""
        return self.renderer.density(points, self.scene, self.foreground_only(styles))

    def together(self, n: int, draws: Draws) -> Tensor:
        """Images of n random scenes drawn as in the published training: one turn of the background for all of them,
        cameras zoomed by the steepest and farthest of them."""
        latent = self.scenes(n, draws, draws.shared("background_rotation", ()))
        camera = self.poses.together(n, draws).to(self.device)
        farthest = camera.origins.norm(dim=-1).max() if self.poses.zoom else None
        return self.render(self.map(latent), camera, draws=draws, farthest=farthest).image

    def turntable(self, latents: Latent, n: int) -> tuple[Latent, Camera]:
        """Scenes and cameras that show each of B scenes from n sides, scene after scene, B n long.

        The images are those of boxes that turn through their whole range before a camera that stays, but here the
        camera goes round boxes that stay, and takes the background with it. The middle of the objects is moved into
        the axis of the turn. A full circle is left open at its end.
        """
        full = abs(self.boxes.rotation[1] - self.boxes.rotation[0]) == 1
        return self.orbit_at(latents, torch.arange(n) / n if full else torch.linspace(0, 1, n))

    def orbit_at(self, latents: Latent, turn: Tensor) -> tuple[Latent, Camera]:
        """As ``turntable``, from these places [T] on its way: 0 is its beginning, 1 its end; both are B T long."""
        first, last = self.boxes.rotation
        camera = self.poses.orbit_at(turn).to(latents.place)
        turn = vertical_rotation((last - first) * turn).to(latents.place)
        round_it = turn.roll((-1, -1), (1, 2)) @ camera.pose[:, :3]  # the matrix in the zoo's axes
        camera = camera._replace(pose=torch.cat([round_it, camera.pose[:, 3:]], dim=1))

        present = latents.present[:, :-1, None].to(latents.place.dtype)
        aside = (present * latents.place).sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp(min=1)
        aside[..., 2] = 0
        rotation = vertical_rotation(latents.rotation.new_tensor(first)).expand_as(latents.rotation)
        scenes = latents._replace(place=latents.place - aside, rotation=rotation)
        scenes, camera = generator.repeat_for_cameras(scenes, camera)
        behind = scenes.background_rotation @ turn.mT.repeat(len(latents.shape_code), 1, 1)
        return scenes._replace(background_rotation=behind), camera


# The discriminator


class Discriminator(nn.Module):
    """Scores images; nothing but strided convolutions (supplement, as DC-GAN).

    Args:
        resolution: side of the images [pixels], a power of two.
        channels: of the last convolution; each one before has half as many.
        image_min: what black is for the convolutions; white is 1. The zoo's images, in [-1, 1], are moved there.
        bias: whether the convolutions have one.
        image_channels: of the images that are looked at; further ones are left out.

    Raises:
        UserError: the resolution is not a power of two from 8 on.
    """

    def __init__(
        self,
        resolution: int = 64,
        channels: int = 512,
        image_min: float = 0.0,
        bias: bool = False,
        image_channels: int = 3,
    ) -> None:
        at_least(1, self, resolution=resolution, image_channels=image_channels)
        finite(self, image_min=image_min)
        super().__init__()
        self.resolution, self.image_min, self.image_channels = resolution, image_min, image_channels
        count = resolution.bit_length() - 3  # halvings down to a side of 4
        if count < 1 or resolution != 4 << count:
            raise UserError(f"This discriminator cannot take images of side {resolution}: give a power of two >= 8.")
        at_least(2 ** (count - 1), self, channels=channels)
        widths = [image_channels, *(channels // 2 ** (count - 1 - i) for i in range(count))]
        pairs = itertools.pairwise(widths)
        self.layers = nn.ModuleList(nn.Conv2d(i, o, 4, 2, padding=1, bias=bias) for i, o in pairs)
        self.score = nn.Conv2d(channels, 1, 4, bias=bias)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """Scores of images [B, C, H, H] in [-1, 1]; channels beyond ``image_channels`` are left out.

        Raises:
            UserError: images of another side, or of fewer channels.
        """
        if images.shape[-1] != self.resolution:
            raise UserError(f"This discriminator takes images of side {self.resolution}, not {images.shape[-1]}.")
        if images.shape[1] < self.image_channels:
            raise UserError(f"This discriminator takes {self.image_channels} channels, not {images.shape[1]}.")
        x = (images[:, : self.image_channels] + 1) * ((1 - self.image_min) / 2) + self.image_min
        for layer in self.layers:
            x = leaky_relu(layer(x), 0.2)
        return DiscriminatorOutput(self.score(x).flatten(1))
