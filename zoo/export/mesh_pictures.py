"""Pictures of meshes, to look at without a viewer: their colours, and their shape in grey.

N vertices, F faces, P pixels, V views, H W pixels
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from zoo.export.camera_paths import frames_along_path
from zoo.export.silhouettes import pixels_in
from zoo.generator import Generator, draws_for, evaluating
from zoo.render import Camera
from zoo.render.projection import image_coordinates

if TYPE_CHECKING:
    from trimesh import Trimesh

FINER = 2  # pixels for one, each way
LIGHT = 0.6  # how much the light is above the camera


def mesh_views(
    generator: Generator, index: int, mesh: "Trimesh", views: int = 4, *, seed: int = 0, side: int = 128
) -> Tensor:
    """A mesh as the turntable of its object shows it, uint8 [2, V, 3, H, W]: in its colours, and in grey.

    Args:
        index: which sample the mesh is of.
        views: sides.
        seed: of the set of samples.
        side: of the images [pixels].
    """
    with evaluating(generator):
        latent, _ = generator.sample(1, draws_for(generator, seed, [index]))
        _, camera = frames_along_path(generator, latent, "turntable", views)
    return torch.stack([drawn(mesh, camera.take(slice(v, v + 1)).to("cpu"), side) for v in range(views)], dim=1)


def drawn(mesh: "Trimesh", camera: Camera, side: int) -> Tensor:
    """One view, uint8 [2, 3, H, W], on white."""
    vertices, faces = torch.tensor(mesh.vertices).double(), torch.tensor(mesh.faces).long()
    pose = camera.pose[0].double()
    camera = Camera(camera.pose.double(), camera.intrinsics.double())
    corners = image_coordinates(camera, 0, vertices)[faces] * (side * FINER) - 0.5
    face, pixel, share = pixels_in(corners, side * FINER)
    distance = ((pose[:3, 3] - vertices) @ pose[:3, 2])[faces]  # along the camera's axis
    place, depth = pixel[:, 1] * side * FINER + pixel[:, 0], (share * distance[face]).sum(1)
    nearest = torch.full([(side * FINER) ** 2], torch.inf, dtype=depth.dtype).scatter_reduce(0, place, depth, "amin")
    front = depth <= nearest[place]
    face, place, share = face[front], place[front], share[front, :, None]

    colours = torch.tensor(mesh.visual.vertex_colors[:, :3]).double()
    normals = torch.tensor(mesh.vertex_normals).double()
    light = normalize(pose[:3, 2] + LIGHT * pose[:3, 1], dim=0)
    shade = 40 + 200 * (normalize((share * normals[faces[face]]).sum(1), dim=-1) @ light).clamp(min=0)
    image = torch.full([2, (side * FINER) ** 2, 3], 255.0, dtype=torch.float64)
    image[0, place] = (share * colours[faces[face]]).sum(1)
    image[1, place] = shade[:, None].expand(-1, 3)
    fine = image.unflatten(1, (side * FINER, -1)).movedim(-1, 1)
    return avg_pool2d(fine, FINER).round().clamp(0, 255).to(torch.uint8)
