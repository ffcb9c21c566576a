"""What is installed is used, what is used is installed, and nothing needs what only Linux has before it is called."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.tiny import write_config
from zoo.cli.command import main
from zoo.utils import memory

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"zoo", "datamodules", "callbacks"}
HEADS = ("torch", "pytorch-lightning", "torchmetrics", "torch-fidelity", "wandb", "einops", "kornia", "pillow")


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[><=!~; ]", line)[0].lower().replace("_", "-") for line in requirements}


def imported() -> dict[str, set[str]]:
    """Files that import a distribution's packages, by its name."""
    found: dict[str, set[str]] = {}
    homes = packages_distributions()
    for path in (path for folder in OURS for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) else []
            for package in {module.split(".")[0] for module in modules} - OURS - sys.stdlib_module_names:
                for name in names(homes.get(package, [package])):
                    found.setdefault(name, set()).add(path.name)
    return found


def test_what_is_declared_is_what_is_imported() -> None:
    core, extras = names(PROJECT["dependencies"]), PROJECT["optional-dependencies"]
    used = imported()
    assert set(HEADS) <= core
    assert core - used.keys() == set(), "leave these out of the dependencies, or use them"
    optional = names([line for extra in extras.values() for line in extra])
    assert {name: files for name, files in used.items() if name not in core | optional} == {}, "declare these"
    alone = names(extras["mesh"]) | names(extras["video"])
    homes = {"mesh.py", "mesh_pictures.py", "silhouettes.py", "orbit.py"}
    assert {name: files for name, files in used.items() if name in alone and files - homes} == {}


# What others import is imported before it is hidden: they have ways of their own on each system.
HIDING = """
import os, pkgutil, signal, sys
import filelock, huggingface_hub, jsonargparse, kornia.metrics, pytorch_lightning.cli, torch_fidelity, torchmetrics
import multiprocessing.pool, safetensors.torch, torch.utils.data, torch.utils.flop_counter, tqdm, wandb, yaml

hidden = "fcntl resource pwd grp termios tty pty readline syslog posix_ipc"
sys.modules.update(dict.fromkeys(hidden.split()))
for name in "SIGUSR1 SIGUSR2 SIGHUP SIGKILL SIGALRM sigtimedwait pthread_sigmask pthread_kill setitimer alarm".split():
    delattr(signal, name)
for name in "fork forkpty getuid getgid killpg setsid getpgid nice sched_getaffinity mkfifo statvfs uname".split():
    delattr(os, name)

import callbacks, datamodules, zoo
ours = (callbacks, datamodules, zoo)
packages = [module for p in ours for module in pkgutil.walk_packages(p.__path__, p.__name__ + ".")]
for module in packages:
    if not module.name.endswith("__main__"):
        __import__(module.name)
from zoo.cli.command import main
assert len(packages) > 100
sys.exit(main(["list"]) or main(["sample", "pigan-cars32", "--seeds", "0", "--views", "1", "--out", sys.argv[1]]))
"""


def test_nothing_needs_what_windows_and_macos_lack(tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    done = subprocess.run(
        [sys.executable, "-c", HIDING, str(out)], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0 and out.is_file(), done.stderr[-2000:]
    assert {"Operating System :: MacOS", "Operating System :: Microsoft :: Windows"} <= set(PROJECT["classifiers"])


def test_freed_memory_is_kept_where_training_on_a_cpu_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    libc = SimpleNamespace(mallopt=lambda *setting: calls.append(setting))
    monkeypatch.setattr(memory, "ctypes", SimpleNamespace(CDLL=lambda name: libc))
    monkeypatch.setattr(memory.sys, "platform", "linux")
    assert main(["list"]) == 0 and calls == []
    assert main(["fit", "-c", write_config(tmp_path, max_steps=1)]) == 0
    assert calls[0] == (memory.M_MMAP_MAX, 0) and calls[1][0] == memory.M_TRIM_THRESHOLD
