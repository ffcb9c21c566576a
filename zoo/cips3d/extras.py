"""What the published CIPS-3D can do beside its experiments: styles of single layers, exchange of layers.

B batch, L layers, C channels
"""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from zoo.cips3d.model import Generator, MappingNetwork, linear_layers
from zoo.utils.errors import UserError
from zoo.utils.ranges import at_least


class Heads(nn.Module):
    """A mapping network that gives every layer a style of its own: a common base, and a small network for each.

    No published experiment has any (``head_layers``). To be given to ``zoo.cips3d.Mapping`` in place of a
    ``MappingNetwork``.

    Args:
        base: what all layers have in common; its result passes a leaky ReLU.
        style_dim: width of the styles.
        names: of the layers: their numbers, in order, and for a shape at last "colour", the layer of the features.
        num_layers: linear layers of each small network.
        norm_out: normalise the styles.
    """

    def __init__(
        self, base: MappingNetwork, style_dim: int, names: list[str], num_layers: int = 1, norm_out: bool = False
    ) -> None:
        at_least(1, self, style_dim=style_dim)
        at_least(0, self, num_layers=num_layers)
        super().__init__()
        self.base, self.style_dim, self.latent_dim = base, style_dim, base.latent_dim
        self.style_shape = (len(names), style_dim)
        widths = [*[base.style_dim] * num_layers, style_dim]
        self.heads = nn.ModuleDict({name: nn.Sequential(*linear_layers(widths, norm_out=norm_out)) for name in names})

    def forward(self, z: Tensor) -> Tensor:
        """Styles [B, L, C] of latents [B, Z]."""
        x = leaky_relu(self.base(z), 0.2)
        return torch.stack([head(x) for head in self.heads.values()], dim=1)


@torch.no_grad()
def swap_layers(source: Generator, target: Generator, blocks: list[int], share: float = 0.5) -> Generator:
    """A generator with the shape and styles of one and some appearance layers of another (section 4.4, stylisation).

    The published program has it in its web demo.

    Args:
        source: what all else comes from; not changed.
        target: usually finetuned from it on other images.
        blocks: of the deep network, which become (1 - share) source + share target.
        share: of the target.

    Raises:
        UserError: one of them has no such block.
    """
    known = min(len(generator.inr.blocks) for generator in (source, target))
    if unknown := [i for i in blocks if not 0 <= i < known]:
        raise UserError(f"There is no block {unknown[0]}: these generators have blocks 0 to {known - 1}.")
    mixed = deepcopy(source)
    for i in blocks:
        theirs = target.inr.blocks[i].parameters()
        for mine, other in zip(mixed.inr.blocks[i].parameters(), theirs, strict=True):
            mine.copy_((1 - share) * mine + share * other)
    return mixed
