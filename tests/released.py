"""Tiny trees of published data sets, laid out as their documentation says, and what reads each of them."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 24


def picture(number: int, size: tuple[int, int] = (SIDE, SIDE), kind: str = "PNG") -> bytes:
    """An image whose colours grow to the right and downwards, and tell its number."""
    width, height = size
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([red, green, np.full_like(red, 10 * number)], -1).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def mask(size: tuple[int, int] = (SIDE, SIDE)) -> bytes:
    """White in its left half."""
    image = Image.new("L", size, 0)
    image.paste(255, (0, 0, size[0] // 2, size[1]))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def celeba() -> dict[str, bytes]:
    files = {f"img_align_celeba/{i:06d}.jpg": picture(i, (18, 22), "JPEG") for i in range(1, 5)}
    splits = "000001.jpg 0\n000002.jpg 0\n000003.jpg 1\n000004.jpg 2\n"
    return files | {"Eval/list_eval_partition.txt": splits.encode()}


def celebahq() -> dict[str, bytes]:
    return {f"{part}/{who}/{i:06d}.jpg": picture(i) for i in (1, 2) for part in ("train", "val") for who in ("female",)}


def arrays() -> dict[str, bytes]:
    """CelebA-HQ as GRAF reads it: one of 8 bits, one of floats."""
    files = {}
    for number, dtype in enumerate((np.uint8, np.float32)):
        values = np.arange(3 * SIDE * SIDE).reshape(1, 3, SIDE, SIDE) % 256
        file = io.BytesIO()
        np.save(file, (values / (1 if dtype is np.uint8 else 255)).astype(dtype))
        files[f"imgHQ{number:05d}.npy"] = file.getvalue()
    return files


def ffhq() -> dict[str, bytes]:
    files = {f"images1024x1024/{i // 1000 * 1000:05d}/{i:05d}.png": picture(i % 7) for i in (0, 1, 59999, 60000)}
    others = {"thumbnails128x128/00000/00000.png": picture(9), "in-the-wild-images/00000/00000.png": picture(9)}
    return files | others | {"ffhq-dataset-v2.json": b"{}", "LICENSE.txt": b""}


def stylegan() -> dict[str, bytes]:
    files = {f"00000/img{i:08d}.png": picture(i) for i in range(3)}
    return files | {"dataset.json": b'{"labels": null}'}


STANDARD = [[-0.3, 0.3, 0.1], [0.3, 0.3, 0.1], [0, 0, 0.3], [-0.25, -0.3, 0.1], [0.25, -0.3, 0.1]]  # x right, y up


def recropped() -> dict[str, bytes]:
    """Faces whose unit is 40 pixels, and whose origin is 70 from the left and 60 from the top of 150 pixels."""
    points = [[70 + 40 * x, 149 - (149 - 60) - 40 * y] for x, y, _ in STANDARD]
    numbers = {"lm": points, "lm3d_std": STANDARD, "rescale_factor": 300.0, "center_crop_size": 700, "output_size": 512}
    return {"00000.png": picture(1, (150, 150)), "00001.png": picture(2, (150, 150))} | {
        "cropping_params.json": json.dumps({"00000.png": numbers}).encode()
    }


def afhq() -> dict[str, bytes]:
    return {f"{part}/{animal}/flickr_{animal}_{i:06d}.png": picture(i) for part in ("train", "test") for animal in
            ("cat", "dog") for i in ((1, 2) if part == "train" else (3,))}  # fmt: skip


def cats() -> dict[str, bytes]:
    """Two photographs: the eyes of the first are level; the face of the second is too small."""
    points = "9 60 60 100 60 80 90 40 40 30 10 50 30 110 30 120 10 140 40 "  # ears from 40 to 140
    small = "9 60 60 70 60 65 70 50 40 45 30 55 40 75 40 80 30 85 40 "
    return {
        "CAT_00/00000001_000.jpg": picture(1, (200, 160), "JPEG"),
        "CAT_00/00000001_000.jpg.cat": points.encode(),
        "CAT_00/00000001_005.jpg": picture(2, (200, 160), "JPEG"),
        "CAT_00/00000001_005.jpg.cat": small.encode(),
    }


def prepared_cats() -> dict[str, bytes]:
    return {f"CAT_00/{i:08d}_000.jpg": picture(i, kind="JPEG") for i in (1, 2)}


def carla() -> dict[str, bytes]:
    return {f"images/{i:06d}.png": picture(i) for i in range(3)}


def compcars() -> dict[str, bytes]:
    names = ["78/1/2014/3ac218c0c6c378.jpg", "78/1/2015/a.jpg", "1/1101/unknown/b.jpg"]
    files = {f"data/image/{name}": picture(i, (48, 24), "JPEG") for i, name in enumerate(names)}
    lists = {"train": [names[0], "9/9/2000/not-there.jpg"], "test": names[1:2]}
    texts = {f"data/train_test_split/classification/{part}.txt": "\n".join(of) for part, of in lists.items()}
    return files | {"data/part/78/1/2014/1/c.jpg": picture(7)} | {name: text.encode() for name, text in texts.items()}


def clevr() -> dict[str, bytes]:
    return {f"images/CLEVR_new_{i:06d}.png": picture(i, (32, 24)) for i in range(3)} | {"prior/clevr2_256.npz": b"PK"}


def cub() -> dict[str, bytes]:
    """Two birds; the box of the first is 12 pixels wide and 8 high, from (6, 4), and its mask the left half."""
    names = ["001.Albatross/Albatross_0009_34.jpg", "002.Auklet/Auklet_0001_1.jpg"]
    files = {f"images/{name}": picture(i, kind="PNG") for i, name in enumerate(names)}  # lossless, whatever the name
    files |= {f"segmentations/{name[:-4]}.png": mask() for name in names}
    lists = {
        "images.txt": "".join(f"{i} {name}\n" for i, name in enumerate(names, 1)),
        "bounding_boxes.txt": "1 6.0 4.0 12.0 8.0\n2 0.0 0.0 24.0 24.0\n",
        "train_test_split.txt": "1 1\n2 0\n",
    }
    return files | {name: text.encode() for name, text in lists.items()}


def srncars() -> dict[str, bytes]:
    files = {}
    for part, number in (("train", 1), ("test", 2)):
        folder = f"cars_{part}/{number:032x}"
        files |= {f"{folder}/rgb/{i:06d}.png": picture(i) for i in range(2)}
        files |= {f"{folder}/pose/{i:06d}.txt": b"1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1" for i in range(2)}
        files |= {f"{folder}/intrinsics.txt": b"525. 256. 256. 0.\n0. 0. 0.\n1.\n512 512\n"}
    return files


def lsun(path: Path, count: int = 3, parts: tuple[str, ...] = ("train", "val")) -> Path:
    """LMDBs of bedrooms, of which every second image is a JPEG."""
    import lmdb

    for part in parts:
        folder = path / f"bedroom_{part}_lmdb"
        folder.mkdir(parents=True)
        with lmdb.open(str(folder), map_size=2**20) as database, database.begin(write=True) as transaction:
            for i in range(count if part == "train" else 1):
                kind = "JPEG" if i % 2 else "WEBP"
                transaction.put(f"{i:040x}".encode(), picture(i + (part == "val") * 9, (34, 25), kind))
    return path


# By name of the datamodule: its tree, and how many images of it are read by default.
TREES: dict[str, tuple[Callable[[], dict[str, bytes]], int]] = {
    "CelebA": (celeba, 4),
    "CelebAHQ": (celebahq, 4),
    "FFHQ": (ffhq, 4),
    "FFHQRecropped": (recropped, 1),
    "AFHQ": (afhq, 6),
    "Cats": (cats, 1),
    "Carla": (carla, 3),
    "CompCars": (compcars, 3),
    "CLEVR": (clevr, 3),
    "CUB": (cub, 2),
    "SRNCars": (srncars, 2),
}
