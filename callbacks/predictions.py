"""Writes the samples of ``zoo predict`` as files."""

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from callbacks.run_folder import set_aside
from zoo.export.images import save_image, to_pil_image
from zoo.generator import quantise
from zoo.render import Rendered


class PredictionWriter(pl.Callback):
    """Writes each sample as ``<run>/predictions/000000.png``, named by its index.

    Those that are there already are moved into ``<run>/earlier-<n>``.
    """

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        run = Path(trainer.default_root_dir)
        if trainer.is_global_zero and (place := set_aside(run, sorted(run.glob("predictions/*.png")))):
            print(f"Earlier samples of '{run / 'predictions'}' are in '{place / 'predictions'}' now.", file=sys.stderr)
        trainer.strategy.barrier("PredictionWriter")  # no process writes before they are moved

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Rendered, batch: Tensor, *_: Any
    ) -> None:
        folder = Path(trainer.default_root_dir) / "predictions"
        for index, image in zip(batch.tolist(), quantise(outputs.image.cpu()), strict=True):
            save_image(folder / f"{index:06d}.png", to_pil_image(image), durable=False)
