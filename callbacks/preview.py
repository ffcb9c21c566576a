"""A preview of the pose prior before training, beside images of the data."""

from pathlib import Path

import torch
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer

from zoo.generator import draws_for
from zoo.utils.images import save_image
from zoo.utils.ranges import at_least


class PriorPreview(Callback):
    """Writes ``<run>/views.png`` at the start of training.

    Left: a box half as large as the object's bounds, and its axes, as cameras drawn from the pose prior see them (y is
    up, z points to the front). Right: images of the data. Where the boxes are turned quite differently from the
    objects in the images, change the poses in the config.

    Args:
        count: views, and images of the data; drawn in rows of four.
        size: side of each [pixels].
        seed: of the views.
    """

    def __init__(self, count: int = 16, size: int = 128, seed: int = 0) -> None:
        at_least(1, self, count=count, size=size)
        self.count, self.size, self.seed = count, size, seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        from zoo.export.cameras import preview_sheet

        path = Path(trainer.default_root_dir) / "views.png"
        generator = pl_module.generator
        with torch.no_grad():
            _, camera = generator.sample(self.count, draws_for(generator, self.seed, range(self.count)))
        images = real_images(trainer, self.count)
        bounds = generator.bounds.cpu()
        box = bounds.mean(0) + (bounds - bounds.mean(0)) / 2
        save_image(path, preview_sheet(camera.to("cpu"), box, images, self.size))


def real_images(trainer: Trainer, count: int) -> list[Image.Image]:
    """The first images of the validation set: its loader draws no random numbers; none where there is no such set."""
    from zoo.export.images import to_pil_image
    from zoo.generator import quantise

    source = trainer.datamodule
    dataset = getattr(source.val_dataloader(), "dataset", None) if source is not None else None
    if dataset is None:
        return []
    return [to_pil_image(quantise(dataset[i]["image"])) for i in range(min(count, len(dataset)))]
