"""StyleNeRF's 2D network, which makes the large image of rendered features, and grows (sections 3.2 and 3.3).

B batch, D width of w, C channels
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.draws import Draws
from zoo.layers import stylegan2
from zoo.layers.stylegan2 import GAIN, ModulatedConvolution, activate, added, resolutions, to_image, upsample, width
from zoo.layers.upsampling import Upsampler
from zoo.utils.errors import UserError
from zoo.utils.protocols import check_call, check_made
from zoo.utils.ranges import above, at_least, between, given


class StyledLayer(stylegan2.StyledLayer):
    """StyleGAN2's, with input divided by its running magnitude and an upsampler between convolution and noise.

    Args:
        channels_in, channels_out, size, w_dim, noise: as in ``zoo.layers.stylegan2.StyledLayer``.
        up: doubles the output; None for not at all.
        fir_up: the convolution doubles it, as in StyleGAN2.
        decay: of the running magnitude; None for no division.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        size: int = 1,
        w_dim: int = 512,
        up: nn.Module | None = None,
        fir_up: bool = False,
        noise: int | None = None,
        decay: float | None = 0.999,
    ) -> None:
        super().__init__(channels_in, channels_out, size, w_dim, fir_up, noise)
        self.up, self.decay = up, decay
        self.register_buffer("magnitude", None if decay is None else torch.ones(()))

    def forward(
        self,
        x: Tensor,
        w: Tensor,
        drawn: Tensor | None = None,
        bound: float | None = 256,
        update_magnitude: bool = False,
        pixelwise: bool = False,
    ) -> Tensor:
        """x [B, C_in, H, W] and w [B, D] to [B, C_out, H, W], or twice as large.

        Args:
            drawn: image noise [B, 1, H, W]; None for the stored one.
            bound: of the output.
            update_magnitude: update the running magnitude before it is used.
            pixelwise: neither upsampling nor noise: each pixel by itself.
        """
        if update_magnitude and self.magnitude is not None:
            with torch.no_grad():
                self.magnitude.lerp_(x.to(self.magnitude.dtype).square().mean(), 1 - self.decay)
        divided, ups = 1.0 if self.magnitude is None else self.magnitude.rsqrt(), self.up is not None and not pixelwise
        # As published, kernels before an upsampler are turned around, as those of a transposed convolution are.
        if not ups:
            y = self.conv(x, w, divided * GAIN)
        elif self.conv.size == 1:
            y = self.up(self.conv(x, w, divided)) * GAIN
        else:
            y = self.up(self.conv(x.flip(2, 3), w, divided).flip(2, 3)) * GAIN
        if self.noise is not None and not pixelwise:
            y = added(y, self.noise(drawn) * GAIN)
        return activate(added(y, self.conv.bias[:, None, None] * GAIN), bound)


class Block(nn.Module):
    """Twice the resolution: two styled layers, and what they add to the image.

    Args:
        channels_in, channels_out: widths.
        resolution: side of its output.
        upsampler: of features; None for StyleGAN2's, in the convolution.
        image_up: of images.
        size: of the kernels.
        w_dim: size of w.
        image_channels: of the image.
        noise: whether there is image noise.
        decay: as in ``StyledLayer``.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        resolution: int,
        upsampler: Upsampler | None,
        image_up: Callable[[Tensor], Any] = upsample,
        size: int = 1,
        w_dim: int = 512,
        image_channels: int = 3,
        noise: bool = False,
        decay: float | None = 0.999,
    ) -> None:
        super().__init__()
        self.resolution, self.image_up, self.has_noise = resolution, image_up, noise
        up = {"fir_up": True} if upsampler is None else {"up": upsampler(channels_out)}
        more = {"noise": resolution if noise else None, "decay": decay}
        self.first = StyledLayer(channels_in, channels_out, size, w_dim, **up, **more)
        self.second = StyledLayer(channels_out, channels_out, size, w_dim, **more)
        self.rgb = ModulatedConvolution(channels_out, image_channels, w_dim=w_dim, demodulate=False)

    def forward(
        self,
        x: Tensor,
        image: Tensor,
        w: Tensor,
        draws: Draws | None = None,
        *,
        bound: float | None = 256,
        update_magnitude: bool = False,
        pixelwise: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Features [B, C_out, 2H, 2W] and image [B, 3, 2H, 2W] of features, image and w [B, 3, D].

        Args:
            draws: for image noise; None for the stored one.
            bound, update_magnitude, pixelwise: as in ``StyledLayer``.

        Raises:
            UserError: StyleGAN2's upsampling cannot be left out of its convolution.
        """
        if pixelwise and self.first.up is None:
            raise UserError(
                "The NeRF path needs an upsampler that can be left out, such as zoo.layers.upsampling.NearestConcat: "
                "choose one as the synthesis network's upsampler, or set path_side to 0."
            )
        for i, layer in enumerate((self.first, self.second)):
            drawn = None
            if self.has_noise and draws is not None:
                drawn = draws.normal(f"noise{self.resolution}_{i}", (len(x), 1, self.resolution, self.resolution))
            x = layer(x, w[:, i], drawn, bound=bound, update_magnitude=update_magnitude, pixelwise=pixelwise)
        if not pixelwise:
            image = self.image_up(image)
            check_made(x, [torch.Size((*x.shape[:2], *[self.resolution] * 2))], self, "upsampler")
            check_made(image, [torch.Size((*image.shape[:2], *x.shape[2:]))], self, "image_up")
        return x, to_image(self.rgb, x, w[:, 2], bound) + image


class SynthesisNetwork(nn.Module):
    """The layers from rendered features to images, in blocks that double the resolution.

    Args:
        low: side of the feature map.
        resolution: side of the image.
        feature_dim: of the feature map.
        upsampler: of features, made for each block from its channels; None for StyleGAN2's.
        image_up: of images.
        base_channels, most_channels: a block has base_channels / its resolution channels, but at most so many.
        size: of the kernels.
        clamp: bound of all activations, which 16 bits need; None for none.
        w_dim: size of w.
        noise: whether there is image noise.
        decay: as in ``StyledLayer``.
    """

    def __init__(
        self,
        low: int = 32,
        resolution: int = 256,
        feature_dim: int = 256,
        upsampler: Upsampler | None = None,
        image_up: Callable[[Tensor], Any] = upsample,
        base_channels: int = 32768,
        most_channels: int = 1024,
        size: int = 1,
        clamp: float | None = 256,
        w_dim: int = 512,
        noise: bool = False,
        decay: float | None = 0.999,
    ) -> None:
        at_least(1, self, low=low, resolution=resolution, feature_dim=feature_dim)
        at_least(1, self, most_channels=most_channels, size=size, w_dim=w_dim)
        at_least(resolution, self, base_channels=base_channels)
        above(0, self, **given(clamp=clamp))
        between(0, 1, self, **given(decay=decay))
        check_call("channels", self, upsampler=upsampler)
        check_call("image", self, image_up=image_up)
        super().__init__()
        self.low, self.resolution, self.feature_dim, self.clamp = low, resolution, feature_dim, clamp
        sides = resolutions(low, resolution)[1:]
        widths = [feature_dim, *(width(side, base_channels, most_channels) for side in sides)]
        self.blocks = nn.ModuleList(
            Block(widths[i], widths[i + 1], side, upsampler, image_up, size, w_dim, 3, noise, decay)
            for i, side in enumerate(sides)
        )
        self.num_styles = 2 * len(sides) + 1

    def forward(
        self,
        x: Tensor,
        image: Tensor,
        w: Tensor,
        levels: int,
        draws: Draws | None = None,
        *,
        update_magnitude: bool = False,
        pixelwise: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The images after the first so many blocks, and those one block before.

        Args:
            x: features [B, C, h, h].
            image: the image so far, [B, 3, h, h].
            w: [B, num_styles, D]; the layer of colours shares its own with the next block.
            levels: how many blocks.
            draws: for image noise; None for the stored one.
            update_magnitude: update the running magnitudes of activations.
            pixelwise: each pixel by itself, without upsampling: [B, C, H, W] to [B, 3, H, W].
        """
        before = image
        for i, block in enumerate(self.blocks[:levels]):
            before = image
            own = w[:, 2 * i : 2 * i + 3]
            x, image = block(
                x, image, own, draws, bound=self.clamp, update_magnitude=update_magnitude, pixelwise=pixelwise
            )
        return image, before
