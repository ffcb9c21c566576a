"""The table of docs/speed.md on TF32, emulated on any device: ``python -m tests.tf32_table``."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.parity import harness
from zoo.generator import render_samples
from zoo.layers import plain
from zoo.leaderboard import update_page
from zoo.weights import load

PAGE = Path(__file__).parent.parent / "docs" / "speed.md"
SYSTEMS = ["graf", "pigan", "giraffe", "stylenerf", "cips3d", "volumegan", "eg3d", "stylesdf"]
IMAGES = re.compile(r"(.*\.)?(image\w*|img|rgb|thumb)(\.psi.*)?")  # outputs of cases, by name
aten = torch.ops.aten
FACTORS = {aten.mm: (0, 1), aten.bmm: (0, 1), aten.addmm: (1, 2), aten.baddbmm: (1, 2), aten.convolution: (0, 1)}


def rounded(x: Tensor) -> Tensor:
    """Float32 numbers to the nearest with 10 bits after the point, as tensor cores take them."""
    return (
        ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32) if x.dtype == torch.float32 else x
    )


class TF32(TorchDispatchMode):
    """Inside, products and convolutions round their factors; they add up in float32."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        factors = FACTORS.get(func.overloadpacket, ())
        args = tuple(rounded(value) if i in factors else value for i, value in enumerate(args))
        return func(*args, **(kwargs or {}))


def of_cases(system: str) -> float:
    """How far rounding moves the images of the recorded cases, at most; they go from -1 to 1, or 0 to 1."""
    moved = 0.0
    for folder in sorted(path.parent for path in harness.CASES.glob(f"{system}/render*/case.json")):
        with plain():
            exact = harness.run(folder, torch.float32)
            with TF32():
                changed = harness.run(folder, torch.float32)
        for name in filter(IMAGES.fullmatch, exact.compared):
            moved = max(moved, (changed.compared[name].ours - exact.compared[name].ours).abs().max().item())
    return moved


def of_weights(name: str) -> tuple[float, float]:
    """How far rounding moves eight samples of trained weights, from -1 to 1: at most, and in the mean."""
    generator = load(name)
    with torch.no_grad(), plain():
        exact = render_samples(generator, range(8)).image
        with TF32():
            difference = (render_samples(generator, range(8)).image - exact).abs()
    return difference.max().item(), difference.mean().item()


def table() -> str:
    rows = [
        ["system", "recorded cases", "trained, at most", "trained, mean", "below 0.001"],
        ["---", *["---:"] * 3, "---"],
    ]
    for system in SYSTEMS:
        found = of_cases(system), *of_weights(f"{system}-25min-seed0")
        rows.append([system, *(f"{value:.1e}" for value in found), "yes" if max(found[:2]) < 1e-3 else "no"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    update_page(PAGE, tf32=table())
