"""Files that are whole whenever somebody reads them, however their writer ended, and locks between processes.

A file is written under another name in its own folder, forced to the disk, and then renamed, which replaces an older
one in a single step: whenever a process is killed, a disk is full or a machine loses power, the name stands for a
complete file, old or new. A killed process leaves its temporary file behind. Every writer holds a lock beside its own,
which ends with the process, on whatever machine that runs: ``sweep`` removes what nobody holds any more, and no others.
"""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from filelock import FileLock, Timeout

from zoo.utils.errors import UserError, disk_problem

PREFIX, LOCK = ".saving-", ".lock"
UMASK = os.umask(0)  # can only be read by setting it
os.umask(UMASK)


@contextmanager
def replacing(path: Path | str, durable: bool = True) -> Iterator[Path]:
    """Another file to write to, with the same suffix, which takes this one's place if nothing goes wrong; else it goes.

    Args:
        path: the file; its folder is made where there is none.
        durable: wait until the disk has it, some 10 ms; not worth it for each of thousands of images.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Never the name it is for: Lightning takes whatever holds "hpc_ckpt_" for a checkpoint of SLURM's.
    part = path.with_name(f"{PREFIX}{uuid4().hex}{path.suffix}")
    # Where anybody else wants the lock, a run that sweeps, and only for a moment.
    with naming(path, part), held(lock_of(part), wait=5.0):
        try:
            yield part
            take_place(part, path, durable)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def replacing_files(folder: Path | str) -> Iterator[Path]:
    """A folder of the same name to write files into, which are moved to this one if nothing goes wrong."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # In the folder itself, where there is one: it may be a disk of its own, or all that may be written to.
    beside = folder if folder.is_dir() else folder.parent
    with TemporaryDirectory(prefix=".making-", dir=beside) as place, naming(folder, place):
        made = Path(place) / folder.resolve().name
        made.mkdir()
        yield made
        folder.mkdir(exist_ok=True)
        for file in sorted(made.iterdir()):
            take_place(file, folder / file.name)


@contextmanager
def naming(path: Path, temporary: Path | str) -> Iterator[None]:
    """Have errors of the disk name this file or folder, instead of a temporary one, or none: writing names no file."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError):
            number, name = error.errno, error.filename
        else:  # safetensors writes by itself, and its error has the system's number in its text only
            found, name = re.search(r"\(os error (\d+)\)", str(error)), None
            number = int(found[1]) if found else None
        if number is not None and (name is None or os.fspath(temporary) in str(name)):
            named = OSError(number, os.strerror(number), os.fspath(path))
            if disk_problem(named):
                raise named from error
        raise


def take_place(part: Path, path: Path, durable: bool = True) -> None:
    """Rename a complete file in one step, whatever was of that name; on the disk, too, where it is to be durable."""
    os.chmod(part, 0o666 & ~UMASK)  # safetensors makes files that nobody but their owner may read
    if durable:
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
    os.replace(part, path)
    if durable:
        flush_names(path.parent)


def flush_names(folder: Path) -> None:
    """Have the names in a folder on the disk; does nothing where the system or the file system knows no such thing."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems
            raise
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Inside, no other process holds this lock; says that it waits, where it has to.

    Args:
        path: of the lock, a file for nothing else, which goes in the end.
        waiting: the line to say.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(waiting, file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        remove(path)  # while it is held: who waits for it sees that it is gone, and makes another
        lock.release()


@contextmanager
def held(path: Path, wait: float = 0.0) -> Iterator[bool]:
    """Hold a lock, or not: whether it came free within so many seconds, and the file system has locks at all."""
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=wait)
    except (Timeout, OSError):
        yield False
        return
    try:
        yield True
    finally:
        remove(path)
        lock.release()


@contextmanager
def held_alone(path: Path, refusal: str, wait: float = 10.0) -> Iterator[None]:
    """Hold a lock; where the file system has none, nothing is held.

    Args:
        path: of the lock, a file for nothing else, which goes in the end.
        refusal: the sentence for another process that holds it.
        wait: seconds; a process that was killed keeps its lock until it has ended, some moments later.

    Raises:
        UserError: another process holds it.
    """
    lock = FileLock(path, fallback_to_soft=False)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise UserError(refusal) from None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
            raise
    try:
        yield
    finally:
        if lock.is_locked:
            remove(path)
            lock.release()


def remove(path: Path) -> None:
    """Remove a lock; Windows removes it itself when it is released, and refuses before."""
    with suppress(OSError):
        path.unlink()


def lock_of(part: Path) -> Path:
    """The lock of a temporary file."""
    return part.with_suffix(LOCK)


def sweep(folder: Path) -> list[Path]:
    """Remove the temporary files that killed processes have left in a folder, but none that a living one is writing.

    Returns:
        what was removed.
    """
    removed = []
    for lock in sorted({lock_of(path) for path in folder.glob(f"{PREFIX}*")}):
        with held(lock) as is_free:
            for part in folder.glob(f"{PREFIX}*") if is_free else ():
                if lock_of(part) == lock != part:
                    part.unlink(missing_ok=True)
                    removed.append(part)
    return removed
