"""EG3D's ``dataset.json``: 25 numbers an image.

``{"labels": [["00000/img00000000.png", [25 numbers]], ...]}``: 16 numbers of a camera-to-world matrix, row by row, in
OpenCV's camera space (x right, y down, z forward), and 9 of the normalised intrinsics (EG3D, section 4 and its
program's ``dataset_preprocessing``). A label as published, which looks at a face from (0, 0, 2.7), is in NVlabs/eg3d,
issue 65.

The world is left as it is, only camera space is turned: y is up in the worlds of FFHQ and AFHQ, but the file that the
program makes for ShapeNet's cars has the world of SRN, where z is up; to have it as here, read SRN's own poses
(``datamodules.camera_files.srn``).
"""

from typing import Any

import numpy as np
import torch

from datamodules.camera_files.camera_set import FLIP_Y_AND_Z, CameraSet, NotCameras, camera_set, image_name, matrix
from zoo.utils.errors import UserError, printable

ADVICE = "EG3D's cameras are 25 numbers an image, 16 of the pose and 9 of the lens"


def read(content: dict[str, Any], folder: str, source: str) -> CameraSet:
    """The cameras in the values of a ``dataset.json``.

    Args:
        content: of the file.
        folder: that the names in it are relative to, within the container.
        source: for messages.

    Raises:
        NotCameras: it holds no labels, or classes and the like.
        UserError: some of its labels are not cameras, or are none that can be.
    """
    labels = content.get("labels")
    if labels in (None, [], {}):
        what = "no 'labels'" if "labels" not in content else "null for its labels" if labels is None else "no labels"
        raise NotCameras(f"{source} has {what}, so it holds no cameras: {ADVICE}.")
    if not isinstance(labels, list):
        raise UserError(f"{source} has labels that are no list: {ADVICE}.")
    names, rows, others = [], [], []
    for index, label in enumerate(labels):
        if not isinstance(label, list) or len(label) != 2 or not isinstance(label[0], str):
            raise UserError(f"Label {index} of {source} is not [name, numbers]: {ADVICE}.")
        row = matrix(label[1], 1, 25)
        if row is None:
            others.append((label[0], kind(label[1])))
        else:
            names.append(image_name(label[0], folder))
            rows.append(row)
    if others and not rows:
        raise NotCameras(f"{source} holds {others[0][1]} an image, so it holds no cameras: {ADVICE}.")
    if others:
        name, what = others[0]
        raise UserError(
            f"{len(others):,} of the {len(labels):,} labels of {source} are no cameras: that of "
            f"'{printable(name, 60)}' is {what}; {ADVICE}."
        )
    numbers = torch.tensor(rows, dtype=torch.float64)
    return camera_set(names, numbers[:, :16].view(-1, 4, 4) @ FLIP_Y_AND_Z, numbers[:, 16:].view(-1, 3, 3), source)


def kind(label: Any) -> str:
    """What is in the place of a camera, in words."""
    if isinstance(label, list):
        several = f"{len(label)} numbers" if len(label) != 25 else "25 values that are not all numbers"
        return "1 number" if len(label) == 1 else several
    return "null" if label is None else "a class" if isinstance(label, int) else "something else"


def content(cameras: CameraSet) -> dict[str, Any]:
    """What a ``dataset.json`` of these cameras holds."""
    pose = cameras.camera.pose @ FLIP_Y_AND_Z.float()
    rows = torch.cat([pose.flatten(1), cameras.camera.intrinsics.flatten(1)], dim=1).cpu().numpy()
    return {"labels": [[name, shortest(row)] for name, row in zip(cameras.names, rows, strict=True)]}


def shortest(values: np.ndarray) -> list[float]:
    """Numbers as floats of as few digits as tell them apart in float32."""
    return [float(str(value)) for value in (values + 0.0).astype(np.float32)]
