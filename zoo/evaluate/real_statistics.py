"""Features and moments of the real images, computed once and kept under a key of all that changes them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from zoo.evaluate.extractors import Extractor, check_suits
from zoo.evaluate.metrics.features import Moments, RealFeatures
from zoo.evaluate.metrics.fid import moments
from zoo.evaluate.processes import broadcast, gather_rows, rank_and_world
from zoo.generator import QUANTISATION, quantise
from zoo.utils.errors import UserError, printable
from zoo.utils.files import replacing
from zoo.utils.paths import cache_folder
from zoo.utils.readers import loader


class RealImages(Protocol):
    """What scores need of a datamodule (or of ``zoo.evaluate.images.ImagePathDataset``).

    name: short, for tables.
    digest(): changes whenever an image that ``val_dataloader`` yields does.
    val_dataloader(): a loader whose dataset holds the images in a fixed order, {"image": [3, H, W] in [-1, 1]}.

    One may also have ``extractor``, the name of that which scores take for these images unless another one is named.
    """

    @property
    def name(self) -> str: ...

    def digest(self) -> str: ...

    def val_dataloader(self) -> DataLoader: ...


def size_of(real: RealImages) -> int:
    """How many images there are."""
    return len(real.val_dataloader().dataset)  # type: ignore[arg-type]  # torch lets some have no length


def subsample(total: int, count: int | None, name: str) -> list[int]:
    """``count`` indices, evenly spaced over a dataset of ``total`` and of this name; all of them if count is None.

    Raises:
        UserError: more than the dataset holds.
    """
    count = total if count is None else count
    if count > total:
        raise UserError(
            f"{count:,} images of '{printable(name, 80)}' are requested, but it holds {total:,}: take fewer."
        )
    return [i * total // count for i in range(count)]


def image_batches(
    real: RealImages, indices: Sequence[int], batch_size: int, resolution: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions within ``indices`` and uint8 images of this process's share of these images.

    Raises:
        UserError: the images are not ``resolution`` pixels wide, or fewer than the processes.
    """
    rank, world = rank_and_world()
    if len(indices) < world:  # alike on every process, so that none waits for another
        raise UserError(f"{world} processes cannot share {len(indices)} images of '{real.name}': score more.")
    whole = real.val_dataloader()
    own = range(rank, len(indices), world)
    share = loader(
        Subset(whole.dataset, [indices[i] for i in own]),
        batch_size,
        whole.num_workers if len(own) > batch_size else 0,
        collate_fn=whole.collate_fn,
    )
    for positions, batch in zip(torch.tensor(own).split(batch_size), share, strict=True):
        images = batch["image"]
        if resolution is not None and images.shape[-1] != resolution:
            raise UserError(
                f"The images of '{real.name}' are {images.shape[-1]} pixels wide and the generated ones "
                f"{resolution}: give the data that resolution."
            )
        yield positions, quantise(images)


def real_features(
    real: RealImages, extractor: Extractor, resolution: int, n_real: int | None, batch_size: int, device: torch.device
) -> RealFeatures | None:
    """Features and moments of n_real real images (None: all), on the first process; None on all others.

    Raises:
        UserError: the extractor does not suit them, or there are fewer.
    """
    check_suits(extractor, real)
    dataset_size = size_of(real)
    indices = subsample(dataset_size, n_real, real.name)
    key = {
        "dataset": real.name,
        "dataset_digest": real.digest(),
        "dataset_size": dataset_size,
        "resolution": resolution,
        "extractor": extractor.name,
        "extractor_sha256": extractor.sha256,
        "resize": extractor.resize,
        "n_real": len(indices),
        "quantisation": QUANTISATION,
    }
    rank, _ = rank_and_world()
    stored = load(key) if rank == 0 else None
    if broadcast(stored is not None):  # what the first process found decides for all
        return stored
    parts = [
        (positions, extractor(images.to(device)))
        for positions, images in image_batches(real, indices, batch_size, resolution)
    ]
    features = gather_rows(parts, len(indices))
    if rank != 0:
        return None
    result = RealFeatures(features, moments(features))
    store(key, result)
    return result


def path_of(key: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return (
        cache_folder() / "reals" / f"{key['extractor']}-{key['resolution']}-{key['n_real']}-{digest[:24]}.safetensors"
    )


def load(key: dict[str, Any]) -> RealFeatures | None:
    """What is stored under this key; None where there is nothing, or nothing readable."""
    path = path_of(key)
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            if json.loads(file.metadata()["key"]) != key:
                return None
            return RealFeatures(file.get_tensor("features"), Moments(file.get_tensor("mean"), file.get_tensor("root")))
    except SafetensorError:
        return None  # cut short by a full disk; it is made and written again


def store(key: dict[str, Any], result: RealFeatures) -> None:
    tensors = {"features": result.features, "mean": result.moments.mean, "root": result.moments.root}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with replacing(path_of(key)) as part:
        save_file(tensors, part, metadata={"key": json.dumps(key, sort_keys=True)})
