"""GIRAFFE: Representing Scenes as Compositional Generative Neural Feature Fields.

Niemeyer, Geiger, CVPR 2021, arXiv:2011.12100.

What is unusual:

* a scene is composed: each object is a feature field of its own in a posed box, one more field is the background, and
  all objects share one network, so that they can be moved, turned, added and exchanged after training;
* the camera hardly moves: objects are seen from all sides because their boxes turn;
* few rays are marched, 16x16, and they carry features: a small 2D network makes the picture of them.

Where objects and cameras are, and the axes they count in, is said in ``zoo/giraffe_scenes.py``; edits and the 2D GAN
that the paper compares with are in ``zoo/giraffe_extras.py``.

B batch, N objects, F = N + 1 fields (the background last), R rays, S samples, P points, C channels
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate, leaky_relu, linear, normalize, one_hot, pad
from torch.utils.checkpoint import checkpoint

from zoo.draws import Draws
from zoo.gan import GAN, Average, OptimizerFactory, frozen
from zoo.generator import BaseGenerator
from zoo.giraffe_scenes import BoxPrior, Counts, ScenePoses, between, rotated, to_paper, turned
from zoo.layers.encoding import positional_encoding
from zoo.losses import judged_fake, judged_real, r1_penalty
from zoo.precision import Precision
from zoo.render import (
    Camera,
    Depths,
    Integrated,
    Intervals,
    Rays,
    Rendered,
    Renderer,
    Samples,
    expected_depth,
    open_ended,
    to_map,
    transmission_weights,
)


class Latent(NamedTuple):
    """A scene: what its objects and background look like, and where the objects are."""

    shape: Tensor  # [B, N, latent_dim], standard normal
    appearance: Tensor  # [B, N, latent_dim], standard normal
    background_shape: Tensor  # [B, background_latent_dim], standard normal
    background_appearance: Tensor  # [B, background_latent_dim], standard normal
    scale: Tensor  # half the sides of the boxes [world units], [B, N, 3]
    place: Tensor  # middles of the boxes, [B, N, 3]
    rotation: Tensor  # world to box, [B, N, 3, 3]
    background_rotation: Tensor  # world to background, [B, 3, 3]
    present: Tensor  # which fields there are at all, bool [B, F]


# The feature field


class Octaves(nn.Module):
    """sin and cos of x / downscale times pi, 2 pi, 4 pi ...; x itself is left out (section 3.1, equation 2).

    Args:
        octaves: how many frequencies.
        downscale: what x is divided by, so that it lies about in [-1, 1].
    """

    def __init__(self, octaves: int = 10, downscale: float = 2.0) -> None:
        super().__init__()
        self.downscale, self.channels = downscale, 6 * octaves
        self.octaves = octaves

    def forward(self, x: Tensor) -> Tensor:
        """[..., 3] to [..., channels]: three sines, then three cosines, of each frequency."""
        return positional_encoding(x / self.downscale, self.octaves, base=math.pi, identity=False)


class Field(nn.Module):
    """A feature field (section 3.1): density from point and shape code, features from direction and appearance, too.

    Args:
        positions: encodes points of box or background.
        directions: encodes unit directions; None: the features do not depend on them.
        latent_dim: size of each of the two codes.
        hidden_dim: width.
        num_layers: hidden layers before the density head, the first one included.
        skips: after these layers, counted from 1 behind the first one, point and shape code are added once more.
        features: C.
        sigmoid: features in [0, 1].
    """

    def __init__(
        self,
        positions: nn.Module,
        directions: nn.Module | None,
        latent_dim: int = 256,
        hidden_dim: int = 128,
        num_layers: int = 8,
        skips: list[int] | tuple[int, ...] = (4,),
        features: int = 128,
        sigmoid: bool = False,
    ) -> None:
        super().__init__()
        self.positions, self.directions, self.sigmoid = positions, directions, sigmoid
        self.latent_dim, self.hidden_dim = latent_dim, hidden_dim
        self.skips = [layer for layer in range(1, num_layers - 1) if layer in skips]
        self.first = nn.Linear(positions.channels, hidden_dim)
        self.shape = nn.Linear(latent_dim, hidden_dim)
        self.layers = nn.ModuleList(nn.Linear(hidden_dim, hidden_dim) for _ in range(num_layers - 1))
        self.skip_shapes = nn.ModuleList(nn.Linear(latent_dim, hidden_dim) for _ in self.skips)
        self.skip_points = nn.ModuleList(nn.Linear(positions.channels, hidden_dim) for _ in self.skips)
        self.density = nn.Linear(hidden_dim, 1)
        self.appearance = nn.Linear(latent_dim, hidden_dim)
        self.colour = nn.Linear(hidden_dim, hidden_dim)
        self.view = None if directions is None else nn.Linear(directions.channels, hidden_dim)
        self.features = nn.Linear(hidden_dim, features)

    def terms(self, shape: Tensor, appearance: Tensor) -> Tensor:
        """What the codes [..., latent_dim] add to the first layer, to each skip and to the view layer: [..., T, C].

        They are the same for all points of an object.
        """
        added = [self.shape(shape), *(layer(shape) for layer in self.skip_shapes), self.appearance(appearance)]
        return torch.stack(added, dim=-2)

    def forward(self, points: Tensor, directions: Tensor | None, terms: Tensor) -> tuple[Tensor, Tensor]:
        """Raw density [...] and hidden features [..., hidden_dim], of which ``finish`` makes the features.

        Args:
            points: in the box, [..., 3].
            directions: of any length, [..., 3]; None as if the field had no use for them.
            terms: from ``terms``, [..., T, hidden_dim]; all three are broadcast against each other.
        """
        first, *skips, colour = terms.unbind(-2)
        encoded = self.positions(points)
        x = (self.first(encoded) + first).relu_()
        skip = iter(zip(self.skip_points, skips, strict=True))
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x).relu_()
            if number in self.skips:
                point, added = next(skip)
                x = x + added + point(encoded)
        raw = self.density(x)[..., 0]
        x = self.colour(x) + colour
        if self.directions is not None and directions is not None:
            x = (x + self.view(self.directions(normalize(directions, dim=-1)))).relu_()
        return raw, self.features(x).sigmoid() if self.sigmoid else x

    def finish(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """Features [..., C] of a weighted sum of hidden features; ``weight`` [..., 1] is the sum of its weights.

        The last layer is linear, so it may come after the sum, once a ray and not once a sample.
        """
        return hidden if self.sigmoid else linear(hidden, self.features.weight) + weight * self.features.bias


# Marching through a scene


@dataclass(frozen=True)
class StratifiedDepths:
    """As ``zoo.render.Stratified``, in the published order of arithmetic.

    The highest octave of the fields makes a thousandth of the rounding of a point's place into a visible difference, so
    that here and in the generator's rays the order of operations is part of the model.
    """

    near: float
    far: float
    samples: int

    def __call__(self, rays: Rays, draws: Draws | None) -> Samples:
        line = torch.linspace(0, 1, self.samples, device=rays.origins.device, dtype=rays.origins.dtype)
        t = (self.near + line * (self.far - self.near)).expand(*rays.origins.shape[:-1], -1)
        if draws is not None:
            middles = (t[..., 1:] + t[..., :-1]) / 2
            low, high = torch.cat([t[..., :1], middles], -1), torch.cat([middles, t[..., -1:]], -1)
            t = low + (high - low) * draws.uniform("jitter", t.shape)
        return Samples(rays.origins, rays.directions, t)


# Composition: densities [F, B, R, S] of all fields to their common density [B, R, S] and each one's share of the
# features there [F, B, R, S].

Compose = Callable[[Tensor], Any]


def weighted(densities: Tensor) -> tuple[Tensor, Tensor]:
    """Densities add up, and features are their mean weighted by density (section 3.2, equation 8)."""
    density = densities.sum(0)
    return density, densities / torch.where(density == 0, 1e-4, density)


def densest(densities: Tensor) -> tuple[Tensor, Tensor]:
    """The densest field alone counts."""
    density, index = densities.max(0)
    return density, one_hot(index, len(densities)).movedim(-1, 0).to(density.dtype)


class Placed(NamedTuple):
    """Samples as the fields see them: points [B, N, R, S, 3] and [B, R, S, 3], directions [B, N, R, 3], [B, R, 3]."""

    points: Tensor
    directions: Tensor
    background_points: Tensor
    background_directions: Tensor


class Scene(nn.Module):
    """Objects in boxes and a background: as a whole a field like any other.

    Args:
        objects: the field of all objects.
        background: the field of the background.
        compose: how fields mix where they meet.
    """

    margin = 1.1  # in its box an object may reach this far beyond [-1, 1]

    def __init__(self, objects: Field, background: Field, compose: Compose = weighted) -> None:
        super().__init__()
        self.objects, self.background, self.compose = objects, background, compose

    def place(self, samples: Samples, latent: Latent) -> Placed:
        """World points to boxes, R (p - t) / s, and to the turned background (section 3.1, equation 6)."""
        origins, directions = to_paper(samples.origins), to_paper(samples.directions)
        ahead = torch.stack([origins, origins + directions], 1)[:, None]  # [B, 1, 2, R, 3]: both are moved as points
        boxed = rotated(ahead - latent.place[:, :, None, None], latent.rotation[:, :, None, None])
        boxed = boxed / latent.scale[:, :, None, None]
        behind = rotated(ahead[:, 0], latent.background_rotation[:, None, None])
        starts, rays = boxed[:, :, 0], boxed[:, :, 1] - boxed[:, :, 0]
        start, ray = behind[:, 0], behind[:, 1] - behind[:, 0]
        t = samples.t[..., None]
        points = starts[..., None, :] + t[:, None] * rays[..., None, :]
        return Placed(points, rays, start[..., None, :] + t * ray[..., None, :], ray)

    def inside(self, points: Tensor, latent: Latent) -> Tensor:
        """Which points [B, N, ..., 3] belong to a box with an object in it, bool [B, N, ...]."""
        within = (points.abs() <= self.margin).all(-1)
        there = latent.present[:, :-1]
        return within & there.view(*there.shape, *[1] * (within.dim() - 2))

    def query(self, placed: Placed, latent: Latent) -> tuple[Tensor, Tensor]:
        """Raw densities [F, B, R, S] and features [F, B, R, S, C] of all fields at all samples, also outside boxes."""
        terms = self.objects.terms(latent.shape, latent.appearance)[:, :, None, None]
        raw, hidden = self.objects(placed.points, placed.directions[..., None, :], terms)
        features = self.objects.finish(hidden, torch.ones_like(hidden[..., :1]))
        terms = self.background.terms(latent.background_shape, latent.background_appearance)[:, None, None]
        behind = placed.background_points, placed.background_directions[..., None, :]
        raw_behind, hidden = self.background(*behind, terms)
        features_behind = self.background.finish(hidden, torch.ones_like(hidden[..., :1]))
        return (
            torch.cat([raw.transpose(0, 1), raw_behind[None]]),
            torch.cat([features.transpose(0, 1), features_behind[None]]),
        )

    def densities(self, raw: Tensor, placed: Placed, latent: Latent, noise: Tensor | None = None) -> Tensor:
        """Densities [F, B, R, S] from raw ones; the noise [B, F, R, S] is added first."""
        raw = raw if noise is None else raw + noise.transpose(0, 1)
        there = self.inside(placed.points, latent).transpose(0, 1)
        behind = latent.present[:, -1, None, None].expand_as(raw[-1])
        return raw.relu() * torch.cat([there, behind[None]])

    def forward(self, samples: Samples, latent: Latent) -> tuple[Tensor, Tensor]:
        """Common density [B, R, S, 1] and features [B, R, S, C], for any renderer of the zoo."""
        placed = self.place(samples, latent)
        raw, features = self.query(placed, latent)
        density, shares = self.compose(self.densities(raw, placed, latent))
        return density[..., None], (shares[..., None] * features).sum(0)


class SceneVolume(nn.Module):
    """Volume rendering of a scene, with the call signature of ``zoo.render.Volume`` (section 3.2, equations 9 and 10).

    The same numbers as marching through ``Scene`` as one field, for a fraction of the work: an object is only asked for
    its points inside its box, and features are summed along rays before the fields' last, linear layer.

    Args:
        depths: depths along a ray.
        intervals: length of ray that each sample stands for.
        chunk: points that a field sees at once: small enough for the processor's cache is fastest. None: all.
        recompute: with gradients, compute each chunk again in the backward pass instead of keeping what it needs: less
            memory for a fifth more time.
    """

    def __init__(
        self, depths: Depths, intervals: Intervals = open_ended, chunk: int | None = 4096, recompute: bool = False
    ) -> None:
        super().__init__()
        self.depths, self.intervals, self.chunk, self.recompute = depths, intervals, chunk, recompute

    def forward(
        self, field: Scene, rays: Rays, condition: Latent, draws: Draws | None = None, density_noise: float = 0.0
    ) -> Integrated:
        """As ``zoo.render.Volume``; ``sampled``, the features of every sample, never exist and are None."""
        samples, latent = self.depths(rays, draws), condition
        placed = field.place(samples, latent)
        batch, count, per_image, per_ray = placed.points.shape[:-1]
        noise = None
        if draws is not None and density_noise > 0:
            noise = density_noise * draws.normal("density_noise", (batch, count + 1, per_image, per_ray))

        inside = field.inside(placed.points, latent).flatten().nonzero()[:, 0]
        raw, hidden = self.objects(field.objects, placed, latent, inside)
        if noise is not None:
            raw = raw + noise[:, :-1].flatten()[inside]
        objects = raw.new_zeros(batch * count * per_image * per_ray).index_put((inside,), raw.relu())
        objects = objects.unflatten(0, (batch, count, per_image, per_ray))

        raw_behind, hidden_behind = self.background(field.background, placed, latent)
        raw_behind = raw_behind if noise is None else raw_behind + noise[:, -1]
        behind = raw_behind.relu() * latent.present[:, -1, None, None]
        density, shares = field.compose(torch.cat([objects.transpose(0, 1), behind[None]]))
        weights = transmission_weights(density, self.intervals(samples.t, samples.directions))

        shares = weights * shares
        ray = inside // (count * per_image * per_ray) * per_image + inside // per_ray % per_image  # of B R rays
        share = shares[:-1].transpose(0, 1).flatten()[inside]
        summed = hidden.new_zeros(batch * per_image, hidden.shape[-1]).index_add(0, ray, share[:, None] * hidden)
        total = shares[:-1].sum((0, 3))[..., None]
        features = field.objects.finish(summed.unflatten(0, (batch, per_image)), total)
        summed = torch.einsum("brs,brsc->brc", shares[-1], hidden_behind)
        features = features + field.background.finish(summed, shares[-1].sum(-1, keepdim=True))

        depth = (weights * samples.t).sum(-1, keepdim=True)
        return Integrated(features, depth, weights.sum(-1, keepdim=True), samples.t, weights, density[..., None], None)

    def objects(self, field: Field, placed: Placed, latent: Latent, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Raw densities and hidden features of the points inside boxes, given by their index into [B N R S]."""
        terms = field.terms(latent.shape, latent.appearance).flatten(0, 1)
        points, directions = placed.points.flatten(0, 3), placed.directions.flatten(0, 2)
        per_ray = placed.points.shape[3]
        per_box = placed.points.shape[2] * per_ray

        def part(index: Tensor) -> tuple[Tensor, Tensor]:
            return field(points[index], directions[index // per_ray], terms[index // per_box])

        chunk = max(1, len(inside)) if self.chunk is None else self.chunk
        return joined([self.run(part, index) for index in inside.split(chunk)], 0)

    def background(self, field: Field, placed: Placed, latent: Latent) -> tuple[Tensor, Tensor]:
        """Raw densities [B, R, S] and hidden features [B, R, S, C] of the background."""
        terms = field.terms(latent.background_shape, latent.background_appearance)[:, None, None]
        batch, per_image, per_ray = placed.background_points.shape[:-1]

        def part(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
            return field(points, directions[:, :, None], terms)

        step = per_image if self.chunk is None else max(1, self.chunk // (batch * per_ray))
        chunks = zip(placed.background_points.split(step, 1), placed.background_directions.split(step, 1), strict=True)
        return joined([self.run(part, *chunk) for chunk in chunks], 1)

    def run(self, part: Callable, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        if self.recompute and self.chunk is not None and torch.is_grad_enabled():
            return checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)
        return part(*inputs)


def joined(parts: list[tuple[Tensor, Tensor]], axis: int) -> tuple[Tensor, Tensor]:
    return tuple(torch.cat(tensors, axis) for tensors in zip(*parts, strict=True))


# From features to the picture


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
    """The 2D network that makes the picture of the feature map (section 3.3, figure 4).

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
        super().__init__()
        if channels // 2 < least:
            raise ValueError(
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
        """The picture [B, 3, 2^stages h, 2^stages w] in [0, 1] and the small one [B, 3, h, w] that it starts from."""
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


class Generator(BaseGenerator):
    """Scenes and cameras to images.

    Args:
        objects, background: the two fields.
        boxes: distribution of the objects' boxes.
        poses: distribution of cameras.
        volume: renders the feature map.
        renderer: makes the picture of it.
        compose: how fields mix where they meet.
        volume_resolution: side of the feature map [pixels].
        background_rotation: first and last turn of the background about the vertical axis [full turns].
        counts: how many boxes hold an object; None: all.
        density_noise: standard deviation of the noise on raw densities wherever draws are given.
    """

    def __init__(
        self,
        objects: Field,
        background: Field,
        boxes: BoxPrior,
        poses: ScenePoses,
        volume: Renderer,
        renderer: NeuralRenderer,
        compose: Compose = weighted,
        volume_resolution: int = 16,
        background_rotation: tuple[float, float] = (0.0, 0.0),
        counts: Counts | None = None,
        density_noise: float = 1.0,
    ) -> None:
        super().__init__(poses, volume_resolution * 2**renderer.stages, boxes.bounds())
        self.scene = Scene(objects, background, compose)
        self.boxes, self.volume, self.renderer = boxes, volume, renderer
        self.volume_resolution, self.background_rotation = volume_resolution, background_rotation
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
        rotation = turned(between(*self.background_rotation, background_turn)).expand(n, 3, 3)
        present = torch.ones(n, self.boxes.count + 1, dtype=torch.bool, device=rotation.device)
        if self.counts is not None:
            present[:, :-1] = self.counts(n, self.boxes.count, draws)
        return Latent(*(x.to(self.device) for x in (*codes, *boxes, rotation, present)))

    def map(self, latent: Latent, *, truncation: float = 1.0) -> Latent:
        """The scene itself; truncation below 1 makes its codes smaller. The paper's videos take 0.65."""
        codes = (x if truncation == 1 else truncation * x for x in latent[:4])
        return Latent(*codes, *latent[4:])

    def codes(self, styles: Latent) -> dict[str, Tensor]:
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
        inverse = 1 / torch.tensor(self.poses.focal, device=self.device, dtype=dtype)
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

    def side(self, resolution: int | None) -> int:
        """Side of the feature map [pixels] for images of this side."""
        factor = 2**self.renderer.stages
        side, rest = divmod(resolution or self.resolution, factor)
        if rest or side < 2:
            raise ValueError(
                f"This generator renders images whose side is a multiple of {factor} from {2 * factor} on, such as "
                f"{self.resolution}, not {resolution}."
            )
        return side

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
            styles: from ``map``.
            camera: B cameras.
            resolution: side of the image [pixels]; changes the number of rays, the 2D network stays the same.
            draws: for jitter and density noise, as in the paper's training and scores; None for neither.
            farthest: as in ``rays``.

        Raises:
            ValueError: the 2D network cannot make an image of that side.
        """
        rays = self.rays(camera, self.side(resolution), farthest)
        integrated = self.volume(self.scene, rays, styles, draws, self.density_noise)
        image, raw = self.renderer(to_map(integrated.features))
        depth = expected_depth(integrated) * rays.directions.norm(dim=-1, keepdim=True)
        return Rendered(image * 2 - 1, raw * 2 - 1, to_map(depth), to_map(integrated.opacity))

    def without_background(self, styles: Latent) -> Latent:
        """The scenes without their backgrounds: then depth and opacity are those of the objects alone."""
        there = styles.present.clone()
        there[:, -1] = False
        return styles._replace(present=there)

    def density(self, points: Tensor, styles: Latent) -> Tensor:
        """Density per world length [B, N, 1] of the objects, without the background, at points [B, N, 3]."""
        nowhere = torch.zeros_like(points)
        return self.scene(Samples(points, nowhere, nowhere[..., :1]), self.without_background(styles))[0][:, :, 0]

    def together(self, n: int, draws: Draws) -> Tensor:
        """Images of n random scenes drawn as in the published training: one turn of the background for all of them,
        cameras zoomed by the steepest and farthest of them."""
        latent = self.scenes(n, draws, draws.shared("background_rotation", ()))
        camera = self.poses.together(n, draws).to(self.device)
        farthest = camera.origins.norm(dim=-1).max() if self.poses.zoom else None
        return self.render(self.map(latent), camera, draws=draws, farthest=farthest).image

    def turntable(self, latent: Latent, n: int) -> tuple[Latent, Camera]:
        """Scenes and cameras that show each of B scenes from n sides, scene after scene, B n long.

        The pictures are those of boxes that turn through their whole range before a camera that stays, but here the
        camera goes round boxes that stay, and takes the background with it. The middle of the objects is moved into
        the axis of the turn. A full circle is left open at its end.
        """
        full = abs(self.boxes.rotation[1] - self.boxes.rotation[0]) == 1
        return self.go_round(latent, torch.arange(n) / n if full else torch.linspace(0, 1, n), self.poses.turntable(n))

    def around(self, latent: Latent, turn: Tensor) -> tuple[Latent, Camera]:
        """As ``turntable``, from these places [T] on its way: 0 is its beginning, 1 its end; both are B T long."""
        return self.go_round(latent, turn, self.poses.around(turn))

    def go_round(self, latent: Latent, share: Tensor, camera: Camera) -> tuple[Latent, Camera]:
        """Cameras [T] taken round each of B scenes by these shares [T] of the boxes' range of turns."""
        first, last = self.boxes.rotation
        turn, batch, n = turned((last - first) * share).to(latent.place), len(latent.shape), len(share)
        camera = camera.to(latent.place)
        round_it = turn.roll((-1, -1), (1, 2)) @ camera.pose[:, :3]  # the matrix in the zoo's axes
        camera = camera._replace(pose=torch.cat([round_it, camera.pose[:, 3:]], dim=1))

        there = latent.present[:, :-1, None].to(latent.place.dtype)
        aside = (there * latent.place).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)
        aside[..., 2] = 0
        rotation = turned(latent.rotation.new_tensor(first)).expand_as(latent.rotation)
        scenes = latent._replace(place=latent.place - aside, rotation=rotation)
        scenes = Latent(*(x.repeat_interleave(n, 0) for x in scenes))
        behind = scenes.background_rotation @ turn.mT.repeat(batch, 1, 1)
        return scenes._replace(background_rotation=behind), Camera(*(x.repeat(batch, 1, 1) for x in camera))

    @property
    def edits(self) -> dict[str, Callable]:
        """What can be done to a scene, by name; each ``(generator, latent, frames, draws) -> latents, cameras``."""
        from zoo.giraffe_extras import EDITS

        return EDITS


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
        ValueError: the resolution is not a power of two from 8 on.
    """

    def __init__(
        self,
        resolution: int = 64,
        channels: int = 512,
        image_min: float = 0.0,
        bias: bool = False,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        self.resolution, self.image_min, self.image_channels = resolution, image_min, image_channels
        count = resolution.bit_length() - 3  # halvings down to a side of 4
        if count < 1 or resolution != 4 << count:
            raise ValueError(f"Images of side {resolution} cannot be judged; take a power of two from 8 on.")
        widths = [image_channels, *(channels // 2 ** (count - 1 - i) for i in range(count))]
        pairs = itertools.pairwise(widths)
        self.layers = nn.ModuleList(nn.Conv2d(i, o, 4, 2, padding=1, bias=bias) for i, o in pairs)
        self.score = nn.Conv2d(channels, 1, 4, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """Scores [B, 1] of images [B, C, H, H] in [-1, 1]; channels beyond ``image_channels`` are left out.

        Raises:
            ValueError: images of another side, or of fewer channels.
        """
        if images.shape[-1] != self.resolution:
            raise ValueError(f"This discriminator takes images of side {self.resolution}, not {images.shape[-1]}.")
        if images.shape[1] < self.image_channels:
            raise ValueError(f"This discriminator takes {self.image_channels} channels, not {images.shape[1]}.")
        x = (images[:, : self.image_channels] + 1) * ((1 - self.image_min) / 2) + self.image_min
        for layer in self.layers:
            x = leaky_relu(layer(x), 0.2)
        return self.score(x).flatten(1)


# Training


class GIRAFFE(GAN):
    """The training algorithm of GIRAFFE (section 3.4): generator, its average, then discriminator, every iteration.

    Args:
        generator: a ``Generator``, or another with its ``together``.
        r1_weight: multiplies the R1 penalty (no half), for images as wide as ``r1_range``.
        r1_range: distance of black and white that the weight is meant for: the paper trains on [0, 1], the zoo's images
            are in [-1, 1]. A gradient is half as long on a range twice as wide; the penalty is put right for that.
        fakes: generated images of each half of an iteration; None: as many as real ones.
        precision: of the discriminator, but for R1.
        max_skips: as in ``zoo.gan.GAN``.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        optimizer_g: OptimizerFactory,
        optimizer_d: OptimizerFactory,
        averages: dict[str, Average] | None = None,
        seed: int = 0,
        r1_weight: float = 10.0,
        r1_range: float = 1.0,
        fakes: int | None = None,
        precision: Precision = "float32",
        max_skips: int = 3,
    ) -> None:
        super().__init__(generator, discriminator, optimizer_g, optimizer_d, averages, seed, precision, max_skips)
        self.r1_weight, self.r1_range, self.fakes = r1_weight, r1_range, fakes

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        real, draws = batch["image"], self.draws()
        optimizer_g, optimizer_d = self.optimizers()
        fakes = self.fakes or len(real)

        with frozen(self.discriminator):
            self.minimise(optimizer_g, "loss_g", self.loss_g(self.generator.together(fakes, draws)))
        for average in self.averages.values():
            average.update(self.generator)

        with torch.no_grad():
            fake = self.generator.together(fakes, draws)
        self.minimise(optimizer_d, "loss_d", self.loss_d(real, fake))
        self.count(len(real))

    def loss_g(self, fake: Tensor) -> dict[str, Tensor]:
        """What the generator pays, by term."""
        return {"fake": judged_real(self.discriminator(fake))}

    def loss_d(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """What the discriminator pays, by term."""
        real = real.detach().requires_grad_()
        with self.full_precision():  # R1 differentiates these scores
            scores = self.discriminator(real)
        return {
            "real": judged_real(scores),
            "fake": judged_fake(self.discriminator(fake)),
            "r1": self.r1_weight * (2 / self.r1_range) ** 2 * r1_penalty(scores, real),
        }
