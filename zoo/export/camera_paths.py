"""Camera paths round an object, for videos, made for any generator from its pose prior.

A path gives for each frame the position along the turntable, the elevation within that of the prior, and the zoom.
So it never leaves the poses that a generator was trained on: with frontal poses it stays in front.

T frames
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.generator import Generator, draws_for, joined, take
from zoo.render import Camera, orbit_camera


class CameraPath(NamedTuple):
    """The camera of each of T frames; numbers stand for all frames.

    turn: position along the turntable, from 0, its start, to 1, its end.
    rise: elevation, from -1, the lowest of the prior, over 0, the turntable's, to 1, the highest.
    zoom: magnification of the object.
    """

    turn: Tensor | float = 0.5
    rise: Tensor | float = 0.0
    zoom: Tensor | float = 1.0


# By the position along the turntable [T] and the phase [T], from 0 up to but without a full 2 pi.
PATHS: dict[str, Callable[[Tensor, Tensor], CameraPath]] = {
    # once round, or from side to side where the prior does not go round
    "turntable": lambda turn, phase: CameraPath(turn),
    # an ellipse round the middle, half as far as the turntable to the sides, and halfway to the highest and lowest
    "wobble": lambda turn, phase: CameraPath(0.5 + 0.25 * phase.sin(), 0.5 * phase.cos()),
    # from the lowest camera to the highest and back, in the middle
    "rise": lambda turn, phase: CameraPath(rise=-phase.cos()),
    # once round, and meanwhile up and down as in rise
    "spiral": lambda turn, phase: CameraPath(turn, -phase.cos()),
    # to twice the size and back, in the middle
    "zoom": lambda turn, phase: CameraPath(zoom=2 ** (0.5 - 0.5 * phase.cos())),
    # in the middle, for videos in which something else moves
    "still": lambda turn, phase: CameraPath(),
}


def frames_along_path(generator: Generator, latent: Any, name: str, frames: int) -> tuple[Any, Camera]:
    """Latents (or styles) and cameras of the frames of a path in ``PATHS``; latent: one for all frames, or for each."""
    _, ends = generator.orbit_at(take(latent, slice(1)), torch.tensor([0.0, 1.0]))
    phase = torch.arange(frames) / frames * 2 * math.pi
    turn = phase / (2 * math.pi) if torch.allclose(*ends.pose, atol=1e-4) else torch.linspace(0, 1, frames)
    path = CameraPath(*(torch.as_tensor(x).expand(frames) for x in PATHS[name](turn, phase)))
    if len(latent[0]) == 1:
        latents, cameras = generator.orbit_at(latent, path.turn)
    else:
        each = (generator.orbit_at(take(latent, slice(i, i + 1)), path.turn[i : i + 1]) for i in range(frames))
        latents, cameras = map(joined, zip(*each, strict=True))
    return latents, zoom_cameras(raise_cameras(generator, cameras, path.rise), path.zoom)


def raise_cameras(generator: Generator, camera: Camera, rise: Tensor) -> Camera:
    """T cameras moved up or down round the pivot, seeing it in the same place; rise [T] as in ``CameraPath``.

    The prior's heights are those of all its cameras but the outermost 2% at either end.
    """
    _, known = generator.sample(256, draws_for(generator, 0, range(256)))
    pivot = generator.pivot
    low, high = elevation(known.origins - pivot).quantile(known.origins.new_tensor([0.02, 0.98]))
    now, rise = elevation(camera.origins - pivot), rise.to(camera.pose)
    angle = torch.where(rise > 0, rise * (high - now).clamp(min=0), rise * (now - low).clamp(min=0))
    return orbit_camera(camera, torch.zeros_like(angle)[:, None], angle[:, None], pivot)


def elevation(places: Tensor) -> Tensor:
    """Angles above the horizon of the origin [rad] of places [T, 3]."""
    return torch.atan2(places[:, 1], places[:, [0, 2]].norm(dim=-1))


def zoom_cameras(camera: Camera, zoom: Tensor) -> Camera:
    """T cameras with their focal lengths multiplied by a zoom [T]."""
    intrinsics = camera.intrinsics.clone()
    intrinsics[:, [0, 1], [0, 1]] *= zoom.to(intrinsics)[:, None]
    return camera._replace(intrinsics=intrinsics)
