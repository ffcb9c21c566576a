"""Makes the weights that tell the cameras of procedural cars: ``python -m zoo.evaluate.train_cars_camera``.

A small head on the convolutions of the extractor ``cars``, which stay as they are, learns from where an image of a car
was taken, at 32x32 and 64x64. It sees cars of the train split only, and their mirror images; its errors on the test
split are printed. Images are rendered once and kept.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from zoo.evaluate.cars_network import CarsCamera, rotations_from
from zoo.evaluate.extractors import CAMERA_WEIGHTS, cars_network
from zoo.evaluate.metrics.camera_error import rotation_angles
from zoo.evaluate.train_cars_features import LabelledImages, labelled_images
from zoo.utils.files import replacing
from zoo.weights.fetch import sha256_of


def directions_of(attributes: Tensor) -> Tensor:
    """Unit vectors [N, 3] from cars to their cameras, of attributes [N, 16]."""
    cos, sin, height = attributes[:, 13:].unbind(1)
    flat = (1 - height.square()).clamp(min=0).sqrt()
    return torch.stack([flat * sin, height, flat * cos], dim=1)


def train(camera: CarsCamera, sets: list[LabelledImages], epochs: int, batch: int = 128) -> None:
    """Train the head; the loss is the distance between directions, not its square, so that few images weigh less."""
    maps, directions = [], []
    for images, attributes, _ in sets:
        for shown, side in ((images, 1.0), (images.flip(-1), -1.0)):
            with torch.no_grad():
                maps += [camera.network.maps(part) for part in shown.split(256)]
            directions.append(directions_of(attributes) * torch.tensor([side, 1.0, 1.0]))
    inputs, targets = torch.cat(maps), torch.cat(directions)
    optimizer = torch.optim.AdamW(camera.head.parameters(), lr=3e-3, weight_decay=1e-2)
    steps = epochs * (len(inputs) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    camera.head.train()
    for _ in tqdm(range(epochs), desc="training"):
        for rows in torch.randperm(len(inputs))[: len(inputs) // batch * batch].split(batch):
            loss = (camera.head(inputs[rows]) - targets[rows]).square().sum(1).add(1e-6).sqrt().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    camera.eval()


@torch.no_grad()
def report(camera: CarsCamera, test_set: LabelledImages) -> None:
    """Print angles between cameras of images that were not learnt and those that are read off them."""
    images, attributes, _ = test_set
    rotations = torch.cat([camera(part) for part in images.split(256)])
    angles = rotation_angles(rotations, rotations_from(directions_of(attributes))).rad2deg()
    most = angles.quantile(0.95)
    print(f"test split, {len(images)} images of {images.shape[-1]}x{images.shape[-1]}: ", end="")
    print(f"mean {angles.mean():.2f} degrees, median {angles.median():.2f}, 95 % below {most:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--count32", type=int, default=5000, help="images of 32x32 to learn from")
    parser.add_argument("--count64", type=int, default=2500, help="images of 64x64 to learn from")
    parser.add_argument("--held-out", type=int, default=500, help="test images of each size")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--root", type=Path, default=Path("data/cars"), help="folder of rendered cars")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=CAMERA_WEIGHTS)
    args = parser.parse_args()
    torch.set_num_threads(1)  # the same weights on every machine with the same kernels
    sets = [
        labelled_images(args.root, "train", args.count32, 32),
        labelled_images(args.root, "train", args.count64, 64),
    ]
    torch.manual_seed(args.seed)
    camera = CarsCamera(cars_network())
    train(camera, sets, args.epochs)
    for resolution in (32, 64):
        report(camera, labelled_images(args.root, "test", args.held_out, resolution))
    with replacing(args.out) as part:
        save_file({name: tensor.contiguous() for name, tensor in camera.head.state_dict().items()}, part)
    print(f"{args.out}: {args.out.stat().st_size} bytes, sha256 {sha256_of(args.out)}")
    print("Put that sha256 into CAMERA_SHA256 of zoo/evaluate/extractors.py.")


if __name__ == "__main__":
    main()
