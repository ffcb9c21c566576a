"""The progress bar: images seen, seconds per thousand images, losses."""

import sys
import time

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from zoo.utils.ranges import at_least


class Progress(ProgressBar):
    """A bar on a terminal; elsewhere (a log file, a pipe) a line at regular intervals.

    Args:
        every_seconds: between two updates of the bar.
        line_every_seconds: between two lines where there is no terminal.
    """

    def __init__(self, every_seconds: float = 0.5, line_every_seconds: float = 20.0) -> None:
        super().__init__()
        at_least(0, self, every_seconds=every_seconds, line_every_seconds=line_every_seconds)
        self.terminal = sys.stderr.isatty()
        self.pause = every_seconds if self.terminal else line_every_seconds
        self.bar: tqdm | None = None
        self.line = ""
        self.enabled = True

    def disable(self) -> None:
        """Called by the trainer on all processes but the first."""
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen, self.time, self.pace = pl_module.images_seen, time.monotonic(), None
        total = trainer.max_steps if trainer.max_steps > 0 else None
        if self.enabled and self.terminal:
            self.bar = tqdm(total=total, initial=pl_module.iterations, unit="it", dynamic_ncols=True, desc="training")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        if self.enabled and time.monotonic() - self.time >= self.pause:
            self.update(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.enabled:
            self.seen = pl_module.images_seen  # the time since then is that of the last scores, too
            self.update(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def update(self, trainer: Trainer, gan: LightningModule) -> None:
        """Show the state now."""
        now, images = time.monotonic(), gan.images_seen - self.seen
        if images:
            pace = 1000 * (now - self.time) / images
            self.pace = pace if self.pace is None else 0.7 * self.pace + 0.3 * pace
            self.seen, self.time = gan.images_seen, now
        facts = {"images": f"{gan.images_seen:,}"}
        if self.pace is not None:
            facts["s/kimg"] = f"{self.pace:.1f}"
        facts |= {name: f"{float(value):.3f}" for name, value in trainer.progress_bar_metrics.items()}
        if self.bar is not None:
            self.bar.n = gan.iterations
            self.bar.set_postfix(facts)
        elif not self.terminal:
            total = f"/{trainer.max_steps}" if trainer.max_steps > 0 else ""
            shown = "  ".join(f"{name} {value}" for name, value in facts.items())
            line = f"iteration {gan.iterations}{total}  {shown}"
            if line != self.line:  # at the end, the last one may have been printed just now
                print(line, file=sys.stderr, flush=True)
            self.line = line

    def print(self, *args: object, sep: str = " ", **kwargs: object) -> None:
        """Print above the bar."""
        tqdm.write(sep.join(map(str, args)), file=sys.stderr)
