"""Films of the same objects from all sides, drawn as training goes on."""

from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer

from callbacks.loggers import log_film
from callbacks.samples import Turntable
from zoo.utils.ranges import at_least


class Orbits(Turntable):
    """Writes ``<run>/orbits/iteration-000000.gif``: objects on the turntable, each beside its depth.

    Args:
        every: iterations between two films.
        latents: objects, one below the other.
        frames: of the film; it takes 3 seconds.
        options: as of ``callbacks.samples.Turntable``.
    """

    def __init__(self, every: int = 5000, latents: int = 2, frames: int = 24, **options: Any) -> None:
        at_least(1, self, frames=frames)
        super().__init__(every, latents, frames, **options)

    def write(self, trainer: Trainer, views: Any, name: str) -> None:
        from zoo.export.orbit import orbit_frames, save_orbit

        path = Path(trainer.default_root_dir) / "orbits" / f"{name}.gif"
        save_orbit(path, orbit_frames(views, self.depth), rate=self.sides / 3)
        log_film(trainer, "orbits", path)
