"""What was released with GIRAFFE beside the model: edits of scenes, other features, the 2D GAN it is compared with.

An edit shows B scenes in ``frames`` pictures each, scene after scene: ``(generator, latent, frames, draws)`` to latents
and cameras, both B frames long. It says where boxes are by shares of the ranges of ``BoxPrior``, 0 for the least and 1
for the greatest. The published videos draw what an edit gives with truncation 0.65.

B batch, N objects, T frames
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, leaky_relu, linear
from torch.nn.functional import interpolate as resize

from zoo.draws import Draws
from zoo.generator import BaseGenerator
from zoo.giraffe.model import Generator
from zoo.giraffe.scenes import Boxes, Latent
from zoo.render import Camera, FixedPoses, Rays, Rendered, closed, pixel_corners, through, to_map, transmission_weights

Path = tuple[Latent, Camera]

# Edits


def repeated(latent: Latent, frames: int) -> Latent:
    """Each scene so many times."""
    return Latent(*(x.repeat_interleave(frames, 0) for x in latent))


def boxed(latent: Latent, boxes: Boxes) -> Latent:
    """Scenes [B T] with the boxes of T frames, given without batch or for one scene: [T or 1, N, ...]."""
    batch, count = latent.scale.shape[:2]

    def everywhere(x: Tensor) -> Tensor:
        return x.expand(-1, count, *x.shape[2:]).repeat(batch // len(x), *[1] * (x.dim() - 1))

    return latent._replace(**{name: everywhere(x) for name, x in boxes._asdict().items()})


def even(latent: Latent, first: float, last: float, frames: int) -> Tensor:
    """Shares [T] from the first to the last, as precise as the latents."""
    return torch.linspace(first, last, frames, dtype=latent.scale.dtype, device=latent.scale.device)


def chosen(generator: Generator, polar: Tensor, batch: int) -> Camera:
    """Cameras at these shares [T] of the range of elevations, for each of so many scenes."""
    middle = torch.full_like(polar, 0.5)
    camera = generator.poses.at(middle, polar, middle).to(generator.device)
    return Camera(*(x.repeat(batch, 1, 1) for x in camera))


def middle(generator: Generator, latent: Latent, frames: int) -> Path:
    """Every object as small as they are, in the middle of its ranges, seen by the middle camera."""
    of = latent.scale
    boxes = generator.boxes.at(of.new_zeros(1, 1, 3), of.new_full((1, 1, 3), 0.5), of.new_full((1, 1), 0.5))
    camera = chosen(generator, of.new_full((frames,), 0.5), len(latent.shape))
    return boxed(repeated(latent, frames), boxes), camera


def rotate(generator: Generator, latent: Latent, frames: int, draws: Draws) -> Path:
    """Objects turn: a full circle, ends included, or eight tenths of a smaller range."""
    full = generator.boxes.rotation == (0.0, 1.0)
    turn = even(latent, 0.0, 1.0, frames) if full else even(latent, 0.1, 0.9, frames)
    boxes = generator.boxes.at(turn.new_zeros(frames, 1, 3), turn.new_full((frames, 1, 3), 0.5), turn[:, None])
    scenes, camera = middle(generator, latent, frames)
    return boxed(scenes, boxes), camera


def move(
    generator: Generator,
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
    way = even(latent, 0, 2 * math.pi if loop else 1, frames)
    count = latent.scale.shape[1]
    place = way.new_tensor(other).repeat(frames, count, 1)
    for axis, x in enumerate(path(way, count > 1)):
        place[:, -1, axis] = x
    boxes = generator.boxes.at(way.new_zeros(frames, count, 3), place, way.new_full((frames, count), turn))
    scenes, camera = middle(generator, latent, frames)
    moved = boxed(scenes, boxes)
    if count <= 2:
        return moved, camera
    still = repeated(latent, frames)
    kept = {name: torch.cat([getattr(still, name)[:, :-1], getattr(moved, name)[:, -1:]], 1) for name in Boxes._fields}
    return moved._replace(**kept), camera


def elevate(generator: Generator, latent: Latent, frames: int, draws: Draws) -> Path:
    """The camera sinks from above, through eight tenths of its range."""
    scenes, _ = middle(generator, latent, frames)
    return scenes, chosen(generator, even(latent, 0.1, 0.9, frames), len(latent.shape))


def add(
    generator: Generator,
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
    batch, total = len(latent.shape), len(places)
    codes = [draws.normal(name, (batch, total, latent.shape.shape[-1])) for name in ("added_shape", "added_appearance")]
    place = latent.place.new_tensor([[(*p, 0.0) for p in places]])
    boxes = generator.boxes.at(place.new_full((1, total, 3), scale), place, place.new_full((1, total), 0.5))
    stage = torch.arange(frames) * (total // at_once) // frames + 1
    there = torch.arange(total) < at_once * stage[:, None]
    there = torch.cat([there, torch.ones(frames, 1, dtype=torch.bool)], dim=1)
    new = [x.to(latent.shape).expand(batch, *x.shape[1:]).repeat_interleave(frames, 0) for x in (*codes, *boxes)]
    named = dict(zip(("shape", "appearance", "scale", "place", "rotation"), new, strict=True))
    scenes = repeated(latent, frames)._replace(**named, present=there.to(latent.shape.device).repeat(batch, 1))
    return scenes, chosen(generator, place.new_zeros(frames), batch)


def between_codes(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """From codes a to b [..., C] along the arc between their directions, at shares [..., 1] of it (Shoemake 1985)."""
    cosine = torch.cosine_similarity(a, b, dim=-1)[..., None].clamp(-1, 1)
    angle = cosine.arccos()
    straight = angle.sin().abs() < 1e-6  # parallel codes have no arc
    angle = angle.where(~straight, 1.0)
    arc = ((1 - share) * angle).sin() / angle.sin() * a + (share * angle).sin() / angle.sin() * b
    return torch.where(straight, (1 - share) * a + share * b, arc)


def wander(generator: Generator, latent: Latent, frames: int, draws: Draws, *, code: str, stations: int = 6) -> Path:
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


def swap(generator: Generator, latent: Latent, frames: int, draws: Draws, *, codes: tuple[str, ...]) -> Path:
    """The scene as it is, then with the codes of other scenes in place of its own; boxes stay where they are."""
    camera = chosen(generator, latent.scale.new_full((frames,), 0.5), len(latent.shape))
    new = {}
    for name in codes:
        own = getattr(latent, name)[:, None]
        others = draws.normal(f"other_{name}", (len(own), frames - 1, *own.shape[2:])).to(own)
        new[name] = torch.cat([own, others], dim=1).flatten(0, 1)
    return repeated(latent, frames)._replace(**new), camera


def sideways(way: Tensor, accompanied: bool) -> list:
    return [1.0 if accompanied else 0.5, way, 0.0]


def towards(way: Tensor, accompanied: bool) -> list:
    return [way, 0.2 if accompanied else 0.5, 0.0]


def round_about(way: Tensor, accompanied: bool) -> list:
    return [0.5 + 0.5 * way.cos(), 0.5 + 0.5 * way.sin(), 0.0]


CARS = [(x, y) for x in (-0.7, 1.5) for y in (-0.8, 0.5, 1.8)]
PAIRS = [(x, y + more) for y in (0.0, 0.8) for x in (0.0, 0.5, 1.0) for more in (0.0, 0.4)]
SIX = [(x, y) for y in (0.0, 0.5, 1.0) for x in (0.2, 0.8)]

EDITS: dict[str, Callable[[Generator, Latent, int, Draws], Path]] = {
    "rotate": rotate,
    "sideways": partial(move, path=sideways, other=(0.5, 0.5, 0.0), turn=0.5),
    "depth": partial(move, path=towards, other=(0.4, 0.8, 0.0), turn=0.5),
    "circle": partial(move, path=round_about, other=(0.5, 0.5, 0.0), turn=0.0, loop=True),
    "elevation": elevate,
    "add-cars": partial(add, places=CARS, scale=-1.0),
    "add-clevr6": partial(add, places=SIX),
    "add-clevr10": partial(add, places=PAIRS, at_once=2),
    "interpolate-shape": partial(wander, code="shape"),
    "interpolate-appearance": partial(wander, code="appearance"),
    "interpolate-background": partial(wander, code="background_appearance"),
    "interpolate-background-shape": partial(wander, code="background_shape"),
    "swap-shape": partial(swap, codes=("shape",)),
    "swap-appearance": partial(swap, codes=("appearance",)),
    "swap-background": partial(swap, codes=("background_shape", "background_appearance")),
}

# What else a field and a scene can do


class GaussianFeatures(nn.Module):
    """sin and cos of x / downscale times pi along fixed random directions (Tancik 2020).

    Args:
        features: how many directions, a multiple of 3.
        downscale: what x is divided by.
        after: numbers of the random stream that other features took before: the published field draws its directions
            for points first and those for views after them, from one stream.
        std: of the directions' entries.
    """

    def __init__(self, features: int = 30, downscale: float = 2.0, after: int = 0, std: float = 4.0) -> None:
        import numpy as np

        super().__init__()
        self.downscale, self.channels = downscale, 2 * features
        numbers = np.random.RandomState(42).randn(after + 3 * features)[after:]
        directions = torch.from_numpy(std * numbers).float().reshape(features, 3)  # rounded as published
        directions = directions.to(torch.get_default_dtype())
        self.register_buffer("directions", directions, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., 3] to [..., channels]: all sines, then all cosines."""
        angles = linear(x / self.downscale * math.pi, self.directions)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def object_masks(
    generator: Generator,
    styles: Latent,
    camera: Camera,
    *,
    resolution: int | None = None,
    farthest: Tensor | None = None,
) -> Tensor:
    """Opacity of each object as if it were alone, [B, N, h, w]; what lies at the last sample is not counted."""
    rays = generator.rays(camera, generator.side(resolution), farthest)
    samples, scene = generator.volume.depths(rays, None), generator.scene
    placed = scene.place(samples, styles)
    densities = scene.densities(scene.query(placed, styles)[0], placed, styles)
    lengths = closed(samples.t, samples.directions)
    alone = [to_map(transmission_weights(d, lengths).sum(-1, keepdim=True)) for d in densities[:-1]]
    return torch.cat(alone, dim=1)


# The 2D baseline


class Block(nn.Module):
    """Residual block with a tenth of the residue (Mescheder 2018)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        hidden = min(channels_in, channels_out)
        self.first = nn.Conv2d(channels_in, hidden, 3, padding=1)
        self.second = nn.Conv2d(hidden, channels_out, 3, padding=1)
        same = channels_in == channels_out
        self.skip = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + 0.1 * self.second(leaky_relu(self.first(leaky_relu(x, 0.2)), 0.2))


class ResidualDiscriminator(nn.Module):
    """Residual blocks with average pooling (Mescheder 2018).

    Args:
        resolution: side of the images [pixels], a power of two.
        channels: of the first convolution; doubled at every size.
        most: most channels.
    """

    def __init__(self, resolution: int = 64, channels: int = 16, most: int = 512) -> None:
        super().__init__()
        count = round(math.log2(resolution / 4))
        widths = [min(channels * 2**i, most) for i in range(count + 1)]
        self.enter = nn.Conv2d(3, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList([Block(widths[0], widths[0])])
        self.blocks.extend(Block(widths[i], widths[i + 1]) for i in range(count))
        self.score = nn.Linear(16 * widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Scores [B, 1] of images [B, 3, H, H] in [-1, 1]."""
        x = self.blocks[0](self.enter(images))
        for block in self.blocks[1:]:
            x = block(avg_pool2d(x, 3, 2, padding=1))
        return self.score(leaky_relu(x.flatten(1), 0.2))


class PlainLatent(NamedTuple):
    """z [B, latent_dim], standard normal."""

    z: Tensor


class PlainGenerator(BaseGenerator):
    """A residual 2D network (Mescheder 2018), the paper's baseline. It knows no cameras and no depth.

    Args:
        latent_dim: size of z.
        resolution: side of the images [pixels], a power of two.
        channels: of the last block; doubled at every smaller size.
        most: most channels.
    """

    def __init__(self, latent_dim: int = 256, resolution: int = 64, channels: int = 16, most: int = 512) -> None:
        super().__init__(FixedPoses(), resolution, [[-1.0] * 3, [1.0] * 3])
        self.latent_dim = latent_dim
        count = round(math.log2(resolution / 4))
        widths = [min(channels * 2**i, most) for i in reversed(range(count + 1))]
        self.enter = nn.Linear(latent_dim, 16 * widths[0])
        self.blocks = nn.ModuleList(Block(widths[i], widths[min(i + 1, count)]) for i in range(count + 1))
        self.colour = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def latents(self, n: int, draws: Draws) -> PlainLatent:
        """n latents."""
        return PlainLatent(draws.normal("z", (n, self.latent_dim)).to(self.device))

    def map(self, latent: PlainLatent, *, truncation: float = 1.0) -> PlainLatent:
        """The latent itself, made smaller by truncation below 1."""
        return PlainLatent(truncation * latent.z)

    def rays(self, camera: Camera, resolution: int) -> Rays:
        """Rays of the camera that has no effect."""
        return through(camera, pixel_corners(resolution, self.device))

    def render(
        self, styles: PlainLatent, camera: Camera, *, resolution: int | None = None, draws: Draws | None = None
    ) -> Rendered:
        """Images of B latents; nothing is opaque, nothing has a depth.

        Raises:
            ValueError: another resolution than the network's own.
        """
        if resolution not in (None, self.resolution):
            raise ValueError(f"This generator makes images of side {self.resolution} only, not {resolution}.")
        x = self.enter(styles.z).unflatten(1, (-1, 4, 4))
        for block in self.blocks[:-1]:
            x = resize(block(x), scale_factor=2, mode="nearest")
        image = self.colour(leaky_relu(self.blocks[-1](x), 0.2)).tanh()
        nothing = torch.zeros_like(image[:, :1])
        return Rendered(image, image, torch.full_like(nothing, torch.nan), nothing)

    def density(self, points: Tensor, styles: PlainLatent) -> Tensor:
        """Zeros [B, N, 1]."""
        return torch.zeros_like(points[..., :1])

    def together(self, n: int, draws: Draws) -> Tensor:
        """n random images."""
        return self.render(self.latents(n, draws), self.cameras(n, draws)).image

    def turntable(self, latent: PlainLatent, n: int) -> tuple[PlainLatent, Camera]:
        """Each of B latents n times: a 2D network has one side only."""
        return PlainLatent(latent.z.repeat_interleave(n, 0)), self.cameras(len(latent.z) * n, None)

    def around(self, latent: PlainLatent, turn: Tensor) -> tuple[PlainLatent, Camera]:
        """The same."""
        return self.turntable(latent, len(turn))
