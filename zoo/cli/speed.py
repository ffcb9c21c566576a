"""How long an experiment's rendering and training take."""

import gc
import math
import os
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
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
from zoo.training.compiling import compile_generator, compiling_failed
from zoo.training.gan import GAN
from zoo.training.precision import DTYPES, Precision
from zoo.utils.devices import Stopwatch, describe
from zoo.utils.errors import UserError
from zoo.utils.memory import peak_memory
from zoo.utils.ranges import given
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
    precision: Precision | None = None,
    compile: bool = False,
) -> dict[str, Any]:
    """Facts about one experiment on this machine.

    Args:
        config: an experiment with a ``model`` block.
        work: ``render``: seconds_per_image of the generator; ``train``: seconds_per_step of the whole training step.
            of the last stage. Beside them images_per_second; field_gflop, the generator's arithmetic in one image or
            step, and field_gflops, it by second; gflop, that of all networks; matrix_gflops, what products of matrices
            reach here at the precision of the 2D networks; and matrix_share, which share of the time all would take
            that way.
        resolution, batch, threads, steps: as of ``zoo benchmark``.
        beside_load: measure once more beside a process that keeps a CPU busy: the same seconds with _beside_load to
            their name, and beside_load_ratio, how many times longer that took.
        device: where networks compute.
        precision: of the 2D networks in training; None for the experiment's own.
        compile: networks run as compiled code.

    Raises:
        UserError: they cannot be compiled.
    """
    threads = torch.get_num_threads() if threads is None else threads
    torch.set_num_threads(threads)
    if work == "render":  # memory of what renders only
        generator = build(config["model"]["init_args"]["generator"], nn.Module).to(device)
        give_cameras(generator)
        times, others, precision = partial(render_times, generator), [], "float32"
    else:
        gan = build(with_options(config["model"], precision=precision), GAN)
        give_cameras(gan)
        generator, times = gan.generator, partial(train_times, gan, device)
        gan.iterations = gan.stage_starts()[-1]
        compile, gan.compiles = compile or gan.compiles, False
        others, precision = [gan.discriminator], gan.half.precision
    resolution = resolution or generator.resolution
    times(resolution, batch, 0)  # the first iteration, in which all regularisers are computed
    with Work(generator.children(), device) as field, Work(others, device) as rest:
        times(resolution, batch, 0)
    if compile:  # after operations were counted, for which they are to be torch's own
        if work == "render":
            with torch.device("meta"):
                compile_generator(generator, type(build(config["model"], GAN)))
        else:
            gan.compiles = True
        times(resolution, batch, 3)  # until all that differs from one iteration to another was met
        if compiling_failed(generator):
            raise UserError("torch.compile failed, so there is nothing to measure: leave out --compile.")
    gc.collect()  # the first trainers with their optimizers, which would count as memory of the last
    name, units = ("seconds_per_image", batch) if work == "render" else ("seconds_per_step", 1)
    seconds = statistics.median(times(resolution, batch, steps)) / units
    timed = {name: round(seconds, 6), "images_per_second": float(f"{batch / units / seconds:.5g}")}
    peak = peak_memory()
    gpu = {"peak_gpu_mib": round(torch.cuda.max_memory_allocated(device) / 1024**2)} if device.type == "cuda" else {}
    if beside_load:
        with busy_process():
            busy = statistics.median(times(resolution, batch, steps)) / units
        timed |= {f"{name}_beside_load": round(busy, 6), "beside_load_ratio": round(busy / seconds, 3)}
    flop = {dtype: (field.flop[dtype] + rest.flop[dtype]) / units for dtype in {**field.flop, **rest.flop}}
    multiplied = {"float32": torch.float32, **DTYPES}[precision]
    rates = {dtype: 1e9 * matrix_rate(dtype, device) for dtype in {torch.float32, multiplied, *flop}}
    return {
        "system": config["model"]["class_path"].rpartition(".")[2],
        "work": work,
        **timed,
        "peak_rss_mib": None if peak is None else round(peak / 2**20),
        **gpu,
        "field_gflop": significant(field.total / units / 1e9),
        "field_gflops": significant(field.total / units / 1e9 / seconds),
        "gflop": significant(sum(flop.values()) / 1e9),
        "matrix_gflops": round(rates[multiplied] / 1e9, 1),
        "matrix_share": significant(sum(flop[dtype] / rates[dtype] for dtype in flop) / seconds),
        "sgemm_gflops": round(rates[torch.float32] / 1e9, 1),
        "parameters": sum(p.numel() for p in generator.parameters()),
        "precision": precision,
        "mode": "compiled" if compile else "eager",
        "resolution": resolution,
        "batch": batch,
        "steps": steps,
        "threads": threads,
        "device": describe(device),
        **about_this_machine(device),
    }


def with_options(model: dict[str, Any], **options: Any) -> dict[str, Any]:
    """A model's block with other options, where they are given."""
    return model | {"init_args": model["init_args"] | given(**options)}


def about_this_machine(device: torch.device) -> dict[str, str]:
    """What numbers depend on besides the work."""
    from zoo.evaluate.protocol import commit, hardware  # whose libraries would count as memory of the work

    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"machine": hardware(device, 1), "torch": torch.__version__, "commit": commit(), "date": date}


def significant(value: float) -> float:
    """Four digits are enough."""
    return float(f"{value:.4g}")


def matrix_rate(dtype: torch.dtype, device: torch.device, side: int | None = None) -> float:
    """GFLOP/s of products of two square matrices, the best of three loops: what this device can reach.

    Args:
        side: of the matrices; by default what fills the device.
    """
    side, products = side or (4096 if device.type == "cpu" else 8192), 1 if device.type == "cpu" else 10
    a, b = torch.rand(2, side, side, device=device).to(dtype)
    result, watch = a @ b, Stopwatch(device)
    watch.mark()
    for _ in range(3):
        for _ in range(products):
            torch.mm(a, b, out=result)
        watch.mark()
    return 2 * side**3 * products / min(watch.seconds()) / 1e9


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
    """Floating point operations of networks' matrix products and convolutions, as their papers' algorithms need them.

    What runs without gradients counts once, what runs with them three times (forward, and backward for inputs and for
    weights). What is computed anew in a backward pass does not count, and what is left out there does; a gradient that
    is differentiated counts as one that is not.

    Args:
        networks: which are watched while this context is entered.
        device: where they compute.

    flop: by the type that matrices are multiplied in.
    """

    def __init__(self, networks: Iterable[nn.Module], device: torch.device = torch.device("cpu")) -> None:
        self.networks, self.device, self.depth = [*networks], device, 0
        self.flop: Counter[torch.dtype] = Counter()

    @property
    def total(self) -> int:
        return self.flop.total()

    def __enter__(self) -> "Work":
        self.hooks = [part.register_forward_pre_hook(self.begin) for part in self.networks]
        self.hooks += [part.register_forward_hook(self.end, always_call=True) for part in self.networks]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def begin(self, *_: object) -> None:
        if torch._C._current_graph_task_id() == -1:  # not inside a backward pass
            self.depth += 1
            if self.depth == 1:
                halved = torch.is_autocast_enabled(self.device.type)  # the hook of 16 bits was there before
                self.dtype = torch.get_autocast_dtype(self.device.type) if halved else torch.float32
                self.counter = FlopCounterMode(
                    display=False, custom_mapping={torch.ops.aten.baddbmm_: added_product_flop}
                )
                self.counter.__enter__()

    def end(self, *_: object) -> None:
        if torch._C._current_graph_task_id() == -1:
            self.depth -= 1
            if self.depth == 0:
                self.counter.__exit__(None, None, None)
                self.flop[self.dtype] += self.counter.get_total_flops() * (3 if torch.is_grad_enabled() else 1)


def added_product_flop(_: torch.Size, a: torch.Size, b: torch.Size, **kwargs: Any) -> int:
    """Operations of a product of matrices of these shapes that is added in place, which torch does not count."""
    return 2 * math.prod(a) * b[-1]


def render_times(generator: Generator, resolution: int, batch: int, steps: int) -> list[float]:
    """Seconds of rendering a batch, repeated, after a warm-up."""
    times: list[float] = []
    with evaluating(generator):
        for step in range(steps + 1):
            latents, camera = generator.sample(batch, draws_for(generator, step, range(batch)))
            watch = Stopwatch(generator.device)
            watch.mark()
            generator.render(generator.map(latents), camera, resolution=resolution)
            watch.mark()
            times += watch.seconds()
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


class StepTimer(pl.Callback):
    """Marks the ends of training steps."""

    def __init__(self, device: torch.device) -> None:
        self.watch = Stopwatch(device)

    def on_train_batch_end(self, *_: object) -> None:
        self.watch.mark()


def train_times(gan: GAN, device: torch.device, resolution: int, batch: int, steps: int, **options: Any) -> list[float]:
    """Seconds of so many training steps, after one that is not counted; options are others of the trainer."""
    silence_warnings()
    timer = StepTimer(device)
    where = {"accelerator": device.type, "devices": 1 if device.index is None else [device.index]}
    short_trainer(timer, steps + 1, **where | options).fit(gan, loader(Grey(resolution, (steps + 1) * batch), batch))
    gan.trainer = None
    return timer.watch.seconds()
