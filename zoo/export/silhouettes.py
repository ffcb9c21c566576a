"""How well a mesh fits the object that it was made of: its silhouettes against rendered ones.

N vertices, F faces, V views, H W pixels
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.generator import Generator, HasRays, draws_for, evaluating, render_foreground, repeat_for_cameras, require
from zoo.render.projection import pixel_coordinates, views_of

if TYPE_CHECKING:
    from trimesh import Trimesh


def silhouette_iou(
    generator: Generator,
    index: int,
    mesh: "Trimesh",
    *,
    views: int = 8,
    seed: int = 0,
    truncation: float = 1.0,
    resolution: int | None = None,
) -> float:
    """Mean intersection over union of a mesh's silhouettes and of the renderings of its object (opacity above 1/2).

    The views are cameras drawn from the prior, others for each sample, and not those that a mesh is coloured or its
    level chosen from. A pixel belongs to the mesh if the ray through its middle meets it.

    Args:
        index: which sample the mesh is of, made with the same seed and truncation.
        views: cameras.
        resolution: side of the images [pixels]; by default the generator's own.

    Returns:
        in [0, 1]; a view in which both show nothing counts 1.

    Raises:
        UserError: the generator has no rays.
    """
    require(generator, "A silhouette", HasRays)
    with evaluating(generator):
        latent, _ = generator.sample(1, draws_for(generator, seed, [index]))
        latents, _ = generator.orbit_at(latent, torch.zeros(1))  # as its mesh is made
        styles, camera = repeat_for_cameras(
            generator.map(latents, truncation=truncation),
            generator.cameras(views, draws_for(generator, seed, [index * views + view for view in range(views)])),
        )
        rendered = render_foreground(generator, styles, camera, resolution)
        shown = views_of(generator.rays, rendered, camera, generator.bounds)
        vertices = torch.from_numpy(mesh.vertices).to(generator.bounds)
        faces = torch.from_numpy(mesh.faces).to(generator.device).long()
        side = shown.depth.shape[-1]
        covered = torch.stack([rasterised(pixel_coordinates(shown, v, vertices)[faces], side) for v in range(views)])
    shared, either = ((x.flatten(1).sum(1)) for x in (covered & shown.solid, covered | shown.solid))
    return float(torch.where(either > 0, shared / either.clamp(min=1), 1.0).mean())


def rasterised(triangles: Tensor, side: int) -> Tensor:
    """Whether each pixel's middle is in one of the triangles, bool [H, W]; arguments as of ``pixels_in``."""
    _, pixel, _ = pixels_in(triangles, side)
    mask = torch.zeros(side, side, dtype=torch.bool, device=triangles.device)
    mask[pixel[:, 1], pixel[:, 0]] = True
    return mask


def pixels_in(triangles: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each pixel whose middle is in a triangle: which triangle [P], its column and row [P, 2], and the shares of the
    triangle's corners there [P, 3].

    Args:
        triangles: columns and rows [F, 3, 2] of their corners, whole numbers at the middles of pixels; those with a
            corner behind the camera, NaN, are left out.
        side: H = W.
    """
    seen = triangles.isfinite().all(-1).all(-1).nonzero()[:, 0]
    triangles = triangles[seen].double()
    first = triangles.amin(1).ceil().clamp(min=0).long()
    size = (triangles.amax(1).floor().clamp(max=side - 1).long() - first + 1).clamp(min=0)
    count = size.prod(1)
    face = torch.arange(len(triangles), device=triangles.device).repeat_interleave(count)  # one a pixel in its box
    place = torch.arange(len(face), device=face.device) - (count.cumsum(0) - count)[face]
    pixel = first[face] + torch.stack([place % size[face, 0], place // size[face, 0]], dim=-1)
    corner = triangles[face] - pixel[:, None]
    after = corner.roll(-1, dims=1)
    side_of = corner[..., 0] * after[..., 1] - corner[..., 1] * after[..., 0]  # of each edge, by its sign
    inside = (side_of >= 0).all(1) | (side_of <= 0).all(1)
    area = side_of[inside].roll(-1, dims=1)  # of the edge opposite to each corner
    return seen[face[inside]], pixel[inside], area / area.sum(1, keepdim=True).where(area.sum(1, keepdim=True) != 0, 1)
