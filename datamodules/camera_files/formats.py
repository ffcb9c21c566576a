"""Which file holds cameras, whose images they are of, and in which format they are written."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import torch

from datamodules.camera_files import carla, eg3d, srn, transforms
from datamodules.camera_files.camera_set import CameraSet, NotCameras, contents, parsed, shown
from zoo.render.cameras import Camera
from zoo.utils.errors import UserError, missing_file, printable
from zoo.utils.files import replacing
from zoo.utils.image_folders import listing, say
from zoo.utils.listed_files import File, Folder, Zip, container_of
from zoo.utils.paths import is_image
from zoo.utils.targets import file_target

JSON = re.compile(r"(?:(?P<folder>.*)/)?(?P<kind>dataset(?=\.)|transforms)\w*\.json")
KNOWN = "EG3D's dataset.json, NeRF's transforms.json, SRN's pose and intrinsics.txt, or *_extrinsics.npy of CARLA"


def find_cameras(container: Folder | Zip, names: Sequence[str], files: list[File] | None = None) -> CameraSet | None:
    """Cameras of the images of a folder or zip, in it or, for SRN and CARLA, beside it; None where there are none.

    What has no camera and what has no image is counted in a line of the log.

    Args:
        container: with the images.
        names: of its usable images.
        files: all others in it, where they are known.

    Raises:
        UserError: a file of cameras that is damaged or holds impossible ones, several that contradict each other, or
            cameras of none of these images.
    """
    try:
        return matched(found_in(container, list(container.files()) if files is None else files, names), names)
    except NotCameras:
        return None


def read_cameras(path: Path | str) -> CameraSet:
    """The cameras in a file, folder or zip, whichever of the formats they are in.

    Raises:
        UserError: there are none, or as ``find_cameras``.
        FileNotFoundError: there is nothing of this name.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(missing_file(path))
    if path.is_dir() or path.suffix.lower() == ".zip":
        container = container_of(path)
        files = list(container.files())
        names = [file.name for file in files if is_image(file.name) and not file.problem]
        cameras = found_in(container, files, names)
        return matched(cameras, names) if names else named(cameras)
    folder = Folder(path.parent)
    return named(in_file(folder, folder.member(path.name), ""))


def found_in(container: Folder | Zip, files: list[File], images: Sequence[str]) -> CameraSet:
    """All cameras in a folder or zip, or beside it; names may lack the suffix of the image.

    Raises:
        NotCameras: there are none.
        UserError: they are in several formats; and as ``find_cameras``.
    """
    others: list[NotCameras] = []
    files = sorted(files)
    sets = list(in_files(container, files, images, others)) or list(beside(container, images))
    if not sets:
        raise others[0] if others else NotCameras(f"{shown(container)} holds no cameras: give {KNOWN}.")
    if len({kind for kind, _ in sets}) > 1:
        raise UserError(
            f"{shown(container)} holds cameras in several formats ({listing(sorted({kind for kind, _ in sets}))}): "
            "leave those of one, or name its file, in training as --data.cameras."
        )
    cameras = [found for _, found in sets]
    more = f" and {len(cameras) - 1} more" if len(cameras) > 1 else ""
    camera = Camera(*(torch.cat(parts) for parts in zip(*(found.camera for found in cameras), strict=True)))
    return CameraSet([name for found in cameras for name in found.names], camera, f"{cameras[0].source}{more}")


def in_files(
    container: Folder | Zip, files: list[File], images: Sequence[str], others: list[NotCameras]
) -> Iterator[tuple[str, CameraSet]]:
    """Cameras of each file or kind of files, after the name of the format; what is none is appended to ``others``."""
    readers: list[tuple[str, Callable[[], CameraSet | None]]] = [
        (place["kind"], partial(in_file, container, file, place["folder"] or ""))
        for file in files
        if (place := JSON.fullmatch(file.name))
    ]
    readers += [("SRN", partial(srn.read, container, files)), ("CARLA", partial(carla.read, container, files, images))]
    for kind, reader in readers:
        try:
            if (found := reader()) is not None:
                yield kind, found
        except NotCameras as error:
            others.append(error)


def in_file(container: Folder | Zip, file: File, folder: str) -> CameraSet:
    """The cameras in a json, by what is in it.

    Args:
        container: with the file.
        file: in it.
        folder: that the names of images in the file are relative to.

    Raises:
        NotCameras: it holds other things.
        UserError: it is damaged, or as the formats raise.
    """
    data, source = contents(container, file), shown(container, file.name)
    if not re.match(rb"(\xef\xbb\xbf|\xff\xfe|\xfe\xff)?[\s\0]*[\[{]", data):
        raise UserError(f"{source} is no file of cameras that is known here: give {KNOWN}.")
    content = parsed(data, source)
    if isinstance(content, dict) and "frames" in content:
        return transforms.read(content, folder, source)
    if isinstance(content, dict):
        return eg3d.read(content, folder, source)
    raise NotCameras(f"{source} has neither frames nor labels, so it holds no cameras: give {KNOWN}.")


def beside(container: Folder | Zip, images: Sequence[str]) -> Iterator[tuple[str, CameraSet]]:
    """Cameras in folders and zips beside one with images: SRN's around ``rgb``, CARLA's in ``carla_poses``."""
    parent, path = Folder(container.path.parent), container.path
    if path.name == "rgb" and (parent.path / "pose").is_dir():
        poses = [file._replace(name=f"pose/{file.name}") for file in sorted(Folder(parent.path / "pose").files())]
        found = srn.read(parent, [*poses, parent.member("intrinsics.txt")])
        if found is not None:
            yield "SRN", found._replace(names=[name.removeprefix("rgb/") for name in found.names])
    for name in ("carla_poses", "poses", "carla_poses.zip"):
        if (parent.path / name).exists() and parent.path / name != path:
            place = container_of(parent.path / name)
            if (found := carla.read(place, sorted(place.files()), images)) is not None:
                yield "CARLA", found
                return


def matched(cameras: CameraSet, images: Sequence[str]) -> CameraSet:
    """The cameras that have an image, with its name; the others, and images without, are counted in the log.

    Raises:
        UserError: none has, or an image has several.
    """
    whole, stems = set(images), defaultdict(list)
    for name in images:
        stems[without_suffix(name)].append(name)
    index_of: dict[str, int] = {}
    lonely, several = [], set()
    for index, name in enumerate(cameras.names):
        of = [name] if name in whole else stems.get(without_suffix(name), [])
        if not of:
            lonely.append(name)
        elif len(of) > 1 or not same(cameras.camera, index, index_of.setdefault(of[0], index)):
            several.add(name)
    if several:
        raise UserError(
            f"In {cameras.source}, names that stand for several images or have several cameras: {len(several):,} "
            f"({listing(sorted(several))}); leave one of both."
        )
    if not index_of:
        raise UserError(
            f"No camera of {cameras.source} ({listing(cameras.names)}) is of one of the images ({listing(images)}): "
            "call them the same."
        )
    parts = {"images without one": [name for name in images if name not in index_of], "cameras without image": lonely}
    if lines := [f"{what}: {len(which):,} ({listing(which)})" for what, which in parts.items() if which]:
        say(f"Cameras of {cameras.source}: {len(index_of):,} used; {'; '.join(lines)}.")
    return CameraSet(list(index_of), cameras.camera.take(torch.tensor(list(index_of.values()))), cameras.source)


def named(cameras: CameraSet) -> CameraSet:
    """The cameras of images that are not at hand, whose suffix is .png where a file gives none."""
    names = [name if is_image(name) else f"{name}.png" for name in cameras.names]
    return matched(cameras._replace(names=names), list(dict.fromkeys(names)))


def same(camera: Camera, index: int, other: int) -> bool:
    return index == other or all(torch.equal(part[index], part[other]) for part in camera)


def without_suffix(name: str) -> str:
    return name[: -len(PurePosixPath(name).suffix)] if is_image(name) else name


def check_target(path: Path | str) -> Path:
    """The file that cameras are to be written to, if there is a format of its name and it can be written.

    Raises:
        UserError: says which names there are, or what is wrong.
    """
    path = file_target(path, (".json",), what="A file of cameras")
    if not JSON.fullmatch(path.name):
        raise UserError(
            f"--out is '{printable(path, 80)}': call it dataset.json for EG3D's format, or transforms.json for NeRF's."
        )
    return path


def write_cameras(cameras: CameraSet, path: Path | str, resolution: int | None = None) -> None:
    """Write cameras in the format of the file's name, ``dataset.json`` or ``transforms.json``.

    Args:
        cameras: of any convention's file.
        path: an older file is replaced.
        resolution: side of the images [pixels]; a ``transforms.json`` then gives its lens in these, too.

    Raises:
        UserError: the name is of no format, or the format cannot hold them; says why.
    """
    path = check_target(path)
    content = eg3d.content(cameras) if path.name == "dataset.json" else transforms.content(cameras, resolution)
    with replacing(path) as part:
        part.write_text(json.dumps(content), encoding="utf-8")
