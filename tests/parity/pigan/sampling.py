"""Cases of cameras, rays, depths and compositing."""

import math
import re

import torch

from tests.parity.harness import Case
from tests.parity.pigan.build import FILLS, POSES, build_renderer
from tests.parity.pigan.draws import ours_by_name
from tests.parity.replay import Replay, composited, even_quantiles
from zoo.render import (
    Camera,
    FixedPoses,
    GaussianPoses,
    JitteredUniform,
    clamp_pitch,
    inverse_cdf,
    pixel_corners,
    through,
)


@torch.no_grad()
def sampling(case: Case) -> None:
    of = case.config
    size, depths = of["img_size"], JitteredUniform(of["ray_start"], of["ray_end"], of["num_steps"])
    n = len(case.outputs["rays.rays_d_cam"])
    still = Camera(torch.eye(4).repeat(n, 1, 1), FixedPoses(fov_deg=of["fov"])(n, None).intrinsics)
    rays = through(still, pixel_corners(size))
    for block, draws in (("rays", None), ("perturb", Replay([("jitter", t) for t in case.draws("perturb")]))):
        samples = depths(rays, draws)
        case.compare(f"{block}.{'points_cam' if draws is None else 'points'}", samples.points)
        case.compare(f"{block}.z_vals", samples.t[..., None])
    case.compare("rays.rays_d_cam", rays.directions)

    for block in case.blocks():
        if block.startswith("camera_"):
            meaning = case.info["outputs"][f"{block}.origin"]["meaning"]
            angles = {
                name: exact(text) for name, text in re.findall(r"(h_std|v_std|h_mean|v_mean)=([-\d.e]+)", meaning)
            }
            kind = POSES.get(block.removeprefix("camera_").rstrip("0123456789"), FixedPoses)
            poses = kind(angles["h_mean"], angles["h_std"], angles["v_mean"], angles["v_std"])
            draws = Replay(ours_by_name(case.named_draws(block)))
            yaw, pitch = poses.angles(len(case.outputs[f"{block}.yaw"]), draws)
            assert draws.used_up()
            camera = poses.camera(yaw, pitch)
            case.compare(f"{block}.yaw", yaw)
            case.compare(f"{block}.pitch", clamp_pitch(pitch))
            case.compare(f"{block}.origin", camera.origins)
            case.compare(f"{block}.cam2world", camera.pose)
        if block.startswith(("comp_", "fill_")):
            composite(case, block)

    draws = Replay(ours_by_name(case.named_draws("full")))
    poses = GaussianPoses(math.pi / 2, 0.3, math.pi / 2, 0.155, fov_deg=of["fov"])  # as the outputs' meaning says
    yaw, pitch = poses.angles(n, draws)
    rays = through(poses.camera(yaw, pitch), pixel_corners(size))
    samples = depths(rays, draws)
    ours = {"points": samples.points, "z_vals": samples.t[..., None], "rays_d": rays.directions}
    for name, value in (ours | {"rays_o": rays.origins, "pitch": pitch, "yaw": yaw}).items():
        case.compare(f"full.{name}", value)

    edges, weights = case.inputs["pdf.bins"], case.inputs["pdf.weights"] + 1e-5
    u = case.draws("pdf_random")[0]
    case.compare("pdf.random", inverse_cdf(edges, weights, u))
    case.compare("pdf.det", inverse_cdf(edges, weights, even_quantiles(edges, case.outputs["pdf.det"])))


def exact(text: str) -> float:
    """A number that was printed with six digits; the angles of the published curricula are known exactly."""
    known = {f"{value:g}": value for value in (math.pi / 2, math.pi, math.pi / 4, math.pi / 4 * 85 / 90)}
    return known.get(text, float(text))


UNUSED_DEPTHS = {"ray_start": 0.0, "ray_end": 1.0, "num_steps": 2, "hierarchical_sample": False}


def composite(case: Case, block: str) -> None:
    """Compositing of given colours and densities."""
    colour, raw = case.inputs["comp.rgb_sigma"].split([3, 1], dim=-1)
    t = case.inputs["comp.z_vals"][..., 0]
    meaning = case.info["outputs"][f"{block}.rgb"]["meaning"]
    noise = re.search(r"noise_std=([\d.]+)", meaning)
    flags = dict(re.findall(r"_(last|white)([01])", block))
    renderer = build_renderer(
        {
            **UNUSED_DEPTHS,
            "clamp_mode": "softplus" if "softplus" in block else "relu",
            "last_back": flags.get("last") == "1",
            "white_back": flags.get("white") == "1",
        }
    )
    draws = Replay([("final_density_noise", numbers) for numbers in case.draws(block)])
    result = composited(renderer, t, raw, colour, draws, float(noise[1]) if noise else 0.0)
    fill = block.removeprefix("fill_") if block.startswith("fill_") else "no"
    ours = {"rgb": FILLS[fill](result), "depth": result.depth, "weights": result.weights[..., None]}
    for name, value in case.recorded(f"{block}.", ours).items():
        case.compare(name, value)
