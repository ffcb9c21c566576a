"""Scores over the processor time of training, as a table."""

import csv
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from zoo.utils.files import replacing
from zoo.utils.states import check_state


class Curve(pl.Callback):
    """Writes ``<run>/curve.csv``: a row for each time that ``callbacks.scores.Scores`` measures.

    List it before ``Scores``, or the last step's time is missing in the row of its scores.

    Columns are iteration, images_seen, processor_seconds, and the scores by name. Processor seconds are those of all
    threads of this process during training steps: neither scores, sample images and checkpoints count, nor what other
    programs do. A resumed run continues the table.
    """

    def __init__(self) -> None:
        self.seconds, self.started = 0.0, 0.0
        self.rows: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        check_state(state_dict, {"seconds": 0.0, "rows": list}, "the curve")
        self.seconds, self.rows = state_dict["seconds"], list(state_dict["rows"])

    def on_train_batch_start(self, *_: Any) -> None:
        self.started = time.process_time()

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds += time.process_time() - self.started

    def on_scores(self, trainer: pl.Trainer, pl_module: pl.LightningModule, values: dict[str, float]) -> None:
        """Called by ``Scores`` on all processes, right after these weights got these values."""
        clocks = {"iteration": pl_module.iterations, "images_seen": pl_module.images_seen}
        self.rows.append(clocks | {"processor_seconds": round(self.seconds, 2)} | values)
        if not trainer.is_global_zero:
            return
        with replacing(Path(trainer.default_root_dir) / "curve.csv") as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[-1]), restval="", extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
