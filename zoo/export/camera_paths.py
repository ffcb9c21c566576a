"""Ways of a camera round an object, for films: data, made for any generator from its poses.

A path says for each frame where on the turntable's way the camera is, how high within the heights that the prior knows,
and how much it magnifies. So it never leaves what a generator was trained on: with frontal poses it stays in front.

T frames
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.generator import Generator, draws_for, take
from zoo.render import Camera, orbited


class Path(NamedTuple):
    """Where a camera is in each of T frames; numbers stand for all frames.

    turn: place on the turntable's way: 0 is its beginning, 1 its end.
    rise: from -1, the lowest camera of the prior, over 0, the turntable's height, to 1, the highest one.
    zoom: how much larger than usual objects are.
    """

    turn: Tensor | float = 0.5
    rise: Tensor | float = 0.0
    zoom: Tensor | float = 1.0


# By the turntable's places [T] and the phase [T], from 0 up to but without a full 2 pi.
PATHS: dict[str, Callable[[Tensor, Tensor], Path]] = {
    "turntable": lambda way, phase: Path(way),  # once round, or from side to side where the prior does not go round
    # an ellipse round the middle, half as far as the turntable to the sides, and halfway to the highest and lowest
    "wobble": lambda way, phase: Path(0.5 + 0.25 * phase.sin(), 0.5 * phase.cos()),
    "rise": lambda way, phase: Path(rise=-phase.cos()),  # from the lowest camera to the highest and back, in the middle
    "spiral": lambda way, phase: Path(way, -phase.cos()),  # once round, and meanwhile up and down as in rise
    "zoom": lambda way, phase: Path(zoom=2 ** (0.5 - 0.5 * phase.cos())),  # to twice the size and back, in the middle
    "still": lambda way, phase: Path(),  # in the middle, for films in which something else moves
}


def follow(generator: Generator, latent: Any, name: str, frames: int) -> tuple[Any, Camera]:
    """Latents and cameras of so many frames along a path, by its name; latent: one for all frames, or for each."""
    _, ends = generator.orbit_at(take(latent, slice(1)), torch.tensor([0.0, 1.0]))
    phase = torch.arange(frames) / frames * 2 * math.pi
    way = phase / (2 * math.pi) if torch.allclose(*ends.pose, atol=1e-4) else torch.linspace(0, 1, frames)
    path = Path(*(torch.as_tensor(x).expand(frames) for x in PATHS[name](way, phase)))
    each = []
    for frame in range(frames):
        one = slice(frame, frame + 1)
        each.append(generator.orbit_at(take(latent, one if len(latent[0]) > 1 else slice(1)), path.turn[one]))
    latents, cameras = ([*map(torch.cat, zip(*parts, strict=True))] for parts in zip(*each, strict=True))
    return type(latent)(*latents), zoomed(raised(generator, Camera(*cameras), path.rise), path.zoom)


def raised(generator: Generator, camera: Camera, rise: Tensor) -> Camera:
    """T cameras moved up or down round the origin, still looking at what they did; rise [T] as in ``Path``.

    The prior's heights are those of all its cameras but the outermost 2% at either end.
    """
    _, known = generator.sample(256, draws_for(generator, 0, range(256)))
    low, high = elevation(known.origins).quantile(known.origins.new_tensor([0.02, 0.98]))
    now, rise = elevation(camera.origins), rise.to(camera.pose)
    angle = torch.where(rise > 0, rise * (high - now).clamp(min=0), rise * (now - low).clamp(min=0))
    return orbited(camera, torch.zeros_like(angle)[:, None], angle[:, None])


def elevation(places: Tensor) -> Tensor:
    """Angles above the horizon of the origin [rad] of places [T, 3]."""
    return torch.atan2(places[:, 1], places[:, [0, 2]].norm(dim=-1))


def zoomed(camera: Camera, zoom: Tensor) -> Camera:
    """T cameras whose focal lengths are so many times as long [T]."""
    intrinsics = camera.intrinsics.clone()
    intrinsics[:, [0, 1], [0, 1]] *= zoom.to(intrinsics)[:, None]
    return camera._replace(intrinsics=intrinsics)
