"""What metrics have in common, and the views of one object that those of single objects are measured on.

A metric is an object with a ``name``; ``better``: each of its numbers, and whether less or more of it is better;
``needs``: what it needs of what it measures; ``protocol``: the settings that its numbers depend on; ``update(...)``,
and ``compute()``, which returns the numbers. One that measures objects one by one is an ``ObjectMetric``.

V views, K numbers
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torchmetrics import Metric as Accumulated
from torchmetrics.utilities import dim_zero_cat

from zoo.generator import Generator, HasRays, draws_for, evaluating, lacking, render_foreground, take
from zoo.render import Camera, Rendered
from zoo.render.projection import Views, views_of
from zoo.utils.errors import UserError

Better = Literal["less", "more"]
Need = Literal["images", "cameras", "depth", "density", "rays", "condition"]
VIEWS = 32  # of an object: on a full circle neighbours are 11 degrees apart


class Metric(Protocol):
    """What ``compute`` says a source is worth, and how it came to that."""

    name: str
    better: Mapping[str, Better]
    needs: frozenset[Need]
    protocol: Mapping[str, Any]

    def compute(self) -> dict[str, float]: ...


class ObjectMetric(Accumulated):
    """Numbers that a function finds on one object, and their means over all objects.

    An object's index is that of the sample, and decides the order in which objects are added up: processes that share
    them in any way get the same bits as one alone. Numbers that are NaN, as there was nothing to measure, do not count.

    Args:
        measure: (what ``update`` is given) -> the numbers of one object, by name; at least those in ``better``.
        better, needs, protocol: as of every metric.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(
        self,
        name: str,
        measure: Callable[..., Mapping[str, float]],
        better: Mapping[str, Better],
        needs: frozenset[Need],
        protocol: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.name, self.measure, self.better, self.needs, self.protocol = name, measure, better, needs, protocol
        self.add_state("rows", [], dist_reduce_fx="cat")  # index and numbers of each object, one after the other
        self.set_dtype(torch.float64)

    def update(self, index: int, *shown: Any) -> None:
        """Measure the object with this index."""
        numbers = self.measure(*shown)
        row = [float(index), *(numbers[name] for name in self.better)]
        self.rows.append(torch.tensor(row, dtype=torch.float64, device=self.device))

    def compute(self) -> dict[str, float]:
        """The mean of each number, on every process."""
        if not len(self.rows):
            return dict.fromkeys(self.better, float("nan"))
        rows = dim_zero_cat(self.rows).reshape(-1, 1 + len(self.better)).cpu()
        objects = {int(row[0]): row[1:] for row in rows}  # one that two processes measured counts once
        means = torch.stack([objects[index] for index in sorted(objects)]).nanmean(0)
        return dict(zip(self.better, means.tolist(), strict=True))


def turntable_images(
    generator: Generator, index: int, views: int, resolution: int | None, seed: int, truncation: float
) -> tuple[Rendered, Camera, Any]:
    """Sample ``index`` from all sides, without jitter, the cameras, and the styles that it is shown with."""
    with evaluating(generator):
        latent, _ = generator.sample(1, draws_for(generator, seed, [index]))
        latents, camera = generator.turntable(latent, views)
        styles = generator.map(latents, truncation=truncation)
        return render_foreground(generator, styles, camera, resolution), camera, take(styles, slice(1))


def object_views(
    generator: Generator,
    index: int,
    views: int = VIEWS,
    *,
    resolution: int | None = None,
    seed: int = 0,
    truncation: float = 1.0,
) -> Views:
    """Sample ``index`` of the seed from all the sides that the generator's turntable knows, without jitter.

    Raises:
        UserError: the generator has no rays, or its turntable does not turn.
    """
    if not isinstance(generator, HasRays):
        raise lacking(generator, "Comparing views of one object", HasRays)
    rendered, camera, _ = turntable_images(generator, index, views, resolution, seed, truncation)
    if float(angles_between(camera).max()) < 1e-3:
        raise UserError(
            "All cameras of this generator's turntable look the same way, so that there are no views to compare: give "
            "its poses a yaw_spread."
        )
    return views_of(generator.rays, rendered, camera, generator.bounds)


def angles_between(camera: Camera) -> Tensor:
    """Angles [V, V] between the optical axes of cameras [rad]."""
    axes = camera.pose[:, :3, 2].cpu().double()
    return (axes @ axes.mT).clamp(-1, 1).acos()


def partners(camera: Camera, angle: float) -> Tensor:
    """For each of V cameras another one, that whose optical axis is most nearly so far from its own [rad]; [V]."""
    off = (angles_between(camera) - angle).abs().round(decimals=3)  # rounding errors decide nothing
    order = torch.arange(len(off), dtype=off.dtype) * 1e-6  # the first of equals
    return (off + order).fill_diagonal_(torch.inf).argmin(1).to(camera.pose.device)
