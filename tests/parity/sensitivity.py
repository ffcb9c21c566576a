"""Compute how sensitive outputs are to rounding: ``python -m tests.parity.sensitivity [SYSTEM | SYSTEM/CASE ...]``.

Writes ``sensitivity.json``, from which tolerances follow; see ``harness.tolerances``.
"""

import json
import sys
from multiprocessing import Pool
from pathlib import Path

import torch

from tests.parity.harness import CASES, SENSITIVITY, run, sensitivity
from zoo.utils.threads import available_cpus


def main(wanted: list[str]) -> None:
    stored = json.loads(SENSITIVITY.read_text()) if SENSITIVITY.is_file() else {}
    folders = sorted(path.parent for path in CASES.glob("*/*/case.json"))
    chosen = [f for f in folders if not wanted or {f"{f.parent.name}/{f.name}", f.parent.name} & set(wanted)]
    with Pool(available_cpus(), torch.set_num_threads, (1,)) as pool:
        for name, figures in pool.imap_unordered(measured, chosen):
            stored[name] = figures
            print(name, flush=True)
    lines = [f"{json.dumps(name)}: {{\n" + ",\n".join(rows(stored[name])) + "\n}" for name in sorted(stored)]
    SENSITIVITY.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def measured(folder: Path) -> tuple[str, dict[str, float | list]]:
    """A case's name, and the figure of each output."""
    exact = run(folder)
    return exact.name, {output: digits(value) for output, value in sensitivity(exact).items()}


def rows(figures: dict[str, float | list[float]]) -> list[str]:
    """A line an output."""
    return [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in figures.items()]


def digits(value: torch.Tensor) -> float | list:
    """Three significant digits are enough."""
    return [digits(part) for part in value] if value.dim() else float(f"{value.item():.2e}")


if __name__ == "__main__":
    main(sys.argv[1:])
