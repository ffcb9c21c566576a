"""The folder of downloaded bundles: in the cache folder ``weights/<name>``, each made in one step.

``downloads/<name>.json`` records the source, the date, and the sha256 that it must keep.
"""

import json
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zoo.utils.errors import UserError
from zoo.utils.files import locked, take_place
from zoo.utils.paths import cache_folder, is_cached
from zoo.weights.fetch import sha256_of

TENSORS, CONFIG = "model.safetensors", "config.yaml"  # of a bundle


def bundles_folder() -> Path:
    """The folder of bundles that were downloaded."""
    return cache_folder() / "weights"


def folder_of(name: str) -> Path:
    """The folder of a downloaded bundle."""
    return bundles_folder() / (name.replace("hf:", "hf--", 1).replace("/", "--") if name.startswith("hf:") else name)


def downloaded(name: str) -> Path | None:
    """The folder of a bundle that was downloaded; None where there is none."""
    folder = folder_of(name) if is_cached() else None
    return folder if folder and os.path.isfile(folder / TENSORS) else None


def record_of(folder: Path) -> Path:
    """What was noted about a bundle when it was downloaded."""
    return cache_folder() / "downloads" / f"{folder.name}.json"


def recorded(folder: Path) -> dict[str, Any] | None:
    """See ``record_of``; None where nothing was.

    Raises:
        UserError: the record is damaged.
    """
    record = record_of(folder)
    if not record.is_file():
        return None
    try:
        known = json.loads(record.read_text())
        return {name: str(known[name]) for name in ("name", "date", "sha256", "bundle_sha256")}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{record} is damaged: delete it and {folder}, and download the weights again.") from None


def check_unchanged(folder: Path, sha256: str) -> None:
    """Fail if the weights of a downloaded bundle have changed."""
    known = recorded(folder) if is_cached() and folder.parent == bundles_folder() else None
    if known and known["bundle_sha256"] != sha256:
        raise UserError(
            f"The weights in {folder} have changed since their download on {known['date']}: delete the folder and run "
            f"'zoo download {known['name']}'."
        )


def keep(name: str, make: Callable[[Path], dict[str, Any]]) -> Path:
    """The folder of a bundle; if it is missing, ``make`` writes it and returns the record.

    Of several processes that want it at once one makes it.

    Raises:
        ValueError: it has changed since its download.
    """
    folder = folder_of(name)
    bundles_folder().mkdir(parents=True, exist_ok=True)
    with locked(bundles_folder() / f".{folder.name}.lock", f"Waiting for another process that fetches {name}."):
        if (folder / TENSORS).is_file():
            check_unchanged(folder, sha256_of(folder / TENSORS))
            return folder
        with TemporaryDirectory(prefix=".making-", dir=bundles_folder()) as place:
            made, note, record = Path(place) / folder.name, Path(place) / "record.json", record_of(folder)
            about = {"name": name, "date": date.today().isoformat()} | make(made)
            note.write_text(json.dumps(about | {"bundle_sha256": sha256_of(made / TENSORS)}, indent=1))
            record.parent.mkdir(parents=True, exist_ok=True)
            os.replace(made, folder)
            take_place(note, record)
    return folder
