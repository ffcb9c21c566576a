"""Films of the same objects from all sides, drawn as training goes on."""

from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.loggers import log_film
from zoo.utils.ranges import at_least, finite, given


class Orbits(Callback):
    """Writes ``<run>/orbits/iteration-000000.gif``: objects on the turntable, each beside its depth.

    The same samples every so often and at the end. It only watches, as ``callbacks.samples.SampleGrid`` does.

    Args:
        every: iterations between two films.
        latents: objects, one below the other.
        frames: of the film; it takes 3 seconds.
        depth: also draw depths.
        resolution: side of the images [pixels]; by default the generator's own.
        truncation: as in ``generator.map``.
        seed: of the samples; object i is sample i of this seed.

    Raises:
        UserError: fewer than one iteration, object, frame or pixel.
    """

    def __init__(
        self,
        every: int = 5000,
        latents: int = 2,
        frames: int = 24,
        depth: bool = True,
        resolution: int | None = None,
        truncation: float = 1.0,
        seed: int = 0,
    ) -> None:
        at_least(1, self, every=every, latents=latents, frames=frames, **given(resolution=resolution))
        finite(self, truncation=truncation)
        self.every, self.latents, self.frames, self.depth = every, latents, frames, depth
        self.resolution, self.truncation, self.seed = resolution, truncation, seed
        self.filmed = -1

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        if pl_module.iterations % self.every == 0:
            self.film(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.film(trainer, pl_module)

    def film(self, trainer: Trainer, gan: LightningModule) -> None:
        """Write this iteration's film, once."""
        if not trainer.is_global_zero or self.filmed == gan.iterations:
            return
        from zoo.export.orbit import orbit_frames, save_orbit
        from zoo.export.views import turntable_views

        self.filmed = gan.iterations
        options = {"seed": self.seed, "truncation": self.truncation, "resolution": self.resolution}
        views = turntable_views(gan.sampler, range(self.latents), self.frames, **options)
        path = Path(trainer.default_root_dir) / "orbits" / f"iteration-{gan.iterations:06d}.gif"
        save_orbit(path, orbit_frames(views, self.depth), rate=self.frames / 3)
        log_film(trainer, "orbits", path)
