"""Procedural cars: images without a download, rendered when they are first needed and kept in shards."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from datamodules.base import ImageData, to_bytes
from datamodules.car_renderer import VERSION, Views, car_attributes, car_camera, render_cars
from zoo.render.cameras import Camera
from zoo.utils.files import replacing
from zoo.utils.ranges import between

TRAIN_CARS, TEST_CARS = 20_000, 5_000
SHARD = 100  # cars of a file


def car_views(seed: int, split: str, indices: range, resolution: int) -> tuple[Views, Camera]:
    """Images and ground truth of these cars, and their cameras."""
    cars = [car_attributes(seed, split, index) for index in indices]
    cameras = [car_camera(seed, split, index) for index in indices]
    camera = Camera(*map(torch.cat, zip(*cameras, strict=True)))
    return render_cars(cars, camera, resolution), camera


class CarImages:
    """The first ``count`` cars of a split; a ``datamodules.base.Source``.

    Missing and broken shards are rendered at first use. Each is written to a temporary file and then renamed, so that
    an interrupted run leaves whole shards only, and the next one continues from them.

    Args:
        root: folder of the shards; those of other renderer versions, seeds and resolutions lie beside them.
        seed: of the cars.
        split: "train" or "test".
        count: number of cars.
    """

    def __init__(self, root: str | Path, seed: int, split: str, count: int) -> None:
        self.root, self.seed, self.split, self.count = Path(root), seed, split, count
        self.shards: dict[int, list[dict[str, Tensor]]] = {}  # by resolution

    def __len__(self) -> int:
        return self.count

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "shards": {}}  # mapped files are opened anew in every process

    def item(self, index: int, resolution: int) -> dict[str, Any]:
        if not 0 <= index < self.count:
            raise IndexError(f"There are {self.count} cars; {index} is not one of them.")
        shard = self.load(resolution)[index // SHARD]
        place = index % SHARD
        return {"image": shard["image"][place], "camera": Camera(shard["pose"][place], shard["intrinsics"][place])}

    def cameras(self, resolution: int) -> Camera:
        shards = self.load(resolution)
        pose, intrinsics = (torch.cat([shard[name] for shard in shards]) for name in ("pose", "intrinsics"))
        return Camera(pose, intrinsics).take(slice(self.count))

    def digest(self, resolution: int) -> str:
        return f"cars/{VERSION}/{self.seed}/{self.split}/{self.count}/{resolution}"

    def load(self, resolution: int) -> list[dict[str, Tensor]]:
        """All shards of a resolution, mapped into memory; rendered where they are missing or broken."""
        if resolution not in self.shards:
            paths = [self.path(resolution, number) for number in range(-(-self.count // SHARD))]
            found = [read_shard(path, resolution) for path in paths]
            missing = [number for number, shard in enumerate(found) if shard is None]
            for number in self.render(resolution, missing):
                found[number] = read_shard(paths[number], resolution)
            self.shards[resolution] = found
        return self.shards[resolution]

    def path(self, resolution: int, number: int) -> Path:
        folder = self.root / f"v{VERSION}-seed{self.seed}-{resolution}px"
        return folder / f"{self.split}-{number:04d}.safetensors"

    def render(self, resolution: int, numbers: list[int]) -> Iterator[int]:
        """Render and write these shards; yields each number when its file is there."""
        if not numbers:
            return
        batch = max(1, 40_000 // resolution**2)  # enough to be quick, few enough for the processor's cache
        title = f"rendering {self.split} cars at {resolution}x{resolution}"
        bar = {"unit": "car", "dynamic_ncols": True, "disable": None}  # None: in a terminal alone
        with tqdm(total=len(numbers) * SHARD, desc=title, **bar) as progress:

            def make(number: int) -> int:
                torch.set_num_threads(1)  # of this thread: two cars side by side are faster than two threads a car
                parts = []
                for first in range(number * SHARD, (number + 1) * SHARD, batch):
                    indices = range(first, min(first + batch, (number + 1) * SHARD))
                    views, camera = car_views(self.seed, self.split, indices, resolution)
                    parts.append((to_bytes(views.image), *camera))
                    progress.update(len(indices))
                image, pose, intrinsics = map(torch.cat, zip(*parts, strict=True))
                with replacing(self.path(resolution, number)) as path:
                    save_file({"image": image, "pose": pose, "intrinsics": intrinsics.contiguous()}, path)
                return number

            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                yield from pool.map(make, numbers)


def read_shard(path: Path, resolution: int) -> dict[str, Tensor] | None:
    """The tensors of a shard, mapped; None where the file is missing or broken."""
    try:
        shard = load_file(path)
    except (FileNotFoundError, SafetensorError):
        return None
    shapes = {"image": (SHARD, 3, resolution, resolution), "pose": (SHARD, 4, 4), "intrinsics": (SHARD, 3, 3)}
    return shard if {name: tuple(tensor.shape) for name, tensor in shard.items()} == shapes else None


class Cars(ImageData):
    """Procedural cars on white, seen from the upper hemisphere; scores compare with cars of the test split.

    Batches also hold "camera", a ``zoo.render.cameras.Camera``. Depth, mask, normals and attributes of the same cars
    come from ``car_views`` and ``datamodules.car_renderer.car_attributes``.

    Args:
        resolution: pixels each way.
        batch_size: images of a batch on each process.
        train_count, test_count: number of cars, up to 20,000 and 5,000.
        root: folder where rendered images are kept.
        car_seed: of the cars.
        options: as of ``ImageData``.
    """

    name = "cars"
    extractor = "cars"  # the network of zoo.evaluate that has learnt these images

    def __init__(
        self,
        resolution: int = 32,
        batch_size: int = 8,
        train_count: int = TRAIN_CARS,
        test_count: int = TEST_CARS,
        root: str = "data/cars",
        car_seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(resolution, batch_size, flip=False, **options)
        between(1, TRAIN_CARS, self, train_count=train_count)
        between(1, TEST_CARS, self, test_count=test_count)
        self.train_cars = CarImages(root, car_seed, "train", train_count)
        self.test_cars = CarImages(root, car_seed, "test", test_count)

    def prepare_data(self) -> None:
        """Render missing shards."""
        for resolution in sorted({stage.resolution for stage in self.stages}):
            self.train_cars.load(resolution)
        self.test_cars.load(self.resolution)

    def train_source(self) -> CarImages:
        return self.train_cars

    def val_source(self) -> CarImages:
        return self.test_cars
