"""The weights that a viewer shows: of a bundle, or of a run's newest checkpoint, and of those that follow."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from zoo.utils.errors import UserError, mendable, printable
from zoo.weights.store import TENSORS

Loaded = TypeVar("Loaded")
Stamp = tuple[Path, int, int]  # a file, when it was written [ns], and its size


class Checkpoints(Generic[Loaded]):
    """Loads the newest checkpoint of a run, and later ones as they appear.

    A file is read once it has stayed the same between two looks. One that cannot be read is said, once, and what was
    loaded before stays.

    Args:
        source: folder of a run, a .ckpt, or anything else that ``load`` knows, which never changes.
        load: reads a source.

    loaded: from the last file that could be read.

    Raises:
        UserError: there is no checkpoint yet, or the first one cannot be read.
    """

    def __init__(self, source: str, load: Callable[[str], Loaded]) -> None:
        self.source, self.load = source, load
        self.seen = self.tried = stamp_of(source)
        self.refused: set[Path] = set()
        self.loaded = load(str(self.seen[0]) if self.seen else source)

    def look(self, say: Callable[[str], None] = print) -> bool:
        """Whether there was a newer checkpoint, which is ``loaded`` now.

        Args:
            say: what is called with a sentence for the user, of this one or of what is wrong with it.
        """
        try:
            before, self.seen = self.seen, stamp_of(self.source)
        except (UserError, OSError):  # the folder is being moved or emptied
            return False
        if self.seen in (None, self.tried) or self.seen != before:
            return False
        self.tried, (path, *_) = self.seen, self.seen
        try:
            self.loaded = self.load(str(path))
        except (UserError, OSError) as error:
            if path not in self.refused:
                say(f"{mendable(error) or printable(error)} The weights before it stay.")
            self.refused.add(path)
            return False
        self.refused.clear()
        say(f"Now from {path}.")
        return True


def stamp_of(source: str) -> Stamp | None:
    """The newest checkpoint of a run's folder, or the one that is named; None of what is neither.

    Raises:
        UserError: the folder is a run's, and has no checkpoint yet.
    """
    path = Path(source)
    if path.suffix == ".ckpt" and path.is_file():
        return stamp(path)
    if not path.is_dir() or (path / TENSORS).is_file():
        return None
    stamps = [stamp(file) for folder in (path / "checkpoints", path) for file in checkpoints_in(folder)]
    if stamps:
        return max(stamps, key=lambda found: (found[1], found[0].name == "last.ckpt"))
    if (path / "config.yaml").is_file() or (path / "checkpoints").is_dir():
        raise UserError(
            f"There is no checkpoint in '{printable(path, 120)}' yet: 'zoo fit' writes the first one after "
            "--checkpoint.every iterations."
        )
    return None


def checkpoints_in(folder: Path) -> list[Path]:
    """Checkpoints in a folder, but none that has a temporary name."""
    return [path for path in folder.glob("*.ckpt") if not path.name.startswith(".") and path.is_file()]


def stamp(path: Path) -> Stamp:
    """What changes when a file does."""
    found = os.stat(path)
    return path, found.st_mtime_ns, found.st_size
