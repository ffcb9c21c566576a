"""What ``zoo data check`` draws, and the cameras of an experiment that it compares with."""

import math
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from datamodules.data_check import angles
from datamodules.images import ImageFiles
from zoo.export.cameras import Block, angle_plot, draw_box, sheet
from zoo.export.images import to_pil_image
from zoo.generator import Generator, draws_for
from zoo.render import Camera, DatasetPoses, orbit_around
from zoo.utils.errors import UserError
from zoo.utils.paths import read_experiment
from zoo.weights.bundle import build

COUNT, SIZE = 16, 128  # images that are drawn, and the side of each [pixels]
DRAWN = 1024  # cameras of a prior, and at most so many of the images


class Prior(NamedTuple):
    """Cameras drawn from an experiment's pose prior, and the box of its objects [2, 3] [world units]."""

    camera: Camera
    bounds: Tensor


def prior_of(experiment: str) -> Prior:
    """The pose prior of an experiment.

    Raises:
        UserError: it names no generator, or one whose cameras are those of the images themselves.
    """
    model = read_experiment(experiment).get("model")
    config = model.get("init_args", {}).get("generator") if isinstance(model, dict) else None
    if not isinstance(config, dict):
        raise UserError(f"'{experiment}' names no generator (model.init_args.generator), so it says no cameras.")
    generator: Generator = build(config, Generator)
    if any(isinstance(part, DatasetPoses) for part in generator.modules()):
        raise UserError(f"that of {experiment} is the cameras of the images it trains on, so each image needs one")
    with torch.no_grad():
        _, camera = generator.sample(DRAWN, draws_for(generator, 0, range(DRAWN)))
    return Prior(camera, generator.bounds)


def draw_sheet(files: ImageFiles, resolution: int, prior: Prior | None) -> Image.Image:
    """Some images, evenly spaced; with cameras a box on each as it sees it, and where all of them look from."""
    count = len(files)
    some = [i * count // min(COUNT, count) for i in range(min(COUNT, count))]
    items = [files.item(i, resolution) for i in some]
    images = [to_pil_image(item["image"]).resize((SIZE, SIZE)) for item in items]
    known = files.cameras(resolution)
    sets = {}
    if known is not None:
        sets[f"images ({count:,})"] = angles(known.take(slice(None, None, -(-count // DRAWN))))
    title = f"{len(some)} of {count:,} images"
    if known is not None:
        bounds = box_of(known) if prior is None else halved(prior.bounds)
        cameras = [Camera(*(part[None] for part in item["camera"])) for item in items]
        images = [draw_box(camera, bounds, SIZE, image) for camera, image in zip(cameras, images, strict=True)]
        title += ", and a box as their cameras see it"
    blocks = [Block(title, images)]
    if prior is not None:
        views = [draw_box(prior.camera.take(slice(i, i + 1)), halved(prior.bounds), SIZE) for i in range(len(some))]
        blocks.append(Block("the box as cameras of the prior see it", views))
        sets = {f"prior ({DRAWN:,} drawn)": angles(prior.camera)} | sets
    if sets:
        blocks.append(Block("yaw and pitch of the cameras [degrees]", [angle_plot(sets)]))
    return sheet(blocks)


def halved(bounds: Tensor) -> Tensor:
    """A box half as large round the same middle."""
    return bounds.mean(0) + (bounds - bounds.mean(0)) / 2


def box_of(camera: Camera) -> Tensor:
    """A box round what cameras look at, which fills about half of their images, [2, 3]."""
    orbit = orbit_around(camera)
    half = 0.4 * orbit.radius * math.tan(math.radians(orbit.fov_deg) / 2)
    return torch.tensor(orbit.pivot) + half * torch.tensor([[-1.0], [1.0]])
