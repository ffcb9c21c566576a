"""Callbacks only watch, and loggers get the images that are written."""

import csv
import math

import numpy as np
import pytest
import torch
from PIL import Image

from callbacks.preview import draw_box
from tests.tiny import write_config
from zoo.cli.command import main
from zoo.render import orbit_cameras
from zoo.render.projection import image_coordinates

GRID = ["--trainer.callbacks+=callbacks.samples.SampleGrid", "--trainer.callbacks.every=2"]
PREVIEW = ["--trainer.callbacks+=callbacks.preview.PriorPreview"]


def metrics(folder) -> list[dict[str, str]]:
    with open(folder / "run" / "metrics.csv") as file:
        return list(csv.DictReader(file))


def test_callbacks_change_nothing_that_is_learned(tmp_path):
    runs = []
    for name, extra in (("without", []), ("with", [*GRID, *PREVIEW, "--checkpoint.every=1"])):
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


def test_wandb_runs_offline_and_gets_the_images_as_they_are(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert main(["fit", "-c", write_config(tmp_path), "-c", "overlays/wandb", *GRID]) == 0
    import wandb

    wandb.finish()
    (media,) = (tmp_path / "run" / "wandb").glob("offline-run-*/files/media/images")
    sent = {np.asarray(Image.open(f).convert("RGB")).tobytes() for f in media.iterdir()}
    written = {np.asarray(Image.open(f)).tobytes() for f in (tmp_path / "run" / "samples").iterdir()}
    assert len(written) > 1 and sent == written


def test_projection_is_that_of_the_camera():
    front = torch.tensor([[math.pi / 2]])
    camera = orbit_cameras(front, front, radius=2.0, fov=math.radians(90))
    points = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 5.0]])
    places = image_coordinates(camera, 0, points)
    torch.testing.assert_close(places[:3], torch.tensor([[0.5, 0.5], [0.75, 0.5], [0.5, 0.0]]))
    assert places[3].isnan().all()


def test_a_preview_shows_the_axes_where_they_are():
    front = torch.tensor([[math.pi / 2]])
    camera = orbit_cameras(front, front, radius=2.0, fov=math.radians(90))
    image = np.asarray(draw_box(camera, torch.tensor([[-1.0] * 3, [1.0] * 3]), 64)).astype(int)
    red = (image[..., 0] - image[..., 1] > 120).nonzero()
    green = (image[..., 1] - image[..., 0] > 80).nonzero()
    assert red[1].min() >= 30 and abs(int(np.median(red[0])) - 32) <= 6  # x points right
    assert green[0].max() <= 34  # y points up
