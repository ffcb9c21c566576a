"""The published pi-GAN's random numbers under our names."""

import re

from torch import Tensor

# A published draw's name without number, place and distribution -> ours.
DRAWS = {
    "perturb": "jitter",
    "branch": "pose_kind",
    "theta": "yaw",
    "phi": "pitch",
    "v": "pitch",
    "z_d": "z",
    "z_g": "z",
    "coarse_noise": "coarse_density_noise",
    "importance_u": "importance",
    "final_noise": "final_density_noise",
}


def forward_draws(recorded: list[Tensor], hierarchical: bool) -> list[tuple[str, Tensor]]:
    """Draws of one published forward call, under our names; a random camera's two angles come second and third."""
    angles = [("yaw", recorded[1]), ("pitch", recorded[2])] if recorded[1].dim() == 2 else []
    rest = recorded[1 + len(angles) :]
    names = ["coarse_density_noise", "importance", "final_density_noise"] if hierarchical else ["final_density_noise"]
    assert len(rest) == len(names)
    return [("jitter", recorded[0]), *angles, *zip(names, rest, strict=True)]


def ours_by_name(recorded: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Draws that carry their published names, under ours."""
    pairs = []
    for name, numbers in recorded.items():
        base = re.sub(r"^\d+_|_(U|N|N4)$", "", name.split(".", 1)[1]).rsplit(".", 1)[-1]
        if base != "fixed_z_N(unused)":
            pairs.append((DRAWS[base], numbers))
    return pairs
