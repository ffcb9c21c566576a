"""Scores and losses over the time of training, as a table."""

import csv
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from callbacks.budget import StepClock
from zoo.utils.files import replacing
from zoo.utils.states import check_state

LOSSES = ("loss_g", "loss_d")


class Curve(StepClock):
    """Writes ``<run>/curve.csv``: a row for each time that ``callbacks.scores.Scores`` measures.

    Columns are iteration, images_seen, processor_seconds and wall_seconds of training steps, the means of loss_g and
    loss_d since the row before, and the scores by name. A resumed run continues the table.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []
        self.sums, self.steps = dict.fromkeys(LOSSES, 0.0), 0  # since the last row

    def state_dict(self) -> dict[str, Any]:
        sums = {name: float(value) for name, value in self.sums.items()}
        return super().state_dict() | {"rows": self.rows, "sums": sums, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        state = {"sums": dict.fromkeys(LOSSES, 0.0), "steps": 0} | state_dict
        check_state(state, {"rows": list, "sums": dict.fromkeys(LOSSES, 0.0), "steps": 0}, "the curve")
        self.rows, self.sums, self.steps = list(state["rows"]), dict(state["sums"]), state["steps"]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        super().on_train_batch_end()
        logged = trainer.callback_metrics
        self.sums = {name: total + logged.get(name, 0.0) for name, total in self.sums.items()}
        self.steps += 1

    def on_scores(self, trainer: pl.Trainer, pl_module: pl.LightningModule, values: dict[str, float]) -> None:
        """Called by ``Scores`` on all processes, right after these weights got these values."""
        clocks = {"iteration": pl_module.iterations, "images_seen": pl_module.images_seen}
        clocks |= {name: round(value, 2) for name, value in self.seconds.items()}
        losses = {name: round(float(total) / self.steps, 5) if self.steps else "" for name, total in self.sums.items()}
        self.rows.append(clocks | losses | values)
        self.sums, self.steps = dict.fromkeys(LOSSES, 0.0), 0
        if not trainer.is_global_zero:
            return
        with replacing(Path(trainer.default_root_dir) / "curve.csv") as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[-1]), restval="", extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
