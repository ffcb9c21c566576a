"""Reads foreign checkpoints: files, those in a folder, or the members of a zip file of folders.

Nothing in a file is imported or run: see ``zoo.utils.containers``. What it describes comes back as plain values,
tensors and ``Record``s; ``module_state`` makes a state dict of a recorded module.
"""

import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from zoo.utils.containers import Contents, damage_explained, members, read_file, torch_roots, unpacked
from zoo.utils.errors import UserError, missing_file, near
from zoo.utils.records import Record

MAX_DEPTH = 64  # of modules in modules
MAX_MODULES = 100_000  # a module that is found under several names counts several times
MAX_SETTINGS = 100_000


@dataclass(frozen=True)
class Place:
    """A file, or a member of a zip file of folders."""

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    @property
    def name(self) -> str:
        return Path(str(self)).name

    def beside(self, name: str) -> "Place | None":
        """The file of this name in the same folder, if there is one."""
        if not self.member:
            place = Place(self.path.with_name(name))
            return place if place.path.is_file() else None
        folder = self.member[: -len(self.name)]
        return next((p for p in places(self.path) if p.member == folder + name), None)

    def open(self) -> BinaryIO:
        if not self.member:
            return self.path.open("rb")
        with zipfile.ZipFile(self.path) as archive:
            members(archive, self.path.stat().st_size)
            return io.BytesIO(unpacked(archive, self.member))


def places(path: Path | str) -> list[Place]:
    """The files at a path: itself, those in a folder, or the members of a zip file of folders.

    ``download.zip/folder/file.pth`` is one member.

    Raises:
        FileNotFoundError: there is nothing.
        UserError: there is no such member, or the zip is damaged.
    """
    path = Path(path)
    if path.is_dir():
        return [Place(file) for file in sorted(path.rglob("*")) if file.is_file()]
    outer = next((parent for parent in path.parents if parent.is_file()), None)
    if outer is None and not path.is_file():
        raise FileNotFoundError(missing_file(path))
    archive = outer or path
    with archive.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if not is_zip:
        if outer is not None:
            raise UserError(f"{outer} is not a zip file, so there is no '{path.relative_to(outer)}' in it.")
        return [Place(path)]
    with damage_explained(archive), zipfile.ZipFile(archive) as opened:
        names = members(opened, archive.stat().st_size)
    if outer is not None:
        name = path.relative_to(outer).as_posix()
        if name not in names:
            raise UserError(f"There is no '{name}' in {outer}.{near(name, list(names))}")
        return [Place(outer, name)]
    if torch_roots(names):
        return [Place(path)]
    return [Place(path, name) for name in names if not name.endswith("/")]


def read(source: Place | Path | str) -> Contents:
    """Everything in one file.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is damaged, too large for its size, of an unknown kind, or something else: says what it seems.
    """
    if not isinstance(source, Place):
        found = places(source)
        if Path(source).is_dir() or len(found) != 1:
            names = ", ".join(str(place) for place in found[:5])
            raise UserError(f"{source} holds {len(found)} files, of which one is to be named: {names or 'none'}.")
        (source,) = found
    with damage_explained(source), source.open() as file:
        return read_file(file)


# Modules


def attributes(record: Record) -> dict[str, Any]:
    """What a recorded object had in its ``__dict__``; also where its class was stored with it, as StyleGAN does.

    Raises:
        UserError: it is no object with attributes.
    """
    state = record.state
    if state is None and record.args and isinstance(record.args[0], dict):
        state = record.args[0].get("state")
    if not isinstance(state, dict):
        raise UserError(f"The file's {record.name} is no object with attributes.")
    return state


def class_name(record: Record) -> str:
    """The name of a recorded object's class, without its module."""
    stored = record.args[0] if record.args and isinstance(record.args[0], dict) else {}
    return str(stored.get("class_name", record.name)).rsplit(".", 1)[-1]


def is_module(value: Any) -> bool:
    """Whether a value is the record of a torch module."""
    try:
        state = attributes(value) if isinstance(value, Record) else {}
    except ValueError:
        return False
    return all(isinstance(state.get(key), dict) for key in ("_parameters", "_modules"))


def modules(module: Record) -> Iterator[tuple[str, Record]]:
    """A recorded module and all modules in it, by dotted name, parents first, in the order of their definition.

    A module that has two names comes under both.

    Raises:
        UserError: something else stands where a module should, or they never end.
    """
    waiting = [("", module, 0)]
    for _ in range(MAX_MODULES):
        if not waiting:
            return
        name, record, depth = waiting.pop()
        if not is_module(record) or depth > MAX_DEPTH:
            raise UserError(f"The file's '{name}' is no module, or lies too deep in others.")
        yield name, record
        check_names(attributes(record)["_modules"])
        inner = [(f"{name}.{key}".lstrip("."), child) for key, child in attributes(record)["_modules"].items()]
        waiting += [(key, child, depth + 1) for key, child in reversed(inner) if child is not None]
    raise UserError(f"The file has more than {MAX_MODULES:,} modules.")


def module_state(module: Record) -> dict[str, Tensor]:
    """The state dict of a recorded module: parameters and persistent buffers by dotted name.

    Raises:
        UserError: it is no module, or one of its tensors is none.
    """
    state = {}
    for name, record in modules(module):
        own = attributes(record)
        passing = own.get("_non_persistent_buffers_set")
        passing = passing if isinstance(passing, (set, list)) else ()
        buffers = tensors_in(name, own.get("_buffers", {}))
        dropped = {f"{name}.{key}".lstrip(".") for key in passing if isinstance(key, str)}
        state |= tensors_in(name, own["_parameters"]) | {n: t for n, t in buffers.items() if n not in dropped}
    return state


def module_parameters(module: Record) -> dict[str, Tensor]:
    """The parameters of a recorded module in the order of ``module.parameters()``: tied ones once, the first name.

    Raises:
        UserError: as ``module_state``.
    """
    found: dict[int, tuple[str, Tensor]] = {}
    for name, record in modules(module):
        for full, value in tensors_in(name, attributes(record)["_parameters"]).items():
            found.setdefault(id(value), (full, value))
    return dict(found.values())


def tensors_in(prefix: str, values: Any) -> dict[str, Tensor]:
    """The tensors among a module's parameters or buffers, by dotted name; None is left out."""
    if not isinstance(values, dict):
        raise UserError(f"The file's module '{prefix}' has no list of tensors.")
    check_names(values)
    wrong = [key for key, value in values.items() if not isinstance(value, (Tensor, type(None)))]
    if wrong:
        raise UserError(f"The file's '{prefix}.{wrong[0]}' is not a tensor.")
    return {f"{prefix}.{key}".lstrip("."): value for key, value in values.items() if value is not None}


def check_names(values: dict) -> None:
    """Fail where a key is no name."""
    if not all(isinstance(key, str) and len(key) < 500 for key in values):
        raise UserError("The file's modules or tensors have names that are none.")


# Networks and settings, of whatever system


def networks(value: Any) -> dict[str, tuple[dict[str, Tensor], dict[str, Any]]]:
    """The networks in a file by name: state dict, and the arguments that they were built with, where it says so.

    A file is a network itself ("model"), or a dict of networks and other things.

    Raises:
        UserError: a network is damaged.
    """
    entries = {"model": value} if is_module(value) or not isinstance(value, dict) else value
    found = {}
    for name, entry in entries.items():
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]{1,100}", name):
            continue
        if is_module(entry):
            found[name] = (module_state(entry), settings(entry))
        elif isinstance(entry, dict) and entry and all(isinstance(tensor, Tensor) for tensor in entry.values()):
            found[name] = (tensors_in("", entry), {})
    return found


def settings(module: Record) -> dict[str, Any]:
    """The arguments of a module's constructor that were stored with it, as plain values, and its other attributes.

    StyleGAN's programs store them as ``_init_kwargs``; EG3D's ``rendering_kwargs`` are an attribute.
    """
    own = attributes(module)
    arguments = plain(own.get("_init_kwargs")) or {}
    rest = {name: plain(value) for name, value in own.items() if not name.startswith("_") and name != "training"}
    return {"arguments": arguments, "attributes": {name: value for name, value in rest.items() if value is not None}}


def plain(value: Any, depth: int = 0, budget: list[int] | None = None) -> Any:
    """Settings as plain values: numbers, text, lists and dicts; None for what is none.

    Nodes of OmegaConf become what they hold, and ``${a.b}`` in one the value at that place of the whole config.

    Raises:
        UserError: they are impossibly deep, or many.
    """
    budget = [MAX_SETTINGS] if budget is None else budget  # values that occur several times count each time
    budget[0] -= value.size if isinstance(value, np.ndarray) else 1
    if depth > MAX_DEPTH or budget[0] < 0:
        raise UserError("The file's settings lie too deep in others, or are too many.")
    if isinstance(value, Record) and value.name.startswith("omegaconf."):
        return plain(resolve_node(value), depth + 1, budget)
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, dict):
        return {str(plain(key, depth + 1)): plain(inner, depth + 1, budget) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner, depth + 1, budget) for inner in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else None


def resolve_node(node: Record) -> Any:
    """What a node of OmegaConf stands for: its value, or that of the place which it names."""
    for _ in range(MAX_DEPTH):
        state = node.state if isinstance(node.state, dict) else {}
        value = state.get("_content", state.get("_val"))
        place = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
        if place is None:
            return value
        for _ in range(MAX_DEPTH):
            above = node.state.get("_parent") if isinstance(node.state, dict) else None
            if not isinstance(above, Record):
                break
            node = above
        for key in place[1].split("."):
            entry = node.state.get("_content") if isinstance(node, Record) and isinstance(node.state, dict) else None
            node = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(node, Record):
            return value if node is None else node
    return None
