"""Generated images as scores see them: conditioned on which cameras, and seen from which.

The condition of a generator that has one is ``own`` (each image is conditioned on the camera that it is rendered from,
as in training) or ``fixed`` (all on the middle camera, as the views of one object are). Cameras are those of the
generator's ``prior``, those of the real images (``dataset``), or ``uniform`` over the way of its turntable.

B batch
"""

from typing import Any, Literal

import torch
from torch import Tensor

from zoo.draws import Draws
from zoo.evaluate.real_statistics import RealImages
from zoo.generator import Cameras, Condition, DrawsPolicy, Generator, joined, quantise, render_samples, take
from zoo.render import Camera
from zoo.utils.errors import UserError, printable
from zoo.utils.memory import images_at_once

CamerasFrom = Literal["prior", "dataset", "uniform"]


def fakes(
    generator: Generator,
    indices: Tensor,
    seed: int,
    truncation: float,
    draws: DrawsPolicy,
    condition: Condition = "own",
    cameras: Cameras | None = None,
) -> Tensor:
    """The samples with these indices as uint8 [B, 3, H, W].

    Raises:
        UserError: images hold values that are not finite; names them.
    """
    parts = indices.split(images_at_once(generator.image_side(), generator.device, most=len(indices)))
    how: dict[str, Any] = {"draws": draws, "condition": condition, "cameras": cameras}
    images = torch.cat([render_samples(generator, part.tolist(), seed, truncation, **how).image for part in parts])
    if not images.isfinite().all():
        bad = [i for i, image in zip(indices.tolist(), images, strict=True) if not image.isfinite().all()]
        raise UserError(f"The generated images {bad} hold values that are not finite; they cannot be scored.")
    return quantise(images)


def cameras_from(name: CamerasFrom, real: RealImages | None) -> Cameras | None:
    """What ``render_samples`` takes for these cameras."""
    if name == "dataset":
        if real is None:
            raise UserError("Cameras of the data set need real images: name them.")
        return CamerasOf(real)
    return uniform_cameras if name == "uniform" else None


def uniform_cameras(generator: Generator, latents: Any, camera: Camera, draws: Draws) -> tuple[Any, Camera]:
    """B latents, each from a random place on the way of the generator's turntable."""
    turn = draws.uniform("turn", (len(latents[0]), 1)).cpu()
    shown = [generator.orbit_at(take(latents, slice(i, i + 1)), place) for i, place in enumerate(turn)]
    seen, cameras = zip(*shown, strict=True)
    return joined(seen), joined(cameras)


class CamerasOf:
    """B latents, each from the camera of a random one of the images that scores compare with."""

    def __init__(self, real: RealImages) -> None:
        self.name, self.dataset = real.name, real.val_dataloader().dataset

    def __call__(self, generator: Generator, latents: Any, camera: Camera, draws: Draws) -> tuple[Any, Camera]:
        count = len(self.dataset)  # type: ignore[arg-type]  # torch lets some have no length
        places = (draws.uniform("dataset_camera", (len(latents[0]),)) * count).long().clamp(max=count - 1)
        found = [self.dataset[place].get("camera") for place in places.tolist()]
        if None in found:
            raise UserError(
                f"The images of '{printable(self.name, 80)}' have no cameras: take those of the prior, or uniform ones."
            )
        return latents, Camera(*map(torch.stack, zip(*found, strict=True))).to(generator.bounds)
