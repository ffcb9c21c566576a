"""How much faster several processes train than one."""

import json
import os
import socket
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import multiprocessing

from zoo.cli.speed import about_this_machine, give_cameras, train_times, with_options
from zoo.training.ddp import DDP
from zoo.training.gan import GAN
from zoo.training.precision import Precision
from zoo.utils.devices import describe
from zoo.utils.errors import UserError
from zoo.utils.memory import keep_freed_memory
from zoo.weights.bundle import build


def measure(
    config: dict[str, Any],
    resolution: int | None,
    batch: int,
    threads: int | None,
    steps: int,
    device: torch.device,
    precision: Precision | None,
    compile: bool,
    processes: int,
) -> dict[str, Any]:
    """Facts about training with one process and with several on this machine, each started for it.

    Args:
        config: an experiment with a ``model`` block.
        resolution, batch, threads, steps: as of ``zoo benchmark``, for each process; by default they share the threads.
        device: its kind; of GPUs the first ones.
        precision: of the 2D networks; None for the experiment's own.
        compile: networks run as compiled code.
        processes: how many; scaling_efficiency is their images_per_second over as many times those of one.

    Raises:
        UserError: there are fewer GPUs.
    """
    if device.type != "cpu" and (device.index or processes > torch.get_device_module(device).device_count()):
        raise UserError(f"--devices {processes} takes the first {processes} GPUs, which are not here: give fewer.")
    model = with_options(config["model"], precision=precision, compile=compile or None)
    gan = build(model, GAN)  # whatever is wrong with it is said here
    resolution = resolution or gan.generator.resolution
    threads = threads or max(1, torch.get_num_threads() // processes)
    rates, work = {}, (model, device.type, resolution, batch, threads, steps)
    for count in (1, processes):
        with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
            free.close()
            result = Path(folder) / "seconds.json"
            multiprocessing.spawn(train_one, (count, port, result, *work), nprocs=count)
            rates[count] = count * batch / statistics.median(json.loads(result.read_text()))
    return {
        "system": config["model"]["class_path"].rpartition(".")[2],
        "work": "train",
        "processes": processes,
        "seconds_per_step": round(processes * batch / rates[processes], 6),
        "seconds_per_step_of_one": round(batch / rates[1], 6),
        "images_per_second": float(f"{rates[processes]:.5g}"),
        "images_per_second_of_one": float(f"{rates[1]:.5g}"),
        "scaling_efficiency": round(rates[processes] / rates[1] / processes, 3),
        "precision": gan.half.precision,
        "mode": "compiled" if gan.compiles else "eager",
        "resolution": resolution,
        "batch": batch,
        "steps": steps,
        "threads": threads,
        "device": describe(device),
        **about_this_machine(device),
    }


def train_one(
    rank: int,
    processes: int,
    port: int,
    result: Path,
    model: dict[str, Any],
    device: str,
    resolution: int,
    batch: int,
    threads: int,
    steps: int,
) -> None:
    """Be one of so many processes that train; the first writes its seconds of each step."""
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(threads)
    keep_freed_memory()
    gan = build(model, GAN)
    give_cameras(gan)
    several = {"strategy": DDP(), "plugins": [LightningEnvironment()]} if processes > 1 else {}
    where = torch.device(device, rank) if device != "cpu" else torch.device(device)
    seconds = train_times(gan, where, resolution, batch, steps, devices=processes, **several)
    if rank == 0:
        result.write_text(json.dumps(seconds))
