"""Cameras to look at: a box as they see it, also over an image, and the angles that they look from."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from zoo.render import Camera
from zoo.render.projection import image_coordinates

AXES = [("x", (200, 40, 40)), ("y", (30, 140, 60)), ("z", (40, 70, 210))]
# The twelve edges of a box whose corner i has the upper bound on axis a where bit a of i is set.
EDGES = [(i, i | 1 << a) for i in range(8) for a in range(3) if not i & 1 << a]
GAP, HEAD = 4, 18  # between cells, and above them for a title [pixels]
DOTS = [(31, 119, 180), (225, 110, 10), (60, 150, 60)]  # of one set of cameras after the other
SIDES = {-90: "back", 0: "right", 90: "front", 180: "left", 270: "back"}


class Block(NamedTuple):
    """Cells in rows, below a title."""

    title: str
    cells: Sequence[Image.Image]


def preview_sheet(
    camera: Camera, bounds: Tensor, images: list[Image.Image], size: int, columns: int = 4
) -> Image.Image:
    """The views of a box beside some images.

    Args:
        camera: N cameras.
        bounds: two corners of the box, [2, 3] [world units].
        images: of the data, of any size.
        size: side of each cell [pixels].
        columns: of each of both.
    """
    views = [draw_box(camera.take(slice(i, i + 1)), bounds, size) for i in range(len(camera.pose))]
    blocks = [Block("views of the prior", views), Block("images of the data", [r.resize((size, size)) for r in images])]
    return sheet([block for block in blocks if block.cells], columns)


def sheet(blocks: Sequence[Block], columns: int = 4) -> Image.Image:
    """Blocks beside one another; the cells of a block are of one size, and at most ``columns`` are in a row."""
    drawn = [block_image(block, columns) for block in blocks]
    gap = 4 * GAP
    width = sum(image.width for image in drawn) + gap * (len(drawn) - 1)
    whole = Image.new("RGB", (width, max(image.height for image in drawn)), "white")
    left = 0
    for image in drawn:
        whole.paste(image, (left, 0))
        left += image.width + gap
    return whole


def block_image(block: Block, columns: int) -> Image.Image:
    width, height = block.cells[0].size
    columns = min(columns, len(block.cells))
    rows = -(-len(block.cells) // columns)
    font = ImageFont.load_default()
    size = (
        max(columns * (width + GAP) - GAP, 4 + math.ceil(font.getlength(block.title))),
        HEAD + rows * (height + GAP),
    )
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).text((2, 3), block.title, fill="black", font=font)
    for i, cell in enumerate(block.cells):
        image.paste(cell, (i % columns * (width + GAP), HEAD + i // columns * (height + GAP)))
    return image


def draw_box(camera: Camera, bounds: Tensor, size: int, image: Image.Image | None = None) -> Image.Image:
    """The edges of a box and its three labelled axes from its middle, as one camera sees them; far edges are pale.

    Args:
        camera: one camera.
        bounds: two corners of the box, [2, 3] [world units].
        size: side of the image [pixels].
        image: that this camera took, to draw on; of any size.
    """
    if image is None:
        image = Image.new("RGB", (size, size), (247, 247, 247))
    image = image.resize((size, size))
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


def angle_plot(sets: Mapping[str, tuple[Tensor, Tensor]], width: int = 420, height: int = 300) -> Image.Image:
    """A dot for each camera: its yaw from the left to the right, its pitch from the top, straight above, downwards.

    Args:
        sets: yaw and pitch [N, 1] [rad] by a name for the legend; later ones are drawn above.
        width, height: of the plot [pixels].
    """
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    left, top, right, bottom = 34, 26, width - 12, height - 34
    low, high = -90, 270  # the front is in the middle

    def place(yaw: float, pitch: float) -> tuple[float, float]:
        return left + (yaw - low) / (high - low) * (right - left), top + pitch / 180 * (bottom - top)

    for yaw, side in SIDES.items():
        x = place(yaw, 0)[0]
        pen.line([x, top, x, bottom], fill=(225, 225, 225))
        pen.text((x, bottom + 4), f"{yaw}\n{side}", fill="black", anchor="ma", align="center")
    for pitch in range(0, 181, 45):
        y = place(0, pitch)[1]
        pen.line([left, y, right, y], fill=(170, 170, 170) if pitch == 90 else (225, 225, 225))
        pen.text((left - 5, y), str(pitch), fill="black", anchor="rm")
    x = left
    for (name, angles), colour in zip(sets.items(), DOTS, strict=False):
        for yaw, pitch in zip(*(angle.flatten().rad2deg().tolist() for angle in angles), strict=True):
            across, down = place((yaw - low) % 360 + low, pitch)
            pen.ellipse([across - 1.5, down - 1.5, across + 1.5, down + 1.5], fill=colour)
        pen.ellipse([x, 9, x + 8, 17], fill=colour)
        pen.text((x + 12, 13), name, fill="black", anchor="lm")
        x += 24 + math.ceil(pen.textlength(name))
    return image
