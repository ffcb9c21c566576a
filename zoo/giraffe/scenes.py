"""Where GIRAFFE's objects and cameras are: the distributions that its scenes are drawn from (section 3.1, supplement).

The paper's world has z up and its camera on the positive x axis: boxes, ranges and fields count in those axes, (towards
the camera, to the right, up). Cameras and points that the outside sees count in the zoo's axes, where these are
(z, x, y): ``to_paper`` and ``to_zoo`` exchange them.

B batch, N objects
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.draws import Draws
from zoo.render import Camera, look_at
from zoo.utils import ranges
from zoo.utils.constants import constant
from zoo.utils.errors import UserError
from zoo.utils.host_numbers import rounded


class Latent(NamedTuple):
    """A scene: what its objects and background look like, and where the objects are."""

    shape_code: Tensor  # [B, N, latent_dim], standard normal
    appearance_code: Tensor  # [B, N, latent_dim], standard normal
    background_shape_code: Tensor  # [B, background_latent_dim], standard normal
    background_appearance_code: Tensor  # [B, background_latent_dim], standard normal
    scale: Tensor  # half the sides of the boxes [world units], [B, N, 3]
    place: Tensor  # middles of the boxes, [B, N, 3]
    rotation: Tensor  # world to box, [B, N, 3, 3]
    background_rotation: Tensor  # world to background, [B, 3, 3]
    present: Tensor  # which fields there are at all, bool [B, F]


def to_paper(points: Tensor) -> Tensor:
    """(right, up, towards the camera), the zoo's axes, to (towards the camera, right, up), the paper's; [..., 3]."""
    return points.roll(1, -1)


def to_zoo(points: Tensor) -> Tensor:
    """The way back."""
    return points.roll(-1, -1)


def vertical_rotation(turns: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] about the paper's vertical axis by these shares of a full turn [...].

    Rounded once, to the precision of the shares.
    """
    angle = 2 * math.pi * turns.double()
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).unflatten(-1, (3, 3)).to(turns.dtype)


def rotate_points(points: Tensor, rotation: Tensor) -> Tensor:
    """Points [..., 3] by matrices [..., 3, 3]."""
    return (rotation * points[..., None, :]).sum(-1)


def between(low: Any, high: Any, share: Tensor) -> Tensor:
    """low at share 0, high at share 1, straight on beyond; low and high are numbers or one number an axis."""
    low, high = constant(low, share), constant(high, share)
    return low + share * (high - low)


# Boxes


class Boxes(NamedTuple):
    """Poses of N objects, as in ``Latent``."""

    scale: Tensor
    place: Tensor
    rotation: Tensor


@dataclass(frozen=True)
class BoxPrior:
    """The distribution of the objects' boxes (section 3.1, equation 5, and supplement).

    Args:
        count: N.
        scale_min, scale_max: half the sides [world units].
        place_min, place_max: middles [world units].
        rotation: first and last turn about the vertical axis [full turns].
        one_scale: one random number scales all three sides of a box.
        level: height of all middles, for objects that stand on a plane; None: as high as ``place`` says.
        margin: objects are placed again until they are free of each other by this much along an axis (turns are
            ignored) [world units]; None: they may touch.
        coordinates: npz file with middles [M, count, 3] under ``coordinates``, from which whole scenes are drawn.
        coordinates_scale: world units of one unit in that file.
    """

    count: int = 1
    scale_min: tuple[float, float, float] = (0.5, 0.5, 0.5)
    scale_max: tuple[float, float, float] = (0.5, 0.5, 0.5)
    place_min: tuple[float, float, float] = (-0.75, -0.75, 0.0)
    place_max: tuple[float, float, float] = (0.75, 0.75, 0.0)
    rotation: tuple[float, float] = (0.0, 1.0)
    one_scale: bool = True
    level: float | None = None
    margin: float | None = None
    coordinates: Path | None = None
    coordinates_scale: float = 0.2378777237835723

    def __post_init__(self) -> None:
        ranges.at_least(1, self, count=self.count)
        ranges.above(
            0, self, scale_min=self.scale_min, scale_max=self.scale_max, coordinates_scale=self.coordinates_scale
        )
        ranges.finite(self, place_min=self.place_min, place_max=self.place_max, rotation=self.rotation)
        ranges.finite(self, **ranges.given(level=self.level))
        ranges.at_least(0, self, **ranges.given(margin=self.margin))

    def __call__(self, n: int, draws: Draws) -> Boxes:
        """Boxes of n scenes."""
        share = draws.uniform("box_scale", (n, self.count, 1 if self.one_scale else 3))
        scale = between(self.scale_min, self.scale_max, share)
        place = self.places(n, scale, draws)
        return Boxes(
            scale, place, vertical_rotation(between(*self.rotation, draws.uniform("box_rotation", (n, self.count))))
        )

    def places(self, n: int, scale: Tensor, draws: Draws) -> Tensor:
        """Middles of the boxes of n scenes, [n, N, 3]."""
        if self.coordinates is not None:
            known = self.known_places().to(scale)
            row = (draws.uniform("box_scene", (n,)) * len(known)).long()
            return known[row] * self.coordinates_scale
        place = between(self.place_min, self.place_max, draws.uniform("box_place", (n, self.count, 3)))
        tries = 0
        while self.margin is not None and not (free := are_free(scale, place, self.margin)).all():
            tries += 1
            if tries == 1000:
                raise UserError(
                    f"After 1000 tries {self.count} boxes still overlap: make scale_max or margin smaller, or the "
                    "range from place_min to place_max larger."
                )
            share = draws.uniform(f"box_place_{tries}", place.shape)
            place = place.where(free[:, None, None], between(self.place_min, self.place_max, share))
        return self.on_plane(place)

    def on_plane(self, place: Tensor) -> Tensor:
        """The middles at the height of the plane, if there is one."""
        if self.level is None:
            return place
        return torch.cat([place[..., :2], torch.full_like(place[..., 2:], self.level)], dim=-1)

    def known_places(self) -> Tensor:
        """The scenes in the file of coordinates, [M, N, 3].

        Raises:
            UserError: there is no such file, or its arrays are of another shape.
        """
        from zoo.utils.containers import read_array

        path = Path(self.coordinates)
        if not path.is_file():
            raise UserError(
                f"There is no file '{path}' with the objects' coordinates: put it there, or set the boxes' coordinates "
                "to null to draw them between place_min and place_max."
            )
        known = read_array(path, "coordinates")
        if known is None or known.ndim != 3 or known.shape[1:] != (self.count, 3) or not len(known):
            raise UserError(f"'{path}' needs an array 'coordinates' of shape (scenes, {self.count}, 3).")
        return torch.from_numpy(known)

    def at(self, scale: Tensor, place: Tensor, turn: Tensor) -> Boxes:
        """Boxes at chosen shares of the ranges: 0 for the least, 1 for the greatest, straight on beyond.

        Args:
            scale, place: [..., N, 3]; with ``one_scale`` the first of a box's three shares of scale counts.
            turn: [..., N].
        """
        share = scale[..., :1] if self.one_scale else scale
        where = self.on_plane(between(self.place_min, self.place_max, place))
        return Boxes(
            between(self.scale_min, self.scale_max, share), where, vertical_rotation(between(*self.rotation, turn))
        )

    def bounds(self) -> list[list[float]]:
        """World box [2, 3] around all objects, in the zoo's axes."""
        depth, width, height = self.scale_max
        if self.rotation[0] != self.rotation[1]:
            depth = width = math.hypot(depth, width)
        low, high = list(self.place_min), list(self.place_max)
        if self.level is not None:
            low[2] = high[2] = self.level
        reach = [1.1 * half for half in (depth, width, height)]
        corners = [[a - r for a, r in zip(low, reach, strict=True)], [a + r for a, r in zip(high, reach, strict=True)]]
        return [[y, z, x] for x, y, z in corners]


def are_free(scale: Tensor, place: Tensor, margin: float) -> Tensor:
    """Whether all boxes of a scene [B, N, 3] are apart along some axis by at least the margin; bool [B]."""
    gap = (place[:, :, None] - place[:, None]).abs() - (scale[:, :, None] + scale[:, None]).abs()
    apart = (gap >= margin).any(-1)
    same = torch.eye(place.shape[1], dtype=torch.bool, device=place.device)
    return (apart | same).flatten(1).all(1)


@dataclass(frozen=True)
class Counts:
    """How many of a scene's boxes hold an object: ``least``, least + 1, ... with these probabilities.

    Args:
        shares: probabilities; what is missing to 1 belongs to the last.
        least: smallest number of objects.
    """

    shares: tuple[float, ...]
    least: int = 2

    def __post_init__(self) -> None:
        ranges.filled(self, shares=self.shares)
        ranges.between(0, 1, self, shares=self.shares)
        ranges.at_least(0, self, least=self.least)

    def __call__(self, n: int, boxes: int, draws: Draws) -> Tensor:
        """Which boxes hold an object, bool [n, boxes]."""
        greatest = self.least + len(self.shares) - 1
        if boxes < greatest:
            raise UserError(f"Up to {greatest} objects need at least {greatest} boxes, not {boxes}.")
        u = draws.uniform("object_count", (n, 1))
        thresholds = constant(self.shares, u).cumsum(0)[:-1]
        count = self.least + (u >= thresholds).sum(1, keepdim=True)
        order = draws.uniform("object_choice", (n, boxes)).argsort(1).argsort(1)
        return order < count


# Cameras


@dataclass(frozen=True)
class ScenePoses:
    """Cameras uniform on a patch of a sphere around the origin, looking at it.

    In training as published, cameras that are drawn together share the length of their axes: those that look more from
    above, and those nearer than others, see a little less of the scene, by the largest sine of the angle from the
    vertical in the batch. Here the pose is rigid and the intrinsics do that. Outside training a camera is zoomed as it
    would be in a batch without end. Cameras that are chosen, not drawn, are not zoomed.

    Args:
        azimuth: first and last azimuth about the vertical axis, 0 in front [full turns].
        polar: the angle from the vertical is arccos(1 - 2 v) with v between these; 0.5 looks horizontally.
        radius: smallest and largest distance from the origin [world units].
        fov_deg: field of view of the whole image, both ways [degrees].
        zoom: False: every camera has the field of view ``fov_deg``.
    """

    azimuth: tuple[float, float] = (0.0, 0.0)
    polar: tuple[float, float] = (0.25, 0.25)
    radius: tuple[float, float] = (2.732, 2.732)
    fov_deg: float = 49.13
    zoom: bool = True

    def __post_init__(self) -> None:
        ranges.finite(self, azimuth=self.azimuth)
        ranges.between(0, 1, self, polar=self.polar)
        ranges.above(0, self, radius=self.radius)
        ranges.inside(0, 180, self, fov_deg=self.fov_deg)

    @property
    def farthest(self) -> float | None:
        """The largest distance from the origin, where it matters."""
        return self.radius[1] if self.zoom and self.radius[0] != self.radius[1] else None

    def __call__(self, n: int, draws: Draws | None) -> Camera:
        if draws is None:
            return self.at(*(torch.full((n,), 0.5) for _ in range(3)))
        level = min(max(0.5, min(self.polar)), max(self.polar))  # where cameras are farthest from the vertical axis
        widest = 2 * math.sqrt(level * (1 - level)) * self.radius[1]
        origins = self.draw(n, draws)
        return self.zoomed(origins, self.radius[1], widest).to(origins.dtype)

    def together(self, n: int, draws: Draws) -> Camera:
        """n cameras drawn as the published training draws them, in double precision."""
        return self.zoomed(self.draw(n, draws))

    def draw(self, n: int, draws: Draws) -> Tensor:
        return self.origins(*(draws.uniform(name, (n,)) for name in ("azimuth", "polar", "radius")))

    def origins(self, azimuth: Tensor, polar: Tensor, radius: Tensor) -> Tensor:
        """Positions [B, 3] at shares [B] of the ranges: 0 for the first value, 1 for the last; as precise as these."""
        theta = 2 * math.pi * between(*self.azimuth, azimuth.double())
        phi = (1 - 2 * between(*self.polar, polar.double()).clamp(1e-5, 1 - 1e-5)).arccos()
        unit = torch.stack([phi.sin() * theta.sin(), phi.cos(), phi.sin() * theta.cos()], dim=-1)
        return between(*self.radius, radius)[:, None] * unit.to(radius.dtype)

    def zoomed(self, origins: Tensor, farthest: float | None = None, widest: float | None = None) -> Camera:
        """Cameras that see less of the scene the nearer they are to the origin and to the vertical axis.

        Args:
            origins: positions, [B, 3].
            farthest, widest: distances from the origin and from the axis to compare with; None: the batch's largest.
        """
        if not self.zoom:
            return self.camera(origins, 1.0, 1.0)
        distance, aside = origins.double().norm(dim=-1), origins[:, ::2].double().norm(dim=-1)
        # The lengths of the published camera's axes, of which the intrinsics only know ratios.
        reach = distance / (distance.max() if farthest is None else farthest)
        across = aside / (aside.max() if widest is None else widest)
        upwards = reach * across
        upwards = upwards / (upwards.max() if farthest is None else 1)
        return self.camera(origins, reach / across, reach / upwards)

    def camera(self, origins: Tensor, zoom_x: Tensor | float, zoom_y: Tensor | float) -> Camera:
        origins = origins.double()
        intrinsics = torch.eye(3, dtype=torch.float64, device=origins.device).repeat(len(origins), 1, 1)
        intrinsics[:, :2, 2] = 0.5
        intrinsics[:, 0, 0], intrinsics[:, 1, 1] = self.focal * zoom_x / 2, self.focal * zoom_y / 2
        return Camera(look_at(origins), intrinsics)

    @property
    def focal(self) -> float:
        """Focal length of a camera without zoom, for an image from -1 to 1, rounded to single precision."""
        return rounded(1 / math.tan(math.radians(self.fov_deg) / 2), torch.float32)

    def at(self, azimuth: Tensor, polar: Tensor, radius: Tensor) -> Camera:
        """Cameras at chosen shares [B] of the ranges."""
        origins = self.origins(azimuth, polar, radius)
        return self.camera(origins, 1.0, 1.0).to(origins.dtype)

    def turntable(self, n: int) -> Camera:
        """From the first azimuth to the last one."""
        return self.orbit_at(torch.linspace(0, 1, n))

    def orbit_at(self, turn: Tensor) -> Camera:
        """At these shares [T] of the range of azimuths."""
        return self.at(turn, torch.full_like(turn, 0.5), torch.full_like(turn, 0.5))
