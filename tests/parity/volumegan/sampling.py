"""Cases of cameras, rays, depths and compositing."""

import math

import torch
from torch import nn

from tests.parity.harness import Case
from tests.parity.replay import Replay, composited, even_quantiles
from tests.parity.volumegan.build import build_poses
from tests.parity.volumegan.draws import DRAWS
from zoo.layers.lookup import trilinear
from zoo.render import (
    Camera,
    Importance,
    JitteredUniform,
    Rays,
    Samples,
    Stratified,
    VolumeRenderer,
    clamp_pitch,
    inverse_cdf,
    pixel_corners,
    through,
)
from zoo.volumegan.convert import renderer_config
from zoo.weights.bundle import build


@torch.no_grad()
def sampling(case: Case) -> None:
    of = case.config["generator"]["ps_cfg"]
    near, far = of["ray_start"], of["ray_end"]
    for block in ("rays", "rays_w3_h2"):
        n, height, side, count, _ = case.outputs[f"{block}.pts"].shape
        depths, directions = (case.cast(case.outputs[f"{block}.{name}"]) for name in ("pts_z", "ray_dirs"))
        ends, corner = depths[0, 0, 0, [0, -1], 0], directions[0, 0, 0]
        # The arguments are stated nowhere: that which the first ray shows, all others must have.
        rays = local_rays(n, height, side, 2 * math.degrees(math.atan2(corner[1], -corner[2])))
        samples = JitteredUniform(*ends.tolist(), count)(rays, None)
        case.compare(f"{block}.pts", samples.points.unflatten(1, (height, side)))
        case.compare(f"{block}.pts_z", samples.t.unflatten(1, (height, side))[..., None])
        case.compare(f"{block}.ray_dirs", rays.directions.unflatten(1, (height, side)))

    for block in case.blocks():
        if block.startswith("cam_"):
            camera_distribution(case, block, of)

    shape = case.outputs["world.pts"].shape
    n, side, count = shape[0], shape[1], shape[3]
    camera = orbit(case, of | {"camera_dist": "gaussian"}, cut=n)
    rays = through(camera, pixel_corners(side))
    samples = JitteredUniform(near, far, count)(rays, None)
    case.compare("world.pts", samples.points.unflatten(1, (side, side)))
    case.compare("world.ray_dirs", rays.directions.unflatten(1, (side, side)))
    case.compare("world.ray_origins", rays.origins.unflatten(1, (side, side)))

    for mode, depths in (("None", JitteredUniform), ("mid", Stratified), ("none", JitteredUniform)):
        shape = case.outputs[f"perturb_{mode}.pts"].shape
        rays = local_rays(shape[0], shape[1], shape[2], of["fov"])
        draws = None if mode == "none" else Replay([("jitter", case.inputs["jitter_u"])])
        samples = depths(near, far, shape[3])(rays, draws)
        case.compare(f"perturb_{mode}.pts", samples.points.unflatten(1, shape[1:3]))
        case.compare(f"perturb_{mode}.pts_z", samples.t.unflatten(1, shape[1:3])[..., None])

    n, side, _, count, _ = case.outputs["full.pts"].shape
    draws = Replay([(DRAWS[name], case.inputs[f"full.{name}"]) for name in ("cam_yaw_n", "cam_pitch_n", "jitter_u")])
    poses = build_poses(of | {"camera_dist": "gaussian"})
    yaw, pitch = poses.angles(n, draws)
    rays = through(poses.camera(yaw, pitch), pixel_corners(side))
    samples = JitteredUniform(near, far, count)(rays, draws)
    ours = {"pts": samples.points, "ray_dirs": rays.directions, "ray_origins": rays.origins}
    for name, value in (ours | {"pts_z": samples.t[..., None]}).items():
        case.compare(f"full.{name}", value.unflatten(1, (side, side)))
    case.compare("full.yaw", yaw)
    case.compare("full.pitch", clamp_pitch(pitch))

    edges, weights = case.inputs["pdf.bins"], case.inputs["pdf.weights"] + 1e-5
    case.compare("pdf_u", inverse_cdf(edges, weights, case.inputs["pdf.u"]))
    case.compare("pdf_det", inverse_cdf(edges, weights, even_quantiles(edges, case.outputs["pdf_det"])))
    for block in case.blocks():
        if block.startswith(("hs_", "render_")):
            composite(case, block)
    given = (case.inputs[f"interp.{name}"] for name in ("points", "bounds"))
    case.compare("interp", trilinear(case.inputs["interp.volume"].movedim(1, -1).contiguous(), *given).mT)


def local_rays(n: int, height: int, side: int, fov: float) -> Rays:
    """Rays of a camera at the origin that looks along -z; rectangular images have the field of view both ways."""
    still = Camera(torch.eye(4).repeat(n, 1, 1), build_poses({"fov": fov})(n, None).intrinsics)
    y, x = torch.meshgrid(torch.linspace(1, -1, height), torch.linspace(-1, 1, side), indexing="ij")
    return through(still, torch.stack([x, y], -1).reshape(-1, 2))


# Names of the draws of each published distribution.
CAMERA_DRAWS = {
    "uniform": ("cam_yaw_u", "cam_pitch_u"),
    "gaussian": ("cam_yaw_n", "cam_pitch_n"),
    "hybrid": ("cam_yaw_u", "cam_pitch_u"),
    "hybrid_b": ("cam_yaw_n", "cam_pitch_n"),
    "truncated_gaussian": ("tn_yaw", "tn_pitch"),
    "spherical_uniform": ("cam_yaw_u", "cam_pitch_u"),
}


def orbit(case: Case, of: dict, cut: int) -> Camera:
    """The first cameras of a gaussian distribution."""
    poses = build_poses(of)
    names = CAMERA_DRAWS[of["camera_dist"]]
    yaw, pitch = poses.angles(cut, Replay([(DRAWS[name], case.inputs[name][:cut]) for name in names]))
    return poses.camera(yaw, pitch)


def camera_distribution(case: Case, block: str, of: dict) -> None:
    kind = block.removeprefix("cam_")
    of = of | {"camera_dist": kind.removesuffix("_b")}
    if kind == "uniform":
        of = of | {"radius": 1.3}  # as the notes say
    poses = build_poses(of)
    draws = [(DRAWS[name], case.inputs[name]) for name in CAMERA_DRAWS[kind]]
    coin = torch.tensor(0.8 if kind == "hybrid_b" else 0.2)  # as the notes say
    yaw, pitch = poses.angles(len(case.outputs[f"{block}.yaw"]), Replay([*draws, ("pose_kind", coin)]))
    camera = poses.camera(yaw, pitch)
    case.compare(f"{block}.yaw", yaw)
    case.compare(f"{block}.pitch", clamp_pitch(pitch))
    case.compare(f"{block}.cam_pos", camera.origins)
    case.compare(f"{block}.cam2world", camera.pose)


# What follows the clamp mode in the name of a block of compositing -> published arguments
COMPOSITES = {
    "last": {"last_back": True},
    "white": {"white_back": True},
    "maxd": {"max_depth": 1.25},  # stated nowhere; the recorded weights have it
    "nodist": {"render_mode": "no_dist"},
}


def composite(case: Case, block: str) -> None:
    """Importance sampling and compositing of given features and densities."""
    kind, mode, *rest = block.split("_")
    features, raw, t = (case.inputs[f"hs.{name}"] for name in ("feat", "sigma", "z"))
    options = COMPOSITES.get(rest[0] if rest else "", {})
    count = t.shape[2]
    config = renderer_config({"num_steps": count}, {"clamp_mode": mode}, {"clamp_mode": mode} | options)
    renderer: VolumeRenderer = build(config, nn.Module)
    rays = Rays(case.inputs["hs.ray_origins"], case.inputs["hs.ray_dirs"])
    given = Samples(rays.origins, rays.directions, t[..., 0])
    if kind == "hs":
        weights = (renderer.coarse or renderer.quadrature).weigh(raw, given)
        assert isinstance(renderer.fine, Importance)
        fine = renderer.fine(given.t, weights, Replay([("importance", case.inputs["hs.pdf_u"])]))
        case.compare(f"{block}.pts_z", fine[..., None])
        case.compare(f"{block}.pts", Samples(*rays[:2], fine).points)
        return
    renderer.fine = None
    result = composited(renderer, given.t, raw, features, rays=rays)
    weights = result.weights
    rgb = weights.sum(-1, keepdim=True).expand_as(result.features) if rest == ["weight"] else result.features
    case.compare(f"{block}.rgb", rgb)
    case.compare(f"{block}.depth", (weights * given.t).sum(-1, keepdim=True))
    case.compare(f"{block}.weights", weights[..., None])
