"""Every system with data to train on, for tests of what each must stand: exact resume, several processes, 16 bits.

A new system adds its tiny config to ``SYSTEMS``; every test that is parametrised over it then holds for it too.
"""

from collections.abc import Callable
from typing import Any

import torch

from datamodules.base import ImageData
from tests.tiny_systems import cips3d, eg3d, giraffe, graf, pigan, stylenerf, stylesdf, volumegan
from zoo.draws import stream_seed
from zoo.render import Camera, orbit_cameras

SYSTEMS: dict[str, Callable[[], dict[str, Any]]] = {
    config.__name__: config for config in (cips3d, eg3d, giraffe, graf, pigan, stylenerf, stylesdf, volumegan)
}
EARLIER = ("sphere", "volume")  # stages of training that come before a system's last


def last_stage(model: dict[str, Any]) -> dict[str, Any]:
    """The config of a model that begins with its last stage."""
    return model | {"init_args": model["init_args"] | dict.fromkeys(model["init_args"].keys() & {*EARLIER})}


class NoiseImages:
    """Images of noise, by index, with cameras all round or without."""

    def __init__(self, count: int, posed: bool = False) -> None:
        self.count, self.posed = count, posed

    def __len__(self) -> int:
        return self.count

    def item(self, index: int, resolution: int) -> dict[str, Any]:
        stream = torch.Generator().manual_seed(stream_seed("noise", index))
        image = torch.randint(256, (3, resolution, resolution), dtype=torch.uint8, generator=stream)
        return {"image": image} | ({"camera": Camera(*(x[index] for x in self.all_cameras()))} if self.posed else {})

    def cameras(self, resolution: int) -> Camera | None:
        return self.all_cameras() if self.posed else None

    def all_cameras(self) -> Camera:
        yaw = torch.arange(self.count)[:, None] / self.count
        return orbit_cameras(6.28 * yaw, 1.0 + 0.3 * yaw, radius=10.0, fov=0.5)

    def digest(self, resolution: int) -> str:
        return f"noise-{resolution}-{self.count}"


class NoiseData(ImageData):
    """Endless batches of noise, mirrored or not, in stages.

    Args:
        count: images; few, so that even short runs see all of them more than once.
        stages, batch_size, num_workers, resolution: as in ``ImageData``.
        posed: each has a camera.
    """

    name = "noise"
    extractor = "cars"  # which is quick

    def __init__(
        self,
        count: int = 22,
        stages: dict[int, dict[str, int]] | None = None,
        batch_size: int = 4,
        num_workers: int = 0,
        resolution: int = 8,
        posed: bool = False,
    ) -> None:
        super().__init__(resolution, batch_size, stages, flip=True, num_workers=num_workers)
        self.count, self.posed = count, posed

    def train_source(self) -> NoiseImages:
        return NoiseImages(self.count, self.posed)
