"""What StyleGAN2 is trained with, for systems that are trained as it is (Karras 2019 and 2020).

B batch, L layers, D size of w
"""

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from zoo.draws import Draws, coin
from zoo.losses import path_lengths
from zoo.training.nonfinite import parameters


def mix_styles(
    generator: nn.Module, z: Tensor, draws: Draws, probability: float, decay: float, first: int = 1
) -> Tensor:
    """The w [B, L, D] of latents z, which the generator's mean w follows.

    With style mixing (Karras 2019, section 3.1), layers from a random one on get the w of second latents.

    Args:
        probability: of style mixing, of the whole batch.
        decay: share of the old mean w in the new one.
        first: layer that may be the first of the second latents'.
    """
    w, layers = generator.mapping(z), generator.num_layers
    generator.mean_w.lerp_(w.detach().mean(0), 1 - decay)
    w = w[:, None].expand(-1, layers, -1)
    if coin(draws, "mixing") < probability:
        other = generator.mapping(draws.normal("mixed_z", (len(z), generator.latent_dim)))
        cut = first + int(coin(draws, "cut") * (layers - first))
        w = torch.cat([w[:, :cut], other[:, None].expand(-1, layers - cut, -1)], dim=1)
    return w


def path_length_penalty(images: Tensor, w: Tensor, draws: Draws, mean: Tensor, decay: float) -> Tensor:
    """Mean squared distance of path lengths from their running mean, which is moved first (Karras 2020, equation 4).

    Args:
        images, w: as in ``zoo.losses.path_lengths``.
        mean: [], changed in place.
        decay: share of these lengths in the new mean.
    """
    lengths = path_lengths(images, w, draws.normal("path_noise", images.shape))
    moved = torch.lerp(mean, lengths.mean(), decay)
    mean.copy_(moved.detach())
    return (lengths - moved).square().mean()


def bound_gradients(optimizer: LightningOptimizer, *, clamp: bool = False, limit: float = 1e5) -> None:
    """Replace infinite gradients by the limit and those that are no number by 0.

    Args:
        clamp: keep finite ones within the limit, too.
    """
    for gradient in (p.grad for p in parameters(optimizer) if p.grad is not None):
        gradient.nan_to_num_(0.0, limit, -limit)
        if clamp:
            gradient.clamp_(-limit, limit)
