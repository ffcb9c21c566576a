"""Classes of images: those of StyleGAN's dataset.json, or the subfolders that they are in."""

import json
from collections.abc import Sequence

from zoo.utils.errors import UserError
from zoo.utils.image_folders import BROKEN, LABEL
from zoo.utils.listed_files import Container

MOST = 2**31  # a larger number is no class


def find_labels(container: Container, names: Sequence[str]) -> list[int] | None:
    """The class of each image, from 0; None where there are no classes.

    Args:
        container: a folder or zip, or what has their methods.
        names: of its images.
    """
    return listed_labels(container, names) or subfolder_labels(names)


def listed_labels(container: Container, names: Sequence[str]) -> list[int] | None:
    """Whole numbers in ``dataset.json``, {"labels": [[name, class], ...]}; None unless there is one for each image."""
    try:
        if (first := LABEL.search(container.head("dataset.json"))) and first[1].startswith(b"["):
            return None  # cameras, of which there may be many
        labels = dict(json.loads(container.read("dataset.json"))["labels"])
    except (*BROKEN, UserError, TypeError, RecursionError):  # there is none, or no such list in it
        return None
    found = [labels.get(name) for name in names]
    return found if all(type(label) is int and 0 <= label < MOST for label in found) else None


def subfolder_labels(names: Sequence[str]) -> list[int] | None:
    """The number of each image's outermost folder among all of them in order; None unless all are in two or more."""
    folders = [name.rpartition("/")[0].partition("/")[0] for name in names]
    classes = {folder: number for number, folder in enumerate(sorted(set(folders)))}
    return [classes[folder] for folder in folders] if "" not in classes and len(classes) > 1 else None
