"""Leaving empty space out where many views of one object are rendered.

Most samples are where nothing is. An ``OccupancyGrid``, made once of an object's density, says in which cells of a box
something may be; a ``VolumeRenderer`` that has been given an ``EmptySpace`` queries its field there only. Densities
must not depend on the direction of view. What is left out absorbs at most ``HAZE`` of the light of a ray, as far as a
grid can know: a thing so thin that it passes between the middles of all cells is not seen.

B batch, R rays, S samples, N points, G cells along each side of the box, K samples of an image that are queried
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import max_pool3d, pad

from zoo.render.composite import Density, Quadrature
from zoo.render.depths import Samples, has_length
from zoo.render.plan import Plan
from zoo.render.query import Condition, Field, query, raw_density
from zoo.utils.ranges import at_least

CELLS = 32  # along each side of the box
MUCH = 1e10  # a raw density that is as dense, or as empty, as any
LEAST_SAMPLES = 2**14  # rendered at once: fewer are rendered as fast as they are looked up
MOST_OCCUPIED = 0.7  # of the samples, with as little to gain
HAZE = 0.01  # of the light: an error of 0.01 in colours from 0 to 1 is a PSNR of 40 dB


class OccupancyGrid(NamedTuple):
    """Where in a box an object may be; outside of the box it may be anywhere.

    low, cell: first corner of the box, and lengths of its cells, [3] [world units].
    raw: raw density in cells that are empty, NaN in those that may not be, [G + 2, G + 2, G + 2]. The outermost ones
        are a border around the box.
    """

    low: Tensor
    cell: Tensor
    raw: Tensor

    @classmethod
    @torch.no_grad()
    def build(
        cls, raw_at: Callable[[Tensor], Tensor], density: Density, bounds: Tensor, cells: int = CELLS
    ) -> "OccupancyGrid":
        """The grid of one object.

        A cell is empty if the densities at its middle and at those of the 26 around it are so low that they would
        absorb at most ``HAZE`` of the light on the longest way through the box. Its raw density is then the emptiest of
        these 27, and what is not a number stays so: it is to be seen. Where there is no density whatever the raw one
        is, such as outside a sphere, none is looked up.

        Args:
            raw_at: raw densities [N] at world points [N, 3].
            density: what makes of them densities per world length, which may grow or fall with them.
            bounds: the box, two corners [2, 3].
            cells: along each of its sides.
        """
        at_least(1, cls, cells=cells)
        low, high = bounds
        cell, line = (high - low) / cells, torch.arange(cells).to(bounds) + 0.5
        middles = low + torch.stack(torch.meshgrid(line, line, line, indexing="ij"), dim=-1) * cell

        def density_of(raw: Tensor) -> Tensor:
            return density(raw[None, ..., None], middles[None])[0, ..., 0]

        most, least = (density_of(torch.full_like(middles[..., 0], raw)) for raw in (MUCH, -MUCH))
        possible, sign = most + least > 0, 1 if most.sum() >= least.sum() else -1
        raw = torch.full_like(most, sign * torch.inf)
        raw[possible] = raw_at(middles[possible]).to(raw)
        occupied = density_of(raw) * (high - low).norm() > HAZE
        emptiest = -sign * greatest_around(-sign * raw)
        emptiest = emptiest.masked_fill(emptiest.isinf(), -sign * MUCH)
        emptiest = emptiest.masked_fill(greatest_around(occupied.to(raw)) > 0, torch.nan)
        return cls(low, cell, pad(emptiest, (1,) * 6, value=torch.nan))

    def raw_at(self, *coordinates: Tensor) -> Tensor:
        """Raw densities [...] in the cells of points, x, y and z [...]; NaN where the field has to be queried."""
        side = len(self.raw)
        index = torch.zeros((), dtype=torch.int, device=self.raw.device)
        for places, low, cell in zip(coordinates, self.low, self.cell, strict=True):
            index = index * side + ((places - low).div_(cell).add_(1).clamp_(0, side - 1)).int()
        index = index.clamp_(0, side**3 - 1)  # points that are no numbers are anywhere
        return self.raw.flatten().index_select(0, index.flatten()).view_as(index)


def greatest_around(values: Tensor) -> Tensor:
    """The greatest value of each cell and of the 26 around it, [G, G, G]."""
    return max_pool3d(values[None], 3, stride=1, padding=1)[0]


class EmptySpace:
    """Leaves out the samples that are in empty cells; the grid is made of the first field that is queried.

    Args:
        bounds: box of the object, two corners [2, 3]; nothing outside of it is left out.
        cells: along each of its sides.

    samples, queried: how many there have been on rays that have a length, and how many of these were queried.
    """

    def __init__(self, bounds: Tensor, cells: int = CELLS) -> None:
        at_least(1, self, cells=cells)
        self.bounds, self.cells = bounds, cells
        self.grid: OccupancyGrid | None = None
        self.field: Field[Any] | None = None
        self.samples = self.queried = self.left_out = 0

    def pays(self, samples: Samples) -> bool:
        """Whether it is faster to look these up than to query them all."""
        if samples.t.numel() < LEAST_SAMPLES:
            return False
        if self.queried <= MOST_OCCUPIED * self.samples:
            return True
        count = int(has_length(samples).sum()) * samples.t.shape[-1]
        self.samples, self.queried = self.samples + count, self.queried + count
        return False

    @torch.no_grad()
    def live_rays(
        self, field: Field[Condition], samples: Samples, condition: Condition, quadrature: Quadrature
    ) -> Tensor:
        """Indices [B, K] of rays on which something may be; where an image has fewer than K, others fill it up.

        Args:
            samples: the first ones of all rays, [B, R, S].
            condition: of B views of the same object.
            quadrature: what the samples will be weighed by.
        """
        live = self.raw_of(field, samples, condition, quadrature).isnan().any(-1)
        self.left_out = int((has_length(samples) & ~live).sum())
        return chosen_indices(live)

    def count_left_out(self, samples: Samples) -> None:
        """Count the samples of rays that ``live_rays`` has left out: each would have had as many as those of others."""
        self.samples += self.left_out * samples.t.shape[-1]

    @torch.no_grad()
    def query(
        self,
        field: Field[Condition],
        samples: Samples,
        condition: Condition,
        quadrature: Quadrature,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        """Raw density [B, R, S, 1] and features [B, R, S, C], without gradients; zero features where nothing is.

        Args:
            samples: B x R x S of them; zeros on rays that have no length.
            condition, quadrature: as of ``live_rays``.
            options: of ``zoo.render.query.query``.
        """
        raw = self.raw_of(field, samples, condition, quadrature)
        self.samples += int(has_length(samples).sum()) * raw.shape[-1]
        self.queried += int(raw.isnan().sum())
        return query_unknown(field, samples, condition, raw, **options)

    def raw_of(self, field: Field[Condition], samples: Samples, condition: Condition, quadrature: Quadrature) -> Tensor:
        """Raw densities [B, R, S] of samples that are in empty cells; NaN where the field has to be queried."""
        if samples.positions is not None:
            coordinates = [*samples.positions.unbind(-1)]
        else:  # not as they are rounded in images, and one by one, which is faster
            axes = zip(*(x.split(1, dim=-1) for x in samples[:2]), strict=True)
            coordinates = [torch.addcmul(origin, samples.t, direction) for origin, direction in axes]
        raw = self.raw_at(coordinates, field, condition, quadrature)
        if self.last_takes_rest(samples, quadrature):
            raw[..., -1] = torch.nan
        return raw.where(has_length(samples)[..., None], 0)

    @torch.no_grad()
    def raw_density(
        self,
        points: Tensor,
        field: Field[Condition],
        condition: Condition,
        quadrature: Quadrature,
        plan: Plan | None = None,
    ) -> Tensor:
        """As ``zoo.render.query.raw_density``, without gradients."""
        samples = Samples(points, torch.zeros_like(points), torch.zeros_like(points[..., :1]))
        raw = self.raw_at(points.unbind(-1), field, condition, quadrature)[..., None]
        return query_unknown(field, samples, condition, raw, plan=plan)[0]

    def raw_at(
        self, coordinates: Sequence[Tensor], field: Field[Condition], condition: Condition, quadrature: Quadrature
    ) -> Tensor:
        """As of ``OccupancyGrid``, of the field of which it was made: all others are queried everywhere."""
        if self.grid is None:
            at = raw_density_at(field, condition, len(coordinates[0]))
            self.field = field
            self.grid = OccupancyGrid.build(at, quadrature.density, self.bounds, self.cells)
        if field != self.field:
            return torch.full_like(coordinates[0], torch.nan)
        return self.grid.raw_at(*coordinates)

    def last_takes_rest(self, samples: Samples, quadrature: Quadrature) -> bool:
        """Whether the last sample of a ray takes all light that is left, however little is there.

        It does where its interval has no end, or where the background has its colour.
        """
        t, directions = samples.t[:1, :1, -2:], samples.directions[:1, :1]
        endless = quadrature.intervals(t, directions)[..., -1] > (self.bounds[1] - self.bounds[0]).norm()
        alone, _ = quadrature.background(torch.zeros_like(t))
        return bool(endless.any() | (alone[..., -1] != 0).any())


def query_unknown(
    field: Field[Condition], samples: Samples, condition: Condition, raw: Tensor, **options: Any
) -> tuple[Tensor, Tensor]:
    """Raw densities [B, R, S, 1], queried where they are NaN in ``raw`` [B, R, S], and features, zero elsewhere."""
    unknown = raw.isnan().flatten(1)
    if unknown.all():
        return query(field, samples, condition, **options)
    index = chosen_indices(unknown)
    found, found_features = query(field, samples.single(index), condition, **options)
    filled = raw.flatten(1).scatter(1, index, found.flatten(1).to(raw)).view_as(raw)
    index += torch.arange(len(index), device=index.device)[:, None] * unknown.shape[1]
    features = found_features.new_zeros(unknown.numel(), found_features.shape[-1])
    features.index_copy_(0, index.flatten(), found_features.flatten(0, 2))
    return filled[..., None], features.view(*raw.shape, -1)


def raw_density_at(field: Field[Condition], condition: Condition, batch: int) -> Callable[[Tensor], Tensor]:
    """Raw densities [N] of a field at points [N, 3]; the condition is B times that of the same object."""

    def at(points: Tensor) -> Tensor:
        rows = -(-len(points) // batch)
        padded = pad(points, (0, 0, 0, rows * batch - len(points)))
        return raw_density(padded.view(batch, rows, 3), field, condition).flatten()[: len(points)]

    return at


def chosen_indices(chosen: Tensor) -> Tensor:
    """Indices [B, K] of what is chosen [B, N] in each row; K is the most of any row, and zeros fill up the rest."""
    row, place = chosen.nonzero(as_tuple=True)
    counts = chosen.sum(1)
    index = place.new_zeros(len(chosen), max(1, int(counts.max())))
    index[row, torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]] = place
    return index
