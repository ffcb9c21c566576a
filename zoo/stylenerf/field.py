"""StyleNeRF's two radiance fields and how they are rendered (section 3.1 of arXiv:2110.08985), see ``zoo.stylenerf``.

The paper's world has z up and its camera on the positive x axis: its fields count in those axes (towards the camera, to
the right, up), and what the outside sees in the zoo's, where these are z, x and y.

B batch, L layers that take w, D width of w, R rays, S samples, C channels, H width of a field
"""

import itertools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, normalize, pad

from zoo.draws import Draws
from zoo.layers.encoding import positional_encoding
from zoo.layers.stylegan2 import GAIN, SLOPE, Convolution, ModulatedConvolution
from zoo.render import (
    Camera,
    Importance,
    Integrated,
    Quadrature,
    Rays,
    Samples,
    add_density_noise,
    integrate,
    last_sample,
    raw_density,
    stratify,
    transmission_weights,
)
from zoo.render.plan import Chunk, Plan, check_chunk
from zoo.render.query import query
from zoo.utils.constants import constant
from zoo.utils.ranges import above, at_least


class Styles(NamedTuple):
    """What does not depend on the camera.

    w: one for each layer that takes it, [B, L, D]: first those of the field, then those of the 2D network.
    background: z of the background, [B, background_dim].
    planes: what a foreground field computes from w once for all cameras, if anything.
    """

    w: Tensor
    background: Tensor
    planes: Tensor | None = None


def paper_axes(x: Tensor) -> Tensor:
    """(right, up, towards the camera), the zoo's axes, to (towards the camera, right, up), the paper's; [..., 3].

    Sums of squares are taken in the paper's order, too: the encoding's frequencies of 2^9 pi show how they are rounded.
    """
    return x.roll(1, dims=-1)


def encoded(points: Tensor, octaves: int, with_points: bool = False) -> Tensor:
    """Sines and cosines of 2^i pi points, i < octaves; [..., C] to [..., 2 C octaves], the points themselves last."""
    waves = positional_encoding(points, octaves, base=math.pi, identity=False)
    return torch.cat([waves, points], dim=-1) if with_points else waves


def rays_through(camera: Camera, film: Tensor) -> Rays:
    """Rays [B, R, 3] through film coordinates [B, R, 2] or [R, 2]; they count depth along the optical axis.

    As ``zoo.render.through``, but rounded as published, as the difference of two points: the encoding's frequencies of
    2^9 pi show even that.
    """
    focal = 2 * camera.intrinsics[:, :2, :2].diagonal(dim1=1, dim2=2)
    middle = 2 * camera.intrinsics[:, None, :2, 2] - 1
    film = film - middle * constant([1.0, -1.0], middle)
    matrix = torch.cat([camera.pose[:, :3, :2] / focal[:, None], camera.pose[:, :3, 2:]], dim=-1)
    ends = (torch.ones_like(film[..., :1]) * end for end in (-1, 1))
    targets = (matrix @ torch.cat([film, *ends], dim=-1).mT).mT
    origins = camera.origins[:, None].expand_as(targets)
    return Rays(origins, targets - origins)


# The two radiance fields (section 3.1)


class StyledField(nn.Module):
    """Points to density and hidden features, by layers that w modulates; colours and features of hidden ones.

    Args:
        hidden_dim: width.
        num_layers: modulated layers before density and features.
        feature_dim: of the rendered features.
        octaves: of the positional encoding.
        with_points: whether the encoding ends with the points themselves.
        scale: points are divided by this.
        separate_rgb: colours are a layer after the features; else three more features.
        w_dim: size of w.
    """

    def __init__(
        self,
        hidden_dim: int = 128,
        num_layers: int = 8,
        feature_dim: int = 256,
        octaves: int = 10,
        with_points: bool = False,
        scale: float = 1.0,
        separate_rgb: bool = True,
        w_dim: int = 512,
    ) -> None:
        at_least(1, self, hidden_dim=hidden_dim, feature_dim=feature_dim, w_dim=w_dim)
        at_least(0, self, num_layers=num_layers)
        at_least(0 if with_points else 1, self, octaves=octaves)
        above(0, self, scale=scale)
        super().__init__()
        self.hidden_dim, self.feature_dim, self.octaves, self.w_dim = hidden_dim, feature_dim, octaves, w_dim
        self.with_points, self.scale, self.num_styles = with_points, scale, num_layers + 2
        widths = [6 * octaves + 3 * with_points, *[hidden_dim] * max(num_layers, 1)]
        self.layers = nn.ModuleList(ModulatedConvolution(i, o, w_dim=w_dim) for i, o in itertools.pairwise(widths))
        self.density = ModulatedConvolution(hidden_dim, 1, w_dim=w_dim, demodulate=False)
        features = feature_dim if separate_rgb else feature_dim + 3
        self.features = ModulatedConvolution(hidden_dim, features, w_dim=w_dim, demodulate=False)
        self.rgb = Convolution(feature_dim, 3, 1) if separate_rgb else None

    def planes(self, w: Tensor, draws: Draws | None, update_magnitude: bool) -> None:
        """Nothing of it can be computed before the points are known."""
        return None

    def modulate(self, styles: Styles) -> list[tuple[Tensor, Tensor]]:
        """The field's condition: weights [B, C_in, C_out] and biases [C_out] of its layers, density's last.

        The gain of the leaky relu is in weights and biases.
        """
        w = styles.w
        layers = [(kernel(layer, w[:, i], GAIN), layer.bias * GAIN) for i, layer in enumerate(self.layers)]
        return [*layers, (kernel(self.density, w[:, self.num_styles - 2]), self.density.bias)]

    def forward(self, samples: Samples, condition: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Raw density [B, R, S, 1] and hidden features [B, R, S, H] of B x R x S samples."""
        points = paper_axes(samples.points.flatten(1, 2))
        x = encoded(points if self.scale == 1 else points / self.scale, self.octaves, self.with_points)
        *layers, (density, bias) = condition
        for weight, shift in layers:
            x = leaky_relu(torch.baddbmm(shift, x, weight), SLOPE, inplace=True)
        shape = samples.t.shape[1:]
        return torch.baddbmm(bias, x, density).unflatten(1, shape), x.unflatten(1, shape)

    def colours(self, hidden: Tensor, total: Tensor | float, styles: Styles) -> Tensor:
        """Colours and features, [B, N, 3 + C], of hidden features [B, N, H] that were summed with weights.

        All of this is linear, so it is the same before and after the sum, and there are fewer rays than samples.

        Args:
            total: the sums of those weights, [B, N, 1].
        """
        x = torch.bmm(hidden, kernel(self.features, styles.w[:, self.num_styles - 1])) + self.features.bias * total
        return x if self.rgb is None else with_rgb(x, total, self.rgb)


def kernel(layer: ModulatedConvolution, w: Tensor, gain: float = 1.0) -> Tensor:
    """Weights [B, C_in, C_out] of a 1x1 convolution that w [B, D] has gone into, times a gain."""
    return layer.kernels(w, gain)[..., 0, 0].mT.contiguous()


def with_rgb(features: Tensor, total: Tensor | float, layer: Convolution) -> Tensor:
    """The layer's colours of weighted sums of features [B, N, C], and the features: [B, N, 3 + C]."""
    weight = layer.weight[..., 0, 0] * layer.scale
    return torch.cat([features @ weight.mT + layer.bias * total, features], dim=-1)


class PlainField(nn.Module):
    """As ``StyledField``, for the background: no styles, but a latent beside the encoded point, and plain layers.

    Args:
        hidden_dim: width.
        num_layers: layers before density and features.
        feature_dim: of the rendered features.
        octaves: of the positional encoding.
        latent_dim: size of z.
    """

    def __init__(
        self,
        hidden_dim: int = 64,
        num_layers: int = 4,
        feature_dim: int = 256,
        octaves: int = 10,
        latent_dim: int = 32,
    ) -> None:
        at_least(1, self, hidden_dim=hidden_dim, feature_dim=feature_dim, latent_dim=latent_dim)
        at_least(0, self, num_layers=num_layers, octaves=octaves)
        super().__init__()
        self.octaves, self.latent_dim = octaves, latent_dim
        widths = [8 * octaves + latent_dim, *[hidden_dim] * max(num_layers, 1)]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(widths))
        self.density, self.features = nn.Linear(hidden_dim, 1), nn.Linear(hidden_dim, feature_dim)
        self.rgb = Convolution(feature_dim, 3, 1)

    def forward(self, samples: Samples, z: Tensor) -> tuple[Tensor, Tensor]:
        """Raw density [B, R, S, 1] and hidden features [B, R, S, H] at inverse distances samples.t from the middle."""
        first, *others = self.layers
        on_sphere = inverted_sphere_directions(paper_axes(samples.origins), paper_axes(samples.directions), samples.t)
        x = encoded(torch.cat([on_sphere, samples.t[..., None]], dim=-1), self.octaves)
        of_points, of_z = first.weight.split([x.shape[-1], self.latent_dim], dim=1)
        x = (x @ of_points.mT + (z @ of_z.mT + first.bias)[:, None, None]).relu()
        for layer in others:
            x = layer(x).relu()
        return self.density(x), x

    def colours(self, hidden: Tensor, total: Tensor | float) -> Tensor:
        """As ``StyledField.colours``."""
        return with_rgb(hidden @ self.features.weight.mT + self.features.bias * total, total, self.rgb)


def inverted_sphere_directions(origins: Tensor, directions: Tensor, inverse: Tensor) -> Tensor:
    """Directions [B, R, S, 3] of points on rays outside the unit sphere (NeRF++, Zhang 2020, section 4).

    Args:
        origins, directions: of rays that cross the sphere, [B, R, 3].
        inverse: one over the points' distances from the middle, between 0 and 1, [B, R, S].
    """
    forward = normalize(directions, dim=-1)
    to_middle = -(forward * origins).sum(-1, keepdim=True)
    nearest = origins + to_middle * forward
    height = nearest.norm(dim=-1, keepdim=True)
    leaving = origins + (to_middle + (1 - height.square()).sqrt()) * forward
    axis = normalize(torch.linalg.cross(origins, leaving), dim=-1)[..., None, :]
    angle = (height.asin() - (height * inverse).asin())[..., None]
    leaving = leaving[..., None, :]
    along = (axis * leaving).sum(-1, keepdim=True) * axis
    across = torch.linalg.cross(axis.expand(*angle.shape[:-1], 3), leaving.expand(*angle.shape[:-1], 3))
    return normalize(leaving * angle.cos() + across * angle.sin() + along * (1 - angle.cos()), dim=-1)


# Volume rendering (section 3.1)


class LinearSpacing(nn.Module):
    """Samples at even distances along rays from near to far.

    Args:
        near, far: in lengths of the rays' directions.
    """

    def __init__(self, near: float, far: float) -> None:
        at_least(0, self, near=near)
        above(near, self, far=far)
        super().__init__()
        self.near, self.far = near, far

    def distance(self, t: Tensor) -> Tensor:
        """Distance along the ray, in lengths of its direction, of normalised depths t."""
        return self.near * (1 - t) + self.far * t

    def contract(self, points: Tensor) -> Tensor:
        """Points as the field sees them."""
        return points

    @property
    def rate(self) -> float:
        """Normalised depth of a unit of distance, at the origin."""
        return 1 / (self.far - self.near)


class ContractedSpacing(LinearSpacing):
    """Samples at even inverse distances, and space contracted to a sphere of radius two (mip-NeRF 360, Barron 2022).

    One field then holds object and background.
    """

    def __init__(self, near: float, far: float) -> None:
        above(0, self, near=near)  # inverse distances are finite
        super().__init__(near, far)

    def distance(self, t: Tensor) -> Tensor:
        return 1 / ((1 / self.near) * (1 - t) + (1 / self.far) * t)

    def contract(self, points: Tensor) -> Tensor:
        length = paper_axes(points).norm(dim=-1, keepdim=True)
        far = length.clamp(min=1)
        return torch.where(length < 1, points, (2 - 1 / far) * (points / far))

    @property
    def rate(self) -> float:
        return 1 / (1 / self.near - 1 / self.far)


def zero_last_interval(t: Tensor, directions: Tensor) -> Tensor:
    """As ``zoo.render.zero_last_interval``, rounded as published: directions are measured in the paper's axes."""
    return pad(t.diff(dim=-1), (0, 1)) * paper_axes(directions).norm(dim=-1, keepdim=True)


class NormalisedDepthRenderer(nn.Module):
    """Volume rendering as in ``zoo.render.VolumeRenderer``, with depths normalised to [0, 1] from near to far.

    Coarse and fine samples are drawn in normalised depths, as in mip-NeRF 360, and noise on densities is drawn once for
    each sample, not once for each use.

    Args:
        spacing: the distance that a normalised depth stands for.
        samples: along each ray, and as many again where the first ones found something.
        fine: whether there are those.
        quadrature: makes weights of raw densities; by default ``zero_last_interval`` before a black background,
            which leaves the rest of the light to a background field.
        normalised_intervals: whether the quadrature's intervals are normalised depths, not distances.
        chunk: points that the field sees at once, see ``zoo.render.plan``; None for all of them.
    """

    def __init__(
        self,
        spacing: LinearSpacing,
        samples: int,
        fine: bool = True,
        quadrature: Quadrature | None = None,
        normalised_intervals: bool = False,
        chunk: Chunk = "auto",
    ) -> None:
        at_least(1, self, samples=samples)
        check_chunk(chunk, self)
        super().__init__()
        self.spacing, self.samples, self.normalised_intervals = spacing, samples, normalised_intervals
        self.chunk, self.plan = chunk, Plan()
        self.quadrature = quadrature or Quadrature(intervals=zero_last_interval)
        self.fine = Importance(samples) if fine else None

    def forward(
        self, field: nn.Module, rays: Rays, condition: Any, draws: Draws | None = None, density_noise: float = 0.0
    ) -> Integrated:
        """As ``zoo.render.VolumeRenderer``."""
        line = torch.linspace(0, 1, self.samples, device=rays.origins.device, dtype=rays.origins.dtype)
        samples = self.place(rays, stratify(line.expand(*rays.origins.shape[:-1], -1), draws))
        raw, features = query(field, samples, condition, self.chunk, self.plan)
        raw, queried, order = add_density_noise(raw, "coarse_density_noise", draws, density_noise), (features,), None
        if self.fine is not None:
            with torch.no_grad():
                weights = self.quadrature.weigh(raw, self.measured(samples))
                fine = self.place(rays, self.fine(samples.t, weights, draws))
            fine_raw, fine_features = query(field, fine, condition, self.chunk, self.plan)
            fine_raw = add_density_noise(fine_raw, "fine_density_noise", draws, density_noise)
            t, order = torch.cat([fine.t, samples.t], -1).sort(-1)
            samples, queried = self.place(rays, t), (fine_features, features)
            raw = torch.cat([fine_raw, raw], 2).gather(2, order[..., None])
        ray_weights = self.quadrature(raw, self.measured(samples))
        return integrate(ray_weights, samples._replace(t=self.spacing.distance(samples.t)), raw, queried, order)

    def place(self, rays: Rays, t: Tensor) -> Samples:
        """Samples as the field sees them, at normalised depths t [B, R, S]."""
        points = Samples(rays.origins, rays.directions, self.spacing.distance(t)).points
        return Samples(rays.origins, rays.directions, t, self.spacing.contract(points))

    def measured(self, samples: Samples) -> Samples:
        """The same as the quadrature sees them."""
        return samples if self.normalised_intervals else samples._replace(t=self.spacing.distance(samples.t))

    def density(self, points: Tensor, field: nn.Module, condition: Any) -> Tensor:
        """Density per world length [B, N, 1] at points [B, N, 3]; with ``normalised_intervals`` near the origin."""
        raw = raw_density(self.spacing.contract(points), field, condition, self.plan)
        density = self.quadrature.density(raw, points[:, :, None])[:, :, 0]
        return density * self.spacing.rate if self.normalised_intervals else density


class BackgroundSamples(NamedTuple):
    """Samples of the background: weights [B, R, S], which sum to one, and hidden features [B, R, S, H]."""

    weights: Tensor
    hidden: Tensor


class BackgroundRenderer(nn.Module):
    """The background: a field marched outside the unit sphere, at even inverse distances from the origin (NeRF++).

    Args:
        field: queried at (direction, inverse distance).
        samples: along each ray.
        start: inverse distance at which it begins.
        chunk: points that the field sees at once; None for all of them.
    """

    def __init__(self, field: PlainField, samples: int = 4, start: float = 0.5, chunk: Chunk = "auto") -> None:
        at_least(1, self, samples=samples)
        above(0, self, start=start)
        check_chunk(chunk, self)
        super().__init__()
        self.field, self.samples, self.start, self.chunk, self.plan = field, samples, start, chunk, Plan()

    def forward(
        self, rays: Rays, z: Tensor, draws: Draws | None = None, density_noise: float = 0.0
    ) -> BackgroundSamples:
        """Samples along rays [B, R, 3] through backgrounds of latents z [B, background_dim]; the last one is opaque.

        Args:
            draws: for jitter and density noise; None for none of them.
            density_noise: standard deviation of the noise on raw densities.
        """
        line = torch.linspace(-1, 0, self.samples, device=z.device, dtype=z.dtype) * self.start
        place = stratify(line.expand(*rays.origins.shape[:-1], -1), draws, "background_jitter")
        raw, hidden = query(self.field, Samples(rays.origins, rays.directions, -place), z, self.chunk, self.plan)
        raw = add_density_noise(raw, "background_density_noise", draws, density_noise)
        weights = transmission_weights(raw[..., 0].relu(), pad(place.diff(dim=-1), (0, 1)))
        return BackgroundSamples(last_sample(weights)[0], hidden)
