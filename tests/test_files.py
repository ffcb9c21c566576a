"""An older file survives whatever happens to the writer of a new one, and locks end with their process."""

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from zoo.export.orbit import save_orbit
from zoo.leaderboard import append_row
from zoo.utils import files
from zoo.utils.files import held, lock_of, locked, replacing, replacing_files, sweep
from zoo.weights.bundle import save_bundle

FORK = multiprocessing.get_context("fork")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def full_disk(size: int = 10_000) -> Iterator[None]:
    """Inside, no file grows beyond so many bytes."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def film(path: Path) -> None:
    save_orbit(path, [Image.effect_noise((128, 128), 90).convert("RGB") for _ in range(4)])


def mesh(path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    from zoo.export.mesh import save_mesh

    made = trimesh.creation.icosphere(subdivisions=4)
    made.visual.vertex_colors = [200, 100, 50, 255]
    save_mesh(path, made)


def row(path: Path) -> None:
    columns = {"system": "x" * 20_000, "weights": "w", "weights_sha256": "0", "dataset": "d", "dataset_digest": "0"}
    numbers = {"resolution": 8, "value": 1.0, "n_real": 9, "n_fake": 9}
    rest = {"metric": "fid", "better": "less", "condition": "none", "extractor_sha256": "0", "record": "{}"}
    rest |= {"hardware": "cpu", "date": "2026-01-01"}
    append_row(columns | numbers | rest, path)


def bundle(path: Path) -> None:
    save_bundle(path.parent, nn.Linear(100, 100), {"class_path": "torch.nn.Linear"})


def text(path: Path) -> None:
    with replacing_files(path.parent) as made:
        (made / "a").write_text("complete")
        (made / path.name).write_text("x" * 20_000)


WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "film": ("orbit.gif", film),
    "webp": ("orbit.webp", film),
    "ply": ("mesh.ply", mesh),
    "glb": ("mesh.glb", mesh),
    "row": ("results.csv", row),
    "bundle": ("model.safetensors", bundle),
    "several": ("text.txt", text),
}


@pytest.mark.parametrize("name", WRITERS)
def test_an_older_file_survives_a_full_disk(name: str, tmp_path: Path) -> None:
    file, write = WRITERS[name]
    path = tmp_path / "there" / file
    write(path)
    before, beside = path.read_bytes(), names(path.parent)
    if name == "several":
        path.write_bytes(before := b"older")
    assert len(before) > 10_000 or name == "several"
    with full_disk(), pytest.raises(Exception, match=r"(?i)too large|write|encod|27"):
        write(path)
    assert path.read_bytes() == before and names(path.parent) == beside and names(tmp_path) == ["there"]
    write(path)
    assert names(path.parent) == beside


def test_a_killed_writer_leaves_the_older_file_and_what_can_be_swept(tmp_path: Path) -> None:
    path = tmp_path / "hpc_ckpt_1.ckpt"
    path.write_text("older")

    def write() -> None:
        with replacing(path) as part:
            part.write_text("half")
            time.sleep(60)

    process = FORK.Process(target=write, daemon=True)
    process.start()
    end = time.monotonic() + 20
    while not list(tmp_path.glob(".saving-*.ckpt")) and time.monotonic() < end:
        time.sleep(0.01)
    assert sweep(tmp_path) == [] and len(names(tmp_path)) == 3  # it is alive
    assert [name for name in names(tmp_path) if name.startswith("hpc_ckpt")] == [path.name]
    os.kill(process.pid, signal.SIGKILL)
    process.join(20)
    assert len(sweep(tmp_path)) == 1 and names(tmp_path) == [path.name] and path.read_text() == "older"


def test_sweeping_takes_nothing_from_a_writer_that_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is there before the file."""
    parts = []
    monkeypatch.setattr(files, "take_place", lambda part, path, durable: parts.append(names(part.parent)))
    with replacing(tmp_path / "x") as part:
        assert names(tmp_path) == [lock_of(part).name] and sweep(tmp_path) == []
        part.write_text("half")
        assert sweep(tmp_path) == []
    assert len(parts[0]) == 2 and names(tmp_path) == []


def test_a_file_system_without_locks_still_gets_its_files_and_is_not_swept(tmp_path: Path, monkeypatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.FileLock, "acquire", refuse)
    with replacing(tmp_path / "x") as part:
        part.write_text("whole")
        assert sweep(tmp_path) == []
    assert (tmp_path / "x").read_text() == "whole"


def count(path: Path, times: int) -> None:
    for _ in range(times):
        with locked(path.with_suffix(".lock"), ""):
            number = int(path.read_text())
            time.sleep(0.002)
            path.write_text(str(number + 1))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    writers = [FORK.Process(target=count, args=(path, 20)) for _ in range(3)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(30)
    assert [process.exitcode for process in writers] == [0, 0, 0]
    assert path.read_text() == "60" and names(tmp_path) == ["count"]
    with held(tmp_path / "lock") as first, held(tmp_path / "lock") as second:
        assert first and not second


def test_small_files_need_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(files.os, "fsync", synced.append)
    for durable in (True, False):
        with replacing(tmp_path / "x", durable) as part:
            part.write_text("whole")
    assert len(synced) == 2  # the file, and its name


def test_files_are_as_readable_as_any_others(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    with replacing(tmp_path / "part.safetensors") as part:
        save_file({"a": torch.zeros(3)}, part)  # makes it for its owner alone
    assert (tmp_path / "part.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
