"""Where a command will write, checked before anything is loaded: no typing error costs minutes of rendering."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

from zoo.utils.errors import UserError, printable


def file_target(path: Path | str, suffixes: Sequence[str] = (), *, option: str = "--out", what: str = "It") -> Path:
    """The file, if it can be written; where it is none yet, its folder need not be there either.

    Args:
        path: a leading ~ stands for the user's home.
        suffixes: endings of names that there are formats for, in lower case; by default any.
        option: through which it was given, for messages.
        what: will be written, for messages.

    Raises:
        UserError: it has another ending, is a folder, or is where nothing can be written.
    """
    path = Path(os.path.expanduser(path))
    shown = printable(path, 80)
    check_place(path, path.parent, option)
    if path.is_dir():
        example = f", such as '{printable(path / f'x{suffixes[0]}', 80)}'" if suffixes else ""
        raise UserError(f"{option} is '{shown}', which is a folder: give a file{example}.")
    if path.exists() and not path.is_file():
        raise UserError(f"{option} is '{shown}', which is no regular file: give a file on a disk.")
    if suffixes and path.suffix.lower() not in suffixes:
        known = " or ".join(filter(None, (", ".join(suffixes[:-1]), suffixes[-1])))
        raise UserError(f"{what} is written as {known}, not as '{printable(path.name, 80)}': give a name that ends so.")
    return path


def folder_target(path: Path | str, *, option: str = "--out") -> Path:
    """The folder, if files can be written into it; it need not be there.

    Args:
        path: a leading ~ stands for the user's home.
        option: through which it was given, for messages.

    Raises:
        UserError: it is a file, or where nothing can be written.
    """
    path = Path(os.path.expanduser(path))
    check_place(path, path, option)
    return path


def check_place(path: Path, folder: Path, option: str) -> None:
    """Refuse a path whose folder cannot be made or written to.

    Raises:
        UserError: says why.
    """
    shown = printable(path, 80)
    if "\0" in str(path):
        raise UserError(f"{option} is '{shown}': a name cannot hold a zero byte.")
    try:
        there = next(p for p in (folder.absolute(), *folder.absolute().parents) if is_there(p))
        is_there(path)
        is_there(path.parent / f".{path.name}.lock")  # beside tables; its name is the longest
    except OSError as error:
        raise UserError(f"{option} is '{shown}': {error.strerror}. Take another place.") from None
    if not there.is_dir():
        raise UserError(f"{option} is '{shown}', but '{printable(there, 80)}' is no folder: take another place.")
    if not os.access(there, os.W_OK | os.X_OK):
        why = f"'{printable(there, 80)}' cannot be written to"
        raise UserError(f"{option} is '{shown}', but {why}: make it writable, or take another place.")
    try:
        TemporaryFile(dir=there).close()  # has no name; /proc and the like take none
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # there may be room by then; nothing is lost if not
            why = f"no file can be made in '{printable(there, 80)}'"
            raise UserError(f"{option} is '{shown}', but {why} ({error.strerror}): take another place.") from None


def is_there(path: Path) -> bool:
    """Whether there is anything of this name, if only a link that leads nowhere.

    Raises:
        OSError: it is no name that there could be, or its folder may not be entered.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
