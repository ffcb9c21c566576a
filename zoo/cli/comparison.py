"""What ``zoo compare`` compares: its protocol, read from a yaml and checked before anything is trained."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from zoo.cli.options import LARGEST_SEED, MOST_IMAGES, numbers
from zoo.utils.configs import read_mapping, read_yaml
from zoo.utils.devices import check_device_name
from zoo.utils.errors import UserError, missing_file, near, printable
from zoo.utils.files import replacing
from zoo.utils.paths import config_path, read_experiment
from zoo.utils.ranges import above, between

CLOCKS = ("processor_seconds", "wall_seconds")  # of callbacks.budget.Budget
PART = {"recipe", "seeds"}  # of a system


@dataclass(frozen=True)
class Run:
    """A training of a system with a seed.

    recipe: files or names of its experiment and overlays; the last one wins.
    """

    system: str
    recipe: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        """Of its folder and weights."""
        return f"{self.system}-seed{self.seed}"


@dataclass(frozen=True)
class Protocol:
    """What all runs of a comparison have in common, and what they are.

    Args:
        file: the yaml.
        data: block of an experiment: scores compare with its images; each recipe must train on the same.
        budget: of training, as of ``callbacks.budget.Budget``: processor_seconds or wall_seconds.
        systems: by a name of the user's, recipe and seeds: a name that 'zoo list' shows, a file, or a list of these, or
            ``{recipe: ..., seeds: [...]}``.
        seeds: of the systems that have none of their own.
        metrics, count, objects: as of ``zoo evaluate``.
        device: as of all verbs.
        checkpoint_every: iterations; what a run that is killed loses at most.
        samples: that are drawn of each run, as in 0-3,8.
        license: of the weights, for their cards.
    """

    file: Path
    data: dict[str, Any]
    budget: dict[str, float]
    systems: dict[str, Any]
    seeds: list[int] = field(default_factory=lambda: [0])
    metrics: str = "all"
    count: int = 5000
    objects: int = 64
    device: str = "cpu"
    checkpoint_every: int = 250
    samples: str = "0-3"
    license: str | None = None

    @property
    def clock(self) -> str:
        """That the budget is counted by: processor_seconds or wall_seconds."""
        return next(iter(self.budget))

    @property
    def limit(self) -> float:
        """The budget [s]."""
        return self.budget[self.clock]

    def recipe(self, system: str) -> tuple[str, ...]:
        said = self.systems[system]
        recipe = said["recipe"] if isinstance(said, dict) else said
        return (recipe,) if isinstance(recipe, str) else tuple(recipe)

    def runs(self) -> list[Run]:
        """All of them: first seeds of all systems before second ones."""
        found = []
        for system, said in self.systems.items():
            own = said.get("seeds", self.seeds) if isinstance(said, dict) else self.seeds
            found += [(place, Run(system, self.recipe(system), seed)) for place, seed in enumerate(own)]
        return [run for _, run in sorted(found, key=lambda one: one[0])]

    def said(self) -> dict[str, Any]:
        """What must not change while a comparison is made; of each recipe a digest."""
        digests = {system: digest(merged(self.recipe(system))) for system in self.systems}
        same = {name: getattr(self, name) for name in ("data", "budget", "metrics", "count", "objects", "device")}
        return same | {"recipes": digests}


def read_protocol(file: Path | str) -> Protocol:
    """The protocol in a yaml.

    Raises:
        FileNotFoundError, UserError: there is none, it is no yaml, or says something that cannot be compared; names it.
    """
    file = Path(file) if Path(file).exists() else config_path(str(file)) or Path(file)
    if not file.exists():
        raise FileNotFoundError(missing_file(file))
    said = read_mapping(file)
    known = [name for name in Protocol.__dataclass_fields__ if name != "file"]
    refuse_unknown(file, said, known, "no comparison has")
    for name, of in (("data", "class_path, and init_args below it"), ("budget", " or ".join(CLOCKS)), ("systems", "")):
        if not isinstance(said.get(name), dict) or not said[name]:
            what = "names no systems: give at least one, such as" if name == "systems" else f"gives no {name}: say"
            raise UserError(f"'{file}' {what} {of or 'pigan: pigan/cars32'}.")
    check_budget(file, said["budget"])
    if not isinstance(said["data"].get("class_path"), str):
        raise UserError(f"data of '{file}' has no class_path: name a datamodule, such as datamodules.Cars.")
    protocol = Protocol(file, **said)
    check_values(protocol)
    for system in protocol.systems:
        check_system(protocol, system)
    return protocol


def check_budget(file: Path, budget: dict[str, Any]) -> None:
    """Refuse one that no training could have."""
    refuse_unknown(file, budget, CLOCKS, "no budget has")
    if len(budget) != 1:
        raise UserError(f"budget of '{file}' has two clocks: give {' or '.join(CLOCKS)}, and not both.")
    above(0, **{f"{clock} of the budget": value for clock, value in budget.items()})


def check_values(protocol: Protocol) -> None:
    """Refuse values that no run could have, before hours of training."""
    for kind, what, names in (
        (int, "a whole number", ("count", "objects", "checkpoint_every")),
        (str, "a text, in quotes if it is a number", ("metrics", "device", "samples", "license")),
    ):
        for name in names:
            value = getattr(protocol, name)
            if not isinstance(value, kind) and (name, value) != ("license", None):
                raise UserError(f"{name} of '{protocol.file}' is {printable(value, 40)}: give {what}.")
    between(2, MOST_IMAGES, count=protocol.count)
    between(1, MOST_IMAGES, objects=protocol.objects)
    between(1, 10**9, checkpoint_every=protocol.checkpoint_every)
    check_device_name(protocol.device)
    from zoo.evaluate.presets import preset

    numbers(protocol.samples)
    preset(protocol.metrics)


def check_system(protocol: Protocol, system: str) -> None:
    """Refuse a system without a recipe or seeds, or one that trains on other images than the rest."""
    file, said = protocol.file, protocol.systems[system]
    if not re.fullmatch(r"[\w.-]+", str(system)) or str(system).startswith("."):
        raise UserError(f"'{file}' calls a system '{printable(system, 40)}': take letters, digits, _, - and dots.")
    if isinstance(said, dict):
        refuse_unknown(file, said, sorted(PART), f"no system has (here {system})")
    if isinstance(said, dict) and "recipe" not in said:
        raise UserError(f"'{file}' gives no recipe of {system}: name an experiment that 'zoo list' shows, or a file.")
    seeds = said.get("seeds", protocol.seeds) if isinstance(said, dict) else protocol.seeds
    if not isinstance(seeds, list) or not seeds:
        raise UserError(f"'{file}' gives no seeds of {system}: give at least one, such as [0].")
    between(0, LARGEST_SEED, **{f"seeds of {system}": seeds})
    if len({*seeds}) < len(seeds) or not all(isinstance(seed, int) for seed in seeds):
        raise UserError(f"seeds of {system} are {printable(seeds, 40)}: give whole numbers, each once.")
    recipe = protocol.recipe(system)
    if not recipe or not all(isinstance(name, str) for name in recipe):
        raise UserError(f"recipe of {system} is {printable(recipe, 40)}: name an experiment, or a list of them.")
    check_data(protocol, system, merged(recipe).get("data"))


def check_data(protocol: Protocol, system: str, own: Any) -> None:
    """Refuse a recipe whose images are not those of the protocol: same class, and what the protocol says of it."""
    own = {"class_path": own} if isinstance(own, str) else own if isinstance(own, dict) else {}
    wanted = {"class_path": protocol.data["class_path"], **(protocol.data.get("init_args") or {})}
    options = own.get("init_args") or {}
    has = {"class_path": own.get("class_path"), **options}
    if isinstance(stages := options.get("stages"), dict) and stages:  # in which resolutions may grow: the last counts
        has |= {key: value for key, value in stages[max(stages)].items() if key in wanted}
    for name, value in wanted.items():
        if has.get(name) != value:
            raise UserError(
                f"The recipe of {system} has {name} {printable(has.get(name), 60)} in its data, and '{protocol.file}' "
                f"compares {printable(value, 60)}: give {system} a recipe, or an overlay after it, with that."
            )


def refuse_unknown(file: Path, said: dict[str, Any], known: Any, which: str) -> None:
    """Refuse a name that is not known, with the nearest one that is."""
    for name in said:
        if name not in known:
            raise UserError(f"'{file}' gives '{printable(name, 40)}', which {which}.{near(str(name), [*known])}")


def merged(recipe: tuple[str, ...]) -> dict[str, Any]:
    """The experiment that several files make, the last one winning, as the trainer's ``-c -c`` has it."""

    def over(before: Any, now: Any) -> Any:
        if not isinstance(before, dict) or not isinstance(now, dict):
            return now
        return {key: over(before.get(key), now[key]) if key in now else before[key] for key in before | now}

    config: dict[str, Any] = {}
    for name in recipe:
        config = over(config, read_experiment(name))
    return config


def digest(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:12]


def check_unchanged(folder: Path, protocol: Protocol) -> None:
    """Write down what the runs in a folder have in common; later ones must have it, too.

    Raises:
        UserError: the folder holds runs of another protocol; says what differs.
    """
    file, now = folder / "protocol.yaml", protocol.said()
    before = read_yaml(file) if file.is_file() else {}
    for name in now:
        if name != "recipes" and name in before and before[name] != now[name]:
            raise UserError(
                f"The runs in '{folder}' have {name} {printable(before[name], 60)}, and '{protocol.file}' says "
                f"{printable(now[name], 60)}: give another --out, or move that folder away."
            )
    for system, sha in before.get("recipes", {}).items():
        if now["recipes"].get(system, sha) != sha:
            raise UserError(
                f"The recipe of {system} has changed since its runs in '{folder}': move its folders there away and "
                f"delete its line in '{file}', or give another --out."
            )
    now["recipes"] = before.get("recipes", {}) | now["recipes"]
    with replacing(file) as part:
        part.write_text(yaml.safe_dump(now, sort_keys=False))
