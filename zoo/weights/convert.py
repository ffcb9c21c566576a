"""Published checkpoints into weights bundles: which system they are of, and what is written.

Each module ``zoo.weights.<system>`` that can convert has the same functions:

* ``part(contents)``: what a file is of its system: "generator", another word, or None for nothing of it;
* ``experiments(contents)``: names of the published experiments that the file may come from, one of which gives what it
  does not hold; None where it holds everything;
* ``convert(place, contents, experiment, weights)``: the network, as ``Converted``;
* optionally ``all_weights(place, contents)``: everything that this makes of a generator's file and those beside it: by
  name, what it takes;
* optionally ``official(parts)``: the way back: files of the published program, by name, for the parts of a bundle;
* optionally ``choose(places)``: which one of several generators in a folder is meant, or None.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, NamedTuple

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.utils.errors import near
from zoo.utils.paths import read_experiment, system_names
from zoo.weights.bundle import find, read_parts, save_bundle, save_part
from zoo.weights.pickles import Name, Record
from zoo.weights.read import Contents, Place, networks, places, read

SUFFIXES = (".pth", ".pt", ".pkl", ".pickle", ".tar", ".ckpt")  # of checkpoints, in a folder of many files


class Converted(NamedTuple):
    """What a checkpoint was turned into.

    network: with its weights.
    config: ``class_path`` and ``init_args`` that build it.
    unused: published tensors that it never reads, under ``unused.<published name>``.
    card: facts for the model card, among them which ``weights`` they are.
    used: the files and averages that were used, in words.
    """

    network: nn.Module
    config: dict[str, Any]
    unused: dict[str, Tensor]
    card: dict[str, Any]
    used: str


def systems() -> dict[str, ModuleType]:
    """The modules that can convert, by system."""
    return {name: import_module(f"zoo.{name}.convert") for name in system_names()}


def convert(
    path: Path | str,
    out: Path | str,
    system: str | None = None,
    experiment: str | None = None,
    weights: str | None = None,
    rest: bool = True,
    inside: str = "",
    **card: Any,
) -> tuple[Converted, Contents]:
    """Write a published checkpoint as a bundle; nothing is written where something is wrong.

    Args:
        path: a file, a folder or zip with one generator in it, or ``download.zip/folder/file.pth``.
        out: the bundle's folder.
        system: name of a module that can convert; by default the one that knows the file.
        experiment: what gives cameras, depths and samples where the file does not; by default the only published one.
        weights: which of the file's weights; by default those that the paper's pictures come from.
        rest: whether to write the others, too, and the discriminator, where they are there.
        inside: part of the path of the one that is meant, where there are several.
        card: more facts for the model card.

    Raises:
        FileNotFoundError: there is no such file or experiment.
        ValueError: the file is damaged, of no system, or leaves a choice; says what to do.
    """
    known = systems()
    if system is not None and system not in known:
        raise ValueError(f"'{system}' has no converter: {', '.join(known)}.{near(system, list(known))}")
    name, place, contents = recognised(path, {system: known[system]} if system else known, inside)
    module = known[name]
    choices = module.experiments(contents)
    if experiment is None and choices is not None and len(choices) != 1:
        which = f"It may come from {' or '.join(choices)}" if choices else "It comes from no published experiment"
        raise ValueError(
            f"{place} does not hold its cameras, depths and numbers of samples: an experiment does. {which}: say which "
            "with --experiment NAME; 'zoo list' shows the names."
        )
    experiment = experiment or (choices[0] if choices else None)
    generator = generator_of(experiment) if experiment else None
    converted = module.convert(place, contents, generator, weights)
    others = {}
    if rest and module.part(contents) == "generator" and hasattr(module, "all_weights"):
        found = module.all_weights(place, contents)
        others = {
            key: module.convert(where, held, generator, which)
            for key, (where, held, which) in found.items()
            if key != converted.card.get("weights")
        }
    with place.open() as file:
        source = hashlib.file_digest(file, "sha256").hexdigest()
    made_with = f"zoo convert {place.name} OUT" + (f" --experiment {experiment}" if experiment else "")
    facts = {"experiment": experiment, "source_sha256": source, "made_with": made_with} | card
    with new_folder(Path(out)) as folder:
        save_bundle(
            folder,
            converted.network,
            converted.config,
            converted.unused,
            **(converted.card | {"converted_from": converted.used} | facts),
        )
        for key, other in others.items():
            about = other.card | {"converted_from": other.used} | facts
            save_part(folder, key, other.network, other.config, other.unused, **about)
    return converted, contents


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder of the same name to write into, whose files are moved to ``out`` in the end, if nothing went wrong."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".making-", dir=out.parent) as place:
        folder = Path(place) / out.resolve().name
        yield folder
        out.mkdir(exist_ok=True)
        for file in folder.iterdir():
            os.replace(file, out / file.name)


def to_official(source: Path | str, out: Path | str) -> list[Path]:
    """Write the networks of a bundle as files of the published program: state dicts of the same tensors.

    Raises:
        ValueError: there is no such bundle, or its system or network has no published counterpart.
    """
    folder = find(source)
    if folder.is_file():
        raise ValueError(f"{folder} is a checkpoint; 'zoo bundle' makes a bundle of it.")
    parts, known = read_parts(folder), systems()
    name = next(iter(parts.values()))[0]["class_path"].split(".")[1:2]
    back = {system: module for system, module in known.items() if hasattr(module, "official")}
    if not name or name[0] not in back:
        raise ValueError(f"{source} is of no system that has a way back: {', '.join(back)}.")
    try:
        files = back[name[0]].official(parts)
    except KeyError as error:
        raise ValueError(f"{source} has no published counterpart: {error.args[0]}") from None
    Path(out).mkdir(parents=True, exist_ok=True)
    for file, value in files.items():
        torch.save(value, Path(out) / file)
    return [Path(out) / file for file in files]


def generator_of(experiment: str) -> dict[str, Any]:
    """``class_path`` and ``init_args`` of an experiment's generator.

    Raises:
        FileNotFoundError: there is no such experiment.
        ValueError: the file is none.
    """
    try:
        return read_experiment(experiment)["model"]["init_args"]["generator"]
    except (KeyError, TypeError):
        raise ValueError(f"{experiment} is no experiment: it has no model with a generator.") from None


def recognised(path: Path | str, known: dict[str, ModuleType], inside: str = "") -> tuple[str, Place, Contents]:
    """The one checkpoint at a path, and the system that knows it.

    Args:
        inside: part of the path of the one that is meant, where there are several.

    Raises:
        ValueError: there is none, or several.
    """
    here = places(path)
    alone = len(here) == 1
    if not alone:
        here = [p for p in here if p.name.endswith(SUFFIXES) and not p.name.startswith("._")]
        here = [p for p in here if inside in str(p)] or here
    read_here = [(place, read(place)) for place in here]
    parts = [(name, place, found, module.part(found)) for place, found in read_here for name, module in known.items()]
    found = [
        (name, place, contents) for name, place, contents, part in parts if part and (alone or part == "generator")
    ]
    if len(found) > 1 and len({name for name, _, _ in found}) == 1 and hasattr(known[found[0][0]], "choose"):
        meant = known[found[0][0]].choose([place for _, place, _ in found])
        found = [entry for entry in found if meant in (None, entry[1])]
    if len(found) == 1:
        return found[0]
    if not found and alone:
        raise ValueError(
            f"{here[0]} is of no system with a converter ({', '.join(known)}). {described(read_here[0][1])} "
            "--system tensors writes tensors and settings alone."
        )
    if not found:
        names = ", ".join(str(place) for place in here[:8]) or "no checkpoint"
        raise ValueError(f"{path} holds no generator of a system with a converter ({', '.join(known)}), but: {names}.")
    if alone:
        names = " or ".join(name for name, _, _ in found)
        raise ValueError(f"{path} may be of several systems: say --system {names}.")
    raise ValueError(f"{path} holds several generators; name one: {', '.join(str(place) for _, place, _ in found)}.")


def described(contents: Contents) -> str:
    """What a file holds, for somebody who expected something else."""
    value = contents.value
    match value:
        case Record() | Name():
            what = f"an object of {value.name}"
        case dict():
            keys = [str(key) if isinstance(key, (str, int)) else type(key).__name__ for key in list(value)[:8]]
            what = f"{len(value)} entries ({', '.join(keys)}{', ...' if len(value) > 8 else ''})"
        case _:
            what = f"a {type(value).__name__}"
    names = f"; it asks for {', '.join(contents.names[:12])}" if contents.names else ""
    return f"It holds {what}{names}."


def save_tensors(path: Path | str, out: Path | str) -> Contents:
    """Write tensors and settings of whatever networks a file holds, for systems that are not here.

    Each network becomes ``<name>.safetensors``, and what it was built with, where the file says so, ``<name>.yaml``.

    Raises:
        ValueError: there are no networks in it.
    """
    contents = read(path)
    found = networks(contents.value)
    if not found:
        raise ValueError(f"{path} holds no networks. {described(contents)}")
    with new_folder(Path(out)) as folder:
        folder.mkdir()
        for name, (state, settings) in found.items():
            tensors = {key: tensor.detach().clone().contiguous() for key, tensor in state.items()}
            save_file(tensors, folder / f"{name}.safetensors")
            if settings:
                (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return contents
