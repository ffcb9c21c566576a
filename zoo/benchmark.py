"""How long an experiment's rendering and training take."""

import resource
import statistics
import sys
import time
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from zoo.draws import SampleDraws
from zoo.evaluate.samples import evaluating
from zoo.gan import GAN
from zoo.hush import quieten
from zoo.weights.bundle import build


def measure(
    config: dict[str, Any],
    work: Literal["render", "train"],
    resolution: int | None,
    batch: int,
    threads: int,
    steps: int,
) -> dict[str, Any]:
    """Facts about one experiment on this machine.

    Args:
        config: an experiment with a ``model`` block.
        work: ``render``: seconds_per_image of the generator; ``train``: seconds_per_step of the whole training step.
        resolution: side of the pictures [pixels]; by default the generator's own.
        batch: pictures at once.
        threads: of the processor.
        steps: how often; the median counts, after one that doesn't.
    """
    torch.set_num_threads(threads)
    gan = build(config["model"], GAN)
    resolution = resolution or gan.generator.resolution
    if work == "render":
        timed = {"seconds_per_image": statistics.median(render_times(gan, resolution, batch, steps)) / batch}
    else:
        timed = {"seconds_per_step": statistics.median(train_times(gan, resolution, batch, steps))}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
    return {
        "system": type(gan).__name__,
        **{name: round(value, 6) for name, value in timed.items()},
        "peak_rss_mib": round(peak),
        "parameters": sum(p.numel() for p in gan.generator.parameters()),
        "precision": str(next(gan.generator.parameters()).dtype).removeprefix("torch."),
        "resolution": resolution,
        "batch": batch,
        "threads": threads,
        "torch": torch.__version__,
    }


def render_times(gan: GAN, resolution: int, batch: int, steps: int) -> list[float]:
    """Seconds of rendering a batch, after one that is not counted."""
    times = []
    with evaluating(gan.generator):
        for step in range(steps + 1):
            draws = SampleDraws(step, range(batch))
            camera = gan.generator.cameras(batch, draws)
            start = time.perf_counter()
            styles = gan.generator.map(gan.generator.latents(batch, draws))
            gan.generator.render(styles, camera, resolution=resolution)
            times.append(time.perf_counter() - start)
    return times[1:]


class Grey(Dataset):
    """Pictures that cost nothing."""

    def __init__(self, resolution: int, count: int) -> None:
        self.resolution, self.count = resolution, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": torch.zeros(3, self.resolution, self.resolution), "index": index}


class Stopwatch(pl.Callback):
    """Seconds between the ends of training steps."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *args: object) -> None:
        self.ends.append(time.perf_counter())


def train_times(gan: GAN, resolution: int, batch: int, steps: int) -> list[float]:
    """Seconds of a training step, after one that is not counted."""
    quieten()
    watch = Stopwatch()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_steps=steps + 1, accelerator="cpu", callbacks=[watch], enable_model_summary=False, **quiet)
    trainer.fit(gan, DataLoader(Grey(resolution, (steps + 1) * batch), batch))
    return [end - start for start, end in zip(watch.ends, watch.ends[1:], strict=False)]
