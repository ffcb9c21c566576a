"""Losses of adversarial training, as functions.

B batch
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus


def logistic_fake(scores: Tensor) -> Tensor:
    """Logistic loss of scores [B, 1] that should be those of generated images: mean of -log(1 - D).

    Goodfellow 2014, eq. 1.
    """
    return softplus(scores).mean()


def logistic_real(scores: Tensor) -> Tensor:
    """Logistic loss of scores [B, 1] that should be those of real images: mean of -log D.

    Of generated images it is the non-saturating generator loss (Goodfellow 2014, eq. 1 and section 3).
    """
    return softplus(-scores).mean()


def r1_penalty(scores: Tensor, *images: Tensor) -> Tensor:
    """Mean over the batch of the squared length of d score / d image (Mescheder 2018, eq. 9, without its gamma / 2).

    Args:
        scores: of the images, [B, 1]; each must depend on its own image only.
        images: real images that require a gradient, [B, C, H, W]; where several are scored together, all of them.
    """
    gradients = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return torch.stack([gradient.square().flatten(1).sum(1) for gradient in gradients]).sum(0).mean()


def top_k(scores: Tensor, count: int) -> Tensor:
    """The highest scores, [count, 1], of scores [B, 1] (Sinha 2020, top-k training)."""
    return scores.topk(count, dim=0).values


def path_lengths(images: Tensor, w: Tensor, noise: Tensor) -> Tensor:
    """How far a step in w moves an image, in a random direction: [B] (Karras 2020, section 3.2).

    Args:
        images: made from w, [B, C, H, W].
        w: requires a gradient, [B, L, D]: one for each of L layers, of which the root of the mean square is taken.
        noise: standard normal, of the images' shape.
    """
    noise = noise / (images.shape[-1] * images.shape[-2]) ** 0.5
    (gradient,) = torch.autograd.grad((images * noise).sum(), w, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()
