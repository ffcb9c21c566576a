"""Estimates parameters, memory and time of a training on this machine, from a few real iterations of each stage."""

import tempfile
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch

from zoo.leaderboard.table import format_duration
from zoo.training.ddp import exchanged
from zoo.training.gan import GAN
from zoo.utils.devices import wait_for
from zoo.utils.errors import UserError
from zoo.utils.memory import peak_memory

WARM_UP, MAX_TIMED = 2, 20  # iterations that are not timed, and most that are
SECONDS = 20.0  # of timing a stage; at least one iteration is timed however long it takes


class Timer(pl.Callback):
    """Times iterations after the first ones, and ends the run after enough of them.

    seconds: of an iteration, on average.
    images: that all processes saw in one.
    """

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: GAN, *_: Any) -> None:
        wait_for(pl_module.device)
        now, done = time.perf_counter(), trainer.global_step
        if done == WARM_UP:
            self.start, self.seen = now, pl_module.images_seen
        if done > WARM_UP:
            timed = done - WARM_UP
            self.seconds, self.images = (now - self.start) / timed, (pl_module.images_seen - self.seen) / timed
            enough = trainer.strategy.reduce_boolean_decision(now - self.start > SECONDS, all=False)
            trainer.should_stop = trainer.should_stop or enough


def stage_starts(gan: GAN, data: pl.LightningDataModule) -> list[int]:
    """First iterations of the stages of the model and of the data."""
    return sorted({*gan.stage_starts(), *(stage.start for stage in getattr(data, "stages", None) or [])})


def short_trainer(timer: pl.Callback, steps: int, **options: Any) -> pl.Trainer:
    """A trainer of ``steps`` iterations that writes no files."""
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "use_distributed_sampler")
    return pl.Trainer(max_steps=steps, max_epochs=-1, callbacks=[timer], **dict.fromkeys(off, False), **options)


def measure(gan: GAN, data: pl.LightningDataModule, start: int, end: int, **trainer: Any) -> Timer:
    """Run a few iterations as they are from ``start`` on, before ``end`` if that is far enough."""
    timer = Timer()
    gan.iterations = start
    if hasattr(data, "restored"):
        data.restored = start  # batches that are skipped
    steps = WARM_UP + min(MAX_TIMED, max(1, end - start - WARM_UP))
    with tempfile.TemporaryDirectory() as folder:
        short_trainer(timer, steps, default_root_dir=folder, **trainer).fit(gan, data.train_dataloader())
    if not hasattr(timer, "seconds"):
        raise UserError(f"There are too few images to measure: the data ended before iteration {WARM_UP + 1}.")
    return timer


def estimate(
    gan: GAN, data: pl.LightningDataModule, max_steps: int, strategy: Callable[[], Any] = lambda: "auto", **trainer: Any
) -> None:
    """Print an estimate of training. The model is trained a little by this and must not be used afterwards.

    Args:
        gan, data: as for training; images are read as in training.
        max_steps: iterations of the training.
        strategy: makes the strategy of a ``pl.Trainer``; each needs one of its own.
        trainer: also of ``pl.Trainer``: accelerator, devices, num_nodes.

    Raises:
        UserError: max_steps is not given.
    """
    if max_steps < 1:
        raise UserError("--estimate needs the number of iterations of the run: give --trainer.max_steps.")
    parameters = {
        name: sum(p.numel() for p in net.parameters()) for name, net in gan.named_children() if name != "emas"
    }
    lines = [f"{name}: {size:,} parameters" for name, size in parameters.items() if size]
    lines += [f"EMAs of the generator: {len(gan.emas)}"] if gan.emas else []
    sizes, messages = zip(*exchanged(gan).values(), strict=True)
    lines += [f"between processes: {sum(sizes) / 2**20:.2f} MiB an iteration, {sum(messages)} messages"]
    data.prepare_data()
    data.setup("fit")
    gan.fill_poses(data)
    starts = [start for start in stage_starts(gan, data) if start < max_steps]
    total = 0.0
    for start, end in zip(starts, [*starts[1:], max_steps], strict=True):
        timer = measure(gan, data, start, end, strategy=strategy(), **trainer)
        seconds = (end - start) * timer.seconds
        total += seconds
        pace = f"{timer.seconds:.3g} s an iteration, {timer.images / timer.seconds:.3g} images/s"
        lines.append(f"iterations {start:,} to {end:,}: {pace}, {format_duration(seconds)}")
    whole = f"in all: {format_duration(total)} for {max_steps:,} iterations, without scores and sample images"
    lines += [memory(), whole]
    if gan.global_rank == 0:
        print("\n".join(lines))


def memory() -> str:
    """The most that was in use, by this process."""
    peak = peak_memory()
    text = f"memory: {'?' if peak is None else f'{peak / 2**30:.2f}'} GiB of this process at most"
    if torch.cuda.is_initialized():
        text += f", {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB of the GPU"
    return text
