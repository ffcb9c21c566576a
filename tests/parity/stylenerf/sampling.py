"""Cases of cameras, also learned ones, rays, depths and compositing."""

import math
import re

import torch
from torch import Tensor, nn

from tests.parity.harness import Case
from tests.parity.published import hearing
from tests.parity.replay import Replay
from tests.parity.stylenerf.build import (
    beside,
    build_poses,
    fill,
    inverse_intrinsics,
    linear_cameras,
    our_camera,
    published_pose,
    rolled_film,
    rounded,
    weigh,
)
from zoo.render import Camera, Samples, last_sample, look_at, pixel_centres, stratify
from zoo.stylenerf import convert as stylenerf
from zoo.stylenerf.extras import CameraNetwork, LearnedPoses, pose_of
from zoo.stylenerf.field import (
    BackgroundRenderer,
    ContractedSpacing,
    PlainField,
    encoded,
    inverted_sphere_directions,
    paper_axes,
    rays_through,
)
from zoo.stylenerf.model import path_pixels
from zoo.weights.bundle import build


@torch.no_grad()
def sampling(case: Case) -> None:
    for model, given in case.config["camera_kwargs"].items():
        cameras_of(case, model, given)
        depths_of(case, model, given)
        u = case.inputs[f"{model}.reg_pixel_u"]
        count, side = case.outputs[f"{model}.reg_index"].shape[1], case.outputs[f"{model}.pixels_tgt8"].shape[-1]
        index = path_pixels(u, math.isqrt(count), side)
        case.compare(f"{model}.reg_index", index)
        case.compare(f"{model}.reg_pixels", pixel_centres(side)[index])
    for name in case.outputs:
        if found := re.fullmatch(r"posenc\.(p4_)?L(\d+)(_usepos)?", name):
            points = case.inputs["posenc.p4" if found[1] else "posenc.p"]
            case.compare(name, encoded(points, int(found[2]), found[3] is not None))
    eye = case.inputs["lookat.eye"]
    case.compare("lookat.R", published_pose(Camera(look_at(eye[:, [1, 2, 0]]), eye))[:, :3, :3])
    case.compare("cam9d.RT16", pose_of(case.inputs["cam9d.d9"]).flatten(1))


def cameras_of(case: Case, model: str, given: dict) -> None:
    poses = build_poses(given)
    names = {"u": "yaw", "v": "pitch"}
    kind = "n" if given["gaussian_camera"] else "u"
    drawn = {axis: case.inputs[f"{model}.random.camera_{axis}_{kind}"].double() for axis in names}
    turned = drawn | {"u": -drawn["u"] if kind == "n" else 1 - drawn["u"]}
    angles = poses.angles(len(drawn["u"]), Replay([(names[axis], x) for axis, x in turned.items()]))
    camera = rounded(poses.camera(*angles))
    case.compare(f"{model}.random.c2w", published_pose(camera))
    case.compare(f"{model}.random.inv_intrinsics", inverse_intrinsics(camera))
    azimuth, polar = math.pi / 2 - angles[0][:, 0], angles[1][:, 0]
    shares = [
        (angle - low) / (high - low)
        for angle, (low, high) in zip((azimuth, polar), (given["range_u"], given["range_v"]), strict=True)
    ]
    case.compare(f"{model}.random.mode", torch.stack([*shares, torch.zeros_like(azimuth)], -1))
    uvr = case.inputs[f"{model}.list.uvr"]
    case.compare(f"{model}.list.c2w", published_pose(linear_cameras(given, uvr)))
    scaled = torch.tensor([[0.25, 0.75, 0.5, 1.3]])  # as its meaning says
    case.compare(f"{model}.list4.c2w", published_pose(linear_cameras(given, scaled)))
    wide = build_poses(given | {"fov": 20})(1, None)
    case.compare(f"{model}.fov20.inv_intrinsics", inverse_intrinsics(wide))
    uv = case.inputs[f"{model}.tensor.uv"]
    case.compare(f"{model}.tensor.c2w", published_pose(LearnedPoses(poses).at(uv)))
    uniform = LearnedPoses(build_poses(given | {"gaussian_camera": False}))
    case.compare(f"{model}.tensor_uniform.c2w", published_pose(uniform.at(uv)))

    theta = case.inputs[f"{model}.roll_theta"]
    for name in case.outputs:
        if found := re.fullmatch(rf"{model}\.pixels_(vol|tgt)(\d+)(_roll)?", name):
            shape = case.outputs[name].shape
            film = pixel_centres(int(found[2])).expand(shape[0], -1, -1)
            if found[3]:
                film = rolled_film(film, theta[:, None])
            case.compare(name, film if found[1] == "vol" else film.mT.unflatten(2, shape[2:]))


def depths_of(case: Case, model: str, given: dict) -> None:
    def compare(name: str, ours: Tensor) -> None:
        case.compare(f"{model}.{name}", ours)

    u, raw = case.inputs[f"{model}.stratified_u"], case.inputs[f"{model}.sigma"][..., None]
    batch, count, samples = u.shape
    renderer = build(stylenerf.renderer_config(given, {"n_ray_samples": samples}), nn.Module)
    pose = case.cast(case.outputs[f"{model}.random.c2w"][:batch])
    rays = rays_through(
        our_camera(case.cast(case.outputs[f"{model}.random.inv_intrinsics"][:batch]), pose),
        pixel_centres(math.isqrt(count)),
    )
    compare("rays4.origin", paper_axes(rays.origins))
    compare("rays4.vector", paper_axes(rays.directions))
    compare("rays4.target", paper_axes(rays.origins + rays.directions))
    t = stratify(torch.linspace(0, 1, samples).expand_as(u), Replay([("jitter", u)]), "jitter")
    distance = renderer.spacing.distance(t)
    compare("depth_unit_jittered", t)
    compare("depth_jittered", distance)
    back = (
        (1 / distance - 1 / renderer.spacing.near)
        if isinstance(renderer.spacing, ContractedSpacing)
        else distance - renderer.spacing.near
    )
    compare(
        "depth_inverse", back * renderer.spacing.rate * (-1 if isinstance(renderer.spacing, ContractedSpacing) else 1)
    )
    points = renderer.spacing.contract(Samples(rays.origins, rays.directions, distance).points)
    compare("points", paper_axes(points).flatten(1, 2))
    behind = BackgroundRenderer(PlainField(), case.outputs[f"{model}.bg_points"].shape[1] // count, given["bg_start"])
    with hearing({"field": behind.field}) as heard:
        behind(rays, torch.zeros(batch, behind.field.latent_dim))
    (samples_behind, _), _ = heard["field"][0]
    sphere = inverted_sphere_directions(samples_behind.origins, samples_behind.directions, samples_behind.t)
    compare("bg_points", torch.cat([paper_axes(sphere), samples_behind.t[..., None]], -1).flatten(1, 2))

    weights = weigh(renderer, rays, t, raw)
    # Intervals are differences of depths near 1: of their seven digits they keep five.
    for last, weighed in (("0", weights), ("1e+10", last_sample(weights)[0])):
        case.compare(f"{model}.weights_last{last}", weighed, 1e-3)
        case.compare(f"{model}.T_last{last}", 1 - weights.sum(-1), 1e-3)
    weights = case.cast(case.outputs[f"{model}.weights_last0"])
    compare("fine_det", renderer.fine(t, weights, None))
    drawn = Replay([("importance", case.inputs[f"{model}.hierarchical_u"])])
    compare("fine_rand", renderer.fine(t, weights, drawn))


@torch.no_grad()
def camera_predictor(case: Case) -> None:
    weights = {n.removeprefix("camera_generator."): t for n, t in case.weights("").items()}
    table = [(r"first\.", "affine1."), (r"second\.", "affine2."), (r"last\.", "proj.")]
    for model in case.config["models"]:
        given = beside(case, "sampling").config["camera_kwargs"][model]
        poses = LearnedPoses(build_poses(given), CameraNetwork(len(weights["affine1.bias"])))
        fill(poses.network, weights, table)
        place = case.inputs[f"{model}.rand_mode"]
        moves = poses.moves(place)
        case.compare(f"{model}.pred", moves)
        drawn = [("camera", place)]
        poses.alpha.fill_(0.0)
        case.compare(f"{model}.c2w_alpha0", published_pose(poses(len(place), Replay(drawn))))
        poses.alpha.fill_(1.0)
        camera = poses(len(place), Replay(drawn))
        case.compare(f"{model}.c2w", published_pose(camera))
        moved = place + poses.strength * moves
        case.compare(f"{model}.mode", torch.cat([moved, torch.full((len(place), 1), 0.5)], 1))
        of = beside(case, "render" if model == "stylenerf_ffhq" else "render_cars").config["generator"]
        of = of | {"synthesis_kwargs": of["synthesis_kwargs"] | {"predict_camera": True}}
        generator = build(stylenerf.generator_config(of), nn.Module)
        assert isinstance(generator.poses, LearnedPoses)
        case.compare(f"{model}.num_ws", torch.tensor(generator.num_layers))
