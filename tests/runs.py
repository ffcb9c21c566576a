"""Runs of ``zoo fit`` in processes of their own, for tests that signal and kill them.

``python -m tests.runs 50`` kills a training fifty times at random moments, half of them soon after it began to save,
and prints what was left each time; ``tests/test_checkpoints.py`` does the same a few times.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
import yaml

from tests.tiny import CONFIG

ROOT = Path(__file__).parent.parent


@contextmanager
def fit(config: str, *words: str, through: Sequence[str] = (), **environment: str) -> Iterator[subprocess.Popen]:
    """``zoo fit`` in a process group of its own, which is killed in the end, whatever happens.

    Args:
        config, words: of the command line.
        through: a command that runs it.
        environment: added to this process's.
    """
    command = [*through, sys.executable, "-m", "zoo", "fit", "-c", config, "--progress.line_every_seconds", "0", *words]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    everything = {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    folder = Path(config).parent
    process = subprocess.Popen(
        command, cwd=folder, env=everything, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stderr.close()
        process.wait(timeout=60)


def wait_for_iteration(process: subprocess.Popen, iteration: int = 1) -> list[str]:
    """What the process has said until it has finished this iteration."""
    said = []
    while True:
        line = process.stderr.readline()
        said.append(line)
        assert line, "".join(said)
        if line.startswith("iteration ") and int(line.split()[1].split("/")[0]) >= iteration:
            return said


def load(path: Path) -> dict:
    """A checkpoint, whole, whose weights are finite."""
    state = torch.load(path, weights_only=True)
    tensors = {name: value for name, value in state["state_dict"].items() if torch.is_tensor(value)}
    assert all(value.isfinite().all() for name, value in tensors.items() if "mean_" not in name)  # not yet measured
    return state


def heavy_config(folder: Path) -> str:
    """A run that saves some 70 MB every other iteration, so that it spends most of its time on that."""
    model = CONFIG["model"]["init_args"] | {
        "discriminator": {
            "class_path": "zoo.pigan.Discriminator",
            "init_args": {"channels": [256, 384, 512], "latent_dim": 0},
        }
    }
    trainer = CONFIG["trainer"] | {"default_root_dir": str(folder / "run"), "max_steps": 100_000}
    config = CONFIG | {"trainer": trainer, "model": CONFIG["model"] | {"init_args": model}}
    (folder / "heavy.yaml").write_text(yaml.safe_dump(config))
    return str(folder / "heavy.yaml")


def kill_again_and_again(folder: Path, times: int, every: int = 2, seed: int = 0) -> list[dict]:
    """Kill a training at random moments and resume it each time; checks that nothing but its last interval is lost.

    Temporary files of the system are on another file system (/dev/shm), as on most clusters.

    Returns:
        for each kill: the iteration it was in, the one that was saved, and whether it hit a checkpoint being written.
    """
    config, moments = heavy_config(folder), random.Random(seed)
    last = folder / "run" / "checkpoints" / "last.ckpt"
    elsewhere = "/dev/shm" if Path("/dev/shm").is_dir() else tempfile.gettempdir()
    kills, saved = [], 0
    for number in range(times):
        resume = ["--ckpt_path", str(last)] if saved else []
        with fit(config, "--checkpoint.every", str(every), *resume, TMPDIR=elsewhere) as process:
            wait_for_iteration(process, saved + every + 1)
            leftovers = set(last.parent.glob(".saving-*"))
            if number % 2:  # at any moment
                time.sleep(moments.uniform(0, 1.0))
            else:  # soon after a checkpoint was begun
                while set(last.parent.glob(".saving-*")) <= leftovers:
                    assert process.poll() is None
                    time.sleep(0.001)
                time.sleep(moments.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            lines = process.stderr.read().splitlines()
            process.wait(timeout=60)
        said = [int(line.split()[1].split("/")[0]) for line in lines if line.startswith("iteration ")]
        reached = max(said, default=saved + every + 1)
        before, saved = saved, load(last)["clocks"]["iterations"]
        assert saved % every == 0 and saved > before and reached - every <= saved <= reached + 1, (
            before,
            saved,
            reached,
        )
        assert len(leftovers) <= 1, "temporary files of earlier runs were not swept"
        hit = bool(list(last.parent.glob(".saving-*")))
        kills.append({"reached": reached, "saved": saved, "while_saving": hit})
    return kills


if __name__ == "__main__":
    place = Path(tempfile.mkdtemp(dir=".")).resolve()
    try:
        count = int(sys.argv[1]) if len(sys.argv) > 1 else 50
        for number, kill in enumerate(kill_again_and_again(place, count), 1):
            print(number, kill)
    finally:
        shutil.rmtree(place)
