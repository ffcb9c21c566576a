"""A contact sheet of procedural cars: ``python -m datamodules.car_sheet cars.png --resolution 64 --count 64``."""

import argparse
import math

import torch
from PIL import Image

from datamodules.base import to_bytes
from datamodules.cars import car_views
from zoo.utils.images import save_image


def car_sheet(count: int, resolution: int, seed: int = 0, split: str = "train") -> Image.Image:
    """The first cars of a split, in rows."""
    columns = math.isqrt(count - 1) + 1
    sheet = Image.new("RGB", (columns * resolution, -(-count // columns) * resolution), "white")
    for index in range(count):
        views, _ = car_views(seed, split, range(index, index + 1), resolution)
        image = Image.fromarray(to_bytes(views.image[0]).permute(1, 2, 0).numpy())
        sheet.paste(image, (index % columns * resolution, index // columns * resolution))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a contact sheet of procedural cars.")
    parser.add_argument("file", help="where to write it, e.g. cars.png")
    parser.add_argument("--resolution", type=int, default=64, help="pixels of each car")
    parser.add_argument("--count", type=int, default=64, help="number of cars")
    parser.add_argument("--seed", type=int, default=0, help="of the cars")
    parser.add_argument("--split", choices=["train", "test"], default="train")
    args = parser.parse_args()
    torch.set_num_threads(1)  # a single car is too little work to share
    save_image(args.file, car_sheet(args.count, args.resolution, args.seed, args.split))


if __name__ == "__main__":
    main()
