"""Grids of the same objects from several sides, rendered during training, and what other such callbacks share."""

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.loggers import log_image
from zoo.utils.ranges import at_least, finite, given


class Turntable(Callback):
    """Base of callbacks that write views of the same samples, at regular intervals and at the end of training.

    They draw with random numbers of their own: training is not affected. A subclass defines ``write(trainer, views,
    name)``, which is given the ``zoo.export.views.Views`` of an iteration and a file's name without its ending.

    Args:
        every: iterations between two files.
        latents: objects.
        sides: views of each.
        depth: also draw depths.
        resolution: side of the images [pixels]; by default the generator's own.
        truncation: as in ``generator.map``.
        seed: of the samples; object i is sample i of this seed.
    """

    def __init__(
        self,
        every: int,
        latents: int,
        sides: int,
        depth: bool = True,
        resolution: int | None = None,
        truncation: float = 1.0,
        seed: int = 0,
    ) -> None:
        at_least(1, self, every=every, latents=latents, sides=sides, **given(resolution=resolution))
        finite(self, truncation=truncation)
        self.every, self.latents, self.sides, self.depth = every, latents, sides, depth
        self.options = {"resolution": resolution, "truncation": truncation, "seed": seed}
        self.drawn = -1

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        if pl_module.iterations % self.every == 0:
            self.draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.draw(trainer, pl_module)

    def draw(self, trainer: Trainer, gan: LightningModule) -> None:
        """Write this iteration's file, once."""
        if not trainer.is_global_zero or self.drawn == gan.iterations:
            return
        from zoo.export.views import turntable_views

        self.drawn = gan.iterations
        views = turntable_views(gan.sampler, range(self.latents), self.sides, **self.options)
        self.write(trainer, views, f"iteration-{gan.iterations:06d}")


class SampleGrid(Turntable):
    """Writes ``<run>/samples/iteration-000000.png``: rows are latents, with their depth below, columns are views.

    Args:
        every: iterations between two grids; the first is before training.
        latents, views: rows and columns.
        options: as of ``Turntable``.
    """

    def __init__(self, every: int = 1000, latents: int = 4, views: int = 6, **options: Any) -> None:
        at_least(1, self, views=views)
        super().__init__(every, latents, views, **options)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.draw(trainer, pl_module)

    def write(self, trainer: Trainer, views: Any, name: str) -> None:
        from zoo.export.images import grid, save_image, with_depth_rows

        image = grid(with_depth_rows(views.image, views.depth if self.depth else None))
        save_image(Path(trainer.default_root_dir) / "samples" / f"{name}.png", image)
        log_image(trainer, "samples", image)
