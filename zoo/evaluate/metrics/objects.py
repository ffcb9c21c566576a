"""What metrics have in common, and the views of one object that those of single objects are measured on.

A metric is an object with a ``name``; ``better``: each of its numbers, and whether less or more of it is better;
``needs``: what it needs of what it measures; ``protocol``: the settings that its numbers depend on; ``update(...)``,
``compute()``, which returns the numbers, and ``errors``, their standard errors once they are computed. One that
measures objects one by one is an ``ObjectMetric``, one of sets of images a
``zoo.evaluate.metrics.features.FeatureMetric``.

V views, K numbers
"""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torchmetrics import Metric as Accumulated
from torchmetrics.utilities import dim_zero_cat

from zoo.evaluate.processes import gather_tensor
from zoo.generator import (
    Condition,
    Generator,
    HasRays,
    WithoutEmptySpace,
    draws_for,
    evaluating,
    lacking,
    render_foreground,
    take,
)
from zoo.render import Camera, Rendered
from zoo.render.projection import Views, views_of
from zoo.utils.errors import UserError

Better = Literal["less", "more"]
# "real": as many real images with cameras, too; "cars": which are procedural cars.
Need = Literal["images", "cameras", "depth", "density", "rays", "condition", "real", "cars"]
VIEWS = 32  # of an object: on a full circle neighbours are 11 degrees apart


class Metric(Protocol):
    """What ``compute`` says a source is worth, and how it came to that."""

    name: str
    better: Mapping[str, Better]
    needs: frozenset[Need]
    protocol: Mapping[str, Any]
    errors: Mapping[str, float]

    def compute(self) -> dict[str, float]: ...


class ObjectMetric(Accumulated):
    """Numbers that a function finds on one object, and their means over all objects.

    An object's index is that of the sample, and decides the order in which objects are added up: processes that share
    them in any way get the same bits as one alone. Numbers that are NaN, as there was nothing to measure, do not count.

    Args:
        measure: (what ``update`` is given) -> the numbers of one object, by name; at least those in ``better``.
        better, needs, protocol: as of every metric; ``views`` of the protocol says how many of each object.
        share: measured on one in so many of the objects that other metrics are measured on, since it takes long.
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
        share: int = 1,
    ) -> None:
        super().__init__(dist_sync_fn=gather_tensor)
        self.name, self.measure, self.better, self.needs, self.protocol = name, measure, better, needs, protocol
        self.share = share
        self.made_by: dict[str, Any] = {}  # class_path and init_args, where they are known
        self.errors: dict[str, float] = {}
        self.add_state("rows", [], dist_reduce_fx="cat")  # index and numbers of each object, one after the other
        self.set_dtype(torch.float64)

    def update(self, index: int, *shown: Any) -> None:
        """Measure the object with this index."""
        numbers = self.measure(*shown)
        row = [float(index), *(numbers[name] for name in self.better)]
        self.rows.append(torch.tensor(row, dtype=torch.float64, device=self.device))

    def compute(self) -> dict[str, float]:
        """The mean of each number, on every process; ``errors`` then holds its standard error."""
        if not len(self.rows):
            return dict.fromkeys(self.better, float("nan"))
        rows = dim_zero_cat(self.rows).reshape(-1, 1 + len(self.better)).cpu()
        objects = {int(row[0]): row[1:] for row in rows}  # one that two processes measured counts once
        numbers = torch.stack([objects[index] for index in sorted(objects)])
        means, count = numbers.nanmean(0), numbers.isfinite().sum(0)
        errors = ((numbers - means).square().nansum(0) / (count - 1) / count).sqrt()  # NaN of one object
        self.errors = {name: e for name, e in zip(self.better, errors.tolist(), strict=True) if isfinite(e)}
        return dict(zip(self.better, means.tolist(), strict=True))


def turntable_images(
    generator: Generator,
    index: int,
    views: int,
    resolution: int | None,
    seed: int,
    truncation: float,
    condition: Condition = "fixed",
    exact: bool = True,
) -> tuple[Rendered, Camera, Any]:
    """Sample ``index`` from all sides, without jitter, the cameras, and the styles that it is shown with.

    Args:
        exact: of these images, as of ``zoo.generator.WithoutEmptySpace``.
    """
    with evaluating(generator):
        latent, _ = generator.sample(1, draws_for(generator, seed, [index]))
        if condition == "own" and generator.is_conditioned:
            latents, camera = generator.turntable(latent, views)
            styles = generator.map(latents, truncation=truncation, condition=camera)
        else:
            styles, camera = generator.turntable(generator.map(latent, truncation=truncation), views)
        with WithoutEmptySpace(generator, styles, views * generator.image_side(resolution) ** 2, exact):
            rendered = render_foreground(generator, styles, camera, resolution)
        return rendered, camera, take(styles, slice(1))


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
    return turning_views(generator, index, views, resolution, seed, truncation, "fixed")[0]


def turning_views(
    generator: Generator,
    index: int,
    views: int,
    resolution: int | None,
    seed: int,
    truncation: float,
    condition: Condition,
) -> tuple[Views, Any]:
    """``object_views``, and the styles that the object is shown with.

    Args:
        condition: ``fixed``: one object, as the system conditions it for several views; ``own``: each view is
            conditioned on its own camera, as the images that are scored one by one are.
    """
    if not isinstance(generator, HasRays):
        raise lacking(generator, "Comparing views of one object", HasRays)
    rendered, camera, styles = turntable_images(generator, index, views, resolution, seed, truncation, condition)
    if float(angles_between(camera).max()) < 1e-3:
        raise UserError(
            "All cameras of this generator's turntable look the same way, so that there are no views to compare: give "
            "its poses a yaw_spread."
        )
    return views_of(generator.rays, rendered, camera, generator.bounds), styles


def angles_between(camera: Camera) -> Tensor:
    """Angles [V, V] between the optical axes of cameras [rad]."""
    axes = camera.pose[:, :3, 2].cpu().double()
    return (axes @ axes.mT).clamp(-1, 1).acos()


def partners(camera: Camera, angle: float) -> Tensor:
    """For each of V cameras another one, that whose optical axis is most nearly so far from its own [rad]; [V]."""
    off = (angles_between(camera) - angle).abs().round(decimals=3)  # rounding errors decide nothing
    order = torch.arange(len(off), dtype=off.dtype) * 1e-6  # the first of equals
    return (off + order).fill_diagonal_(torch.inf).argmin(1).to(camera.pose.device)
