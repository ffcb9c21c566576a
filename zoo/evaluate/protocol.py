"""The protocol of scores, shared by the callback during training and ``zoo evaluate``.

A metric's name contains its protocol, <metric>-<extractor>-<resize>-<number of generated images>:
``fid-cars-none-1k``.

KID is the mean over 100 subsets of 1,000 images, or of all where a side has fewer.
"""

import platform
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from zoo.evaluate.extractors import Extractor, default_extractor, load_extractor
from zoo.evaluate.images import ImagePathDataset
from zoo.evaluate.metrics.fid import fid, moments
from zoo.evaluate.metrics.kid import kid
from zoo.evaluate.processes import broadcast, gather_rows, rank_and_world
from zoo.evaluate.real_statistics import RealImages, image_batches, real_features, subsample
from zoo.generator import DrawsPolicy, Generator, quantise, render_samples
from zoo.utils.errors import UserError
from zoo.utils.memory import images_at_once
from zoo.utils.ranges import at_least


@dataclass
class Scores:
    """Measured values and their protocol.

    values: value by metric name.
    fields: the columns of results.csv that describe the protocol.
    """

    values: dict[str, float]
    fields: dict[str, Any]

    def rows(self, **about: Any) -> list[dict[str, Any]]:
        """One row of results.csv a metric; ``about`` gives or replaces columns."""
        return [{**self.fields, **about, "metric": name, "value": value} for name, value in self.values.items()]


def short_count(n: int) -> str:
    """1000 -> 1k, 50000 -> 50k, 1024 -> 1024."""
    return f"{n // 1000}k" if n >= 1000 and n % 1000 == 0 else str(n)


def metric_name(metric: str, extractor: Extractor, n_fake: int) -> str:
    return f"{metric}-{extractor.name}-{extractor.resize}-{short_count(n_fake)}"


def score(
    source: Generator | ImagePathDataset,
    real: RealImages,
    extractor: Extractor | str | None = None,
    *,
    n_fake: int | None = None,
    n_real: int | None = None,
    truncation: float = 1.0,
    draws: DrawsPolicy = "per-sample",
    seed: int = 0,
    batch_size: int = 32,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Scores:
    """FID and KID of a generator's samples 0..n_fake-1, or of a folder of images.

    Every process calls it and gets the same values; each renders its share. No global random numbers are used.

    Args:
        source: a generator at its own resolution, or images.
        real: the real images.
        extractor: by default that of ``default_extractor``.
        n_fake: default 1,000, or all images of a folder.
        n_real: default all; else a subsample, evenly spaced over the dataset.
        truncation, draws, seed: as in ``render_samples``.
        device: default where the generator is.

    Raises:
        UserError: too few images, sizes that differ or that the extractor does not take, non-finite images.
    """
    sampling: dict[str, Any] = {"truncation": truncation, "draws": draws, "seed": seed}
    if n_fake is None:
        n_fake = len(source) if isinstance(source, ImagePathDataset) else 1000
    for side, count in (("images to score", n_fake), ("real images", n_real)):
        if count is not None and count < 2:
            raise UserError(f"FID and KID compare sets of images: take at least 2 {side}, not {count}.")
    at_least(1, batch_size=batch_size)
    if isinstance(source, ImagePathDataset):
        own_images = subsample(len(source), n_fake, source.name)  # before real images take minutes
        sampling = dict.fromkeys(sampling, "")
    device = torch.device(device or ("cpu" if isinstance(source, ImagePathDataset) else source.device))
    extractor = default_extractor(real) if extractor is None else extractor
    extractor = load_extractor(extractor) if isinstance(extractor, str) else extractor
    extractor.to(device)
    rank, world = rank_and_world()
    if n_fake < world:
        raise UserError(f"{world} processes cannot share {n_fake} generated images: score at least {world} images.")

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        known = real_features(real, extractor, source.resolution, n_real, batch_size, device)
        if isinstance(source, ImagePathDataset):
            batches = image_batches(source, own_images, batch_size, source.resolution)
        else:
            own = torch.arange(rank, n_fake, world).split(batch_size)
            batches = ((indices, fakes(source, indices, seed, truncation, draws)) for indices in own)
        bar = tqdm(batches, "images scored", -(-n_fake // world // batch_size), disable=not progress or rank != 0)
        features = gather_rows([(at, extractor(images.to(device))) for at, images in bar], n_fake)

    values = {}
    if known is not None:
        size = min(1000, len(features), len(known.features))
        values[metric_name("fid", extractor, n_fake)] = fid(moments(features), known.moments)
        values[metric_name("kid", extractor, n_fake)] = kid(features, known.features, subset_size=size).mean
    fields = {
        "dataset": real.name,
        "dataset_digest": real.digest(),
        "resolution": source.resolution,
        "n_real": None if known is None else len(known.features),
        "n_fake": n_fake,
        **sampling,
        "extractor_sha256": extractor.sha256,
        "hardware": hardware(device, world),
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Scores(*broadcast((values, fields)))


def fakes(generator: Generator, indices: Tensor, seed: int, truncation: float, draws: DrawsPolicy) -> Tensor:
    """The samples with these indices as uint8 [B, 3, H, W]."""
    parts = indices.split(images_at_once(generator.image_side(), generator.device, most=len(indices)))
    rendered = (render_samples(generator, part.tolist(), seed, truncation, draws=draws).image for part in parts)
    images = torch.cat([*rendered])
    if not images.isfinite().all():
        bad = [i for i, image in zip(indices.tolist(), images, strict=True) if not image.isfinite().all()]
        raise UserError(f"The generated images {bad} hold values that are not finite; they cannot be scored.")
    return quantise(images)


def hardware(device: torch.device, world: int) -> str:
    """The name of the GPU or CPU."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = platform.processor() or platform.machine()
        with suppress(OSError, StopIteration):
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            name = next(line for line in lines if line.startswith("model name")).split(":")[1].strip()
    return f"{world} x {name}" if world > 1 else name


def commit() -> str:
    """Commit of this source tree, with a + where it has changes; empty outside a repository."""
    folder = Path(__file__).parent
    with suppress(OSError, subprocess.CalledProcessError):
        git = ["git", "-C", str(folder)]
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
        return head.stdout.strip() + ("+" if changes.stdout.strip() else "")
    return ""
