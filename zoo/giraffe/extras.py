"""What was released with GIRAFFE beside the model: other features, objects' masks, the 2D GAN it is compared with.

B batch, N objects
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, leaky_relu, linear
from torch.nn.functional import interpolate as resize

from zoo import generator
from zoo.draws import Draws
from zoo.giraffe.model import Generator
from zoo.giraffe.scenes import Latent
from zoo.layers.discriminator import DiscriminatorOutput
from zoo.layers.stylegan2 import resolutions
from zoo.render import Camera, FixedPoses, Rendered, to_map, transmission_weights, zero_last_interval
from zoo.utils.errors import UserError
from zoo.utils.ranges import above, at_least


class GaussianFeatures(nn.Module):
    """sin and cos of x / downscale times pi along fixed random directions (Tancik 2020).

    Args:
        features: how many directions, a multiple of 3.
        downscale: what x is divided by.
        after: numbers of the random stream that other features took before: the published field draws its directions
            for points first and those for views after them, from one stream.
        std: of the directions' entries.
    """

    def __init__(self, features: int = 30, downscale: float = 2.0, after: int = 0, std: float = 4.0) -> None:
        at_least(3, self, features=features)
        above(0, self, downscale=downscale)
        at_least(0, self, after=after, std=std)
        if features % 3:
            raise UserError(f"features of GaussianFeatures is {features}: give a multiple of 3.")
        import numpy as np

        super().__init__()
        self.downscale, self.channels = downscale, 2 * features
        numbers = np.random.RandomState(42).randn(after + 3 * features)[after:]
        rounded = (std * numbers).astype("float32").reshape(features, 3)  # as published
        directions = torch.tensor(rounded, dtype=torch.get_default_dtype())
        self.register_buffer("directions", directions, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., 3] to [..., channels]: all sines, then all cosines."""
        angles = linear(x / self.downscale * math.pi, self.directions)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def object_masks(
    generator: Generator,
    styles: Latent,
    camera: Camera,
    *,
    resolution: int | None = None,
    farthest: Tensor | None = None,
) -> Tensor:
    """Opacity of each object as if it were alone, [B, N, h, w]; what lies at the last sample is not counted."""
    rays = generator.rays(camera, generator.feature_side(resolution), farthest)
    samples, scene = generator.renderer.depths(rays, None), generator.scene
    local = scene.place(samples, styles)
    densities = scene.densities(scene.query(local, styles)[0], local, styles)
    lengths = zero_last_interval(samples.t, samples.directions)
    alone = [to_map(transmission_weights(d, lengths).sum(-1, keepdim=True)) for d in densities[:-1]]
    return torch.cat(alone, dim=1)


# The 2D baseline


class Block(nn.Module):
    """Residual block with a tenth of the residue (Mescheder 2018)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        hidden = min(channels_in, channels_out)
        self.first = nn.Conv2d(channels_in, hidden, 3, padding=1)
        self.second = nn.Conv2d(hidden, channels_out, 3, padding=1)
        same = channels_in == channels_out
        self.skip = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + 0.1 * self.second(leaky_relu(self.first(leaky_relu(x, 0.2)), 0.2))


class ResidualDiscriminator(nn.Module):
    """Residual blocks with average pooling (Mescheder 2018).

    Args:
        resolution: side of the images [pixels], a power of two.
        channels: of the first convolution; doubled at every size.
        most: most channels.
    """

    def __init__(self, resolution: int = 64, channels: int = 16, most: int = 512) -> None:
        at_least(1, self, resolution=resolution, channels=channels, most=most)
        super().__init__()
        count = len(resolutions(4, resolution)) - 1
        widths = [min(channels * 2**i, most) for i in range(count + 1)]
        self.enter = nn.Conv2d(3, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList([Block(widths[0], widths[0])])
        self.blocks.extend(Block(widths[i], widths[i + 1]) for i in range(count))
        self.score = nn.Linear(16 * widths[-1], 1)

    def forward(self, images: Tensor) -> DiscriminatorOutput:
        """Scores of images [B, 3, H, H] in [-1, 1]."""
        x = self.blocks[0](self.enter(images))
        for block in self.blocks[1:]:
            x = block(avg_pool2d(x, 3, 2, padding=1))
        return DiscriminatorOutput(self.score(leaky_relu(x.flatten(1), 0.2)))


class PlainLatent(NamedTuple):
    """z [B, latent_dim], standard normal."""

    z: Tensor


class PlainGenerator(generator.Generator[PlainLatent, PlainLatent]):
    """A residual 2D network (Mescheder 2018), the paper's baseline. It knows no cameras and no depth.

    Args:
        latent_dim: size of z.
        resolution: side of the images [pixels], a power of two.
        channels: of the last block; doubled at every smaller size.
        most: most channels.
    """

    def __init__(self, latent_dim: int = 256, resolution: int = 64, channels: int = 16, most: int = 512) -> None:
        at_least(1, self, latent_dim=latent_dim, resolution=resolution, channels=channels, most=most)
        super().__init__(FixedPoses(), resolution, [[-1.0] * 3, [1.0] * 3])
        self.latent_dim = latent_dim
        count = len(resolutions(4, resolution)) - 1
        widths = [min(channels * 2**i, most) for i in reversed(range(count + 1))]
        self.enter = nn.Linear(latent_dim, 16 * widths[0])
        self.blocks = nn.ModuleList(Block(widths[i], widths[min(i + 1, count)]) for i in range(count + 1))
        self.colour = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def latents(self, n: int, draws: Draws) -> PlainLatent:
        """n latents."""
        return PlainLatent(draws.normal("z", (n, self.latent_dim)).to(self.device))

    def map(self, latents: PlainLatent, *, truncation: float = 1.0, condition: Camera | None = None) -> PlainLatent:
        """The latents themselves, made smaller by truncation below 1."""
        return PlainLatent(truncation * latents.z)

    def image_side(self, resolution: int | None = None) -> int:
        """The network's own."""
        side = super().image_side(resolution)
        if side != self.resolution:
            raise UserError(f"This generator makes images of side {self.resolution} only, not {side}.")
        return side

    def render(
        self, styles: PlainLatent, camera: Camera, *, resolution: int | None = None, draws: Draws | None = None
    ) -> Rendered:
        """Images of B latents; nothing is opaque, nothing has a depth.

        Raises:
            UserError: another resolution than the network's own.
        """
        self.image_side(resolution)
        x = self.enter(styles.z).unflatten(1, (-1, 4, 4))
        for block in self.blocks[:-1]:
            x = resize(block(x), scale_factor=2, mode="nearest")
        image = self.colour(leaky_relu(self.blocks[-1](x), 0.2)).tanh()
        nothing = torch.zeros_like(image[:, :1])
        return Rendered(image, image, torch.full_like(nothing, torch.nan), nothing)

    def together(self, n: int, draws: Draws) -> Tensor:
        """n random images."""
        return self.render(self.latents(n, draws), self.cameras(n, draws)).image
