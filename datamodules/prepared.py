"""What published programs made of whole images before they were read: cut-outs of birds, aligned faces, arrays.

These are functions of the released files; each is a part of a ``zoo.utils.image_folders.Layout``.
"""

import hashlib
import io
import json
import math
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from datamodules.releases import lines_of
from zoo.utils.errors import UserError
from zoo.utils.images import pillow_silenced
from zoo.utils.listed_files import Container, Folder, Zip, container_of, text
from zoo.utils.paths import is_image

MISSING = (FileNotFoundError, NotADirectoryError, KeyError)  # a file that is not in a folder, or not in a zip


def partition(container: Container, names: list[str], images: list[str], split: str) -> list[str]:
    """Images of a split of CelebA: ``list_eval_partition.txt`` has 0 for training, 1 for validation, 2 for testing."""
    code = {"train": "0", "val": "1", "test": "2"}[split]
    rows = [line.split() for line in lines_of(container, names, "list_eval_partition.txt", ("Eval",))]
    wanted = {row[0].rpartition(".")[0] for row in rows if len(row) == 2 and row[1] == code}
    return [name for name in images if PurePosixPath(name).stem in wanted]


def listed(container: Container, names: list[str], images: list[str], split: str) -> list[str]:
    """Images of a split of CompCars: ``train_test_split/classification`` lists make/model/year/file."""
    wanted = set(lines_of(container, names, f"train_test_split/classification/{split}.txt"))
    return [name for name in images if "/".join(PurePosixPath(name).parts[-4:]) in wanted]


# ------------------------------------------------------------------------------------------------ arrays of CelebA-HQ


def array_image(data: bytes) -> bytes:
    """An encoded image of the bytes of a .npy file: (1, 3, H, W), of 8 bits, or floats from 0 to 1."""
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim != 3 or array.shape[0] != 3 or array.dtype not in (np.uint8, np.float32):
        raise ValueError(f"an array of {array.dtype} {array.shape} where uint8 or float32 (1, 3, H, W) is expected")
    if array.dtype == np.float32:
        array = (array * 255).astype(np.uint8)
    pixels = array.transpose(1, 2, 0)
    return f"P6 {pixels.shape[1]} {pixels.shape[0]} 255\n".encode() + pixels.tobytes()


class ArrayFolder(Folder):
    """A folder in which .npy files are images, too."""

    def read(self, name: str) -> bytes:
        data = super().read(name)
        return array_image(data) if name.endswith(".npy") else data


class ArrayZip(Zip):
    """A zip in which .npy files are images, too."""

    def read(self, name: str) -> bytes:
        data = super().read(name)
        return array_image(data) if name.endswith(".npy") else data


def with_arrays(path: Path) -> Container:
    """The folder or zip at this path, in which .npy files are images, too."""
    return {Folder: ArrayFolder, Zip: ArrayZip}[type(container_of(path))](path)


def is_image_or_array(name: str) -> bool:
    return is_image(name) or name.endswith(".npy")


# ------------------------------------------------------------------------------------------------------------- birds


def table(container: Container, names: list[str], name: str) -> dict[str, list[str]]:
    """Rows of one of CUB's lists by their first column, the number of an image."""
    rows = [line.split() for line in lines_of(container, names, name)]
    return {row[0]: row[1:] for row in rows if len(row) > 1}


def bird_split(container: Container, names: list[str], images: list[str], split: str) -> list[str]:
    """Images of a split of CUB: ``train_test_split.txt`` has 1 for training."""
    code = {"train": ["1"], "test": ["0"]}[split]
    numbers, splits = table(container, names, "images.txt"), table(container, names, "train_test_split.txt")
    wanted = {row[0] for number, row in numbers.items() if splits.get(number) == code}
    return [name for name in images if "/".join(PurePosixPath(name).parts[-2:]) in wanted]


def with_masks(container: Container, names: list[str], images: list[str]) -> list[str]:
    """Those images of CUB that can be cut out, and are on GRAF's list ``filtered_files.txt`` where that is there.

    Raises:
        UserError: some have no mask or bounding box.
    """
    if listed := table(container, names, "filtered_files.txt"):
        on_list = {row[0] for row in listed.values()}
        images = [name for name in images if "/".join(PurePosixPath(name).parts[-2:]) in on_list]
    cut = cutter(container)
    lost = [name for name in images if not cut.is_whole(name)]
    if lost:
        raise UserError(
            f"{len(lost)} of {len(images)} birds, such as '{text(lost[0], 80)}', have no mask (segmentations/) or no "
            "line in bounding_boxes.txt: add them to the data set, or take whole images (--data.cut_out false)."
        )
    return images


class Birds:
    """Masks and bounding boxes of CUB."""

    def __init__(self, container: Container) -> None:
        self.container = container
        names = [file.name for file in container.files()]
        self.names = set(names)
        boxes, numbers = table(container, names, "bounding_boxes.txt"), table(container, names, "images.txt")
        self.boxes = {row[0]: boxes[number] for number, row in numbers.items() if len(boxes.get(number, [])) == 4}

    def mask(self, name: str) -> Path | str:
        """The mask of an image: in the data set or, as it is released, in a folder beside it."""
        inner = "/".join(PurePosixPath(name).with_suffix(".png").parts[-2:])
        before = name[: name.rindex("images/")]
        own = f"{before}segmentations/{inner}"
        return own if own in self.names else self.container.path.parent / "segmentations" / inner

    def is_whole(self, name: str) -> bool:
        mask = self.mask(name)
        is_there = isinstance(mask, str) or mask.is_file()
        return is_there and "/".join(PurePosixPath(name).parts[-2:]) in self.boxes

    def mask_bytes(self, name: str) -> bytes:
        mask = self.mask(name)
        return self.container.read(mask) if isinstance(mask, str) else mask.read_bytes()

    def cut(self, name: str, image: Image.Image) -> Image.Image:
        """The square around a bird, on white."""
        x, y, width, height = map(float, self.boxes["/".join(PurePosixPath(name).parts[-2:])])
        box = [round(edge) for edge in (x, y, x + width, y + height)]
        with Image.open(io.BytesIO(self.mask_bytes(name))) as file:
            mask = (
                (file.getchannel("A") if "A" in file.getbands() else file).convert("L").point(lambda v: 255 * (v > 127))
            )
        bird, mask = image.crop(box), mask.crop(box)
        side = max(bird.size)
        square = Image.new("RGB", (side, side), "white")
        square.paste(bird, ((side - bird.width) // 2, (side - bird.height) // 2), mask)
        return square


cutter = lru_cache(maxsize=4)(Birds)


def cut_out(container: Container, name: str, image: Image.Image) -> Image.Image:
    """A bird of CUB on white: the square around its bounding box, without what its mask leaves out (GRAF)."""
    return cutter(container).cut(name, image)


def of_masks(container: Container) -> list[str]:
    birds = cutter(container)
    content = hashlib.sha256()
    for name in sorted(birds.names):
        if "/images/" in f"/{name}" and birds.is_whole(name):
            box = birds.boxes["/".join(PurePosixPath(name).parts[-2:])]
            content.update(f"{name} {box}".encode(errors="surrogateescape") + birds.mask_bytes(name))
    return [f"cut out/1: {content.hexdigest()}"]


# --------------------------------------------------------------------------------------------------- aligned faces


def weak_perspective(points: np.ndarray, standard: np.ndarray) -> tuple[np.ndarray, float]:
    """Where the origin of a standard face lies in an image, and how large that face is there, by least squares.

    Args:
        points: [N, 2] in the image.
        standard: [N, 3] the same points of the standard face.

    Returns:
        [2] and the pixels of a unit of the standard face.
    """
    ones = np.ones((len(standard), 1))
    solved, *_ = np.linalg.lstsq(np.hstack([standard, ones]), points, rcond=None)
    return solved[3], float(np.linalg.norm(solved[:3], axis=0).mean())


def recrop(image: Image.Image, numbers: dict[str, Any]) -> Image.Image:
    """EG3D's crop of an image of FFHQ, from its line of ``cropping_params.json``.

    The image is resized so that a standard face is ``rescale_factor`` pixels large, moved so that this face's origin
    is in the middle of 1024 pixels each way, of which ``center_crop_size`` become ``output_size``. Lengths are cut to
    whole pixels where the published program does so.
    """
    points = np.asarray(numbers["lm"], float).reshape(-1, 2)
    points[:, 1] = image.height - 1 - points[:, 1]  # the standard face's y points up
    (right, up), size = weak_perspective(points, np.asarray(numbers["lm3d_std"], float).reshape(-1, 3))
    scale = numbers["rescale_factor"] / size
    resized = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)
    left = int(resized.width / 2 - 512 + (right - image.width / 2) * scale)
    top = int(resized.height / 2 - 512 + (image.height / 2 - up) * scale)
    side = numbers["center_crop_size"]
    inset = int(512 - side / 2)
    crop = resized.crop((left + inset, top + inset, left + inset + side, top + inset + side))
    return crop.resize((numbers["output_size"],) * 2, Image.Resampling.LANCZOS)


@lru_cache(maxsize=4)
def crops(container: Container) -> dict[str, dict[str, Any]]:
    """EG3D's crops by the name of the image without its folders; empty where there are none."""
    names = [file.name for file in container.files()]
    content = "\n".join(lines_of(container, names, "cropping_params.json"))
    try:
        read = {PurePosixPath(name).name: numbers for name, numbers in json.loads(content or "{}").items()}
        for numbers in read.values():
            lengths = (len(np.ravel(numbers["lm"])), len(np.ravel(numbers["lm3d_std"])))
            if lengths != (10, 15) or not all(numbers[key] > 0 for key in LENGTHS):
                raise ValueError(f"{lengths} numbers where 10 and 15 are expected")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"'cropping_params.json' of '{text(container.path)}' is not what EG3D's program downloads "
            f"({text(str(error), 80)}): get it again, as docs/datasets.md says."
        ) from error
    return read


LENGTHS = ("rescale_factor", "center_crop_size", "output_size")


def with_crops(container: Container, names: list[str], images: list[str]) -> list[str]:
    """Images that EG3D crops: its list leaves out those without a recognised face."""
    known = crops(container)
    return [name for name in images if PurePosixPath(name).name in known]


def recropped(container: Container, name: str, image: Image.Image) -> Image.Image:
    """EG3D's crop of an image of FFHQ."""
    return recrop(image, crops(container)[PurePosixPath(name).name])


def of_crops(container: Container) -> list[str]:
    return [f"recropped/1: {hashlib.sha256(json.dumps(crops(container), sort_keys=True).encode()).hexdigest()}"]


# -------------------------------------------------------------------------------------------------------------- cats


def cat_points(data: bytes) -> np.ndarray | None:
    """Nine points [9, 2] of a ``.cat`` file: eyes, mouth, three of each ear; None where it holds others."""
    try:
        numbers = [int(word) for word in data.split()]
    except ValueError:
        return None
    return np.array(numbers[1:19], float).reshape(9, 2) if len(numbers) >= 19 and numbers[0] == 9 else None


def cat_face(points: np.ndarray) -> tuple[float, tuple[float, float], tuple[int, int, int, int]]:
    """How a cat's face is made upright, and where it is then (GRAF).

    Args:
        points: [9, 2], of ``cat_points``.

    Returns:
        the counter-clockwise turn [degrees], the point between the eyes around which, and left, top, right and bottom
        of a square as wide as from the first point of the left ear to the last one of the right ear, less what would
        be left of or above the image.
    """
    one, other, mouth = points[:3]
    if one[0] > other[0] and one[1] < other[1] and mouth[0] > other[0]:  # lies on its side
        one, other = other, one
    middle, across = (one + other) / 2, other - one
    turn = math.atan2(across[1], across[0])
    level = (points - middle) @ np.array([math.cos(turn), math.sin(turn)])  # x when the eyes are level
    width = abs(level[8] - level[3])
    left, top = middle[0] - width / 2, middle[1] - width * 2 / 5
    right, bottom = left + width, top + width
    box = (int(max(left, 0)), int(max(top, 0)), int(right), int(bottom))
    return math.degrees(turn), (float(middle[0]), float(middle[1])), box


def cat_faces(container: Container, names: list[str], images: list[str]) -> list[str]:
    """Of unprepared cats, those with nine points whose face is at least 64 pixels each way; all of prepared ones."""
    there = {name for name in names if name.endswith(".cat")}
    if not there:
        return images
    kept = []
    for name in images:
        points = cat_points(container.read(f"{name}.cat")) if f"{name}.cat" in there else None
        if points is not None:
            left, top, right, bottom = cat_face(points)[2]
            width, height = size_of(container, name)
            kept += [name] if min(min(right, width) - left, min(bottom, height) - top) >= 64 else []
    return kept


def size_of(container: Container, name: str) -> tuple[float, float]:
    """Width and height of an image, as its beginning says; infinite where it does not."""
    try:
        with pillow_silenced(), Image.open(io.BytesIO(container.head(name))) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return math.inf, math.inf


def upright(container: Container, name: str, image: Image.Image) -> Image.Image:
    """The face of a cat with level eyes; a prepared image stays as it is."""
    try:
        points = cat_points(container.read(f"{name}.cat"))
    except MISSING:
        return image
    if points is None:
        return image
    degrees, middle, (left, top, right, bottom) = cat_face(points)
    level = image.rotate(degrees, Image.Resampling.BILINEAR, center=middle, fillcolor=(128, 128, 128))
    face = level.crop((left, top, min(right, image.width), min(bottom, image.height)))
    side = max(face.size)
    return face if face.size == (side, side) else face.resize((side, side), Image.Resampling.BILINEAR)


def of_points(container: Container) -> list[str]:
    names = sorted(file.name for file in container.files() if file.name.endswith(".cat"))
    content = hashlib.sha256()
    for name in names:
        content.update(name.encode(errors="surrogateescape") + container.read(name))
    return [f"upright/1: {content.hexdigest()}"] if names else []
