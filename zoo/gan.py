"""What every system here is: two networks, two optimizers, averaged generators, two clocks.

A system's ``training_step`` is its paper's algorithm, written out in the paper's order. This base offers the words it
is written with: ``draws``, ``minimise`` (or its two halves ``accumulate`` and ``step``), ``frozen``, ``averages`` and
``count``. Removing every callback changes nothing that is learned.
"""

import logging
import math
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
from torch.distributed import ReduceOp
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from zoo.draws import SampleDraws, TrainingDraws
from zoo.errors import Stopped
from zoo.render import Rendered

log = logging.getLogger(__name__)

OptimizerFactory = Callable[[Iterable], Optimizer]


class NonFiniteLoss(Stopped):
    """A term of a loss became infinite or not a number; nothing was changed by it."""


class NonFiniteGradients(Stopped):
    """Finite losses had gradients that are not finite, too many times in a row; nothing was changed by them."""


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
        max_skips: steps in a row that are left out because gradients are not finite, before training stops.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        optimizer_g: OptimizerFactory,
        optimizer_d: OptimizerFactory,
        averages: dict[str, Average] | None = None,
        seed: int = 0,
        max_skips: int = 3,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator = generator, discriminator
        self.make_optimizer_g, self.make_optimizer_d = optimizer_g, optimizer_d
        self.averages = nn.ModuleDict(averages or {})
        for average in self.averages.values():
            average.follow(generator)
        self.seed, self.max_skips = seed, max_skips
        self.pending: list[
            tuple[str, list[str], Tensor]
        ] = []  # loss, names and values of its terms since the last step
        self.skips_in_row: dict[str, int] = {}  # by loss
        self.suspects: dict[str, list[str]] = {}  # terms whose own gradients are not finite, by loss
        self.skipped: dict[str, int] = {}  # steps left out since the start of training, by loss
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
        """
        values = torch.stack([term.detach().float() for term in terms.values()])
        self.pending.append((prefix, list(terms), values))
        if self.skips_in_row.get(prefix):
            self.suspects[prefix] = [name for name, term in terms.items() if not self.has_finite_gradients(term)]
        loss = sum(terms.values())
        self.log(prefix, loss.detach(), prog_bar=True)
        self.log_dict({f"{prefix}/{name}": term.detach() for name, term in terms.items()})
        strategy = self.trainer.strategy
        wait = not last and isinstance(strategy, DDPStrategy)
        with strategy.block_backward_sync() if wait else nullcontext():
            self.manual_backward(loss)

    def step(self, optimizer: LightningOptimizer, clip_norm: float | None = None) -> None:
        """One optimizer step with the accumulated gradients, which are then cleared.

        Before it, the losses and their gradients are looked at, for all processes alike. A loss that is not finite
        stops training. Where only gradients are not (a root or a norm at zero has such), the step is left out, told,
        and counted, up to ``max_skips`` times in a row; weights, averages and optimizers never see them.

        Only the generator's optimizer counts: ``trainer.global_step``, and with it ``max_steps``, checkpoint intervals
        and the loggers' axis, are iterations.
        """
        if optimizer is not self.optimizers()[0]:
            optimizer._on_before_step = optimizer._on_after_step = lambda: None
        norm = get_total_norm([p.grad for p in parameters(optimizer) if p.grad is not None])
        if self.is_sound(norm):
            if clip_norm is not None:
                clip_grads_with_norm_(parameters(optimizer), clip_norm, norm)
            optimizer.step()
        else:
            self.skip(optimizer)
        optimizer.zero_grad()
        self.pending.clear()

    def is_sound(self, norm: Tensor) -> bool:
        """Whether losses and gradients are finite on all processes; the one moment of a step that waits for the device.

        Raises:
            NonFiniteLoss: a term is not finite; named.
        """
        losses = torch.cat([values for _, _, values in self.pending])
        finite = torch.stack([losses.isfinite().all(), norm.isfinite()])
        if self.trainer.world_size > 1:
            finite = self.trainer.strategy.reduce(finite.int(), reduce_op=ReduceOp.MIN)
        finite_losses, finite_gradients = finite.tolist()
        if not finite_losses:
            raise self.stopped(
                NonFiniteLoss, f"The loss is not finite at iteration {self.iterations}: {self.terms(True)}."
            )
        if not finite_gradients:
            # Where losses are scaled for half precision, too large ones are the scaler's to deal with.
            return getattr(self.trainer.precision_plugin, "scaler", None) is not None
        for prefix, *_ in self.pending:
            self.skips_in_row.pop(prefix, None), self.suspects.pop(prefix, None)
        return True

    def skip(self, optimizer: LightningOptimizer) -> None:
        """Leave out a step, which counts as one: the clocks, and the data of the next iteration, go on as usual.

        Raises:
            NonFiniteGradients: this was one time too many in a row.
        """
        prefix = self.pending[-1][0]
        row = self.skips_in_row[prefix] = self.skips_in_row.get(prefix, 0) + 1
        mine = {id(p) for p in parameters(optimizer)}
        named = [(name, p.grad) for name, p in self.named_parameters() if id(p) in mine and p.grad is not None]
        bad = [name for name, gradient in named if not gradient.isfinite().all()] or ["their sum of squares"]
        # Known from the second time in a row on, when the gradients of each term are looked at for themselves.
        suspects = sorted({name for names in self.everyone(self.suspects.get(prefix, [])) for name in names})
        source = f", from {', '.join(f'{prefix}/{name}' for name in suspects)}" if suspects else ""
        fault = (
            f"The gradients of the {bad[0].split('.')[0]} are not finite at iteration {self.iterations}{source} "
            f"(in {bad[0]} and {len(bad) - 1} more; {self.terms(False)})"
        )
        if row > self.max_skips:
            times = f", {row} times in a row" if row > 1 else ""
            raise self.stopped(NonFiniteGradients, f"{fault}{times}. (--model.max_skips is {self.max_skips}.)")
        optimizer._on_before_step()
        optimizer._on_after_step()
        self.skipped[prefix] = self.skipped.get(prefix, 0) + 1
        for logger in self.loggers:
            logger.log_metrics({f"{prefix}/skipped": self.skipped[prefix]}, step=self.trainer.global_step)
        if self.global_rank == 0:
            log.warning("%s: this step is skipped, number %d of at most %d in a row.", fault, row, self.max_skips)

    def terms(self, only_bad: bool) -> str:
        """The terms of the losses since the last step and their values, on all processes."""
        said = [
            f"{prefix}/{name} is {value:.6g}"
            for prefix, names, values in self.pending
            for name, value in zip(names, values.tolist(), strict=True)
        ]
        processes = self.everyone(said)
        several = len(processes) > 1
        return ", ".join(
            text + (f" on process {rank}" if several else "")
            for rank, texts in enumerate(processes)
            for text in texts
            if not only_bad or not math.isfinite(float(text.split(" is ")[1]))
        )

    def everyone(self, value: list[str]) -> list[list[str]]:
        """What each process has here, in order; all have to ask."""
        if self.trainer.world_size == 1:
            return [value]
        values: list = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def stopped(self, kind: type[Stopped], fault: str) -> Stopped:
        """The error for all processes, of which the first one tells."""
        text = f"{fault} Training stopped before the weights were touched; the last checkpoint is good."
        return kind(text, silent=self.global_rank > 0)

    def has_finite_gradients(self, term: Tensor) -> bool:
        """Whether this term's own gradients are finite; the graph stays for the backward pass."""
        if not term.requires_grad:
            return True
        wanted = [p for p in self.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(term, wanted, retain_graph=True, allow_unused=True)
        return all(bool(gradient.isfinite().all()) for gradient in gradients if gradient is not None)

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
        checkpoint["skipped"] = dict(self.skipped)
        checkpoint["config"] = self.config

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.iterations = checkpoint["clocks"]["iterations"]
        self.images_seen = checkpoint["clocks"]["images_seen"]
        self.seconds = checkpoint["clocks"].get("seconds", 0.0)
        self.skipped = dict(checkpoint.get("skipped", {}))


def parameters(optimizer: LightningOptimizer) -> list[nn.Parameter]:
    """All that it trains."""
    return [p for group in optimizer.param_groups for p in group["params"]]


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Gradients pass through the network but none are kept for its parameters."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
