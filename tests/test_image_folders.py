"""What a folder or zip of images may be, whoever reads it: training, both sides of a score, inversion."""

import gc
import json
import logging
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import ImageFolder
from datamodules.images import Crop, ImageFiles
from datamodules.labels import find_labels
from tests.test_images import TRAPS, encoded, folder_of, plain, zip_of
from zoo.cli.command import main
from zoo.evaluate.images import ImagePathDataset, holds_images, resizing
from zoo.utils.errors import UserError
from zoo.utils.image_folders import CheckedImages
from zoo.utils.images import BY_SUFFIX, FORMATS, decode
from zoo.utils.listed_files import Folder, Zip
from zoo.utils.paths import IMAGE_SUFFIXES


def noise(seed: int, side: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8))


def warned_exif() -> bytes:
    """A JPEG beside whose pixels stands metadata that Pillow warns of."""
    broken = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\xff\xff\x00\x00\x06\x00\x00\x00"
    return encoded(noise(9), "JPEG", exif=broken)


@pytest.fixture
def checked(tmp_path):
    return lambda path, **options: CheckedImages(path, manifests=tmp_path / "manifests", **options)


@pytest.mark.parametrize("trap", TRAPS)
def test_a_score_reads_images_as_training_does(trap, tmp_path):
    data, suffix, _, _ = TRAPS[trap]
    image = decode(data)
    path = folder_of(tmp_path / "in", {f"a.{suffix}": data if image.width == image.height else encoded(noise(1, 8))})
    trained = ImageFolder(str(path), 8, manifests=str(tmp_path / "manifests"))
    scored = ImagePathDataset(path, tmp_path / "manifests")
    assert torch.equal(scored[0]["image"], next(iter(trained.val_dataloader()))["image"][0])


def fid_in(printed: str) -> float:
    """The value in the table that is printed."""
    return float(next(line for line in printed.splitlines() if line.startswith("fid-")).split()[1])


def test_a_folder_against_itself_scores_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rgba = noise(0).convert("RGBA")
    rgba.putalpha(noise(1).convert("L"))
    grey16 = Image.fromarray(np.random.default_rng(2).integers(0, 65535, (32, 32), np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    images = {
        "x/rgba.png": encoded(rgba),
        "x/grey16.png": encoded(grey16),
        "x/p.gif": encoded(noise(3).convert("P"), "GIF"),
    }
    images |= {
        "y/cmyk.jpg": encoded(noise(4).convert("CMYK"), "JPEG"),
        "y/turned.JPG": encoded(noise(5), "JPEG", exif=exif),
    }
    images |= {
        "y/e.tif": encoded(noise(6), "TIFF"),
        "y/warned.jpg": warned_exif(),
        "y/broken.png": b"\x89PNG",
        ".a.png": b"",
    }
    folder_of(tmp_path / "far", images)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to("../far")
    zip_of(tmp_path / "in.zip", {f"linked/{name}": data for name, data in images.items()})
    for fake, real in (("in", "in"), ("in.zip", "in")):
        assert main(["evaluate", fake, "--real", real]) == 0
        said = capsys.readouterr()
        assert fid_in(said.out) == pytest.approx(0, abs=1e-6), said.out
        assert "fid-efficientnetlite0-bicubic224-7" in said.out and "Warning" not in said.err


def test_all_that_pillow_reads_by_itself_is_read():
    """The rest it hands to other programs or libraries, or holds no pixels."""
    Image.init()
    others = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF", "IPTC"}
    read = {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN.keys() - others}
    assert read | {".mpo"} == set(IMAGE_SUFFIXES)
    assert {*FORMATS} <= Image.OPEN.keys() and {*BY_SUFFIX} <= read
    assert all(Image.OPEN[name][1] for name in FORMATS)  # begin with something of their own


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "PPM", "TGA", "AVIF", "JPEG2000", "ICO"])
def test_formats_are_known_by_their_bytes(kind, tmp_path, checked):
    suffix = {"JPEG2000": "jp2", "TIFF": "tif"}.get(kind, kind.lower())
    files = {f"a.{suffix}": encoded(noise(1), kind)} | ({} if kind == "TGA" else {"b.png": encoded(noise(1), kind)})
    assert checked(folder_of(tmp_path / "in", files)).open() == list(files)


def test_floats_and_holes_in_16_bits():
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    wanted = (ramp * 255 + 0.5).astype(np.uint8)
    for values in (ramp, ramp * 255):
        data = encoded(Image.fromarray(values), "TIFF")
        assert (np.asarray(decode(data))[..., 0] == wanted).all()
    grey = np.full((8, 8), 40000, np.uint16)
    grey[:4] = 7
    top, bottom = np.asarray(decode(encoded(Image.fromarray(grey), transparency=7)))[[0, 7], 0, 0]
    assert (top, bottom) == (255, 156)


def test_links_are_followed_once_and_lost_ones_named(tmp_path, checked, caplog):
    image = {f"{i}.png": encoded(noise(i)) for i in range(2)}
    folder_of(tmp_path / "far", image | {"deep/3.png": encoded(noise(3))})
    path = folder_of(tmp_path / "in", {"z/9.png": encoded(noise(9))})
    links = {"a": "z", "b": "../far", "c": "../far/deep", "loop": ".", "up": "..", "lost.png": "no.png", "self": "self"}
    for name, target in links.items():
        (path / name).symlink_to(target)
    (tmp_path / "far" / "back").symlink_to("../in")
    os.mkfifo(path / "pipe.png")
    source = checked(path)
    with caplog.at_level(logging.WARNING):
        assert source.open() == ["b/0.png", "b/1.png", "b/deep/3.png", "z/9.png"]
    assert set(source.bad) == {"lost.png", "pipe.png"}
    for name in ("lost.png", "self", "a, b/back, c and 2 more"):
        assert name in caplog.text
    assert checked(path / "b").open() == ["0.png", "1.png", "back/z/9.png", "deep/3.png"]  # the folder itself is a link


def test_what_is_left_out_is_counted_and_named(tmp_path, checked, caplog):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for name in ("a.png", "a.png", "b.txt", "c.txt", "d.npy", "e"):
            archive.writestr(name, encoded(noise(len(archive.namelist()))))
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "a.png")
    source = checked(tmp_path / "in.zip")
    with caplog.at_level(logging.WARNING):
        assert source.open() == ["a.png"] and source.bad == {"link.png": "a link"}
    assert (np.asarray(source.image(0)) == np.asarray(noise(1))).all()  # the last one
    for words in ("2 x .txt (b.txt, c.txt)", "1 x .npy", "no suffix (e)", "same name as a later one (a.png)"):
        assert words in caplog.text
    caplog.clear()
    folder_of(tmp_path / "none", {f"{i}.zip": b"" for i in range(9)})
    with pytest.raises(ValueError, match=r"holds no images.*9 x \.zip") as error:
        checked(tmp_path / "none").open()
    assert len(str(error.value)) < 300


LABELS = {"c/0.png": [0.5] * 25, "c/1.png": None}


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"dataset.json": json.dumps({"labels": list(LABELS.items())})}, "dataset.json (25 numbers an image)"),
        ({"c/dataset.json": json.dumps({"labels": [["c/0.png", 3]]})}, "c/dataset.json (a class an image)"),
        ({"transforms_train.json": "{}"}, "transforms_train.json"),
        ({"c/pose/0.txt": "1", "c/pose/1.txt": "1"}, "c/pose (2 files)"),
        ({"../poses/0.npy": ""}, "/poses'"),  # beside it, as of GRAF's CARLA
        ({"dataset.json": json.dumps({"labels": None})}, None),
    ],
)
def test_cameras_and_labels_are_mentioned(extra, said, tmp_path, checked, caplog):
    path = folder_of(tmp_path / "images", {name: encoded(noise(1)) for name in LABELS})
    folder_of(path, {name: content.encode() for name, content in extra.items()})
    with caplog.at_level(logging.WARNING):
        checked(path).open()
        if ".." not in str(extra):
            packed = {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*.*")}
            checked(zip_of(tmp_path / "in.zip", packed)).open()
    lines = [record.message for record in caplog.records if "not used" in record.message]
    assert len(lines) == (0 if said is None else 1 if ".." in str(extra) else 2)
    assert all(said in line for line in lines)


@pytest.mark.parametrize("damage", ["[]", "null", "{", "[" * 100_000, '{"version": 2, "files": {"0.png": 1}}', b"\xff"])
def test_a_damaged_list_is_made_anew(damage, tmp_path, checked):
    path = folder_of(tmp_path / "in", {"0.png": encoded(noise(0)), "1.png": b"broken"})
    before, source = checked(path), checked(path)
    before.open()
    whole = source.manifest_path().read_text()
    source.manifest_path().write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    assert source.open() == ["0.png"] and source.hashes == before.hashes
    assert source.manifest_path().read_text() == whole


def test_an_error_of_the_disk_is_not_remembered(tmp_path, checked, monkeypatch):
    path = folder_of(tmp_path / "in", {"0.png": encoded(noise(0)), "1.png": encoded(noise(1))})
    source = checked(path)
    with monkeypatch.context() as patch:

        def read(self, name):
            if name == "1.png":
                raise OSError(5, "Input/output error")
            return (self.path / name).read_bytes()

        patch.setattr(Folder, "read", read)
        assert source.open() == ["0.png"] and "Input/output error" in source.bad["1.png"]
    assert checked(path).open() == ["0.png", "1.png"]


def test_a_list_of_an_earlier_version_is_made_anew(tmp_path, checked, monkeypatch):
    path = folder_of(tmp_path / "in", {"0.png": encoded(noise(0)), "1.png": encoded(noise(1), "TIFF")})
    checked(path).open()
    manifest = checked(path).manifest_path()
    lines = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(lines | {"version": 2}))
    seen, check = [], CheckedImages.check_file
    monkeypatch.setattr(CheckedImages, "check_file", lambda self, file: seen.append(file.name) or check(self, file))
    assert checked(path).open() == ["0.png", "1.png"] and seen == ["0.png", "1.png"]


def test_where_no_list_can_be_written_images_are_read_all_the_same(tmp_path):
    path = folder_of(tmp_path / "in", {"0.png": encoded(noise(0))})
    (tmp_path / "data").write_text("a file")
    data = ImageFolder(str(path), 8, manifests=str(tmp_path / "data" / "manifests"))
    data.prepare_data()
    assert len(data.val_dataloader().dataset) == 1
    assert len(ImagePathDataset(path, tmp_path / "data" / "manifests")) == 1


@pytest.mark.skipif(sys.platform == "darwin", reason="the file system of macOS knows no such names")
def test_names_that_are_no_text(tmp_path, checked, caplog):
    name = os.fsdecode(b"caf\xe9.png")
    path = folder_of(tmp_path / os.fsdecode(b"bilder \xff"), {name: encoded(noise(0)), f"x{name}": b"broken"})
    for _ in range(2):
        source = ImageFiles(path, manifests=tmp_path / "manifests")
        with caplog.at_level(logging.WARNING):
            assert source.open() == [name] and len(source.digest(8)) == 64
    scored = ImagePathDataset(path, tmp_path / "manifests")
    assert len(scored.digest()) == 64
    for text in (caplog.text, source.name, scored.name):
        assert text.encode()


def test_pillow_is_silent_beside_good_images(tmp_path):
    """In a process of its own: pytest keeps warnings to itself."""
    path = folder_of(tmp_path / "in", {f"{i}.jpg": warned_exif() for i in range(3)})
    lines = [
        "import sys, warnings; from pathlib import Path",
        "from zoo.utils.image_folders import CheckedImages; from zoo.utils.images import read_image",
        "CheckedImages(sys.argv[1], manifests='m').image(0); read_image(Path(sys.argv[1], '0.jpg'))",
        "warnings.warn('mine')",
    ]
    code = "\n".join(lines)
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, cwd=tmp_path, env=env, timeout=60
    )
    assert done.returncode == 0 and "PIL" not in done.stderr and "mine" in done.stderr


def test_both_sides_of_a_score_are_resized_alike_and_it_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    sizes = [(32, 32), (50, 30), (30, 50), (64, 64)]
    folder_of(tmp_path / "mixed", {f"{i}.png": encoded(noise(i).resize(size)) for i, size in enumerate(sizes)})
    folder_of(tmp_path / "even", {f"{i}.png": encoded(noise(i)) for i in range(4)})
    zip_of(tmp_path / "40.zip", {f"{i}.png": encoded(noise(i, 40)) for i in range(4)})

    def scores(*words: str) -> tuple[float, list[str]]:
        assert main(["evaluate", *words]) == 0
        said = capsys.readouterr()
        return fid_in(said.out), [line for line in said.err.splitlines() if "resized" in line]

    fid, said = scores("mixed", "--real", "mixed")
    assert abs(fid) < 1e-6 and len(said) == 1
    assert "'mixed' that are not 32x32, such as '1.png' (50x30), are resized: the largest square in the" in said[0]
    assert scores("even", "--real", "even")[1] == []
    fid, said = scores("mixed", "--real", "40.zip", "--resolution", "64")
    assert fid > 1 and [line.split("'")[1] for line in said] == ["mixed", "40.zip"]


def test_whether_images_are_resized_is_known_without_reading_them_again(checked, tmp_path, monkeypatch):
    turned = Image.new("RGB", (8, 4))
    turned.getexif()[274] = 6
    files = {"0.png": encoded(plain(size=(8, 8))), "1.jpg": encoded(turned, "JPEG", exif=turned.getexif())}
    images = checked(folder_of(tmp_path / "in", files))
    images.open()
    monkeypatch.setattr(Folder, "read", None)
    assert "such as '1.jpg' (4x8), are resized" in resizing(images, 8)


def test_garbage_is_looked_for_again_once_images_are_open(checked, tmp_path, monkeypatch):
    """And while they are checked, which may take hours."""
    path, seen = folder_of(tmp_path / "in", {"0.png": encoded(plain())}), []
    for part in ("check_file", "check"):
        whole = getattr(CheckedImages, part)
        monkeypatch.setattr(CheckedImages, part, lambda *given, f=whole: seen.append(gc.isenabled()) or f(*given))
    checked(path).open()
    assert seen == [False, True] and gc.isenabled()
    with pytest.raises(UserError, match="no folder or zip"):
        checked(tmp_path / "none").open()
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("label", "wanted"), [(3, [3, 3]), (2**31, None), (-1, None), (True, None), ([0.5] * 25, None), (None, None)]
)
def test_classes_are_whole_numbers(label, wanted, checked, tmp_path):
    labels = json.dumps({"labels": [[name, label] for name in ("a.png", "b.png")]})
    zip_of(tmp_path / "in.zip", {"dataset.json": labels.encode(), "a.png": encoded(plain()), "b.png": encoded(plain())})
    assert find_labels(Zip(tmp_path / "in.zip"), ["a.png", "b.png"]) == wanted


def test_digests_are_those_of_published_scores(tmp_path):
    def bmp(side: int, value: int) -> bytes:
        row = bytes([value, 90, 200]) * side
        pixels = (row + bytes(-len(row) % 4)) * side
        head = struct.pack("<2sIHHI", b"BM", 54 + len(pixels), 0, 0, 54)
        return head + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, len(pixels), 0, 0, 0, 0) + pixels

    path = folder_of(tmp_path / "in", {f"{i}.bmp": bmp(8, 40 * i) for i in range(3)} | {"é x.bmp": bmp(8, 200)})
    place = {"manifests": tmp_path / "manifests"}
    assert ImageFiles(path, **place).digest(8).startswith("f3a7625892d54423")
    assert ImageFiles(path, crop=Crop(side=4), filter="subsample", **place).digest(8).startswith("6473480cd1dee959")
    assert ImagePathDataset(path, **place).digest().startswith("e3aad6d7bccee208")


def test_a_folder_holds_images_wherever_they_are_in_it(tmp_path):
    folder_of(tmp_path / "in", {"a/b/c.png": b""})
    folder_of(tmp_path / "no", {"a/b/c.txt": b"", ".b.png": b""})
    zip_of(tmp_path / "in.zip", {"a/c.tif": b""})
    (tmp_path / "no.zip").write_bytes(b"PK")
    (tmp_path / "no.png").write_bytes(encoded(plain()))
    assert [holds_images(tmp_path / name) for name in ("in", "in.zip")] == [True] * 2
    assert [holds_images(tmp_path / name) for name in ("no", "no.zip", "no.png", "nowhere")] == [False] * 4
