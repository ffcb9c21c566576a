"""What every system here is: two networks, two optimizers, averaged generators, two clocks.

A system's ``training_step`` is its paper's algorithm, written out in the paper's order. This base offers the words it
is written with: ``draws``, ``minimise`` (or its two halves ``accumulate`` and ``step``), ``frozen``, ``averages`` and
``count``. Removing every callback changes nothing that is learned.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.draws import SampleDraws, TrainingDraws
from zoo.render import Rendered

OptimizerFactory = Callable[[Iterable], Optimizer]


class NonFiniteLoss(RuntimeError):
    """A term of a loss became infinite or not a number; nothing was changed by it."""


class WarmUp:
    """Decay that starts low, min(limit, (1 + n) / (10 + n)) at update n, so that early averages forget the start."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def __call__(self, updates: int) -> float:
        return min(self.limit, (1 + updates) / (10 + updates))


class Average(nn.Module):
    """A generator whose parameters are a running average of the trained one's.

    Args:
        decay: share of the old average in the new one: a number, or a function of the number of this update (from 1).
        buffers: what becomes of buffers: copied, averaged like parameters, or kept as they were at the start.
    """

    def __init__(
        self, decay: float | Callable[[int], float] = 0.999, buffers: Literal["copy", "lerp", "keep"] = "copy"
    ) -> None:
        super().__init__()
        self.decay, self.buffer_rule = decay, buffers
        self.updates = 0

    def follow(self, generator: nn.Module) -> None:
        """Start as a copy of this generator."""
        self.module = deepcopy(generator).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, generator: nn.Module) -> None:
        """Move towards the generator."""
        self.updates += 1
        share = 1 - (self.decay(self.updates) if callable(self.decay) else self.decay)
        for mine, new in zip(self.module.parameters(), generator.parameters(), strict=True):
            mine.lerp_(new, share)
        for mine, new in zip(self.module.buffers(), generator.buffers(), strict=True):
            if self.buffer_rule == "copy":
                mine.copy_(new)
            elif self.buffer_rule == "lerp":
                mine.lerp_(new, share)

    def get_extra_state(self) -> dict[str, int]:
        return {"updates": self.updates}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.updates = state["updates"]


class GAN(pl.LightningModule):
    """Base of all systems.

    Args:
        generator: answers the interface that ``zoo.pigan.Generator`` shows.
        discriminator: scores images.
        optimizer_g, optimizer_d: make an optimizer from parameters.
        averages: averaged generators by name; the first one is what samples, scores and weights are made from.
        seed: of every random number drawn in training.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        optimizer_g: OptimizerFactory,
        optimizer_d: OptimizerFactory,
        averages: dict[str, Average] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator = generator, discriminator
        self.make_optimizer_g, self.make_optimizer_d = optimizer_g, optimizer_d
        self.averages = nn.ModuleDict(averages or {})
        for average in self.averages.values():
            average.follow(generator)
        self.seed = seed
        self.iterations = 0
        self.images_seen = 0
        self.seconds = 0.0  # of training, over all runs that were resumed
        self.started: float | None = None
        self.config: dict[str, Any] | None = None

    def configure_optimizers(self) -> list[Optimizer]:
        return [
            self.make_optimizer_g(self.generator.parameters()),
            self.make_optimizer_d(self.discriminator.parameters()),
        ]

    @property
    def sampler(self) -> nn.Module:
        """The generator to draw samples from: the first average, or the trained one where there is none."""
        return next(iter(self.averages.values())).module if self.averages else self.generator

    def draws(self) -> TrainingDraws:
        """This iteration's random numbers, a function of (seed, iterations, rank)."""
        return TrainingDraws(self.seed, self.iterations, self.global_rank, self.device)

    def accumulate(self, prefix: str, terms: dict[str, Tensor], *, last: bool = True) -> None:
        """Add the gradient of the sum of the terms, and log each of them as ``prefix/name``.

        Args:
            prefix: name of the loss, ``loss_g`` or ``loss_d``; its sum is logged under it.
            terms: the loss, by term.
            last: gradients are synchronised between processes only on the last call before ``step``.

        Raises:
            NonFiniteLoss: a term is not finite; named.
        """
        values = torch.stack([term.detach().float() for term in terms.values()])
        if not values.isfinite().all():
            bad = ", ".join(f"{prefix}/{name} is {value}" for name, value in zip(terms, values.tolist(), strict=True))
            raise NonFiniteLoss(
                f"The loss is not finite at iteration {self.iterations}: {bad}. "
                "Training stopped before the weights were touched; the last checkpoint is good."
            )
        loss = sum(terms.values())
        self.log(prefix, loss.detach(), prog_bar=True)
        self.log_dict({f"{prefix}/{name}": term.detach() for name, term in terms.items()})
        strategy = self.trainer.strategy
        wait = not last and isinstance(strategy, DDPStrategy)
        with strategy.block_backward_sync() if wait else nullcontext():
            self.manual_backward(loss)

    def step(self, optimizer: LightningOptimizer, clip_norm: float | None = None) -> None:
        """One optimizer step with the accumulated gradients, which are then cleared.

        Only the generator's optimizer counts: ``trainer.global_step``, and with it ``max_steps``, checkpoint intervals
        and the loggers' axis, are iterations.
        """
        if clip_norm is not None:
            self.clip_gradients(optimizer, clip_norm, "norm")
        if optimizer is not self.optimizers()[0]:
            optimizer._on_before_step = optimizer._on_after_step = lambda: None
        optimizer.step()
        optimizer.zero_grad()

    def minimise(
        self, optimizer: LightningOptimizer, prefix: str, terms: dict[str, Tensor], clip_norm: float | None = None
    ) -> None:
        """``accumulate`` and ``step``."""
        self.accumulate(prefix, terms)
        self.step(optimizer, clip_norm)

    def count(self, images: int) -> None:
        """Move both clocks; the last line of every ``training_step``.

        Args:
            images: real images of this iteration on this process.
        """
        self.iterations += 1
        self.images_seen += images * self.trainer.world_size

    def on_train_start(self) -> None:
        self.started = time.monotonic() - self.seconds

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing is learned or measured here: scores are a callback's."""

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """As ``validation_step``."""

    def predict_step(self, indices: Tensor) -> Rendered:
        """The samples with these indices [B]."""
        draws = SampleDraws(self.seed, indices.tolist(), self.device)
        styles = self.sampler.map(self.sampler.latents(len(indices), draws))
        return self.sampler.render(styles, self.sampler.cameras(len(indices), draws), draws=draws)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.started is not None:
            self.seconds = time.monotonic() - self.started
        clocks = {"iterations": self.iterations, "images_seen": self.images_seen, "seconds": round(self.seconds, 1)}
        checkpoint["clocks"] = clocks
        checkpoint["config"] = self.config

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.iterations = checkpoint["clocks"]["iterations"]
        self.images_seen = checkpoint["clocks"]["images_seen"]
        self.seconds = checkpoint["clocks"].get("seconds", 0.0)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Gradients pass through the network but none are kept for its parameters."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
