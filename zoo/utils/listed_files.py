"""Folders and zips as containers of files, which are listed before any of them is opened.

Subfolders belong to a folder, and so do folders and files that links lead to; hidden files and folders do not. Nothing
of a zip is ever written to disk.
"""

import os
import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from zoo.utils.containers import unpacked
from zoo.utils.errors import UserError, near_path, printable

HIDDEN = re.compile(r"(?:^|[/\\])(?:\.(?!\.?(?:[/\\]|$))|__MACOSX)")  # not for being in . or ..
OUTSIDE = re.compile(r"^[/\\]|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)")


def text(name: str | Path, most: int = 200) -> str:
    """A name from elsewhere, as it can be printed and written."""
    return printable(os.fsencode(name).decode("utf-8", "replace"), most)


class File(NamedTuple):
    """A file of a folder or zip, before it is opened.

    name: its path within, with forward slashes.
    size: [bytes].
    stamp: changes when the content does, as far as one can tell without reading it.
    problem: why it must not be opened, if so.
    """

    name: str
    size: int = 0
    stamp: str = ""
    problem: str | None = None


class Folder:
    """The files below a folder and below the folders that it links to, each folder once; hidden ones left out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.above = len(os.path.join(path, ""))  # what comes before the names within, in characters

    def files(self) -> Iterator[File]:
        seen: set[str] = set()
        starts = [str(self.path)]
        for start in starts:  # the folder itself, and then what links lead to
            root = os.path.realpath(start)
            around = Path(os.path.realpath(os.path.dirname(start))).is_relative_to(root) and start != starts[0]
            if around or root in seen:
                yield File(self.name(start), problem="a link to a folder that is read already")
                continue
            links, folders = [], [(start, root)]
            while folders:
                folder, real = folders.pop()
                seen.add(real)
                for entry in entries(folder):
                    if not is_folder(entry):
                        yield self.file(entry.path)
                    elif entry.is_symlink():
                        links.append(entry.path)
                    else:
                        folders.append((entry.path, os.path.join(real, entry.name)))
            starts += sorted(links)

    def name(self, path: str) -> str:
        return path[self.above :].replace(os.sep, "/")  # pathlib is ten times slower, which 100,000 files show

    def member(self, name: str) -> File:
        """The file of this name within, whether it is there or not."""
        return self.file(os.path.join(self.path, name))

    def file(self, path: str) -> File:
        try:
            about = os.stat(path)
        except OSError as error:
            lost = "a link that leads nowhere" if os.path.islink(path) else f"it cannot be read ({error.strerror})"
            return File(self.name(path), problem=lost)
        problem = None if stat.S_ISREG(about.st_mode) else "it is no regular file"
        return File(self.name(path), about.st_size, f"{about.st_size}-{about.st_mtime_ns}", problem)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def head(self, name: str) -> bytes:
        """Its first 64 KiB."""
        with open(self.path / name, "rb") as file:
            return file.read(2**16)


def entries(folder: str) -> list[os.DirEntry]:
    """What is in a folder, hidden ones left out."""
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"The folder '{text(folder)}' cannot be read ({error.strerror}).") from error


def is_folder(entry: os.DirEntry) -> bool:
    """Whether it is a folder or leads to one; a link to itself does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


class Zip:
    """The members of a zip, hidden ones left out. Each process opens the file for itself, at its first use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened: tuple[int, zipfile.ZipFile] | None = None  # by which process

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": None}

    @property
    def zip(self) -> zipfile.ZipFile:
        if self.opened is None or self.opened[0] != os.getpid():  # a forked worker must not share a file position
            try:
                self.opened = os.getpid(), zipfile.ZipFile(self.path)
            except zipfile.BadZipFile as error:
                raise UserError(f"'{text(self.path)}' is not a zip file, or a broken one ({error}).") from error
        return self.opened[1]

    def files(self) -> Iterator[File]:
        return (self.file(info) for info in self.zip.infolist() if not (info.is_dir() or HIDDEN.search(info.filename)))

    def member(self, name: str) -> File:
        """The member of this name; of several the last."""
        return self.file(self.zip.getinfo(name))

    def file(self, info: zipfile.ZipInfo) -> File:
        problem = "its path leads out of the zip" if OUTSIDE.search(info.filename) else None
        problem = "a link" if stat.S_ISLNK(info.external_attr >> 16) else problem
        problem = "it is encrypted" if info.flag_bits & 1 else problem
        return File(info.filename, info.file_size, f"{info.file_size}-{info.CRC}", problem)

    def read(self, name: str) -> bytes:
        return bytes(unpacked(self.zip, name))  # no more than the size in files(), or an error

    def head(self, name: str) -> bytes:
        """Its first 64 KiB."""
        with self.zip.open(name) as file:
            return file.read(2**16)


def container_of(path: Path) -> Folder | Zip:
    """What is at this path.

    Raises:
        UserError: nothing, or neither a folder nor a zip.
    """
    if not path.exists():
        raise UserError(f"There is no folder or zip file '{text(path)}'.{near_path(path)}")
    if not path.is_dir() and path.suffix.lower() != ".zip":
        raise UserError(f"'{text(path)}' is neither a folder nor a .zip file.")
    return Folder(path) if path.is_dir() else Zip(path)


Container = Folder | Zip  # or what has their methods
