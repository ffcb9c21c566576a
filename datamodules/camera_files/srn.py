"""SRN's renderings of ShapeNet: for each object ``rgb/000000.png``, ``pose/000000.txt`` and an ``intrinsics.txt``.

A pose is 16 numbers of a camera-to-world matrix, row by row, in OpenCV's camera space (x right, y down, z forward:
readme of vsitzmann/scene-representation-networks, as quoted in its issue 18). ``intrinsics.txt`` begins with
``f cx cy 0.`` and ends with ``height width``, all in pixels. z is up in the world: sxyu/pixel-nerf
(``src/data/SRNDataset.py``, ``eval/gen_video.py``) only turns camera space and then films the cars on NeRF's circles,
which are around z.

Not confirmed, as the files themselves were not at hand: that ``height width`` belong to ``f cx cy`` in every copy.
EG3D's ``preprocess_shapenet_cameras.py`` takes 512 instead. A principal point outside of the image is refused.
"""

import re
from collections.abc import Iterable

import torch

from datamodules.camera_files.camera_set import (
    FLIP_Y_AND_Z,
    Z_UP_TO_Y_UP,
    CameraSet,
    NotCameras,
    camera_set,
    contents,
    image_name,
    shown,
)
from zoo.utils.errors import UserError, printable
from zoo.utils.listed_files import File, Folder, Zip

POSE = re.compile(r"(?P<object>(?:.*/)?)pose/(?P<stem>[^/]+)\.txt")
LONGEST = 2**16  # of a text of numbers [bytes]


def read(container: Folder | Zip, files: Iterable[File]) -> CameraSet | None:
    """The cameras of all objects in a folder or zip, of names without suffix; None where there are none.

    Raises:
        NotCameras: there are poses, but no lens anywhere: they are another program's.
        UserError: a pose or a lens that cannot be, or is missing; names the file.
    """
    by_name = {file.name: file for file in files}
    lenses: dict[str, list[float]] = {}
    names, poses, rows, without = [], [], [], []
    for name, file in by_name.items():
        found = POSE.fullmatch(name)
        if not found:
            continue
        of = found["object"]
        if f"{of}intrinsics.txt" not in by_name:
            without.append(name)
            continue
        if of not in lenses:
            lenses[of] = lens(container, by_name[f"{of}intrinsics.txt"])
        pose = numbers(container, file)
        if len(pose) != 16:
            raise UserError(f"{shown(container, name)} has {len(pose)} numbers, where a pose has 16.")
        names.append(image_name(f"{of}rgb/{found['stem']}"))
        poses.append(pose)
        rows.append(lenses[of])
    if without:
        raise (UserError if names else NotCameras)(
            f"{shown(container, without[0])} is a pose, but no intrinsics.txt is beside its folder: put it there, as "
            "SRN has it."
        )
    if not names:
        return None
    pose = Z_UP_TO_Y_UP @ torch.tensor(poses, dtype=torch.float64).view(-1, 4, 4) @ FLIP_Y_AND_Z
    return camera_set(names, pose, torch.tensor(rows, dtype=torch.float64).view(-1, 3, 3), shown(container))


def lens(container: Folder | Zip, file: File) -> list[float]:
    """Normalised intrinsics in an ``intrinsics.txt``, row by row.

    Raises:
        UserError: it is none; says what it must be.
    """
    lines = [line for line in words(container, file) if line]
    try:
        (f, cx, cy), (height, width) = map(float, lines[0][:3]), map(float, lines[-1])
        if not min(f, height, width) > 0:
            raise ValueError
    except (ValueError, IndexError):
        raise UserError(
            f"{shown(container, file.name)} is no lens of SRN's: its first line must be f cx cy 0, its last one "
            "height width, in pixels."
        ) from None
    if not (0 <= cx <= width and 0 <= cy <= height):
        raise UserError(
            f"{shown(container, file.name)} has a principal point ({cx:g}, {cy:g}) outside of its {width:g} x "
            f"{height:g} image: give both for the same size."
        )
    return [f / width, 0.0, cx / width, 0.0, f / height, cy / height, 0.0, 0.0, 1.0]


def numbers(container: Folder | Zip, file: File) -> list[float]:
    """All numbers in a text.

    Raises:
        UserError: there is something else in it.
    """
    lines = words(container, file)
    try:
        return [float(word) for line in lines for word in line]
    except ValueError as error:
        raise UserError(f"{shown(container, file.name)} is no text of numbers: {printable(error, 80)}.") from None


def words(container: Folder | Zip, file: File) -> list[list[str]]:
    """The words of each line of a text."""
    return [line.split() for line in contents(container, file, LONGEST).decode("utf-8", "replace").splitlines()]
