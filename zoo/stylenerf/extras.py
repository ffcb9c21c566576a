"""What the published StyleNeRF can do beside what its paper describes: tri-planes, learned cameras, and discriminators
that predict cameras or also score low-resolution images.

B batch, L layers that take w, D width of w, R rays, S samples, C channels, H width of a field, V side of a plane
"""

import itertools
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, normalize

from zoo.draws import Draws
from zoo.layers.discriminator import Block as DiscriminatorBlock
from zoo.layers.discriminator import DiscriminatorOutput
from zoo.layers.lookup import sample_planes
from zoo.layers.stylegan2 import (
    GAIN,
    Convolution,
    Dense,
    Mapping,
    ModulatedConvolution,
    activate,
    downsample,
    resolutions,
    to_float32,
    to_image,
    width,
)
from zoo.render import Camera, GaussianPoses, Samples, UniformPoses
from zoo.stylenerf.discriminator import Discriminator, enter
from zoo.stylenerf.field import Styles, paper_axes, with_rgb
from zoo.stylenerf.synthesis import Block, StyledLayer
from zoo.utils.constants import constant
from zoo.utils.host_numbers import number
from zoo.utils.ranges import above, at_least, between, given


class PlaneNetwork(nn.Module):
    """A StyleGAN2 that makes feature planes of w.

    Args:
        start: side of the learned constant.
        resolution: side of the planes.
        channels: of each of three planes.
        base_channels, most_channels: a block has base_channels / its resolution channels, but at most so many.
        size: of the kernels.
        clamp: bound of all activations.
        w_dim: size of w.
        decay: as in ``zoo.stylenerf.synthesis.StyledLayer``.
    """

    def __init__(
        self,
        start: int = 8,
        resolution: int = 256,
        channels: int = 32,
        base_channels: int = 32768,
        most_channels: int = 512,
        size: int = 3,
        clamp: float | None = 256,
        w_dim: int = 512,
        decay: float | None = 0.999,
    ) -> None:
        at_least(
            1,
            self,
            start=start,
            resolution=resolution,
            channels=channels,
            most_channels=most_channels,
            size=size,
            w_dim=w_dim,
        )
        at_least(resolution, self, base_channels=base_channels)
        above(0, self, **given(clamp=clamp))
        between(0, 1, self, **given(decay=decay))
        super().__init__()
        sides = resolutions(start, resolution)
        widths = [width(side, base_channels, most_channels) for side in sides]
        self.clamp, self.start, self.num_styles = clamp, start, 2 * len(sides)
        self.constant = nn.Parameter(torch.randn(widths[0], start, start))
        self.layer = StyledLayer(widths[0], widths[0], size, w_dim, noise=start, decay=decay)
        self.rgb = ModulatedConvolution(widths[0], 3 * channels, w_dim=w_dim, demodulate=False)
        more = {"size": size, "w_dim": w_dim, "image_channels": 3 * channels, "noise": True, "decay": decay}
        self.blocks = nn.ModuleList(Block(*widths[i : i + 2], side, None, **more) for i, side in enumerate(sides[1:]))

    def forward(self, w: Tensor, draws: Draws | None = None, update_magnitude: bool = False) -> Tensor:
        """Planes [B, 3 C, V, V] of w [B, num_styles, D].

        Args:
            draws: for image noise; None for the stored one.
            update_magnitude: update the running magnitudes of activations.
        """
        drawn = None if draws is None else draws.normal("planes_noise", (len(w), 1, self.start, self.start))
        x = self.constant.expand(len(w), -1, -1, -1)
        x = self.layer(x, w[:, 0], drawn, bound=self.clamp, update_magnitude=update_magnitude)
        image = to_image(self.rgb, x, w[:, 1], self.clamp)
        for i, block in enumerate(self.blocks):
            own = w[:, 2 * i + 1 : 2 * i + 4]
            x, image = block(x, image, own, draws, bound=self.clamp, update_magnitude=update_magnitude)
        return image


class TriPlaneField(nn.Module):
    """Points, looked up in three planes of features, to density and features: EG3D's field in StyleNeRF's program.

    Args:
        network: makes the planes.
        plane_channels: of each plane.
        hidden_dim: width.
        num_layers: layers before density and features.
        feature_dim: of the rendered features.
        extent: side of the cube that the planes span.
        separate_rgb: as in ``zoo.stylenerf.StyledField``.
        w_dim: size of w.
    """

    def __init__(
        self,
        network: PlaneNetwork,
        plane_channels: int = 32,
        hidden_dim: int = 128,
        num_layers: int = 1,
        feature_dim: int = 32,
        extent: float = 0.48,
        separate_rgb: bool = False,
        w_dim: int = 512,
    ) -> None:
        at_least(1, self, plane_channels=plane_channels, hidden_dim=hidden_dim, feature_dim=feature_dim, w_dim=w_dim)
        at_least(0, self, num_layers=num_layers)
        above(0, self, extent=extent)
        super().__init__()
        self.network, self.feature_dim, self.w_dim = network, feature_dim, w_dim
        self.num_styles, self.extent = network.num_styles, extent
        widths = [plane_channels, *[hidden_dim] * max(num_layers, 1)]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(widths))
        self.density = nn.Linear(hidden_dim, 1)
        self.features = nn.Linear(hidden_dim, feature_dim if separate_rgb else feature_dim + 3)
        self.rgb = Convolution(feature_dim, 3, 1) if separate_rgb else None

    def planes(self, w: Tensor, draws: Draws | None, update_magnitude: bool) -> Tensor:
        """Planes [B, 3 C, V, V]."""
        return self.network(w[:, : self.num_styles], draws, update_magnitude)

    def modulate(self, styles: Styles) -> Tensor:
        """The field's condition: the planes."""
        return styles.planes

    def forward(self, samples: Samples, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Raw density [B, R, S, 1] and hidden features [B, R, S, H] of B x R x S samples."""
        points = paper_axes(samples.points.flatten(1, 2)) / (self.extent / 2)
        planes = planes.unflatten(1, (3, -1))
        x = sample_planes(planes, points, [[0, 1], [0, 2], [1, 2]]).sum(1).unflatten(1, samples.t.shape[1:])
        for layer in self.layers:
            x = layer(x).relu()
        return self.density(x), x

    def colours(self, hidden: Tensor, total: Tensor | float, styles: Styles) -> Tensor:
        """As ``zoo.stylenerf.StyledField.colours``."""
        x = hidden @ self.features.weight.mT + self.features.bias * total
        return x if self.rgb is None else with_rgb(x, total, self.rgb)


# Learned cameras


class CameraNetwork(nn.Module):
    """How a camera that was drawn is to be moved: two numbers to two numbers.

    Args:
        hidden_dim: width.
    """

    def __init__(self, hidden_dim: int = 128) -> None:
        at_least(1, self, hidden_dim=hidden_dim)
        super().__init__()
        self.first, self.second = Dense(2, hidden_dim), Dense(hidden_dim, hidden_dim)
        self.last = Dense(hidden_dim, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 2] to [B, 2]."""
        return self.last(activate(self.second(activate(self.first(x, GAIN)), GAIN)))


class LearnedPoses(nn.Module):
    """Cameras of another distribution, each moved by what a network learned, once growing has begun.

    Args:
        poses: the distribution at first.
        network: moves them.
        strength: of the move, in spreads.
    """

    def __init__(
        self, poses: GaussianPoses | UniformPoses, network: CameraNetwork = CameraNetwork(), strength: float = 0.1
    ) -> None:
        at_least(0, self, strength=strength)
        super().__init__()
        self.poses, self.network, self.strength = poses, network, strength
        self.register_buffer("alpha", torch.ones(()), persistent=False)  # of the generator

    def __call__(self, n: int, draws: Draws | None) -> Camera:
        """n cameras; with ``draws=None`` n times the middle one, which is not moved."""
        if draws is None:
            return self.poses(n, None)
        device = self.alpha.device
        if isinstance(self.poses, GaussianPoses):
            place = draws.normal("camera", (n, 2)).to(device)
        else:
            place = draws.uniform("camera", (n, 2)).to(device)
        return self.at(place + self.strength * self.moves(place) if number(self.alpha) > 0 else place)

    def moves(self, place: Tensor) -> Tensor:
        """The network's output for places [B, 2]."""
        return self.network(place if isinstance(self.poses, GaussianPoses) else place - 0.5)

    def at(self, place: Tensor) -> Camera:
        """Cameras at places [B, 2]: deviations for gaussian ones, shares of the range for uniform ones.

        The paper's azimuth runs the other way round.
        """
        place = place if isinstance(self.poses, GaussianPoses) else 2 * place - 1
        yaw = self.poses.yaw_mean - self.poses.yaw_spread * place[:, :1]
        return self.poses.camera(yaw, self.poses.pitch_mean + self.poses.pitch_spread * place[:, 1:2])

    def turntable(self, n: int) -> Camera:
        """That of the distribution at first."""
        return self.poses.turntable(n)

    def orbit_at(self, turn: Tensor) -> Camera:
        """The same."""
        return self.poses.orbit_at(turn)

    @property
    def pivot(self) -> tuple[float, float, float]:
        """The same."""
        return self.poses.pivot


def pose_of(numbers: Tensor) -> Tensor:
    """Poses [B, 4, 4] of nine numbers: two rows of a rotation (Zhou 2019, arXiv:1812.07035), and a place."""
    first, second, place = numbers.split(3, dim=1)
    first = normalize(first, dim=-1)
    third = normalize(torch.linalg.cross(first, second), dim=-1)
    rotation = torch.stack([first, torch.linalg.cross(third, first), third], dim=1)
    pose = torch.cat([rotation, place[:, :, None]], dim=2)
    last = constant([0.0, 0.0, 0.0, 1.0], pose).expand(len(pose), 1, -1)
    return torch.cat([pose, last], dim=1)


# Discriminators


class CameraDiscriminator(Discriminator):
    """Predicts the camera of an image, and scores the image conditioned on that prediction.

    Args:
        numbers: of a prediction: 3 for the place on the sphere, 16 for a pose, 9 for one by ``pose_of``.
        separate: whether predictions are made by blocks of their own, from the image resized to ``start``.
        mapping_layers: between the prediction and the embedding that the last layer is projected on.
        kwargs: as in ``zoo.stylenerf.Discriminator``.
    """

    def __init__(
        self, numbers: Literal[3, 9, 16] = 3, separate: bool = False, mapping_layers: int = 8, **kwargs
    ) -> None:
        at_least(0, self, mapping_layers=mapping_layers)
        super().__init__(**kwargs)
        channels = len(self.dense.bias)
        self.numbers = numbers
        self.guess = Convolution(channels, numbers, 4, bias=False)
        self.small = small_blocks(self) if separate else None
        self.embed = Dense(16 if numbers == 9 else numbers, channels)
        self.mapping = Mapping(channels, channels, channels, mapping_layers)
        self.score = Dense(channels, channels)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """Scores, and the predicted camera: [B, 3] its place, or [B, 16] its pose."""
        self.check(images)
        x, rest = self.reduced(*self.sized(images))
        seen = x if self.small is None else low_resolution_features(self, images)[0]
        guess = to_float32(conv2d(seen, self.guess.weight * self.guess.scale).flatten(1))
        camera = pose_of(guess).flatten(1) if self.numbers == 9 else guess
        embedding = self.mapping(self.embed(camera))
        scores = (self.score(self.epilogue(self.entered(x, rest))) * embedding).sum(1, keepdim=True)
        return DiscriminatorOutput(scores / math.sqrt(embedding.shape[1]), camera=camera)


class DualDiscriminator(Discriminator):
    """Also scores a low-resolution image, by blocks of its own and the same last layers; scores are concatenated.

    Args:
        kwargs: as in ``zoo.stylenerf.Discriminator``.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.small = small_blocks(self)

    def forward(self, images: Tensor, raw: Tensor | None = None) -> DiscriminatorOutput:
        """Scores [2 B, 1] of images [B, 3, H, H] and of small ones, which are made of them where they are not given."""
        scores = super().forward(images).scores
        small = self.score(self.epilogue(self.entered(*low_resolution_features(self, images if raw is None else raw))))
        return DiscriminatorOutput(torch.cat([scores, small]))


class DoubleDiscriminator(Discriminator):
    """Scores images concatenated with blurred copies, as EG3D's (Chan 2022) with low-resolution ones.

    Args:
        ratio: by which images are made smaller, and larger again.
        kwargs: as in ``zoo.stylenerf.Discriminator``.
    """

    def __init__(self, ratio: int = 4, **kwargs) -> None:
        at_least(1, self, ratio=ratio)
        super().__init__(image_channels=6, **kwargs)
        self.ratio = ratio

    def sized(self, images: Tensor) -> tuple[Tensor, float]:
        images, share = super().sized(images)
        small = interpolate(images, images.shape[-1] // self.ratio, mode="bilinear")
        return torch.cat([images, interpolate(small, images.shape[-1], mode="bilinear")], dim=1), share


def small_blocks(discriminator: Discriminator) -> nn.ModuleList:
    """Further blocks for images of the side at which a discriminator begins to grow."""
    sides = [side for side in discriminator.sides if side <= (discriminator.start or discriminator.resolution)]
    widths = [block.first.weight.shape[0] for block in discriminator.blocks[-len(sides) :]] + [
        len(discriminator.dense.bias)
    ]
    blocks = [DiscriminatorBlock(i, o, residual=False) for i, o in itertools.pairwise(widths)]
    for block in blocks:
        block.from_rgb = Convolution(3, block.first.weight.shape[0], 1)
    return nn.ModuleList(blocks)


def low_resolution_features(discriminator: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """What those blocks make of images, and the images, [B, C, 4, 4]."""
    side = 4 * 2 ** len(discriminator.small)
    x, images = 0, images if images.shape[-1] == side else interpolate(images, side, mode="bilinear")
    for block in discriminator.small:
        x = block(x + enter(block, images, discriminator.clamp), discriminator.clamp)
        images = downsample(images)
    return x, images
