"""The catalogue of published checkpoints: addresses, licences and scores by name.

Each system's ``released.py`` holds its table, ``RELEASED``; nothing here loads torch, so that names come at once. Only
addresses are kept: most licences forbid redistribution. Names are ``<system>-<dataset>-<resolution>.official``.

What a repository or paper does not state, and what nobody could check, is None.
"""

from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from typing import Any

from zoo.utils.paths import system_names

# Licences that several have
MIT = "MIT (the repository's; none is stated for the weights alone)"
NO_LICENCE = "no licence is stated, so all rights are reserved"
CELEBA = "CelebA: research that is not commercial"
FFHQ = "FFHQ: CC BY-NC-SA 4.0, images have licences of their own"


@dataclass(frozen=True)
class Address:
    """The address of a file.

    kind: of host: "s3", "github", "hub", "drive" (Google), "dropbox", or "web" for any other.
    url: as its authors publish it.
    """

    kind: str
    url: str


@dataclass(frozen=True)
class Score:
    """A published FID of these weights, or of the paper's. Only numbers that were checked are here.

    fid: the number.
    protocol: how it was measured; numbers of different protocols say nothing about each other.
    source: where it is stated, in short.
    """

    fid: float
    protocol: str
    source: str


@dataclass(frozen=True)
class Released:
    """One published checkpoint.

    name: as typed.
    config: the experiment that gives what the file does not hold.
    paper: its address.
    file: name of the download.
    addresses: mirrors, in the order in which they are tried.
    weights_licence, data_licence: None where none is stated.
    sha256: its beginning, where it is published.
    md5: where that is published instead.
    size: of the download, roughly [MB, millions of bytes], where it is stated.
    inside: part of the path of the one that is meant, in a zip that may hold several.
    fid: None where none was published, or none that could be checked.
    note: what else there is to know.
    """

    name: str
    config: str
    paper: str
    file: str
    addresses: tuple[Address, ...]
    weights_licence: str | None
    data_licence: str | None
    sha256: str = ""
    md5: str = ""
    size: float | None = None
    inside: str = ""
    fid: Score | None = None
    note: str = ""

    @property
    def system(self) -> str:
        return self.config.split("/")[0]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"system": self.system} | asdict(self)


def row(system: str, name: str, config: str, kind: str, url: str, file: str = "", **more: Any) -> Released:
    """A row of a system's table; the file is called as in its address by default."""
    file = file or url.split("/")[-1]
    return Released(
        f"{system}-{name}.official", f"{system}/{config}", file=file, addresses=(Address(kind, url),), **more
    )


@cache
def released() -> dict[str, Released]:
    """All published checkpoints, by name."""
    tables = [import_module(f"zoo.{system}.released").RELEASED for system in system_names()]
    return {entry.name: entry for table in tables for entry in table}
