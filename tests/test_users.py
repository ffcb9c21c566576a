"""Other users than the developers: without a name, a home or a cache, and with files that they may not read."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from torch import nn

from tests.tiny import CONFIG
from zoo.weights.bundle import build, save_bundle

pytestmark = [
    pytest.mark.xdist_group("processes"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user"),
]

ROOT = Path(__file__).parent.parent
CHILD = """
import os, sys
from PIL import Image
from zoo.cli.command import main
import torch, zoo.weights.convert, zoo.weights.download, zoo.cli.sample  # before the rights to read them are gone
Image.init()
os.setgroups([]), os.setgid(54321), os.setuid(54321)
for line in sys.stdin:
    words = line.split()
    os.environ.pop("HOME", None), os.environ.pop("ZOO_CACHE", None)
    while "=" in words[0]:
        os.environ.update([words.pop(0).split("=")])
    print("CODE", main(words), file=sys.stderr, flush=True)
"""


def as_nobody(folder: Path, *commands: str) -> list[tuple[int, str, str]]:
    """Exit code and what was said by each command of a user id that has neither a name nor, without HOME, a home.

    All commands are one process's; each may begin with NAME=VALUE for its environment.
    """
    known = {name: os.environ[name] for name in ("PATH",)} | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input="\n".join(commands),
        cwd=folder,
        env=known,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    *answers, _ = done.stderr.split("CODE ")
    codes = [int(part.split("\n")[0]) for part in done.stderr.split("CODE ")[1:]]
    said = [part.split("\n", 1)[-1] if i else part for i, part in enumerate(answers)]
    assert len(codes) == len(commands), done.stderr[-3000:]
    return [(code, text, done.stdout) for code, text in zip(codes, said, strict=True)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Everybody's; pytest keeps its own closed to other users."""
    with TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        yield Path(place)


def test_nothing_of_the_cache_is_needed_for_bundled_weights(folder):
    (folder / "file").write_text("")
    commands = ["list pigan*", "download pigan-cars32", "download pigan-celeba-64.official"]
    commands.insert(1, "sample pigan-cars32 --seeds 0 --views 1 --out x.png")
    reasons = {
        "": "There is no home folder for this user to keep files in: set $ZOO_CACHE",
        f"ZOO_CACHE={folder / 'file'}": "is not a folder: set $ZOO_CACHE to one",
        "HOME=/proc/1/cwd": "/proc/1/cwd",  # another user's
    }
    answers = as_nobody(folder, *(f"{environment} {command}" for environment in reasons for command in commands))
    for i, why in enumerate(reasons.values()):
        *good, (code, said, out) = answers[4 * i : 4 * i + 4]
        assert [code for code, *_ in good] == [0, 0, 0], good
        assert out.count("  pigan-cars32") == 3 and code == 2 and why in said.splitlines()[-1]


def test_what_cannot_be_read_is_not_called_unwritable(folder):
    generator = CONFIG["model"]["init_args"]["generator"]
    save_bundle(folder / "bundle", build(generator, nn.Module), generator)
    files = {name: folder / name for name in ("last.ckpt", "x.pth", "x.yaml", "x.zip")}
    for path in (*files.values(), folder / "bundle" / "model.safetensors"):
        path.touch()
        path.chmod(0)
    (folder / "locked").mkdir(mode=0o700)
    (folder / "locked" / "x.pth").touch()
    commands = {
        "sample bundle --out x.png": "model.safetensors",
        "sample last.ckpt --out x.png": "last.ckpt",
        "bundle last.ckpt out": "last.ckpt",
        "convert x.pth out": "x.pth",
        "convert x.pth out --system tensors": "x.pth",
        "convert locked/x.pth out": "x.pth",
        "convert bundle out --to official": "model.safetensors",
        "download pigan-celeba-64.official --from x.zip": "x.zip",
    }
    (folder / "closed").mkdir()
    (folder / "closed").chmod(0o755)
    into_closed = "sample pigan-cars32 --seeds 0 --views 1 --out closed/x.png"
    *answers, (code, said, _) = as_nobody(
        folder, *(f"ZOO_CACHE={folder / 'cache'} {command}" for command in (*commands, into_closed))
    )
    assert code == 2 and "cannot be written" in said.splitlines()[-1]
    for (command, name), (code, said, _) in zip(commands.items(), answers, strict=True):
        last = said.strip().splitlines()[-1]
        assert code == 2 and name in last and "cannot be read (Permission denied)" in last, (command, said)
