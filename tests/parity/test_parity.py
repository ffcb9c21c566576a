"""Every reference case agrees: ``pytest tests/parity [--parity-dir DIR]`` walks ``DIR/<system>/<case>/case.json``."""

import importlib.util
from pathlib import Path

import pytest

from tests.parity.harness import Case


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case_folder" in metafunc.fixturenames:
        root = metafunc.config.getoption("--parity-dir")
        folders = sorted(path.parent for path in root.glob("*/*/case.json"))
        assert folders, f"no */*/case.json under {root}"
        ids = [f"{folder.parent.name}/{folder.name}" for folder in folders]
        metafunc.parametrize("case_folder", folders, ids=ids)


def test_case(case_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    system = f"tests.parity.{case_folder.parent.name}"
    if importlib.util.find_spec(system) is None:
        pytest.skip(f"the zoo has no {case_folder.parent.name} yet")
    adapter = importlib.import_module(system)
    case = Case(case_folder)
    kinds = [kind for kind in adapter.KINDS if case_folder.name.startswith(kind)]
    assert kinds, f"{system} knows the kinds {', '.join(adapter.KINDS)}, not {case_folder.name}"
    adapter.KINDS[max(kinds, key=len)](case)
    line = case.finish(adapter.ABSENT.get(case_folder.name, {}))
    with capsys.disabled():
        print(f"\n  {line}", end="")
