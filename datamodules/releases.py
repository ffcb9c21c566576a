"""Data sets as they were released: which files are their images, which belong to a split, what a wrong tree looks like.

A path may be the released folder, a zip of it, or the folder of images in it. Nothing is opened before the first use.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from zoo.utils.errors import UserError, WrongTree
from zoo.utils.image_folders import Layout
from zoo.utils.listed_files import Container, container_of, text
from zoo.utils.paths import is_image

Split = Literal["train", "test", "all"]
Choose = Callable[[Container, list[str], list[str], str], list[str]]  # of all names and images those of a split
Narrow = Callable[[Container, list[str], list[str]], list[str]]
ANY = ".*"


@dataclass(frozen=True)
class Release:
    """What a data set looks like.

    Args:
        title: its name, for sentences.
        url: where it is from.
        tree: its files, one a line.
        images: regular expressions of the images' names; the first that fits any of the files is taken.
        choose: those images that belong to a split, of the container, all names, the images' names and the split.
        is_image: whether a file of this name is an image.
    """

    title: str
    url: str
    tree: str
    images: tuple[str, ...] = (ANY,)
    choose: Choose | None = None
    is_image: Callable[[str], bool] = is_image

    def layout(
        self,
        split: str = "all",
        container: Callable[[Path], Container] = container_of,
        also: Narrow | None = None,
        **parts: Any,
    ) -> Layout:
        """How its images are read.

        Args:
            split: which of them.
            container: what reads a path.
            also: those of a split's images that can be used.
            parts: as of ``Layout``.
        """
        keep = partial(self.keep, split, also)
        return Layout(container=partial(self.open, container), keep=keep, split=split, **parts)

    def open(self, container: Callable[[Path], Container], path: Path) -> Container:
        """What is at the path.

        Raises:
            WrongTree: nothing is.
        """
        if not path.exists():
            raise self.refusal(path, f"There is no folder or zip file '{text(path)}' with {self.title}", [])
        return container(path)

    def keep(self, split: str, also: Narrow | None, container: Container, names: list[str]) -> list[str]:
        """The images of a split that can be used.

        Raises:
            WrongTree: there are none.
        """
        images = [name for name in names if self.is_image(name)]
        kept = next((fitting for pattern in self.images if (fitting := matching(pattern, images))), [])
        if split != "all" and self.choose is not None:
            kept = self.choose(container, names, kept, split)
        if also is not None:
            kept = also(container, names, kept)
        if not kept:
            part = "" if split == "all" or self.choose is None else f"the {split} split of "
            what = f"'{text(container.path)}' does not hold {part}{self.title} as it is released"
            raise self.refusal(container.path, what, names)
        return kept

    def refusal(self, path: Path, what: str, names: list[str]) -> WrongTree:
        """A sentence, and below it the expected tree beside the one that was found."""
        left, right = ["expected", *self.tree.strip().splitlines()], [f"found in '{text(path, 60)}'", *outline(names)]
        width = max(map(len, left)) + 3
        lines = [f"  {one:{width}}{other}".rstrip() for one, other in zip_longest(left, right, fillvalue="")]
        return WrongTree("\n".join([f"{what}: get it from {self.url}, and let --data.path lead to it.", *lines]))


def matching(pattern: str, names: list[str]) -> list[str]:
    fits = re.compile(pattern).fullmatch
    return [name for name in names if fits(name)]


def outline(names: list[str], most: int = 8) -> Iterator[str]:
    """One file of each folder, and how many more there are."""
    if not names:
        yield "nothing"
    counts = Counter(str(PurePosixPath(name).parent) for name in names)
    first = {str(PurePosixPath(name).parent): name for name in reversed(names)}
    for folder in sorted(counts)[:most]:
        others = f" and {counts[folder] - 1:,} more" if counts[folder] > 1 else ""
        yield f"{text(first[folder], 60)}{others}"
    if len(counts) > most:
        yield f"... and {len(counts) - most:,} more folders"


# --------------------------------------------------------------------------------------------------- files of lists


def lines_of(container: Container, names: list[str], name: str, folders: tuple[str, ...] = ()) -> list[str]:
    """Lines of a file that belongs to a data set: within it, beside its images or in one of these folders beside them.

    Empty where there is no such file.
    """
    found = [inner for inner in names if f"/{inner}".endswith(f"/{name}")]
    if found:
        return container.read(min(found, key=len)).decode("utf-8", "replace").splitlines()
    beside = list(container.path.absolute().parents)[:2]
    for path in [around / folder / name for around in beside for folder in ("", *folders)]:
        with suppress(OSError):
            return path.read_text("utf-8", "replace").splitlines()
    return []


def in_folder(
    folders: dict[str, tuple[str, ...]], container: Container, names: list[str], images: list[str], split: str
) -> list[str]:
    """Images of a split that lies in a folder of its own; ``folders`` are the names that it may have, by split."""
    every = {folder for several in folders.values() for folder in several}
    if any(every & set(PurePosixPath(name).parts[:-1]) for name in images):
        return [name for name in images if set(folders[split]) & set(PurePosixPath(name).parts[:-1])]
    ours = container.path.absolute().parts[-2:]  # the path itself may be that folder, or one in it
    return images if set(folders[split]) & {PurePosixPath(part).stem for part in ours} else []


def numbered(
    train: range, test: range, container: Container, names: list[str], images: list[str], split: str
) -> list[str]:
    """Images of a split whose names end in numbers of these ranges.

    Raises:
        UserError: there are larger numbers, so these are others, as of EG3D's zip, in which each image is there twice.
    """
    found = [(name, int(number[1])) for name in images if (number := re.search(r"(\d+)\.\w+$", name))]
    if found and (last := max(number for _, number in found)) >= test.stop:
        raise UserError(
            f"'{text(container.path, 80)}' has an image {last}, so its numbers are not those of the release, which end "
            f"at {test.stop - 1}, and do not tell the {split} split: take --data.split all."
        )
    wanted = train if split == "train" else test
    return [name for name, number in found if number in wanted]
