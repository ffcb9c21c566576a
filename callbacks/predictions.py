"""Writes the samples of ``zoo predict`` as files."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from zoo.export.images import to_pil_image
from zoo.generator import quantise
from zoo.render import Rendered
from zoo.utils.files import replacing


class PredictionWriter(pl.Callback):
    """Writes each sample as ``<run>/predictions/000000.png``, named by its index."""

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Rendered, batch: Tensor, *_: Any
    ) -> None:
        folder = Path(trainer.default_root_dir) / "predictions"
        for index, image in zip(batch.tolist(), quantise(outputs.image.cpu()), strict=True):
            with replacing(folder / f"{index:06d}.png", durable=False) as part:
                to_pil_image(image).save(part)
