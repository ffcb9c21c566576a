"""Honest solids pass, and each way to look like one is caught by a number of its own."""

import math

import pytest
import torch
from kornia.metrics import ssim
from torch.nn.functional import interpolate

from tests.analytic import SCENES, AxialDepth, Ball, ChangingColours, FixedBoard, FrozenImage, Scene, ToyCar, WrongLens
from tests.metric_table import LEFT_OUT
from zoo.evaluate.metrics.objects import ObjectMetric, object_views, partners
from zoo.evaluate.metrics.reprojection import masked_ssim, reprojection, reprojection_metric
from zoo.evaluate.metrics.surface import shape_diagnostics, surfaces
from zoo.generator import Generator
from zoo.render import FixedPoses, Rendered, UniformPoses, pixel_corners, through
from zoo.render.projection import resized, views_of
from zoo.utils.errors import UserError


@pytest.fixture(scope="module")
def honest() -> dict[str, float]:
    return numbers(ToyCar())


def numbers(scene: Scene) -> dict[str, float]:
    shown = object_views(scene, 0)
    return {**reprojection(shown), **shape_diagnostics(shown.take(slice(None, None, 8)))}


@pytest.mark.parametrize("samples", [1, 2], ids=["aliased", "anti-aliased"])
@pytest.mark.parametrize("kind", [Ball, ToyCar])
def test_honest_solids_pass(kind: type[Scene], samples: int) -> None:
    found = reprojection(object_views(kind(samples=samples), 1))
    assert found["psnr"] > 40 and found["coverage"] > 0.85
    assert found["plane_ratio"] < 0.05 and found["depth_conflict"] < 2e-4
    assert kind is ToyCar or (found["psnr_bilinear"] > 40 and found["ssim"] > 0.99)


@pytest.mark.parametrize(
    ("cheat", "by"),
    [
        ("board in the world", "flatness"),
        ("board in the world", "plane_ratio"),
        ("board that faces the camera", "flatness"),
        ("board that faces the camera", "depth_conflict"),
        ("the same, one image", "flatness"),
        ("the same, one image", "plane_ratio"),
        ("one image on the car", "l1"),
        ("one image on the car", "plane_ratio"),
        ("changing colours", "l1"),
        ("depth along the axis", "depth_conflict"),
        ("wrong lens", "depth_conflict"),
        ("wrong lens", "depth_residual"),
    ],
)
def test_a_cheat_is_caught_by_a_factor_of_three(cheat: str, by: str, honest, cheats) -> None:
    worse = honest[by] / cheats(cheat)[by] if by == "flatness" else cheats(cheat)[by] / honest[by]
    assert worse > 5


@pytest.fixture(scope="module")
def cheats():
    known: dict[str, dict[str, float]] = {}

    def found(name: str) -> dict[str, float]:
        return known.get(name) or known.setdefault(name, numbers(SCENES[name]()))

    return found


def test_frontal_cameras_tell_a_solid_from_a_board_that_stands_in_the_world() -> None:
    board, car = (numbers(kind(frontal=True)) for kind in (FixedBoard, ToyCar))
    assert car["psnr"] > 40 and car["coverage"] > 0.85 and car["plane_ratio"] < 0.05
    assert board["flatness"] < car["flatness"] / 10 and board["plane_ratio"] > 5 * car["plane_ratio"]
    assert board["parallax"] < car["parallax"] / 10
    assert board["psnr"] > 35 and board["coverage"] > 0.6  # which is why these alone would not do


# The image that a 2D network makes of the rendering


class Upsampled(Ball):
    """Images of twice the side, with rays through the corners of the image; ``wobble`` moves their colours."""

    def __init__(self, wobble: float = 0.0) -> None:
        super().__init__(32)
        self.wobble = wobble

    def rays(self, camera, resolution):
        return through(camera, pixel_corners(resolution))

    def render(self, styles, camera, *, resolution=None, draws=None):
        t, colours = self.surface(self.rays(camera, 32), styles)
        image, depth = (x.mT.unflatten(2, (32, 32)) for x in (colours.nan_to_num(1), t[..., None]))
        finer = interpolate(image, scale_factor=2, mode="bilinear") + self.wobble * camera.pose[:, :1, :1, None]
        return Rendered(finer, image, depth, depth.isfinite().float())


def test_an_image_is_compared_where_its_upsampled_pixels_are() -> None:
    found = reprojection(object_views(Upsampled(), 0))
    assert found["psnr_bilinear_raw"] > 35
    assert found["psnr_bilinear"] > found["psnr_bilinear_raw"] - 1  # half a pixel beside, it is 8 dB less


def test_what_the_2d_network_breaks_shows_in_its_image_alone() -> None:
    found = reprojection(object_views(Upsampled(wobble=1.0), 0))
    assert found["l1"] > 0.01 and found["l1_raw"] < 1e-4


def test_resized_views_have_the_rays_between_pixels() -> None:
    shown = object_views(Upsampled(), 0, 4)
    finer = resized(shown, 64)
    four = finer.rays.directions.unflatten(1, (64, 64))[:, 20:22, 40:42].mean((1, 2))
    own = shown.rays.directions.unflatten(1, (32, 32))[:, 10, 20]
    assert torch.allclose(four, own, atol=1e-5)


# Parts


def test_partners_are_the_nearest_to_the_angle() -> None:
    camera = UniformPoses(yaw_spread=math.pi, radius=4.0).turntable(32)
    steps = (partners(camera, math.pi / 4) - torch.arange(32)) % 32
    assert set(steps.tolist()) == {4, 28}
    narrow = UniformPoses(yaw_spread=0.1, radius=4.0).turntable(9)  # 0.4 radians in all
    assert partners(narrow, math.pi / 4).tolist() == [8, 8, 8, 8, 0, 0, 0, 0, 0]


def test_ssim_is_of_whole_windows() -> None:
    a = torch.rand(1, 3, 32, 32)
    valid = torch.zeros(1, 32, 32, dtype=torch.bool)
    valid[:, 8:20, 8:20] = True
    b = (a + 0.3 * torch.rand_like(a)).where(valid[:, None], torch.nan)  # the window is 5 pixels wide at this size
    alone = ssim(a[..., 8:20, 8:20], b[..., 8:20, 8:20], 5, padding="valid").mean().item()
    assert masked_ssim(b, a, valid.flatten(1)) == pytest.approx(alone, rel=1e-4) and 0.2 < alone < 0.95
    assert math.isnan(masked_ssim(b, a, torch.zeros_like(valid).flatten(1)))


def test_nothing_is_worth_nothing() -> None:
    class Empty(Ball):
        def surface(self, rays, styles):
            return super().surface(rays, styles)[0] * torch.nan, torch.ones_like(rays.origins)

    shown = object_views(Empty(16), 0, 4)
    found = {**reprojection(shown), **surfaces(shown)}
    assert found["coverage"] == found["silhouettes"] == found["flatness"] == 0 and math.isnan(found["psnr"])


def test_cameras_that_do_not_move_and_systems_without_rays_are_refused() -> None:
    ball = Ball()
    ball.poses = FixedPoses(radius=4.0)
    with pytest.raises(UserError, match="look the same way"):
        object_views(ball, 0, 4)
    rayless = type("Rayless", (Generator,), dict.fromkeys(("latents", "map", "render")))
    with pytest.raises(UserError, match="needs rays"):
        object_views(rayless(UniformPoses(yaw_spread=1.0), 8, ball.bounds.tolist()), 0)


def test_a_metric_says_what_it_is_and_adds_up_by_index() -> None:
    metric = reprojection_metric()
    assert metric.name == "reprojection" and metric.needs == {"images", "cameras", "depth", "rays"}
    assert {*metric.better} > LEFT_OUT and {*metric.better.values()} == {"less", "more"}
    assert metric.protocol["close"] == 0.2

    def sums(order: list[int]) -> dict[str, float]:
        some = ObjectMetric("x", lambda i: {"a": 0.1 * i, "b": math.nan if i == 2 else 1 / (i + 1)}, BETTER, NONE, {})
        for i in order:
            some.update(i, i)
        return some.compute()

    assert sums([0, 1, 2, 3]) == sums([3, 2, 0, 1, 1])  # to the bit
    assert sums([0, 1, 2, 3])["b"] == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)


BETTER, NONE = {"a": "less", "b": "more"}, frozenset()


def test_views_may_come_from_tensors() -> None:
    ball = Ball()
    latents, camera = ball.turntable(ball.latents(1, FixedDraws()), 8)
    with torch.no_grad():
        shown = views_of(ball.rays, ball(latents, camera), camera, ball.bounds)
    assert reprojection(shown)["psnr"] > 40


class FixedDraws:
    def normal(self, name, shape):
        return torch.zeros(shape)


@pytest.mark.parametrize("kind", [AxialDepth, WrongLens, FrozenImage, ChangingColours])
def test_cheats_are_caught_in_small_images_too(kind: type[Scene]) -> None:
    cheat, car = (reprojection(object_views(k(32), 0)) for k in (kind, ToyCar))
    by = "depth_conflict" if kind in (AxialDepth, WrongLens) else "l1"
    assert cheat[by] > 4 * car[by]
