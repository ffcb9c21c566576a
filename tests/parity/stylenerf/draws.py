"""The published StyleNeRF's random numbers under our names."""

import torch
from torch import Tensor

from tests.parity.harness import Case
from tests.parity.replay import Replay
from tests.parity.stylenerf.build import rounded
from zoo.render import Camera, Poses

# A published draw's name -> ours
DRAWS = {
    "gen_z": "z",
    "mix_prob_u": "mixing",
    "mix_z": "mixed_z",
    "camera_u_n": "yaw",
    "camera_u_u": "yaw",
    "camera_v_n": "pitch",
    "camera_v_u": "pitch",
    "z_shape_bg": "z_background",
    "reg_pixel_u": "path_pixels",
    "fg_stratified_u": "jitter",
    "fg_density_noise_coarse": "coarse_density_noise",
    "hierarchical_u": "importance",
    "fg_density_noise_fine": "fine_density_noise",
    "bg_stratified_u": "background_jitter",
    "bg_density_noise": "background_density_noise",
    "pl_noise": "path_noise",
}


def replay(case: Case, *blocks: str, layers: int) -> Replay:
    """The draws of some blocks (prefixes of names), one block after the other.

    Args:
        layers: of w.
    """
    pairs = []
    for block in blocks:
        found = {name: numbers for name, numbers in case.block(f"{block}.").items() if "." not in name}
        for name, numbers in found.items():
            if name == "camera_u_n":  # the published azimuth runs the other way round
                numbers = -numbers
            elif name == "camera_u_u":
                numbers = 1 - numbers
            elif name == "gen_z" and "mix_z" in found:  # path lengths take half of the latents
                numbers = numbers[: len(found["mix_z"])]
            elif name == "mix_cutoff":
                pairs.append(("cut", (numbers - 1 + 0.5) / (layers - 1)))
            if name in DRAWS:
                pairs.append((DRAWS[name], numbers))
    return Replay(pairs)


class Constant:
    """The published pipe's percentiles: every draw at the same place of its distribution, and nothing left out."""

    def __init__(self, case: Case, percentile: float) -> None:
        self.case, self.percentile = case, percentile

    def uniform(self, name: str, shape) -> Tensor:
        value = 0.0 if name.endswith("_gate") else 0.5 if name == "postrotate" else self.percentile
        return self.case.cast(torch.full(tuple(shape), value))

    def normal(self, name: str, shape) -> Tensor:
        value = torch.erfinv(torch.tensor(2 * self.percentile - 1)).item()
        return self.case.cast(torch.full(tuple(shape), value))


class FromDoubles:
    """Cameras from the same numbers in float64."""

    def __init__(self, poses: Poses) -> None:
        self.poses = poses

    def __call__(self, n: int, draws: Replay) -> Camera:
        double = Replay([(name, draws.queues[name].pop(0).double()) for name in ("yaw", "pitch")])
        return rounded(self.poses(n, double))
