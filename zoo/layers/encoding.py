"""Positional encoding: coordinates as waves of doubling frequency, so that a plain MLP can draw fine detail.

C channels, L octaves
"""

import torch
from torch import Tensor


def positional_encoding(x: Tensor, octaves: int, *, base: float = 1.0, identity: bool = True) -> Tensor:
    """sin and cos of x at frequencies base, 2 base, 4 base, ... (NeRF, equation 4).

    Args:
        x: [..., C].
        octaves: number of frequencies L.
        base: lowest frequency [rad per unit of x]. NeRF's equation has pi, its code and GRAF have 1.
        identity: x itself comes first.

    Returns:
        [x, sin(base x), cos(base x), sin(2 base x), cos(2 base x), ...], [..., C (2 L + 1)], or C 2 L without x.
    """
    frequencies = (2 ** torch.arange(octaves, device=x.device)).to(x.dtype) * base
    angles = x[..., None, :] * frequencies[:, None]
    waves = torch.stack([angles.sin(), angles.cos()], dim=-2).flatten(-3)
    return torch.cat([x, waves], dim=-1) if identity else waves
