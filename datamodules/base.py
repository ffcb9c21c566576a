"""Base of all datamodules: an endless, exactly resumable training loader, and the loader for scores.

Training never ends an epoch: batch k is a pure function of (seed, k, rank, number of processes), so that a resumed run
continues with exactly the next batch of the interrupted one. Random numbers of an item are a function of
its draw number, not of any global random state, so that workers change nothing.

B batch, H height, W width
"""

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from zoo.draws import stream_seed
from zoo.render.cameras import Camera
from zoo.utils.errors import UserError
from zoo.utils.ranges import at_least
from zoo.utils.readers import chosen_workers, loader
from zoo.utils.states import check_state
from zoo.utils.threads import cpus_of_each

log = logging.getLogger(__name__)


class Source(Protocol):
    """Images by index."""

    def __len__(self) -> int: ...

    def item(self, index: int, resolution: int) -> dict[str, Any]:
        """{"image": uint8 [3, resolution, resolution]} and whatever else belongs to that image.

        A "camera" is a ``zoo.render.Camera`` of one image; it is mirrored with the image.
        """
        ...

    def digest(self, resolution: int) -> str:
        """Changes whenever an image does."""
        ...


@runtime_checkable
class HasCameras(Protocol):
    """A source that may know the camera of each image."""

    def cameras(self, resolution: int) -> Camera | None:
        """The cameras of all images, N of them, or None."""
        ...


class Key(NamedTuple):
    """Key of a training item: index of the image, number of this draw since the start of training, resolution."""

    index: int
    draw: int
    resolution: int


class Stage(NamedTuple):
    """From batch ``start`` on, batches have this resolution and, on each process, this size."""

    start: int
    resolution: int
    batch_size: int


def read_stages(stages: dict[int, dict[str, int]] | None, resolution: int, batch_size: int) -> list[Stage]:
    """The stages in order; a single one without any.

    Raises:
        UserError: no stage starts at batch 0, a key is unknown, or a number is not positive.
    """
    stages = stages or {0: {}}
    read = []
    for start, settings in sorted((int(start), settings) for start, settings in stages.items()):
        unknown = set(settings) - {"resolution", "batch_size"}
        if unknown:
            raise UserError(
                f"The stage from batch {start} sets {sorted(unknown)}; only resolution and batch_size can be."
            )
        read.append(Stage(start, settings.get("resolution", resolution), settings.get("batch_size", batch_size)))
        sizes = zip(("resolution", "batch_size"), read[-1][1:], strict=True)
        at_least(1, **{f"{name} of the stage from batch {start}": size for name, size in sizes})
    if read[0].start != 0:
        raise UserError(f"The first stage starts at batch {read[0].start}, but one must start at 0.")
    return read


class EndlessBatches(Sampler[list[Key]]):
    """Endless batches; every image once an epoch, in a new random order for each.

    The same images make up batch k of one process with batches of 8 and of two processes with batches of 4.

    Args:
        size: number of images.
        stages: resolutions and batch sizes, in order.
        seed: of the order.
        rank, world: this process and the number of processes.
        start: number of batches to skip, called whenever iteration starts.
    """

    def __init__(
        self, size: int, stages: list[Stage], seed: int, rank: int = 0, world: int = 1, start: Callable[[], int] = int
    ) -> None:
        self.size, self.stages, self.seed, self.rank, self.world, self.start = size, stages, seed, rank, world, start
        self._order = lru_cache(maxsize=2)(self._make_order)

    def _make_order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(stream_seed("order", self.seed, epoch))
        return torch.randperm(self.size, generator=generator)

    def batch(self, k: int) -> list[Key]:
        """Batch k of this process."""
        draws, stage = 0, self.stages[0]
        for next_stage in self.stages[1:]:
            if next_stage.start > k:
                break
            draws += (next_stage.start - stage.start) * stage.batch_size * self.world
            stage = next_stage
        draws += (k - stage.start) * stage.batch_size * self.world
        keys = []
        for draw in range(draws + self.rank, draws + stage.batch_size * self.world, self.world):
            epoch, place = divmod(draw, self.size)
            keys.append(Key(int(self._order(epoch)[place]), draw, stage.resolution))
        return keys

    def __iter__(self) -> Iterator[list[Key]]:
        k = self.start()
        while True:
            yield self.batch(k)
            k += 1


class ImageDataset(Dataset):
    """Items of a source, by ``Key`` in training and by plain index otherwise; images become floats in [-1, 1].

    Args:
        resolution: of items read by plain index.
        flip_seed: of random horizontal flips, with probability 1/2; None for no flips.
    """

    def __init__(self, source: Source, resolution: int, flip_seed: int | None = None) -> None:
        self.source, self.resolution, self.flip_seed = source, resolution, flip_seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: int | Key) -> dict[str, Any]:
        index, draw, resolution = key if isinstance(key, tuple) else (key, None, self.resolution)
        item = self.read(index, draw, resolution)
        if draw is not None and self.flip_seed is not None and stream_seed("flip", self.flip_seed, draw) % 2:
            item |= mirrored(item)
        return {**item, "image": item["image"] / 127.5 - 1, "index": index}

    def read(self, index: int, draw: int | None, resolution: int) -> dict[str, Any]:
        """The source's item; a subclass may take another part of it for each draw. ``draw`` is None for scores."""
        return self.source.item(index, resolution)


def mirrored(item: dict[str, Any]) -> dict[str, Any]:
    """The image of an item, and its camera where it has one, mirrored."""
    changed = {"image": item["image"].flip(-1)}
    return changed | {"camera": item["camera"].mirrored()} if "camera" in item else changed


class ImageData(pl.LightningDataModule):
    """Base of all datamodules: training batches, the real images that scores use, and sample indices to predict.

    Batches are {"image": [B, 3, H, W] in [-1, 1], "index": [B]} and what else the source gives, such as "camera", a
    ``zoo.render.Camera`` of B cameras. A subclass makes its
    sources, which open files at their first use, and at most another ``train_dataset``: it defines what is read, and
    the loaders stay as they are. Needs ``Trainer(use_distributed_sampler=False)``, as ``zoo fit`` has.

    Args:
        resolution: of the images, and of training where no stages are given.
        batch_size: images of a batch on each process.
        stages: training in stages, {first batch: {"resolution": ..., "batch_size": ...}}.
        flip: random horizontal flips of training images.
        seed: of the order of the images and of flips.
        num_workers: processes that read images, limited to the number of CPUs; "auto" for what makes training fastest:
            none on a CPU, several beside a GPU. Batches are the same with any number.
        predict_count: number of samples to predict.
    """

    name: str

    def __init__(
        self,
        resolution: int,
        batch_size: int,
        stages: dict[int, dict[str, int]] | None = None,
        flip: bool = False,
        seed: int = 0,
        num_workers: int | Literal["auto"] = "auto",
        predict_count: int = 16,
    ) -> None:
        super().__init__()
        at_least(1, self, resolution=resolution, batch_size=batch_size, predict_count=predict_count)
        if num_workers != "auto":
            at_least(0, self, num_workers=num_workers)
        self.stages = read_stages(stages, resolution, batch_size)
        self.resolution, self.batch_size, self.flip, self.seed = resolution, batch_size, flip, seed
        self.max_workers, self.predict_count = num_workers, predict_count
        self.restored = 0

    def train_source(self) -> Source:
        """The images to learn from."""
        raise NotImplementedError

    def val_source(self) -> Source:
        """The images that scores compare with."""
        return self.train_source()

    def train_dataset(self) -> ImageDataset:
        """The items to learn from, by ``Key``."""
        return ImageDataset(self.train_source(), self.resolution, self.seed if self.flip else None)

    def cameras(self) -> Camera | None:
        """The cameras of all training images, and mirrored ones where these are mirrored; None where there are none."""
        source = self.train_source()
        camera = source.cameras(self.resolution) if isinstance(source, HasCameras) else None
        if camera is None or not self.flip:
            return camera
        return Camera(*map(torch.cat, zip(camera, camera.mirrored(), strict=True)))

    def prepare_validation(self) -> None:
        """What ``prepare_data`` does, for scores only: nothing, since sources open their files at first use."""

    def digest(self) -> str:
        """sha256 over all that determines the images of ``val_dataloader``."""
        return hashlib.sha256(self.val_source().digest(self.resolution).encode()).hexdigest()

    def batches_done(self) -> int:
        """Batches trained so far: the trainer's iterations; those that workers fetched ahead are not among them."""
        return self.restored if self.trainer is None else self.trainer.global_step

    def state_dict(self) -> dict[str, int]:
        return {"done": self.batches_done()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        check_state(state, {"done": 0}, "the state of the data")
        self.restored = state["done"]
        # Lightning cannot know that these batches continue where they ended.
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")

    def _process(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _share(self, count: int, what: str) -> range:
        """Those of so many items that belong to this process."""
        rank, world = self._process()
        if world > 1 and count < world:
            raise UserError(f"{world} processes cannot share {count} {what}: give more, or lower --trainer.devices.")
        return range(rank, count, world)

    @property
    def num_workers(self) -> int:
        """Workers that read images: as many as requested, but no more than there are CPUs for this process."""
        cpus = cpus_of_each(1 if self.trainer is None else self.trainer.num_devices)
        return chosen_workers(cpus, self.device) if self.max_workers == "auto" else min(self.max_workers, cpus)

    @property
    def device(self) -> torch.device:
        """Where batches are used, as far as is known."""
        if self.trainer is not None:
            return self.trainer.strategy.root_device
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def setup(self, stage: str) -> None:
        if self.max_workers != "auto" and self.num_workers < self.max_workers and self._process()[0] == 0:
            log.warning("num_workers is %d, but there are CPUs for %d only.", self.max_workers, self.num_workers)

    def train_dataloader(self) -> DataLoader:
        """Endless batches, from the first one that was not trained yet."""
        dataset = self.train_dataset()
        batches = EndlessBatches(len(dataset), self.stages, self.seed, *self._process(), start=self.batches_done)
        return loader(dataset, num_workers=self.num_workers, device=self.device, batch_sampler=batches)

    def val_dataloader(self) -> DataLoader:
        """Every real image once, in order, never flipped; each process its share, without padding."""
        dataset = ImageDataset(self.val_source(), self.resolution)
        share = self._share(len(dataset), "image(s)")
        return loader(dataset, self.batch_size, self.num_workers, self.device, sampler=share)

    def test_dataloader(self) -> DataLoader:
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader:
        """Indices of samples, batches of [B]."""
        return loader(self._share(self.predict_count, "sample(s)"), self.batch_size)


def to_bytes(image: Tensor) -> Tensor:
    """uint8 of floats in [0, 1], rounded."""
    return (image * 255 + 0.5).clamp_(0, 255).byte()
