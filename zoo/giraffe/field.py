"""GIRAFFE's feature fields (section 3.1)."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from zoo.layers.encoding import positional_encoding
from zoo.utils.ranges import above, at_least


class Octaves(nn.Module):
    """sin and cos of x / downscale times pi, 2 pi, 4 pi ...; x itself is left out (section 3.1, equation 2).

    Args:
        octaves: how many frequencies.
        downscale: what x is divided by, so that it lies about in [-1, 1].
    """

    def __init__(self, octaves: int = 10, downscale: float = 2.0) -> None:
        at_least(1, self, octaves=octaves)
        above(0, self, downscale=downscale)
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
        at_least(1, self, latent_dim=latent_dim, hidden_dim=hidden_dim, num_layers=num_layers, features=features)
        at_least(0, self, skips=skips)
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
