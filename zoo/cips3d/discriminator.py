"""Discriminators: towers of StyleGAN2's residual blocks, see ``zoo.layers.towers``."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from zoo.cips3d.model import Augment
from zoo.draws import Draws
from zoo.layers.stylegan2 import with_deviation
from zoo.layers.towers import PASSING, EqualConv, EqualLinear, Passing, ResidualBlock


class Tower(nn.Module):
    """Scores images of several resolutions; images enter at the level of their size.

    Args:
        channels: widths of the levels, from 4x4 upwards.
        shrink_first: where blocks halve the resolution, see ``zoo.layers.towers.ResidualBlock``.
        group: images whose spread is shown to the last convolution; 0 for no such thing.
    """

    def __init__(self, channels: list[int], shrink_first: bool = False, group: int = 0) -> None:
        super().__init__()
        if group == 1:
            raise ValueError("The spread of a group of one image is nothing: give a group of 2 or more, or 0.")
        self.group = group
        self.from_rgb = nn.ModuleList(EqualConv(3, c, 1) for c in channels)
        self.blocks = nn.ModuleList(ResidualBlock(i, o, shrink_first) for o, i in itertools.pairwise(channels))
        self.final = EqualConv(channels[0] + (group > 0), channels[0], 3)
        self.dense = EqualLinear(16 * channels[0], channels[0])
        self.score = EqualLinear(channels[0], 1)

    def forward(self, images: Tensor, alpha: float = 1.0, passing: Passing = PASSING) -> Tensor:
        """Scores [B, 1] of images [B, 3, H, H]; below 1, alpha is the share of the first block in a blend.

        Raises:
            ValueError: the image's side is not that of a level.
        """
        sides = [4 * 2**i for i in range(len(self.from_rgb))]
        if images.shape[-1] not in sides:
            raise ValueError(
                f"This discriminator takes images of side {', '.join(map(str, sides))}, not {images.shape[-1]}."
            )
        level = sides.index(images.shape[-1])
        x = self.from_rgb[level](images, passing)
        for i in reversed(range(level)):
            x = self.blocks[i](x, passing)
            if i == level - 1 and alpha < 1:
                x = alpha * x + (1 - alpha) * self.from_rgb[i](avg_pool2d(images, 2), passing)
        if self.group:
            x = with_deviation(x, self.group)
        x = self.dense(self.final(x, passing).flatten(1), passing, gain=math.sqrt(2))
        return self.score(passing.bend(x), passing)


class Discriminator(nn.Module):
    """The tower for final images, and a smaller one for the colours of the field (section 3.3).

    Args:
        main, auxiliary: the towers.
    """

    def __init__(self, main: Tower, auxiliary: Tower) -> None:
        super().__init__()
        self.main, self.auxiliary = main, auxiliary

    @property
    def compares(self) -> bool:
        """Whether images of a batch are compared with each other."""
        return self.main.group > 0 or self.auxiliary.group > 0

    def forward(
        self,
        images: Tensor,
        alpha: float = 1.0,
        auxiliary: bool = False,
        augment: Augment | None = None,
        draws: Draws | None = None,
    ) -> Tensor:
        """Scores [B, 1] of images [B, 3, H, H].

        Args:
            images: for the main tower, or one half for each tower.
            alpha: see ``Tower``.
            auxiliary: whether the second half is for the auxiliary tower.
            augment: changes images at random before a tower sees them.
            draws: for ``augment``.
        """
        shares = self.shares(images, auxiliary, augment, draws)
        return torch.cat([tower(part, alpha) for tower, part in shares])

    def shares(
        self, images: Tensor, auxiliary: bool, augment: Augment | None, draws: Draws | None
    ) -> list[tuple[Tower, Tensor]]:
        """What each tower sees."""
        towers = [self.main, self.auxiliary] if auxiliary else [self.main]
        parts = images.chunk(len(towers))
        if augment is not None:
            parts = [augment(part, draws) for part in parts]
        return list(zip(towers, parts, strict=True))
