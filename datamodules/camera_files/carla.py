"""The poses of GRAF's CARLA images: ``000000_extrinsics.npy`` of each image, and one ``intrinsics.npy``.

GRAF offers them as ``carla_poses.zip`` ("camera intrinsics (single file, equal for all images) and extrinsics
corresponding to each image", its readme) and does not read them itself. What is in them is known from programs that do:
3 x 4 camera-to-world matrices (google-research/nerf-from-image, ``data/datasets.py``; AlvinZhuyx/NeRF-LEBM,
``load_carla_persist.py``) in OpenGL's camera space (nerf-from-image, ``lib/nerf_utils.py``, casts rays along -z, with y
up) in a world with z up, as GRAF's own (GRAM, ``transform_matrix_to_camera_pos``, takes the third coordinate for the
height; NeRF-LEBM draws more of them on NeRF's circles around z); and one array whose last two axes are a matrix of
intrinsics in pixels (nerf-from-image).

Not confirmed, as the files themselves were not at hand: the size of the images that these pixels are of. The principal
point is taken to be in the middle, as in all of GRAF's cameras, which gives the size. Where there is no
``intrinsics.npy``, the field of view is GRAF's 30 degrees.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import numpy as np
import torch

from datamodules.camera_files.camera_set import Z_UP_TO_Y_UP, CameraSet, camera_set, contents, shown
from zoo.utils.containers import array_in
from zoo.utils.errors import UserError, printable
from zoo.utils.listed_files import File, Folder, Zip

POSE = re.compile(r"(?:.*/)?(?P<stem>[^/]+)_extrinsics\.npy")
LONGEST = 2**16  # of an array [bytes]
FIELD_OF_VIEW = math.radians(30)


def read(container: Folder | Zip, files: Iterable[File], images: Sequence[str] = ()) -> CameraSet | None:
    """The cameras in a folder or zip, of all images with the names of poses; None where there are none.

    Args:
        container: with the poses.
        files: in it.
        images: without any of its name, a pose is of an image ``000000.png``.

    Raises:
        UserError: a pose or a lens that cannot be; names the file.
    """
    files = list(files)
    found = [(file, match["stem"]) for file in files if (match := POSE.fullmatch(file.name))]
    if not found:
        return None
    of_stem = defaultdict(list)
    for name in images:
        of_stem[PurePosixPath(name).stem].append(name)
    names, poses = [], []
    for file, stem in found:
        pose = array(container, file)
        if pose.shape not in ((3, 4), (4, 4)):
            shape = " x ".join(map(str, pose.shape)) or "1"
            raise UserError(f"{shown(container, file.name)} holds {shape} numbers, where a pose has 3 x 4.")
        of = of_stem.get(stem, [f"{stem}.png"])
        names += of
        poses += [np.concatenate([pose, [[0, 0, 0, 1]]])[:4]] * len(of)
    intrinsics = torch.tensor(lens(container, files), dtype=torch.float64).expand(len(names), 3, 3)
    return camera_set(names, Z_UP_TO_Y_UP @ torch.tensor(np.array(poses)), intrinsics, shown(container))


def lens(container: Folder | Zip, files: list[File]) -> list[list[float]]:
    """Normalised intrinsics of all images.

    Raises:
        UserError: there is a file of them that holds none.
    """
    file = next((file for file in files if PurePosixPath(file.name).name == "intrinsics.npy"), None)
    fx = fy = 0.5 / math.tan(FIELD_OF_VIEW / 2)
    if file is not None:
        values = array(container, file)
        if values.ndim < 2 or min(values.shape[-2:]) < 3 or min(values.shape) < 1:
            raise UserError(
                f"{shown(container, file.name)} holds no matrix of intrinsics: leave it out for 30 degrees."
            )
        first = values.reshape(-1, *values.shape[-2:])[0]
        if not (first[0, 2] > 0 and first[1, 2] > 0):
            raise UserError(f"{shown(container, file.name)} has no principal point: leave it out for 30 degrees.")
        fx, fy = first[0, 0] / (2 * first[0, 2]), first[1, 1] / (2 * first[1, 2])
    return [[float(fx), 0.0, 0.5], [0.0, float(fy), 0.5], [0.0, 0.0, 1.0]]


def array(container: Folder | Zip, file: File) -> np.ndarray:
    """The numbers in a ``.npy`` in double precision; nothing in it is run.

    Raises:
        UserError: it holds none.
    """
    data = contents(container, file, LONGEST)
    try:
        values = array_in(data)
        if values.dtype.kind not in "fiu":
            raise ValueError("it does not hold plain numbers")
        return values.astype(np.float64)
    except ValueError as error:
        raise UserError(f"{shown(container, file.name)} is no array of numbers: {printable(error, 80)}.") from None
