"""Edits of GIRAFFE's scenes (section 4.1), those of the released program's videos: what ``--edit`` names.

An edit shows B scenes in ``frames`` images each, scene after scene: ``(generator, latent, frames, draws)`` to latents
and cameras, both B frames long. Boxes are placed by shares of the ranges of ``BoxPrior``, 0 for the least and 1
for the greatest. The published videos draw what an edit gives with truncation 0.65.

B batch, N objects, T frames
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from zoo.draws import Draws
from zoo.giraffe.scenes import Boxes, BoxPrior, Latent, ScenePoses
from zoo.render import Camera

Path = tuple[Latent, Camera]


class Stage(Protocol):
    """What an edit needs of a generator."""

    boxes: BoxPrior
    poses: ScenePoses


def repeat_scenes(latent: Latent, frames: int) -> Latent:
    """Each scene so many times."""
    return Latent(*(x.repeat_interleave(frames, 0) for x in latent))


def with_boxes(latent: Latent, boxes: Boxes) -> Latent:
    """Scenes [B T] with the boxes of T frames, given without batch or for one scene: [T or 1, N, ...]."""
    batch, count = latent.scale.shape[:2]

    def everywhere(x: Tensor) -> Tensor:
        return x.expand(-1, count, *x.shape[2:]).repeat(batch // len(x), *[1] * (x.dim() - 1))

    return latent._replace(**{name: everywhere(x) for name, x in boxes._asdict().items()})


def linspace_like(latent: Latent, first: float, last: float, frames: int) -> Tensor:
    """Shares [T] from the first to the last, as precise as the latents."""
    return torch.linspace(first, last, frames, dtype=latent.scale.dtype, device=latent.scale.device)


def cameras_at(generator: Stage, polar: Tensor, batch: int) -> Camera:
    """Cameras at these shares [T] of the range of elevations, for each of so many scenes."""
    middle = torch.full_like(polar, 0.5)
    camera = generator.poses.at(middle, polar, middle)
    return Camera(*(x.repeat(batch, 1, 1) for x in camera))


def middle(generator: Stage, latent: Latent, frames: int) -> Path:
    """Every object as small as they are, in the middle of its ranges, seen by the middle camera."""
    of = latent.scale
    boxes = generator.boxes.at(of.new_zeros(1, 1, 3), of.new_full((1, 1, 3), 0.5), of.new_full((1, 1), 0.5))
    camera = cameras_at(generator, of.new_full((frames,), 0.5), len(latent.shape_code))
    return with_boxes(repeat_scenes(latent, frames), boxes), camera


def rotate(generator: Stage, latent: Latent, frames: int, draws: Draws) -> Path:
    """Objects turn: a full circle, ends included, or eight tenths of a smaller range."""
    full = generator.boxes.rotation == (0.0, 1.0)
    turn = linspace_like(latent, 0.0, 1.0, frames) if full else linspace_like(latent, 0.1, 0.9, frames)
    boxes = generator.boxes.at(turn.new_zeros(frames, 1, 3), turn.new_full((frames, 1, 3), 0.5), turn[:, None])
    scenes, camera = middle(generator, latent, frames)
    return with_boxes(scenes, boxes), camera


def move(
    generator: Stage,
    latent: Latent,
    frames: int,
    draws: Draws,
    *,
    path: Callable[[Tensor, bool], list],
    other: tuple[float, float, float],
    turn: float,
    loop: bool = False,
) -> Path:
    """The last object moves; one other stands at a fixed place, more than one where they are.

    Args:
        path: places of the moving object, three shares or tensors [T] of shares, from shares [T] of the way and whether
            there is another object.
        other: place of the other object.
        turn: of both.
        loop: the way ends where it began.
    """
    way = linspace_like(latent, 0, 2 * math.pi if loop else 1, frames)
    count = latent.scale.shape[1]
    place = way.new_tensor(other).repeat(frames, count, 1)
    for axis, x in enumerate(path(way, count > 1)):
        place[:, -1, axis] = x
    boxes = generator.boxes.at(way.new_zeros(frames, count, 3), place, way.new_full((frames, count), turn))
    scenes, camera = middle(generator, latent, frames)
    moved = with_boxes(scenes, boxes)
    if count <= 2:
        return moved, camera
    still = repeat_scenes(latent, frames)
    boxes = {name: torch.cat([getattr(still, name)[:, :-1], getattr(moved, name)[:, -1:]], 1) for name in Boxes._fields}
    return moved._replace(**boxes), camera


def elevate(generator: Stage, latent: Latent, frames: int, draws: Draws) -> Path:
    """The camera sinks from above, through eight tenths of its range."""
    scenes, _ = middle(generator, latent, frames)
    return scenes, cameras_at(generator, linspace_like(latent, 0.1, 0.9, frames), len(latent.shape_code))


def add(
    generator: Stage,
    latent: Latent,
    frames: int,
    draws: Draws,
    *,
    places: list[tuple[float, float]],
    at_once: int = 1,
    scale: float = 0.0,
) -> Path:
    """New objects appear one after the other, seen from the top of the camera's range.

    Args:
        places: of the objects, shares of the ranges towards the camera and to the right.
        at_once: so many appear together.
        scale: share of the ranges of their sizes.
    """
    batch, total = len(latent.shape_code), len(places)
    size = (batch, total, latent.shape_code.shape[-1])
    codes = [draws.normal(name, size) for name in ("added_shape", "added_appearance")]
    place = latent.place.new_tensor([[(*p, 0.0) for p in places]])
    boxes = generator.boxes.at(place.new_full((1, total, 3), scale), place, place.new_full((1, total), 0.5))
    stage = torch.arange(frames) * (total // at_once) // frames + 1
    there = torch.arange(total) < at_once * stage[:, None]
    there = torch.cat([there, torch.ones(frames, 1, dtype=torch.bool)], dim=1)
    new = [x.to(latent.shape_code).expand(batch, *x.shape[1:]).repeat_interleave(frames, 0) for x in (*codes, *boxes)]
    codes_and_boxes = dict(zip(("shape_code", "appearance_code", "scale", "place", "rotation"), new, strict=True))
    present = there.to(latent.shape_code.device).repeat(batch, 1)
    scenes = repeat_scenes(latent, frames)._replace(**codes_and_boxes, present=present)
    return scenes, cameras_at(generator, place.new_zeros(frames), batch)


def between_codes(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """From codes a to b [..., C] along the arc between their directions, at shares [..., 1] of it (Shoemake 1985)."""
    cosine = torch.cosine_similarity(a, b, dim=-1)[..., None].clamp(-1, 1)
    angle = cosine.arccos()
    straight = angle.sin().abs() < 1e-6  # parallel codes have no arc
    angle = angle.where(~straight, 1.0)
    arc = ((1 - share) * angle).sin() / angle.sin() * a + (share * angle).sin() / angle.sin() * b
    return torch.where(straight, (1 - share) * a + share * b, arc)


def wander(generator: Stage, latent: Latent, frames: int, draws: Draws, *, code: str, stations: int = 6) -> Path:
    """One code goes from one random value to the next, and back to the first; everything else stays.

    Args:
        code: name in ``Latent``.
        stations: random values on the way.
    """
    own = getattr(latent, code)
    stops = draws.normal("stations", (len(own), stations, *own.shape[1:])).to(own)
    per_leg = -(-frames // stations)
    frame = torch.arange(frames)
    leg, share = frame // per_leg, (frame % per_leg).to(own) / max(1, per_leg - 1)
    share = share.view(-1, *[1] * (own.dim() - 1))
    codes = between_codes(stops[:, leg], stops[:, (leg + 1) % stations], share)
    scenes, camera = middle(generator, latent, frames)
    return scenes._replace(**{code: codes.flatten(0, 1)}), camera


def swap(generator: Stage, latent: Latent, frames: int, draws: Draws, *, codes: tuple[str, ...]) -> Path:
    """The scene as it is, then with the codes of other scenes in place of its own; boxes stay where they are."""
    camera = cameras_at(generator, latent.scale.new_full((frames,), 0.5), len(latent.shape_code))
    new = {}
    for name in codes:
        own = getattr(latent, name)[:, None]
        drawn = f"other_{name.removesuffix('_code')}"
        others = draws.normal(drawn, (len(own), frames - 1, *own.shape[2:])).to(own)
        new[name] = torch.cat([own, others], dim=1).flatten(0, 1)
    return repeat_scenes(latent, frames)._replace(**new), camera


CARS = [(x, y) for x in (-0.7, 1.5) for y in (-0.8, 0.5, 1.8)]
PAIRS = [(x, y + more) for y in (0.0, 0.8) for x in (0.0, 0.5, 1.0) for more in (0.0, 0.4)]
SIX = [(x, y) for y in (0.0, 0.5, 1.0) for x in (0.2, 0.8)]

EDITS: dict[str, Callable[[Stage, Latent, int, Draws], Path]] = {
    "rotate": rotate,
    "sideways": partial(move, path=lambda way, two: [1.0 if two else 0.5, way, 0.0], other=(0.5, 0.5, 0.0), turn=0.5),
    "depth": partial(move, path=lambda way, two: [way, 0.2 if two else 0.5, 0.0], other=(0.4, 0.8, 0.0), turn=0.5),
    "circle": partial(
        move,
        path=lambda way, _: [0.5 + 0.5 * way.cos(), 0.5 + 0.5 * way.sin(), 0.0],
        other=(0.5, 0.5, 0.0),
        turn=0.0,
        loop=True,
    ),
    "elevation": elevate,
    "add-cars": partial(add, places=CARS, scale=-1.0),
    "add-clevr6": partial(add, places=SIX),
    "add-clevr10": partial(add, places=PAIRS, at_once=2),
    "interpolate-shape": partial(wander, code="shape_code"),
    "interpolate-appearance": partial(wander, code="appearance_code"),
    "interpolate-background": partial(wander, code="background_appearance_code"),
    "interpolate-background-shape": partial(wander, code="background_shape_code"),
    "swap-shape": partial(swap, codes=("shape_code",)),
    "swap-appearance": partial(swap, codes=("appearance_code",)),
    "swap-background": partial(swap, codes=("background_shape_code", "background_appearance_code")),
}
