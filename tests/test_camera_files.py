"""Cameras in files of other programs: read into our convention, written, matched with images; damaged ones refused."""

import json
import math
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.geometry.camera import PinholeCamera
from kornia.geometry.conversions import camtoworld_graphics_to_vision_4x4, camtoworld_vision_to_graphics_4x4
from PIL import Image
from torch import Tensor

from datamodules.camera_files import CameraSet, find_cameras, read_cameras, write_cameras
from tests.test_user_errors import refusal
from zoo.cli.command import main
from zoo.render import look_at, orbit_cameras
from zoo.render.projection import image_coordinates
from zoo.utils.errors import UserError
from zoo.utils.listed_files import container_of

N = 3
POINTS = torch.tensor([[0.0, 0, 0], [0.1, 0.2, -0.1], [-0.15, 0.05, 0.2], [0.05, -0.2, 0.1]])
# From the data set of EG3D's faces, as published in issue 65 of NVlabs/eg3d: a face seen from the front.
FFHQ = [
    *(0.9999417662620544, 0.010793998837471008, 0.00011557899415493011, 0.0015220991844047327),
    *(0.010792133398354053, -0.9998840093612671, 0.01074833795428276, -0.012054688543150803),
    *(0.0002315831370651722, -0.010746465064585209, -0.9999422430992126, 2.699972660546436),
    *(0.0, 0.0, 0.0, 1.0, 4.2647, 0.0, 0.5, 0.0, 4.2647, 0.5, 0.0, 0.0, 1.0),
]
# The first frame of NeRF's lego, in which z is up.
LEGO = {
    "camera_angle_x": 0.6911112070083618,
    "frames": [
        {
            "file_path": "./train/r_0",
            "rotation": 0.012566370614359171,
            "transform_matrix": [
                [-0.9999021887779236, 0.004192245192825794, -0.013345719315111637, -0.05379832163453102],
                [-0.013988681137561798, -0.2996590733528137, 0.95394366979599, 3.845470428466797],
                [-4.656612873077393e-10, 0.9540371894836426, 0.29968830943107605, 1.2080823183059692],
                [0.0, 0.0, 0.0, 1.0],
            ],
        }
    ],
}
PIXELS = {"camera_angle_x": None, "fl_x": 500, "w": 400, "h": 300}


# ----------------------------------------------------------------- each format in its own convention, without our code


def own_poses(up: tuple[float, float, float], opencv: bool) -> np.ndarray:
    """Camera-to-world matrices [N, 4, 4] in a world with this up, in OpenCV's or OpenGL's camera space."""
    eyes = np.array([[1.3, 0.4, 0.9], [-0.7, 1.2, 1.1], [0.2, -1.5, 0.6]])
    backward = eyes / np.linalg.norm(eyes, axis=1, keepdims=True)
    right = np.cross(up, backward)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    sign = -1 if opencv else 1
    axes = [right, sign * np.cross(backward, right), sign * backward, eyes]
    bottom = np.tile([0.0, 0, 0, 1], (N, 1, 1))
    return np.concatenate([np.stack(axes, axis=-1), bottom], axis=1)


def own_pixels(pose: np.ndarray, points: np.ndarray, f: float, c: float, opencv: bool) -> np.ndarray:
    """Columns and rows [P, 2] of points [P, 3] of the format's own world, from the top left, in units of f and c."""
    x, y, z = np.linalg.inv(pose)[:3] @ np.concatenate([points, np.ones((len(points), 1))], axis=1).T
    right, down, ahead = (x, y, z) if opencv else (x, -y, -z)
    assert (ahead > 0).all()
    return np.stack([f * right / ahead + c, f * down / ahead + c], axis=-1)


def write_images(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)


def eg3d(folder: Path, poses: np.ndarray) -> list[str]:
    names = [f"00000/img{i}.png" for i in range(N)]
    lens = [1.7, 0, 0.5, 0, 1.7, 0.5, 0, 0, 1]
    labels = [[name, [*pose.flatten().tolist(), *lens]] for name, pose in zip(names, poses, strict=True)]
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return names


def nerf(folder: Path, poses: np.ndarray) -> list[str]:
    frames = [{"file_path": f"./train/r_{i}", "transform_matrix": pose.tolist()} for i, pose in enumerate(poses)]
    values = {"camera_angle_x": 2 * math.atan(0.5 / 1.7), "frames": frames}
    (folder / "transforms_train.json").write_text(json.dumps(values))
    return [f"train/r_{i}.png" for i in range(N)]


def nerfstudio(folder: Path, poses: np.ndarray) -> list[str]:
    lens = {"fl_x": 85, "fl_y": 85.0, "cx": 25, "cy": 25.0, "w": 50, "h": 50, "k1": 0.0, "camera_model": "OPENCV"}
    names = [f"images/frame_{i}.png" for i in range(N)]
    frames = [
        {"file_path": name, "transform_matrix": pose.tolist(), **lens} for name, pose in zip(names, poses, strict=True)
    ]
    (folder / "transforms.json").write_text(json.dumps({"frames": frames, "applied_transform": []}))
    return names


def srn(folder: Path, poses: np.ndarray) -> list[str]:
    for i, pose in enumerate(poses):
        (folder / "car/pose").mkdir(parents=True, exist_ok=True)
        (folder / f"car/pose/{i:06}.txt").write_text(" ".join(map(repr, pose.flatten().tolist())))
    (folder / "car/intrinsics.txt").write_text("217.6 64.0 64.0 0.\n0. 0. 0.\n1.\n128 128\n")
    return [f"car/rgb/{i:06}.png" for i in range(N)]


def carla(folder: Path, poses: np.ndarray) -> list[str]:
    (folder / "carla_poses").mkdir(parents=True, exist_ok=True)
    for i, pose in enumerate(poses):
        np.save(folder / f"carla_poses/{i:06}_extrinsics.npy", pose[:3])
    np.save(folder / "carla_poses/intrinsics.npy", np.diag([870.4, 870.4, 1, 1])[None, None] + np.eye(4, k=2) * 256)
    lens = np.load(folder / "carla_poses/intrinsics.npy")
    lens[..., 1, 2], lens[..., 1, 3] = 256, 0
    np.save(folder / "carla_poses/intrinsics.npy", lens)
    return [f"images/{i:06}.png" for i in range(N)]


Y_UP, Z_UP = (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
FORMATS = {  # how it is written, up in its world, whether its camera space is OpenCV's
    "EG3D": (eg3d, Y_UP, True),
    "NeRF": (nerf, Z_UP, False),
    "nerfstudio": (nerfstudio, Z_UP, False),
    "SRN": (srn, Z_UP, True),
    "CARLA": (carla, Z_UP, False),
}


def our_world(points: Tensor, up: tuple[float, float, float]) -> np.ndarray:
    """Where points of our world are in one with this up."""
    x, y, z = points.unbind(-1)
    return (torch.stack([x, -z, y], dim=-1) if up == Z_UP else points).numpy()


@pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_point_falls_on_the_pixel_that_the_format_says(name: str, as_zip: bool, tmp_path) -> None:
    write, up, opencv = FORMATS[name]
    poses = own_poses(up, opencv)
    names = write(tmp_path / "data", poses) if (tmp_path / "data").mkdir() is None else []
    write_images(tmp_path / "data", names)
    path = tmp_path / "data"
    if as_zip:
        path = tmp_path / "data.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted((tmp_path / "data").rglob("*.*")):
                archive.write(file, file.relative_to(tmp_path / "data"))
    found = find_cameras(container_of(path), names)
    assert found is not None and found.names == names and path.name in found.source
    assert found.camera.pose.dtype == found.camera.intrinsics.dtype == torch.float32
    for view, pose in enumerate(poses):
        expected = own_pixels(pose, our_world(POINTS, up), 1.7, 0.5, opencv)
        assert np.allclose(image_coordinates(found.camera, view, POINTS), expected, atol=1e-5)
    same = read_cameras(path)
    assert same.names == names and torch.equal(same.camera.pose, found.camera.pose)


@pytest.mark.parametrize("kind", ["dataset.json", "transforms.json", "transforms_test.json"])
@pytest.mark.parametrize("name", FORMATS)
def test_cameras_come_back_from_each_format_that_is_written(name: str, kind: str, tmp_path) -> None:
    write, up, opencv = FORMATS[name]
    write(tmp_path, own_poses(up, opencv))
    cameras = read_cameras(tmp_path)
    write_cameras(cameras, tmp_path / "new" / kind)
    again = read_cameras(tmp_path / "new" / kind)
    assert again.names == cameras.names and torch.equal(again.camera.pose, cameras.camera.pose)
    assert torch.allclose(again.camera.intrinsics, cameras.camera.intrinsics, rtol=1e-6)


def test_a_published_face_is_seen_from_the_front(tmp_path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": [["00023.png", FFHQ]]}))
    camera = read_cameras(tmp_path / "dataset.json").camera
    assert torch.allclose(camera.origins, torch.tensor([[0.0, 0.0, 2.7]]), atol=0.02)
    points = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.1, 0.0]])
    middle, right, up = image_coordinates(camera, 0, points)
    assert torch.allclose(middle, torch.tensor([0.5, 0.5]), atol=0.03)
    assert right[0] > middle[0] + 0.1 and up[1] < middle[1] - 0.1


def test_a_published_scene_stands_upright(tmp_path) -> None:
    (tmp_path / "transforms_train.json").write_text(json.dumps(LEGO))
    found = read_cameras(tmp_path / "transforms_train.json")
    assert found.names == ["train/r_0.png"]
    assert torch.allclose(found.camera.origins[0], torch.tensor([-0.0538, 1.2081, -3.8455]), atol=1e-4)
    assert found.camera.intrinsics[0, 0, 0] * 800 == pytest.approx(1111.111, abs=0.01)  # as NeRF's page has it
    middle, up = image_coordinates(found.camera, 0, torch.tensor([[0.0, 0, 0], [0.0, 0.5, 0.0]]))
    assert torch.allclose(middle, torch.tensor([0.5, 0.5]), atol=0.01) and up[1] < middle[1] - 0.1
    orbit = orbit_cameras(torch.tensor([[-math.pi / 2 - 0.014]]), torch.tensor([[1.2664]]), 4.0311, 0.6911112)
    assert torch.allclose(found.camera.pose, orbit.pose, atol=2e-3)  # level, as all of ours


def test_kornia_projects_alike(tmp_path) -> None:
    eg3d(tmp_path, poses := own_poses(Y_UP, True))
    camera = read_cameras(tmp_path / "dataset.json").camera
    poses = torch.tensor(poses, dtype=torch.float32)
    assert torch.allclose(camera.pose, camtoworld_vision_to_graphics_4x4(poses), atol=1e-6)
    lens = torch.eye(4).repeat(N, 1, 1)
    lens[:, :3, :3] = camera.intrinsics
    extrinsics = torch.linalg.inv(camtoworld_graphics_to_vision_4x4(camera.pose))
    pinhole = PinholeCamera(lens, extrinsics, torch.ones(N), torch.ones(N))
    pixels = pinhole.project(POINTS.repeat(N, 1, 1))
    ours = torch.stack([image_coordinates(camera, view, POINTS) for view in range(N)])
    assert torch.allclose(pixels, ours, atol=1e-5)


# --------------------------------------------------------------------------------------------- which image has a camera


def one_sentence(error: Exception) -> None:
    text = re.sub(r"/tmp/[\w/-]*/", "", str(error))
    assert len(text) < 300 and "\n" not in text and text.endswith(".") and "  " not in text, text


def frames(frame: dict | None = None, **changed: object) -> dict:
    """A transforms.json with other values in its frame, and outside of it."""
    return {**LEGO, "frames": [{**LEGO["frames"][0], **(frame or {})}], **changed}


def labels(**changed: list) -> dict:
    return {"labels": [[name, FFHQ] for name in ("a.png", "b.png")], **changed}


def find(folder: Path, names: list[str]) -> CameraSet | None:
    return find_cameras(container_of(folder), names)


@pytest.mark.parametrize("name", ["SRN", "CARLA"])
def test_poses_beside_the_images_are_found(name: str, tmp_path) -> None:
    write, up, opencv = FORMATS[name]
    inside = [Path(image) for image in write(tmp_path, own_poses(up, opencv))]
    folder, names = tmp_path / inside[0].parent, [image.name for image in inside]
    write_images(folder, names)
    found, whole = find(folder, names), read_cameras(tmp_path)
    assert found is not None and found.names == names and torch.equal(found.camera.pose, whole.camera.pose)
    assert read_cameras(folder).names == names


def test_the_poses_of_carla_may_be_a_zip_beside_the_images_or_come_without_a_lens(tmp_path) -> None:
    carla(tmp_path, own_poses(Z_UP, False))
    (tmp_path / "carla_poses/intrinsics.npy").unlink()
    with zipfile.ZipFile(tmp_path / "carla_poses.zip", "w") as archive:
        for file in (tmp_path / "carla_poses").iterdir():
            archive.write(file, file.name)
            file.unlink()
    (tmp_path / "carla_poses").rmdir()
    (tmp_path / "images").mkdir()
    found = find(tmp_path / "images", ["000001.png", "000000.png"])
    assert found is not None and found.names == ["000000.png", "000001.png"]
    assert found.camera.intrinsics[0, 0, 0] == pytest.approx(0.5 / math.tan(math.radians(15)))
    assert read_cameras(tmp_path / "carla_poses.zip").names == [f"00000{i}.png" for i in range(N)]


def test_names_within_subfolders_and_of_other_suffixes(tmp_path) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces/dataset.json").write_text(json.dumps({"labels": [["a\\0.png", FFHQ], ["./b.png", FFHQ]]}))
    found = find(tmp_path, ["faces/a/0.webp", "faces/b.png"])
    assert found is not None and found.names == ["faces/a/0.webp", "faces/b.png"]


def test_several_files_of_one_format_are_one(tmp_path) -> None:
    for part in ("train", "val"):
        frame = LEGO["frames"][0] | {"file_path": f"./{part}/r_0"}
        (tmp_path / f"transforms_{part}.json").write_text(json.dumps(LEGO | {"frames": [frame]}))
    (tmp_path / "transforms.json").write_text(json.dumps(LEGO))  # again, the same camera
    found = find(tmp_path, ["train/r_0.png", "val/r_0.png"])
    assert found is not None and sorted(found.names) == ["train/r_0.png", "val/r_0.png"]
    assert len(found.camera.pose) == 2 and found.source.endswith("and 2 more")


def test_what_has_no_camera_and_what_has_no_image_is_counted(tmp_path, caplog) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(labels()))
    found = find(tmp_path, ["b.png", "c.png", "d.png"])
    assert found is not None and found.names == ["b.png"]
    (line,) = [record.message for record in caplog.records]
    assert line == (
        f"Cameras of '{tmp_path / 'dataset.json'}': 1 used; images without one: 2 (c.png, d.png); cameras without "
        "image: 1 (a.png)."
    )


NO_CAMERAS = {
    "classes": {"labels": [["a.png", 0], ["b.png", 1]]},
    "attributes": {"labels": [["a.png", [0.0] * 40]]},
    "null": {"labels": None},
    "empty": {"labels": []},
    "nothing": {},
    "a list": [],
}


@pytest.mark.parametrize("name", NO_CAMERAS)
def test_labels_of_other_kinds_are_no_cameras(name: str, tmp_path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(NO_CAMERAS[name]))
    assert find(tmp_path, ["a.png", "b.png"]) is None
    with pytest.raises(UserError, match="so it holds no cameras: ") as refused:
        read_cameras(tmp_path)
    one_sentence(refused.value)
    with pytest.raises(UserError, match="so it holds no cameras: "):
        read_cameras(tmp_path / "dataset.json")


def test_a_folder_without_cameras_has_none(tmp_path) -> None:
    (tmp_path / "pose").mkdir()
    (tmp_path / "pose/000000.txt").write_text("another program's")
    assert find(tmp_path, ["a.png"]) is None
    (tmp_path / "pose/000000.txt").unlink()
    with pytest.raises(UserError, match=r"holds no cameras: give EG3D's dataset.json, "):
        read_cameras(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no file "):
        read_cameras(tmp_path / "nothing.json")


# ------------------------------------------------------------------------------------------------------ what is written


def cameras(lens: Tensor | None = None, n: int = 2) -> CameraSet:
    camera = orbit_cameras(torch.linspace(0, 1, n)[:, None], torch.full((n, 1), 1.2), 2.0, 0.5)
    camera = camera if lens is None else camera._replace(intrinsics=lens)
    return CameraSet([f"{i}.png" for i in range(n)], camera, "'mine'")


def test_a_transforms_json_holds_one_lens_in_the_middle_or_in_pixels(tmp_path) -> None:
    target = tmp_path / "transforms.json"
    lens = cameras().camera.intrinsics.clone()
    lens[1, 0, 0] = 3.0
    with pytest.raises(UserError, match=r"'mine' have several lenses, where a transforms.json has one for all"):
        write_cameras(cameras(lens), target)
    lens[:] = torch.tensor([[1.5, 0, 0.5], [0, 2.0, 0.4], [0, 0, 1]])
    with pytest.raises(UserError, match=r"\(0.5, 0.4\), not in the middle, .* give --resolution") as refused:
        write_cameras(cameras(lens), target)
    one_sentence(refused.value)
    assert not target.exists()
    write_cameras(cameras(lens), target, resolution=100)
    written = json.loads(target.read_text())
    assert {name: written[name] for name in ("fl_x", "fl_y", "cx", "cy", "w", "h")} == {
        **{"fl_x": 150, "fl_y": 200, "cx": 50, "cy": pytest.approx(40), "w": 100, "h": 100}
    }
    assert torch.allclose(read_cameras(target).camera.intrinsics, lens)


def test_pixels_that_are_not_square_and_images_that_are_not_either(tmp_path) -> None:
    (tmp_path / "transforms.json").write_text(json.dumps(frames(**PIXELS | {"cx": 100, "cy": 100})))
    lens = read_cameras(tmp_path / "transforms.json").camera.intrinsics[0]
    expected = torch.tensor([[500 / 400, 0, 0.25], [0, 500 / 300, 1 / 3], [0, 0, 1]])
    assert torch.allclose(lens, expected)
    values = frames(camera_angle_x=1.0, camera_angle_y=0.5, w=400, h=300)
    (tmp_path / "transforms.json").write_text(json.dumps(values))
    lens = read_cameras(tmp_path / "transforms.json").camera.intrinsics[0]
    assert lens[1, 1].item() == pytest.approx(0.5 / math.tan(0.25)) and lens[0, 2] == lens[1, 2] == 0.5


def test_cameras_may_roll_and_look_past_the_middle(tmp_path) -> None:
    """Both formats hold whole matrices, so nothing of a pose is lost."""
    pose = look_at(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([0.3, 0.1, 0.0]), up=(1.0, 0.3, 0.0))
    rolled = cameras(n=1)._replace(camera=cameras(n=1).camera._replace(pose=pose))
    for name in ("dataset.json", "transforms.json"):
        write_cameras(rolled, tmp_path / name)
        assert torch.equal(read_cameras(tmp_path / name).camera.pose, pose)


# ---------------------------------------------------------------------------------------------------------- the command


def converted(words: list[str], capsys) -> Callable[[], str]:
    assert main(["data", "cameras", *words]) == 0
    return capsys.readouterr().out


def test_the_command_converts_and_never_overwrites_in_silence(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    eg3d(tmp_path, own_poses(Y_UP, True))
    said = converted(["dataset.json", "nerf/transforms.json", "--resolution", "64"], capsys)
    assert said == "Wrote 3 cameras of 'dataset.json' to 'nerf/transforms.json'.\n"
    assert json.loads((tmp_path / "nerf/transforms.json").read_text())["w"] == 64
    before = (tmp_path / "dataset.json").read_text()
    said = refusal(["data", "cameras", "nerf/transforms.json", "dataset.json"], capsys)
    assert said == "'dataset.json' is there already: take another name, or replace it (--overwrite)."
    assert (tmp_path / "dataset.json").read_text() == before
    assert converted(["nerf/transforms.json", "dataset.json", "--overwrite"], capsys).startswith("Wrote 3 cameras of ")
    after = json.loads((tmp_path / "dataset.json").read_text())["labels"]
    for (name, row), (old_name, old_row) in zip(after, json.loads(before)["labels"], strict=True):
        assert name == old_name and row == pytest.approx(old_row, abs=1e-6)


REFUSED = {
    "nothing.json new/dataset.json": "There is no file 'nothing.json'.",
    "dataset.json cameras.json": "call it dataset.json for EG3D's format, or transforms.json for NeRF's.",
    "dataset.json poses.npy": "A file of cameras is written as .json, not as 'poses.npy': give a name that ends so.",
    "dataset.json dataset.json/dataset.json": "is no folder: take another place.",
    "dataset.json new/dataset.json --resolution 64": "--resolution 64 changes nothing in a dataset.json: leave it out.",
    "dataset.json transforms.json --resolution 0": "resolution is 0: give a number from 1 to 100000.",
    "empty new/dataset.json": "'empty' holds no cameras: give EG3D's dataset.json, NeRF's transforms.json, ",
}


@pytest.mark.parametrize("words", REFUSED)
def test_the_command_refuses_in_one_sentence(words: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    eg3d(tmp_path, own_poses(Y_UP, True))
    (tmp_path / "empty").mkdir()
    assert REFUSED[words] in refusal(["data", "cameras", *words.split()], capsys)
    assert not (tmp_path / "new").exists()


def test_a_group_of_verbs_lists_them_and_refuses_others(capsys) -> None:
    for words in (["data"], ["data", "--help"]):
        assert main(words) == 0
        assert "\n  data cameras  convert the cameras" in capsys.readouterr().out
    assert refusal(["data", "camera"], capsys).startswith(
        "There is no verb 'data camera'. Did you mean 'data cameras'?"
    )
