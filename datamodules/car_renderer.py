"""Procedural cars: seeded attributes, a signed distance function, and a sphere tracer.

Every car is a function of (seed, split, index), and every image of it a function of that and the resolution. Cars are
traced side by side for speed, but only with elementwise operations that IEEE 754 rounds exactly (sums, products,
quotients, square roots; no exp, no sin, no fused multiply-add), so that an image is the same bits in every batch and
with every number of threads.

World: right-handed, y up, the car's middle at the origin, its front towards +z, all of it inside the unit sphere.

B cars, R rays or points, H height, W width
"""

import colorsys
import math
import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.draws import SampleDraws, stream_seed
from zoo.render.cameras import Camera, SpherePoses

VERSION = 1  # of the images: part of every cache's name, so raise it with any change that alters a pixel
# The upper hemisphere down to five degrees above the ground, as in the CARLA images of GRAF and pi-GAN.
POSES = SpherePoses(
    yaw_spread=math.pi, pitch_mean=math.pi / 4 * 85 / 90, pitch_spread=math.pi / 4 * 85 / 90, radius=4.0, fov_deg=30
)

Colour = tuple[float, float, float]


class Shape(NamedTuple):
    """The proportions of a car: a float each; or of many, a tensor each, such as [R] for the cars that rays belong to.

    Lengths are world units. Heights are above the ground, which is at y = -height / 2; positions are along z.
    """

    half_length: float
    half_width: float
    height: float
    floor: float  # height of the underside
    deck: float  # height of bonnet and boot
    bonnet_fall: float  # per length, towards the front
    windscreen: float  # position of its foot
    windscreen_slope: float  # run per rise
    rear: float  # position of the rear window's foot
    rear_slope: float
    side_slope: float
    pillar: float  # position of the pillar between the side windows
    last_window: float  # position where the side windows end
    wheel_radius: float
    wheel_width: float
    axle_middle: float  # position half way between the axles
    axle_reach: float  # from there to each axle
    lamp_width: float
    lamp_height: float

    def take(self, index: Tensor) -> "Shape":
        return Shape(*(values.index_select(0, index) for values in self))


class Car(NamedTuple):
    """What a car looks like: its kind, its proportions and its colours."""

    kind: str
    shape: Shape
    paint: Colour
    roof: Colour
    rim: Colour
    glass: Colour


class Views(NamedTuple):
    """Rendered cars.

    image: [B, 3, H, W] in [0, 1], anti-aliased, on white.
    mask: the part of each pixel that the car covers, [B, 1, H, W].
    depth: distance along the unit ray through the pixel's centre [world units], NaN where it misses, [B, 1, H, W].
    normals: unit normals in the world where that ray hits, NaN elsewhere, [B, 3, H, W].
    """

    image: Tensor
    mask: Tensor
    depth: Tensor
    normals: Tensor


# ----------------------------------------------------------------------------------------------------- the attributes

# What sets the kinds apart, as (least, most): length; height; deck over height; foot of the windscreen over half length
# and its slope; foot of the rear window over half length and its slope.
KINDS = {
    "hatchback": ((1.38, 1.52), (0.62, 0.70), (0.57, 0.62), (0.42, 0.52), (0.75, 1.05), (-0.93, -0.86), (0.25, 0.60)),
    "sedan": ((1.64, 1.80), (0.55, 0.61), (0.58, 0.63), (0.32, 0.44), (1.00, 1.40), (-0.70, -0.58), (0.90, 1.40)),
    "estate": ((1.60, 1.78), (0.57, 0.64), (0.58, 0.63), (0.36, 0.46), (0.95, 1.25), (-0.95, -0.90), (0.25, 0.50)),
    "offroad": ((1.44, 1.64), (0.72, 0.82), (0.59, 0.64), (0.38, 0.48), (0.35, 0.60), (-0.95, -0.88), (0.05, 0.25)),
    "van": ((1.52, 1.70), (0.80, 0.90), (0.50, 0.55), (0.72, 0.84), (0.55, 0.85), (-0.97, -0.94), (0.03, 0.10)),
    "coupe": ((1.54, 1.72), (0.48, 0.54), (0.61, 0.66), (0.20, 0.34), (1.30, 1.70), (-0.80, -0.66), (1.50, 2.00)),
}


# Warm and cold colours in equal parts; hues drawn evenly would be blue to magenta for the most part, to the eye.
HUES = (0.0, 0.03, 0.07, 0.11, 0.14, 0.17, 0.28, 0.36, 0.46, 0.53, 0.58, 0.63, 0.75, 0.90)


def car_attributes(seed: int, split: str, index: int) -> Car:
    """The car number ``index`` of a split ("train" or "test")."""
    uniform = random.Random(stream_seed("car", seed, split, index)).uniform
    kind = list(KINDS)[int(uniform(0, len(KINDS)))]
    length, height, deck, windscreen, windscreen_slope, rear, rear_slope = (uniform(*r) for r in KINDS[kind])
    half, tall, panelled = length / 2, kind in ("offroad", "van"), uniform(0, 1) < 0.5
    front_axle, rear_axle = half * uniform(0.58, 0.64), -half * uniform(0.57, 0.65)
    shape = Shape(
        half_length=half,
        half_width=uniform(0.35, 0.39),
        height=height,
        floor=height * uniform(0.12, 0.15),
        deck=height * deck,
        bonnet_fall=uniform(0.05, 0.14),
        windscreen=half * windscreen,
        windscreen_slope=windscreen_slope,
        rear=half * rear,
        rear_slope=rear_slope,
        side_slope=uniform(0.06, 0.15) if tall else uniform(0.18, 0.30),
        pillar=half * uniform(-0.12, 0.02),
        last_window=0.0 if kind == "van" and panelled else -1.0,
        wheel_radius=height * (uniform(0.19, 0.22) if tall else uniform(0.23, 0.26)),
        wheel_width=uniform(0.11, 0.14),
        axle_middle=(front_axle + rear_axle) / 2,
        axle_reach=(front_axle - rear_axle) / 2,
        lamp_width=uniform(0.060, 0.090),
        lamp_height=uniform(0.035, 0.055),
    )
    hue = HUES[int(uniform(0, len(HUES)))] + uniform(-0.025, 0.025)
    saturation, value, grey = uniform(0.7, 1.0), uniform(0.65, 1.0), uniform(0, 1) < 0.1
    paint = colorsys.hsv_to_rgb(hue, 0.05, value - 0.35) if grey else colorsys.hsv_to_rgb(hue, saturation, value)
    second, rim, glass = uniform(0, 1), uniform(0.55, 0.9), uniform(0.06, 0.16)
    roof = (0.93, 0.93, 0.91) if second < 0.14 else (0.08, 0.08, 0.09) if second < 0.24 else paint
    return Car(kind, shape, paint, roof, (rim, rim, rim), (glass, glass * 1.2, glass * 1.5))


def car_camera(seed: int, split: str, index: int) -> Camera:
    """The camera of that car's image; one camera, axis 0 is 1."""
    return POSES(1, SampleDraws(stream_seed("car camera", seed, split), [index]))


# ---------------------------------------------------------------------------------------------------------- the shape


class Parts(NamedTuple):
    """Distances [R] of points from the parts of a car, negative inside, and from the planes that cut out its cabin."""

    body: Tensor
    arch: Tensor  # what the wheel arches leave of the body
    cabin: Tensor
    wheels: Tensor
    cabin_side: Tensor
    cabin_ends: Tensor
    cabin_roof: Tensor


def _rounded(a: Tensor, b: Tensor, c: Tensor, radius: float) -> Tensor:
    """Intersection of three half spaces, its edges rounded."""
    a, b, c = a + radius, b + radius, c + radius
    inside = torch.maximum(torch.maximum(a, b), c).clamp_(max=0)
    a, b, c = a.clamp_(min=0), b.clamp_(min=0), c.clamp_(min=0)
    return (a.mul_(a) + b.mul_(b)).add_(c.mul_(c)).sqrt_().add_(inside).sub_(radius)


def _plane(run: Tensor, rise: Tensor, slope: Tensor) -> Tensor:
    """Distance from a plane that leans inwards by ``slope`` per rise."""
    return (run + rise * slope).div_((slope * slope).add_(1).sqrt_())


def _wheel_frame(shape: Shape, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Position across, and distance from, the axle: one wheel, reflected half way between the axles."""
    across, up = (z - shape.axle_middle).abs_() - shape.axle_reach, y - shape.wheel_radius
    return across, up, (across * across + up * up).sqrt_()


def car_parts(shape: Shape, x: Tensor, y: Tensor, z: Tensor) -> Parts:
    """Distances of points from the parts of a car; x, y, z [R] are world coordinates."""
    x, y = x.abs(), y + shape.height / 2
    xx, zz, above_deck = x * x, z * z, y - shape.deck

    # The body narrows a little towards its ends and its shoulders; its ends bulge a little.
    above_sill = y - 0.6 * shape.deck
    flank = (x + 0.07 * zz - shape.half_width).add_(above_sill.clamp(min=0).mul_(0.25)).mul_(0.97)
    ends = (z.abs() - shape.half_length).add_(0.25 * xx).add_(above_sill.abs_().mul_(0.1))
    top = torch.maximum(above_deck, shape.floor - y)
    top = torch.maximum(top, above_deck + (z - shape.windscreen) * shape.bonnet_fall)
    body = _rounded(flank, ends, top, 0.055)

    cabin_side = _plane(x + 0.05 * zz - 0.93 * shape.half_width, above_deck, shape.side_slope)
    cabin_ends = torch.maximum(
        _plane(z - shape.windscreen + 0.3 * xx, above_deck, shape.windscreen_slope),
        _plane(shape.rear - z + 0.15 * xx, above_deck, shape.rear_slope),
    )
    cabin_roof = (y - shape.height).add_(0.06 * zz).add_(0.1 * xx)
    cabin = _rounded(cabin_side, cabin_ends, torch.maximum(cabin_roof, -0.06 - above_deck), 0.05)

    _, _, radial = _wheel_frame(shape, y, z)
    from_inner = x - shape.half_width + shape.wheel_width  # the wheels' outer walls are flush with the body
    tread = radial - shape.wheel_radius + 0.02
    wall = (from_inner - shape.wheel_width / 2).abs_() - shape.wheel_width / 2 + 0.02
    inside = torch.maximum(tread, wall).clamp_(max=0)
    tread, wall = tread.clamp_(min=0), wall.clamp_(min=0)
    wheels = (tread.mul_(tread) + wall.mul_(wall)).sqrt_().add_(inside).sub_(0.02)
    # Flat-topped where the wheel is almost as high as the bonnet.
    arch = torch.minimum(torch.minimum(1.16 * shape.wheel_radius - radial, from_inner + 0.02), -0.06 - above_deck)
    return Parts(body, arch, cabin, wheels, cabin_side, cabin_ends, cabin_roof)


def car_distance(shape: Shape, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Distance of points from a car [R], negative inside; nowhere more than a few per cent too long."""
    parts = car_parts(shape, x, y, z)
    body = torch.maximum(parts.body, parts.arch)
    fillet = (0.03 - (body - parts.cabin).abs_()).clamp_(min=0)  # between body and cabin
    shell = torch.minimum(body, parts.cabin) - fillet.mul_(fillet).mul_(0.25 / 0.03)
    across, up = x.abs() - shape.half_width - 0.015, y + (shape.height / 2 - shape.deck - 0.045)
    along = z - shape.windscreen + 0.13
    mirror = across.mul_(across) + up.mul_(up).mul_(1.5) + along.mul_(along).mul_(2)
    mirror = (mirror.sqrt_() - 0.042).mul_(0.7)
    return torch.minimum(torch.minimum(shell, mirror), parts.wheels)


def car_normals(shape: Shape, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Unit normals [3, R] at points on the surface, by differences along the corners of a tetrahedron."""
    normals = torch.zeros(3, len(x))
    for corner in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)):
        distance = car_distance(shape, *(p + 2e-3 * side for p, side in zip((x, y, z), corner, strict=True)))
        for axis in range(3):
            normals[axis] += corner[axis] * distance
    return normals / _norm(normals).clamp_(min=1e-12)


def _norm(vectors: Tensor) -> Tensor:
    """Lengths of vectors [3, ...] -> [...]; in a fixed order, unlike a library's sum."""
    squares = vectors * vectors
    return (squares[0] + squares[1] + squares[2]).sqrt_()


# --------------------------------------------------------------------------------------------------------- the colours

BLACK, RUBBER, TRIM, HUB = (0.03, 0.03, 0.03), (0.07, 0.07, 0.075), (0.13, 0.13, 0.14), (0.22, 0.22, 0.23)
HEAD_LAMP, TAIL_LAMP, PLATE = (1.0, 0.97, 0.80), (0.85, 0.04, 0.05), (0.95, 0.95, 0.90)
LIGHT = (0.36, 0.80, 0.48)  # unit vector towards the light


def car_colours(shape: Shape, palette: Tensor, x: Tensor, y: Tensor, z: Tensor, normals: Tensor) -> Tensor:
    """Shaded colours [3, R] in [0, 1] of points on the surface; they do not depend on the camera.

    palette [4, 3, R]: paint, roof, rim and glass of the car that each point belongs to.
    """
    parts = car_parts(shape, x, y, z)
    x, y = x.abs(), y + shape.height / 2
    paint, roof, rim, glass = palette
    colours = paint.clone()

    def fill(where: Tensor, colour: Colour | Tensor) -> None:
        colour = torch.as_tensor(colour).reshape(3, -1)
        torch.where(where, colour, colours, out=colours)

    def oval(across: Tensor, up: Tensor) -> Tensor:
        across, up = across * across, up * up
        return across * across + up * up < 1

    cabin = (parts.cabin < torch.maximum(parts.body, parts.arch)) & (y > shape.deck + 0.005)
    fill(cabin, roof)
    # Windows: the cabin's walls within a frame. A wall is where its cutting plane is nearest.
    on_side = parts.cabin_side > parts.cabin_ends
    beside = torch.where(on_side, parts.cabin_ends, parts.cabin_side)
    upright = torch.maximum(parts.cabin_side, parts.cabin_ends) > parts.cabin_roof
    framed = cabin & upright & (beside < -0.035) & (parts.cabin_roof < -0.04) & (y > shape.deck + 0.03)
    pillar = on_side & (((z - shape.pillar).abs() < 0.018) | (z < shape.last_window))
    fill(framed & ~pillar, glass)

    belt = shape.floor + 0.62 * (shape.deck - shape.floor)  # the height of the lamps
    low = ~cabin & (y < shape.floor + 0.05)
    front, back = ~cabin & (z > shape.half_length - 0.17), ~cabin & (z < 0.14 - shape.half_length)
    fill(low, TRIM)
    fill(front & (x < 0.5 * shape.half_width) & ((y - belt + 0.05).abs() < 0.055), TRIM)  # the grille
    fill(front & (x < 0.11) & ((y - belt + 0.075).abs() < 0.022), PLATE)
    fill(back & (x < 0.11) & ((y - belt + 0.02).abs() < 0.03), PLATE)
    up = (y - belt - 0.005) / shape.lamp_height
    fill(front & oval((x - 0.74 * shape.half_width) / shape.lamp_width, up), HEAD_LAMP)
    fill(back & oval((x - 0.80 * shape.half_width) / 0.065, 0.9 * up), TAIL_LAMP)

    wheel = parts.wheels < torch.minimum(parts.cabin, torch.maximum(parts.body, parts.arch))
    dark = ~wheel & ~cabin & ((parts.arch > parts.body) | (normals[1] < -0.75))
    fill(dark, BLACK)
    fill(wheel, RUBBER)
    across, up, radius = _wheel_frame(shape, y, z)
    across, up, radius = across / shape.wheel_radius, up / shape.wheel_radius, radius / shape.wheel_radius
    disc = wheel & (normals[0].abs() > 0.7) & (x > shape.half_width - 0.04) & (radius < 0.66)
    bars = (across.abs() < 0.16) | (up.abs() < 0.16)
    fill(disc, rim)
    fill(disc & ~bars & (radius > 0.2) & (radius < 0.55), HUB)

    towards = (normals[0] * LIGHT[0] + normals[1] * LIGHT[1] + normals[2] * LIGHT[2]).clamp_(min=0)
    shade = 0.56 + 0.14 * normals[1] + 0.42 * towards
    shine = 0.35 * towards.square_().square_().square_().square_().masked_fill_(wheel | dark | low, 0)
    return (colours * shade + shine).clamp_(0, 1)


# ---------------------------------------------------------------------------------------------------------- the tracer


def pixel_rays(camera: Camera, resolution: int, samples: int = 1) -> Tensor:
    """Unit directions [B, 3, R] of samples x samples rays a pixel, row by row over the finer grid."""
    size = resolution * samples
    grid = (torch.arange(size) + 0.5) / size
    rays = []
    for pose, intrinsics in zip(camera.pose.tolist(), camera.intrinsics.tolist(), strict=True):
        across = ((grid - intrinsics[0][2]) / intrinsics[0][0]).expand(size, size)
        up = ((intrinsics[1][2] - grid) / intrinsics[1][1])[:, None].expand(size, size)
        directions = torch.stack([row[0] * across + row[1] * up - row[2] for row in pose[:3]])
        rays.append((directions / _norm(directions)).flatten(1))
    return torch.stack(rays)


def trace(shapes: Shape, origins: Tensor, directions: Tensor, steps: int = 64) -> Tensor:
    """Distances [B * R] along rays to the cars, NaN where they miss.

    Args:
        shapes: of the cars, [B] each.
        origins: of each car's rays, [B, 3].
        directions: unit vectors [B, 3, R].
    """
    # Rays live between entry into and exit from a box around the car (mirrors stick out by 0.06).
    box = torch.stack([shapes.half_width + 0.06, shapes.height / 2 + 0.002, shapes.half_length + 0.002], dim=1)
    first = (-box - origins)[:, :, None] / directions
    second = (box - origins)[:, :, None] / directions
    near, far = torch.minimum(first, second).amax(dim=1), torch.maximum(first, second).amin(dim=1)
    result = torch.full((near.numel(),), math.nan)

    alive = (near < far).flatten().nonzero()[:, 0]
    shape, rays = take_rays(alive, shapes, origins, directions)
    t, far = near.flatten()[alive], far.flatten()[alive]
    for step in range(1, steps + 1):
        distance = car_distance(shape, *(rays[axis] + t * rays[axis + 3] for axis in range(3)))
        t = t + 0.95 * distance
        if step % 4 == 0:  # keep the rays that are not done
            hit = distance < 4e-4
            result[alive[hit]] = t[hit]
            index = (~hit & (t < far)).nonzero()[:, 0]
            if len(index) == 0:
                break
            alive, t, far, rays, shape = alive[index], t[index], far[index], rays[:, index], shape.take(index)
    return result


def take_rays(index: Tensor, shapes: Shape, origins: Tensor, directions: Tensor) -> tuple[Shape, Tensor]:
    """The rays with these numbers: their cars' proportions, and their origins and directions [6, R]."""
    owner = index // directions.shape[2]
    flat = directions.transpose(0, 1).flatten(1)
    return shapes.take(owner), torch.cat([origins.T[:, owner], flat[:, index]])


def render_cars(cars: Sequence[Car], camera: Camera, resolution: int, samples: int = 3) -> Views:
    """Images of cars and their ground truth.

    Args:
        camera: one camera for each car.
        resolution: pixels each way.
        samples: rays a pixel each way, odd, so that one of them is the pixel's centre.
    """
    if samples % 2 == 0:
        raise ValueError(f"samples is {samples}, but must be odd, so that one ray goes through the pixel's centre.")
    directions = pixel_rays(camera, resolution, samples)
    shapes = Shape(*torch.tensor([car.shape for car in cars]).T.contiguous())
    palettes = torch.tensor([car[2:] for car in cars]).permute(1, 2, 0)  # [4, 3, B]

    t = trace(shapes, camera.origins, directions)
    hit = (~t.isnan()).nonzero()[:, 0]
    shape, rays = take_rays(hit, shapes, camera.origins, directions)
    points = [rays[axis] + t[hit] * rays[axis + 3] for axis in range(3)]
    normals = car_normals(shape, *points)
    palette = palettes[:, :, hit // directions.shape[2]]

    def grid(values: Tensor, background: float) -> Tensor:
        """[C, hits] -> [B, C, H, samples, W, samples]"""
        full = torch.full((len(values), len(t)), background)
        full[:, hit] = values
        return full.reshape(len(values), len(cars), resolution, samples, resolution, samples).transpose(0, 1)

    def mean(values: Tensor) -> Tensor:
        """Mean over a pixel's rays, in a fixed order."""
        return sum(values[:, :, :, i, :, j] for i in range(samples) for j in range(samples)) / samples**2

    centre = samples // 2
    return Views(
        image=mean(grid(car_colours(shape, palette, *points, normals), 1.0)),
        mask=mean(grid(torch.ones(1, len(hit)), 0.0)),
        depth=grid(t[hit][None], math.nan)[:, :, :, centre, :, centre],
        normals=grid(normals, math.nan)[:, :, :, centre, :, centre],
    )
