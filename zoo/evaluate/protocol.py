"""The protocol of scores, shared by the callback during training and ``zoo evaluate``.

A metric's name contains its protocol. Of sets of images it is <metric>-<extractor>-<resize>-<number of generated
images>, as in ``fid-cars-none-1k``; of single objects <metric>-<number>objects-<number>views, as in
``psnr-64objects-32views``. What was conditioned on one camera for all, or seen from other cameras than the prior's,
says so at the end: ``fid-cars-none-1k-fixed``, ``fid-cars-none-1k-uniform``.
"""

import platform
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from zoo.evaluate.extractors import Extractor, default_extractor, load_extractor
from zoo.evaluate.images import ImagePathDataset
from zoo.evaluate.measuring import (
    Clock,
    Metric,
    bar,
    generated,
    lacks,
    measure_images,
    measure_objects,
    share_of,
    views_of_each,
)
from zoo.evaluate.metrics.features import FeatureMetric
from zoo.evaluate.metrics.objects import ObjectMetric
from zoo.evaluate.presets import PRESETS, chosen_metrics, compares, preset
from zoo.evaluate.processes import broadcast, rank_and_world
from zoo.evaluate.real_statistics import RealImages, image_batches, real_features, size_of, subsample
from zoo.evaluate.samples import CamerasFrom, cameras_from
from zoo.generator import Condition, DrawsPolicy, Generator
from zoo.utils.errors import UserError
from zoo.utils.memory import peak_memory
from zoo.utils.ranges import at_least

OBJECTS = 64


@dataclass
class Scores:
    """Measured values and their protocol.

    results: for each value its name, and the columns of results.csv that are its own; ``of`` is its metric,
        ``number`` what that calls it, and NaN stands for what could not be measured.
    fields: the columns of results.csv that all have in common.
    """

    results: dict[str, dict[str, Any]]
    fields: dict[str, Any]

    @property
    def values(self) -> dict[str, float]:
        """Value by name."""
        return {name: result["value"] for name, result in self.results.items()}

    def rows(self, **about: Any) -> list[dict[str, Any]]:
        """One row of results.csv for each value that is a number; ``about`` gives or replaces columns."""
        return [{**self.fields, **one, **about} for one in self.results.values() if one["value"] == one["value"]]

    def lines(self) -> list[dict[str, str]]:
        """A table of the values: name, value, standard error and which is better."""
        return [
            {
                "metric": name,
                "value": f"{one['value']:.4g}",
                "±": "" if one["standard_error"] is None else f"{one['standard_error']:.2g}",
                "better": one["better"],
            }
            for name, one in self.results.items()
        ]


def short_count(n: int) -> str:
    """1000 -> 1k, 50000 -> 50k, 1024 -> 1024."""
    return f"{n // 1000}k" if n >= 1000 and n % 1000 == 0 else str(n)


def metric_name(metric: str, extractor: Extractor, n_fake: int) -> str:
    return f"{metric}-{extractor.name}-{extractor.resize}-{short_count(n_fake)}"


def object_metric_name(metric: str, n_objects: int, views: int | None) -> str:
    return f"{metric}-{n_objects}objects" + (f"-{views}views" if views else "")


def score(
    source: Generator | ImagePathDataset,
    real: RealImages | None = None,
    extractor: Extractor | str | None = None,
    metrics: str | Sequence[Metric] = "fid_kid",
    *,
    n_fake: int | None = None,
    n_real: int | None = None,
    n_objects: int = OBJECTS,
    condition: Condition = "own",
    cameras: CamerasFrom = "prior",
    truncation: float = 1.0,
    draws: DrawsPolicy = "per-sample",
    seed: int = 0,
    batch_size: int = 32,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Scores:
    """Scores of a generator's samples 0..n_fake-1, or of a folder of images, and of its objects 0..n_objects-1.

    Every process calls it and gets the same values; each renders its share. No global random numbers are used.

    Args:
        source: a generator at its own resolution, or images.
        real: the real images; metrics of single objects need none.
        extractor: whose features sets of images are compared by; by default that of ``default_extractor``.
        metrics: what to measure, or the name of one of ``zoo.evaluate.presets.PRESETS`` or a yaml that lists it.
        n_fake: default that of the preset, 1,000, or all images of a folder.
        n_real: default that of the preset, or all; else a subsample, evenly spaced over the dataset.
        n_objects: for metrics of single objects; those that take long are measured on a share of them.
        condition, cameras: see ``zoo.evaluate.samples``. Objects are seen from their turntable in any case.
        truncation, draws, seed: as in ``render_samples``.
        device: default where the generator is.

    Raises:
        UserError: too few images, sizes that differ or that the extractor does not take, non-finite images, or a metric
            that needs what there is not.
    """
    at_least(1, batch_size=batch_size, n_objects=n_objects)
    chosen = preset(metrics) if isinstance(metrics, str) else PRESETS["fid_kid"]
    n_fake = chosen.generated(source) if n_fake is None else n_fake
    extractor = extractor or chosen.extractor
    measured = chosen_metrics(metrics, n_fake, real)
    for metric in measured:
        if error := lacks(metric, source):
            raise error
        metric.reset()
    of_images = [metric for metric in measured if isinstance(metric, FeatureMetric)]
    of_objects = [metric for metric in measured if isinstance(metric, ObjectMetric)]
    device = torch.device(device or ("cpu" if isinstance(source, ImagePathDataset) else source.device))
    results: dict[str, dict[str, Any]] = {}
    clock = Clock()
    how: dict[str, Any] = {"truncation": truncation, "seed": seed, "condition": condition}
    fields = common_columns(source, real, device, how)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if of_images:
            assert real is not None  # see ``check_real``
            n_real = chosen.real(real) if n_real is None else n_real
            check_counts(n_fake, n_real)
            extractor = default_extractor(real) if extractor is None else extractor
            network = load_extractor(extractor) if isinstance(extractor, str) else extractor
            network.to(device)
            own: dict[str, Any] = {}
            if isinstance(source, ImagePathDataset):
                indices = subsample(len(source), n_fake, source.name)  # refused before real images take minutes
                images = image_batches(source, indices, batch_size, source.resolution)
            else:
                seen_from = cameras_from(cameras, real)
                images = generated(source, n_fake, batch_size, clock, draws=draws, cameras=seen_from, **how)
                own = {"draws": draws, "cameras": cameras}
            known = real_features(real, network, source.resolution, n_real, batch_size, device)
            measure_images(of_images, images, known, network, device, bar("images", n_fake, progress))
            own |= {"dataset_digest": real.digest(), "n_real": n_real, "extractor_sha256": network.sha256}
            for metric in of_images:
                count, end = metric.count or n_fake, suffix(fields["condition"], cameras)
                numbers = {metric_name(name, network, count): name for name in metric.better}
                results |= columns(metric, numbers, end, {**own, "n_fake": count})
        if of_objects and isinstance(source, Generator):
            measure_objects(of_objects, source, real, n_objects, clock, progress, **how)
            for metric in of_objects:
                count, views = share_of(metric, n_objects), metric.protocol.get("views")
                numbers = {object_metric_name(name, count, views): name for name in metric.better}
                own = {"draws": "none", "cameras": "uniform", "n_fake": count}
                if real is not None and compares(metric):
                    n_real = min(count * views_of_each(metric), size_of(real))
                    own |= {"dataset_digest": real.digest(), "n_real": n_real}
                    own |= {"extractor_sha256": metric.protocol["extractor_sha256"]}
                results |= columns(metric, numbers, suffix(fields["condition"]), own)
    fields |= clock.columns() | most_memory(device)
    return Scores(results, broadcast(fields))


def common_columns(
    source: Generator | ImagePathDataset, real: RealImages | None, device: torch.device, how: Mapping[str, Any]
) -> dict[str, Any]:
    """The columns of results.csv that all values have in common, but for costs; ``how`` a generator is sampled."""
    fields = {"dataset": real.name if real else "", "resolution": source.resolution, "condition": "none"}
    fields |= {"hardware": hardware(device, rank_and_world()[1]), "commit": commit()}
    fields |= {"date": datetime.now(UTC).isoformat(timespec="seconds")}
    if isinstance(source, Generator):
        fields |= {**how, "parameters": sum(parameter.numel() for parameter in source.parameters())}
        fields["condition"] = how["condition"] if source.is_conditioned else "none"
    return fields


def columns(metric: Metric, numbers: Mapping[str, str], end: str, own: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What ``Scores.results`` holds of a metric; ``numbers`` are its own names by those in the table."""
    found = metric.compute()
    metric.reset()  # features of many images are large
    return {
        name + end: {
            "record": {"metric": metric.made_by, "number": number},
            "metric": name,
            "value": found[number],
            "standard_error": metric.errors.get(number),
            "better": metric.better[number],
            **own,
        }
        for name, number in numbers.items()
    }


def suffix(condition: str, cameras: str = "prior") -> str:
    """What the name of a value says of its cameras; nothing where they are as in training."""
    return ("-fixed" if condition == "fixed" else "") + (f"-{cameras}" if cameras != "prior" else "")


def check_counts(n_fake: int, n_real: int | None) -> None:
    """Refuse numbers of images that make no set, or that processes cannot share."""
    for side, count in (("images to score", n_fake), ("real images", n_real)):
        if count is not None and count < 2:
            raise UserError(f"Sets of images are compared: take at least 2 {side}, not {count}.")
    world = rank_and_world()[1]
    if n_fake < world:
        raise UserError(f"{world} processes cannot share {n_fake} generated images: score at least {world} images.")


def most_memory(device: torch.device) -> dict[str, int]:
    """The column of the most memory that this process has had, on its GPU if it has one; none where it is unknown."""
    most = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
    return {} if most is None else {"peak_memory_mib": round(most / 2**20)}


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
    """Commit of this source tree, with a + where it has changes but rows of results; empty outside a repository."""
    folder = Path(__file__).parent
    with suppress(OSError, subprocess.CalledProcessError):
        git = ["git", "-C", str(folder)]
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        of = ["status", "--porcelain", "-uno", "--", ":/", ":(top,exclude)zoo/leaderboard/results.csv"]
        changes = subprocess.run([*git, *of], capture_output=True, text=True, check=True)
        return head.stdout.strip() + ("+" if changes.stdout.strip() else "")
    return ""
