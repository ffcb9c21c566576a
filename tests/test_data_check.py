"""``zoo data check``: what a set of images is like, with answers that are known."""

import json
import math
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import ImageFolder
from datamodules.camera_files import CameraSet, eg3d
from datamodules.data_check import camera_facts, camera_table, check, differences, lines
from datamodules.images import Crop
from datamodules.pack import pack
from tests.test_images import encoded, folder_of, plain, zip_of
from zoo.cli.command import main
from zoo.export.cameras import DOTS, angle_plot
from zoo.render import UniformPoses, orbit_camera, orbit_cameras
from zoo.utils.errors import UserError

HEIC = b"\0\0\0\x18ftypheic" + bytes(40)


def colours(count: int) -> dict[str, bytes]:
    """JPEGs of 20 x 12 pixels."""
    return {f"b{i}.jpg": encoded(plain((10 * i, 200, 90), (20, 12)), "JPEG") for i in range(count)}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with 7 usable images, of which one is there twice, and what else lies about."""
    monkeypatch.chdir(tmp_path)
    others = {
        "a.png": encoded(plain(size=(64, 48)).convert("L")),
        "copy.png": colours(1)["b0.jpg"],  # the bytes say what it is
        "empty.jpg": b"",
        "phone.jpg": HEIC,
        "phone.heic": HEIC,
        "film.mp4": b"x",
        "notes.txt": b"x",
    }
    return folder_of(tmp_path / "photos", colours(5) | others).parent


def around(count: int = 64, yaw: float = 90, pitch: float = 75, spread: float = 10, **options):
    """Cameras at these mean angles [degrees], evenly spread within ``spread`` to either side."""
    places = torch.linspace(-spread, spread, count)[:, None]
    angles = ((middle + offset).deg2rad() for middle, offset in ((yaw, places), (pitch, places.flip(0) / 2)))
    return orbit_cameras(*angles, **{"radius": 3.0, "fov": math.radians(20)} | options)


def with_cameras(folder, camera) -> None:
    names = [f"{i:03d}.png" for i in range(len(camera.pose))]
    folder_of(folder, {name: encoded(plain((3 * i, 90, 60), (32, 32))) for i, name in enumerate(names)})
    (folder / "dataset.json").write_text(json.dumps(eg3d.content(CameraSet(names, camera, ""))))


def checked(path, resolution=None, batch_size=None, **options):
    return check(ImageFolder(str(path), **{"resolution": 16} | options), resolution, batch_size)


def test_the_facts_of_a_folder(here):
    facts = checked("photos", resolution=16, batch_size=8)
    assert facts["images"] == 7 and facts["container"] == "folder"
    assert facts["broken"] == {
        "empty.jpg": "the file is empty",
        "phone.jpg": "it is in HEIC, which is not read here: convert it to PNG or JPEG",
    }
    assert "1 x .heic (phone.heic; convert them to PNG or JPEG)" in facts["other_files"]
    assert "1 x .mp4 (film.mp4; write their frames as PNG or JPEG)" in facts["other_files"]
    assert "1 x .txt (notes.txt)" in facts["other_files"]
    assert facts["formats"] == {"JPEG": 6, "PNG": 1} and facts["modes"] == {"RGB": 6, "L": 1}
    assert facts["sizes"] == {
        "smallest": {"size": [20, 12], "name": "b0.jpg"},
        "largest": {"size": [64, 48], "name": "a.png"},
        "commonest": {"size": [20, 12], "images": 6},
        "different": 2,
    }
    assert facts["duplicates"] == {"images": 1, "first": [["b0.jpg", "copy.png"]]}
    assert facts["smaller"] == {"images": 6, "first": ["b0.jpg", "b1.jpg", "b2.jpg"]}
    assert facts["classes"] == {} and facts["cameras"] == {"images": 0}
    text = dict(lines(facts))
    assert text["batch"] == "8: more than there are images: a batch holds some of them twice"
    assert text["duplicates"] == "1 file with the bytes of another: b0.jpg = copy.png"
    assert text["resolution"] == "16x16: 6 smaller than that and enlarged (b0.jpg, b1.jpg, b2.jpg)"
    assert text["sizes"] == "20x12 (b0.jpg) to 64x48 (a.png); 2 different and most often 20x12 (6 images)"


def test_a_recipe_with_the_cameras_of_its_images_says_so(here, capsys):
    assert main(["data", "check", "photos", "--experiment", "eg3d/cars32"]) == 0
    told = "prior        that of eg3d/cars32 is the cameras of the images it trains on, so each image needs one"
    assert told in capsys.readouterr().out.splitlines()


def test_the_crop_counts(here):
    assert checked("photos", resolution=12)["smaller"]["images"] == 0
    assert checked("photos", resolution=12, crop=Crop(side=10))["smaller"]["images"] == 7
    assert checked("photos", resolution=12, crop=Crop(side=40, shorter=48))["smaller"]["images"] == 6
    assert "crop" not in dict(lines(checked("photos", crop=Crop(side=40, shorter=48))))
    text = dict(lines(checked("photos", crop=Crop(side=40))))
    assert text["crop"] == "6 smaller than it, with black borders (b0.jpg, b1.jpg, b2.jpg)"


def test_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = colours(5)
    folder_of(
        tmp_path / "of", {f"{'cat' if i < 2 else 'dog'}/{name}": data for i, (name, data) in enumerate(files.items())}
    )
    assert checked("of")["classes"] == {"cat": 2, "dog": 3}
    labels = {"labels": [[name, i % 2] for i, name in enumerate(files)]}
    zip_of(tmp_path / "of.zip", files | {"dataset.json": json.dumps(labels).encode()})
    assert checked("of.zip")["classes"] == {"0": 3, "1": 2}


def test_how_cameras_stand():
    pivot = (0.0, 0.5, -0.2)
    facts = camera_facts(around(yaw=100, pitch=75, spread=20, pivot=pivot))
    deviation = 20 / math.sqrt(3)
    assert facts["yaw"]["mean"] == pytest.approx(100, abs=0.01)
    assert facts["yaw"]["spread"] == pytest.approx(deviation, rel=0.03)
    assert facts["pitch"]["mean"] == pytest.approx(75, abs=0.01)
    assert facts["pitch"]["spread"] == pytest.approx(deviation / 2, rel=0.03)
    assert (facts["pitch"]["low"], facts["pitch"]["high"]) == pytest.approx((65, 85), abs=0.01)
    assert facts["radius"] == pytest.approx({"mean": 3, "low": 3, "high": 3}, abs=0.002)
    assert facts["fov"] == pytest.approx({"median": 20, "low": 20, "high": 20}, abs=0.002)
    assert facts["roll"] == pytest.approx({"mean": 0, "low": 0, "high": 0}, abs=0.002)
    assert facts["pivot"] == pytest.approx(pivot, abs=0.002)


def test_roll_is_seen():
    camera = around(8)
    angle = math.radians(12)
    turn = torch.eye(4)
    turn[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    facts = camera_facts(camera._replace(pose=camera.pose @ turn))
    assert facts["roll"]["mean"] == pytest.approx(12, abs=0.3)
    assert differences(facts, camera_facts(camera)) == ["roll"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"yaw": 93}, []),
        ({"yaw": 120}, ["yaw"]),
        ({"spread": 40}, ["yaw", "pitch"]),
        ({"pitch": 60}, ["pitch"]),
        ({"radius": 4.0}, ["radius"]),
        ({"fov": math.radians(30)}, ["field of view"]),
        ({"pivot": (0.0, 0.4, 0.0)}, ["pivot"]),
    ],
)
def test_what_differs_from_a_prior(change, expected):
    assert differences(camera_facts(around(**change)), camera_facts(around())) == expected


def test_all_round_is_not_a_mean():
    poses = UniformPoses(yaw_spread=math.pi, radius=3.0, fov_deg=20.0)
    turned = [
        camera_facts(orbit_camera(poses.turntable(40), torch.full((40, 1), x), torch.zeros(40, 1))) for x in (0.0, 1.0)
    ]
    assert differences(*turned) == []
    facts = {"cameras": turned[0] | {"images": 1, "source": "x"}, "images": 1}
    assert dict(camera_table(facts))["yaw"] == "all round"


def test_cameras_of_some_images_are_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with_cameras(tmp_path / "posed", around(6))
    assert checked("posed")["cameras"]["images"] == 6
    content = json.loads((tmp_path / "posed/dataset.json").read_text())
    (tmp_path / "posed/dataset.json").write_text(json.dumps({"labels": content["labels"][1:]}))
    facts = checked("posed")
    assert facts["cameras"]["images"] == 5 and "yaw" not in facts["cameras"]
    assert dict(lines(facts))["cameras"].startswith("not used: 5 of 6 images have one ('posed/dataset.json'")
    content["labels"][0][1][16] = -1
    (tmp_path / "posed/dataset.json").write_text(json.dumps(content))
    assert "focal length" in dict(lines(checked("posed")))["cameras"]


def test_a_packed_zip_is_verified(here):
    pack(ImageFolder("photos", 8), here / "packed.zip", "1")
    facts = checked("packed.zip")
    assert facts["packed"] == {"from": "photos", "resolution": 8, "changed": []}
    assert dict(lines(facts))["packed"] == "from 'photos' at 8x8; all as they were packed"
    with zipfile.ZipFile("packed.zip") as archive:
        files = {info.filename: archive.read(info) for info in archive.infolist()}
    zip_of(
        here / "packed.zip",
        {name: data for name, data in files.items() if name != "b4.png"} | {"a.png": files["b1.png"]},
    )
    assert checked("packed.zip")["packed"]["changed"] == ["a.png", "b4.png"]


def test_a_plot_shows_angles_where_they_are():
    image = np.asarray(angle_plot({"x": (torch.tensor([[math.pi / 2]]), torch.tensor([[math.pi / 2]]))}, 400, 300))
    rows, columns = (image[26:] == DOTS[0]).all(-1).nonzero()
    assert abs(columns.mean() - (34 + 388) / 2) < 1.5 and abs(rows.mean() + 26 - (26 + 266) / 2) < 1.5
    other = np.asarray(angle_plot({"x": (torch.tensor([[0.0]]), torch.tensor([[0.5]]))}, 400, 300))
    rows, columns = (other[26:] == DOTS[0]).all(-1).nonzero()
    assert columns.mean() < 34 + 388 / 3 and rows.mean() < 100  # to the right of the object, above it


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with_cameras(tmp_path / "posed", around(18, spread=25))
    assert main(["data", "check", "posed", "--experiment", "pigan/cars32", "--out", "sheet.png"]) == 0
    said = capsys.readouterr()
    assert "cameras      of each image ('posed/dataset.json')" in said.out and "differs in" in said.out
    assert "is not used by models" not in said.err
    sheet = Image.open("sheet.png")
    assert sheet.width > 2 * 4 * 128 + 420 and sheet.height > 4 * 128
    assert main(["data", "check", "posed", "--experiment", "pigan/cars32", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["resolution"] == 32 and facts["smaller"]["images"] == 0 and facts["batch_size"] >= 1
    assert (
        facts["cameras"]["fov"]["median"] == pytest.approx(20, abs=0.01) and "radius" in facts["prior"]["differences"]
    )


def test_nothing_to_use_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "phones", {"a.heic": HEIC, "b.HEIC": HEIC})
    folder_of(tmp_path / "broken", {"a.png": b"x"})
    for path, sentence in (
        ("phones", "holds no images (.png, .jpg, .webp ...): 2 x .heic (a.heic, b.HEIC; convert them to PNG or JPEG)."),
        ("broken", "No image of 'broken' can be used"),
        ("nowhere", "There is no folder or zip file 'nowhere'."),
        ("phone", "There is no folder or zip file 'phone'. Did you mean 'phones'?"),
    ):
        assert main(["data", "check", path]) == 2
        assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert main(["data", "check", "broken", "--out", "x.txt"]) == 2
    assert "An image is written as" in capsys.readouterr().err
    with pytest.raises(UserError):
        checked("broken")
