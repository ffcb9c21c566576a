"""Zips that ``zoo data pack`` has written: square images of one size, and what they were made from.

Beside the images there are ``packed.json`` and, where there are cameras or classes, ``dataset.json``. Its images are
used as they are: nothing is cropped once more, whatever a config says of whole images.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from datamodules.camera_files.camera_set import MOST_BYTES, contents, parsed
from zoo.utils.errors import UserError
from zoo.utils.listed_files import File, Zip, text

MANIFEST = "packed.json"
VERSION = 1  # raise it when older readers would not understand a manifest


class PackedZip(Zip):
    """Such a zip, without its manifest."""

    def files(self) -> Iterator[File]:
        return (file for file in super().files() if file.name != MANIFEST)


class Packed(NamedTuple):
    """The manifest.

    name: of the data set that the images are from.
    resolution: their side [pixels].
    split: that they are, or "all".
    crop, filter: how they were made, as texts.
    digest: of the data set at this resolution, as ``datamodules.images.ImageFiles.digest`` makes it.
    hashes: sha256 of each image file, by name.
    """

    name: str
    resolution: int
    split: str
    crop: str
    filter: str
    digest: str
    hashes: dict[str, str]


def read_packed(container: Zip) -> Packed | None:
    """The manifest of a zip; None where it has none.

    Raises:
        UserError: it is damaged, or of a later version.
    """
    if MANIFEST not in container.zip.NameToInfo:
        return None
    source = f"'{MANIFEST}' of '{text(container.path, 120)}'"
    values = parsed(contents(container, container.member(MANIFEST), MOST_BYTES), source)
    if isinstance(values, dict) and isinstance(values.get("version"), int) and values["version"] > VERSION:
        raise UserError(f"{source} is of a later version of this project: update it, or pack the images again.")
    packed = packed_of(values)
    if packed is None:
        raise UserError(f"{source} is damaged: pack the images again, or remove it to use them as any others.")
    return packed


def packed_of(values: Any) -> Packed | None:
    """What the values of a manifest say; None where they are none."""
    kinds = {"name": str, "resolution": int, "split": str, "crop": str, "filter": str, "digest": str, "files": dict}
    if not isinstance(values, dict) or not all(type(values.get(name)) is kind for name, kind in kinds.items()):
        return None
    lines = values["files"]
    if not all(isinstance(line, dict) and isinstance(line.get("sha256"), str) for line in lines.values()):
        return None
    about = {name: values[name] for name in kinds if name != "files"}
    return Packed(**about, hashes={name: line["sha256"] for name, line in lines.items()})
