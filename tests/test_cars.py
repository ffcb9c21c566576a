"""Procedural cars: the images, their ground truth, and the shards they are kept in."""

import math

import pytest
import torch
import yaml
from PIL import Image

from datamodules import Cars
from datamodules.car_renderer import (
    KINDS,
    POSES,
    Car,
    Shape,
    Views,
    car_attributes,
    car_camera,
    car_distance,
    pixel_rays,
    render_cars,
)
from datamodules.cars import SHARD, CarImages, car_views
from zoo.cli.command import main
from zoo.render.cameras import orbit_cameras


def seen_from(yaw: float, pitch: float, car: Car, resolution: int = 32) -> Views:
    camera = orbit_cameras(torch.tensor([[yaw]]), torch.tensor([[pitch]]), 4.0, math.radians(30))
    return render_cars([car], camera, resolution)


def red(image: torch.Tensor) -> float:
    """The share of the image that tail lamps cover, on a blue car."""
    r, g, b = image[0]
    return ((r > 0.3) & (g < 0.12) & (b < 0.12)).float().mean().item()


def cream(image: torch.Tensor) -> float:
    """The share that head lamps cover."""
    r, g, b = image[0]
    return ((r > 0.6) & (g > 0.9 * r) & (b > 0.6 * r) & (b < 0.9 * r)).float().mean().item()


def test_images_are_the_same_bits_in_every_batch_and_with_every_number_of_threads():
    together, _ = car_views(0, "train", range(6), 20)
    threads = torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            for first, last in ((0, 1), (1, 3), (3, 6)):
                apart, _ = car_views(0, "train", range(first, last), 20)
                for one, other in zip(apart, together, strict=True):
                    assert torch.equal(one.nan_to_num(-1), other[first:last].nan_to_num(-1))
    finally:
        torch.set_num_threads(threads)


def test_seed_split_and_index_each_make_another_car():
    base = car_attributes(0, "train", 0)
    assert base == car_attributes(0, "train", 0)
    others = [car_attributes(1, "train", 0), car_attributes(0, "test", 0), car_attributes(0, "train", 1)]
    assert all(other != base for other in others)
    assert not torch.equal(car_camera(0, "train", 0).pose, car_camera(0, "test", 0).pose)
    assert {car_attributes(0, "train", i).kind for i in range(60)} == set(KINDS)


def test_cameras_stand_on_the_upper_hemisphere():
    origins = torch.cat([car_camera(0, "train", i).origins for i in range(300)])
    assert torch.allclose(origins.norm(dim=-1), torch.tensor(POSES.radius))
    height = origins[:, 1] / POSES.radius
    assert height.min() > 0.04 and height.max() > 0.97  # uniform in height, from five degrees' share above the ground
    assert abs(height.mean() - 0.53) < 0.06
    assert (origins[:, [0, 2]].mean(0).abs() < 0.5).all()


@pytest.mark.parametrize("index", range(3))
def test_depth_normals_and_mask_agree_with_the_shape(index):
    views, camera = car_views(0, "train", range(index, index + 1), 32)
    depth, mask = views.depth.flatten(), views.mask.flatten()
    hit = ~depth.isnan()
    directions = pixel_rays(camera, 32)[0][:, hit]
    points = camera.origins[0][:, None] + depth[hit] * directions
    assert points.norm(dim=0).max() < 0.97
    assert points.norm(dim=0).max() > 0.4
    shape = Shape(*torch.tensor([car_attributes(0, "train", index).shape]).T.contiguous())
    assert car_distance(shape, *points).abs().max() < 2e-3
    assert (car_distance(shape, *(points - 0.02 * directions)) > 0).float().mean() > 0.99
    assert (mask[hit] > 0).all()  # a ninth at least
    assert hit[mask == 1].all() and not hit[mask == 0].any()
    normals = views.normals.flatten(2)[0][:, hit]
    assert torch.allclose(normals.norm(dim=0), torch.ones(()), atol=1e-5)
    # Surfaces face the camera, but for differences taken over edges.
    assert ((normals * directions).sum(0) < 0.05).float().mean() > 0.98
    assert views.normals.flatten(2)[0][:, ~hit].isnan().all()


def test_the_background_is_white_and_edges_are_smooth():
    views, _ = car_views(0, "train", range(4), 32)
    outside = (views.mask == 0).expand_as(views.image)
    assert (views.image[outside] == 1).all()
    partial = ((views.mask > 0) & (views.mask < 1)).float().mean()
    assert 0.02 < partial < 0.3
    assert not torch.equal(views.image, torch.ones_like(views.image))


def test_a_pixels_ray_goes_through_its_centre():
    """A small ball seen by our rays: the ray of pixel (i, j) hits where the pinhole camera projects its point."""
    camera = car_camera(0, "train", 3)
    ray = pixel_rays(camera, 8)[0].reshape(3, 8, 8)[:, 2, 5]
    point = camera.origins[0] + 3 * ray
    local = torch.linalg.inv(camera.pose[0]) @ torch.cat([point, torch.ones(1)])
    focal = camera.intrinsics[0, 0, 0]
    place = (0.5 + focal * local[0] / -local[2], 0.5 - focal * local[1] / -local[2])
    assert torch.allclose(torch.stack(place), torch.tensor([5.5 / 8, 2.5 / 8]), atol=1e-5)


@pytest.mark.parametrize("index", range(3))
def test_the_front_is_seen_at_yaw_half_pi_and_the_back_opposite(index):
    car = car_attributes(0, "train", index)._replace(paint=(0.0, 0.0, 1.0), roof=(0.0, 0.0, 1.0))
    front, back = (seen_from(yaw, 1.3, car, 64).image for yaw in (math.pi / 2, -math.pi / 2))
    assert cream(front) > 0.002 and red(front) == 0
    assert red(back) > 0.002 and cream(back) == 0


def test_a_car_is_longer_than_wide_and_symmetric():
    front, side = (seen_from(yaw, math.pi / 2, car_attributes(0, "train", 0)) for yaw in (math.pi / 2, 0.0))

    def width(views):
        return (views.mask[0, 0].amax(0) > 0.5).sum()

    assert width(side) > 1.5 * width(front)
    assert torch.allclose(front.mask, front.mask.flip(-1), atol=0.25)
    assert front.mask.sum() > 20


def test_resolution_changes_the_pixels_and_not_the_car():
    coarse, _ = car_views(0, "train", range(2), 16)
    fine, _ = car_views(0, "train", range(2), 48)
    shrunk = torch.nn.functional.avg_pool2d(fine.image, 3)
    assert (shrunk - coarse.image).abs().mean() < 0.01
    with pytest.raises(ValueError, match="odd"):
        render_cars([car_attributes(0, "train", 0)], car_camera(0, "train", 0), 8, samples=2)


# -------------------------------------------------------------------------------- the shards


def images(root, count=2 * SHARD, split="train") -> CarImages:
    return CarImages(root, 0, split, count)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A folder with two shards at 8 pixels."""
    root = tmp_path_factory.mktemp("cars")
    images(root).load(8)
    return root


def test_shards_hold_the_images_of_their_indices(rendered):
    source = images(rendered)
    for index in (0, SHARD - 1, SHARD, 2 * SHARD - 1):
        views, camera = car_views(0, "train", range(index, index + 1), 8)
        item = source.item(index, 8)
        assert (item["image"] / 255 - views.image[0]).abs().max() < 0.503 / 255
        assert torch.equal(item["camera"].pose, camera.pose[0])
    with pytest.raises(IndexError):
        source.item(2 * SHARD, 8)


@pytest.mark.parametrize("harm", ["cut", "empty", "text", "missing"])
def test_a_broken_shard_is_made_again_and_the_others_are_kept(harm, rendered, monkeypatch, capsys):
    first, second = (images(rendered).path(8, number) for number in range(2))
    good, kept = second.read_bytes(), first.stat()
    second.unlink()
    if harm != "missing":
        second.write_bytes({"cut": good[: len(good) // 2], "empty": b"", "text": b"not a shard"}[harm])
    made = []
    render = CarImages.render
    monkeypatch.setattr(CarImages, "render", lambda self, r, numbers: made.extend(numbers) or render(self, r, numbers))
    images(rendered).load(8)
    assert capsys.readouterr().err == ""  # bars are for terminals
    assert made == [1] and second.read_bytes() == good
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)
    assert sorted(second.parent.iterdir()) == [first, second]


def test_an_interrupted_rendering_continues(tmp_path, monkeypatch):
    import datamodules.cars as module

    write = module.save_file

    def interrupted(tensors, path):
        write(tensors, path)
        if (path.parent / "train-0000.safetensors").exists():  # while the second one is written
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        images(tmp_path).load(4)
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert left == ["train-0000.safetensors"]
    monkeypatch.setattr(module, "save_file", write)
    assert len(images(tmp_path).load(4)) == 2


def test_the_datamodule_gives_images_and_cameras(tmp_path):
    data = Cars(8, 4, train_count=10, test_count=6, root=str(tmp_path))
    assert list(tmp_path.iterdir()) == []  # nothing is rendered before it is needed
    data.prepare_data()
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 8, 8) and batch["image"].abs().max() <= 1
    index = int(batch["index"][1])
    assert torch.equal(batch["camera"].pose[1], car_camera(0, "train", index).pose[0])
    views, _ = car_views(0, "train", range(index, index + 1), 8)
    assert (batch["image"][1] - (views.image[0] * 2 - 1)).abs().max() < 1.01 / 255
    values = [i for batch in data.val_dataloader() for i in batch["index"].tolist()]
    assert values == list(range(6))
    with pytest.raises(ValueError, match="train_count of Cars is 20001: give a number from 1 to 20000"):
        Cars(train_count=20_001)


def test_the_digest_changes_with_the_real_images():
    base = Cars(8, 4, test_count=6).digest()
    assert base == Cars(8, 2, train_count=5, test_count=6, root="elsewhere", seed=3).digest()
    assert len({base, Cars(16, 4, test_count=6).digest(), Cars(8, 4, test_count=7).digest()}) == 3
    assert Cars(8, 4, test_count=6, car_seed=1).digest() != base


def test_ellipsoids_have_the_size_and_colour_of_their_cars() -> None:
    from datamodules.car_anchors import ellipsoids

    views, camera = car_views(0, "train", range(6), 32)
    colours = torch.rand(6, 3) / 2
    blobs = ellipsoids([car_attributes(0, "train", i) for i in range(6)], colours, camera, 32)
    covered = (1 - blobs[:, 0]) / (1 - colours[:, 0, None, None])
    assert ((covered > 0.99) & (views.mask[:, 0] > 0.5)).sum() / (covered > 0.99).sum() > 0.9  # they lie on their cars
    shares = covered.mean((1, 2)) / views.mask.mean((1, 2, 3))
    assert shares.min() > 0.6 and shares.max() < 1.1  # an ellipsoid fills less than the box around a car
    for blob, inside, colour in zip(blobs, covered > 0.99, colours, strict=True):
        torch.testing.assert_close(blob[:, inside].mean(1), colour, atol=1e-3, rtol=0)


def test_scores_render_no_training_cars(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    settings = {"train_count": 100, "test_count": 100, "root": str(tmp_path / "cars")}
    (tmp_path / "cars.yaml").write_text(yaml.safe_dump({"class_path": "datamodules.Cars", "init_args": settings}))
    (tmp_path / "images").mkdir()
    for index in range(4):
        Image.new("RGB", (32, 32), (60 * index, 90, 200)).save(tmp_path / "images" / f"{index}.png")
    words = ["--real", str(tmp_path / "cars.yaml"), "--results", str(tmp_path / "results.csv")]
    assert main(["evaluate", str(tmp_path / "images"), *words]) == 0
    names = [path.name for path in (tmp_path / "cars").rglob("*.safetensors")]
    assert names and all(name.startswith("test-") for name in names)
