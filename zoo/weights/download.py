"""``zoo download``: a published checkpoint by its name, fetched, checked, converted and kept.

The cache folder holds the original file, ``downloads/<name>/<file>``, and the bundle (see ``zoo.weights.store``). A
later download of this name must have the sha256 of the first.
"""

import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub import get_hf_file_metadata

from zoo.utils.containers import check_whole
from zoo.utils.errors import UserError, near
from zoo.utils.paths import bundled_names, cache_folder
from zoo.weights.catalogue import NO_LICENCE, Address, Released, released
from zoo.weights.convert import convert
from zoo.weights.fetch import NotFetched, direct, fetch, is_offline, md5_of, sha256_of
from zoo.weights.find import find
from zoo.weights.hub import REPOSITORY, pull
from zoo.weights.store import folder_of, keep, record_of, recorded


def download(name: str, from_file: Path | None = None, rest: bool = True) -> Path:
    """The folder of the bundle of this name, fetched and converted where it is not there yet.

    Args:
        name: of a published checkpoint, of a bundle that comes with the package, or ``hf:user/repository[@revision]``.
        from_file: the file, downloaded by hand.
        rest: as ``zoo.weights.convert.convert``.

    Raises:
        NotFetched: no address gave the file.
        UserError: there is no such name, or the file is another one or damaged; the message says what to do.
    """
    if from_file and (name.startswith("hf:") or name in bundled_names()):
        raise UserError(f"--from is for files of published checkpoints, and {name} is a bundle: use its folder.")
    if name.startswith("hf:"):
        return pull(name)
    if name in bundled_names():
        return find(name)
    if name not in released():
        of_hub = f" For a repository of the Hub, write hf:{name}." if re.fullmatch(REPOSITORY, name) else ""
        hint = near(name, [*released(), *bundled_names()]) or of_hub or " 'zoo list' shows all names."
        raise UserError(f"There is no checkpoint named '{name}'.{hint}")
    entry = released()[name]

    def make(folder: Path) -> dict[str, Any]:
        file, sha256 = file_of(entry, from_file)
        options = {"rest": rest, "inside": entry.inside} | card_of(entry)
        try:
            if not entry.sha256:  # nothing else tells that it came whole
                check_whole(file)
            done, _ = convert(file, folder, entry.system, entry.config, **options)
        except ValueError:
            if from_file is None and not entry.sha256 and not record_of(folder).is_file():
                file.unlink()  # there is no hash to confirm it
            raise
        return {"sha256": sha256, "from": str(from_file or entry.addresses[0].url), "used": done.used}

    return keep(name, make)


def file_of(entry: Released, from_file: Path | None) -> tuple[Path, str]:
    """The file of a published checkpoint, downloaded here or by the user, and its sha256."""
    path = from_file or cache_folder() / "downloads" / entry.name / entry.file
    if from_file is None:
        terms = entry.weights_licence or NO_LICENCE
        print(f"Licence of the weights: {terms}. Of the images: {entry.data_licence or 'not stated'}.", file=sys.stderr)
        stated = entry.sha256 or ("" if path.exists() else hub_sha256(entry.addresses))
        try:
            sha256 = fetch(entry.addresses, path, stated)
        except NotFetched as error:
            raise NotFetched(f"{error} Then: zoo download {entry.name} --from FILE") from None
    elif not path.is_file():
        raise FileNotFoundError(f"There is no file '{path}'.")
    elif not (sha256 := sha256_of(path)).startswith(entry.sha256):
        raise UserError(
            f"{path} has sha256 {sha256}, but that of {entry.file} begins with {entry.sha256}: fetch it again."
        )
    if entry.md5 and (md5 := md5_of(path)) != entry.md5:
        if from_file is None:
            path.unlink()
        raise UserError(f"{path} has MD5 {md5}, but that of {entry.file} is {entry.md5}: fetch it again.")
    record = record_of(folder_of(entry.name))
    known = recorded(folder_of(entry.name))
    if known and known["sha256"] != sha256:
        raise UserError(
            f"{path} has sha256 {sha256[:12]}..., but the download of {known['date']} had {known['sha256'][:12]}...: "
            f"delete the file and fetch it again, or, if its authors have replaced it, delete {record}, too."
        )
    return path, sha256


def hub_sha256(addresses: tuple[Address, ...]) -> str:
    """The sha256 that the Hub states for a file, which its own library does not check; nothing for other hosts."""
    if addresses[0].kind != "hub" or is_offline():
        return ""
    with suppress(Exception):  # of whatever transport its library has; fetching says what is wrong
        tag = get_hf_file_metadata(direct(addresses[0])).etag or ""
        return tag if len(tag) == 64 else ""
    return ""


def card_of(entry: Released) -> dict[str, Any]:
    """The model card of a published checkpoint."""
    return {
        "license": entry.weights_licence or NO_LICENCE,
        "licence_of_the_images": entry.data_licence or "not stated",
        "published_at": entry.addresses[0].url,
        "paper": entry.paper,
        "published_FID": f"{entry.fid.fid:g}: {entry.fid.protocol} ({entry.fid.source})" if entry.fid else None,
        "note": entry.note or None,
        "made_with": f"zoo download {entry.name}",
    }
