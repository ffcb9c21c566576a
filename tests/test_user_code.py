"""This project's packages and modules of the user's own, in whatever folder a command is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.tiny import CONFIG, write_config
from zoo.cli.command import main
from zoo.weights.bundle import load_bundle

ROOT = Path(__file__).parent.parent
USERS = {
    "callbacks/__init__.py": "raise SystemExit('the package of the user')",
    "callbacks/mine.py": """
from pytorch_lightning import Callback

class Hello(Callback):
    def on_train_end(self, trainer, module):
        print("hello from", __name__)
""",
    "datamodules/cars.py": "raise SystemExit('a module of the user')",
    "own_parts.py": """
from callbacks.mine import Hello as Base
from torch.utils.data import DataLoader, Dataset

from datamodules.base import ImageData
from datamodules.stripes import Stripes

class Hello(Base):
    def on_train_end(self, trainer, module):
        print("hello from", __name__)
""",
    "datamodules/stripes.py": """
import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset

class Images(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        import datamodules, torch
        assert datamodules.Cars.__module__ == "datamodules.cars"
        return {"image": torch.zeros(3, 8, 8), "index": index}

class Stripes(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(Images(), 4, num_workers=1, multiprocessing_context="spawn")
""",
}


def started(words: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working folder, of which nothing is left afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("own_network",):
        sys.modules.pop(name, None)


@pytest.mark.xdist_group("processes")
def test_packages_of_the_user_hide_none_of_ours_and_are_found_behind_them(tmp_path):
    """Also in processes that multiprocessing spawns, which read images here."""
    write(tmp_path, USERS)
    words = ["-m", "zoo", "fit", "-c", write_config(tmp_path, max_steps=1), "--data", "own_parts.Stripes"]
    words += ["--trainer.callbacks", "[{class_path: callbacks.mine.Hello}, {class_path: own_parts.Hello}]"]
    done = started(words, tmp_path, PYTHONPATH=f".{os.pathsep}{ROOT}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["hello from callbacks.mine", "hello from own_parts"]
    for name in ("callbacks", "datamodules"):
        said = (
            f"zoo: '{name}' is the package in {ROOT}; a module that only {tmp_path / name} has is found as {name}.NAME."
        )
        assert done.stderr.splitlines().count(said) == 1


def test_a_library_changes_no_import(tmp_path):
    write(tmp_path, USERS | {"callbacks/__init__.py": "print('of the user')"})
    code = "import sys; before = [*sys.path], [*sys.meta_path]; import zoo, callbacks; "
    done = started(["-c", f"{code}assert before == (sys.path, sys.meta_path)"], tmp_path, PYTHONPATH=str(ROOT))
    assert (done.stdout, done.stderr) == ("of the user\n", "")


@pytest.mark.parametrize(
    ("name", "files", "said"),
    [
        ("callbacks.nothing.Hello", {}, "There is no 'callbacks.nothing'."),
        ("callbacks.nothing.Hello", {"callbacks/x.py": ""}, "callbacks has is found as callbacks.NAME."),
        ("callbacks.Hello", {"callbacks/__init__.py": "class Hello: ..."}, "callbacks has is found as callbacks.NAME."),
        ("callbacks.Hello", {"callbacks.py": "class Hello: ..."}, "callbacks.py: give that another name."),
        (
            "nothing_here.Hello",
            {},
            "There is no module 'nothing_here' in the working folder or among what is installed.",
        ),
    ],
)
def test_what_is_not_found_is_said(name, files, said, here, capsys):
    write(here, files)
    with pytest.raises(SystemExit, match="2"):
        main(["fit", "-c", write_config(here), f"--trainer.callbacks={name}"])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("zoo: error: There is no ") and said in last and len(last) < 300 + 2 * len(str(here))


def test_own_classes_are_trained_and_sampled_from_when_they_are_trusted(here, monkeypatch, capsys):
    write(here, {"own_network.py": "from zoo.pigan import Generator\n\nclass Own(Generator): ...\n"})
    config = write_config(here, max_steps=1)
    words = ["sample", "run/checkpoints/last.ckpt", "--seeds", "0", "--views", "1", "--out", "grid.png"]
    assert main(["fit", "-c", config, "--model.generator.class_path", "own_network.Own"]) == 0
    del sys.modules["own_network"]

    assert main(words) == 2 and "ZOO_TRUST=own_network" in capsys.readouterr().err.splitlines()[-1]
    assert "own_network" not in sys.modules
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(here)])
    monkeypatch.setenv("ZOO_TRUST", "elsewhere, own_network")
    assert main(words) == 0 and (here / "grid.png").is_file()

    assert main(["bundle", words[1], "bundle"]) == 0
    assert type(load_bundle("bundle")[0]).__name__ == "Own"
    monkeypatch.delenv("ZOO_TRUST")
    with pytest.raises(ValueError, match="only name classes of zoo"):
        load_bundle("bundle")


@pytest.mark.parametrize("name", ["os.system", "own_network.os.system", "posix.system", "subprocess.Popen"])
def test_trust_reaches_no_tools(name, here, monkeypatch):
    write(here, {"own_network.py": "import os, subprocess"})
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("ZOO_TRUST", "own_network,os,posix,subprocess")
    generator = CONFIG["model"]["init_args"]["generator"]
    depths = {"class_path": name, "init_args": {}}
    generator = generator | {
        "init_args": generator["init_args"]
        | {"renderer": generator["init_args"]["renderer"] | {"init_args": {"depths": depths}}}
    }
    (here / "bundle").mkdir()
    (here / "bundle" / "config.yaml").write_text(yaml.safe_dump(generator))
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, here / "bundle" / "model.safetensors")
    with pytest.raises(ValueError, match=r"runs programs or code|not allowed"):
        load_bundle("bundle")


@pytest.mark.parametrize("value", ["*", "own-network", "jsonargparse"])
def test_trust_is_a_list_of_modules(value, monkeypatch, capsys):
    monkeypatch.setenv("ZOO_TRUST", value)
    assert main(["list"]) == 2 and f"$ZOO_TRUST has '{value}'" in capsys.readouterr().err
