"""Compute how sensitive outputs are to rounding: ``python -m tests.parity.sensitivity [SYSTEM | SYSTEM/CASE ...]``.

Writes ``sensitivity.json``, from which tolerances follow; see ``harness.tolerances``.
"""

import json
import sys

import torch

from tests.parity.harness import CASES, SENSITIVITY, run, sensitivity


def main(wanted: list[str]) -> None:
    stored = json.loads(SENSITIVITY.read_text()) if SENSITIVITY.is_file() else {}
    for folder in sorted(path.parent for path in CASES.glob("*/*/case.json")):
        name = f"{folder.parent.name}/{folder.name}"
        if not wanted or {name, folder.parent.name} & set(wanted):
            stored[name] = {output: digits(value) for output, value in sensitivity(run(folder)).items()}
            print(name, flush=True)
    lines = [f"{json.dumps(name)}: {{\n" + ",\n".join(rows(stored[name])) + "\n}" for name in sorted(stored)]
    SENSITIVITY.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def rows(figures: dict[str, float | list[float]]) -> list[str]:
    """A line an output."""
    return [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in figures.items()]


def digits(value: torch.Tensor) -> float | list:
    """Three significant digits are enough."""
    return [digits(part) for part in value] if value.dim() else float(f"{value.item():.2e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
