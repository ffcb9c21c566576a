"""The published CIPS-3D's random numbers under our names, for whole images."""

from collections.abc import Callable

import torch
from torch import Tensor

from tests.parity.harness import Case
from tests.parity.replay import Replay
from zoo.layers.diffaugment import cutout_places, largest_shift

# A published draw's name without number -> ours.
DRAWS = {
    "z_nerf": "z_shape",
    "z_inr": "z_appearance",
    "perturb_u": "jitter",
    "yaw_draw": "yaw",
    "pitch_draw": "pitch",
    "yaw_truncnormal": "yaw",
    "pitch_truncnormal": "pitch",
    "hybrid_u": "pose_kind",
    "ray_permutation": "gradient_rays",
    "coarse_noise": "coarse_density_noise",
    "fine_u": "importance",
    "final_noise": "final_density_noise",
    "brightness_u": "brightness",
    "saturation_u": "saturation",
    "contrast_u": "contrast",
    "shift_rows": "shift_rows",
    "shift_cols": "shift_columns",
    "cutout_row": "cutout_row",
    "cutout_col": "cutout_column",
}
BY_IMAGE = ("gradient_rays", "yaw", "pitch", "pose_kind")
BY_RAY = ("coarse_density_noise", "importance", "final_density_noise")
Recorded = list[tuple[str, Tensor]]


def recorded(case: Case, block: str) -> Recorded:
    """The random numbers of a block under our names, in the published order."""
    start = f"{block}.draw."
    names = sorted((n for n in case.inputs if n.startswith(start)), key=lambda n: int(n[len(start) :].split(".")[0]))
    kinds = [name.rsplit(".", 1)[1] for name in names]
    if unknown := sorted({kind for kind in kinds if kind not in DRAWS}):
        raise ValueError(f"Draws of the published program with no name here: {', '.join(unknown)} in {block}.")
    return [(DRAWS[kind], case.inputs[name]) for kind, name in zip(kinds, names, strict=True)]


def replay(draws: Recorded, size: int, one_by_one: bool = False) -> Replay:
    """Draws as ours ask for them.

    The published program draws for parts of an image as it renders them, and with ``forward_points`` image by image;
    we draw for whole images. Its whole pixels become the numbers in [0, 1) that give them.
    """
    ours, calls = [], []
    for name, numbers in draws:
        if name == "jitter":
            calls.append({"jitter": [numbers]})
        elif calls and name in (*BY_RAY, *BY_IMAGE):
            calls[-1].setdefault(name, []).append(numbers)
        else:
            ours.append((name, as_uniform(name, numbers, size)))
    whole = [whole_image(call) for call in calls]
    if one_by_one:
        whole = [{name: torch.cat([call[name] for call in whole]) for name in whole[0]}]
    return Replay([*ours, *(pair for call in whole for pair in call.items())])


def whole_image(call: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    """The draws of one published rendering: its parts are put together, in the order of the rays."""
    batch, rays = call["jitter"][0].shape[:2]
    order = call["gradient_rays"][0] if "gradient_rays" in call else torch.arange(rays)
    made = {}
    for name, parts in call.items():
        if name in BY_RAY:
            parts = [part.reshape(batch, -1, part.shape[-2] if part.dim() == 4 else part.shape[-1]) for part in parts]
            made[name] = torch.cat(parts, dim=1)[:, order.argsort()]
        else:
            made[name] = order.argsort() / rays if name == "gradient_rays" else parts[0]
    return made


def as_uniform(name: str, numbers: Tensor, size: int) -> Tensor:
    """A whole number of pixels as the number in [0, 1) that gives it."""
    if name.startswith("shift"):
        most = largest_shift(size)
        return (numbers + most + 0.5) / (2 * most + 1)
    return (numbers + 0.5) / cutout_places(size) if name.startswith("cutout") else numbers


def untold_noise(told: float | None, is_noisy: bool, distance: Callable[[float], Tensor]) -> float:
    """The standard deviation of density noise; where its draws are recorded, but it is not, the one that fits best.

    One number cannot make all outputs of a case agree.
    """
    if told is not None or not is_noisy:
        return told or 0.0
    return min((0.05 * i for i in range(1, 41)), key=lambda noise: distance(noise).abs().max().item())
