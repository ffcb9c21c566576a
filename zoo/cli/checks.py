"""What a command line of the trainer's verbs may say, checked before anything is built."""

from collections.abc import Iterable
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from jsonargparse import Namespace
from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator
from pytorch_lightning.strategies import DDPStrategy
from torch.distributed import Backend

from zoo.cli.help import TRAINING
from zoo.cli.options import LARGEST_SEED
from zoo.training.ddp import DDP
from zoo.utils.configs import read_mapping
from zoo.utils.errors import UserError, missing_file, near, printable
from zoo.utils.paths import bundled_names, downloaded_names
from zoo.weights.store import TENSORS

MOST_PROCESSES = 10_000  # of one machine, and machines
UNUSED = "find_unused_parameters"  # of Lightning's DDP, once needed to train one of two networks
SHARDED = ("fsdp", "deepspeed", "modelparallel")
UNFIT = ", with which no GAN is trained here: take 'ddp'"
DDP_PATH = "zoo.training.DDP"


def check_config_file(path: str, names: Iterable[str]) -> None:
    """Refuse a config of unknown parts, and a part without a value.

    Args:
        path: the file; one that is not there is left to the parser, which finds a near one.
        names: of options, ``trainer.max_steps``.

    Raises:
        UserError: says which.
    """
    if not Path(path).exists():
        return
    methods = (signature(getattr(pl.Trainer, verb)).parameters for verb in TRAINING)  # a config serves all verbs
    known = {name.split(".")[0] for name in names} | {name for method in methods for name in method}
    for name, value in read_mapping(path).items():
        if name not in known:
            raise UserError(f"'{path}' gives '{name}', which no config has.{near(str(name), sorted(known))}")
        if name in ("trainer", "checkpoint", "progress") and not isinstance(value, dict | None):
            shown = printable(f"{name}: {value}", 60)
            raise UserError(f"'{path}' gives '{shown}', which needs names and values: give its options below it.")
        if value is None and name in ("trainer", "model", "data", "checkpoint", "progress"):
            raise UserError(f"'{path}' gives '{name}:' without a value: leave it out, or give its options below it.")


def check_options(config: Any, verb: str) -> None:
    """Refuse options that contradict each other or the verb, and values that no run could have.

    Raises:
        UserError: says which.
    """
    if verb != "fit" and (config.init_from or config.init_fresh or config.estimate):
        raise UserError(f"--init_from, --init_fresh and --estimate are for 'zoo fit', not for 'zoo {verb}'.")
    if config.init_fresh and not config.init_from:
        raise UserError("--init_fresh names parts that do not start from --init_from: give both.")
    if config.estimate and config.ckpt_path:
        raise UserError("--estimate measures a whole run from its start: leave out --ckpt_path.")
    if config.estimate and not isinstance(config.trainer.strategy, str):
        raise UserError("--estimate starts several short trainings: give --trainer.strategy by name, or leave it out.")
    seed = config.seed_everything
    if not isinstance(seed, bool) and seed is not None and not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"--seed_everything is {seed}: give a whole number from 0 to {LARGEST_SEED}.")
    if config.init_from == "":
        raise UserError("--init_from is empty: name the weights to start from, or leave it out.")
    if config.ckpt_path == "":
        raise UserError("--ckpt_path is empty: name the checkpoint to resume from, or leave it out to start anew.")
    if config.ckpt_path and is_bundle(config.ckpt_path):
        start = "start from them with --init_from, or " if verb == "fit" else ""
        raise UserError(
            f"--ckpt_path is '{printable(config.ckpt_path, 80)}', weights without the state of a training: {start}"
            "score them with 'zoo evaluate'."
        )
    if config.ckpt_path and not Path(config.ckpt_path).is_file():
        raise FileNotFoundError(missing_file(config.ckpt_path))
    if verb != "fit" and not config.ckpt_path:
        raise UserError(
            f"'zoo {verb}' without weights would draw from random ones: give --ckpt_path, or take 'zoo evaluate' or "
            "'zoo sample' for a bundle."
        )
    if verb == "fit" and config.trainer.max_steps == 0:
        raise UserError(
            "--trainer.max_steps is 0, which trains nothing: give a number of iterations, or -1 for no end."
        )
    check_trainer(config.trainer)


def is_bundle(source: str) -> bool:
    """Whether this is the name or the folder of a weights bundle."""
    return source in (*bundled_names(), *downloaded_names()) or (Path(source) / TENSORS).is_file()


def check_strategy(trainer: Any) -> None:
    """Let Lightning's strategy of DDP, where it is given by its class, be ours.

    Raises:
        UserError: it sets what ours has not; it is another derived from Lightning's; or there is no such backend.
    """
    chosen = trainer.strategy
    if not isinstance(chosen, Namespace) or not issubclass(kind := class_of(chosen.class_path), DDPStrategy):
        return
    if kind is DDPStrategy:
        trainer.strategy = chosen = ours(chosen)
    elif not issubclass(kind, DDP):
        path = printable(chosen.class_path, 60)
        raise UserError(f"--trainer.strategy is '{path}'{UNFIT}, or derive it from zoo.training.DDP.")
    backend, known = chosen.get("init_args.process_group_backend"), Backend.backend_list
    if backend and not {part.rpartition(":")[2] for part in backend.split(",")} <= {*known}:
        raise UserError(
            f"process_group_backend of --trainer.strategy is '{printable(backend, 40)}': leave it out, or give one of "
            f"{', '.join(known)}."
        )


def ours(chosen: Namespace) -> Namespace:
    """Our strategy of DDP with the options of Lightning's; which of them look for unused parameters it does not need.

    Raises:
        UserError: there are others that ours has not.
    """
    options = {name: value for name, value in {**(chosen.get("init_args") or {})}.items() if value is not None}
    options |= {name: value for name, value in (chosen.get("dict_kwargs") or {}).items() if name != UNUSED}
    if unknown := sorted(options.keys() - signature(DDP).parameters.keys()):
        raise UserError(f"--trainer.strategy gives {', '.join(unknown)}, which {DDP_PATH} has not: leave it out.")
    return Namespace(class_path=DDP_PATH, init_args=Namespace(options))


def class_of(path: str) -> type:
    """The class of this import path, which the parser has seen."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def check_accelerator(name: Any) -> None:
    """Refuse a GPU where there is none.

    Raises:
        UserError: says how to take the CPU.
    """
    there = {"gpu": CUDAAccelerator.is_available() or MPSAccelerator.is_available()}
    there |= {"cuda": CUDAAccelerator.is_available(), "mps": MPSAccelerator.is_available()}
    if isinstance(name, str) and not there.get(name, True):
        raise UserError(
            f"--trainer.accelerator is '{name}', and torch sees no such GPU here: give --device cpu, which wins over "
            "experiments and overlays."
        )


def check_trainer(trainer: Any) -> None:
    """Refuse numbers of processes that cannot be, epochs, and a strategy with which no GAN trains.

    Raises:
        UserError: says which.
    """
    devices, nodes = trainer.devices, trainer.num_nodes
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        devices = int(devices)
    is_count = isinstance(devices, int) and devices != -1
    if devices in ([], {}) or (is_count and not 1 <= devices <= MOST_PROCESSES):
        shown = printable(devices, 40)
        raise UserError(
            f"--trainer.devices is {shown}: give a number from 1 on, up to {MOST_PROCESSES}, a list of GPUs, or 'auto'."
        )
    if not 1 <= nodes <= MOST_PROCESSES:
        shown = printable(nodes, 40)
        raise UserError(f"--trainer.num_nodes is {shown}: give a number of machines from 1 on, up to {MOST_PROCESSES}.")
    for name, number in (("max_epochs", trainer.max_epochs), ("min_epochs", trainer.min_epochs)):
        if number not in (None, -1):
            raise UserError(
                f"--trainer.{name} is {number}, but training has no epochs: leave it out and give "
                f"--trainer.{name[:3]}_steps, a number of iterations."
            )
    strategy = trainer.strategy if isinstance(trainer.strategy, str) else trainer.strategy.get("class_path", "")
    if any(word in strategy.lower().replace("_", "") for word in SHARDED):
        raise UserError(f"--trainer.strategy is '{printable(strategy, 60)}'{UNFIT}, or leave it out.")
