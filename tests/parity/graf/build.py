"""How the published GRAF's options and tensors become our networks, cameras and renderers."""

import math
import re

import torch
from torch import Tensor

from tests.parity.harness import Case
from tests.parity.published import load
from zoo.graf.convert import DISCRIMINATOR, GENERATOR
from zoo.graf.model import Discriminator, Generator, HierarchicalRenderer, Latent, RadianceField, gaussian, uniform
from zoo.graf.rays import AlongAxis, OnSphere, Orthographic, Patches, perspective, z_up
from zoo.render import Camera, Importance, Integrated, Quadrature, VolumeRenderer, black, white
from zoo.render.cameras import intrinsics_from_fov


def radius_range(config: dict) -> tuple[float, float]:
    radius = config["data"]["radius"]
    ends = [float(r) for r in radius.split(",")] if isinstance(radius, str) else [radius, radius]
    return ends[0], ends[-1]


def first_radius(config: dict) -> float | None:
    low, high = radius_range(config)
    return high if low < high else None


def build_poses(data: dict, radius: tuple[float, float]) -> OnSphere:
    polar = [math.degrees(math.acos(1 - 2 * data[end])) for end in ("vmin", "vmax")]
    return OnSphere((360 * data["umin"], 360 * data["umax"]), tuple(polar), radius, data["fov"])


def build_field(config: dict, fine: bool = False) -> RadianceField:
    nerf, z = config["nerf"], config["z_dist"]
    encoded = nerf["i_embed"] != -1
    views = nerf["use_viewdirs"]
    return RadianceField(
        z["dim"] - z["dim_appearance"],
        z["dim_appearance"] if views or not fine else 0,
        nerf["netwidth_fine" if fine else "netwidth"],
        nerf["netdepth_fine" if fine else "netdepth"],
        point_octaves=nerf["multires"] if encoded else 0,
        view_octaves=(nerf["multires_views"] if encoded else 0) if views else None,
        outputs=5 if nerf["N_importance"] > 0 else 4,
    )


def build_renderer(config: dict) -> VolumeRenderer | HierarchicalRenderer:
    data, nerf = config["data"], config["nerf"]
    depths = AlongAxis(data["near"], data["far"], nerf["N_samples"], first_radius(config))
    importance = Importance(nerf["N_importance"], floor=1e-5, right=True)
    if not nerf["perturb"]:
        given, chosen = depths, importance
        depths = lambda rays, draws: given(rays, None)  # noqa: E731
        importance = lambda t, weights, draws: chosen(t, weights, None)  # noqa: E731
    renderer = VolumeRenderer(depths, Quadrature(background=white if data["white_bkgd"] else black), chunk=None)
    return (
        HierarchicalRenderer(renderer, importance, build_field(config, fine=True)) if nerf["N_importance"] else renderer
    )


def build_generator(config: dict) -> Generator:
    """Our generator for the published arguments."""
    data = config["data"]
    return Generator(
        build_field(config),
        build_renderer(config),
        build_poses(data, radius_range(config)),
        data["imsize"],
        prior=uniform if config["z_dist"]["type"] == "uniform" else gaussian,
        lens=Orthographic(data["far"] - data["near"]) if data["orthographic"] else perspective,
    )


def load_generator(case: Case) -> Generator:
    state = {n: t for n, t in case.weights("").items() if re.match(r"generator(_fine)?\.", n)}
    return load(build_generator(case.config), state, GENERATOR)


def load_discriminator(case: Case, size: int, channels: int, prefix: str) -> Discriminator:
    return load(Discriminator(size, channels), case.weights(prefix), DISCRIMINATOR[size])


def build_patches(config: dict) -> Patches:
    sampler = config["ray_sampler"]
    anneal = sampler["scale_anneal"]
    size = math.isqrt(sampler["N_samples"])
    return Patches(size, sampler["min_scale"], sampler["max_scale"], anneal if anneal >= 0 else None)


def codes(config: dict, z: Tensor) -> Latent:
    appearance = config["z_dist"]["dim_appearance"]
    return Latent(*z.split([z.shape[-1] - appearance, appearance], dim=-1))


def our_camera(poses: Tensor, fov: float) -> Camera:
    """Published poses [B, 3, 4] with z up, in our world."""
    x, y, z = poses.unbind(1)
    bottom = poses.new_tensor([0.0, 0.0, 0.0, 1.0]).expand_as(x)
    return with_fov(torch.stack([x, z, -y, bottom], dim=1), fov)


def with_fov(pose: Tensor, fov: float) -> Camera:
    """A camera whose focal length [pixels] is rounded only once, as published; for sizes that are no powers of two."""
    return Camera(pose, intrinsics_from_fov(math.radians(fov), len(pose), pose.double()))


def published_pose(camera: Camera) -> Tensor:
    """Our poses [B, 4, 4] as published, [B, 3, 4]."""
    return z_up(camera.pose[:, :3].mT).mT


def double_camera(azimuth: Tensor, polar: Tensor, radius: float, fov: float) -> Camera:
    """As drawn by the published scripts, which do not round to single precision."""
    return OnSphere(fov_deg=fov).camera(azimuth.reshape(-1, 1), polar.reshape(-1, 1), radius, torch.float64)


def path(radius: float, ends: tuple[float, float], fixed: float, n: int, swap: bool, fov: float) -> Tensor:
    moving = torch.linspace(*ends, n + 1, dtype=torch.float64)[:-1].clamp(min=0.1).deg2rad()
    still = torch.full_like(moving, math.radians(fixed))
    azimuth, polar = (still, moving) if swap else (moving, still)
    return published_pose(double_camera(azimuth, polar, radius, fov))


def flat(x: Tensor) -> Tensor:
    return x.detach().flatten(0, 1)


def disparity(result: Integrated) -> Tensor:
    return 1 / (result.depth / (result.opacity + 1e-10)).clamp(min=1e-10)
