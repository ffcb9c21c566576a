"""Checkpoints to resume from, and of the best score."""

import re
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from zoo.training.checkpoint_io import NotSaved
from zoo.utils.errors import UserError
from zoo.utils.files import sweep
from zoo.utils.ranges import at_least, given
from zoo.utils.states import check_state, damaged


class RegularCheckpoint(Checkpoint):
    """Writes ``<run>/checkpoints/last.ckpt`` at regular intervals and at the end, and checkpoints that are kept.

    With ``callbacks.scores.Scores`` it also keeps the checkpoint of the best score, for instance
    ``best-fid-cars-none-1k=9.1913-iteration-005000.ckpt``: it is written right after these very weights were scored,
    and takes the place of the one before, which is removed when the new one is safely on the disk. A resumed run
    continues from the best value so far, and leaves a better checkpoint alone.

    A run that ends with an error writes nothing: the last checkpoint is from before it.

    Args:
        every: iterations between two writings of ``last.ckpt``; at most these are lost when a run is killed.
        keep_every: iterations between two checkpoints that are kept, ``iteration-001000.ckpt``; by default none is.
        best: name, or its beginning, of the score whose best checkpoint is kept, one of which less is better; None for
            none.
    """

    def __init__(self, every: int = 1000, keep_every: int | None = None, best: str | None = "fid") -> None:
        at_least(1, self, every=every, **given(keep_every=keep_every))
        self.every, self.keep_every, self.best = every, keep_every, best
        self.saved = -1
        self.best_name: str | None = None  # of the score
        self.best_value = float("inf")
        self.best_file: str | None = None
        self.resumed = False

    def state_dict(self) -> dict[str, Any]:
        return {"best_name": self.best_name, "best_value": self.best_value, "best_file": self.best_file}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        check_state(state_dict, {"best_name": str | None, "best_value": 0.0, "best_file": str | None}, "the best score")
        if "/" in (state_dict["best_file"] or ""):  # it is removed when there is a better one
            raise damaged(f"the file of the best score is '{state_dict['best_file']}'")
        self.best_name, self.best_value = state_dict["best_name"], state_dict["best_value"]
        self.best_file, self.resumed = state_dict["best_file"], True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.is_global_zero:
            root = Path(trainer.default_root_dir)
            for folder in (root, self.folder(trainer), root / "samples", root / "orbits"):
                sweep(folder)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        now = pl_module.iterations
        if now % self.every == 0 or trainer.global_step == trainer.max_steps:
            self.save(trainer, now, "last.ckpt")
        if self.keep_every and now % self.keep_every == 0:
            self.save(trainer, now, f"iteration-{now:06d}.ckpt")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.saved != pl_module.iterations:
            self.save(trainer, pl_module.iterations, "last.ckpt")

    def on_scores(self, trainer: Trainer, pl_module: LightningModule, values: dict[str, float]) -> None:
        """Called by ``Scores`` on all processes, right after these weights got these values."""
        if self.best is None:
            return
        name = next((name for name in values if name.startswith(self.best)), None)
        if name is None:
            raise UserError(
                f"No score begins with '{self.best}', of which the best is to be kept; "
                f"--checkpoint.best can be null or one of {', '.join(values)}."
            )
        if any(getattr(callback, "better", {}).get(name) == "more" for callback in trainer.callbacks):
            raise UserError(
                f"--checkpoint.best keeps the checkpoint of the lowest value, but more is better of {name}: name "
                "another score."
            )
        before, lowest = self.best_so_far(trainer, name)
        # The first process decides: others might see the folder later.
        before, lowest, better = trainer.strategy.broadcast((before, lowest, values[name] < lowest))
        self.best_name, self.best_value, self.best_file = name, lowest, before
        if better:
            self.best_value = values[name]
            self.best_file = (
                f"best-{name.replace('/', '-')}={values[name]:.5g}-iteration-{pl_module.iterations:06d}.ckpt"
            )
            self.save(trainer, pl_module.iterations, self.best_file)
            if trainer.is_global_zero and before not in (None, self.best_file):
                (self.folder(trainer) / before).unlink(missing_ok=True)

    def best_so_far(self, trainer: Trainer, name: str) -> tuple[str | None, float]:
        """File and value of the best score of this name; infinite where there is none."""
        known = (self.best_file, self.best_value) if name == self.best_name else (None, float("inf"))
        if not self.resumed:
            return known
        # A run that was killed may have kept a better one after the checkpoint from which it was resumed.
        pattern = re.compile(rf"best-{re.escape(name.replace('/', '-'))}=(.+)-iteration-\d+\.ckpt")
        found = [
            (match[0], float(match[1]))
            for path in self.folder(trainer).glob("best-*.ckpt")
            if (match := pattern.fullmatch(path.name))
        ]
        lowest = min(found, key=lambda file: file[1], default=known)
        # Names hold five digits of a value.
        return lowest if lowest[1] < known[1] and lowest[0] != known[0] else known

    def folder(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / "checkpoints"

    def save(self, trainer: Trainer, iteration: int, name: str) -> None:
        """Write one; called by all processes, which all raise the error of the one that writes."""
        save_together(trainer, self.folder(trainer) / name)
        if name == "last.ckpt":
            self.saved = iteration


def save_together(trainer: Trainer, path: Path) -> None:
    """``trainer.save_checkpoint``, called by all processes.

    Raises:
        NotSaved: on all processes where the first could not write.
    """
    problem = None
    try:
        trainer.save_checkpoint(path)
    except NotSaved as error:
        problem = error
        trainer.strategy.barrier("Trainer.save_checkpoint")  # the others wait there
    sentence = trainer.strategy.broadcast(str(problem or ""))
    if sentence:
        raise problem or NotSaved(sentence, silent=True)
