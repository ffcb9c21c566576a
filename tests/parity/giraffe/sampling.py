"""Cases of cameras, boxes, codes and depths."""

import math
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from tests.parity.giraffe.build import build_boxes, build_generator, build_poses, reordered, world_mat
from tests.parity.giraffe.draws import box_draws, camera_draws, present
from tests.parity.giraffe.networks import numbers_after
from tests.parity.harness import Case
from tests.parity.replay import Replay
from zoo.giraffe.rendering import StratifiedDepths
from zoo.giraffe.scenes import BoxPrior, ScenePoses, are_free, vertical_rotation
from zoo.render import Samples, pixel_corners


@torch.no_grad()
def sampling(case: Case) -> None:
    inputs = case.inputs
    for name, config in case.config["configs"].items():
        boxes, poses = build_boxes(config["bb"]), build_poses(config["gen"])
        cameras(case, name, poses)
        polar = numbers_after(case, f"{name}.get_camera", "val_v = ")
        chosen = poses.at(torch.full_like(polar, 0.5), polar, torch.full_like(polar, 0.5))
        case.compare(f"{name}.get_camera", world_mat(chosen, poses))
        inverse = torch.eye(4)[None]
        inverse[:, 0, 0] = inverse[:, 1, 1] = 1 / (2 * chosen.intrinsics[0, 0, 0])
        case.compare(f"{name}.camera_mat", inverse)
        drawn = boxes(case.config["batch"], Replay(box_draws(inputs, boxes.count)))
        chosen = boxes.at(*(inputs[key][None, : boxes.count] for key in ("val_s", "val_t", "val_r")))
        for key, ours, given in zip("stR", drawn, chosen, strict=True):
            case.compare(f"{name}.{key}", ours)
            case.compare(f"{name}.get_{key}", given)
        first, last = config["gen"].get("backround_rotation_range", (0.0, 0.0))
        if f"{name}.bg_rotation" in case.outputs:
            rotation = vertical_rotation(first + inputs["bg_u"] * (last - first))[None]
            case.compare(f"{name}.get_bg_rotation", rotation)
            case.compare(f"{name}.bg_rotation", rotation.expand_as(case.outputs[f"{name}.bg_rotation"]))

    # The arguments of these calls are not in the case; they were read off its numbers.
    wide = ScenePoses((0.1, 0.7), (0.2, 0.6), (2.0, 3.5))
    cameras(case, "wide", wide)
    case.compare("wide.middle_pose", world_mat(wide(1, None), wide))
    batch = case.config["batch"]
    count = inputs["col_scale"].shape[1]
    apart = BoxPrior(
        count, (0.1,) * 3, (0.2, 0.3, 0.15), (-0.5, -0.5, 0.0), (0.5, 0.5, 0.2), one_scale=False, margin=0.1
    )
    trials = [(f"box_place_{i}" if i else "box_place", t) for i, t in enumerate(inputs["col_trans"])]
    turns = inputs["box_rot"][: count * batch]
    draws = Replay([("box_scale", inputs["col_scale"]), *trials, ("box_rotation", turns)])
    for key, ours in zip("stR", apart(batch, draws), strict=True):
        case.compare(f"collision.{key}", ours)
    assert draws.used_up()
    draws = Replay([("box_scale", inputs["col_scale"]), trials[0], ("box_rotation", turns)])
    once = BoxPrior(count, apart.scale_min, apart.scale_max, apart.place_min, apart.place_max, one_scale=False)(
        batch, draws
    )
    case.compare("collision.is_free_first", are_free(once.scale, once.place, 0.1))
    case.compare("collision.is_free_3boxes", are_free(inputs["col3_s"], inputs["col3_t"], 0.1))

    with TemporaryDirectory() as folder:
        path = Path(folder) / "coordinates.npz"
        np.savez(path, coordinates=inputs["prior_raw"].cpu().numpy())
        count = inputs["prior_raw"].shape[1]
        of = next(of["bb"] for of in case.config["configs"].values() if of["bb"].get("n_boxes", 1) == count)
        boxes = build_boxes({**of, "prior_npz_file": path})
        scene = (inputs["prior_idx"].double() + 0.5) / len(inputs["prior_raw"])
        draws = Replay([*box_draws(inputs, boxes.count), ("box_scene", scene)])
        for key, ours in zip("stR", boxes(batch, draws), strict=True):
            case.compare(f"prior.{key}", ours)
    case.compare("exist.mask", present(case.block("exist."), case.outputs["exist.mask"].shape[1]))
    marching(case)
    latents(case)
    in_range(case)


def cameras(case: Case, name: str, poses: ScenePoses) -> None:
    """Cameras drawn together and one by one."""

    def drawn(part: slice) -> Tensor:
        recorded = [(key, numbers[part]) for key, numbers in camera_draws(case.inputs)]
        camera = poses.together(len(recorded[0][1]), Replay(recorded))
        return world_mat(camera, poses, camera.origins.norm(dim=-1).max())

    case.compare(f"{name}.world_mat", drawn(slice(None)))
    if f"{name}.world_mat_one_at_a_time" in case.outputs:
        batch = range(case.config["batch"])
        case.compare(f"{name}.world_mat_one_at_a_time", torch.cat([drawn(slice(i, i + 1)) for i in batch]))
    if f"{name}.world_mat_inverted" in case.outputs:
        few = len(case.outputs[f"{name}.world_mat_inverted"])
        case.compare(f"{name}.world_mat_inverted", torch.linalg.inv(drawn(slice(None)))[:few])


def marching(case: Case) -> None:
    """Depths and the grid of pixels."""
    shape = case.outputs["depths"].shape
    rays = Samples(torch.zeros(*shape[:2], 3), torch.ones(*shape[:2], 3), torch.zeros(*shape[:2], 1))
    depths = StratifiedDepths(0.5, 6.0, shape[2])
    case.compare("depths", depths(rays, None).t)
    case.compare("depths_jittered", depths(rays, Replay([("jitter", case.inputs["jitter"])])).t)
    film = pixel_corners(math.isqrt(case.outputs["pixels"].shape[1]))[None]
    case.compare("pixels", reordered(film * torch.tensor([1.0, -1.0])))  # before its rows are turned upside down


def latents(case: Case) -> None:
    """Codes at two temperatures: our truncation."""
    lat = [case.inputs[f"lat{i}"] for i in range(4)]
    batch, count, size = lat[0].shape
    config = {
        "z_dim": size,
        "z_dim_bg": lat[2].shape[1],
        "decoder_kwargs": {"hidden_size": 4},
        "background_generator_kwargs": {"hidden_size": 4},
        "bounding_box_generator_kwargs": {"n_boxes": count},
        "neural_renderer_kwargs": {},
        "generator_kwargs": {},
    }
    generator = build_generator(config)
    names = ("shape", "appearance", "background_shape", "background_appearance")
    rest = [("box_scale", torch.zeros(batch, count)), ("box_place", torch.zeros(batch, count, 3))]
    rest += [("box_rotation", torch.zeros(batch, count)), ("background_rotation", torch.zeros(batch))]
    drawn = generator.latents(batch, Replay([*zip(names, lat, strict=True), *rest]))
    for temperature in dict.fromkeys(re.findall(r"latent_tmp([\d.]+)\.", " ".join(case.outputs))):
        scaled = generator.map(drawn, truncation=float(temperature))
        for key, ours in zip(("shape_obj", "app_obj", "shape_bg", "app_bg"), scaled, strict=False):
            case.compare(f"latent_tmp{temperature}.{key}", ours)


def in_range(case: Case) -> None:
    """Boxes between chosen shares of their ranges."""
    batch, count = case.outputs["in_range.s"].shape[:2]
    boxes = build_boxes({**case.config["configs"]["cars_64"]["bb"], "n_boxes": count})
    scale, place, turn = case.inputs["range_u"].reshape(batch, -1).split([3 * count, 3 * count, count], dim=1)
    scale, place = (x.unflatten(1, (count, 3)) for x in (scale, place))
    shares = [low + (high - low) * x for (low, high), x in zip(IN_RANGE, (scale, place, turn), strict=True)]
    for key, ours in zip("stR", boxes.at(*shares), strict=True):
        case.compare(f"in_range.{key}", ours)


IN_RANGE = ((0.0, 0.5), (0.2, 0.8), (0.0, 0.3))
