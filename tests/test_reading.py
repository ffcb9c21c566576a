"""Reading keeps up with training: how many processes read, what is measured of them, and what many images cost."""

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from datamodules import ImageFolder
from tests.test_images import encoded, folder_of, plain
from zoo.cli import data_speed
from zoo.cli.command import main
from zoo.utils import threads
from zoo.utils.errors import reader_failed
from zoo.utils.image_folders import CheckedImages
from zoo.utils.readers import loader


@pytest.fixture
def made(tmp_path):
    """Makes a datamodule of seven images for a trainer on a device; nothing is computed there."""
    path = folder_of(tmp_path / "in", {f"{i}.png": encoded(plain((30 * i, 0, 0), (4, 4))) for i in range(7)})

    def make(device: str = "cpu", processes: int = 1, **options) -> ImageFolder:
        data = ImageFolder(str(path), 4, 2, manifests=str(tmp_path / "manifests"), **options)
        about = {"num_devices": processes, "world_size": 1, "global_rank": 0, "global_step": 0}
        data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)), **about)
        return data

    return make


@pytest.mark.parametrize(
    ("device", "cpus", "processes", "readers"),
    [("cpu", 8, 1, 0), ("cuda", 1, 1, 0), ("cuda", 2, 1, 1), ("cuda:1", 8, 2, 3), ("cuda", 64, 1, 8), ("mps", 4, 1, 3)],
)
def test_readers_are_started_where_they_help(device, cpus, processes, readers, made, monkeypatch, caplog):
    monkeypatch.setattr(threads, "affinity", lambda: cpus)
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    for data in (made(device, processes), made(device, processes, num_workers="auto")):
        data.setup("fit")
        assert data.num_workers == readers
    assert not caplog.text
    assert made(device, processes, num_workers=0).num_workers == 0


def test_batches_for_a_gpu_are_pinned_and_their_readers_stay():
    for workers, device, expected in (
        (0, "cuda", (True, False)),
        (1, "cuda", (True, True)),
        (1, "cpu", (False, False)),
    ):
        found = loader(range(3), 1, workers, torch.device(device))
        assert (found.pin_memory, found.persistent_workers) == expected


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
def test_readers_that_stay_continue_with_the_batch_that_comes_next(made, monkeypatch):
    monkeypatch.setattr(threads, "affinity", lambda: 2)
    data, alone = made("cuda", num_workers=1), made(num_workers=0)
    batches = data.train_dataloader()
    assert batches.persistent_workers
    for done in (0, 3):
        data.trainer.global_step = alone.trainer.global_step = done
        for one, other, _ in zip(batches, alone.train_dataloader(), range(4), strict=False):
            assert torch.equal(one["image"], other["image"]) and torch.equal(one["index"], other["index"])


def test_a_reader_that_dies_while_batches_are_pinned_is_named():
    """The thread that pins them ends, too."""
    assert "A process that reads images died" in reader_failed(RuntimeError("Pin memory thread exited unexpectedly"))


@pytest.fixture
def quick(monkeypatch):
    for name, value in {"SECONDS": 0.02, "COUNT": 5, "MADE": 2, "SIDE": 32, "BATCH": 2, "WORKERS": (0, 1)}.items():
        monkeypatch.setattr(data_speed, name, value)


def test_benchmark_reads_images_from_three_containers(quick, capsys, caplog):
    assert main(["benchmark", "--work", "data", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert "used as they are" not in caplog.text  # the zips that it has made itself
    assert [*facts["images_per_second"]] == ["folder", "zip", "packed zip"]
    for sides in facts["images_per_second"].values():
        assert [*sides] == ["64", "128", "256"]
        assert all([*row] == ["0", "1"] and min(row.values()) > 0 for row in sides.values())


def test_benchmark_reads_the_users_images(quick, tmp_path, capsys):
    path = folder_of(tmp_path / "in", {f"{i:02}/a.png": encoded(plain((i, 0, 0))) for i in range(12)})
    assert main(["benchmark", "--work", "data", "--path", str(path), "--resolution", "8"]) == 0
    said = capsys.readouterr().out
    assert "packed zip 8 px" in said and f"4 of {path}" in said
    taken = data_speed.taken_files(str(path), tmp_path)
    assert [*taken.values()] == [(path / f"{i:02}" / "a.png").read_bytes() for i in (0, 3, 6, 9)]
    assert not (tmp_path / "data").exists() and sorted(os.listdir(path)) == [f"{i:02}" for i in range(12)]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Rendering and training are of an experiment: give one that 'zoo list' shows."),
        (["pigan/cars32", "--path", "x"], "--path x changes nothing without --work data: leave it out."),
        (["pigan/cars32", "--work", "data"], "--config pigan/cars32 changes nothing with --work data: leave it out."),
        (["--work", "data", "--steps", "9"], "--steps 9 changes nothing with --work data: leave it out."),
        (["--work", "data", "--out", "x.csv"], "--out x.csv changes nothing with --work data: leave it out."),
        (
            ["pigan/cars32", "--precision", "bf16"],
            "--precision bf16 changes nothing with --work render, which always computes in float32: leave it out.",
        ),
        (
            ["pigan/cars32", "--devices", "2"],
            "--devices 2 changes nothing with --work render, which takes one process: leave it out.",
        ),
        (
            ["pigan/cars32", "--work", "train", "--devices", "2", "--beside_load"],
            "--beside_load True changes nothing with --devices, which compares several with one: leave it out.",
        ),
        (["--work", "data", "--path", "nowhere"], "There is no folder or zip file 'nowhere'."),
    ],
)
def test_what_benchmark_cannot_use_is_refused(words, sentence, capsys):
    assert main(["benchmark", *words]) == 2
    assert capsys.readouterr().err == f"zoo: error: {sentence}\n"


# Many images


def many(path: Path, count: int) -> Path:
    """A folder of so many links to one image of 16x16, in which half of the names are in subfolders."""
    folder_of(path, {"deep/0.png": encoded(plain(size=(16, 16)))})
    for number in range(1, count):
        os.link(path / "deep" / "0.png", path / ("deep" if number % 2 else "") / f"{number}.png")
    return path


def walked(path: Path) -> int:
    """What no list of a folder's files can do without."""
    return sum(os.stat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)


def processor_time(function, *arguments) -> float:
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


def test_many_checked_images_start_soon(tmp_path):
    """About three times what the system takes for it."""
    path = many(tmp_path / "in", 2000)
    CheckedImages(path, manifests=tmp_path).open()
    ours, least = (
        min(processor_time(function) for _ in range(5))
        for function in (lambda: CheckedImages(path, manifests=tmp_path).open(), lambda: walked(path))
    )
    assert ours < 5 * least, (ours, least)


def test_many_checked_images_of_a_zip_start_soon(tmp_path):
    """About three times what listing it takes, and what that is."""
    path, image = tmp_path / "in.zip", encoded(plain(size=(16, 16)))
    data_speed.stored(path, ((f"{number % 10}/{number}.png", image) for number in range(2000)))
    ImageFolder(str(path), manifests=str(tmp_path)).prepare_data()
    ours, least = (
        min(processor_time(function) for _ in range(5))
        for function in (
            lambda: ImageFolder(str(path), manifests=str(tmp_path)).prepare_data(),
            lambda: zipfile.ZipFile(path).infolist(),
        )
    )
    assert ours < 5 * least, (ours, least)


EPOCH = """
import sys
from datamodules import ImageFolder
from tests.test_reading import resident
data = ImageFolder(sys.argv[1], 16, 100, manifests=sys.argv[2], num_workers=int(sys.argv[3]))
batches = iter(data.train_dataloader())
for done in range(300):
    next(batches)
    if done == 60:
        before = resident()
print(before, resident())
"""


def resident() -> int:
    """Memory of this process and its children [bytes]; what they share counts once, and files do not: their share falls
    to this process when another program that has loaded the same libraries ends."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    found = [Path(f"/proc/{number}/smaps_rollup").read_text() for number in ["self", *children]]
    return 1024 * sum(int(text.partition("\nPss_Anon:")[2].split()[0]) for text in found)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says so much about memory")
@pytest.mark.parametrize("workers", [0, 2])
def test_memory_is_flat_over_an_epoch(workers, tmp_path):
    path = many(tmp_path / "in", 30_000)
    words = [sys.executable, "-c", EPOCH, str(path), str(tmp_path / "manifests"), str(workers)]
    done = subprocess.run(words, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert after - before < 16 * 2**20
