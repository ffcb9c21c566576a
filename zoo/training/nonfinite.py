"""Losses and gradients that are not finite: seen on all processes alike, before any weight is changed by them.

A loss that is not finite stops training. Where only gradients are not (a root or a norm at zero has such), the step is
skipped, logged and counted, up to so many times in a row.
"""

import logging
import math

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.distributed import ReduceOp

from zoo.utils.errors import Stopped

log = logging.getLogger(__name__)


class NonFiniteLoss(Stopped):
    """A term of a loss became infinite or not a number; nothing was changed by it."""


class NonFiniteGradients(Stopped):
    """Finite losses had gradients that are not finite, too many times in a row; nothing was changed by them."""


def parameters(optimizer: LightningOptimizer) -> list[nn.Parameter]:
    """All that it trains."""
    return [p for group in optimizer.param_groups for p in group["params"]]


class NonFiniteGuard:
    """Watches the steps of a model.

    Args:
        max_skips: steps in a row that are left out because gradients are not finite, before training stops.
    """

    def __init__(self, max_skips: int) -> None:
        self.max_skips = max_skips
        self.pending: list[tuple[str, list[str], Tensor]] = []  # losses since the last step, names of terms and values
        self.in_row: dict[str, int] = {}  # steps left out in a row, by loss
        self.suspects: dict[str, list[str]] = {}  # terms whose own gradients are not finite, by loss
        self.skipped: dict[str, int] = {}  # steps left out since the start of training, by loss

    def note(self, model: LightningModule, prefix: str, terms: dict[str, Tensor]) -> None:
        """Remember a loss whose gradients are about to be computed."""
        values = torch.stack([term.detach().float() for term in terms.values()])
        self.pending.append((prefix, [f"{prefix}/{name}" for name in terms], values))
        if self.in_row.get(prefix):
            self.suspects[prefix] = [name for name, term in terms.items() if not has_finite_gradients(term, model)]

    def read(self, model: LightningModule, norm: Tensor, scales: Tensor | None) -> tuple[bool, bool, list[float]]:
        """What a step depends on, read at once: the one moment of it that waits for the device.

        Args:
            norm: length of all gradients together.
            scales: of the loss, where it is scaled.

        Returns:
            whether losses, and whether gradients, are finite on all processes, and the scales.
        """
        losses = torch.cat([values for _, _, values in self.pending])
        finite = torch.stack([losses.isfinite().all(), norm.isfinite()])
        if model.trainer.world_size > 1:
            finite = model.trainer.strategy.reduce(finite.int(), reduce_op=ReduceOp.MIN)
        facts = finite.float() if scales is None else torch.cat([finite.float(), scales])
        finite_losses, finite_gradients, *read = facts.tolist()
        return bool(finite_losses), bool(finite_gradients), read

    def is_finite(
        self,
        model: LightningModule,
        optimizer: LightningOptimizer,
        finite_losses: bool,
        finite_gradients: bool,
        overflowed: bool,
    ) -> bool:
        """Whether a step may change weights.

        Args:
            optimizer: whose step is left out if not.
            finite_losses, finite_gradients: as ``read`` found them.
            overflowed: whether the next loss is scaled less for it, and nothing logged or counted.

        Raises:
            NonFiniteLoss: a term is not finite; named.
            NonFiniteGradients: this step would be left out, as too many in a row were.
        """
        if not finite_losses:
            fault = f"The loss is not finite at iteration {model.iterations}: {self.terms(model, only_bad=True)}."
            raise stop_error(NonFiniteLoss, model, fault)
        if finite_gradients and not overflowed:
            for prefix, *_ in self.pending:
                self.in_row.pop(prefix, None), self.suspects.pop(prefix, None)
        elif not overflowed:
            self.skip(model, optimizer)
        self.pending.clear()
        return finite_gradients and not overflowed

    def skip(self, model: LightningModule, optimizer: LightningOptimizer) -> None:
        """Log and count a step that is skipped, or stop."""
        prefix = self.pending[-1][0]
        row = self.in_row[prefix] = self.in_row.get(prefix, 0) + 1
        own = {id(p) for p in parameters(optimizer)}
        gradients = [(name, p.grad) for name, p in model.named_parameters() if id(p) in own and p.grad is not None]
        bad = [name for name, gradient in gradients if not gradient.isfinite().all()] or ["their sum of squares"]
        # Known from the second time in a row on, when the gradients of each term are looked at for themselves.
        suspects = sorted({name for names in gather_objects(model, self.suspects.get(prefix, [])) for name in names})
        source = f", from {', '.join(f'{prefix}/{name}' for name in suspects)}" if suspects else ""
        fault = (
            f"The gradients of the {bad[0].split('.')[0]} are not finite at iteration {model.iterations}{source} "
            f"(in {bad[0]} and {len(bad) - 1} more; {self.terms(model)})"
        )
        if row > self.max_skips:
            times = f", {row} times in a row" if row > 1 else ""
            fault = f"{fault}{times}. (--model.max_skips is {self.max_skips}.)"
            raise stop_error(NonFiniteGradients, model, fault)
        self.skipped[prefix] = self.skipped.get(prefix, 0) + 1
        for logger in model.loggers:
            logger.log_metrics({f"{prefix}/skipped": self.skipped[prefix]}, step=model.trainer.global_step)
        if model.global_rank == 0:
            log.warning("%s: this step is skipped, number %d of at most %d in a row.", fault, row, self.max_skips)

    def terms(self, model: LightningModule, only_bad: bool = False) -> str:
        """The terms of the losses since the last step and their values, on all processes."""
        pairs = [zip(names, values.tolist(), strict=True) for _, names, values in self.pending]
        processes = gather_objects(model, [pair for loss in pairs for pair in loss])
        return ", ".join(
            f"{name} is {value:.6g}" + (f" on process {rank}" if len(processes) > 1 else "")
            for rank, theirs in enumerate(processes)
            for name, value in theirs
            if not only_bad or not math.isfinite(value)
        )


def gather_objects(model: LightningModule, value: list) -> list[list]:
    """This value of each process, in order; all processes must call this."""
    if model.trainer.world_size == 1:
        return [value]
    values: list = [None] * model.trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def stop_error(kind: type[Stopped], model: LightningModule, fault: str) -> Stopped:
    """The error for all processes, of which only the first prints it."""
    text = f"{fault} Training stopped before the weights were touched; the last checkpoint is good."
    return kind(text, silent=model.global_rank > 0)


def has_finite_gradients(term: Tensor, model: nn.Module) -> bool:
    """Whether this term's own gradients are finite; the graph stays for the backward pass."""
    if not term.requires_grad:
        return True
    wanted = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(term, wanted, retain_graph=True, allow_unused=True)
    return all(bool(gradient.isfinite().all()) for gradient in gradients if gradient is not None)
