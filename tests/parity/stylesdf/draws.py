"""The published StyleSDF's random numbers under our names."""

import itertools
from collections import Counter

from torch import Tensor

from tests.parity.harness import Case


def recorded(case: Case, block: str, first: int = 0) -> list[tuple[str, Tensor]]:
    """The draws of a block from the first on, by our names; of noise maps, the lowest layer has one alone."""
    pairs: list[tuple[str, Tensor]] = []
    angles, maps = itertools.cycle(("yaw", "pitch")), Counter()
    for name, numbers in [*case.named_draws(block).items()][first:]:
        kind = name.split("_")[-1]
        if kind in ("rand", "random"):
            pairs.append(({"rand": "jitter", "random": "mixing"}[kind], numbers))
        elif numbers.dim() == 5:
            pairs.append(("final_density_noise", numbers))
        elif numbers.dim() == 4 and numbers.shape[1] == 3:
            pairs.append(("path_noise", numbers))
        elif numbers.dim() == 4:
            side = numbers.shape[-1]
            is_first = side == case.config["model"]["renderer_spatial_output_dim"]
            pairs.append((f"image{side}_{1 if is_first else maps[side] % 2}", numbers))
            maps[side] += 1
        elif numbers.shape[-1] == 1:
            pairs.append((next(angles), -numbers))
        else:
            pairs += zip(("z", "mixed_z"), numbers.view(-1, *numbers.shape[-2:]), strict=False)
    return pairs


def cut_draw(index: Tensor, layers: int) -> Tensor:
    """The draw that makes this layer the first of the second styles."""
    return (index.double() - 0.5) / (layers - 1)
