"""Mutated command lines and configs, each in this process: ``python -m tests.fuzz N [SEED]``.

Whatever is given, a command does its work or ends in one sentence. Work itself is cut short: no network, a tiny GAN
trains for two iterations, full-size ones are built on the meta device, and verbs stop when they begin to render.
"""

import copy
import io
import os
import random
import resource
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytorch_lightning as pl
import torch
import yaml
from PIL import Image

from datamodules.cars import CarImages
from tests.tiny import CONFIG
from zoo.cli.command import main
from zoo.pigan import Generator
from zoo.utils.paths import CONFIGS

SECONDS = 60  # of one command
MEMORY = 8 * 2**30  # that one command may take [bytes]
EXPERIMENTS = sorted(path for path in CONFIGS.glob("*/*.yaml") if path.parent.name != "overlays")
VALUES: list[Any] = [
    *("", None, True, "abc", "nan", "inf", "-inf", -1, 0, 1.5, 2, -0.5, 10**6, 10**20, 1e308),
    *([], [1], [0, 0], ["a"], {}, {"a": 1}, {0: {}}, "nowhere/x", "\udcff\xe9", "x" * 2000, "\x1b[31m", "a\0b"),
    *("[", "{a: ", "&a [*a]", "os.system", "torch.nn.Linear", "zoo.pigan.Generator", "-", "--", "~", "*"),
]
VERBS = """\
sample pigan-cars32 --out grid.png --seeds 0-2 --views 2
sample pigan-cars32 --images out --count 3 --truncation 0.7 --seed 3
orbit pigan-cars32 --out orbit.gif --frames 3 --seconds 1 --path wobble
mesh pigan-cars32 --out car.ply --seeds 3 --cells 16 --level 10
invert image.png pigan-cars32 --out inverted --samples 2 --latent_steps 1 --yaw 30
evaluate pigan-cars32 --real images --count 4 --batch_size 2 --results results.csv
evaluate images --real images --extractor efficientnetlite0 --real_count 3
benchmark pigan/cars32 --work render --steps 1 --batch 1 --threads 1
leaderboard cars --top 3 --results results.csv
list pigan* --json
download giraffe-cats-64.official --from_file image.png
convert image.png converted --system pigan --to zoo
bundle image.png bundled --license MIT
push nothing me/cars --private
data cameras config.yaml new/transforms.json --resolution 64 --overwrite
completion bash"""


class Case(NamedTuple):
    """A command, and what of its folder differs from others: files by name."""

    words: list[str]
    files: dict[str, str]
    on_meta: bool


class Reached(BaseException):
    """The work would begin now."""


class Hangs(BaseException):
    """It took too long."""


def cases(number: int, seed: int) -> Iterator[Case]:
    """Commands, half of them with a mutated config."""
    for index in range(number):
        random_ = random.Random(f"{seed}-{index}")
        yield (mutated_verb, mutated_config, mutated_options, mutated_config)[index % 4](random_)


def mutated_verb(random_: random.Random) -> Case:
    words = random_.choice(VERBS.splitlines()).split()
    for _ in range(random_.choice([1, 1, 2])):
        words = mutated_words(random_, words)
    return Case(words, {}, False)


def mutated_options(random_: random.Random) -> Case:
    """Options of a training, which set parts of its config."""
    config, on_meta = chosen(random_)
    words = ["fit", "-c", "config.yaml"]
    options = [(path, value) for path, value in leaves(config) if not any(isinstance(key, int) for key in path)]
    for path, value in random_.sample(options, random_.choice([1, 1, 2])):
        name = ".".join(key for key in path if key != "init_args").removesuffix(".class_path")
        words.append(f"--{name}={shown(random_.choice(VALUES) if random_.random() < 0.8 else value)}")
    if random_.random() < 0.3:
        words = mutated_words(random_, words)
    return Case(words, {"config.yaml": yaml.safe_dump(config)}, on_meta)


def mutated_config(random_: random.Random) -> Case:
    config, on_meta = chosen(random_)
    for _ in range(random_.choice([1, 1, 2])):
        mutate(random_, config)
    text = yaml.safe_dump(config)
    if random_.random() < 0.15:  # what no value can say
        lines = text.splitlines(keepends=True)
        at = random_.randrange(len(lines))
        lines[at:at] = random_.choice([[lines[at]], ["  " + lines[at]], ["\t\n"], ["]\n"], ["? x\n"]])
        text = "".join(lines)
    return Case(["fit", "-c", "config.yaml"], {"config.yaml": text}, on_meta)


def chosen(random_: random.Random) -> tuple[dict, bool]:
    """The tiny config, or one that needs the meta device."""
    if random_.random() < 0.5:
        return copy.deepcopy(CONFIG), False
    config = yaml.safe_load(random_.choice(EXPERIMENTS).read_text())
    config["trainer"] |= {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    return config, True


def mutated_words(random_: random.Random, words: list[str]) -> list[str]:
    """A word dropped, doubled, misspelt, moved, or with another value."""
    at = random_.randrange(len(words))
    word = words[at]
    letter = random_.randrange(len(word) or 1)
    option, given, _ = word.partition("=")
    change: Callable[[], list[str]] = random_.choice(
        [
            lambda: [],
            lambda: [word, word],
            lambda: [word[:letter] + word[letter + 1 :]],
            lambda: [word[:letter] + random_.choice("-_.=xé\0") + word[letter:]],
            *[lambda: [option + given + shown(random_.choice(VALUES))] if given else [shown(random_.choice(VALUES))]]
            * 4,
            lambda: [word, shown(random_.choice(VALUES))],
        ]
    )
    return words[:at] + change() + words[at + 1 :]


def mutate(random_: random.Random, config: dict) -> None:
    """Change one value or name somewhere in a config."""
    path, value = random_.choice([*leaves(config), *branches(config)])
    *before, key = path
    at: Any = config
    for step in before:
        at = at[step]
    kind = random_.choice(["value"] * 5 + ["type", "gone", "name", "deeper", "higher"])
    if kind == "value":
        at[key] = random_.choice(VALUES)
    elif kind == "type":
        at[key] = [value] if random_.random() < 0.5 else {"a": value} if random_.random() < 0.5 else str(value)
    elif kind == "deeper":
        at[key] = {key: value}
    else:
        del at[key]
        if kind == "name" and isinstance(at, dict):
            at[f"{key}"[::-1] if random_.random() < 0.3 else f"{key}x"] = value
        elif kind == "higher":
            config[str(key)] = value


def leaves(values: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    for key, value in items(values):
        if isinstance(value, dict | list):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def branches(values: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    for key, value in items(values):
        if isinstance(value, dict | list):
            yield (*path, key), value
            yield from branches(value, (*path, key))


def items(values: Any) -> list[tuple[Any, Any]]:
    return list(values.items() if isinstance(values, dict) else enumerate(values))


def shown(value: Any) -> str:
    """As it is typed."""
    return value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]


def problem(case: Case) -> str | None:
    """What is wrong with the answer to a command; None if nothing is."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with workplace(case.files), redirect_stdout(out), redirect_stderr(err), bounded(), cut_short(case.on_meta):
            code = main(case.words)
    except Reached:
        return None
    except SystemExit as stop:
        code = stop.code
    except Hangs:
        return f"takes more than {SECONDS} s\n{traceback.format_exc(limit=-4)}"
    except Exception:
        return traceback.format_exc(limit=-3)
    lines = err.getvalue().strip().splitlines() or [""]
    if "Traceback" in err.getvalue():
        return f"prints a traceback:\n{err.getvalue()[-1500:]}"
    if code in (0, None):
        return None
    if code not in (1, 2) or not lines[-1].startswith("zoo: error: "):
        return f"ends with {code} and {lines[-1]!r}"
    if len(lines[-1]) >= 300 or not lines[-1].isprintable():
        return f"says what cannot be read: {lines[-1]!r}"
    return None


@contextmanager
def bounded() -> Iterator[None]:
    """Inside, time and memory are limited."""

    def stop(*_: Any) -> None:
        raise Hangs

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    before = signal.signal(signal.SIGALRM, stop)
    left = signal.setitimer(signal.ITIMER_REAL, SECONDS)
    if pages is not None:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *left)  # pytest-timeout's
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def cut_short(on_meta: bool) -> Iterator[None]:
    """Inside, nothing works for long."""
    fit, map_ = pl.Trainer.fit, Generator.map

    @wraps(fit)  # whose parameters become options
    def reached(*_: Any, **__: Any) -> None:
        raise Reached

    @wraps(fit)
    def two_iterations(trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        trainer.callbacks.append(UntilTwo())
        fit(trainer, *args, **kwargs)

    def mapped(generator: Generator, *args: Any, **kwargs: Any) -> Any:
        if not generator.training:
            raise Reached
        return map_(generator, *args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(patch.object(pl.Trainer, "fit", reached if on_meta else two_iterations))
        stack.enter_context(patch.object(Generator, "map", mapped))
        stack.enter_context(patch.object(CarImages, "render", reached))
        stack.enter_context(patch.object(socket, "getaddrinfo", side_effect=socket.gaierror(-3, "no network")))
        stack.enter_context(torch.device("meta") if on_meta else nullcontext())
        yield


class UntilTwo(pl.Callback):
    def on_train_batch_start(self, trainer: pl.Trainer, model: pl.LightningModule, *_: Any) -> None:
        if model.iterations >= 2:
            raise Reached


@contextmanager
def workplace(files: dict[str, str]) -> Iterator[None]:
    """A folder with a few images and these files, which is the working folder and the home inside."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name, patch.dict(os.environ, HOME=name):
        folder = Path(name)
        (folder / "images").mkdir()
        for path in ("image.png", *(f"images/{i}.png" for i in range(4))):
            Image.linear_gradient("L").resize((32, 32)).save(folder / path)
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8", errors="surrogateescape")
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def run(number: int, seed: int = 0) -> list[str]:
    """What is wrong with the answers to so many commands."""
    found = []
    for index, case in enumerate(cases(number, seed)):
        if wrong := problem(case):
            lines = case.files.get("config.yaml", "") if case.words == ["fit", "-c", "config.yaml"] else ""
            found.append(f"{index}: zoo {case.words!r}\n{lines}{wrong}")
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    wrong = run(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print(*wrong, sep="\n\n")
    sys.exit(bool(wrong))
