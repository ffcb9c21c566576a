"""The published EG3D's random numbers under our names."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from tests.parity.harness import Case
from tests.parity.replay import Replay
from zoo.eg3d.model import Generator, Styles


class Silent:
    """No noise at all: the published noise_mode "none"."""

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        return torch.zeros(tuple(shape))


def recorded(case: Case, block: str) -> list[tuple[str, Tensor]]:
    """The draws of a block, by our names, which follow from their order, kinds and shapes."""
    side, sides = case.config["geometry"]["plane_resolution"], []
    while side >= 4:
        sides.insert(0, side)
        side //= 2
    planes = [f"planes{side}_{i}" for side in sides for i in (0, 1) if side > 4 or i == 1]
    large = [f"image{side}_{i}" for side in case.config["geometry"]["sr_block_resolutions"] for i in (0, 1)]
    pairs: list[tuple[str, Tensor]] = []
    for name, numbers in case.named_draws(block).items():
        done = [of for of, _ in pairs]
        match re.sub(r".*\d_", "", name), numbers.shape:
            case "randn", [_, 1, _, _]:
                ours = planes[sum(n.startswith("planes") for n in done) % len(planes)]
                if not ours.startswith(f"planes{numbers.shape[-1]}_"):
                    ours = large[sum(n.startswith("image") for n in done) % len(large)]
            case "rand_like", _:
                ours = "jitter"
            case "randn_like", [_, _, 3]:
                ours = "offsets"
            case "randn_like", _:
                ours = "fine_density_noise" if "coarse_density_noise" in done else "coarse_density_noise"
            case "rand", []:
                ours = "swap_all"
            case "rand", [_, 1]:
                ours = "swap"
            case "rand", [_, _, 3]:
                ours = "points"
            case "rand", [_, _]:
                ours = "importance"
            case unknown:
                raise AssertionError(f"{name}: {unknown}")
        pairs.append((ours, numbers))
    return pairs


def styles_of(case: Case, generator: Generator, w: Tensor, mode: str, draws: Replay) -> Styles:
    """Styles with the published noise_mode."""
    return generator.styles(w, {"const": None, "none": Silent(), "random": draws}[mode])


def camera_draws(index: Tensor, of: int) -> Tensor:
    """The draws that choose cameras."""
    return (index + 0.5) / of
