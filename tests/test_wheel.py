"""What ``pip install`` gives works, outside the checkout: fit, sample, list, leaderboard."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from zoo.utils.paths import BUNDLED, config_names

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.xdist_group("processes")


def pip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *words], check=True, timeout=120)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """Folder of the commands of an environment that holds the wheel, and sees the packages of this one behind it."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    pip("--python", str(folder / "bin" / "python"), "install", "--quiet", "--no-deps", str(wheel))
    (packages,) = folder.glob("lib/python*/site-packages")
    # A path that a .pth names is searched, but the .pth files in it, such as that of the checkout, are not read.
    (packages / "packages.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


def test_the_wheel_holds_every_file_of_the_packages(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in ("zoo", "datamodules", "callbacks"):
        files = [path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert files and {path.relative_to(ROOT).as_posix() for path in files} <= names
    assert {f"zoo/configs/{name}.yaml" for name in config_names()} <= names


def test_an_installed_wheel_fits_samples_lists_and_ranks(environment, tmp_path):
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    own |= {"ZOO_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1", "PYTHONPATH": "."}
    for name in ("callbacks", "datamodules"):  # the user's own
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('of the user')")

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=own, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def zoo(*words: str) -> str:
        return run(str(environment / "zoo"), *words)

    place = run(str(environment / "python"), "-c", "import zoo; print(zoo.__file__)")
    assert Path(place).is_relative_to(environment.parent)

    (tmp_path / "mine").mkdir()
    for i in range(8):
        Image.new("RGB", (32, 32), (30 * i, 90, 200)).save(tmp_path / "mine" / f"{i}.png")
    data = ["--data", "datamodules.ImageFolder", "--data.path", "mine", "--trainer.callbacks", "[]"]
    zoo("fit", "-c", "pigan/cars32", *data, "--trainer.max_steps", "2", "--trainer.default_root_dir", "run")
    zoo("sample", "run/checkpoints/last.ckpt", "--out", "grid.png", "--seeds", "0", "--views", "2")
    assert Image.open(tmp_path / "grid.png").size[0] > 0
    listed = zoo("list")
    assert "pigan/cars32" in listed and all(path.name in listed for path in BUNDLED.iterdir())
    assert "GIRAFFE" in zoo("leaderboard")
