"""Grids of the same objects from several sides, rendered during training."""

from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.loggers import log_image
from zoo.utils.files import replacing
from zoo.utils.ranges import at_least, finite, given


class SampleGrid(Callback):
    """Writes ``<run>/samples/iteration-000000.png``: rows are latents, with their depth below, columns are views.

    The same samples at the start, at regular intervals and at the end, with random numbers of their own: training is
    not affected.

    Args:
        every: iterations between two grids.
        latents, views: rows and columns.
        depth: also draw depths.
        resolution: side of the images [pixels]; by default the generator's own.
        truncation: as in ``generator.map``.
        seed: of the samples; row i is sample i of this seed.
    """

    def __init__(
        self,
        every: int = 1000,
        latents: int = 4,
        views: int = 6,
        depth: bool = True,
        resolution: int | None = None,
        truncation: float = 1.0,
        seed: int = 0,
    ) -> None:
        at_least(1, self, every=every, latents=latents, views=views, **given(resolution=resolution))
        finite(self, truncation=truncation)
        self.every, self.latents, self.views, self.depth = every, latents, views, depth
        self.resolution, self.truncation, self.seed = resolution, truncation, seed
        self.drawn = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.draw(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        if pl_module.iterations % self.every == 0:
            self.draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.draw(trainer, pl_module)

    def draw(self, trainer: Trainer, gan: LightningModule) -> None:
        """Write this iteration's grid, once."""
        if not trainer.is_global_zero or self.drawn == gan.iterations:
            return
        from zoo.export.images import grid, with_depth_rows
        from zoo.export.views import turntable_views

        self.drawn = gan.iterations
        options = {"seed": self.seed, "truncation": self.truncation, "resolution": self.resolution}
        views = turntable_views(gan.sampler, range(self.latents), self.views, **options)
        image = grid(with_depth_rows(views.image, views.depth if self.depth else None))
        path = Path(trainer.default_root_dir) / "samples" / f"iteration-{gan.iterations:06d}.png"
        with replacing(path) as part:
            image.save(part)
        log_image(trainer, "samples", image)
