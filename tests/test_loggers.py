"""Callbacks only watch, and loggers get the images that are written."""

import csv
import json
import math
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from callbacks.scores import Scores
from tests.tiny import write_config
from zoo.cli.command import main
from zoo.export.cameras import draw_box
from zoo.render import orbit_cameras, through
from zoo.render.projection import image_coordinates

GRID = ["--trainer.callbacks+=callbacks.samples.SampleGrid", "--trainer.callbacks.every=2"]
ORBITS = ["--trainer.callbacks+=callbacks.orbits.Orbits", "--trainer.callbacks.every=2"]
PREVIEW = ["--trainer.callbacks+=callbacks.preview.PriorPreview"]


def metrics(folder) -> list[dict[str, str]]:
    with open(folder / "run" / "metrics.csv") as file:
        return list(csv.DictReader(file))


def test_callbacks_change_nothing_that_is_learned(tmp_path):
    runs = []
    for name, extra in (("without", []), ("with", [*GRID, *ORBITS, *PREVIEW, "--checkpoint.every=1"])):
        (tmp_path / name).mkdir()
        assert main(["fit", "-c", write_config(tmp_path / name, max_steps=4), *extra]) == 0
        runs.append(metrics(tmp_path / name))
    assert len(runs[0]) == 4 and runs[0] == runs[1]


def test_tensorboard_gets_curves_and_the_written_images(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert main(["fit", "-c", write_config(tmp_path), "-c", "overlays/tensorboard", *GRID]) == 0
    events = event_accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert len(events.Scalars("loss_d")) == 3 == len(metrics(tmp_path))
    images = events.Images("samples")
    assert [p.step for p in images] == [0, 2, 3]
    written = Image.open(tmp_path / "run" / "samples" / "iteration-000002.png")
    assert (images[1].width, images[1].height) == written.size


def records(path: Path) -> Iterator:
    """What is in an offline run's file: LevelDB's log of protobufs, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole = path.read_bytes(), 7, b""  # its own mark comes first
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        whole, place = whole + data[place + 7 : place + 7 + size], place + 7 + size
        if place > len(data):
            return
        if kind in (1, 4):  # complete, or its last part
            yield Record.FromString(whole)
            whole = b""


def whole_run(path: Path) -> list:
    """All that was written; another process does so, and may still be at it for a moment."""
    end = time.monotonic() + 120
    while not (found := list(records(path))) or not found[-1].HasField("exit"):
        assert time.monotonic() < end, "wandb has not written the end of the run"
        time.sleep(0.05)
    return found


def keys(items) -> dict[str, object]:
    return {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}


def test_wandb_gets_everything_offline_as_it_is_written(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(Scores, "measure", lambda self, trainer, model: {"fid-x": float(model.iterations)})
    more = [*GRID, "--trainer.callbacks+=callbacks.scores.Scores"]
    overlay = tmp_path / "orbits.yaml"
    overlay.write_text(
        "trainer: {callbacks+: [{class_path: callbacks.diagnostics.Diagnostics, init_args: {every: 2}}]}"
    )
    config = write_config(tmp_path)
    assert main(["fit", "-c", config, "-c", "overlays/wandb", "-c", str(overlay), *more]) == 0
    import wandb

    wandb.finish()
    run = tmp_path / "run"
    (offline,) = (run / "wandb").glob("offline-run-*")
    found = whole_run(next(offline.glob("run-*.wandb")))
    history = [keys(record.history.item) for record in found if record.HasField("history")]
    logged = {key for row in history for key in row}
    assert {"loss_g", "loss_d", "fid-x", "samples", "orbits", "diagnostics/opacity"} <= logged
    assert [row["loss_d"] for row in history if "loss_d" in row] == pytest.approx(
        [float(row["loss_d"]) for row in metrics(tmp_path) if row["loss_d"]]
    )
    configs = [record.run.config.update for record in found if record.HasField("run")]
    configs += [record.config.update for record in found if record.HasField("config")]
    about = {key: value for part in configs for key, value in keys(part).items()}
    assert about["folder"] == str(run) and about["folder_url"] == f"file://{run}"
    assert about["command"].startswith(f"zoo fit -c {config} -c ") and "SampleGrid" in about["command"]
    assert about["model"]["class_path"] == "zoo.pigan.PiGAN" and about["trainer"]["max_steps"] == 3

    media = offline / "files" / "media"
    sent = {np.asarray(Image.open(f).convert("RGB")).tobytes() for f in (media / "images").iterdir()}
    written = {np.asarray(Image.open(f)).tobytes() for f in (run / "samples").iterdir()}
    assert len(written) > 1 and sent == written and all(np.frombuffer(x, np.uint8).std() > 5 for x in written)
    (film,), (orbit,) = (media / "videos").iterdir(), (run / "orbits").iterdir()
    assert film.read_bytes() == orbit.read_bytes() and orbit.name == "iteration-000003.gif"
    with Image.open(film) as frames:
        assert frames.n_frames > 1 and np.asarray(frames.convert("RGB")).std() > 5


def test_projection_is_that_of_the_camera():
    front = torch.tensor([[math.pi / 2]])
    camera = orbit_cameras(front, front, radius=2.0, fov=math.radians(90))
    points = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 5.0]])
    places = image_coordinates(camera, 0, points)
    torch.testing.assert_close(places[:3], torch.tensor([[0.5, 0.5], [0.75, 0.5], [0.5, 0.0]]))
    assert places[3].isnan().all()


def test_projection_is_the_way_back_from_rays():
    """With a principal point off the middle and focal lengths of their own."""
    camera = orbit_cameras(torch.tensor([[0.7], [2.0]]), torch.tensor([[1.2], [0.9]]), radius=2.0, fov=0.6)
    camera.intrinsics[1] = torch.tensor([[1.3, 0, 0.45], [0, 1.1, 0.6], [0, 0, 1]])
    film = torch.rand(7, 2) * 2 - 1
    rays = through(camera, film)
    for view in range(2):
        places = image_coordinates(camera, view, rays.origins[view] + 1.7 * rays.directions[view])
        torch.testing.assert_close(places, (film * torch.tensor([1.0, -1.0]) + 1) / 2)


def test_a_preview_shows_the_axes_where_they_are():
    front = torch.tensor([[math.pi / 2]])
    camera = orbit_cameras(front, front, radius=2.0, fov=math.radians(90))
    image = np.asarray(draw_box(camera, torch.tensor([[-1.0] * 3, [1.0] * 3]), 64)).astype(int)
    red = (image[..., 0] - image[..., 1] > 120).nonzero()
    green = (image[..., 1] - image[..., 0] > 80).nonzero()
    assert red[1].min() >= 30 and abs(int(np.median(red[0])) - 32) <= 6  # x points right
    assert green[0].max() <= 34  # y points up
