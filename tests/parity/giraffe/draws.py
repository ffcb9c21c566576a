"""The published GIRAFFE's random numbers under our names."""

import torch
from torch import Tensor

from tests.parity.giraffe.build import EXISTENCE, reordered
from tests.parity.replay import Replay
from zoo.giraffe.scenes import Counts


def rendering_draws(recorded: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Draws of one published rendering, under our names."""
    jitter = recorded["jitter"]
    fields = sum(name.startswith("noise") for name in recorded)
    noise = [reordered(recorded[f"noise{i}"].reshape(jitter.shape)) for i in range(fields)]
    return [("jitter", reordered(jitter)), ("density_noise", torch.stack(noise, 1))]


def box_draws(recorded: dict[str, Tensor], count: int) -> list[tuple[str, Tensor]]:
    """Draws of boxes under our names; those of turns come scene after scene, box after box."""
    batch = len(recorded["box_scale"])
    turns = recorded["box_rot"][: batch * count].reshape(batch, count)
    scale, place = recorded["box_scale"][:, :count], recorded["box_trans"][:, :count]
    return [("box_scale", scale), ("box_place", place), ("box_rotation", turns)]


def camera_draws(recorded: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    return [("azimuth", recorded["u"]), ("polar", recorded["v"]), ("radius", recorded["radius"])]


CODES = {
    "z_shape_obj": "shape",
    "z_app_obj": "appearance",
    "z_shape_bg": "background_shape",
    "z_app_bg": "background_appearance",
}


def scene_draws(recorded: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Draws of one published generator call, under our names."""
    count = recorded["z_shape_obj"].shape[1]
    cameras = {name.removeprefix("cam_"): numbers for name, numbers in recorded.items()}
    # Without a range the published code draws no turn of the background.
    background = [("background_rotation", recorded.get("bg_rot", torch.zeros(())))]
    codes = [(ours, recorded[theirs]) for theirs, ours in CODES.items()]
    boxes = box_draws({**recorded, "box_rot": recorded["box_rot"].flatten()}, count)
    return [*codes, *camera_draws(cameras), *boxes, *background, *rendering_draws(recorded)]


def present(recorded: dict[str, Tensor], boxes: int) -> Tensor:
    """Which boxes hold an object, by our rule from recorded draws."""
    order = torch.ones(len(recorded["u"]), boxes)
    for row, count, choice in zip(order, recorded["n_objects"], recorded["choice"], strict=True):
        row[choice[:count]] = 0.0
    draws = Replay([("object_count", recorded["u"]), ("object_choice", order)])
    there = Counts(EXISTENCE)(len(order), boxes, draws)
    assert torch.equal(there.sum(1), recorded["n_objects"])
    return there
