"""EG3D's two StyleGAN2 networks: one makes the planes, the other the final image of the rendered one (4.1 and 4.3).

B batch, L layers that take w, D width of w, C channels, V side of a plane, h side of the rendered image, H of the final
one
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from zoo.draws import Draws
from zoo.layers.stylegan2 import ModulatedConvolution, StyledLayer, SynthesisBlock, resolutions, styled, to_image, width
from zoo.utils.errors import UserError
from zoo.utils.ranges import above, at_least, given


class PlaneNetwork(nn.Module):
    """A StyleGAN2 whose images are three planes of features.

    Args:
        resolution: side of the planes.
        channels: of each of three planes.
        base_channels, most_channels: a layer has base_channels / its resolution channels, but at most so many.
        clamp: bound of all activations; None for none.
        w_dim: size of w.
    """

    def __init__(
        self,
        resolution: int = 256,
        channels: int = 32,
        base_channels: int = 32768,
        most_channels: int = 512,
        clamp: float | None = None,
        w_dim: int = 512,
    ) -> None:
        at_least(1, self, resolution=resolution, channels=channels, most_channels=most_channels, w_dim=w_dim)
        at_least(resolution, self, base_channels=base_channels)
        above(0, self, **given(clamp=clamp))
        super().__init__()
        sides = resolutions(4, resolution)
        widths = [width(side, base_channels, most_channels) for side in sides]
        self.channels, self.w_dim, self.clamp, self.num_layers = channels, w_dim, clamp, 2 * len(sides)
        self.constant = nn.Parameter(torch.randn(widths[0], 4, 4))
        self.layer = StyledLayer(widths[0], widths[0], 3, w_dim, noise=4)
        self.rgb = ModulatedConvolution(widths[0], 3 * channels, w_dim=w_dim, demodulate=False)
        self.blocks = nn.ModuleList(
            SynthesisBlock(widths[i], widths[i + 1], side, 3 * channels, w_dim=w_dim)
            for i, side in enumerate(sides[1:])
        )

    def forward(self, w: Tensor, draws: Draws | None = None) -> Tensor:
        """Planes [B, 3, C, V, V] of w [B, L, D]; the layer that adds to the image shares its w with the next block.

        Args:
            draws: for image noise; None for the stored one.
        """
        x = self.constant.repeat(len(w), 1, 1, 1)  # a view would stop the flop counter of `zoo benchmark`
        x = styled(self.layer, x, w[:, 0], draws, "planes4_1", self.clamp)
        image = to_image(self.rgb, x, w[:, 1], self.clamp)
        for i, block in enumerate(self.blocks):
            x, image = block(x, image, w[:, 2 * i + 1 : 2 * i + 4], draws, "planes", self.clamp)
        return image.unflatten(1, (3, self.channels))


class Superresolution(nn.Module):
    """From the rendered features, the first three of which are the raw image, to the final image: two blocks.

    The published modules are called 8XDC (channels 256 and 128) and 8X (128 and 64), which double twice, 4X and 2X (128
    and 64, from 128 and 64 pixels), and HybridDeepfp32, 4X without antialiasing, which only old files hold.

    Args:
        low: side that features are resized to.
        doubles_first: whether the first block doubles, too, not the second alone.
        channels: of the two blocks.
        antialias: of resizing, where that makes features smaller.
        shrinks: whether larger features are made smaller (4X and HybridDeepfp32 refuse them).
        adds_to_raw: where features are not resized and the first block does not double, the published raw image has in
            it what that block adds, and so the discriminator saw it; False for the clean rendering.
        clamp: bound of activations, which comes with 16 bits, whether they are used or not; None for none.
        noise: whether there is image noise; the published experiments have none here.
        feature_dim: of the features.
        w_dim: size of w.
    """

    def __init__(
        self,
        low: int = 128,
        doubles_first: bool = True,
        channels: tuple[int, int] = (256, 128),
        antialias: bool = True,
        shrinks: bool = True,
        adds_to_raw: bool = True,
        clamp: float | None = 256,
        noise: bool = False,
        feature_dim: int = 32,
        w_dim: int = 512,
    ) -> None:
        at_least(1, self, low=low, channels=channels, w_dim=w_dim)
        at_least(3, self, feature_dim=feature_dim)
        above(0, self, **given(clamp=clamp))
        super().__init__()
        self.low, self.doubles_first, self.feature_dim, self.clamp = low, doubles_first, feature_dim, clamp
        self.antialias, self.shrinks, self.adds_to_raw = antialias, shrinks, adds_to_raw
        middle = 2 * low if doubles_first else low
        self.resolution = 2 * middle
        self.first = SynthesisBlock(feature_dim, channels[0], middle, 3, doubles_first, w_dim, noise)
        self.second = SynthesisBlock(channels[0], channels[1], self.resolution, 3, True, w_dim, noise)

    def forward(self, features: Tensor, w: Tensor, draws: Draws | None = None) -> tuple[Tensor, Tensor]:
        """The final image [B, 3, H, H] and the raw one [B, 3, h, h] of features [B, C, h, h] and one w [B, D].

        Args:
            draws: for image noise; None for the stored one.

        Raises:
            UserError: features are too large.
        """
        side, w = features.shape[-1], w[:, None].expand(-1, 3, -1)
        if side > self.low and not self.shrinks:
            raise UserError(f"This superresolution takes at most {self.low} rendered pixels a side, not {side}.")
        x = features if side == self.low else resize(features, self.low, self.antialias)
        x, image = self.first(x, x[:, :3], w, draws, "image", self.clamp)
        changed = side == self.low and not self.doubles_first and self.adds_to_raw
        raw = image if changed else features[:, :3]
        _, image = self.second(x, image, w, draws, "image", self.clamp)
        return image, raw


def resize(images: Tensor, side: int, antialias: bool = True) -> Tensor:
    """Images [B, C, h, h] at another side, bilinearly."""
    return interpolate(images, (side, side), mode="bilinear", antialias=antialias)
