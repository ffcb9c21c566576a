"""A preview of the pose prior before training, beside images of the data."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from zoo.generator import draws_for
from zoo.render import Camera
from zoo.render.projection import image_coordinates
from zoo.utils.files import replacing
from zoo.utils.ranges import at_least

AXES = [("x", (200, 40, 40)), ("y", (30, 140, 60)), ("z", (40, 70, 210))]
# The twelve edges of a box whose corner i has the upper bound on axis a where bit a of i is set.
EDGES = [(i, i | 1 << a) for i in range(8) for a in range(3) if not i & 1 << a]


class PriorPreview(Callback):
    """Writes ``<run>/views.png`` at the start of training.

    Left: a box half as large as the object's bounds, and its axes, as cameras drawn from the pose prior see them (y is
    up, z points to the front). Right: images of the data. Where the boxes are turned quite differently from the
    objects in the images, change the poses in the config.

    Args:
        count: views, and images of the data; drawn in rows of four.
        size: side of each [pixels].
        seed: of the views.
    """

    def __init__(self, count: int = 16, size: int = 128, seed: int = 0) -> None:
        at_least(1, self, count=count, size=size)
        self.count, self.size, self.seed = count, size, seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir) / "views.png"
        generator = pl_module.generator
        with torch.no_grad():
            _, camera = generator.sample(self.count, draws_for(generator, self.seed, range(self.count)))
        images = real_images(trainer, self.count)
        bounds = generator.bounds.cpu()
        box = bounds.mean(0) + (bounds - bounds.mean(0)) / 2
        with replacing(path) as part:
            preview_sheet(camera.to("cpu"), box, images, self.size).save(part)


def real_images(trainer: Trainer, count: int) -> list[Image.Image]:
    """The first images of the validation set: its loader draws no random numbers; none where there is no such set."""
    from zoo.export.images import to_pil_image
    from zoo.generator import quantise

    source = trainer.datamodule
    dataset = getattr(source.val_dataloader(), "dataset", None) if source is not None else None
    if dataset is None:
        return []
    return [to_pil_image(quantise(dataset[i]["image"])) for i in range(min(count, len(dataset)))]


def preview_sheet(
    camera: Camera, bounds: Tensor, images: list[Image.Image], size: int, columns: int = 4
) -> Image.Image:
    """The views of a box beside some images.

    Args:
        camera: N cameras.
        bounds: two corners of the box, [2, 3] [world units].
        images: of the data, of any size.
        size: side of each cell [pixels].
    """
    views = [draw_box(camera.take(slice(i, i + 1)), bounds, size) for i in range(len(camera.pose))]
    blocks = [("views of the prior", views), ("images of the data", [r.resize((size, size)) for r in images])]
    blocks = [(title, cells) for title, cells in blocks if cells]
    gap, head = 4, 18
    pitch = size + gap
    rows = max(-(-len(cells) // columns) for _, cells in blocks)
    width = len(blocks) * (columns * pitch + 4 * gap) - 5 * gap
    sheet = Image.new("RGB", (width, head + rows * pitch), "white")
    pen = ImageDraw.Draw(sheet)
    for b, (title, cells) in enumerate(blocks):
        left = b * (columns * pitch + 4 * gap)
        pen.text((left + 2, 3), title, fill="black")
        for i, cell in enumerate(cells):
            sheet.paste(cell, (left + i % columns * pitch, head + i // columns * pitch))
    return sheet


def draw_box(camera: Camera, bounds: Tensor, size: int) -> Image.Image:
    """The edges of a box and its three labelled axes from its middle, as one camera sees them; far edges are pale."""
    image = Image.new("RGB", (size, size), (247, 247, 247))
    pen = ImageDraw.Draw(image)
    corners = torch.stack([torch.stack([bounds[i >> a & 1, a] for a in range(3)]) for i in range(8)])
    distance = (corners - camera.origins).norm(dim=-1)
    places = (image_coordinates(camera, 0, corners) * size).tolist()
    for i, j in sorted(EDGES, key=lambda edge: -float(distance[list(edge)].mean())):
        if all(value == value for value in places[i] + places[j]):
            near = distance[[i, j]].mean() < distance.mean()
            pen.line([*places[i], *places[j]], fill=(90, 90, 90) if near else (195, 195, 195), width=1)
    middle = bounds.mean(0)
    reach = torch.diag((bounds[1] - bounds[0]) / 2)
    start, *tips = (image_coordinates(camera, 0, torch.cat([middle[None], middle + reach])) * size).tolist()
    order = (middle + reach - camera.origins).norm(dim=-1).argsort(descending=True).tolist()
    for a in order:
        name, colour = AXES[a]
        if all(value == value for value in start + tips[a]):
            pen.line([*start, *tips[a]], fill=colour, width=3)
            pen.text((tips[a][0] + 2, tips[a][1] - 6), name, fill=colour)
    return image
