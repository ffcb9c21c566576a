"""How long an experiment's rendering and training take."""

import gc
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

from zoo.cli.estimate import short_trainer
from zoo.generator import Generator, draws_for, evaluating
from zoo.render import Camera, DatasetPoses, orbit_cameras
from zoo.training.gan import GAN
from zoo.utils.devices import describe, wait_for
from zoo.utils.memory import keep_freed_memory, peak_memory
from zoo.utils.readers import loader
from zoo.utils.warnings import silence_warnings
from zoo.weights.bundle import build


def measure(
    config: dict[str, Any],
    work: Literal["render", "train"],
    resolution: int | None,
    batch: int,
    threads: int | None,
    steps: int,
    beside_load: bool = False,
    device: torch.device = torch.device("cpu"),
) -> dict[str, Any]:
    """Facts about one experiment on this machine.

    Args:
        config: an experiment with a ``model`` block.
        work: ``render``: seconds_per_image of the generator; ``train``: seconds_per_step of the whole training step.
            Beside them field_gflop, the generator's arithmetic in one image or step, and field_gflops, it by second.
        resolution, batch, threads, steps: as of ``zoo benchmark``.
        beside_load: measure once more beside a process that keeps a CPU busy: the same seconds with _beside_load to
            their name, and beside_load_ratio, how many times longer that took.
        device: where networks compute.
    """
    threads = torch.get_num_threads() if threads is None else threads
    torch.set_num_threads(threads)
    if work == "render":  # memory of what renders only
        generator = build(config["model"]["init_args"]["generator"], nn.Module).to(device)
        give_cameras(generator)
        times = partial(render_times, generator)
    else:
        keep_freed_memory()
        gan = build(config["model"], GAN)
        give_cameras(gan)
        generator, times = gan.generator, partial(train_times, gan, device)
    resolution = resolution or generator.resolution
    with Work(generator) as done:
        times(resolution, batch, 0)
    gc.collect()  # the first trainer with its optimizers, which would count as memory of the second
    name, units = ("seconds_per_image", batch) if work == "render" else ("seconds_per_step", 1)
    seconds = statistics.median(times(resolution, batch, steps)) / units
    timed = {name: round(seconds, 6)}
    peak = peak_memory()
    gpu = {"peak_gpu_mib": round(torch.cuda.max_memory_allocated(device) / 1024**2)} if device.type == "cuda" else {}
    if beside_load:
        with busy_process():
            busy = statistics.median(times(resolution, batch, steps)) / units
        timed |= {f"{name}_beside_load": round(busy, 6), "beside_load_ratio": round(busy / seconds, 3)}
    gflop = done.flop / 1e9 / units
    return {
        "system": config["model"]["class_path"].rpartition(".")[2],
        "work": work,
        **timed,
        "peak_rss_mib": None if peak is None else round(peak / 2**20),
        **gpu,
        "field_gflop": float(f"{gflop:.5g}"),
        "field_gflops": float(f"{gflop / seconds:.4g}"),
        "sgemm_gflops": round(sgemm(device=device), 1),
        "parameters": sum(p.numel() for p in generator.parameters()),
        "precision": str(next(generator.parameters()).dtype).removeprefix("torch."),
        "resolution": resolution,
        "batch": batch,
        "threads": threads,
        "device": describe(device),
        "torch": torch.__version__,
    }


def sgemm(side: int = 4096, device: torch.device | str = "cpu") -> float:
    """GFLOP/s of a product of two square float32 matrices, the best of three: what this device can reach."""
    a, b = torch.rand(2, side, side, device=device)
    result, times = a @ b, []
    for _ in range(3):
        wait_for(a.device)
        start = time.perf_counter()
        torch.mm(a, b, out=result)
        wait_for(a.device)
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times) / 1e9


BUSY = """
import os, sys
print("busy", flush=True)
while os.getppid() == int(sys.argv[1]):
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def busy_process() -> Iterator[int]:
    """A process that keeps one CPU busy, as a browser beside the terminal would, while this context is entered.

    It has a session of its own, since Linux divides a CPU between sessions first and between threads second
    (autogroup): against it, all threads of a training together count as one. It may run on any CPU, and the kernel may
    move it or our threads, as it does with a browser. It ends with the context, and by itself when this process is no
    more, however that ended.

    Yields:
        its process id.
    """
    command = [sys.executable, "-I", "-S", "-c", BUSY, str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            process.stdout.readline()  # it has begun
            yield process.pid
        finally:
            process.kill()


class Work:
    """Floating point operations of a generator's matrix products and convolutions, as its paper's algorithm needs them.

    What runs without gradients counts once, what runs with them three times (forward, and backward for inputs and for
    weights). What is computed anew in a backward pass does not count, and what is left out there does.

    Args:
        generator: whose parts are watched while this context is entered.
    """

    def __init__(self, generator: nn.Module) -> None:
        self.generator, self.flop, self.depth = generator, 0, 0

    def __enter__(self) -> "Work":
        parts = list(self.generator.children())
        self.hooks = [part.register_forward_pre_hook(self.begin) for part in parts]
        self.hooks += [part.register_forward_hook(self.end, always_call=True) for part in parts]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def begin(self, *_: object) -> None:
        if torch._C._current_graph_task_id() == -1:  # not inside a backward pass
            self.depth += 1
            if self.depth == 1:
                self.counter = FlopCounterMode(display=False)
                self.counter.__enter__()

    def end(self, *_: object) -> None:
        if torch._C._current_graph_task_id() == -1:
            self.depth -= 1
            if self.depth == 0:
                self.counter.__exit__(None, None, None)
                self.flop += self.counter.get_total_flops() * (3 if torch.is_grad_enabled() else 1)


def render_times(generator: Generator, resolution: int, batch: int, steps: int) -> list[float]:
    """Seconds of rendering a batch, repeated, after a warm-up."""
    times = []
    with evaluating(generator):
        for step in range(steps + 1):
            latents, camera = generator.sample(batch, draws_for(generator, step, range(batch)))
            wait_for(generator.device)
            start = time.perf_counter()
            generator.render(generator.map(latents), camera, resolution=resolution)
            wait_for(generator.device)
            times.append(time.perf_counter() - start)
    return times[1:]


class Grey(Dataset):
    """Constant images with cameras."""

    def __init__(self, resolution: int, count: int) -> None:
        self.resolution, self.count, self.camera = resolution, count, some_cameras(1).take(0)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": torch.zeros(3, self.resolution, self.resolution), "index": index, "camera": self.camera}


def some_cameras(n: int) -> Camera:
    """n cameras that look at the object from one side: those of no data set, but it takes as long to render them."""
    yaw = torch.linspace(-0.3, 0.3, n)[:, None]
    return orbit_cameras(yaw, torch.full_like(yaw, math.pi / 2), radius=2.7, fov=0.33)


def give_cameras(networks: nn.Module) -> None:
    """Let generators that draw from the cameras of a data set have some, though there is no data set."""
    for module in networks.modules():
        if isinstance(module, DatasetPoses):
            module.fill(some_cameras(16))


class Stopwatch(pl.Callback):
    """Seconds between the ends of training steps."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: GAN, *_: object) -> None:
        wait_for(pl_module.device)
        self.ends.append(time.perf_counter())


def train_times(gan: GAN, device: torch.device, resolution: int, batch: int, steps: int) -> list[float]:
    """Seconds of so many training steps, after one that is not counted."""
    silence_warnings()
    watch = Stopwatch()
    where = {"accelerator": device.type, "devices": 1 if device.index is None else [device.index]}
    short_trainer(watch, steps + 1, **where).fit(gan, loader(Grey(resolution, (steps + 1) * batch), batch))
    gan.trainer = None
    return [end - start for start, end in zip(watch.ends, watch.ends[1:], strict=False)]
