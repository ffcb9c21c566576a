"""Images in an LMDB, as LSUN comes: the encoded image of each key. Needs the package ``lmdb`` (the extra ``lsun``)."""

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from zoo.utils.errors import UserError
from zoo.utils.listed_files import Container, File, container_of, text

SUFFIX = ".webp"  # as LSUN's own program names exported images; what they are, their bytes say


class Environment:
    """An LMDB that each process opens for itself: it must not be used in a process forked from the one that did."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened: tuple[int, Any] | None = None

    def begin(self, **options: Any) -> Any:
        """A transaction that reads.

        Raises:
            UserError: the package is missing, or this is no LMDB.
        """
        if self.opened is None or self.opened[0] != os.getpid():
            if self.opened is not None:
                self.opened[1].close()  # this process's copy; LMDB refuses to open the same files twice
            self.opened = os.getpid(), opened(self.path)
        return self.opened[1].begin(**options)


def opened(path: Path) -> Any:
    try:
        import lmdb
    except ImportError as error:
        raise UserError(
            f"'{text(path)}' is an LMDB, and the package that reads it is missing: pip install 'gan3d-zoo[lsun]'."
        ) from error
    try:
        return lmdb.open(str(path), readonly=True, lock=False, readahead=False, meminit=False)
    except lmdb.Error as error:
        raise UserError(f"'{text(path)}' is no LMDB, or a broken one ({text(str(error), 80)}).") from error


environment = lru_cache(maxsize=None)(Environment)  # LMDB refuses a second one of a path in the same process


class Lmdb:
    """The images of an LMDB, named by their keys; with the methods of ``zoo.utils.listed_files.Folder``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def files(self) -> Iterator[File]:
        about = (self.path / "data.mdb").stat()
        with environment(self.path).begin(buffers=True) as transaction:
            for key, value in transaction.cursor():  # sizes alone: values are not read
                yield File(os.fsdecode(bytes(key)) + SUFFIX, len(value), f"{len(value)}-{about.st_mtime_ns}")

    def read(self, name: str) -> bytes:
        with environment(self.path).begin() as transaction:
            value = transaction.get(os.fsencode(name.removesuffix(SUFFIX)))
        if value is None:
            raise KeyError(f"there is no key '{name.removesuffix(SUFFIX)}'")
        return value

    def head(self, name: str) -> bytes:
        """Its first 64 KiB."""
        return self.read(name)[: 2**16]


def is_lmdb(path: Path) -> bool:
    return (path / "data.mdb").is_file()


def lmdb_in(name: str, path: Path) -> Container:
    """The LMDB of this name: the path itself, beside it or in it; else what is at the path.

    An LMDB of another name is taken if that says no split, as of LSUN's objects (``cat_lmdb``).
    """
    around = [path.parent] if is_lmdb(path) else [path, path / "scene_categories"]
    if found := next((folder / name for folder in around if is_lmdb(folder / name)), None):
        return Lmdb(found)
    is_split = path.name.endswith(("_train_lmdb", "_val_lmdb", "_test_lmdb"))
    return Lmdb(path) if is_lmdb(path) and not is_split else container_of(path)


def first_of(limit: int, container: Container, names: list[str], images: list[str]) -> list[str]:
    """The first so many images."""
    return images[:limit]
