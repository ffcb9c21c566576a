"""Converts published checkpoints to weights bundles, and back; the interface of every system's converter.

A converter is ``zoo/<system>/convert.py``, found by the name of the package. Each has:

* ``NAME``: the system's, for model cards;
* ``WEIGHTS``: the networks that a checkpoint may hold, the preferred first, and their place: a file or an entry;
* ``table(network)``: the names of a network's tensors, ours and published;
* ``part(contents)``: the part of the system that a file holds: "generator", another word, or None if there is none;
* ``experiments(contents)``: names of the published experiments that a generator's file may come from, one of which
  gives what it does not hold; None where it holds everything;
* ``published(place, contents, weights)``: one of the networks, as ``Published``; None where it is not there; raises
  ``NotBuilt`` where a network is there that could not be built;
* ``config(published, weights, experiment)``: ``class_path`` and ``init_args`` that build it; ``experiment`` is the
  config of an experiment's generator;
* ``official(networks, card)``: the inverse: files of the published program, by name, for published state dicts.

The functions raise UserError for what cannot be translated.
"""

import hashlib
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.training.checkpoint_files import is_run
from zoo.utils.errors import UserError, near
from zoo.utils.files import replacing, replacing_files
from zoo.utils.paths import bundled_names, downloaded_names, read_experiment, system_names
from zoo.utils.records import Name, Record
from zoo.weights.bundle import UNUSED, read_parts, save_bundle, save_part
from zoo.weights.find import find
from zoo.weights.names import load_published, to_published
from zoo.weights.read import Contents, Place, attributes, class_name, is_module, networks, places, read
from zoo.weights.store import CONFIG, TENSORS

SUFFIXES = (".pth", ".pt", ".pkl", ".pickle", ".tar", ".ckpt", ".safetensors")  # of checkpoints in a folder of files


class Published(NamedTuple):
    """One network of a published checkpoint.

    state: its tensors, under their published names.
    used: the files and EMAs that they are of, in words.
    card: more facts, such as ``iterations``.
    settings: what it was built with, where the file says so.
    complete: whether the network reads every tensor, so that one more is an error.
    """

    state: dict[str, Tensor]
    used: str
    card: dict[str, Any]
    settings: Any = None
    complete: bool = False


class Converted(NamedTuple):
    """A converted network.

    network: with its weights.
    config: ``class_path`` and ``init_args`` that build it.
    unused: published tensors that it never reads, under ``unused.<published name>``.
    card: facts for the model card, among them which ``weights`` they are.
    used: the files and EMAs that were used, in words.
    """

    network: nn.Module
    config: dict[str, Any]
    unused: dict[str, Tensor]
    card: dict[str, Any]
    used: str


class NotBuilt(UserError):
    """A network is there, but not how it was built."""


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
        system: name of a module that can convert; by default the one that recognises the file.
        experiment: what gives cameras, depths and samples where the file does not; by default the only published one.
        weights: which of the file's weights; by default those that the paper's images come from.
        rest: whether to write the other weights and the discriminator, too, if the file has them.
        inside: part of the path of the one that is meant, where there are several.
        card: more facts for the model card.

    Raises:
        FileNotFoundError: there is no such file or experiment.
        UserError: the file is damaged, of no system, or ambiguous; the message says what to do.
    """
    known = systems()
    if system is not None and system not in known:
        raise UserError(f"'{system}' has no converter: {', '.join(known)}.{near(system, list(known))}")
    check_foreign(path)
    name, place, contents = recognise(path, {system: known[system]} if system else known, inside)
    module = known[name]
    choices = module.experiments(contents)
    if experiment is None and choices is not None and len(choices) != 1:
        which = f"It may come from {' or '.join(choices)}" if choices else "It comes from no published experiment"
        raise UserError(
            f"{place} does not hold its cameras, depths and numbers of samples: an experiment does. {which}: name it "
            "with --experiment NAME; 'zoo list' shows the names."
        )
    experiment = experiment or (choices[0] if choices else None)
    generator = generator_of(experiment) if experiment else None
    done = convert_network(module, place, contents, generator, weights)
    names = module.WEIGHTS if rest and module.part(contents) == "generator" else ()
    others, left_out = {}, []
    for key in names:
        try:
            if key != done.card["weights"] and (other := network_of(module, place, contents, generator, key)):
                others[key] = other
        except NotBuilt as error:
            left_out.append(str(error).removesuffix("."))
    with place.open() as file:
        source = hashlib.file_digest(file, "sha256").hexdigest()
    made_with = f"zoo convert {place.name} OUT" + (f" --experiment {experiment}" if experiment else "")
    facts = {"experiment": experiment, "source_sha256": source, "made_with": made_with} | card
    with replacing_files(out) as folder:
        save_bundle(folder, done.network, done.config, done.unused, **done.card | facts)
        for name, other in others.items():
            save_part(folder, name, other.network, other.config, other.unused, **other.card | facts)
    return done._replace(used="; left out: ".join([done.used, *left_out])), contents


def convert_network(
    module: ModuleType,
    place: Place,
    contents: Contents,
    experiment: dict[str, Any] | None = None,
    weights: str | None = None,
) -> Converted:
    """One network of a checkpoint: that of these weights, by default the first that is there.

    Args:
        module: the converter.
        place: of the file; others are looked for beside it.
        contents: of the file.
        experiment: config of its generator, which gives what the file does not hold.
        weights: a name in ``WEIGHTS``.

    Raises:
        UserError: there are no such weights, or they do not fit what the file or the experiment says.
    """
    if weights not in (None, *module.WEIGHTS):
        raise UserError(f"There are no weights '{weights}': {', '.join(module.WEIGHTS)}.")
    for name in [weights] if weights else module.WEIGHTS:
        if found := network_of(module, place, contents, experiment, name):
            return found
    there = []
    for name in module.WEIGHTS:
        with suppress(NotBuilt):
            there += [name] if module.published(place, contents, name) else []
    raise UserError(
        f"{place} has no weights '{weights}': there is no {module.WEIGHTS[weights]} in or beside it; --weights can be "
        f"{', '.join(there)}."
    )


def network_of(
    module: ModuleType, place: Place, contents: Contents, experiment: dict[str, Any] | None, weights: str
) -> Converted | None:
    """See ``convert_network``; None where these weights are not there."""
    published = module.published(place, contents, weights)
    if published is None:
        return None
    system = module.__name__.split(".")[1]
    if weights != "discriminator" and module.experiments(contents) is not None:
        kind = (experiment or {}).get("class_path")
        if kind != f"zoo.{system}.Generator":
            raise UserError(f"{place} is of {system}, and the experiment is of another system: {kind}.")
    config = module.config(published, weights, experiment)
    network, unused = load_published(config, published.state, module.table, place)
    if unused and published.complete:
        raise UserError(f"{place} holds what no such network has: {min(unused).removeprefix(UNUSED)} is unexpected.")
    card = {"system": module.NAME, "weights": weights} | published.card | {"converted_from": published.used}
    return Converted(network, config, unused, card, published.used)


def to_official(source: Path | str, out: Path | str) -> list[Path]:
    """Write the networks of a bundle as files of the published program: state dicts of the same tensors.

    Raises:
        UserError: there is no such bundle, or its system or network has no published counterpart.
    """
    folder = find(source)
    if folder.is_file():
        raise UserError(f"{folder} is a checkpoint; 'zoo bundle' makes a bundle of it.")
    parts, known = read_parts(folder), systems()
    (first, _, card), *_ = parts.values()
    system = type(first).__module__.split(".")[1]
    if system not in known:
        raise UserError(f"{source} is of no system that can be converted back: {', '.join(known)}.")
    module, networks = known[system], {}
    try:
        for name, (network, tensors, _) in parts.items():
            networks[name] = to_published(tensors, module.table(network))
        files = module.official(networks, card)
    except KeyError as error:
        raise UserError(f"{source} has no published counterpart: {error.args[0]}") from None
    for file, value in files.items():
        with replacing(Path(out) / file) as part, open(part, "wb") as opened:
            torch.save(value, opened)
    return [Path(out) / file for file in files]


def generator_of(experiment: str) -> dict[str, Any]:
    """``class_path`` and ``init_args`` of an experiment's generator, or of a bundle's in its ``config.yaml``.

    Raises:
        FileNotFoundError: there is no such experiment.
        UserError: the file is none.
    """
    try:
        config = read_experiment(experiment)
        return config if "class_path" in config else config["model"]["init_args"]["generator"]
    except (KeyError, TypeError):
        raise UserError(f"{experiment} is no experiment: it has no model with a generator.") from None


def recognise(path: Path | str, known: dict[str, ModuleType], inside: str = "") -> tuple[str, Place, Contents]:
    """The one checkpoint at a path, and the system that recognises it.

    Args:
        inside: part of the path of the one that is meant, where there are several.

    Raises:
        UserError: there is none, or several.
    """
    here = places(path)
    alone = len(here) == 1
    if not alone:
        here = [p for p in here if p.name.endswith(SUFFIXES) and not p.name.startswith("._")]
        here = [p for p in here if inside in str(p)] or here
    read_here = [(place, simplify(read(place))) for place in here]
    if alone and is_run(read_here[0][1].value):
        raise UserError(f"{here[0]} is a checkpoint of a run here: 'zoo bundle {here[0]} OUT' makes a bundle of it.")
    parts = [(name, place, found, module.part(found)) for place, found in read_here for name, module in known.items()]
    found = [
        (name, place, contents) for name, place, contents, part in parts if part and (alone or part == "generator")
    ]
    if len({name for name, _, _ in found}) == 1:  # raw and averaged generators of a run
        files, names = list(known[found[0][0]].WEIGHTS.values()), [place.name for _, place, _ in found]
        if len(set(names)) == len(names) and set(names) <= set(files):
            found = [min(found, key=lambda entry: files.index(entry[1].name))]
    if len(found) == 1:
        return found[0]
    if not found and alone:
        raise UserError(
            f"{here[0]} is of no known system ({', '.join(known)}). {describe(read_here[0][1])} "
            "--system tensors writes tensors and settings only."
        )
    if not found:
        names = ", ".join(str(place) for place in here[:8]) or "no checkpoint"
        raise UserError(f"{path} holds no generator of a known system ({', '.join(known)}), but: {names}.")
    if alone:
        names = " or ".join(name for name, _, _ in found)
        raise UserError(f"{path} may be of several systems: give --system {names}.")
    raise UserError(f"{path} holds several generators; name one: {', '.join(str(place) for _, place, _ in found)}.")


def check_foreign(path: Path | str) -> None:
    """Fail where something is a bundle of ours, which needs no conversion."""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    is_ours = (folder / TENSORS).is_file() and (folder / CONFIG).is_file() and Path(path).suffix != ".ckpt"
    if is_ours or (not Path(path).exists() and str(path) in (*bundled_names(), *downloaded_names())):
        raise UserError(
            f"{path} is a weights bundle already: use it by its name or folder. 'zoo convert ... --to official' writes "
            "it as files of the published program."
        )


def simplify(contents: Contents) -> Contents:
    """The same tensors without what people's own scripts add around them."""
    return contents if is_run(contents.value) else replace(contents, value=simple(contents.value))


def simple(value: Any, depth: int = 0) -> Any:
    """Without ``{"state_dict": ...}`` around it, numbers beside its tensors, and what parallel training adds."""
    if is_module(value) and class_name(value) in ("DataParallel", "DistributedDataParallel"):
        return attributes(value)["_modules"].get("module", value)
    if not isinstance(value, dict) or depth > 2:
        return value
    kinds = {name: type(inner) for name, inner in value.items()}
    if any(issubclass(kind, Tensor) for kind in kinds.values()):
        numbers = (int, float, bool, type(None))
        state = {name: tensor for name, tensor in value.items() if kinds[name] not in numbers}
        is_parallel = all(isinstance(name, str) and name.startswith("module.") for name in state)
        return {name.removeprefix("module."): tensor for name, tensor in state.items()} if is_parallel else state
    wrapped = [value[name] for name in ("state_dict", "model_state_dict") if isinstance(value.get(name), dict)]
    if len(wrapped) == 1:
        return simple(wrapped[0], depth + 1)
    return {name: simple(inner, depth + 1) for name, inner in value.items()}


def describe(contents: Contents) -> str:
    """What a file holds, for an error message."""
    value = contents.value
    match value:
        case Record() | Name():
            what = f"an object of {value.name}"
        case dict():
            keys = [str(key) if isinstance(key, (str, int)) else type(key).__name__ for key in list(value)[:8]]
            what = f"{len(value)} entries ({', '.join(keys)}{', ...' if len(value) > 8 else ''})"
        case _:
            what = f"a {type(value).__name__}"
    names = f"; it names {', '.join(contents.names[:12])}" if contents.names else ""
    return f"It holds {what}{names}."


def save_tensors(path: Path | str, out: Path | str) -> Contents:
    """Write tensors and settings of all networks in a file, for systems without a converter.

    Each network becomes ``<name>.safetensors``, and what it was built with, where the file says so, ``<name>.yaml``.

    Raises:
        UserError: there are no networks in it.
    """
    contents = read(path)
    found = networks(contents.value)
    if not found:
        raise UserError(f"{path} holds no networks. {describe(contents)}")
    with replacing_files(out) as folder:
        for name, (state, settings) in found.items():
            tensors = {key: tensor.detach().clone().contiguous() for key, tensor in state.items()}
            save_file(tensors, folder / f"{name}.safetensors")
            if settings:
                (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return contents
