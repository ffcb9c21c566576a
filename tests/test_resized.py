"""Images that become squares in other ways than by a crop in the middle."""

import numpy as np
import torch
from PIL import Image

from datamodules.resized import RandomlyCropped, Squeezed


def gradients(folder, width: int, height: int) -> str:
    """One image whose red grows from left to right and whose green grows from top to bottom."""
    folder.mkdir()
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([red, green, np.zeros_like(red)], -1).round().astype(np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    return str(folder)


def test_a_squeezed_image_keeps_its_borders(tmp_path) -> None:
    for name, size in (("wide", (32, 16)), ("high", (16, 64))):
        path = gradients(tmp_path / name, *size)
        data = Squeezed(path, resolution=16, batch_size=1, manifests=str(tmp_path / "manifests"))
        image = next(iter(data.val_dataloader()))["image"][0]
        assert image.shape == (3, 16, 16)
        assert image[0, 0, 0] < -0.8 and image[0, 0, -1] > 0.8 and image[1, 0, 0] < -0.8 and image[1, -1, 0] > 0.8


def test_training_crops_lie_anywhere_and_the_scores_in_the_middle(tmp_path) -> None:
    for name, size, channel in (("wide", (64, 16), 0), ("high", (16, 64), 1)):
        path = gradients(tmp_path / name, *size)
        options = {"resolution": 16, "batch_size": 40, "flip": False, "manifests": str(tmp_path / "manifests")}
        data = RandomlyCropped(path, **options)
        middle = next(iter(data.val_dataloader()))["image"][0, channel]
        assert abs(float(middle.mean())) < 0.05
        batch = next(iter(data.train_dataloader()))["image"]
        means = batch[:, channel].flatten(1).mean(1)
        assert means.min() < -0.6 and means.max() > 0.6 and (means.abs() < 0.2).any()
        across = batch[:, 1 - channel].flatten(1).mean(1)
        assert across.abs().max() < 0.05  # the shorter side is whole
        assert torch.equal(batch, next(iter(data.train_dataloader()))["image"])  # a function of the draw
