"""Files of cameras that are damaged, impossible or contradict each other: one sentence each, whatever is in them."""

import io
import json
import math

import numpy as np
import pytest

from datamodules.camera_files import read_cameras
from datamodules.camera_files.camera_set import MOST_BYTES
from tests.test_camera_files import (
    FFHQ,
    FORMATS,
    LEGO,
    PIXELS,
    Z_UP,
    carla,
    find,
    frames,
    labels,
    one_sentence,
    own_poses,
    srn,
)
from zoo.utils.errors import UserError

MOVED = [*FFHQ[:3], 0.5, *FFHQ[4:]]


def label(**changed: float) -> dict:
    """A dataset.json of two images, the second of which has other numbers in these places."""
    row = [changed.get(f"n{index}", value) for index, value in enumerate(FFHQ)]
    return {"labels": [["a.png", FFHQ], ["b.png", row]]}


def times(scale: float, columns: tuple[int, ...] = (0, 1, 2)) -> dict:
    """The same with columns of the pose multiplied."""
    places = [4 * row + column for row in range(3) for column in columns]
    return label(**{f"n{place}": scale * FFHQ[place] for place in places})


BAD_JSON: dict[str, tuple[object, str]] = {
    "no json": ("{'labels': ", "is no json: Expecting property name"),
    "not text": (b'{"labels": "\xff\xfe"}', "is no json: it is not a text in UTF-8."),
    "deep": ("[" * 100_000, "its values are nested too deeply."),
    "an image": (b"\x89PNG\r\n", "is no file of cameras that is known here"),
    "labels no list": ({"labels": "a"}, "has labels that are no list"),
    "a label alone": ({"labels": ["a.png"]}, "Label 0 of .* is not \\[name, numbers\\]"),
    "a label without a name": ({"labels": [[1, FFHQ]]}, "Label 0 of .* is not \\[name, numbers\\]"),
    "another length": (
        {"labels": [["a.png", FFHQ], ["b.png", FFHQ[:16]]]},
        "1 of the 2 labels .*'b.png' is 16 numbers;",
    ),
    "a class": ({"labels": [["a.png", FFHQ], ["b.png", 3]]}, "that of 'b.png' is a class;"),
    "no label": ({"labels": [["a.png", FFHQ], ["b.png", None]]}, "that of 'b.png' is null;"),
    "words": (
        {"labels": [["a.png", FFHQ], ["b.png", ["1"] * 25]]},
        "that of 'b.png' is 25 values that are not all num",
    ),
    "truths": ({"labels": [["a.png", FFHQ], ["b.png", [True] * 25]]}, "is 25 values that are not all numbers;"),
    "NaN": (label(n3=math.nan), "The camera of 'b.png' in .* has a pose that is not finite"),
    "infinite": (label(n16=math.inf), "The camera of 'b.png' in .* has intrinsics that are not finite"),
    "huge": (label(n3=10**400), "has a pose that is not finite"),
    "huge for float32": (label(n3=1e300), "has a pose that is not finite"),
    "last row": (label(n15=2.0), "has a pose whose last row is not 0 0 0 1"),
    "scaled": (times(2.0), "'b.png' in .* has a pose with a scale: divide"),
    "mirrored": (times(-1.0, (0,)), "'b.png' in .* has a mirrored pose \\(determinant -1\\)"),
    "no rotation": (times(1.5, (1,)), "'b.png' in .* has a pose without a rotation"),
    "zeros": (times(0.0), "'b.png' in .* has a pose without a rotation"),
    "no name of a file": ({"labels": [["\ud800", [0.0] * 25]]}, "The camera of '\\?' in .* has a pose whose last row"),
    "no focal length": (label(n16=0.0), "'b.png' in .* has a focal length that is not above 0"),
    "tiny focal length": (label(n20=1e-60), "'b.png' in .* has a focal length that is not above 0"),
    "skewed": (label(n17=0.1), "'b.png' in .* has a skewed lens"),
    "intrinsics' last row": (label(n24=2.0), "'b.png' in .* has intrinsics whose last row is not 0 0 1"),
    "in pixels": (label(n16=2000.0, n20=2000.0, n18=256.0, n21=256.0), "'b.png' in .* has intrinsics in pixels"),
    "two cameras": (
        {"labels": [["a.png", FFHQ], ["a.png", [*FFHQ[:3], 0.5, *FFHQ[4:]]]]},
        "or have several cameras: 1 \\(a.png\\)",
    ),
    "no frames": ({"frames": []}, "has no list of frames"),
    "frames no list": ({"frames": {}}, "has no list of frames"),
    "no file_path": (frames({"file_path": None}), "Frame 0 of .* has no file_path"),
    "no matrix": (frames({"transform_matrix": None}), "transform_matrix of 'train/r_0' in .* is not 4 x 4 numbers"),
    "a short matrix": (frames({"transform_matrix": [[1, 0], [0, 1]]}), "is not 4 x 4 numbers"),
    "no lens": (frames(camera_angle_x=None), "The lens of 'train/r_0' in .* has no focal length"),
    "a lens of half a turn": (frames(camera_angle_x=3.2), "camera_angle_x of .* is 3.2: give an angle below pi"),
    "a negative angle": (frames(camera_angle_x=-1), "camera_angle_x of .* is -1: give a number above 0"),
    "an angle in words": (frames(camera_angle_x="40"), "camera_angle_x of .* is 40: give a number above 0"),
    "pixels without w": (frames({"fl_x": 500}), "fl_x of .* is in pixels, but there is no w"),
    "pixels without h": (frames(**PIXELS | {"h": None, "cy": 100}), "cy of .* is in pixels, but there is no h"),
    "centre": (frames(**PIXELS | {"cx": math.nan}), "cx of .* is nan: give a number that is finite"),
    "distorted": (frames(k1=0.1, p2=-0.02), "has distortion \\(k1 = 0.1, p2 = -0.02\\), .*: undistort the images"),
    "distorted in one frame": (frames({"k3": 1e-9}), "has distortion \\(k3 = 1e-09\\)"),
    "a fisheye": (frames(camera_model="OPENCV_FISHEYE"), "is 'OPENCV_FISHEYE', but cameras here are pinholes"),
    "an older fisheye": (frames(is_fisheye=True), "is a fisheye, but cameras here are pinholes"),
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_a_damaged_or_impossible_json_is_one_sentence(name: str, tmp_path) -> None:
    content, why = BAD_JSON[name]
    data = content if isinstance(content, bytes) else content.encode() if isinstance(content, str) else None
    (tmp_path / "transforms.json").write_bytes(json.dumps(content).encode() if data is None else data)
    for read in (
        lambda: read_cameras(tmp_path / "transforms.json"),
        lambda: find(tmp_path, ["a.png", "train/r_0.png"]),
    ):
        with pytest.raises(UserError, match=why) as refused:
            read()
        one_sentence(refused.value)


def test_how_many_more_are_wrong_is_said(tmp_path) -> None:
    wrong = [math.nan, *FFHQ[1:]]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": [[f"{i}.png", wrong] for i in range(1234)]}))
    with pytest.raises(UserError, match=r"The camera of '0.png' \(and 1,233 more\) in "):
        read_cameras(tmp_path)


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return file.getvalue()


def numpy_file(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


EXTRINSICS, INTRINSICS = "carla_poses/000001_extrinsics.npy", "carla_poses/intrinsics.npy"
BAD_FILES: dict[str, tuple[str, str, bytes, str]] = {
    "SRN: words": ("SRN", "car/pose/000001.txt", b"1 0 zero", "is no text of numbers: could not convert"),
    "SRN: 12 numbers": ("SRN", "car/pose/000001.txt", b"1 " * 12, "has 12 numbers, where a pose has 16."),
    "SRN: long": ("SRN", "car/pose/000001.txt", b"1 " * 2**16, "131,072 bytes, more than the 65,536"),
    "SRN: NaN": ("SRN", "car/pose/000001.txt", b"nan " * 16, "'car/rgb/000001' in .* is not finite"),
    "SRN: no lens": ("SRN", "car/intrinsics.txt", b"", "is no lens of SRN's: its first line must be f cx cy 0"),
    "SRN: a lens of words": ("SRN", "car/intrinsics.txt", b"a b c\n1 1\n", "is no lens of SRN's"),
    "SRN: two sizes": (
        "SRN",
        "car/intrinsics.txt",
        b"525 256 256 0.\n128 128",
        "\\(256, 256\\) outside of its 128 x 128",
    ),
    "CARLA: a pickle": ("CARLA", EXTRINSICS, pickled(), "is no array of numbers: it does not hold the numbers that it"),
    "CARLA: empty": ("CARLA", EXTRINSICS, b"", "is no array of numbers: "),
    "CARLA: cut": ("CARLA", EXTRINSICS, numpy_file(np.eye(4))[:-8], "is no array of numbers: it does not hold"),
    "CARLA: no header": ("CARLA", EXTRINSICS, numpy_file(np.eye(4)).replace(b"}", b"("), "it has a damaged header"),
    "CARLA: text": ("CARLA", EXTRINSICS, numpy_file(np.array(["a"])), "it does not hold plain numbers"),
    "CARLA: 3 x 3": ("CARLA", EXTRINSICS, numpy_file(np.eye(3)), "holds 3 x 3 numbers, where a pose has 3 x 4."),
    "CARLA: scaled": ("CARLA", EXTRINSICS, numpy_file(2 * np.eye(4)[:3]), "'images/000001.png' in .* with a scale"),
    "CARLA: no lens": ("CARLA", INTRINSICS, numpy_file(np.ones(3)), "holds no matrix of intrinsics: leave it out"),
    "CARLA: no centre": ("CARLA", INTRINSICS, numpy_file(np.eye(3)), "has no principal point: leave it out"),
    "CARLA: no focal length": ("CARLA", INTRINSICS, numpy_file(np.ones((3, 3)) - np.eye(3)), "that is not above 0"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_damaged_or_impossible_pose_is_one_sentence(name: str, tmp_path) -> None:
    kind, file, data, why = BAD_FILES[name]
    write, up, opencv = FORMATS[kind]
    names = write(tmp_path, own_poses(up, opencv))
    (tmp_path / file).write_bytes(data)
    with pytest.raises(UserError, match=why) as refused:
        find(tmp_path, names)
    one_sentence(refused.value)


def test_a_file_that_declares_more_than_it_holds_takes_no_memory(tmp_path) -> None:
    carla(tmp_path, own_poses(Z_UP, False))
    data = numpy_file(np.zeros((3, 4))).replace(b"(3, 4)", b"(3" + b"0" * 12 + b", 4)")
    (tmp_path / EXTRINSICS).write_bytes(data)
    with pytest.raises(UserError, match="is no array of numbers"):
        read_cameras(tmp_path)
    with open(tmp_path / "dataset.json", "wb") as file:
        file.truncate(MOST_BYTES + 1)  # a hole that takes no space
    with pytest.raises(UserError, match="268,435,457 bytes, more than the 268,435,456 of any file of cameras"):
        read_cameras(tmp_path / "dataset.json")


def test_a_pose_without_its_lens_among_others_is_named(tmp_path) -> None:
    srn(tmp_path, own_poses(Z_UP, True))
    (tmp_path / "van/pose").mkdir(parents=True)
    (tmp_path / "van/pose/000000.txt").write_text("1 " * 16)
    with pytest.raises(UserError, match=r"van/pose/000000.txt' is a pose, but no intrinsics.txt is beside") as refused:
        find(tmp_path, ["car/rgb/000000.png"])
    one_sentence(refused.value)


def test_contradictions_are_refused(tmp_path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(labels()))
    with pytest.raises(UserError, match=r"No camera of .* \(a.png, b.png\) is of one of the images \(x.png\)"):
        find(tmp_path, ["x.png"])
    (tmp_path / "transforms.json").write_text(json.dumps(LEGO))
    with pytest.raises(
        UserError,
        match=r"holds cameras in several formats \(dataset, transforms\): leave those of one, or name its file",
    ):
        find(tmp_path, ["a.png"])
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"names that stand for several images .*: 1 \(train/r_0\); leave one of both."):
        find(tmp_path, ["train/r_0.png", "train/r_0.jpg"])
