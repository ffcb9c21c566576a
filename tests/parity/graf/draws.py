"""The published GRAF's random numbers under our names."""

import math
import re

import torch
from torch import Tensor

from tests.parity.graf.build import radius_range
from tests.parity.harness import Case
from zoo.graf.rays import Patches


def share(values: Tensor, low: float, high: float) -> Tensor:
    """Which number in [0, 1] becomes each of these values between low and high."""
    return (values.double() - low) / (high - low) if low < high else torch.zeros_like(values, dtype=torch.float64)


def published_draws(case: Case, block: str, config: dict, patches: Patches | None = None) -> list[tuple[str, Tensor]]:
    """Draws of a block under our names. What was drawn between two ends becomes numbers between 0 and 1."""
    found: dict[str, list[Tensor]] = {}
    for name, numbers in case.named_draws(block).items():
        base = re.sub(r"^\d+_((img|chunk)\d+\.)?", "", name[len(block) + 1 :])
        found.setdefault(re.sub(r"\.\d+$", "", base), []).append(numbers)
    pairs = []
    if "u_np" in found:
        data, (low, high) = config["data"], radius_range(config)
        for ours, theirs, ends in (
            ("azimuth", "u_np", (data["umin"], data["umax"])),
            ("polar", "v_np", (data["vmin"], data["vmax"])),
            ("radius", "radius_np", (low, high)),
        ):
            if theirs in found:
                pairs.append((ours, share(torch.stack(found.pop(theirs)), *ends).to(case.dtype)))
    if "scale" in found:
        scale = torch.cat(found.pop("scale")).double()
        least = patches.least_scale(config["iteration"])
        for name in (n for n in case.named_draws(block) if n.endswith("scale")):  # between which ends it was drawn
            low, high = re.search(r"uniform_\(([^,]+),([^)]+)\)", case.info["inputs"][name]["meaning"]).groups()
            assert math.isclose(float(low), least, rel_tol=1e-5), f"{name}: from {low}, not {least}"
            assert math.isclose(float(high), patches.max_scale, rel_tol=1e-5), f"{name}: to {high}"
        pairs.append(("patch_scale", share(scale, least, patches.max_scale).to(case.dtype)))
        shifts = []
        for axis in ("h", "w"):
            offset = torch.cat(found.pop(f"{axis}_offset")).double()
            sign = 2 * torch.cat(found.pop(f"{axis}_sign_randint")) - 1
            shifts.append((1 + sign * offset / (1 - scale).clamp(min=1e-300)) / 2)
        pairs.append(("patch_shift", torch.stack(shifts, dim=-1).to(case.dtype)))
    renamed = {
        "t_rand_U": "jitter",
        "noise_N": "final_density_noise",
        "coarse_noise_N": "final_density_noise",
        "pdf_u_U": "importance",
        "fine_noise_N": "final_density_noise",
    }
    for theirs, ours in renamed.items():
        if theirs in found:
            pairs.append((ours, torch.cat(found.pop(theirs))))  # one draw for all chunks
    masks = found.pop("hflip_mask", []) + found.pop("mask_randint", [])
    pairs += [("mirror", mask.to(case.dtype)) for mask in masks]  # 1 keeps
    assert not found, f"{block}: draws of unknown meaning: {', '.join(found)}"
    return pairs
