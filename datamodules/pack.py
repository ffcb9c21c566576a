"""Packs a data set: each image cropped and resized, as PNG, in a zip that needs no decoding of large files any more.

The zip is a function of its images and settings alone: its members are in order and have no dates. It is written under
another name, with a key of both. An interrupted writer leaves it there, and the next one keeps its whole members.
"""

import glob
import hashlib
import io
import json
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import PIL
import torch
from PIL import Image
from tqdm import tqdm

from datamodules.base import ImageDataset
from datamodules.camera_files import CameraSet, eg3d
from datamodules.images import ImageFiles, ImageFolder
from datamodules.labels import subfolder_labels
from datamodules.packed import MANIFEST, VERSION
from zoo.utils.errors import UserError
from zoo.utils.files import held, held_alone, lock_of, naming, take_place
from zoo.utils.images import pillow_silenced
from zoo.utils.listed_files import Folder, text

AT_ONCE = 64  # images in memory
LOCAL_HEADER = struct.Struct("<4s5H3L2H")
LONGEST_NAME = 2**10  # characters


def pack(data: ImageFolder, out: Path, version: str) -> int:
    """Write the images that a datamodule gives at its resolution; returns how many.

    Args:
        data: with its crop and filter.
        out: the zip; an older one is replaced.
        version: of this package.

    Raises:
        UserError: there are none, each training image is another crop, or another process is packing into the file.
    """
    if type(data.train_dataset()) is not ImageDataset:
        raise UserError(
            f"{type(data).__name__} takes another square of an image for each draw, which a packed one does not have: "
            "train on whole images, or take another preset."
        )
    files, resolution = data.files, data.resolution
    names = packed_names(files.open())
    about = manifest(data, names, version)
    key = hashlib.sha256(json.dumps([about, PIL.__version__]).encode()).hexdigest()[:16]
    part = out.with_name(f".{out.stem}-{key}.part")
    out.parent.mkdir(parents=True, exist_ok=True)
    refusal = f"Another process is packing '{text(out)}': wait for its end, or give another name."
    with naming(out, part), held_alone(lock_of(part), refusal, wait=0.5):
        sweep_others(out, part)
        part.touch()
        with open(part, "r+b") as file:
            write_zip(file, about, files, resolution)
        take_place(part, out)
    return len(names)


def sweep_others(out: Path, part: Path) -> None:
    """Remove what was begun with other images or settings, unless a process is at it."""
    for other in out.parent.glob(f".{glob.escape(out.stem)}-{'?' * 16}.part"):
        if other != part:
            with held(lock_of(other)) as is_free:
                if is_free:
                    other.unlink(missing_ok=True)


def manifest(data: ImageFolder, names: Sequence[str], version: str) -> dict[str, Any]:
    """What ``packed.json`` says, all but the sha256 of the packed files."""
    files = data.files
    sources = zip(names, files.hashes.items(), strict=True)
    return {
        "format": "images packed by zoo data pack",
        "version": VERSION,
        "package": version,
        "name": (files.read_packed() or data).name,
        "class": type(data).__name__,
        "resolution": data.resolution,
        "split": files.layout.split,
        "crop": str(files.crop),
        "filter": files.filter,
        "digest": files.digest(data.resolution),
        "files": {name: {"source": source, "source_sha256": sha256} for name, (source, sha256) in sources},
    }


def packed_names(sources: Sequence[str]) -> list[str]:
    """Names of the packed files, in the same order: those of their sources, or numbers where that cannot be."""
    names = [clean(name) for name in sources]
    if all(before < after for before, after in pairwise(names)):
        return names
    return [f"img{index:08d}.png" for index in range(len(sources))]


def clean(name: str) -> str:
    """A name that every system can unpack, and that ends in .png."""
    stem = PurePosixPath(name).with_suffix("").as_posix()
    return re.sub(r"[^\w./-]|(?<![^/])\.", "_", stem)[:LONGEST_NAME] + ".png"


def lists(files: ImageFiles, names: Sequence[str], resolution: int) -> Iterator[tuple[str, Any]]:
    """Files beside the images, with their values: cameras in EG3D's form, and classes that no folders tell."""
    place = "dataset.json"
    if files.labels is not None and subfolder_labels(names) != files.labels:
        yield place, {"labels": [[name, label] for name, label in zip(names, files.labels, strict=True)]}
        place, names = f"cameras/{place}", [f"../{name}" for name in names]
    if (camera := files.cameras(resolution)) is not None:
        yield place, eg3d.content(CameraSet(list(names), camera, "the images"))


# ------------------------------------------------------------------------------------------------------------ the zip


def write_zip(file: BinaryIO, about: dict[str, Any], files: ImageFiles, resolution: int) -> None:
    """Write all of it, or what an earlier writer of the same has not written yet."""
    names = list(about["files"])
    kept = list(whole_members(file, names))
    file.truncate()
    hashes = [sha256 for _, sha256 in kept]
    todo = range(len(kept), len(names))
    if kept:
        print(f"{len(kept):,} of {len(names):,} images are packed already.", file=sys.stderr)
    threads = torch.get_num_threads() if isinstance(files.container, Folder) else 1  # a zip has one file position
    with (
        pillow_silenced(),
        zipfile.ZipFile(file, "w") as archive,
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=len(names), initial=len(kept), desc="packing", unit="image", disable=None) as progress,
    ):
        archive.infolist().extend(member for member, _ in kept)
        for start in range(todo.start, todo.stop, AT_ONCE):
            some = range(start, min(start + AT_ONCE, todo.stop))
            for index, data in zip(some, pool.map(partial(encoded, files, resolution), some), strict=True):
                archive.writestr(member_of(names[index]), data)
                hashes.append(hashlib.sha256(data).hexdigest())
                progress.update()
        for name, values in lists(files, names, resolution):
            archive.writestr(member_of(name), json.dumps(values))
        for line, sha256 in zip(about["files"].values(), hashes, strict=True):
            line["sha256"] = sha256
        archive.writestr(member_of(MANIFEST), json.dumps(about, indent=1))


def encoded(files: ImageFiles, resolution: int, index: int) -> bytes:
    """The PNG of an image."""
    buffer = io.BytesIO()
    pixels = files.item(index, resolution)["image"].permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def member_of(name: str) -> zipfile.ZipInfo:
    """A member that is stored as it is, without a date."""
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o644 << 16  # Unix, readable for all
    return info


def whole_members(file: BinaryIO, names: Sequence[str]) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """The members that an interrupted writer has written whole, each with its sha256; the file is then at their end.

    There is no directory of them: that is written last. The names are those that it had to write, in order.
    """
    for name in names:
        start, info = file.tell(), member_of(name)
        head = file.read(LOCAL_HEADER.size)
        if len(head) == LOCAL_HEADER.size:
            *_, info.CRC, info.compress_size, info.file_size, _, _ = LOCAL_HEADER.unpack(head)
            expected = info.FileHeader(False)
            if head + file.read(len(expected) - len(head)) == expected:
                data = file.read(info.file_size)
                if len(data) == info.file_size and zlib.crc32(data) == info.CRC:
                    info.header_offset = start
                    yield info, hashlib.sha256(data).hexdigest()
                    continue
        file.seek(start)
        return
