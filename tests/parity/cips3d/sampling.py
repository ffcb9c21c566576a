"""Cases of cameras, rays, depths and compositing."""

import torch

from tests.parity.cips3d.build import build_poses, build_renderer, looking
from tests.parity.cips3d.draws import recorded, untold_noise
from tests.parity.harness import Case
from tests.parity.replay import Replay, composited, even_quantiles
from zoo.render import (
    Camera,
    FixedPoses,
    Integrated,
    JitteredUniform,
    clamp_pitch,
    inverse_cdf,
    pixel_corners,
    through,
)


@torch.no_grad()
def sampling(case: Case) -> None:
    of = case.config
    for mode in of["camera"]["modes"]:
        block = f"camera_{mode}"
        poses = build_poses(of["camera"] | {"sample_dist": mode})
        yaw, pitch = poses.angles(len(case.outputs[f"{block}.yaw"]), Replay(recorded(case, block)))
        case.compare(f"{block}.yaw", yaw)
        case.compare(f"{block}.pitch", clamp_pitch(pitch))
        case.compare(f"{block}.position", poses.camera(yaw, pitch).origins)
    for name, ups in (("cam2world", None), ("cam2world_up", case.inputs["up_vector"])):
        places = case.cast(case.outputs[name][:, :3, 3])
        case.compare(name, looking(places, -places, ups))

    of = case.config["rays"]
    depths = JitteredUniform(of["ray_start"], of["ray_end"], of["num_steps"])
    still = Camera(torch.eye(4)[None], FixedPoses(fov_deg=of["fov"])(1, None).intrinsics)
    rays = through(still, pixel_corners(of["resolution"]))
    for block, draws in (("rays", None), ("perturb", Replay(recorded(case, "perturb")))):
        samples = depths(rays, draws)
        case.compare(f"{block}.points", samples.points)
        case.compare(f"{block}.z", samples.t[..., None])
    case.compare("rays.dirs_cam", rays.directions)

    edges, weights = case.inputs["pdf.bins"], case.inputs["pdf.weights"] + 1e-5
    ((_, u),) = recorded(case, "pdf")
    case.compare("pdf.samples", inverse_cdf(edges, weights, u))
    even = even_quantiles(edges, case.outputs["pdf_det.samples"])
    case.compare("pdf_det.samples", inverse_cdf(edges, weights, even))

    for block in case.blocks():
        if block.startswith("int_"):
            integrate(case, block)


UNUSED_DEPTHS = {"ray_start": 0.0, "ray_end": 1.0, "num_steps": 2}


def integrate(case: Case, block: str) -> None:
    """Compositing of given features and densities."""
    features, raw = case.inputs["int.feat_sigma"].split([case.config["integrate"]["dim_rgb"], 1], dim=-1)
    t = case.inputs["int.z"][..., 0]
    flags = {"clamp_mode": "softplus" if "softplus" in block else "relu"}
    flags |= {name: name in block for name in ("last_back", "white_back")}
    renderer = build_renderer(UNUSED_DEPTHS | flags)
    numbers = recorded(case, block)

    def integrated(noise: float) -> Integrated:
        return composited(renderer, t, raw, features, Replay(numbers), noise)

    told, theirs = case.config["integrate"].get("nerf_noise"), case.outputs[f"{block}.weights"][..., 0]
    result = integrated(untold_noise(told, bool(numbers), lambda noise: integrated(noise).weights - theirs))
    painted = result.features
    if "fill_weight" in block:  # a view of the published program, with the weights' sum for a colour
        painted = result.weights.sum(-1, keepdim=True).expand_as(painted)
    case.compare(f"{block}.features", painted)
    case.compare(f"{block}.depth", result.depth)
    case.compare(f"{block}.weights", result.weights[..., None])
