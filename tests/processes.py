"""Callbacks, and a strategy, for runs in several processes: they write what each process saw, or make trouble."""

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from datamodules.base import ImageData
from zoo.draws import TrainingDraws
from zoo.evaluate.extractors import Extractor
from zoo.evaluate.protocol import score
from zoo.training import DDP, ddp, gan


class Keep(pl.Callback):
    """Writes, for each process, the state it ended in, and the losses and gradients of every iteration."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.losses: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer) -> None:
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        mine = [(name, p.grad) for name, p in pl_module.named_parameters() if id(p) in own and p.grad is not None]
        if mine:  # a step that is left out has none
            self.gradients.append({name: gradient.clone() for name, gradient in mine})

    def on_train_batch_end(self, trainer: pl.Trainer, *_) -> None:
        self.losses.append({name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("loss")})

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        kept = {"state": pl_module.state_dict(), "gradients": self.gradients, "losses": self.losses}
        torch.save(kept, Path(trainer.default_root_dir) / f"kept-{trainer.global_rank}.pt")


class Traffic(pl.Callback):
    """Notes the bytes of each reduction and broadcast of tensors between processes, by iteration."""

    def __init__(self) -> None:
        self.sent: list[list[tuple[str, int]]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name in ("all_reduce", "broadcast"):
            setattr(dist, name, self.noted(name, getattr(dist, name)))

    def noted(self, name: str, send: Callable[..., Any]) -> Callable[..., Any]:
        def noting(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            self.sent[-1].append((name, tensor.nbytes))
            return send(tensor, *args, **kwargs)

        return noting

    def on_train_batch_start(self, *_) -> None:
        self.sent.append([])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        (Path(trainer.default_root_dir) / f"sent-{trainer.global_rank}.json").write_text(json.dumps(self.sent))


class Means(nn.Module):
    """Mean colours of an image's 16 parts: features [B, 48]."""

    def forward(self, images: Tensor) -> Tensor:
        return avg_pool2d(images.float(), images.shape[-1] // 4).flatten(1)


def scores(generator: nn.Module, data: ImageData) -> dict[str, float]:
    """FID and KID of odd numbers of images."""
    return score(generator, data, Extractor("means", "none", "0", Means()), n_fake=7, n_real=9, batch_size=2).values


class ScoreAtEnd(pl.Callback):
    """Writes the scores that each process arrived at."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        values = scores(pl_module.sampler, trainer.datamodule)
        (Path(trainer.default_root_dir) / f"scores-{trainer.global_rank}.json").write_text(json.dumps(values))


class SplitDraws:
    """One process's rows of what a single process would draw for the batches of all."""

    def __init__(self, draws: TrainingDraws, rank: int, world: int) -> None:
        self.draws, self.rank, self.world = draws, rank, world
        self.shared = draws.shared

    def uniform(self, name: str, shape: Sequence[int]) -> Tensor:
        return self.draws.uniform(name, (shape[0] * self.world, *shape[1:]))[self.rank :: self.world]

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        return self.draws.normal(name, (shape[0] * self.world, *shape[1:]))[self.rank :: self.world]


class SameDraws(pl.Callback):
    """Lets several processes draw together what one with the larger batch would."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.draws = lambda: SplitDraws(
            TrainingDraws(pl_module.seed, pl_module.iterations, 0), trainer.global_rank, trainer.world_size
        )


class TorchDDP(DDP):
    """torch's own, which averages in the backward pass of the last loss before a step.

    Until it is known to be the last, a backward pass waits.
    """

    training_step = DDPStrategy.training_step

    def configure_ddp(self) -> None:
        self._ddp_kwargs = {"find_unused_parameters": True}
        DDPStrategy.configure_ddp(self)
        self.waiting, self.replacement = None, patch.object(gan, "average_gradients", self.average)
        self.replacement.start()

    def backward(self, *args: Any, **kwargs: Any) -> None:
        if self.waiting:
            with self.block_backward_sync():
                self.waiting()
        self.waiting = partial(super().backward, *args, **kwargs)

    def average(self, parameters: list[nn.Parameter]) -> None:
        self.waiting()
        self.waiting = None

    def teardown(self) -> None:
        self.replacement.stop()
        super().teardown()


class Exchange(pl.Callback):
    """Two processes exchange what is known, in one bucket and in many; and begin alike, and are after an iteration."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for parameter in pl_module.discriminator.parameters():
            parameter.data += trainer.global_rank

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for parameter in pl_module.discriminator.parameters():
            assert trainer.strategy.reduce(parameter.detach().clone(), reduce_op="mean").equal(parameter)
        pl_module.statistic = nn.Buffer(torch.full((2,), float(trainer.global_rank)))
        self.exchange(trainer.global_rank)
        with patch.object(ddp, "BUCKET_BYTES", 10):
            self.exchange(trainer.global_rank)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_) -> None:
        assert pl_module.statistic.tolist() == [0, 0]

    def exchange(self, rank: int) -> None:
        shapes, on_one = [(3,), (2, 3), (), (0, 4), (2, 2)], 1
        parameters = [
            nn.Parameter(torch.zeros(shape, dtype=torch.float64 if shape == () else None)) for shape in shapes
        ]
        unused, frozen = nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(2), requires_grad=False)
        for i, parameter in enumerate(parameters):
            if rank == 0 or i != on_one:
                parameter.grad = torch.full_like(parameter, 10.0 * i + rank)
        ddp.average_gradients([unused, *parameters, frozen])
        assert unused.grad is None and frozen.grad is None
        for i, parameter in enumerate(parameters):
            assert parameter.grad.equal(torch.full_like(parameter, 5.0 if i == on_one else 10 * i + 0.5)), (i, rank)

        network = nn.BatchNorm1d(2)
        network.shift, network.constant_buffers = nn.Buffer(torch.ones(2)), ("shift",)
        for buffer in network.buffers():
            buffer += rank
        ddp.broadcast(ddp.changing_buffers(network))
        assert network.running_mean.tolist() == [0, 0] and network.running_var.tolist() == [1, 1]
        assert network.num_batches_tracked == 0 and network.shift.tolist() == [1 + rank] * 2


class Trouble(pl.Callback):
    """After so many iterations one process gets a Ctrl-C, or raises an error.

    Args:
        at: iterations.
        rank: of the process.
        interrupt: a Ctrl-C instead of an error.
    """

    def __init__(self, at: int, rank: int, interrupt: bool = False) -> None:
        self.at, self.rank, self.interrupt = at, rank, interrupt

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_) -> None:
        if (pl_module.iterations, trainer.global_rank) == (self.at, self.rank):
            if not self.interrupt:
                raise RuntimeError(f"trouble on process {self.rank}")
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # until the handler has run


class Overflow(pl.Callback):
    """In the second iteration the first gradient that one process computes for each network is infinite.

    Args:
        rank: of the process.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # So low a scale that nothing else overflows.
        half = pl_module.half
        half.scalers = {name: torch.amp.GradScaler("cpu", init_scale=2.0**8) for name in half.scalers}

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_) -> None:
        if (pl_module.iterations, trainer.global_rank) == (1, self.rank):
            for network in (pl_module.generator, pl_module.discriminator):
                self.plant(next(network.parameters()))

    def plant(self, parameter: nn.Parameter) -> None:
        def once(gradient: Tensor) -> Tensor:
            handle.remove()
            return gradient + float("inf")

        handle = parameter.register_hook(once)
