"""Every reference case agrees: ``pytest tests/parity [--parity-dir DIR]`` walks ``DIR/<system>/<case>/case.json``.

Our side is computed in float64, so it is the same on every processor, and what is left is the rounding of the published
float32 run, a constant of the case. In float32, with its fast paths, it must then be as near to our own float64.
"""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from tests.parity.harness import CASES, SENSITIVITY, check, run, sensitivity, tolerances


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case_folder" in metafunc.fixturenames:
        root = metafunc.config.getoption("--parity-dir")
        folders = sorted(path.parent for path in root.glob("*/*/case.json"))
        assert folders, f"no */*/case.json under {root}"
        ids = [f"{folder.parent.name}/{folder.name}" for folder in folders]
        metafunc.parametrize("case_folder", folders, ids=ids)


def test_case(case_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec(f"tests.parity.{case_folder.parent.name}") is None:
        pytest.skip(f"the zoo has no {case_folder.parent.name} yet")
    exact = run(case_folder)
    limits = tolerances(exact)
    lines = [check(exact, exact.outputs, limits)]
    lines.append(check(run(case_folder, torch.float32), {n: c.ours for n, c in exact.compared.items()}, limits))
    with capsys.disabled():
        print("\n  " + "\n    in float32, against our float64: ".join(lines), end="")


ONE_EACH = [
    "cips3d/render_v1",
    "eg3d/sampling",
    "giraffe/render_one",
    "graf/render_orthographic",
    "pigan/render_tall",
    "stylenerf/render_warped",
    "stylesdf/sampling",
    "volumegan/discriminator",
]


@pytest.mark.parametrize("name", ONE_EACH)
def test_sensitivities_are_those_of_today(name: str) -> None:
    """Those of all cases come from ``python -m tests.parity.sensitivity``; this recomputes one of each system."""
    stored = json.loads(SENSITIVITY.read_text())[name]
    computed = sensitivity(run(CASES / name))
    assert stored.keys() == computed.keys()
    off = [n for n, s in computed.items() if not torch.allclose(s, s.new_tensor(stored[n]), rtol=0.02, atol=1e-12)]
    assert off == []
