"""StyleSDF's field of signed distances, and how it is sampled and rendered (sections 3.1 and 3.2).

B batch, R rays, S samples, N = R S points, C width, D size of w
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from zoo.draws import Draws
from zoo.layers.film import fold, sine
from zoo.render import Depths, Rays, Samples
from zoo.utils.ranges import above, at_least

View = Literal["world", "camera"]


class FilmLayer(nn.Module):
    """A sine layer with frequencies 15 (A w + a) + 30 and phases (C w + c) / 4.

    Args:
        dim_in, dim_out: widths.
        style_dim: size of w.
        bound: of the initial weights of the linear layer.
    """

    def __init__(self, dim_in: int, dim_out: int, style_dim: int, bound: float) -> None:
        super().__init__()
        self.linear = nn.Linear(dim_in, dim_out)
        self.frequency, self.phase = nn.Linear(style_dim, dim_out), nn.Linear(style_dim, dim_out)
        nn.init.uniform_(self.linear.weight, -bound, bound)
        for layer in (self.frequency, self.phase):
            nn.init.kaiming_normal_(layer.weight, a=0.2, nonlinearity="leaky_relu")
            with torch.no_grad():
                layer.weight *= 0.25

    def modulate(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and biases of this layer for B styles [B, D], see ``zoo.layers.film.fold``."""
        return fold(self.linear, 15 * self.frequency(w) + 30, 0.25 * self.phase(w))


class Condition(NamedTuple):
    """What the field depends on beside the samples.

    sines: weights and biases of each sine layer, from ``FilmLayer.modulate``.
    rotation: from the frame that view directions are given in to the world, [B, 3, 3]; None for the world itself.
    with_features: whether samples have features beside their colours.
    """

    sines: list[tuple[Tensor, Tensor]]
    rotation: Tensor | None
    with_features: bool


class SDFField(nn.Module):
    """Points and directions to signed distances, colours and features: a SIREN whose every layer is modulated by w.

    Args:
        hidden_dim: width, and number of features.
        num_layers: sine layers before the distance; colour and features have one more.
        style_dim: size of w.
        input_scale: multiplies world points: 2 / (far - near), 1 for none (the published no_z_normalize).
        view: frame of the view directions in training.
        evaluation_view: likewise in evaluation mode. The published program trains with directions in the world, and
            makes all its images and videos with those in the camera's frame (static_viewdirs), the same from all sides.
    """

    def __init__(
        self,
        hidden_dim: int = 256,
        num_layers: int = 8,
        style_dim: int = 256,
        input_scale: float = 1 / 0.12,
        view: View = "world",
        evaluation_view: View = "camera",
    ) -> None:
        at_least(1, self, hidden_dim=hidden_dim, num_layers=num_layers, style_dim=style_dim)
        above(0, self, input_scale=input_scale)
        super().__init__()
        self.hidden_dim, self.style_dim, self.input_scale = hidden_dim, style_dim, input_scale
        self.view, self.evaluation_view = view, evaluation_view

        def bound(dim_in: int) -> float:
            return math.sqrt(6 / dim_in) / 25

        self.layers = nn.ModuleList(
            FilmLayer(hidden_dim, hidden_dim, style_dim, bound(hidden_dim))
            if i
            else FilmLayer(3, hidden_dim, style_dim, 1 / 3)
            for i in range(num_layers)
        )
        self.view_layer = FilmLayer(hidden_dim + 3, hidden_dim, style_dim, bound(hidden_dim + 3))
        self.distance, self.colour = nn.Linear(hidden_dim, 1), nn.Linear(hidden_dim, 3)
        for layer in (self.distance, self.colour):
            nn.init.uniform_(layer.weight, -bound(hidden_dim), bound(hidden_dim))

    def condition(self, w: Tensor, pose: Tensor | None = None, with_features: bool = False) -> Condition:
        """The condition of B styles [B, D], seen from cameras with these poses [B, 4, 4] where that matters."""
        in_camera = (self.view if self.training else self.evaluation_view) == "camera" and pose is not None
        sines = [layer.modulate(w) for layer in (*self.layers, self.view_layer)]
        return Condition(sines, pose[:, :3, :3] if in_camera else None, with_features)

    def forward(self, samples: Samples, condition: Condition) -> tuple[Tensor, Tensor]:
        """Signed distances [B, R, S, 1] and colours in [0, 1], with features after them, [B, R, S, 3 or 3 + C]."""
        shape, x = samples.t.shape[1:], self.trunk(samples.points, condition)
        distances, directions = self.distance(x), samples.directions
        if condition.rotation is not None:
            directions = directions @ condition.rotation
        directions = normalize(directions, dim=-1).repeat_interleave(shape[-1], dim=1)
        x = sine(torch.cat([x, directions], dim=-1), *condition.sines[-1])
        colours = self.colour(x).sigmoid()
        features = torch.cat([colours, x], dim=-1) if condition.with_features else colours
        return distances.unflatten(1, shape), features.unflatten(1, shape)

    def trunk(self, points: Tensor, condition: Condition) -> Tensor:
        """What distances are a layer of, [B, N, C], at points [B, R, S, 3]."""
        x = points.flatten(1, 2) * self.input_scale
        for layer in condition.sines[:-1]:
            x = sine(x, *layer)
        return x

    def distances(self, points: Tensor, condition: Condition) -> Tensor:
        """Signed distances [B, R, S, 1] at points [B, R, S, 3]."""
        return self.distance(self.trunk(points, condition)).unflatten(1, points.shape[1:3])


class SigmoidDensity(nn.Module):
    """Density sigmoid(-d / beta) / beta of signed distances d (equation 2), with a learned beta.

    Args:
        beta: at the start [world units]; nothing bounds it later. Published trainings have converged below 0.003.
    """

    def __init__(self, beta: float = 0.1) -> None:
        above(0, self, beta=beta)
        super().__init__()
        self.beta = nn.Parameter(torch.full((1,), beta))

    def forward(self, raw: Tensor, points: Tensor) -> Tensor:
        return torch.sigmoid(-raw / self.beta) / self.beta


# Depths


@dataclass(frozen=True)
class OffsetDepths:
    """Evenly spaced depths from ``near`` to one step before ``far``, all moved on by the same share of a step.

    Args:
        near, far: limits [lengths of the rays' directions].
        samples: of each ray.
    """

    near: float
    far: float
    samples: int

    def __post_init__(self) -> None:
        at_least(0, self, near=self.near)
        above(self.near, self, far=self.far)
        at_least(1, self, samples=self.samples)

    def __call__(self, rays: Rays, draws: Draws | None) -> Samples:
        shape, like = rays.origins.shape[:2], {"device": rays.origins.device, "dtype": rays.origins.dtype}
        edges = torch.arange(self.samples + 1, **like) / self.samples
        edges = self.near * (1 - edges) + self.far * edges
        t = edges[:-1].expand(*shape, -1)
        if draws is not None:
            t = t + edges.diff() * draws.uniform("jitter", (*shape, 1))
        return Samples(rays.origins, rays.directions, t)


@dataclass(frozen=True)
class DifferentiablePoints:
    """Other depths, with points that distances can be differentiated by."""

    depths: Depths

    def __call__(self, rays: Rays, draws: Draws | None) -> Samples:
        samples = self.depths(rays, draws)
        return samples._replace(positions=samples.points.detach().requires_grad_())
