"""The folder of a run: of one run at a time, which takes nothing from an earlier one."""

import shlex
import sys
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer

from zoo.utils.files import held_alone

OUTPUTS = ("checkpoints/iteration-*.ckpt", "samples/iteration-*", "orbits/iteration-*")
FILES = (*OUTPUTS, "checkpoints/*.ckpt", "hpc_ckpt_*.ckpt", "config.yaml", "metrics-*.csv", "views.png", "events.out.*")


def locked_folder(folder: Path) -> AbstractContextManager[None]:
    """Inside, no other run starts in this folder.

    Raises:
        UserError: another run is writing into it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refusal = (
        f"Another run is writing into '{folder}': wait for its end, or give this one a folder of its own with "
        "--trainer.default_root_dir."
    )
    return held_alone(folder / ".running.lock", refusal)


def keep_old_metrics(folder: Path) -> None:
    """Rename the metrics.csv of an earlier run: the logger would delete it."""
    if (folder / "metrics.csv").is_file():
        new = next(path for n in count(1) if not (path := folder / f"metrics-{n}.csv").exists())
        (folder / "metrics.csv").rename(new)


def set_aside(folder: Path, files: list[Path]) -> Path | None:
    """Move those of these files that are there into a new ``earlier-<n>`` of the folder; None where there are none."""
    if not (files := [path for path in files if path.is_file()]):
        return None
    place = next(path for n in count(1) if not (path := folder / f"earlier-{n}").exists())
    for path in files:
        new = place / path.relative_to(folder)
        new.parent.mkdir(parents=True, exist_ok=True)
        path.rename(new)
    return place


class EarlierRun(Callback):
    """Moves the files of an earlier run in the same folder, which this one would replace, into ``earlier-<n>``.

    That is before the first iteration: this run has accepted all that it was given by then, and each of its processes
    has read the configs and weights that it begins with, which may be among those files.

    Args:
        folder: of the run.
        checkpoint: from which it resumes. Where that is of this folder, the run itself goes on, and what it wrote later
            is moved alone: only where it is not resumed from its last checkpoint.
    """

    def __init__(self, folder: Path, checkpoint: Path | None = None) -> None:
        self.folder, self.checkpoint = folder, checkpoint
        self.files = earlier_files(folder, checkpoint)  # before loggers make theirs

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or not (place := set_aside(self.folder, self.files)):
            return
        last = place / "checkpoints" / "last.ckpt"
        hint = f" To resume it instead, give --ckpt_path {shlex.quote(str(last))}" if last.is_file() else ""
        print(f"What an earlier run wrote into '{self.folder}' is in '{place}' now.{hint}", file=sys.stderr)


def earlier_files(folder: Path, checkpoint: Path | None) -> list[Path]:
    """The files of an earlier run in this folder, or those that are later than a checkpoint of this one."""
    if checkpoint is None or checkpoint.resolve().parent not in (folder.resolve(), (folder / "checkpoints").resolve()):
        return sorted({path for pattern in FILES for path in folder.glob(pattern)})
    written, last = checkpoint.stat().st_mtime_ns, folder / "checkpoints" / "last.ckpt"
    if not last.is_file() or last.stat().st_mtime_ns <= written:
        return []
    later = {last} | {path for pattern in OUTPUTS for path in folder.glob(pattern)}
    return sorted(path for path in later if path.stat().st_mtime_ns > written)
