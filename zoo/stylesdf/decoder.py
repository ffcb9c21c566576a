"""StyleSDF's second stage: a StyleGAN2 that makes the image of the rendered features (section 3.3).

B batch, L layers that take latents, D size of these, C channels, h side of the rendered features, H of the image
"""

import itertools

import torch
from torch import Tensor, nn

from zoo.draws import Draws
from zoo.layers.stylegan2 import Mapping, ModulatedConvolution, StyledLayer, SynthesisBlock, styled, to_image
from zoo.utils.errors import UserError
from zoo.utils.ranges import above, at_least, filled


class Decoder(nn.Module):
    """Features to images; its latents are those of a mapping network of the field's w.

    The image comes from the features alone: the rendered colours are no part of it.

    Args:
        widths: channels by side, from that of the features to that of the image, each side twice that before it.
        feature_dim: of the features.
        style_dim: size of the field's w.
        latent_dim: size of the latents.
        mapping_layers, mapping_rate: of the mapping network, and their learning rate as a share of the others'.
    """

    trained: Tensor

    def __init__(
        self,
        widths: dict[int, int],
        feature_dim: int = 256,
        style_dim: int = 256,
        latent_dim: int = 512,
        mapping_layers: int = 5,
        mapping_rate: float = 0.01,
    ) -> None:
        filled(self, widths=widths)
        at_least(1, self, mapping_layers=mapping_layers)
        above(0, self, mapping_rate=mapping_rate)
        at_least(1, self, widths=widths, feature_dim=feature_dim, style_dim=style_dim, latent_dim=latent_dim)
        super().__init__()
        sides = sorted(widths)
        channels = [widths[side] for side in sides]
        if any(b != 2 * a for a, b in itertools.pairwise(sides)):
            raise UserError(f"widths of Decoder are of the sides {sides}: give each twice that before it.")
        self.feature_dim, self.style_dim, self.latent_dim = feature_dim, style_dim, latent_dim
        self.render_side, self.resolution, self.num_layers = sides[0], sides[-1], 2 * len(sides)
        self.mapping = Mapping(style_dim, latent_dim, latent_dim, mapping_layers, mapping_rate)
        self.layer = StyledLayer(feature_dim, channels[0], 3, latent_dim, noise=sides[0])
        self.rgb = ModulatedConvolution(channels[0], 3, w_dim=latent_dim, demodulate=False)
        self.blocks = nn.ModuleList(
            SynthesisBlock(*pair, side, 3, w_dim=latent_dim)
            for pair, side in zip(itertools.pairwise(channels), sides[1:], strict=True)
        )
        self.register_buffer("mean_latent", torch.full((latent_dim,), torch.nan))
        # 0 while only the renderer is trained: images are then rendered ones, enlarged
        self.register_buffer("trained", torch.ones(()))

    def forward(self, features: Tensor, latents: Tensor, draws: Draws | None = None) -> Tensor:
        """Images [B, 3, H, H] of features [B, C, h, h] and latents [B, L, D].

        Args:
            draws: for image noise; None for the stored one.
        """
        start = self.render_side
        x = styled(self.layer, features, latents[:, 0], draws, f"image{start}_1", None)
        image = to_image(self.rgb, x, latents[:, 1], None)
        for i, block in enumerate(self.blocks):
            x, image = block(x, image, latents[:, 2 * i + 1 : 2 * i + 4], draws, "image")
        return image

    def latents(self, w: Tensor, other: Tensor | None = None, cut: int = 0) -> Tensor:
        """Latents [B, L, D] of the field's w [B, style_dim]; with style mixing, of another from layer ``cut`` on."""
        latents = self.mapping(w)[:, None].expand(-1, self.num_layers, -1)
        if other is None:
            return latents
        return torch.cat([latents[:, :cut], self.latents(other)[:, cut:]], dim=1)
