"""Cases of cameras, rays, depths and mixed codes."""

from types import SimpleNamespace

import torch
from torch import Tensor

from tests.parity.harness import Case
from tests.parity.replay import Replay
from tests.parity.stylesdf.build import camera_from, make_generator, make_poses, near_far
from tests.parity.stylesdf.draws import recorded
from tests.parity.stylesdf.rendering import compare_all
from zoo.render import Camera, GaussianPoses, UniformPoses
from zoo.stylesdf.extras import published_pose, sweep
from zoo.stylesdf.model import Generator
from zoo.stylesdf.stages import ImageStage
from zoo.stylesdf.training import StyleSDF, pose_of


@torch.no_grad()
def sampling(case: Case) -> None:
    angles, generator = case.config["camera"], make_generator(case)
    low, (near, far) = generator.render_side, near_far(case)
    cameras: dict[str, Camera] = {}
    for name, kind in {"gaussian": GaussianPoses, "uniform": UniformPoses}.items():
        azimuth, elevation = (1 - x if name == "uniform" else -x for x in case.draws(f"{name}.draw"))
        cameras[name] = make_poses(case, kind)(len(azimuth), Replay([("yaw", azimuth), ("pitch", elevation)]))
        case.compare(f"{name}.viewpoint", pose_of(cameras[name]))
    (above,) = case.draws("sweep.draw")
    pairs = {name: case.inputs[f"{name}.locations"].split(1, dim=1) for name in ("fixed", "poles")}
    pairs["sweep"] = sweep(len(above), angles["azim"], angles["elev"], Replay([("elevation", above)]))
    for name, pair in pairs.items():
        case.compare(f"{name}.viewpoint", torch.cat(pair, dim=1))
        focal = cameras["gaussian"].intrinsics[:1, 0, 0].expand(len(pair[0]))
        cameras[name] = camera_from(published_pose(*pair)[:, :3], focal)
    for name, camera in cameras.items():
        case.compare(f"{name}.c2w", camera.pose[:, :3])
        case.compare(f"{name}.focal", low * camera.intrinsics[:, 0, 0].view(-1, 1, 1))
        for limit, value in (("near", near), ("far", far)):
            case.compare(f"{name}.{limit}", torch.full_like(case.outputs[f"{name}.{limit}"], value))
    for start, static in (("rays.", False), ("rays_static.", True)):
        ours = rendered_rays(make_generator(case, static_viewdirs=static), cameras["gaussian"], low)
        compare_all(case, start, ours)
    for start, off in (("offset.", False), ("none.", False), ("stratified.", True), ("stratified_none.", True)):
        depths = make_generator(case, no_offset_sampling=off).renderer.depths
        draws = Replay(recorded(case, f"{start}draw")) if case.draws(f"{start}draw") else None
        t = depths(generator.rays(cameras["gaussian"], low), draws).t
        case.compare(f"{start}z_vals", t.unflatten(1, (low, low)))
    mixing(case, generator)


def rendered_rays(generator: Generator, camera: Camera, side: int) -> dict[str, Tensor]:
    """Rays and directions as the field sees them."""
    rays = generator.rays(camera, side)
    rotation = generator.field.condition(torch.zeros(len(camera.pose), generator.field.style_dim), camera.pose).rotation
    seen = rays.directions if rotation is None else rays.directions @ rotation
    named = {"origins": rays.origins, "directions": rays.directions, "viewdirs": seen / seen.norm(dim=-1, keepdim=True)}
    return {name: value.unflatten(1, (side, side)) for name, value in named.items()}


def mixing(case: Case, generator: Generator) -> None:
    """Codes that are drawn for the decoder's layers."""
    numbers = iter(case.draws("mixing"))
    for i in dict.fromkeys(name.split(".")[1] for name in case.outputs if name.startswith("mixing.")):
        probability = case.number(f"mixing.{i}.count", r"probability ([\d.]+)")
        coin = next(numbers) if probability > 0 else torch.zeros(())
        codes = next(numbers).view(-1, *case.outputs[f"mixing.{i}.z0"].shape)
        names = ["z", "mixed_z"][: len(codes)]
        z: list[Tensor] = []
        generator.mapping.forward = lambda x, z=z: z.append(x) or x
        angles = [(name, torch.zeros(len(codes[0]), 1)) for name in ("yaw", "pitch")]
        draws = Replay([("mixing", coin), *zip(names, codes, strict=True), *angles])
        StyleSDF.objects(SimpleNamespace(generator=generator), ImageStage(mixing=probability), len(codes[0]), draws)
        case.compare(f"mixing.{i}.count", torch.tensor(len(z)))
        for k, code in enumerate(z):
            case.compare(f"mixing.{i}.z{k}", code)
