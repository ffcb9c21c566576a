"""Cameras with the names of their images, and how files of any format are read and checked.

N images
"""

import json
import math
import os
import posixpath
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.render.cameras import Camera
from zoo.utils.errors import UserError, printable
from zoo.utils.image_folders import BROKEN, listing
from zoo.utils.listed_files import File, Folder, Zip, text

MOST_BYTES = 2**28  # of a json: 140,000 cameras of EG3D are about 80 million bytes
TOLERANCE = 1e-3  # of the entries of a rotation matrix times its transpose
FARTHEST = 10.0  # normalised principal point; in pixels it is hundreds

# Camera space, to the right of camera-to-world matrices: OpenCV's (y down, z forward) is OpenGL's with y and z flipped.
FLIP_Y_AND_Z = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
# World, to their left: x, y, z of a world with z up are x, -z, y of ours, in which y is up.
Z_UP_TO_Y_UP = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)


class CameraSet(NamedTuple):
    """Cameras of images.

    names: path of each image within its folder or zip, with forward slashes, in the file's order.
    camera: N cameras in the convention of ``zoo.render.cameras``, float32.
    source: the file or folder that they were read from, for messages.
    """

    names: list[str]
    camera: Camera
    source: str

    def of(self, images: Sequence[str]) -> Camera:
        """The cameras of these images, in their order.

        Raises:
            UserError: some have none.
        """
        place = {name: index for index, name in enumerate(self.names)}
        if bare := [name for name in images if name not in place]:
            raise UserError(
                f"{len(bare):,} of {len(images):,} images have no camera in {self.source} ({listing(bare)}): complete "
                "it, or remove these images."
            )
        return self.camera.take(torch.tensor([place[name] for name in images]))


class NotCameras(UserError):
    """A file that could hold cameras, by its name, but holds something else, such as classes."""


def camera_set(names: list[str], pose: Tensor, intrinsics: Tensor, source: str) -> CameraSet:
    """Cameras, checked.

    Args:
        names: of the images.
        pose: camera-to-world matrices in our convention, [N, 4, 4], float64.
        intrinsics: normalised, [N, 3, 3], float64.
        source: for messages.

    Raises:
        UserError: numbers that are not finite, no rotation, or no lens that a camera here can have; names the image.
    """
    camera = Camera(pose, intrinsics).to(torch.float32)
    square = pose[:, :3, :3].mT @ pose[:, :3, :3]
    scale = square.diagonal(dim1=-2, dim2=-1).mean(-1)
    even = farthest(square, scale[:, None, None] * torch.eye(3)) <= TOLERANCE * scale
    unit = farthest(square, torch.eye(3)) <= TOLERANCE
    focal, centre, skew = camera.intrinsics[:, [0, 1], [0, 1]], intrinsics[:, :2, 2], intrinsics[:, [0, 1], [1, 0]]
    no_camera = (
        (~camera.pose.isfinite().all(-1).all(-1), "has a pose that is not finite: leave it out or mend it"),
        (
            ~camera.intrinsics.isfinite().all(-1).all(-1),
            "has intrinsics that are not finite: leave it out or mend it",
        ),
        (farthest(pose[:, 3:], torch.eye(4)[3:]) > TOLERANCE, "has a pose whose last row is not 0 0 0 1: append it"),
        (even & ~unit & (scale > 0), "has a pose with a scale: divide its first three columns by their length"),
        (~unit, "has a pose without a rotation: its first three columns must be unit vectors at right angles"),
        (
            torch.linalg.det(pose[:, :3, :3]) < 0,
            "has a mirrored pose (determinant -1): a world here is right-handed",
        ),
        ((focal <= 0).any(-1), "has a focal length that is not above 0: give one that is"),
        (farthest(intrinsics[:, 2:], torch.eye(3)[2:]) > TOLERANCE, "has intrinsics whose last row is not 0 0 1"),
        ((skew.abs() > TOLERANCE).any(-1), "has a skewed lens, which no camera here can have: undistort the images"),
        ((centre.abs() > FARTHEST).any(-1), "has intrinsics in pixels: divide them by the image's width and height"),
    )
    for where, why in no_camera:
        if wrong := where.nonzero().flatten().tolist():
            more = f" (and {len(wrong) - 1:,} more)" if len(wrong) > 1 else ""
            raise UserError(f"The camera of '{printable(names[wrong[0]], 60)}'{more} in {source} {why}.")
    return CameraSet(names, camera, source)


def farthest(found: Tensor, expected: Tensor) -> Tensor:
    """Largest difference of the entries of matrices, [N]."""
    return (found - expected).abs().amax((-2, -1))


def shown(container: Folder | Zip, name: str = "") -> str:
    """A file of a folder or zip, or that itself, for messages; of a long path the end."""
    whole = text(container.path / name, 1000)
    return f"'{whole}'" if len(whole) <= 100 else f"'...{whole[-97:]}'"


def contents(container: Folder | Zip, file: File, most: int = MOST_BYTES) -> bytes:
    """A whole file.

    Raises:
        UserError: it cannot be read, or is longer than any such file.
    """
    if file.problem:
        raise UserError(f"{shown(container, file.name)} cannot be read: {file.problem}.")
    if file.size > most:
        raise UserError(
            f"{shown(container, file.name)} has {file.size:,} bytes, more than the {most:,} of any file of cameras."
        )
    try:
        return container.read(file.name)
    except BROKEN as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{shown(container, file.name)} cannot be read: {printable(why, 100)}.") from None


def parsed(data: bytes, source: str) -> Any:
    """The values of a json.

    Raises:
        UserError: it is none.
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise UserError(f"{source} is no file of cameras: its values are nested too deeply.") from None
    except UnicodeDecodeError:
        raise UserError(f"{source} is no json: it is not a text in UTF-8.") from None
    except ValueError as error:
        raise UserError(f"{source} is no json: {printable(error, 100)}.") from None


def matrix(value: Any, rows: int, columns: int) -> list[float] | None:
    """The numbers of a matrix, row by row, of nested or flat lists; None for anything else."""
    if not isinstance(value, list):
        return None
    nested = len(value) == rows and all(isinstance(row, list) and len(row) == columns for row in value)
    flat = [entry for row in value for entry in row] if nested else value
    return [as_float(entry) for entry in flat] if len(flat) == rows * columns and all(map(is_number, flat)) else None


def is_number(value: Any) -> bool:
    return type(value) in (int, float)  # true and false are whole numbers to Python


def as_float(value: float) -> float:
    """A number of a json as a float; infinity for a whole number that is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def image_name(name: str, folder: str = "") -> str:
    """The name that a file in a folder of the container gives an image, as the container has it."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # half of a pair of surrogates, which a json can say and no file can be called
        name = name.encode("utf-8", "replace").decode()
    return posixpath.normpath(posixpath.join(folder, name.replace("\\", "/")))
