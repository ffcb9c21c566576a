"""One pass over images, or over objects, that feeds all metrics of its kind; processes share the work.

B batch
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from zoo.evaluate.extractors import Extractor
from zoo.evaluate.images import ImagePathDataset
from zoo.evaluate.metrics.features import FeatureMetric, RealFeatures
from zoo.evaluate.metrics.objects import VIEWS, ObjectMetric, turning_views
from zoo.evaluate.processes import rank_and_world
from zoo.evaluate.real_statistics import RealImages, size_of
from zoo.evaluate.samples import fakes
from zoo.generator import Condition, Generator, HasDensity, HasRays, evaluating, lacking
from zoo.render import Camera
from zoo.utils.devices import Stopwatch
from zoo.utils.errors import UserError, printable

Metric = FeatureMetric | ObjectMetric
CAPABILITIES = {"rays": HasRays, "density": HasDensity}


@dataclass
class Clock:
    """Seconds that it took to render images, of the device, and of this process's processors."""

    images: int = 0
    seconds: float = 0.0
    processor_seconds: float = 0.0

    @contextmanager
    def timing(self, images: int, device: torch.device) -> Iterator[None]:
        """Inside, so many images are rendered."""
        watch, used = Stopwatch(device), time.process_time()
        watch.mark()
        yield
        watch.mark()
        self.images += images
        self.seconds += sum(watch.seconds())
        self.processor_seconds += time.process_time() - used

    def columns(self) -> dict[str, float]:
        """Those of results.csv; none where nothing was rendered."""
        if not self.images:
            return {}
        used = self.processor_seconds / self.images
        return {"seconds_per_image": self.seconds / self.images, "processor_seconds_per_image": used}


def lacks(metric: Metric, source: Generator | ImagePathDataset) -> UserError | None:
    """The error that says what this source does not have and the metric needs; None where it has all."""
    if isinstance(metric, FeatureMetric):
        return None
    if isinstance(source, ImagePathDataset):
        return UserError(f"The metric {metric.name} is of objects, which a folder of images does not have.")
    needs = [kind for name, kind in CAPABILITIES.items() if name in metric.needs]
    missing = not all(isinstance(source, kind) for kind in needs)
    return lacking(source, f"The metric {metric.name}", *needs) if missing else None


def real_views(real: RealImages | None, index: int, count: int) -> tuple[Tensor, Camera]:
    """Real images [count, 3, H, W] in [-1, 1] and their cameras; other ones for each object, as long as there are."""
    assert real is not None  # see ``check_real``
    whole = real.val_dataloader()
    batch = whole.collate_fn([whole.dataset[(index * count + i) % size_of(real)] for i in range(count)])
    if "camera" not in batch:
        raise UserError(
            f"The real images '{printable(real.name, 80)}' have no cameras to compare with: leave the metric out."
        )
    return batch["image"], batch["camera"]


def generated(
    generator: Generator, count: int, batch_size: int, clock: Clock, **how: Any
) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices and images of this process's share of the samples; ``how`` as of ``fakes``."""
    rank, world = rank_and_world()
    for indices in torch.arange(rank, count, world).split(batch_size):
        with clock.timing(len(indices), generator.device):
            images = fakes(generator, indices, **how)
        yield indices, images


def measure_images(
    metrics: Sequence[FeatureMetric],
    images: Iterable[tuple[Tensor, Tensor]],
    real: RealFeatures | None,
    extractor: Extractor,
    device: torch.device,
    progress: tqdm,
) -> None:
    """Tell metrics of sets of images the features of this process's share; ``real`` is None but on the first one."""
    for metric in metrics:
        metric.real = real
    with progress:
        for indices, batch in images:
            features = extractor(batch.to(device))
            for metric in metrics:
                metric.update(indices, features)
            progress.update(len(indices) * rank_and_world()[1])


def share_of(metric: ObjectMetric, objects: int) -> int:
    """Of how many objects the metric is measured, where others are measured on so many."""
    return max(1, objects // metric.share)


def measure_objects(
    metrics: Sequence[ObjectMetric],
    generator: Generator,
    real: RealImages | None,
    objects: int,
    clock: Clock,
    show: bool,
    **how: Any,
) -> None:
    """Tell metrics of single objects what this process's share of the objects looks like; ``how`` as below."""
    rank, world = rank_and_world()
    own = range(rank, max(share_of(metric, objects) for metric in metrics), world)
    for index in bar("objects", len(own), show, own):
        measure_object(
            [metric for metric in metrics if index < share_of(metric, objects)], generator, real, index, clock, **how
        )


def measure_object(
    metrics: Sequence[ObjectMetric],
    generator: Generator,
    real: RealImages | None,
    index: int,
    clock: Clock,
    truncation: float,
    seed: int,
    condition: Condition,
) -> None:
    """Tell metrics what this object looks like; those of equally many views are told of the same ones."""
    for count in sorted({views_of_each(metric) for metric in metrics}):
        with clock.timing(count, generator.device):
            views, styles = turning_views(generator, index, count, None, seed, truncation, condition)
        with evaluating(generator):
            for metric in [metric for metric in metrics if views_of_each(metric) == count]:
                given: list[Any] = [density(generator, styles)] if "density" in metric.needs else []
                given += real_views(real, index, count) if "real" in metric.needs else []
                metric.update(index, views, *given)


def density(generator: Generator, styles: Any) -> Callable[[Tensor], Tensor]:
    """Density of an object at points."""
    if not isinstance(generator, HasDensity):
        raise lacking(generator, "Volume", HasDensity)
    return partial(generator.density, styles=styles)


def views_of_each(metric: ObjectMetric) -> int:
    """How many views of each object the metric wants to see."""
    return metric.protocol.get("views", VIEWS)


def bar(title: str, total: int, show: bool, items: Iterable[int] | None = None) -> tqdm:
    """A bar with the time that is left, in a terminal, on the first process."""
    shows = show and rank_and_world()[0] == 0
    return tqdm(items, title, total, disable=None if shows else True, dynamic_ncols=True)
