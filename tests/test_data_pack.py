"""``zoo data pack``: a zip of the images that training sees, bit for bit, whatever happens while it is written."""

import errno
import json
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import FFHQ, CelebA, ImageFolder
from datamodules import pack as packing
from datamodules.camera_files import CameraSet, eg3d
from datamodules.images import Crop
from datamodules.pack import pack, packed_names
from datamodules.resized import RandomlyCropped, Squeezed
from tests.test_images import encoded, folder_of, zip_of
from zoo.cli.command import main
from zoo.render import orbit_cameras
from zoo.utils.errors import UserError

SIDE = 16


def noise(seed: int, width: int = 30, height: int = 24) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    return encoded(Image.fromarray(pixels), "PNG")


def test_a_zip_is_listed_once(here, monkeypatch):
    """Packed or not, and read by whichever class: listing 100,000 members takes a second."""
    data = ImageFolder("photos", SIDE, 2)
    pack(data, here / "packed.zip", "1")
    zip_of(here / "plain.zip", {"00000.png": noise(0)})
    opened, whole = [], zipfile.ZipFile
    monkeypatch.setattr(zipfile, "ZipFile", lambda *given: opened.append(given) or whole(*given))
    for images in (
        ImageFolder("packed.zip", SIDE, 2),
        ImageFolder("plain.zip", SIDE, 2),
        FFHQ("plain.zip", resolution=8, batch_size=2),
    ):
        images.prepare_data()
        images.setup("fit")
        assert len(opened) == 1 and len(images.files) and not opened.clear()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with 6 images of two classes, and one that is broken."""
    monkeypatch.chdir(tmp_path)
    names = [f"{'cat' if i < 2 else 'dog'}/no {i}.jpg" for i in range(6)]
    folder_of(tmp_path / "photos", {name: noise(i, 30 + i) for i, name in enumerate(names)})
    (tmp_path / "photos/cat/zero.png").write_bytes(b"")
    return tmp_path


def packed(**options) -> tuple[ImageFolder, Path]:
    data = ImageFolder("photos", SIDE, **options)
    assert pack(data, Path("packed.zip"), "1") == 6
    return data, Path("packed.zip")


@pytest.mark.parametrize(
    "source",
    [
        ImageFolder,
        partial(ImageFolder, crop=Crop(side=20, shorter=22, right=1), filter="subsample"),
        partial(ImageFolder, crop=Crop(side=40), filter="box"),  # black where it leaves the image
        Squeezed,
    ],
)
def test_a_packed_zip_gives_the_images_of_its_source(here, source):
    data = source("photos", resolution=SIDE, flip=False)
    pack(data, here / "packed.zip", "1")
    again = ImageFolder("packed.zip", SIDE)
    again.setup("fit")
    ours, theirs = (torch.utils.data.default_collate([*each.val_dataloader().dataset]) for each in (again, data))
    assert ours.keys() == theirs.keys() == {"image", "label", "index"}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.digest() == data.digest() and again.name == data.name == "photos"


def test_cameras_are_those_of_the_squares(here):
    camera = orbit_cameras(torch.linspace(0, 3, 6)[:, None], torch.linspace(1, 2, 6)[:, None], 2.5, 0.6)
    content = eg3d.content(CameraSet([*ImageFolder("photos").files.open()], camera, ""))
    (here / "photos/dataset.json").write_text(json.dumps(content))
    data, _ = packed(crop=Crop(side=20, down=2))
    again = ImageFolder("packed.zip", SIDE)
    assert not torch.equal(data.cameras().intrinsics, camera.intrinsics)
    for ours, theirs in zip(again.cameras(), data.cameras(), strict=True):
        assert torch.equal(ours, theirs)
    assert again.files.item(3, SIDE)["label"] == 1  # the classes are those of the folders


def test_listed_classes_stay_beside_cameras(here):
    names = [*ImageFolder("photos").files.open()]
    (here / "photos/dataset.json").write_text(json.dumps({"labels": [[name, i] for i, name in enumerate(names)]}))
    camera = orbit_cameras(torch.linspace(0, 3, 6)[:, None], torch.ones(6, 1), 2.5, 0.6)
    (here / "photos/more").mkdir()
    content = eg3d.content(CameraSet([f"../{name}" for name in names], camera, ""))
    (here / "photos/more/dataset.json").write_text(json.dumps(content))
    packed()
    again = ImageFolder("packed.zip", SIDE)
    assert again.files.open() and again.files.labels == list(range(6))
    assert torch.equal(again.cameras().pose, camera.pose)


def test_the_zip_is_the_same_each_time_and_stored(here):
    _, path = packed()
    before = path.read_bytes()
    packed()
    assert path.read_bytes() == before
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        manifest = json.loads(archive.read("packed.json"))
    assert manifest["files"]["cat/no_0.png"]["source"] == "cat/no 0.jpg" and manifest["resolution"] == SIDE
    assert sorted(here.glob(".*")) == []


@pytest.mark.parametrize(("cut", "junk"), [(0, 0), (7, 0), (400, 0), (0, 50_000)])
def test_an_interrupted_pack_continues(here, monkeypatch, cut, junk):
    _, path = packed()
    whole, calls, encode = path.read_bytes(), [], packing.encoded

    def ends_at(last, files, resolution, index):
        if index == last:
            raise KeyboardInterrupt
        calls.append(index)
        return encode(files, resolution, index)

    monkeypatch.setattr(packing, "encoded", partial(ends_at, 4))
    with pytest.raises(KeyboardInterrupt):
        packed()
    assert path.read_bytes() == whole  # the older one stays until the new one is whole
    (part,) = here.glob(".packed-*.part")
    data = part.read_bytes()
    start = data.index(b"PK\1\2")  # what the writer wrote when it ended
    part.write_bytes(data[: start - cut] + bytes(junk))
    calls.clear()
    monkeypatch.setattr(packing, "encoded", partial(ends_at, None))
    packed()
    assert calls == list(range(4 if cut == 0 else 3, 6))
    assert path.read_bytes() == whole and not part.exists()


def test_other_images_are_not_continued(here, monkeypatch):
    def fails(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(packing, "encoded", fails)
        packed()
    (part,) = here.glob(".packed-*.part")
    (here / "photos/cat/no 0.jpg").write_bytes(noise(77))
    data, _ = packed()
    assert not part.exists() and ImageFolder("packed.zip", SIDE).digest() == data.digest()


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["a-b.jpg", "a.jpg", "ä \x1b.tif"], ["a-b.png", "a.png", "ä__.png"]),
        (["a.b.JPG", "b/.c.png", "c/../d\n.webp"], ["a.b.png", "b/_c.png", "c/_./d_.png"]),
        (["a.jpg", "a.png"], ["img00000000.png", "img00000001.png"]),  # of one name
        (["a!.jpg", "a.jpg"], ["img00000000.png", "img00000001.png"]),  # in another order
    ],
)
def test_names_keep_their_order(sources, names):
    assert sorted(sources) == sources and packed_names(sources) == names == sorted(names)


def test_classes_outlive_numbers_for_names(here):
    for name in ("cat/no 0.png", "cat/no_0.png"):
        (here / f"photos/{name}").write_bytes(noise(9))
    data = ImageFolder("photos", SIDE)
    pack(data, here / "packed.zip", "1")
    again = ImageFolder("packed.zip", SIDE)
    assert again.files.open()[0] == "img00000000.png"
    assert again.files.labels == data.files.labels == [0, 0, 0, 0, 1, 1, 1, 1]


def test_what_was_changed_is_other_data(here):
    data, path = packed()
    with zipfile.ZipFile(path) as archive:
        files = {info.filename: archive.read(info) for info in archive.infolist()}
    zip_of(path, files | {"cat/no_1.png": files["cat/no_0.png"]})
    again = ImageFolder("packed.zip", SIDE)
    assert again.digest() != data.digest()
    assert ImageFolder("packed.zip", SIDE // 2).digest() != ImageFolder("photos", SIDE // 2).digest()
    for damaged in (b"{", b"[]", b'{"version": 1}', json.dumps({"version": 99}).encode()):
        zip_of(path, files | {"packed.json": damaged})
        with pytest.raises(UserError, match=r"packed\.json.*(no json|is damaged|later version)"):
            ImageFolder("packed.zip", SIDE).digest()


def test_other_crops_are_refused(here):
    packed(crop=Crop(side=20), filter="box")
    assert ImageFolder("packed.zip", SIDE, crop=Crop(side=20), filter="box").files.open()
    for options in ({"filter": "box"}, {"crop": Crop(side=21), "filter": "box"}):
        images = ImageFolder("packed.zip", SIDE, **options).files
        for _ in range(2):  # a refused zip is not taken for a plain one afterwards
            with pytest.raises(
                UserError, match=r"was packed with Crop\(side=20, .* and the filter box, and here Crop\("
            ):
                images.open()


def test_a_split_is_not_another(here):
    packed()
    assert CelebA("packed.zip", resolution=SIDE, preset="plain").files.open()
    with pytest.raises(UserError, match="was packed from the split 'all', and the split 'train' is asked for"):
        CelebA("packed.zip", resolution=SIDE, preset="plain", split="train").files.open()


def test_random_crops_are_not_packed(here):
    with pytest.raises(UserError, match="RandomlyCropped takes another square"):
        pack(RandomlyCropped("photos", resolution=SIDE), here / "packed.zip", "1")


def test_a_full_disk_is_said_and_resumed(here, monkeypatch, capsys):
    def full(archive, info, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    words = ["data", "pack", "photos", "packed.zip", "--resolution", str(SIDE)]
    with monkeypatch.context() as patched:
        patched.setattr(zipfile.ZipFile, "writestr", full)
        assert main(words) == 1
    assert "'packed.zip': there is no space left" in capsys.readouterr().err
    assert main(words) == 0
    assert "Packed 6 images at 16x16 into 'packed.zip'." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere", "new.zip", "--resolution=8"], "There is no folder or zip file 'nowhere'."),
        (["photos", "new.tar", "--resolution=8"], "A packed data set is written as .zip, not as 'new.tar'"),
        (["photos", "old.zip", "--resolution=8"], "'old.zip' is there already: take another name, or replace it"),
        (["photos", "new.zip", "--resolution=0"], "resolution is 0: give a number from 1 to 100000."),
        (["photos", "new.zip"], "Give --resolution in pixels, or an --experiment"),
        (["photos", "new.zip", "--resolution=8", "--preset=celebb"], "There is no preset 'celebb'"),
        (["photos", "new.zip", "--resolution=8", "--preset=celeba/giraf"], "There is no preset 'giraf' of celeba"),
    ],
)
def test_errors(here, capsys, words, sentence):
    (here / "old.zip").write_bytes(b"mine")
    assert main(["data", "pack", *words]) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert not (here / "new.zip").exists() and (here / "old.zip").read_bytes() == b"mine"


def test_an_experiment_or_preset_says_how(here, capsys):
    assert main(["data", "pack", "photos", "a.zip", "--experiment", "graf/celeba64", "--resolution", "16"]) == 0
    assert "no image has more than" not in capsys.readouterr().err
    assert main(["data", "pack", "photos", "b.zip", "--preset", "celeba/graf", "--resolution", "32"]) == 0
    assert "zoo: no image has more than" in capsys.readouterr().err
    about = [json.loads(zipfile.ZipFile(name).read("packed.json")) for name in ("a.zip", "b.zip")]
    assert [(each["class"], each["filter"], "side=108" in each["crop"]) for each in about] == [
        ("CelebA", "bilinear", True)
    ] * 2
