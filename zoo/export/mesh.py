"""Meshes: the zero set of a signed distance, or where a density is at a level, coloured from rendered images.

The surface is found by marching cubes (Lorensen and Cline 1987; Lewiner 2003, from scikit-image) in the object's bounds
and written by trimesh, in world units, y up. Only the generator's contract is used. Its signed distance or density, on
a grid, becomes a solid: a grid of values above 0 inside the object and below outside, whatever they mean.

X Y Z points of a grid, N vertices, F faces, R rays, V views
"""

import math
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, normalize
from torch.utils._pytree import tree_map
from tqdm import tqdm

from zoo.export.camera_paths import frames_along_path
from zoo.export.views import in_batches
from zoo.generator import (
    Generator,
    HasDensity,
    HasRays,
    HasSurface,
    WithoutEmptySpace,
    draws_for,
    evaluating,
    quantise,
    require,
    take,
)
from zoo.render import Camera, Rendered
from zoo.render.projection import pixel_coordinates, views_of
from zoo.utils.errors import UserError
from zoo.utils.files import replacing
from zoo.utils.targets import file_target

if TYPE_CHECKING:
    from trimesh import Trimesh

SUFFIXES = (".ply", ".glb")
POINTS = 1 << 15  # queried at once


class Grid(NamedTuple):
    """Values [X, Y, Z] at evenly spaced points of a box, those on its faces included; low, high: its corners [3]."""

    values: Tensor
    low: Tensor
    high: Tensor

    @property
    def cell(self) -> Tensor:
        """Lengths of a cell along the axes [world units], [3]."""
        return (self.high - self.low) / (torch.tensor(self.values.shape) - 1)

    def at(self, points: Tensor) -> Tensor:
        """Values [...] at points [..., 3], linear in between; 0 outside."""
        place = (points - self.low) / (self.high - self.low) * 2 - 1
        found = grid_sample(self.values[None, None], place.flip(-1).view(1, 1, 1, -1, 3), align_corners=True)
        return found.view(place.shape[:-1]) * (place.abs() <= 1).all(-1)


def mesh_of(
    generator: Generator,
    index: int,
    *,
    seed: int = 0,
    truncation: float = 1.0,
    **options: Any,
) -> "Trimesh":
    """The surface of a sample's object, as its turntable shows it.

    Args:
        index: which sample.
        seed: of the set of samples.
        truncation: as in ``generator.map``.
        options: of ``mesh_of_styles``, which says what is returned and raised.
    """
    with evaluating(generator):
        latent, _ = generator.sample(1, draws_for(generator, seed, [index]))
        styles = generator.map(latent, truncation=truncation)
    return mesh_of_styles(generator, styles, **options)


def mesh_of_styles(
    generator: Generator,
    styles: Any,
    *,
    cells: int = 128,
    level: float | None = None,
    views: int = 24,
    resolution: int | None = None,
    exact: bool = False,
) -> "Trimesh":
    """The surface of an object, as its turntable shows it, with normals and colours at its vertices.

    Args:
        styles: of one object.
        cells: of the grid along the longest side of the bounds.
        level: density [per world length] of the surface; by default there is none where the generator has a surface,
            and the zero set of its signed distance is taken, and ``fitting_level`` elsewhere.
        views: images that colours are taken from.
        resolution: side of these images [pixels]; by default the generator's own.
        exact: also query fields in empty space, see ``zoo.generator.WithoutEmptySpace``.

    Returns:
        the mesh; its metadata have the level, None for the zero set of a signed distance.

    Raises:
        UserError: the generator has no rays, or neither surface nor density; the surface is nowhere in the bounds, or
            no level fits.
    """
    from trimesh import Trimesh

    by_distance = level is None and isinstance(generator, HasSurface)
    require(generator, "A mesh", HasSurface if by_distance else HasDensity, HasRays)
    with evaluating(generator):
        turned, camera = frames_along_path(generator, styles, "spiral", views)
        styles = take(turned, slice(1))
    pixels = views * generator.image_side(resolution) ** 2 + cells**3 // 8  # a pixel takes several samples, a cell one
    with evaluating(generator), WithoutEmptySpace(generator, turned, pixels, exact):
        if by_distance:
            solid = solid_within(query_grid(lambda points: generator.signed_distance(points, styles), generator, cells))
        else:
            density = query_grid(lambda points: generator.density(points, styles), generator, cells)
            level = fitting_level(generator, density, camera) if level is None else level
            solid = solid_above(density, level)
        mesh = Trimesh(*surface(solid), process=False, metadata={"level": level})
        if by_distance:
            mesh.vertex_normals = distance_normals(generator, styles, mesh)
        images = in_batches(generator, turned, camera, resolution, exact=True)
        mesh.visual.vertex_colors = vertex_colours(generator, images, camera, solid, mesh)
    return mesh


def query_grid(field: Callable[[Tensor], Tensor], generator: Generator, cells: int) -> Grid:
    """Values of a field, points [1, N, 3] to [1, N, 1], in the generator's bounds, queried slab by slab.

    Args:
        cells: along the longest side.
    """
    low, high = generator.bounds
    counts = ((high - low) / (high - low).max() * cells).round().long().clamp(min=1) + 1
    x, y, z = (torch.linspace(float(a), float(b), int(n)) for a, b, n in zip(low, high, counts, strict=True))
    values = torch.empty(len(x), len(y), len(z))
    face = torch.stack(torch.meshgrid(torch.zeros(1), y, z, indexing="ij"), dim=-1).view(-1, 3)
    for slab, place in zip(values, tqdm(x.tolist(), unit="slab", disable=None), strict=True):
        points = face.clone()
        points[:, 0] = place
        found = (field(part[None].to(low))[0, :, 0] for part in points.split(POINTS))
        slab.copy_(torch.cat([*found]).view_as(slab))
    return Grid(values, *generator.bounds.cpu().float())


def solid_within(distance: Grid) -> Grid:
    """The solid of which these are the signed distances, negative inside.

    Raises:
        UserError: all of the box is inside, or nothing of it.
    """
    least, most = float(distance.values.min()), float(distance.values.max())
    if not least < 0 < most:
        raise UserError(
            f"This object has no surface: all of its bounds is {'outside' if least >= 0 else 'inside'}, with signed "
            f"distances from {least:.3g} to {most:.3g}. Take another of --seeds, or train for longer."
        )
    return distance._replace(values=-distance.values)


def solid_above(density: Grid, level: float) -> Grid:
    """The solid of all that is denser than the level.

    Marching cubes is linear between two points, so it is given the opacity, which is 1/2 at the level: a density of
    thousands beside an empty place would push the surface against that place.

    Raises:
        UserError: the whole box is denser, or nothing in it.
    """
    least, most = float(density.values.min()), float(density.values.max())
    if not least <= level < most:
        what, way = ("All", "higher") if level < least else ("Nothing", "lower")
        raise UserError(
            f"{what} of this field is denser than the level {level:.3g}, so there is no surface: its densities are "
            f"from {least:.3g} to {most:.3g}; take a {way} --level."
        )
    return density._replace(values=density.values.div(-level).exp2_().neg_().add_(0.5))


def fitting_level(generator: Generator, grid: Grid, camera: Camera, side: int = 64) -> float:
    """The level whose surface has the silhouettes that are rendered.

    A field has no surface of its own: learned ones fade out over a good part of the object. What is seen is where
    half of the light is absorbed. So a ray belongs to the rendered silhouette if its opacity within the bounds is above
    1/2, and to the surface's if it passes a place denser than the level; the level is the one for which these agree
    best (intersection over union), or the geometric mean of all that are at most 0.01 worse: a sharp field leaves a
    wide choice. As light enters a soft field before half of it is absorbed, the surface lies a little before the
    rendered depth. A higher level lies deeper, and loses thin parts.

    Args:
        camera: views [V] to compare silhouettes in; 8 of them are taken.
        side: of the silhouettes [pixels].

    Raises:
        UserError: no ray is opaque.
    """
    rays = generator.rays(camera.take(slice(None, None, -(-len(camera.pose) // 8))), side)
    origins, directions = (x.flatten(0, 1).cpu().float() for x in rays[:2])
    directions = normalize(directions, dim=-1)
    step, reach = float(grid.cell.min()) / 2, float((grid.high - grid.low).norm()) / 2
    line = torch.arange(-reach, reach, step)
    sums, densest = [], []
    for origin, direction in zip(*(x.split(16 * POINTS // len(line)) for x in (origins, directions)), strict=True):
        middle = (((grid.low + grid.high) / 2 - origin) * direction).sum(-1, keepdim=True)
        density = grid.at(origin[:, None] + (middle + line)[..., None] * direction[:, None])
        sums.append(density.sum(-1))
        densest.append(density.amax(-1))
    solid, densest = torch.cat(sums) * step > math.log(2), torch.cat(densest)
    if not solid.any():
        raise UserError(
            "No ray through this field is opaque, so no level can be chosen automatically: give one, such as "
            f"--level {float(grid.values.max()) / 2:.2g}, half its greatest density."
        )
    levels = float(densest.max()) * torch.logspace(-3, 0, 64)[:-1]
    hit = densest > levels[:, None]
    agreement = (hit & solid).sum(1) / (hit | solid).sum(1)
    good = levels[agreement >= agreement.max() - 0.01]
    return float((good[0] * good[-1]).sqrt())


def surface(solid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [N, 3] and faces [F, 3] around a solid; closed by the faces of the box."""
    from skimage.measure import marching_cubes

    padded = torch.full([n + 2 for n in solid.values.shape], -1.0)  # all around is nothing
    padded[1:-1, 1:-1, 1:-1] = solid.values
    cell, low, high = solid.cell.numpy(), solid.low.numpy(), solid.high.numpy()
    vertices, faces, _, _ = marching_cubes(padded.numpy(), 0, spacing=tuple(cell), gradient_direction="ascent")
    return np.clip(vertices - cell + low, low, high).astype(np.float32), faces


def distance_normals(generator: Generator, styles: Any, mesh: "Trimesh") -> np.ndarray:
    """Normals [N, 3] of vertices: the direction in which the signed distance grows.

    Those on the bounds, where the box cuts the object open, have the mean normal of their faces: the distance has
    nothing to say of a cut.
    """
    low, high = generator.bounds
    places, normals = torch.from_numpy(mesh.vertices.astype(np.float32)), []
    for part in places.split(POINTS):
        with torch.enable_grad():
            points = part[None].to(low).requires_grad_()
            (gradient,) = torch.autograd.grad(generator.signed_distance(points, styles).sum(), points)
        normals.append(normalize(gradient[0], dim=-1).cpu().float())
    cut = ((places <= low.cpu()) | (places >= high.cpu())).any(-1, keepdim=True).numpy()
    return np.where(cut, mesh.vertex_normals, torch.cat(normals).numpy())


def vertex_colours(
    generator: Generator, images: Iterable[Rendered], camera: Camera, solid: Grid, mesh: "Trimesh"
) -> np.ndarray:
    """Colours uint8 [N, 3] of vertices: means of the images that see them.

    An image sees a vertex that faces it and has nothing of the solid before it. It weighs as the square of
    the cosine between normal and line of sight and as the fourth power of its opacity there: what is seen from the side
    or is half transparent is mixed with what is behind. A vertex that hardly any image sees, less than 0.01 of
    the one seen best, such as those below a car, gets the colour of the nearest one that is seen.

    Args:
        images: in batches.
        camera: of all images, [V].

    Raises:
        UserError: no vertex is seen in any image.
    """
    from scipy.spatial import cKDTree

    places = torch.from_numpy(mesh.vertices.astype(np.float32))
    normals = torch.from_numpy(mesh.vertex_normals.astype(np.float32))
    total, weights, at = torch.zeros(len(places), 3), torch.zeros(len(places), 1), 0
    for rendered in images:
        some = camera.take(slice(at, at := at + len(rendered.image)))
        shown = views_of(generator.rays, rendered, some, generator.bounds)
        shown = tree_map(lambda x: x.cpu().float() if isinstance(x, Tensor) else x, shown)
        for view, image in enumerate(shown.rendered.image):
            towards = normalize(shown.camera.origins[view] - places, dim=-1)
            facing = (normals * towards).sum(-1)
            uv = (2 * pixel_coordinates(shown, view, places) + 1) / shown.depth.shape[-1] - 1
            seen = ((facing > 0.1) & (uv.abs() <= 1).all(-1)).nonzero()[:, 0]
            seen = seen[is_visible(solid, places[seen], towards[seen])]
            colours, opacity = (
                grid_sample(plane[None], uv[None, None, seen], padding_mode="border", align_corners=False)[0, :, 0].mT
                for plane in (image, shown.rendered.opacity[view])
            )
            weight = (facing[seen, None] * opacity.clamp(min=1e-3).square()).square()
            total[seen] += weight * colours
            weights[seen] += weight
    seen = weights[:, 0] > 0.01 * weights.max()
    if not seen.any():
        raise UserError("No image shows any of this surface; take another --level or another of --seeds.")
    colours = quantise(total[seen] / weights[seen]).numpy()
    _, nearest = cKDTree(places[seen]).query(places)
    return colours[nearest]


def is_visible(solid: Grid, places: Tensor, towards: Tensor) -> Tensor:
    """Whether from places [N, 3] of the surface on there is nothing of the solid in these directions."""
    cell = float(solid.cell.max())
    faces = torch.where(towards > 0, solid.high, solid.low)
    exits = (faces - places) / torch.where(towards == 0, -1e-9, towards)
    free = []
    for start, direction, end in zip(*(x.split(4096) for x in (places, towards, exits.amin(-1))), strict=True):
        line = torch.arange(2, max(3, float(end.max()) / cell + 1)) * cell  # not the vertex's own cell
        ahead = solid.at(start[:, None] + line[:, None] * direction[:, None])
        free.append((ahead <= 0).all(-1))
    return torch.cat(free) if free else torch.zeros(0, dtype=torch.bool)


def save_mesh(path: Path, mesh: "Trimesh") -> None:
    """Write a file that ends in .ply or .glb."""
    if path.suffix.lower() == ".ply":
        with replacing(path) as part:
            mesh.export(part, file_type="ply")
        return
    linear = mesh.copy(include_cache=True)  # its normals too; and the colours as glTF wants those of vertices
    share = mesh.visual.vertex_colors[:, :3] / 255
    share = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    linear.visual.vertex_colors = (share * 255).round().astype(np.uint8)
    with replacing(path) as part:
        linear.export(part, file_type="glb", tree_postprocessor=unlit)


def unlit(tree: dict[str, Any]) -> None:
    """Let viewers show a glTF's colours as they are: the light is in them already."""
    plain = {"baseColorFactor": [1.0, 1.0, 1.0, 1.0], "metallicFactor": 0.0, "roughnessFactor": 1.0}
    tree["materials"] = [{"pbrMetallicRoughness": plain, "extensions": {"KHR_materials_unlit": {}}}]
    tree["extensionsUsed"] = ["KHR_materials_unlit"]
    for mesh in tree["meshes"]:
        for part in mesh["primitives"]:
            part["material"] = 0


def check_target(path: Path | str, option: str = "--out") -> Path:
    """The path, if a mesh can be written there.

    Raises:
        UserError: says why not.
    """
    path = file_target(path, SUFFIXES, option=option, what="A mesh")
    if missing := [name for name in ("skimage", "trimesh") if find_spec(name) is None]:
        names = " and ".join({"skimage": "scikit-image"}.get(name, name) for name in missing)
        raise UserError(f"Meshes need {names}: pip install 'gan3d-zoo[mesh]'.")
    return path
