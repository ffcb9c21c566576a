"""Reads what torch or pickle wrote: zip files of torch, its older format, plain pickles; and safetensors.

Nothing in a file is imported or run: see ``zoo.utils.pickles``. No container is unpacked beyond what it declares.
"""

import io
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from zoo.utils.errors import UserError, printable
from zoo.utils.file_signatures import foreign, is_safetensors
from zoo.utils.pickles import at_its_end, interpret, read_legacy
from zoo.utils.records import Reading, Storage, as_numbers, storage_identity, view_storage

MAX_EXPANSION = 10  # unpacked size of a zip over its own size: weights hardly shrink, so more than this is a trap
TORCH_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
PIECES = {zipfile.ZIP_STORED: 2**20, zipfile.ZIP_DEFLATED: 2**20}  # bytes unpacked at once
SMALL_PIECES = 2**12  # for methods of which the zip library bounds what goes in, not what comes out


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    value: plain values, tensors on the CPU, numpy arrays and scalars, ``Name`` and ``Record``.
    names: all classes and functions that the file asked for, sorted.
    container: which kind of file it is, in words.
    """

    value: Any
    names: list[str]
    container: str


def read_file(file: BinaryIO) -> Contents:
    """Everything in an open file.

    Raises:
        ValueError, zipfile.BadZipFile, zlib.error, EOFError: as ``damage_explained`` expects them.
    """
    head = file.read(512)
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if what := foreign(head):
        raise ValueError(f"it is {what}")
    if is_safetensors(head):
        try:
            return Contents(load_tensors(file.read()), [], "safetensors file")
        except SafetensorError as error:
            raise ValueError(f"it is a damaged safetensors file ({error}); download it again") from None
    reading = Reading(size)
    if head.startswith(b"PK"):
        value, container = read_zip(file, reading), "zip file of torch"
    else:
        is_legacy = TORCH_MAGIC in head[:32]
        read, container = (read_legacy, "older file of torch") if is_legacy else (interpret, "pickle")
        data = io.BytesIO(file.read())
        value = read(data, reading)
        at_its_end(data)
    if wanted := sorted(reading.tools):
        raise ValueError(f"it asks for {', '.join(wanted[:3])}, which no checkpoint needs; nothing was run")
    return Contents(value, sorted(reading.names), container)


@contextmanager
def damage_explained(source: Any, sentence: str = "{} cannot be read: {}.") -> Iterator[None]:
    """Inside, whatever a damaged or hostile file leads to becomes a UserError that names the file."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError):
        reason = "it is a damaged or truncated zip; download it again"
        raise UserError(sentence.format(source, reason)) from None
    except (ValueError, OverflowError, NotImplementedError) as error:
        raise UserError(sentence.format(source, printable(error).rstrip("."))) from None


# Zip files


def unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo | str) -> bytearray:
    """A member of a zip, of which no more than the declared bytes ever come into memory.

    Raises:
        ValueError: it has another size than it declares.
        zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError: it is damaged, or of an unknown method.
    """
    info = archive.getinfo(member) if isinstance(member, str) else member
    if info.compress_size > info.file_size + info.file_size // 100 + 1024:  # packed data hardly ever grow
        raise ValueError(f"its member '{info.filename[:80]}' holds more than the {info.file_size:,} bytes it declares")
    data = bytearray()
    with archive.open(info) as file:
        while piece := file.read(PIECES.get(info.compress_type, SMALL_PIECES)):
            data += piece
    if len(data) != info.file_size:
        raise ValueError(f"its member '{info.filename[:80]}' has {len(data):,} bytes, not {info.file_size:,}")
    return data


def members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The members of a zip file of so many bytes, by name.

    Raises:
        ValueError: two have the same name, one is encrypted or has a name that leads elsewhere, something else comes
            before or after the zip, or together they are far larger than the file.
    """
    infos = archive.infolist()
    by_name = {info.filename: info for info in infos}
    if len(by_name) < len(infos):
        raise ValueError("two members of the zip have the same name")
    if any(info.flag_bits & 1 for info in infos) or not all(name.isprintable() for name in by_name):
        raise ValueError("it is encrypted, or names of its members are not text")
    for name in by_name:  # nothing is unpacked here; but nobody should unpack it elsewhere either
        if name.startswith(("/", "\\")) or re.match(r"\w:", name) or ".." in re.split(r"[/\\]", name):
            raise ValueError(f"its member '{name[:80]}' would be unpacked outside of its folder")
    if not all(0 <= info.header_offset < size for info in infos):
        raise ValueError("a member of the zip lies outside of it")
    if infos and min(info.header_offset for info in infos):  # such as a whole zip inside a truncated one
        raise ValueError("the zip begins later than the file; it is damaged or truncated: download it again")
    declared = sum(info.file_size for info in infos)
    if declared > MAX_EXPANSION * size + 2**20:
        raise ValueError(f"its {size:,} bytes would unpack to {declared:,}")
    archive.fp.seek(max(0, size - 22 - len(archive.comment)))
    if archive.fp.read(4) != b"PK\5\6":  # the record that ends a zip
        raise ValueError("something follows the end of the zip; it is damaged: download it again")
    return by_name


def torch_roots(names: Iterable[str]) -> list[str]:
    """The folders that make a zip file one of torch's: ``archive/`` for ``archive/data.pkl``."""
    return [name[: -len("data.pkl")] for name in names if re.fullmatch(r"([^/]+/)?data\.pkl", name)]


def read_zip(file: BinaryIO, reading: Reading) -> Any:
    """The object in a zip file of torch."""
    with zipfile.ZipFile(file) as archive:
        infos = members(archive, file.seek(0, io.SEEK_END))
        reading.bytes = 2 * sum(info.file_size for info in infos.values())
        roots = torch_roots(infos)
        if len(roots) != 1:
            raise ValueError(f"a checkpoint is a zip with one data.pkl, and this one has {len(roots)}")
        left = dict(infos)

        def take(name: str) -> bytearray:
            return unpacked(archive, left.pop(name))

        order = f"{roots[0]}byteorder"
        if order in infos and take(order).strip() != b"little":
            raise ValueError("its numbers are stored with the highest byte first")
        storages: dict[str, Storage] = {}

        def persistent(identity: Any) -> Any:
            dtype, key, count, view = storage_identity(identity)
            name = f"{roots[0]}data/{key}"
            if name not in infos:
                raise ValueError(f"the numbers of storage '{key}' are missing")
            if infos[name].file_size != count * dtype.itemsize:
                stored = infos[name].file_size
                raise ValueError(f"storage '{key}' has {stored:,} bytes, not {count:,} x {dtype.itemsize}")
            if key not in storages:
                reading.take(infos[name].file_size)
                storages[key] = Storage(as_numbers(take(name), dtype))
            if storages[key].values.dtype != dtype:
                raise ValueError(f"storage '{key}' is of two kinds")
            return view_storage(storages[key], view)

        value = interpret(io.BytesIO(take(f"{roots[0]}data.pkl")), reading, persistent)
        for name in list(left):  # what nobody asked for may be damaged, too
            take(name)
        return value


def read_array(path: Path, name: str) -> np.ndarray | None:
    """An array of numbers in an ``.npz`` of numpy; None where there is none of this name.

    Raises:
        ValueError: the file is damaged, or the array is none of numbers; names the file.
    """
    with damage_explained(path), open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        if f"{name}.npy" not in members(archive, path.stat().st_size):
            return None
        return array_in(unpacked(archive, f"{name}.npy"), f"its array '{name}'")


def array_in(data: bytes | bytearray, what: str = "it") -> np.ndarray:
    """The array of numbers in the bytes of a ``.npy``; no more memory is taken than there are bytes.

    Raises:
        ValueError: it is damaged, or the array is none of numbers.
    """
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, kind = header(stream)
    except (SyntaxError, TokenError, TypeError, RecursionError, MemoryError):  # it is a literal of Python
        raise ValueError(f"{what} has a damaged header") from None
    numbers = stream.read()
    if kind.hasobject or math.prod(shape) * kind.itemsize != len(numbers):
        raise ValueError(f"{what} does not hold the numbers that it declares")
    return np.frombuffer(numbers, kind).reshape(shape, order="F" if fortran else "C").copy()


def check_whole(path: Path) -> None:
    """Fail where a zip is damaged in any of its members; other files tell as much when they are read.

    Raises:
        ValueError: it is; names the file.
    """
    with damage_explained(path), open(path, "rb") as file:
        if file.read(2) == b"PK":
            with zipfile.ZipFile(file) as archive:
                for info in members(archive, path.stat().st_size).values():
                    unpacked(archive, info)
