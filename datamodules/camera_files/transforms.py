"""``transforms.json`` of NeRF, instant-ngp and nerfstudio: a camera-to-world matrix a frame, and a lens.

Camera space is OpenGL's, as here, and z is up in the world (docs.nerf.studio, "Data conventions"; NeRF's own
``transforms_train.json`` are Blender's). The lens is for all frames or for each: ``camera_angle_x`` [rad], or ``fl_x``,
``fl_y``, ``cx``, ``cy`` in pixels of an image of ``w`` x ``h``. What is missing: pixels are square, the principal point
is in the middle, and so is an image without ``w`` and ``h``. Names may lack the suffix of the image, as NeRF's do.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from datamodules.camera_files.camera_set import (
    Z_UP_TO_Y_UP,
    CameraSet,
    as_float,
    camera_set,
    image_name,
    is_number,
    matrix,
)
from datamodules.camera_files.eg3d import shortest
from zoo.utils.errors import UserError, printable

DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
MODELS = ("OPENCV", "FULL_OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "RADIAL", "SIMPLE_RADIAL", "PERSPECTIVE")
SAME = 1e-6  # of normalised intrinsics: what rounding leaves
LENS = ("camera_angle_x", "camera_angle_y", "fl_x", "fl_y", "cx", "cy", "w", "h")


def read(content: dict[str, Any], folder: str, source: str) -> CameraSet:
    """The cameras in the values of a ``transforms.json``.

    Args:
        content: of the file.
        folder: that the names in it are relative to, within the container.
        source: for messages.

    Raises:
        UserError: a frame is no camera that can be; names its image.
    """
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames:
        raise UserError(f"{source} has no list of frames: NeRF's cameras are frames with a transform_matrix.")
    names, poses, lenses, known = [], [], [], {}
    for index, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise UserError(f"Frame {index} of {source} has no file_path: name its image there.")
        name = image_name(frame["file_path"], folder)
        of = f"of '{printable(name, 60)}' in {source}"
        pose = matrix(frame.get("transform_matrix"), 4, 4) or matrix(frame.get("transform_matrix"), 3, 4)
        if pose is None:
            raise UserError(f"The transform_matrix {of} is not 4 x 4 numbers: give the camera-to-world matrix.")
        values = {**content, **frame}
        refuse_distortion(values, of)
        key = tuple(repr(values.get(name)) for name in LENS)
        if key not in known:
            known[key] = lens(values, of)
        names.append(name)
        poses.append([*pose, 0.0, 0.0, 0.0, 1.0][:16])
        lenses.append(known[key])
    pose = Z_UP_TO_Y_UP @ torch.tensor(poses, dtype=torch.float64).view(-1, 4, 4)
    return camera_set(names, pose, torch.tensor(lenses, dtype=torch.float64).view(-1, 3, 3), source)


def refuse_distortion(values: Mapping[str, Any], of: str) -> None:
    """Refuse a lens that is more than a pinhole, which is all that a camera here can be.

    Raises:
        UserError: names what it has.
    """
    bent = [f"{name} = {printable(values[name], 20)}" for name in DISTORTION if values.get(name, 0) not in (0, None)]
    if bent:
        raise UserError(
            f"The lens {of} has distortion ({', '.join(bent[:3])}), which no camera here can have: undistort the "
            "images first, such as with 'colmap image_undistorter'."
        )
    model = values.get("camera_model", "PINHOLE")
    if model not in MODELS or values.get("is_fisheye"):
        model = "a fisheye" if model in MODELS else f"'{printable(model, 30)}'"
        raise UserError(f"The lens {of} is {model}, but cameras here are pinholes: undistort the images first.")


def lens(values: Mapping[str, Any], of: str) -> list[float]:
    """Normalised intrinsics, row by row.

    Raises:
        UserError: a value that cannot be, or too few of them.
    """
    given = {name: values[name] for name in LENS if values.get(name) is not None}
    for name, value in given.items():
        centre = name in ("cx", "cy")
        if not is_number(value) or not (math.isfinite(as_float(value)) if centre else 0 < as_float(value) < math.inf):
            range = "that is finite" if centre else "above 0"
            raise UserError(f"{name} {of} is {printable(value, 40)}: give a number {range}.")
    for size, of_size in (("w", ("fl_x", "cx")), ("h", ("fl_y", "cy"))):
        if size not in given and (name := next((name for name in of_size if name in given), None)):
            raise UserError(f"{name} {of} is in pixels, but there is no {size}: give the image's {size}, too.")
    w, h = given.get("w", given.get("h", 1)), given.get("h", given.get("w", 1))
    fx = given["fl_x"] / w if "fl_x" in given else focal(given, "camera_angle_x", of)
    if "fl_y" in given:
        fy = given["fl_y"] / h
    else:
        fy = focal(given, "camera_angle_y", of) if "camera_angle_y" in given else fx * w / h
    return [fx, 0.0, given.get("cx", w / 2) / w, 0.0, fy, given.get("cy", h / 2) / h, 0.0, 0.0, 1.0]


def focal(given: Mapping[str, Any], angle: str, of: str) -> float:
    """Normalised focal length of a lens with this field of view.

    Raises:
        UserError: there is none, or it is no angle of a pinhole.
    """
    if angle not in given:
        raise UserError(f"The lens {of} has no focal length: give camera_angle_x, or fl_x and w.")
    if given[angle] >= math.pi:
        raise UserError(f"{angle} {of} is {printable(given[angle], 40)}: give an angle below pi, in radians.")
    return 0.5 / math.tan(given[angle] / 2)


def content(cameras: CameraSet, resolution: int | None = None) -> dict[str, Any]:
    """What a ``transforms.json`` of these cameras holds.

    Args:
        cameras: with one lens for all.
        resolution: side of the images [pixels], for programs that measure in these.

    Raises:
        UserError: there are several lenses, or one whose principal point needs the size of the images.
    """
    lenses = cameras.camera.intrinsics
    if (lenses - lenses[0]).abs().max() > SAME:
        raise UserError(
            f"The cameras of {cameras.source} have several lenses, where a transforms.json has one for all: write "
            "dataset.json, which has one for each."
        )
    fx, fy, cx, cy = shortest(lenses[0, [0, 1, 0, 1], [0, 1, 2, 2]].cpu().numpy())
    if (cx, cy) != (0.5, 0.5) and resolution is None:
        raise UserError(
            f"The principal point of the cameras of {cameras.source} is ({cx:g}, {cy:g}), not in the middle, which a "
            "transforms.json says in pixels: give --resolution, or write dataset.json."
        )
    angles = {"camera_angle_x": 2 * math.atan(0.5 / fx), "camera_angle_y": 2 * math.atan(0.5 / fy)}
    pixels = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": 1, "h": 1}
    pose = (Z_UP_TO_Y_UP.float().mT @ cameras.camera.pose).cpu().numpy()
    return {
        **angles,
        **({name: value * resolution for name, value in pixels.items()} if resolution else {}),
        "frames": [
            {"file_path": name, "transform_matrix": [shortest(row) for row in rows]}
            for name, rows in zip(cameras.names, pose, strict=True)
        ],
    }
