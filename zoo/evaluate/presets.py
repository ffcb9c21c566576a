"""Sets of metrics by name, and the protocols of the papers.

A metric is described as everything else that a yaml builds: a ``class_path``, of a class or function that makes it, and
``init_args``. So a row of results can hold what made it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torchmetrics import Metric as Accumulated

from zoo.evaluate.extractors import shows_cameras
from zoo.evaluate.images import ImagePathDataset
from zoo.evaluate.metrics.features import FeatureMetric
from zoo.evaluate.metrics.objects import ObjectMetric
from zoo.evaluate.real_statistics import RealImages, size_of
from zoo.generator import Generator
from zoo.utils.configs import read_yaml
from zoo.utils.errors import UserError, near, printable
from zoo.weights.bundle import build

Spec = dict[str, Any]
HOME = "zoo.evaluate.metrics"


def spec(path: str, **arguments: Any) -> Spec:
    """What makes a metric of ours."""
    return {"class_path": f"{HOME}.{path}", "init_args": arguments}


def distances(count: int) -> list[Spec]:
    """FID and KID."""
    return [spec("fid.fid_metric"), spec("kid.kid_metric")]


def image_quality(count: int) -> list[Spec]:
    """All of sets of images; FID at the usual smaller numbers, too."""
    smaller = [spec("fid.fid_metric", count=few) for few in (1000, 5000, 10_000) if few < count]
    others = ("extrapolation.fid_infinity_metric", "precision_recall.precision_recall_metric")
    return [*distances(count), *map(spec, others), *smaller]


def solidity(count: int) -> list[Spec]:
    """All of single objects."""
    homes = ("reprojection.reprojection_metric", "surface.surface_metric", "density.density_metric")
    return [*map(spec, homes), spec("radiance_fit.fit_metric")]


def everything(count: int) -> list[Spec]:
    """All of both."""
    return [*image_quality(count), *solidity(count)]


CAMERA_ERROR = [spec("camera_error.camera_metric")]


class Preset(NamedTuple):
    """Metrics, and what a protocol says beside.

    metrics: what makes them, for a number of generated images.
    of_cars: what makes those that only procedural cars have, too.
    n_fake: generated images, if nothing else is asked for; None for 1,000, or all of a folder.
    most_real: real images, at most.
    extractor: if nothing else is asked for.
    """

    metrics: Callable[[int], list[Spec]]
    n_fake: int | None = None
    most_real: int | None = None
    extractor: str | None = None
    of_cars: Sequence[Spec] = ()

    def specs(self, count: int, real: RealImages | None) -> list[Spec]:
        """What makes the metrics that these real images allow, for a number of generated ones."""
        return [*self.metrics(count), *(self.of_cars if shows_cameras(real) else ())]

    def generated(self, source: Generator | ImagePathDataset) -> int:
        """How many generated images."""
        return self.n_fake or (len(source) if isinstance(source, ImagePathDataset) else 1000)

    def real(self, real: RealImages) -> int:
        """How many real images."""
        return min(self.most_real or size_of(real), size_of(real))


# Of the papers: numbers of images and the extractor, not the quirks of each program (docs/evaluation.md).
# 50,000 against all real images are those of StyleNeRF, VolumeGAN and EG3D.
PRESETS: Mapping[str, Preset] = {
    "fid_kid": Preset(distances),
    "image": Preset(image_quality),
    "3d": Preset(solidity, of_cars=CAMERA_ERROR),
    "all": Preset(everything, of_cars=CAMERA_ERROR),
    "graf_1k": Preset(distances, 1000, 20_000, "inception2015"),
    "pigan_8k2k": Preset(distances, 2048, 8000, "inception2015"),
    "giraffe_20k": Preset(lambda count: [spec("fid.fid_metric")], 20_000, None, "inception2015"),
    "nvidia_50k_full": Preset(distances, 50_000, None, "inception2015"),
    "cips_2k": Preset(distances, 2048, 2048, "inception2015"),
}


def preset(name: str) -> Preset:
    """The preset of this name, or the metrics that a yaml lists.

    Raises:
        UserError: there is neither.
    """
    if name in PRESETS:
        return PRESETS[name]
    if not name.endswith((".yaml", ".yml")):
        raise UserError(
            f"There are no metrics '{printable(name, 60)}': take {', '.join(PRESETS)}, or a yaml."
            f"{near(name, list(PRESETS))}"
        )
    listed = read_yaml(Path(name))
    if not isinstance(listed, list) or not all(isinstance(one, str | dict) for one in listed) or not listed:
        raise UserError(f"'{printable(name)}' lists no metrics: each is '- class_path: {HOME}.fid.fid_metric'.")
    specs = [{"class_path": one} if isinstance(one, str) else one for one in listed]
    return Preset(lambda count: specs)


def built(specs: Sequence[Spec]) -> list[FeatureMetric | ObjectMetric]:
    """The metrics that these make.

    Raises:
        UserError: one of them makes no metric; says why.
    """
    found = []
    for one in specs:
        metric = build(one, Accumulated)
        if not isinstance(metric, FeatureMetric | ObjectMetric):
            raise UserError(f"{one['class_path']} is no metric of images or objects: see zoo.evaluate.metrics.")
        metric.made_by = one
        found.append(metric)
    return found


def chosen_metrics(
    metrics: str | Sequence[FeatureMetric | ObjectMetric], count: int, real: RealImages | None
) -> list[FeatureMetric | ObjectMetric]:
    """Metrics as they are, or those of a preset or yaml for a number of generated images and these real ones.

    Raises:
        UserError: one of them cannot compare with these real images; and as ``preset`` and ``built``.
    """
    chosen = built(preset(metrics).specs(count, real)) if isinstance(metrics, str) else [*metrics]
    for metric in chosen:
        check_real(metric, real)
    return chosen


def compares(metric: FeatureMetric | ObjectMetric) -> bool:
    """Whether the metric looks at real images, too."""
    return isinstance(metric, FeatureMetric) or "real" in metric.needs


def check_real(metric: FeatureMetric | ObjectMetric, real: RealImages | None) -> None:
    """Refuse real images that the metric cannot compare with.

    Raises:
        UserError: there are none, or the metric has not learnt to read them.
    """
    if compares(metric) and real is None:
        raise UserError(f"The metric {metric.name} compares images with real ones: name some.")
    if "cars" in metric.needs and not shows_cameras(real):
        name, side = getattr(real, "name", ""), getattr(real, "resolution", "?")
        raise UserError(
            f"The metric {metric.name} reads cameras off procedural cars (datamodules.Cars) of 32x32 or 64x64 pixels "
            f"and nothing else, not off '{printable(name, 80)}' of {side}x{side}: leave it out."
        )
