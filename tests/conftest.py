import multiprocessing
import os
import sys
from pathlib import Path

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--parity-dir",
        type=Path,
        default=Path(__file__).parent / "parity" / "cases",
        help="folder of reference cases, <system>/<case>/case.json",
    )


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # small tensors: more threads only get in each other's way


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what the tests keep from the user's own cache, and from that of other processes of the tests."""
    os.environ["ZOO_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, for one test alone."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def beside(tmp_path, monkeypatch) -> Path:
    """A folder with the files of the tutorials, in which Python finds them."""
    from tests.test_documentation import write_files

    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("toy", "parts", "splats", "stripes"):
        sys.modules.pop(name, None)


def pytest_unconfigure() -> None:
    """End forked processes that are still there, such as a reader stuck since its fork: the run would wait for them."""
    for child in multiprocessing.active_children():
        print(f"\nStill running at the end, and killed: {child}")
        child.kill()
