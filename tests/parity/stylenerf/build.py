"""How the published StyleNeRF's options and tensors become our networks and cameras."""

import math
import re

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

import zoo.render
from tests.parity.harness import CASES, Case
from zoo.render import Camera, Orbit, Rays
from zoo.stylenerf import convert as stylenerf
from zoo.stylenerf.discriminator import Discriminator
from zoo.stylenerf.field import NormalisedDepthRenderer
from zoo.stylenerf.model import Generator
from zoo.weights.bundle import build
from zoo.weights.names import published_name


def fill(network: nn.Module, published: dict[str, Tensor], table: list) -> None:
    """Load published tensors, all of which must be known or constants."""
    published = dict(published)
    ours = {n: published.pop(published_name(n, table)).view_as(t) for n, t in network.state_dict().items()}
    assert all(re.search(r"(resample_filter|coords|diffs|coeffs)$", n) for n in published), published.keys()
    network.load_state_dict(ours)


def load_generator(case: Case, changes: dict | None = None, prefix: str = "generator.") -> Generator:
    """Our generator for the published constructor's arguments, with the case's weights.

    Args:
        changes: other values of its ``renderer_kwargs``.
    """
    of = case.config["generator"]
    synthesis = of["synthesis_kwargs"]
    synthesis = synthesis | {"renderer_kwargs": synthesis["renderer_kwargs"] | (changes or {})}
    generator = build(stylenerf.generator_config(of | {"synthesis_kwargs": synthesis}), nn.Module).eval()
    fill_generator(generator, case.weights(prefix))
    return generator


def fill_generator(generator: Generator, published: dict[str, Tensor]) -> None:
    fill(generator, published, stylenerf.table(generator))


def load_discriminator(config: dict, weights: dict[str, Tensor]) -> Discriminator:
    discriminator = build(stylenerf.discriminator_config(config), nn.Module)
    fill(discriminator, weights, stylenerf.table(discriminator))
    return discriminator


def our_camera(inverse_intrinsics: Tensor, pose: Tensor) -> Camera:
    """A published camera as ours: its world has other axes, its intrinsics are inverse and for pixels from -1 to 1."""
    intrinsics = torch.eye(3).repeat(len(pose), 1, 1)
    intrinsics[:, :2, 2] = 0.5
    intrinsics[:, [0, 1], [0, 1]] = 0.5 / inverse_intrinsics[:, [0, 1], [0, 1]]
    return Camera(pose[:, [1, 2, 0, 3]], intrinsics)


def given_camera(case: Case) -> Camera:
    return our_camera(case.inputs["camera_inv_intrinsics"], case.inputs["camera_to_world"])


def build_poses(given: dict) -> Orbit:
    config = stylenerf.poses_config(given)
    return getattr(zoo.render, config["class_path"].removeprefix("zoo.render."))(**config["init_args"])


def rounded(camera: Camera) -> Camera:
    """Cameras of float64 as published: places are rounded, and where they look is computed from the rounded ones."""
    place = camera.origins.float().to(torch.get_default_dtype())
    behind = normalize(place, dim=-1)
    right = normalize(torch.linalg.cross(place.new_tensor([0.0, 1.0, 0.0]).expand_as(place), behind), dim=-1)
    up = normalize(torch.linalg.cross(behind, right), dim=-1)
    pose = camera.pose.to(place.dtype)
    pose[:, :3] = torch.stack([right, up, behind, place], dim=-1)
    return Camera(pose, camera.intrinsics.float().to(place.dtype))


def linear_cameras(given: dict, uvr: Tensor) -> Camera:
    """Published cameras at shares of their ranges; a fourth number scales the radius."""
    poses = build_poses(given)
    uvr = uvr.double()
    azimuth, polar, radius = (
        low + (high - low) * share
        for (low, high), share in zip(
            (given["range_u"], given["range_v"], given["range_radius"]), uvr[:, :3].unbind(1), strict=True
        )
    )
    radius = radius * (uvr[:, 3] if uvr.shape[1] > 3 else 1.0)
    camera = poses.camera(math.pi / 2 - azimuth[:, None], polar[:, None])
    camera.pose[:, :3, 3] *= radius[:, None] / poses.radius
    return rounded(camera)


def published_pose(camera: Camera) -> Tensor:
    """Camera-to-world matrices in the published axes."""
    return camera.pose[:, [2, 0, 1, 3]]


def inverse_intrinsics(camera: Camera) -> Tensor:
    matrix = torch.eye(4).repeat(len(camera.pose), 1, 1)
    matrix[:, [0, 1], [0, 1]] = 0.5 / camera.intrinsics[:, [0, 1], [0, 1]]
    return matrix


def rolled_film(film: Tensor, theta: float | Tensor) -> Tensor:
    """Film coordinates [..., 2] as a camera sees them that is turned around where it looks, by an angle [rad]."""
    x, y, theta = film[..., 0], film[..., 1], torch.as_tensor(theta, dtype=film.dtype)
    return torch.stack([x * theta.cos() - y * theta.sin(), x * theta.sin() + y * theta.cos()], dim=-1)


def weigh(renderer: NormalisedDepthRenderer, rays: Rays, t: Tensor, raw: Tensor) -> Tensor:
    """Weights of samples at shares t of the way."""
    return renderer.quadrature.weigh(raw, renderer.measured(renderer.place(rays, t)))


def beside(case: Case, name: str) -> Case:
    """The case of this name that a case refers to."""
    here = case.folder.parent / name
    return Case(here if here.is_dir() else CASES / "stylenerf" / name)
