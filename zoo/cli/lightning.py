"""``zoo fit``, ``validate``, ``test`` and ``predict``: Lightning's command line with this project's defaults."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import get_loader, set_loader
from pytorch_lightning.accelerators import CPUAccelerator, CUDAAccelerator
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from callbacks.budget import StepClock
from callbacks.checkpoint import RegularCheckpoint
from callbacks.interrupt import GracefulInterrupt
from callbacks.loggers import log_run
from callbacks.predictions import PredictionWriter
from callbacks.progress import Progress
from callbacks.run_folder import EarlierRun, keep_old_metrics, locked_folder
from zoo.cli.checks import check_accelerator, check_config_file, check_options, check_strategy
from zoo.cli.estimate import estimate
from zoo.training.checkpoint_files import read_checkpoint
from zoo.training.checkpoint_io import AtomicCheckpoints
from zoo.training.ddp import DDP
from zoo.training.gan import GAN
from zoo.training.lightning_private import TypedWins, explain_restoring
from zoo.utils.configs import bounded, with_nulls
from zoo.utils.devices import check_device_name, check_gpus, describe
from zoo.utils.errors import UserError
from zoo.utils.files import replacing
from zoo.utils.memory import keep_freed_memory
from zoo.utils.old_names import renamed
from zoo.utils.parser import OneLineErrors, option_names, refuse_imports_that_do_harm, shortened
from zoo.utils.paths import CONFIGS, config_path
from zoo.utils.targets import folder_target
from zoo.utils.threads import limit_threads
from zoo.utils.warnings import silence_warnings
from zoo.weights.init_from import start_from

REFUSALS = (ValueError, TypeError, RuntimeError, MisconfigurationException)  # of Lightning, about values
STARTS = {"ddp": "popen", "ddp_spawn": "spawn", "ddp_fork": "fork", "ddp_notebook": "fork"}  # of processes
READ_YAML = get_loader("yaml")


def read_value(text: str) -> Any:
    """A config or a single value. What is wrong with a file is said before, by ``check_config_file``."""
    return renamed(with_nulls(bounded(READ_YAML(text), f"'{text[:40]}'")))


set_loader("yaml", read_value, (yaml.YAMLError,))


class Parser(OneLineErrors, LightningArgumentParser):
    """Lightning's parser with short errors and no abbreviations."""


class SaveConfig(SaveConfigCallback):
    """Writes config.yaml into the run's folder, wherever the loggers write, once nothing is refused any more."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Nothing: a checkpoint that does not fit would leave the config of another run beside it."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.save_config(trainer, pl_module, "fit")

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        path = Path(trainer.default_root_dir) / self.config_filename
        options = {"skip_unset": False, "skip_validation": True}  # it was just parsed
        with replacing(path) as part:
            self.parser.save(self.config, part, multifile=False, **options)


class ZooCLI(TypedWins, LightningCLI):
    """Builds the model, the data and the trainer that a command line describes, and runs them.

    Args:
        verb: fit, validate, test or predict.
        kwargs: of Lightning's.
    """

    def __init__(self, verb: str, *classes: type, **kwargs: Any) -> None:
        self.verb, self.verb_parser = verb, None
        self.command = shlex.join(["zoo", *kwargs["args"]])
        super().__init__(*classes, **kwargs)

    def subcommands(self) -> dict[str, set[str]]:
        """The verb alone: making the parsers of all four takes a third of the time until a run is set up."""
        return {self.verb: super().subcommands()[self.verb]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        self.verb_parser = parser
        parser.add_lightning_class_args(Progress, "progress")
        parser.add_lightning_class_args(RegularCheckpoint, "checkpoint")
        parser.add_argument("--init_from", type=str | None, help="weights to start from: a name, folder or .ckpt")
        parser.add_argument("--init_fresh", type=list[str], default=[], help="parts that do not start from init_from")
        parser.add_argument("--estimate", action="store_true", help="measure what training would take, and stop")

    def parse_arguments(self, parser: LightningArgumentParser, args: list[str]) -> None:
        for path in config_files(args):
            check_config_file(path, option_names(self.verb_parser))
        if self.verb in ("validate", "test"):
            self.verb_parser.set_defaults({"verbose": False})  # a table of the scores, which are logged already
        super().parse_arguments(parser, args)
        check_options(self.config[self.verb], self.verb)

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if config.ckpt_path:
            # Refuses what is not ours, or would run code, before it is used.
            read_checkpoint(config.ckpt_path, to_resume=self.subcommand == "fit")
        check_strategy(config.trainer)
        root = config.trainer.default_root_dir or run_of(config.ckpt_path)
        root = root or str(Path("runs") / run_name(config) / job_name())
        folder_target(root, option="--trainer.default_root_dir")
        config.trainer.default_root_dir = root
        if self.subcommand == "fit" and not config.ckpt_path and (found := job_checkpoint(Path(root))):
            config.ckpt_path = str(found)
        for logger in listed(config.trainer.logger):
            if logger.init_args.get("save_dir") == ".":  # in the run's folder
                # A folder for each verb: this logger deletes the metrics.csv that it finds.
                logger.init_args.save_dir = root if self.subcommand == "fit" else str(Path(root) / self.subcommand)

    def after_instantiate_classes(self) -> None:
        self.plain_config = plain_config(self.parser, self.config, self.subcommand)
        self.model.config, self.model.data_config = self.plain_config["model"], self.plain_config["data"]

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        trainer = self.config_init[self.subcommand].trainer
        check_accelerator(trainer["accelerator"])
        if threads := limit_threads(processes(trainer["devices"], 1, trainer["accelerator"])):
            torch.set_num_threads(threads)  # before Lightning, which does not know a container's limits
        plugins = listed(trainer.plugins)
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpoints())
        with refusals("The trainer refuses its options", *REFUSALS):
            built = super().instantiate_trainer(strategy=strategy(trainer), plugins=plugins, **kwargs)
        explain_restoring(built)
        if built.is_global_zero:
            several = f", {built.world_size} processes" if built.world_size > 1 else ""
            print(f"Running on {describe(built.strategy.root_device)}{several}.", file=sys.stderr)
        return built

    def fit(self, model: GAN, **kwargs: Any) -> None:
        """What Lightning calls for ``zoo fit``."""
        config = self.config_init.fit
        if isinstance(self.trainer.accelerator, CUDAAccelerator):
            check_gpus(self.trainer.device_ids)
        if isinstance(self.trainer.accelerator, CPUAccelerator):
            keep_freed_memory()
        if config.estimate:
            trainer = {name: config.trainer[name] for name in ("accelerator", "devices", "num_nodes")}
            estimate(model, self.datamodule, config.trainer.max_steps, lambda: strategy(config.trainer), **trainer)
            return
        if config.init_from and not config.ckpt_path:  # a checkpoint holds all weights
            start_from(model, config.init_from, config.init_fresh, is_first=self.trainer.is_global_zero)
        # Clocks stop before others work or save. Signals are listened to before the first scores are measured, which
        # may take minutes.
        first = (StepClock, GracefulInterrupt | SaveConfig, pl.Callback)
        self.trainer.callbacks.sort(key=lambda one: next(at for at, kind in enumerate(first) if isinstance(one, kind)))
        folder, is_first = Path(self.trainer.default_root_dir), self.trainer.is_global_zero
        with locked_folder(folder) if is_first else nullcontext():
            if is_first:
                keep_old_metrics(folder)
            self.trainer.callbacks.insert(0, EarlierRun(folder, config.ckpt_path and Path(config.ckpt_path)))
            log_run(self.trainer, self.plain_config, self.command)
            self.trainer.fit(model, **kwargs)
        if is_first:
            print(f"Everything is in {folder}", file=sys.stderr)

    def say_where(self) -> None:
        """After a verb that does not train."""
        folder = Path(self.trainer.default_root_dir) / {"predict": "predictions"}.get(self.verb, self.verb)
        if self.trainer.is_global_zero and folder.is_dir():
            print(f"Everything is in {folder}", file=sys.stderr)

    after_validate = after_test = after_predict = say_where


def run(argv: list[str]) -> None:
    """Run one of Lightning's four verbs.

    Raises:
        UserError, FileNotFoundError: errors of the user.
        zoo.utils.errors.Stopped: training diverged, the disk is full, or it was interrupted, after saving.
    """
    silence_warnings()
    refuse_imports_that_do_harm()
    words = with_device([resolved(previous, word) for previous, word in zip(["", *argv], argv, strict=False)])
    try:
        with refusals("Lightning refuses this", MisconfigurationException):
            start(words, resume_command(argv))
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # which Lightning makes a failure of
            raise KeyboardInterrupt from None
        raise


def start(argv: list[str], resuming: str) -> None:
    """Build what a command line describes, and run it; ``resuming`` is the command to be printed when it stops."""
    ZooCLI(
        argv[0],
        GAN,
        pl.LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        seed_everything_default=0,
        save_config_callback=SaveConfig,
        save_config_kwargs={"overwrite": True, "save_to_log_dir": False},
        parser_class=Parser,
        parser_kwargs={"prog": "zoo"},
        trainer_defaults={
            "max_epochs": -1,
            "use_distributed_sampler": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "logger": {
                "class_path": "pytorch_lightning.loggers.CSVLogger",
                "init_args": {"save_dir": ".", "name": "", "version": ""},
            },
            "callbacks": [GracefulInterrupt(resuming), PredictionWriter()],
        },
        args=argv,
    )


def resolved(previous: str, word: str) -> str:
    """The path of an experiment that is given by name after -c; other arguments unchanged."""
    option, given, name = word.rpartition("=") if word.startswith(("-c=", "--config=")) else ("", "", word)
    if (previous in ("-c", "--config") or given) and not Path(name).exists() and (found := config_path(name)):
        return f"{option}{given}{found}"
    return word


def with_device(argv: list[str]) -> list[str]:
    """The words, with ``--device``, as all other verbs have it, in the trainer's terms."""
    words, changed = iter(argv), []
    for word in words:
        option, given, name = word.partition("=")
        if option != "--device":
            changed.append(word)
            continue
        name = name if given else next(words, "")
        check_device_name(name)
        kind, _, number = name.partition(":")
        changed += ["--trainer.accelerator", "gpu" if kind == "cuda" else kind]
        changed += ["--trainer.devices", f"[{number}]"] if number else []
    return changed


def config_files(argv: list[str]) -> list[str]:
    """The files that were given after -c."""
    after = [word for previous, word in pairwise(argv) if previous in ("-c", "--config")]
    return after + [word.partition("=")[2] for word in argv if word.startswith(("-c=", "--config="))]


@contextmanager
def refusals(what: str, *kinds: type[Exception]) -> Iterator[None]:
    """Inside, errors of these kinds are about what the user gave, and end in a sentence that begins with ``what``."""
    try:
        yield
    except kinds as error:
        raise UserError(shortened(f"{what}: {error}")) from error


def resume_command(argv: list[str]) -> str:
    """The same command, but from the checkpoint that ``{checkpoint}`` will stand for."""
    words = iter(argv)
    remaining = []
    for word in words:
        if word == "--ckpt_path":
            next(words, None)
        elif not word.startswith("--ckpt_path="):
            remaining.append(word)
    return shlex.join(["zoo", *remaining]).replace("{", "{{").replace("}", "}}") + " --ckpt_path {checkpoint}"


def run_name(config: Any) -> str:
    """Name of the first config file (``pigan/cars32`` in the configs folder), or of the model's class without one."""
    files = [Path(str(file)).resolve() for file in config.get("config") or []]
    if not files:
        return config.model.class_path.rsplit(".", 1)[-1].lower()
    inside = files[0].is_relative_to(CONFIGS.resolve())
    return str(files[0].relative_to(CONFIGS.resolve()).with_suffix("")) if inside else files[0].stem


def run_of(checkpoint: str | None) -> str | None:
    """The folder of the run that has left a checkpoint: it goes on there. None elsewhere, and in a job of SLURM."""
    if checkpoint is None or job_name():
        return None
    folder = Path(checkpoint).parent
    folder = folder.parent if folder.name == "checkpoints" else folder
    folder = folder.parent if folder.name.startswith("earlier-") else folder
    return str(folder) if (folder / "config.yaml").is_file() else None


def job_name() -> str:
    """Subfolder for a job of SLURM, ``job-4711``, which is the same when it is started again; empty elsewhere.

    So jobs that differ only in options do not take each other's checkpoints for their own.
    """
    if not SLURMEnvironment.detect() or SLURMEnvironment.job_id() is None:
        return ""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"job-{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return f"job-{SLURMEnvironment.job_id()}"


def job_checkpoint(root: Path) -> Path | None:
    """The newest checkpoint of a requeued SLURM job, from which it resumes; None elsewhere.

    Lightning by itself would take the one it saved when the job was put back into the queue, however old that is.
    """
    if not SLURMEnvironment.detect():
        return None
    found = list(root.glob("hpc_ckpt_*.ckpt"))
    last = root / "checkpoints" / "last.ckpt"
    if last.is_file() and (found or int(os.environ.get("SLURM_RESTART_COUNT", 0))):
        found.append(last)
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def listed(value: Any) -> list:
    """Loggers or plugins, however many there are."""
    return list(value) if isinstance(value, list) else [] if value in (None, True, False) else [value]


def plain_config(parser: LightningArgumentParser, config: Any, verb: str) -> dict[str, Any]:
    """All options in plain values, as yaml would hold them."""
    return yaml.safe_load(parser.dump(config, skip_unset=False, skip_validation=True))[verb]


def strategy(trainer: Any) -> Any:
    """The strategy that the user chose; by default, with several processes, and by any name of Lightning's DDP ours."""
    chosen = trainer["strategy"]
    if chosen == "auto" and processes(trainer["devices"], trainer["num_nodes"], trainer["accelerator"]) > 1:
        chosen = "ddp"
    if not isinstance(chosen, str):
        return chosen
    name = chosen.rpartition(".")[2]  # a class path without arguments is a text to the parser
    name = "ddp" if name in ("DDP", "DDPStrategy") else name.partition("_find_unused_parameters_")[0]
    if name in STARTS:
        return DDP(start_method=STARTS[name])
    return found() if isinstance(found := getattr(pl.strategies, name, None), type) else chosen


def processes(devices: Any, nodes: int, accelerator: str) -> int:
    """How many processes the trainer would start."""
    gpus = torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") else 0
    if devices in ("auto", -1, "-1"):
        count = gpus or 1
    elif isinstance(devices, str):
        count = int(devices) if devices.isdigit() else len([d for d in devices.split(",") if d])
    else:
        count = len(devices) if isinstance(devices, list) else devices
    return count * nodes
