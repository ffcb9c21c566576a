"""Cameras that belong to images: mirrored, cropped, drawn from, and what they all look at."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import ImageFolder
from datamodules.base import ImageDataset
from datamodules.images import Crop, fit, window
from datamodules.resized import RandomlyCropped, Squeezed, Whole
from tests.same_runs import check_exact_resume, train, write
from tests.systems import SYSTEMS, NoiseData
from zoo.cli.command import main
from zoo.draws import SampleDraws
from zoo.export.camera_paths import PATHS, frames_along_path
from zoo.generator import draws_for
from zoo.inversion import camera_angles, camera_at
from zoo.render import Camera, DatasetPoses, GaussianPoses, Orbit, UniformPoses, orbit_around, orbit_cameras
from zoo.render.cameras import rotations
from zoo.render.projection import image_coordinates
from zoo.utils.errors import UserError
from zoo.weights import load
from zoo.weights.bundle import build


def cameras(n: int, seed: int = 0) -> Camera:
    """Cameras anywhere round the origin, rolled, with lenses that are not symmetric."""
    stream = torch.Generator().manual_seed(seed)
    random = torch.rand(5, n, 3, generator=stream, dtype=torch.float64)
    camera = orbit_cameras(random[0, :, :1] * 6.28, 0.5 + random[1, :, :1] * 2, 3.0, 0.8)
    rolled = camera.pose.clone()
    rolled[:, :3, :3] = camera.pose[:, :3, :3] @ rotations(random[2] * 0.4)
    intrinsics = camera.intrinsics.clone()
    intrinsics[:, :2] += 0.1 * random[3:].transpose(0, 1)
    intrinsics[:, 1, 0] = 0
    return Camera(rolled, intrinsics)


def project(camera: Camera, points: torch.Tensor) -> torch.Tensor:
    """Image coordinates [N, P, 2], skew included, which ``image_coordinates`` leaves out."""
    local = (points - camera.origins[:, None]) @ camera.pose[:, :3, :3]
    skewed = camera.intrinsics[:, 0, 1, None] * -local[..., 1] / -local[..., 2]
    plain = torch.stack([image_coordinates(camera, i, points) for i in range(len(camera.pose))])
    return plain + torch.stack([skewed, torch.zeros_like(skewed)], -1)


POINTS = torch.rand(20, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64) - 0.5


def test_a_mirrored_camera_sees_the_mirrored_world_mirrored() -> None:
    camera = cameras(6)
    seen, mirrored = project(camera, POINTS), project(camera.mirrored(), POINTS * torch.tensor([-1.0, 1, 1]))
    assert torch.allclose(mirrored[..., 0], 1 - seen[..., 0])
    assert torch.allclose(mirrored[..., 1], seen[..., 1])


def test_mirrored_twice_is_the_identity() -> None:
    camera = cameras(6)
    again = camera.mirrored().mirrored()
    assert torch.equal(again.pose, camera.pose)
    assert torch.allclose(again.intrinsics, camera.intrinsics, atol=1e-15)
    assert torch.linalg.det(camera.mirrored().pose).allclose(torch.ones(6, dtype=torch.float64))


def test_a_cropped_camera_sees_the_same_within_the_crop() -> None:
    camera = cameras(4)
    left, top, width, height = 0.1, -0.2, 0.5, 1.3
    seen, cropped = project(camera, POINTS), project(camera.cropped(left, top, width, height), POINTS)
    assert torch.allclose(cropped, (seen - torch.tensor([left, top])) / torch.tensor([width, height]))
    each = camera.cropped(*torch.tensor([[left, top, width, height]] * 4, dtype=torch.float64).unbind(1))
    assert torch.allclose(each.intrinsics, camera.cropped(left, top, width, height).intrinsics)


CROPS = {
    "middle": Crop(),
    "side": Crop(side=32, right=8, down=-4),
    "shorter": Crop(side=40, shorter=60),
    "outside": Crop(side=100),
    "whole": Whole(),
}


@pytest.mark.parametrize("filter", ["box", "subsample", "nearest"])
@pytest.mark.parametrize("crop", CROPS)
def test_a_window_is_where_the_image_is(crop: str, filter: str) -> None:
    """A ramp says of each pixel where it came from."""
    width, height, resolution = 80, 48, 8
    ramp = Image.new("RGB", (width, height))
    ramp.putdata([(3 * x, 5 * y, 0) for y in range(height) for x in range(width)])
    shown = fit(ramp, resolution, filter, CROPS[crop]).double()
    left, top, across, down = window((width, height), resolution, filter, CROPS[crop])
    centre = (torch.arange(resolution) + 0.5) / resolution
    x = (left + across * centre) * width - 0.5  # of pixel centres of the image, where the ramp is 3 x
    y = (top + down * centre) * height - 0.5
    inner = (x > 8) & (x < width - 9)  # cells across the border are mixed with black
    assert inner.sum() >= 3
    row = resolution // 2
    assert (shown[0, row] / 3 - x)[inner].abs().max() <= 0.7
    inner = (y > 8) & (y < height - 9)
    assert (shown[1, :, row] / 5 - y)[inner].abs().max() <= 0.7


def test_items_are_mirrored_with_their_cameras() -> None:
    source = NoiseData(posed=True).train_source()
    drawn = ImageDataset(source, 8, flip_seed=0)
    flips = 0
    for draw in range(12):
        item, plain = drawn[(3, draw, 8)], source.item(3, 8)
        flipped = torch.equal(item["image"], plain["image"].flip(-1) / 127.5 - 1)
        flips += flipped
        expected = plain["camera"].mirrored() if flipped else plain["camera"]
        assert torch.equal(item["camera"].pose, expected.pose)
        assert torch.equal(item["camera"].intrinsics, expected.intrinsics)
    assert 2 <= flips <= 10


def test_batches_carry_cameras() -> None:
    batch = next(iter(NoiseData(posed=True).train_dataloader()))
    assert isinstance(batch["camera"], Camera)
    assert batch["camera"].pose.shape == (4, 4, 4)


def test_dataset_poses_are_a_function_of_the_sample() -> None:
    poses, all_of_them = DatasetPoses(), cameras(50)
    poses.double().fill(all_of_them)
    some = poses(64, SampleDraws(1, range(64)))
    again = poses(3, SampleDraws(1, [7, 0, 63]))
    assert torch.equal(again.pose, some.pose[[7, 0, 63]])
    assert torch.equal(again.intrinsics, some.intrinsics[[7, 0, 63]])
    index = (some.pose[:, None] == all_of_them.pose).flatten(2).all(-1)
    assert (index.sum(1) == 1).all()
    assert index.any(0).sum() > 25  # of 50, 64 draws meet 36


def test_dataset_poses_that_are_empty_say_where_cameras_come_from() -> None:
    with pytest.raises(UserError, match="no cameras yet: they come with weights"):
        DatasetPoses()(1, SampleDraws(0, [0]))


def test_what_cameras_look_at_is_found() -> None:
    orbit = UniformPoses(1.2, 0.4, 1.4, 0.2, radius=2.7, fov_deg=18.8, pivot=(0.1, -0.2, 0.3))
    found = orbit_around(orbit(500, SampleDraws(0, range(500))))
    assert found.pivot == pytest.approx(orbit.pivot, abs=1e-4)
    assert (found.radius, found.fov_deg) == pytest.approx((2.7, 18.8), abs=1e-4)
    assert (found.yaw_mean, found.pitch_mean) == pytest.approx((1.2, 1.4), abs=0.03)
    assert (found.yaw_spread, found.pitch_spread) == pytest.approx((0.4 / 3**0.5, 0.2 / 3**0.5), abs=0.02)
    around = orbit_around(UniformPoses(yaw_spread=math.pi)(500, SampleDraws(0, range(500))))
    assert around.reach == math.pi
    alone = orbit_around(orbit_cameras(torch.tensor([[1.0]]), torch.tensor([[1.3]]), 2.0, 0.3, (0.0, 0.0, 0.2)))
    assert math.dist(alone.pivot, (0, 0, 0)) <= 0.2 + 1e-6


PIVOT = (0.2, -0.1, 0.3)


def pigan(poses: Orbit) -> torch.nn.Module:
    generator = build(SYSTEMS["pigan"]()["model"]["init_args"]["generator"], torch.nn.Module)
    generator.poses = poses
    return generator


@pytest.mark.parametrize("path", PATHS)
def test_paths_go_round_the_pivot(path: str) -> None:
    generator = pigan(GaussianPoses(yaw_spread=0.3, pitch_spread=0.15, pivot=PIVOT))
    latent = generator.latents(1, draws_for(generator, 0, [0]))
    _, camera = frames_along_path(generator, latent, path, 8)
    places = image_coordinates(camera, 0, torch.tensor([PIVOT]))
    assert torch.allclose((camera.origins - torch.tensor(PIVOT)).norm(dim=-1), torch.ones(8), atol=1e-5)
    for frame in range(8):
        places = image_coordinates(camera, frame, torch.tensor([PIVOT]))
        assert torch.allclose(places, torch.full((1, 2), 0.5), atol=1e-5)


def test_a_given_camera_is_moved_round_the_pivot() -> None:
    generator = pigan(GaussianPoses(yaw_spread=0.3, pitch_spread=0.15, pivot=PIVOT))
    camera = camera_at(generator, 0.4, 0.2)
    assert camera_angles(camera, generator.pivot) == pytest.approx((0.4, 0.2), abs=1e-5)
    assert torch.allclose(image_coordinates(camera, 0, torch.tensor([PIVOT])), torch.full((1, 2), 0.5), atol=1e-5)


def posed(system: str, **data: object) -> dict:
    """A tiny run whose generator draws from the cameras of its images."""
    config = SYSTEMS[system]()
    config["model"]["init_args"]["generator"]["init_args"]["poses"] = {"class_path": "zoo.render.DatasetPoses"}
    config["data"]["init_args"] |= {"posed": True} | data
    return config


def test_a_run_with_the_cameras_of_its_images_resumes_exactly(tmp_path) -> None:
    check_exact_resume(posed("graf"), tmp_path, steps=4, stop=2)


@pytest.mark.parametrize("system", ["pigan", "volumegan"])
def test_a_bundle_carries_the_cameras(tmp_path, system: str) -> None:
    train(["fit", "-c", write(posed(system), tmp_path), "--trainer.max_steps", "1"])
    train(["bundle", str(tmp_path / "checkpoints" / "last.ckpt"), str(tmp_path / "bundle")])
    generator = load(tmp_path / "bundle")
    own = NoiseData(posed=True).cameras()
    assert torch.equal(generator.poses.pose, own.pose)
    assert len(own.pose) == 44  # and mirrored ones
    _, camera = generator.sample(5, draws_for(generator, 0, range(5)))
    assert (camera.pose[:, None] == own.pose).flatten(2).all(-1).any(1).all()
    train(["sample", str(tmp_path / "bundle"), "--out", str(tmp_path / "grid.png"), "--seeds", "0-1"])
    train(["orbit", str(tmp_path / "bundle"), "--out", str(tmp_path / "orbit.gif"), "--frames", "3"])
    fewer = ["fit", "-c", write(posed(system, count=10), tmp_path / "fewer"), "--trainer.max_steps", "1"]
    train([*fewer, "--init_from", str(tmp_path / "bundle")])
    assert len(load(tmp_path / "fewer" / "checkpoints" / "last.ckpt").poses.pose) == 20


def test_images_without_cameras_are_refused(tmp_path, capsys) -> None:
    config = write(posed("graf", posed=False), tmp_path)
    assert main(["fit", "-c", config, "--trainer.max_steps", "1"]) == 2
    assert "DatasetPoses draws from the cameras of the training images, but these have none" in capsys.readouterr().err


def tree(folder: Path, sizes: dict[str, tuple[int, int]], intrinsics: list[float]) -> Path:
    """Images, each with a white pixel where its camera sees the point (0.2, 0.1, 0), and EG3D's dataset.json."""
    labels = []
    for number, (name, (width, height)) in enumerate(sizes.items()):
        pose = orbit_cameras(torch.tensor([[1.2 + 0.2 * number]]), torch.tensor([[1.4]]), 2.7, 0.5).pose
        camera = Camera(pose, torch.tensor(intrinsics).view(1, 3, 3))
        x, y = image_coordinates(camera, 0, torch.tensor([0.2, 0.1, 0.0])).tolist()
        image = Image.new("RGB", (width, height))
        image.paste("white", [round(x * width) - 4, round(y * height) - 4, round(x * width) + 4, round(y * height) + 4])
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name)
        opencv = pose[0] @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
        labels.append([name, [*opencv.flatten().tolist(), *intrinsics]])
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


LENS = [1.6, 0, 0.48, 0, 1.9, 0.53, 0, 0, 1]
SIZES = {"a/0.png": (96, 80), "a/1.png": (80, 80), "b/2.png": (72, 90)}


@pytest.mark.parametrize("kind", [ImageFolder, Squeezed, RandomlyCropped])
def test_the_camera_of_an_item_sees_what_the_image_shows(tmp_path, kind: type[ImageFolder]) -> None:
    path = tree(tmp_path / "images", SIZES, LENS)
    data = kind(str(path), resolution=40, batch_size=3, filter="box", flip=True, manifests=str(tmp_path / "manifests"))
    batches = data.train_dataloader()
    for batch in itertools.islice(batches, 4):
        parts = batch["image"], batch["index"], batch["label"], *batch["camera"]
        for image, index, label, *camera in zip(*parts, strict=True):
            assert label == (index == 2)
            rows, columns = (image[0] > 0).nonzero(as_tuple=True)
            middle = torch.stack([columns, rows], -1).double().mean(0) / 40 + 0.5 / 40
            point = torch.tensor([0.2, 0.1, 0.0])
            one = Camera(*(x[None] for x in camera))
            seen = [image_coordinates(one, 0, point * torch.tensor([sign, 1.0, 1.0])) for sign in (1.0, -1.0)]
            assert min((middle - place).abs().max() for place in seen) < 0.5 / 40
    shown = data.cameras()
    assert len(shown.pose) == 6
    plain = data.train_source().item(2, 40)["camera"]
    assert torch.allclose(shown.intrinsics[2], plain.intrinsics)
    assert torch.equal(shown.pose[2], plain.pose)
    assert torch.equal(shown.pose[5], plain.mirrored().pose)


def test_cameras_of_some_images_only_are_not_used_and_a_file_that_was_asked_for_is_refused(tmp_path, caplog) -> None:
    path = tree(tmp_path / "images", SIZES, LENS)
    Image.new("RGB", (8, 8)).save(path / "more.png")
    data = ImageFolder(str(path), 8, 2, manifests=str(tmp_path / "manifests"))
    assert "camera" not in data.train_source().item(0, 8)
    assert "are not used: 1 of 4 images have no camera in" in caplog.text
    assert caplog.text.count("are not used") == 1
    own = {"cameras": str(path / "dataset.json"), "manifests": str(tmp_path / "manifests")}
    with pytest.raises(UserError, match=r"1 of 4 images have no camera in .*dataset.json.* \(more.png\)"):
        ImageFolder(str(path), 8, 2, **own).prepare_data()
    (path / "more.png").unlink()
    assert ImageFolder(str(path), 8, 2, **own).cameras().pose.shape == (3, 4, 4)
    assert ImageFolder(str(path), 8, 2, manifests=str(tmp_path / "manifests"), cameras=None).cameras() is None


def test_classes_are_labels(tmp_path) -> None:
    for name in ("cat/0.png", "dog/0.png", "dog/more/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    data = ImageFolder(str(tmp_path), 8, 3, manifests=str(tmp_path / ".manifests"))
    assert [data.train_source().item(i, 8)["label"] for i in range(3)] == [0, 1, 1]
    labels = [["cat/0.png", 7], ["dog/0.png", 2], ["dog/more/1.png", 2]]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    data = ImageFolder(str(tmp_path), 8, 3, manifests=str(tmp_path / ".manifests"))
    assert [data.train_source().item(i, 8)["label"] for i in range(3)] == [7, 2, 2]
    batch = next(iter(data.train_dataloader()))
    assert sorted(batch["label"].tolist()) == [2, 2, 7]


@pytest.mark.parametrize("place", ["carla/images", "carla"])
def test_a_tree_of_carla_trains_with_its_own_cameras(tmp_path, place: str) -> None:
    """Images as GRAF's zip of them holds them, its poses beside, and GRAF told to draw from these."""
    images, poses = tmp_path / place, (tmp_path / place).parent / "carla_poses"
    images.mkdir(parents=True)
    poses.mkdir()
    yaw = torch.arange(6.0)[:, None]
    camera = orbit_cameras(yaw, 0.6 + 0.1 * yaw, radius=10.0, fov=math.radians(30))
    z_up = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    for number, pose in enumerate(z_up @ camera.pose):
        Image.new("RGB", (16, 16), "white").save(images / f"{number:06d}.png")
        np.save(poses / f"{number:06d}_extrinsics.npy", pose[:3].numpy())
    config = posed("graf")
    data = {"path": str(images), "resolution": 8, "batch_size": 4, "manifests": str(tmp_path / "manifests")}
    config["data"] = {"class_path": "datamodules.Carla", "init_args": data}
    train(["fit", "-c", write(config, tmp_path / "run"), "--trainer.max_steps", "2"])
    generator = load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert torch.allclose(generator.poses.pose, camera.pose, atol=1e-6)
    # GRAF's filter for these images shows the pixel at the top left of each cell where the cell's middle belongs
    shift = 0.5 / 8 - 0.5 / 16
    expected = camera.intrinsics + torch.tensor([[0, 0, shift], [0, 0, shift], [0, 0, 0]])
    assert torch.allclose(generator.poses.intrinsics, expected, atol=1e-6)
