"""Metrics of single objects beside reprojection: fits, errors against what is known, and sums over processes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from datamodules.car_renderer import POSES, car_attributes, render_cars
from tests import metric_table
from tests.analytic import Ball
from zoo.draws import SampleDraws
from zoo.evaluate.metrics.ground_truth import ground_truth_errors, ground_truth_metric
from zoo.evaluate.metrics.objects import object_views
from zoo.evaluate.metrics.radiance_fit import Budget, fit_metric, fit_psnr
from zoo.leaderboard.pages import markers
from zoo.render import Rendered, pixel_centres, through
from zoo.render.projection import Views, views_of

SMALL = Budget(grid=16, steps=60, rays=512, samples=24)


def test_a_field_explains_a_solid_and_no_frozen_image() -> None:
    ball = object_views(Ball(32), 0)
    found = fit_psnr(ball, SMALL)
    image = ball.rendered.image
    frozen = ball._replace(rendered=ball.rendered._replace(image=image[:1].expand_as(image)))
    assert fit_psnr(frozen, SMALL)["fit_psnr"] < found["fit_psnr"] - 5
    assert found == fit_psnr(ball, SMALL)  # to the bit
    assert found["fit_psnr"] > 24 and abs(found["fit_psnr_seen"] - found["fit_psnr"]) < 2
    bare = ball._replace(rendered=ball.rendered._replace(depth=ball.depth[:, None] * torch.nan))
    assert fit_psnr(bare, SMALL) == found  # images and cameras are all it looks at


def test_large_images_are_fitted_smaller_and_in_any_units() -> None:
    large = object_views(Ball(64), 0, 8)
    numbers = fit_psnr(large, SMALL._replace(side=32, steps=20))
    doubled = large._replace(
        camera=large.camera._replace(pose=large.camera.pose * torch.tensor([1, 1, 1, 2.0])),
        rays=large.rays._replace(origins=2 * large.rays.origins),
        bounds=2 * large.bounds,
    )
    again = fit_psnr(doubled, SMALL._replace(side=32, steps=20))
    assert again["fit_psnr"] == pytest.approx(numbers["fit_psnr"], abs=0.1)


def test_a_metric_of_fits_keeps_its_budget() -> None:
    metric = fit_metric(budget=SMALL)
    assert metric.protocol["steps"] == 60 and metric.protocol["held_out"] == 8
    assert metric.needs == {"images", "cameras", "rays"}


# Against what is known


@pytest.fixture(scope="module")
def car() -> tuple[Views, torch.Tensor, torch.Tensor]:
    """Views of a procedural car as it is, its depth and its normals."""
    camera = POSES(3, SampleDraws(0, [0, 1, 2]))
    truth = render_cars([car_attributes(0, "train", 0)] * 3, camera, 64, samples=1)
    image = truth.image * 2 - 1
    rendered = Rendered(image, image, truth.depth, truth.depth.isfinite().float())

    def rays(camera, side):
        return through(camera, pixel_centres(side))

    return views_of(rays, rendered, camera, torch.tensor([[-1.0] * 3, [1.0] * 3])), truth.depth, truth.normals


def test_the_truth_is_as_good_as_the_floor(car) -> None:
    found = ground_truth_errors(*car)
    assert found["mask_iou"] == 1 and found["depth_error"] == found["depth_error_scaled"] == 0
    assert found["normal_error_deg"] == found["normal_floor_deg"] < 20


def test_a_depth_of_another_scale_is_wrong_in_scale_alone(car) -> None:
    views, depth, normals = car
    found = ground_truth_errors(views._replace(depth=1.1 * views.depth), depth, normals)
    assert found["depth_error"] == pytest.approx(0.1, rel=1e-4) and found["depth_error_scaled"] < 1e-5


def test_the_reconstruction_of_the_documentation_is_compared_with_the_truth(monkeypatch) -> None:
    from zoo.inversion import search

    monkeypatch.setattr(search, "STAGES", [stage._replace(steps=6) for stage in search.STAGES])
    code, names = re.search(r"```python\n(from datamodules.*?)```", metric_table.PAGE.read_text(), flags=re.S)[1], {}
    exec(code, names)
    found = names["errors"]
    assert names["found"].psnr["styles"] > 15 and found["mask_iou"] > 0.7
    assert 0 < found["depth_error"] < 0.1 and found["normal_floor_deg"] < found["normal_error_deg"] < 60


def test_a_flat_depth_has_the_normals_of_a_board(car) -> None:
    views, depth, normals = car
    axis = views.camera.pose[:, None, :3, 2]
    distance = 4 / -(views.rays.directions * axis).sum(-1)
    board = views._replace(depth=distance.reshape_as(views.depth))
    metric = ground_truth_metric()
    metric.update(0, board, depth, normals)
    found = metric.compute()
    assert found["normal_error_deg"] > 2 * found["normal_floor_deg"] and found["depth_error_scaled"] > 0.02


# Several processes

SHARE = """
import math, sys, torch
from zoo.evaluate.metrics.objects import ObjectMetric
rank, store = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
def measure(i):
    return {"a": math.sin(i), "b": math.nan if i == 1 else 1 / (i + 1)}
for shares in ([0, 2, 4], [1, 3]), ([0, 1, 2, 3, 4], []):
    metric = ObjectMetric("x", measure, {"a": "less", "b": "more"}, frozenset(), {})
    for i in shares[rank]:
        metric.update(i, i)
    print(*(value.hex() for value in metric.compute().values()))
torch.distributed.destroy_process_group()  # gloo's threads must not outlive the interpreter: it would abort
"""


@pytest.mark.slow
def test_two_processes_get_the_bits_of_one(tmp_path) -> None:
    environment = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    words = [sys.executable, "-W", "ignore", "-c", SHARE]
    running = [
        subprocess.Popen(
            [*words, str(rank), str(tmp_path / "store")], env=environment, stdout=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    try:
        said = [process.communicate(timeout=100)[0].splitlines() for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0]
    assert len({line for lines in said for line in lines}) == 1 and [len(lines) for lines in said] == [2, 2]


# The page


def numbers_of(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()]


def in_page(name: str) -> str:
    start, end = markers(name)
    return metric_table.PAGE.read_text(encoding="utf-8").split(start)[1].split(end)[0]


@pytest.mark.slow
@pytest.mark.timeout(1200)  # eleven fits: two minutes on a quiet core
@pytest.mark.parametrize("name", ["views", "fit"])
def test_the_tables_of_the_page_are_the_generated_ones(name: str) -> None:
    """As exactly as another processor computes them: the last digits may differ."""
    page, made = numbers_of(in_page(name)), numbers_of(getattr(metric_table, f"{name}_table")())
    assert [row[0] for row in page] == [row[0] for row in made] and page[0] == made[0]
    for ours, theirs in zip(page[2:], made[2:], strict=True):
        for a, b in zip(ours[1:], theirs[1:], strict=True):
            assert float(a) == pytest.approx(float(b), rel=0.05, abs=1e-4, nan_ok=True), ours[0]


def test_the_page_explains_every_number() -> None:
    text = metric_table.PAGE.read_text(encoding="utf-8")
    rows = numbers_of(in_page("views"))
    assert [row[0] for row in rows[2:]] == list(metric_table.scenes())
    names = {cell for name in ("views", "fit") for cell in numbers_of(in_page(name))[0][1:]}
    assert {name for name in names if text.count(name) < 2} == set()
