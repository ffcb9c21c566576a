"""Fit PSNR: how well one radiance field that stands still explains the images of an object.

A grid of densities and colours (no network, no view-dependent colour) is fitted to three quarters of an object's
images with their cameras, and rendered from the cameras of the others (Mildenhall et al. 2020; the grid is that of Sun
et al. 2022). Nothing but images and cameras is used: a depth or an opacity that claims too much changes nothing. Images
that no single object can show from all sides leave an error that no field can explain.

* ``fit_psnr`` [dB]: of the images that were held out, of colours in [0, 1] over whole images.
* ``fit_psnr_seen`` [dB]: of those that it was fitted to: far higher where the views agree by chance only.

The budget is fixed: the numbers compare under the same settings, and grow with the budget. On a CPU they are the same
at every run with the same number of threads. The background is one constant colour, which is fitted too: one that moves
or has a pattern counts as an error.

V views, N rays, S samples on a ray
"""

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, softplus

from zoo.evaluate.metrics.objects import VIEWS, Better, ObjectMetric
from zoo.evaluate.metrics.reprojection import psnr
from zoo.render.composite import accumulate_along_rays, transmission_weights
from zoo.render.projection import Views, resized

BETTER: dict[str, Better] = {"fit_psnr": "more", "fit_psnr_seen": "more"}
HELD_OUT = 4  # one view in so many


class Budget(NamedTuple):
    """What a fit may take.

    grid: points of the finest grid along a side of the bounds.
    steps, rays: of optimisation, and rays in each.
    samples: on each ray, within the bounds.
    side: of the images [pixels]; larger ones are made smaller.
    smoothness: weight of the mean squared difference of neighbours on the grid.
    """

    grid: int = 48
    steps: int = 300
    rays: int = 1024
    samples: int = 48
    side: int = 64
    smoothness: float = 3e-4


class Field(NamedTuple):
    """Raw densities and colours on a grid [1, 4, G, G, G] over the bounds, and the raw colour [3] of the background."""

    grid: Tensor
    background: Tensor


def render(field: Field, rays: Tensor, bounds: Tensor, samples: int) -> Tensor:
    """Colours [N, 3] in [0, 1] of rays [N, 6], origins and unit directions."""
    (origins, directions), (low, high) = rays.split(3, dim=1), bounds
    ends = torch.stack([(bound - origins) / directions for bound in (low, high)])
    near, far = ends.amin(0).amax(-1).clamp(min=0), ends.amax(0).amin(-1)
    length = (far - near).clamp(min=0)[:, None]
    t = near[:, None] + (torch.arange(samples, device=near.device) + 0.5) / samples * length
    points = origins[:, None] + t[..., None] * directions[:, None]
    places = (points - low) / (high - low) * 2 - 1
    values = grid_sample(field.grid, places[None, :, :, None], align_corners=True)[0, ..., 0]
    # Relative to the size of the bounds, so that an object and its copy of twice the size are fitted alike.
    density = softplus(values[0] - 4) * (64 / (high - low).max())
    weights = transmission_weights(density[None], (length / samples).expand_as(t)[None])
    colours = accumulate_along_rays(weights, values[1:].permute(1, 2, 0).sigmoid()[None])[0]
    return colours + (1 - weights[0].sum(-1, keepdim=True)) * field.background.sigmoid()


def fitted(rays: Tensor, colours: Tensor, bounds: Tensor, budget: Budget) -> Field:
    """The field that explains the colours [N, 3] of rays [N, 6], origins and directions; from coarse to fine."""
    stream = torch.Generator().manual_seed(0)
    background = torch.zeros(3, device=rays.device)
    grid = torch.zeros(1, 4, *(budget.grid // 4,) * 3, device=rays.device)
    for part, share in enumerate((0.25, 0.25, 0.5)):
        side = budget.grid >> (2 - part)
        grid = torch.nn.functional.interpolate(grid, size=(side,) * 3, mode="trilinear", align_corners=True)
        field = Field(grid.requires_grad_(), background.requires_grad_())
        optimizer = torch.optim.Adam(field, betas=(0.9, 0.95))
        steps = round(share * budget.steps)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 0.3 * 0.1 ** (step / steps)
            some = torch.randint(len(rays), (budget.rays,), generator=stream).to(rays.device)
            seen = render(field, rays[some], bounds, budget.samples)
            rough = sum(field.grid.diff(dim=axis).square().mean() for axis in (2, 3, 4))
            loss = (seen - colours[some]).square().mean() + budget.smoothness * rough
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        grid, background = (x.detach() for x in field)
    return Field(grid, background)


def fit_psnr(views: Views, budget: Budget = Budget()) -> dict[str, float]:
    """The numbers above, of one object."""
    images = ((views.rendered.image + 1) / 2).clamp(0, 1).float()
    factor = max(1, math.ceil(images.shape[-1] / budget.side))
    images = avg_pool2d(images, factor)
    bounds = views.bounds.float()
    shown = resized(views, images.shape[-1]).rays
    rays = torch.cat([shown.origins, shown.directions], dim=-1).float()
    colours = images.flatten(2).mT
    held_out = torch.arange(len(images)) % HELD_OUT == HELD_OUT // 2
    with torch.enable_grad():
        field = fitted(rays[~held_out].flatten(0, 1), colours[~held_out].flatten(0, 1), bounds, budget)
    errors = []
    with torch.no_grad():
        for chosen in (held_out, ~held_out):
            pixels = zip(*(x[chosen].flatten(0, 1).split(8192) for x in (rays, colours)), strict=True)
            squares = [(render(field, some, bounds, budget.samples) - own).square() for some, own in pixels]
            errors.append(float(torch.cat(squares).mean()))
    return {"fit_psnr": psnr(errors[0]), "fit_psnr_seen": psnr(errors[1])}


def fit_metric(views: int = VIEWS, budget: Budget = Budget(), share: int = 8) -> ObjectMetric:
    """Fit PSNR of objects' ``Views``, of each so many; of one object in ``share``."""
    protocol = {"views": views, "held_out": views // HELD_OUT, **budget._asdict()}
    measure = partial(fit_psnr, budget=budget)
    return ObjectMetric("radiance_fit", measure, BETTER, frozenset(("images", "cameras", "rays")), protocol, share)
