"""Cases of cameras, rays, depths and compositing."""

import math

import torch
from torch import Tensor

from tests.parity.eg3d.build import halves
from tests.parity.harness import Case
from tests.parity.replay import Replay, composited
from zoo.eg3d.cameras import LookAtPoses, camera_of, centred, label_of, published_focal
from zoo.eg3d.convert import FACES
from zoo.eg3d.extras import published_depth
from zoo.eg3d.field import BoxLimits, FixedLimits, SmoothedImportance, interval_weights
from zoo.render import (
    Camera,
    MidpointQuadrature,
    SpherePoses,
    VolumeRenderer,
    pixel_centres,
    shifted_softplus,
    through,
    white,
)


@torch.no_grad()
def sampling(case: Case) -> None:
    for i, fov in enumerate(case.config["fov_degrees"]):
        case.outputs[f"intrinsics{i}"] = case.outputs["intrinsics"][i, 0, 0]
        case.compare(f"intrinsics{i}", published_focal(fov))
    focal = torch.tensor([published_focal(fov) for fov in case.config["fov_degrees"]])
    case.compare("intrinsics", intrinsics(focal))
    for i, of in enumerate(case.config["lookat"]):
        v, pivot = of["vertical_mean"], tuple(of["lookat_position"])
        poses = LookAtPoses(math.pi - of["horizontal_mean"], 0, v, 0, of["radius"], pivot=pivot)
        guide = 1e-4 if 0.01 < v < math.pi - 0.01 else 1e-2  # near a pole float32 has few digits left of arccos
        case.compare(f"lookat_{i}", published_pose(poses(1, None)), guide)
    of = case.config["samplers"]
    means = {"yaw_mean": math.pi - of["horizontal_mean"], "pitch_mean": of["vertical_mean"], "radius": of["radius"]}
    spreads = {"yaw_spread": of["horizontal_stddev"], "pitch_spread": of["vertical_stddev"]}
    for name, poses in {
        "gaussian": LookAtPoses(**means, **spreads),
        "uniform": SpherePoses(**means, yaw_spread=math.pi, pitch_spread=math.pi / 2),
        "lookat_random": LookAtPoses(**means, **spreads, pivot=(0.0, 0.0, 0.2)),
    }.items():
        yaw, pitch = case.draws(name)
        draws = Replay([("yaw", 1 - yaw if name == "uniform" else yaw), ("pitch", pitch)])
        case.compare(name, published_pose(poses(len(yaw), draws)))

    raw = camera_of(torch.cat([case.inputs["raw_pose"].flatten().to(case.dtype), torch.zeros(9)])[None])
    about = (0.0, 0.0, 0.175)
    case.compare("fix_pose_orig", published_pose(centred(raw))[0])
    case.compare("fix_pose_cor", published_pose(centred(raw, centre=about))[0])
    case.compare("fix_pose_simplify", published_pose(centred(raw, centre=about, facing=True))[0])
    case.compare("flip_yaw", published_pose(raw.mirrored())[0])
    case.compare("fix_intrinsics", intrinsics(0.5 / torch.tensor([math.radians(FACES / 2)]).tan())[0])

    label = torch.cat([case.inputs[f"rays.{name}"].flatten(1) for name in ("cam2world", "intrinsics")], dim=1)
    side = math.isqrt(case.outputs["rays.origins"].shape[1])
    rays = through(camera_of(label), pixel_centres(side))
    case.compare("rays.origins", rays.origins)
    case.compare("rays.directions", rays.directions)
    box = BoxLimits(case.number("rays.box_near", r"side ([\d.]+)"), case.outputs["stratified_auto"].shape[2])
    for name, value in zip(("rays.box_near", "rays.box_far"), box.hits(rays), strict=True):
        case.compare(name, value)
    for name, value in zip(("auto_near", "auto_far"), box.limits(rays), strict=True):
        case.compare(name, value)
    near, far = (case.number("stratified", p) for p in (r"limits ([\d.]+)\.\.", r"\.\.([\d.]+),"))
    count = case.outputs["stratified"].shape[2]
    for name, depths in {
        "stratified": FixedLimits(near, far, count),
        "disparity": FixedLimits(near, far, count, disparity=True),
        "stratified_auto": box,
    }.items():
        case.compare(name, depths(rays, Replay([("jitter", case.draws(name)[0])])).t[..., None])

    t, weights = (case.inputs[f"importance.{name}"][..., 0] for name in ("depths", "weights"))
    (drawn,) = case.draws("importance")
    fine = SmoothedImportance(drawn.shape[1])(t, halves(weights), Replay([("importance", drawn)]))
    case.compare("importance", fine[..., None])
    colours, raw, t = (case.inputs[f"march.{name}"] for name in ("colors", "densities", "depths"))
    for end, options in (("", {}), ("_white", {"background": white})):
        quadrature = MidpointQuadrature(density=shifted_softplus, **options)
        marched = composited(VolumeRenderer(box, quadrature, chunk=None), t[..., 0], raw, colours)
        case.compare(f"march.rgb{end}", 2 * marched.features - 1)
        case.compare(f"march.depth{end}", published_depth(marched))
        case.compare(f"march.weights{end}", interval_weights(marched.weights)[..., None])


def published_pose(camera: Camera) -> Tensor:
    return label_of(camera)[:, :16].unflatten(1, (4, 4))


def intrinsics(focal: Tensor) -> Tensor:
    """Intrinsics [B, 3, 3] of focal lengths [B]."""
    matrix = torch.diag_embed(torch.stack([focal, focal, torch.ones_like(focal)], dim=-1))
    matrix[:, :2, 2] = 0.5
    return matrix
