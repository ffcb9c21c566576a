"""Solids must pass the 3D checks, and things that only look solid from one side must not."""

import pytest
import torch
from torch import nn

from tests.analytic import Billboard, Box, Sphere
from tests.systems import SYSTEMS
from zoo.evaluate.metrics.consistency import consistency, diagnostics
from zoo.render import Rendered, UniformPoses
from zoo.weights.bundle import build


@pytest.mark.parametrize("solid", [Sphere(half=0.9), Box(half=0.9)], ids=["sphere", "box"])
def test_solids_agree_from_all_sides(solid):
    numbers = consistency(solid, 1)
    assert numbers["silhouettes"] > 0.9  # the hull of seven views is a little larger than the solid
    assert numbers["surface"] > 0.98
    assert numbers["outside"] == 0
    assert numbers["parallax"] > 0.2
    assert numbers["nonfinite"] == 0


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_is_measured(system):
    generator = build(SYSTEMS[system]()["model"]["init_args"]["generator"], nn.Module)
    numbers = consistency(generator, 1)
    assert numbers["nonfinite"] == 0 and 0 <= numbers["opacity"] <= 1


def test_rays_through_pixel_corners_are_understood():
    from zoo.render import pixel_corners, through

    class Corners(Sphere):
        def rays(self, camera, resolution):
            return through(camera, pixel_corners(resolution))

    numbers = consistency(Corners(resolution=16, half=0.9), 1)
    assert numbers["silhouettes"] > 0.93
    assert numbers["surface"] > 0.98


def test_a_round_billboard_has_matching_silhouettes_but_no_surface():
    numbers = consistency(Billboard(resolution=32), 1)
    assert numbers["silhouettes"] > 0.9  # an image of a ball from every side
    assert numbers["surface"] < 0.7
    assert numbers["flatness"] < 1e-5
    assert numbers["parallax"] == 0


def test_a_lopsided_billboard_fails_both():
    numbers = consistency(Billboard(lopsided=True, resolution=32), 1)
    assert numbers["silhouettes"] < 0.6
    assert numbers["surface"] < 0.7


def test_flatness_of_a_sphere():
    """Over the disc, the depth of a half sphere of radius r seen from afar has standard deviation r / sqrt(18)."""
    sphere = Sphere(resolution=64)
    sphere.poses = UniformPoses(radius=100.0, fov_deg=1.2)
    assert diagnostics(sphere, 1)["flatness"] == pytest.approx(0.5 / 18**0.5 / 2, rel=0.03)


def test_haze_outside_the_bounds_is_seen():
    cell = 2 * 2 / 48
    thin = 1 - torch.exp(torch.tensor(-0.1 * cell)).item()
    ball = 4 / 3 * torch.pi * 0.5**3
    expected = 7 / 8 * 64 * thin / (64 * thin + ball * (1 - thin))
    assert consistency(Sphere(haze=0.1), 1)["outside"] == pytest.approx(expected, rel=0.02)


def test_emptiness_passes_nothing():
    class Empty(Sphere):
        def density(self, points, styles):
            return torch.zeros_like(points[..., :1])

    numbers = consistency(Empty(half=0.0), 1)
    assert numbers["outside"] != numbers["outside"]  # NaN
    assert numbers["silhouettes"] == numbers["surface"] == numbers["opacity"] == 0


def test_values_that_are_not_finite_are_counted():
    class Broken(Sphere):
        def render(self, *args, **kwargs):
            rendered = super().render(*args, **kwargs)
            image = rendered.image.clone()
            image[:, :, 0] = torch.nan
            return Rendered(image, *rendered[1:])

    assert diagnostics(Sphere(), 2)["nonfinite"] == 0
    assert diagnostics(Broken(), 2)["nonfinite"] == pytest.approx(3 / (32 * 5))  # one row of 32; 3 of 5 channels


def test_too_few_views_are_refused():
    with pytest.raises(ValueError, match="at least 3 views"):
        consistency(Sphere(), 1, views=2)
