"""Processes that read images: what they do on signals, and how a run ends when one of them fails.

Runs are processes of their own here: inside pytest, which lives on, a run that cannot end is not seen.
"""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
from PIL import Image
from torch.utils.data import Dataset

import datamodules.base
import datamodules.resized
from tests.runs import ROOT, fit, load, wait_for_iteration
from tests.tiny import write_config
from zoo.cli.command import main
from zoo.utils.errors import SHARED_MEMORY_FULL, Stopped, reader_failed
from zoo.utils.readers import Loader, loader

pytestmark = pytest.mark.xdist_group("processes")

SECONDS = 60  # until a run counts as hanging; it takes three on two cores that nobody else uses


@pytest.fixture
def images(tmp_path) -> list[str]:
    """Options for a run on six images, on which it saves after every iteration."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(6):
        Image.new("RGB", (12, 8), (40 * i, 90, 200)).save(folder / f"{i}.png")
    words = ["--data", "datamodules.ImageFolder", "--data.path", str(folder), "--data.resolution", "8"]
    words += ["--data.batch_size", "4", "--data.manifests", str(tmp_path / "manifests")]
    return [*words, "--data.num_workers", "2", "--checkpoint.every", "1"]


def readers(process: subprocess.Popen) -> list[int]:
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(found) == 2
    return [int(number) for number in found]


def ended(process: subprocess.Popen, children: list[int]) -> tuple[int, list[str]]:
    """The exit code of a run which ends in time and leaves none of its processes, and what it said."""
    said = process.communicate(timeout=SECONDS)[1].strip().splitlines()
    deadline = time.monotonic() + SECONDS
    while left := [number for number in children if Path(f"/proc/{number}").exists()]:
        assert time.monotonic() < deadline, f"processes {left} still live"
        time.sleep(0.05)
    assert not any("Traceback" in line for line in said), said
    return process.returncode, said


def last_checkpoint(folder: Path) -> int:
    return load(folder / "run" / "checkpoints" / "last.ckpt")["clocks"]["iterations"]


def test_images_that_vanish_during_training_end_the_run(images, tmp_path):
    with fit(write_config(tmp_path, max_steps=100_000), *images) as process:
        wait_for_iteration(process, 3)
        children = readers(process)
        for path in (tmp_path / "images").iterdir():
            path.unlink()
        code, said = ended(process, children)
    assert code == 1
    assert [line.startswith("zoo: error: ") for line in said].count(True) == 1
    assert ".png' of '" in said[-1] and "could be read at the start, but now: No such file or directory." in said[-1]
    assert last_checkpoint(tmp_path) >= 2


class Spoil(pl.Callback):
    """Removes an image after the second iteration, or cuts its file."""

    def __init__(self, path: str, how: str) -> None:
        self.path, self.how = Path(path), how

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args) -> None:
        if pl_module.iterations == 2 and self.how == "remove":
            self.path.unlink()
        elif pl_module.iterations == 2:
            self.path.write_bytes(self.path.read_bytes()[:40])


@pytest.mark.parametrize(("how", "workers"), [("remove", 0), ("cut", 0), ("cut", 1)])
def test_an_image_that_goes_bad_during_training_is_named(how, workers, images, tmp_path, capsys):
    spoil = ["--trainer.callbacks+=tests.test_readers.Spoil", f"--trainer.callbacks.how={how}"]
    spoil += [f"--trainer.callbacks.path={tmp_path}/images/3.png", "--data.num_workers", str(workers)]
    assert main(["fit", "-c", write_config(tmp_path, max_steps=100), *images, *spoil]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("zoo: error: '3.png' of '") and "could be read at the start, but now: " in said
    assert len(said) < 300 + len(str(tmp_path)) and "Traceback" not in said
    assert last_checkpoint(tmp_path) >= 2


def test_a_reader_that_is_killed_ends_the_run(images, tmp_path):
    with fit(write_config(tmp_path, max_steps=100_000), *images) as process:
        wait_for_iteration(process, 3)
        children = readers(process)
        os.kill(children[0], signal.SIGKILL)
        code, said = ended(process, children)
    assert code == 1
    sentences = [line for line in said if "A process that reads images died" in line]
    assert len(sentences) == 1 and "--data.num_workers" in sentences[0], "\n".join(said)
    assert last_checkpoint(tmp_path) >= 2


@pytest.mark.parametrize(
    "error", [ConnectionResetError(104, "reset"), EOFError(), FileNotFoundError(2, "no such file")]
)
def test_a_reader_that_dies_while_it_hands_a_batch_over_is_named(error):
    """All that is seen of its death then is the broken connection (three kinds were met)."""

    def broken():
        yield 1
        raise error

    batches = Loader(range(3), num_workers=1)._received(broken())
    assert next(batches) == 1
    with pytest.raises(Stopped, match="A process that reads images died"):
        next(batches)
    with pytest.raises(type(error)):  # without readers it is something else
        list(Loader(range(3))._received(broken()))


def test_a_death_that_became_another_error_is_named():
    """Some functions, such as ``inspect.getfullargspec``, make a TypeError of whatever happens in them."""
    with pytest.raises(TypeError) as raised:
        try:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
        except RuntimeError as error:
            raise TypeError("unsupported callable") from error
    assert "A process that reads images died (killed by signal: Killed)" in reader_failed(raised.value)


def test_a_missing_image_that_a_reader_has_met_keeps_its_name():
    def broken():
        yield 1
        raise FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0.")

    with pytest.raises(FileNotFoundError, match="Caught"):
        list(Loader(range(3), num_workers=1)._received(broken()))


def test_a_bus_error_of_a_reader_is_a_full_shared_memory():
    said = (
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of"
    )
    assert reader_failed(RuntimeError(f"{said} shared memory.")) == SHARED_MEMORY_FULL
    assert "(killed by signal: Killed)" in reader_failed(RuntimeError(said.replace("Bus error", "Killed")))


# It is full at the last tensor of a batch, at the first, or when readers are started.
@pytest.mark.parametrize(
    "size", ["64k", pytest.param("60k", marks=pytest.mark.slow), pytest.param("40k", marks=pytest.mark.slow)]
)
def test_a_small_shared_memory_ends_the_run(size, images, tmp_path):
    small = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    small += [f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"', "sh"]
    try:
        subprocess.run([*small, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine lets nobody mount a small /dev/shm ({error})")
    with fit(write_config(tmp_path, max_steps=100_000), *images, through=small) as process:
        said = process.communicate(timeout=5 * SECONDS)[1].strip().splitlines()
    assert process.returncode == 1 and not any("Traceback" in line for line in said), "\n".join(said)
    assert said[-1].startswith("zoo: error: The shared memory (/dev/shm)") and "--data.num_workers 0" in said[-1]


def test_ctrl_c_stops_a_run_with_random_crops_in_order(images, tmp_path):
    cropped = ["datamodules.resized.RandomlyCropped" if word == "datamodules.ImageFolder" else word for word in images]
    with fit(write_config(tmp_path, max_steps=100_000), *cropped) as process:
        wait_for_iteration(process, 3)
        children = readers(process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        code, said = ended(process, children)
    assert code == 130
    assert said[-2] == f"Stopped at iteration {last_checkpoint(tmp_path)} and saved. To resume:"
    assert not any("reads images" in line for line in said)


class Slow(Dataset):
    """Ten numbers, of which the reader never gets past the last."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> np.ndarray:
        time.sleep(3600 if index == 9 else 0.01)
        return np.array(index)


def test_a_reader_heeds_its_parent_alone_even_while_it_hangs():
    before = {*active_children()}
    batches = iter(loader(Slow(), 1, num_workers=1))
    (reader,) = {*active_children()} - before
    assert int(next(batches)) == 0
    for name in ("INT", "TERM", "USR1"):
        subprocess.run(["kill", f"-{name}", str(reader.pid)], check=True)
    assert [int(next(batches)) for _ in range(1, 9)] == list(range(1, 9))
    reader.join(1)
    assert reader.is_alive()
    reader.terminate()
    reader.join(SECONDS)
    assert reader.exitcode == 0


def test_a_reader_ends_soon_after_its_parent_was_killed():
    lines = "from tests.test_readers import Slow, active_children, loader, time; "
    lines += "batches = iter(loader(Slow(), 1, num_workers=1)); "
    lines += "next(batches), print(active_children()[0].pid, flush=True), time.sleep(3600)"
    with subprocess.Popen([sys.executable, "-c", lines], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        try:
            reader = int(parent.stdout.readline())
        finally:
            parent.kill()
    deadline = time.monotonic() + SECONDS
    while Path(f"/proc/{reader}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_loaders_are_made_in_one_place():
    """What a subclass of the base reads is its business; how is not, nor is it that of any other part."""
    families = [datamodules.base.ImageData]
    while families:
        families += (subclasses := families.pop().__subclasses__())
        for kind in subclasses:
            assert not [name for name in vars(kind) if name.endswith("_dataloader")], kind
    sources = [path for folder in ("zoo", "datamodules", "callbacks") for path in (ROOT / folder).rglob("*.py")]
    assert [path.name for path in sources if "(DataLoader)" in path.read_text()] == ["readers.py"]
    assert not [path for path in sources if " DataLoader(" in path.read_text()]
