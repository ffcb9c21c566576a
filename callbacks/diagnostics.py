"""Numbers that show early whether a training goes wrong: clouds, flat boards, emptiness, values that are not finite."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from callbacks.scores import log_message, log_now
from zoo.evaluate.metrics.consistency import diagnostics
from zoo.generator import HasRays
from zoo.utils.ranges import at_least, given


class Diagnostics(pl.Callback):
    """Logs ``diagnostics/flatness``, ``parallax``, ``opacity`` and ``nonfinite`` of a few fixed objects.

    Their definitions are in ``zoo.evaluate.metrics.consistency``; the first two need rays. Rendered from a few sides of
    the turntable by the averaged generator, on the first process only; it has no effect on training.

    Args:
        every: iterations between measurements; the first is before training.
        n: objects.
        views: sides each is shown from, at least 2.
        resolution: side of the images [pixels]; by default the generator's own.
        seed: of the objects.
    """

    def __init__(
        self, every: int = 500, n: int = 4, views: int = 4, resolution: int | None = None, seed: int = 0
    ) -> None:
        at_least(1, self, every=every, n=n, **given(resolution=resolution))
        at_least(2, self, views=views)
        self.every, self.n, self.views, self.resolution, self.seed = every, n, views, resolution, seed

    @rank_zero_only
    def measure(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
            values = diagnostics(model.sampler, self.n, views=self.views, resolution=self.resolution, seed=self.seed)
        log_now(trainer, {f"diagnostics/{name}": value for name, value in values.items()})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not isinstance(pl_module.sampler, HasRays):
            log_message(
                trainer,
                "diagnostics/flatness and diagnostics/parallax are left out: they need rays, which this system lacks.",
            )
        if pl_module.iterations == 0:
            self.measure(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if pl_module.iterations % self.every == 0:
            self.measure(trainer, pl_module)
