"""Makes the weights of the extractor ``cars``: ``python -m zoo.evaluate.train_cars_features``.

A small network learns to read the attributes of procedural cars (proportions, colours, kind, camera) from their
images, at 32x32 and 64x64. It sees cars of the train split only; its errors on the test split are printed, beside
those of always answering the mean. Images are rendered once and kept.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss, normalize
from tqdm import tqdm

from datamodules.car_renderer import car_attributes
from datamodules.cars import CarImages
from zoo.evaluate.cars_network import KINDS, CarsNetwork
from zoo.evaluate.extractors import CARS_WEIGHTS
from zoo.utils.files import replacing
from zoo.weights.fetch import sha256_of

PROPORTIONS = ("half_length", "half_width", "height", "deck", "windscreen", "rear", "wheel_radius")
TARGETS = (
    *PROPORTIONS,
    *("paint_red", "paint_green", "paint_blue", "roof_red", "roof_green", "roof_blue"),
    *("cos_yaw", "sin_yaw", "height_of_view"),
)
LabelledImages = tuple[Tensor, Tensor, Tensor]  # uint8 images [N, 3, H, W], attributes [N, 16], kinds [N]


def labelled_images(root: Path, split: str, count: int, resolution: int) -> LabelledImages:
    """The first cars of a split, rendered where they are not there yet."""
    cars = CarImages(root, 0, split, count)
    images, targets, kinds = [], [], []
    for index in range(count):
        item, car = cars.item(index, resolution), car_attributes(0, split, index)
        x, y, z = normalize(item["camera"].pose[:3, 3], dim=0).tolist()
        flat = max((x * x + z * z) ** 0.5, 1e-6)
        proportions = [getattr(car.shape, name) for name in PROPORTIONS]
        targets.append([*proportions, *car.paint, *car.roof, z / flat, x / flat, y])
        kinds.append(KINDS.index(car.kind))
        images.append(item["image"])
    return torch.stack(images), torch.tensor(targets), torch.tensor(kinds)


def train(sets: list[LabelledImages], epochs: int, seed: int, batch: int = 64) -> tuple[CarsNetwork, Tensor, Tensor]:
    """The network, and the mean and standard deviation [16] that its targets are standardised with."""
    torch.manual_seed(seed)
    network = CarsNetwork()
    every = torch.cat([targets for _, targets, _ in sets])
    mean, std = every.mean(0), every.std(0)
    batches_per_epoch = sum(len(images) // batch for images, _, _ in sets)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * batches_per_epoch)
    progress = tqdm(range(epochs), desc="training")
    for _ in progress:
        batches = [(s, rows) for s in sets for rows in torch.randperm(len(s[0])).split(batch) if len(rows) == batch]
        for choice in torch.randperm(len(batches)).tolist():
            (images, targets, kinds), rows = batches[choice]
            guess, logits = network.attributes(images[rows])
            loss = mse_loss(guess, (targets[rows] - mean) / std) + 0.3 * cross_entropy(logits, kinds[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}")
    return network.eval(), mean, std


@torch.no_grad()
def report(network: CarsNetwork, test_set: LabelledImages, mean: Tensor, std: Tensor) -> None:
    """Print mean absolute errors, beside those of always answering the mean."""
    images, targets, kinds = test_set
    outputs = [network.attributes(part) for part in images.split(256)]
    guess = torch.cat([targets for targets, _ in outputs]) * std + mean
    logits = torch.cat([logits for _, logits in outputs])
    error, naive = (guess - targets).abs().mean(0), (mean - targets).abs().mean(0)
    print(f"test split, {len(images)} images of {images.shape[-1]}x{images.shape[-1]}: mean absolute error")
    for row in zip(TARGETS, error.tolist(), naive.tolist(), strict=True):
        print("  {:14s} {:.4f}   (always the mean: {:.4f})".format(*row))
    yaw = torch.atan2(guess[:, 14], guess[:, 13]) - torch.atan2(targets[:, 14], targets[:, 13])
    yaw = torch.atan2(yaw.sin(), yaw.cos()).abs().rad2deg()
    print(f"  yaw            {yaw.mean():.1f} degrees, median {yaw.median():.1f}   (chance: 90)")
    print(f"  kind           {(logits.argmax(1) == kinds).float().mean():.1%} right   (chance: {1 / len(KINDS):.1%})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--count32", type=int, default=5000, help="images of 32x32 to learn from")
    parser.add_argument("--count64", type=int, default=2500, help="images of 64x64 to learn from")
    parser.add_argument("--held-out", type=int, default=500, help="test images of each size")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--root", type=Path, default=Path("data/cars"), help="folder of rendered cars")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=CARS_WEIGHTS)
    args = parser.parse_args()
    torch.set_num_threads(1)  # the same weights on every machine with the same kernels
    sets = [
        labelled_images(args.root, "train", args.count32, 32),
        labelled_images(args.root, "train", args.count64, 64),
    ]
    network, mean, std = train(sets, args.epochs, args.seed)
    for resolution in (32, 64):
        report(network, labelled_images(args.root, "test", args.held_out, resolution), mean, std)
    with replacing(args.out) as part:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, part)
    print(f"{args.out}: {args.out.stat().st_size} bytes, sha256 {sha256_of(args.out)}")
    print("Put that sha256 into CARS_SHA256 of zoo/evaluate/extractors.py, and run zoo.evaluate.train_cars_camera.")


if __name__ == "__main__":
    main()
