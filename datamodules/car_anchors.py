"""Two reference sets between which scores of procedural cars lie: other cars, and ellipsoids of their colours.

``python -m datamodules.car_anchors anchors --resolution 64 --count 5000`` writes ``anchors/train-cars``, the first cars
of the train split, and ``anchors/ellipsoids``: for each of those cars, from its own camera, one ellipsoid as long, wide
and high as the car, in the mean colour of its image. What has learned only size and colour scores like the second.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from datamodules.base import to_bytes
from datamodules.car_renderer import Car, car_attributes, pixel_rays
from datamodules.cars import car_views
from zoo.render.cameras import Camera
from zoo.utils.images import save_image


def ellipsoids(cars: list[Car], colours: Tensor, camera: Camera, resolution: int, samples: int = 3) -> Tensor:
    """Images [B, 3, H, W] in [0, 1] of an ellipsoid for each car, on white.

    Args:
        cars: whose length, width and height they have.
        colours: [B, 3] in [0, 1].
        camera: one camera for each car.
        resolution: pixels each way.
        samples: rays a pixel each way.
    """
    axes = torch.tensor([[car.shape.half_width, car.shape.height / 2, car.shape.half_length] for car in cars])
    directions = pixel_rays(camera, resolution, samples).mT / axes[:, None]
    origins = (camera.origins / axes)[:, None]
    a, b = directions.square().sum(-1), (origins * directions).sum(-1)
    hit = (b.square() - a * (origins.square().sum(-1) - 1) > 0).float()  # meets the unit sphere of the stretched space
    grid = hit.view(len(cars), 1, resolution, samples, resolution, samples)
    mask = grid.mean((3, 5))
    return 1 - mask + mask * colours[:, :, None, None]


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the images of both anchors.")
    parser.add_argument("folder", type=Path, help="where to write them")
    parser.add_argument("--resolution", type=int, default=64, help="pixels of each image")
    parser.add_argument("--count", type=int, default=5000, help="number of cars")
    parser.add_argument("--seed", type=int, default=0, help="of the cars")
    args = parser.parse_args()
    batch = max(1, 40_000 // args.resolution**2)
    for first in tqdm(range(0, args.count, batch), unit_scale=batch, unit="car"):
        indices = range(first, min(first + batch, args.count))
        views, camera = car_views(args.seed, "train", indices, args.resolution)
        light = (views.image - (1 - views.mask)).sum((2, 3)) / views.mask.sum((2, 3))
        cars = [car_attributes(args.seed, "train", index) for index in indices]
        ellipsoid_images = ellipsoids(cars, light, camera, args.resolution)
        for name, images in (("train-cars", views.image), ("ellipsoids", ellipsoid_images)):
            for index, image in zip(indices, images, strict=True):
                drawn = Image.fromarray(to_bytes(image).permute(1, 2, 0).numpy())
                save_image(args.folder / name / f"{index:05d}.png", drawn, durable=False)


if __name__ == "__main__":
    main()
