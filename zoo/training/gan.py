"""What every system here is: two networks, two optimizers, averaged generators, two clocks.

A system's ``training_step`` is its paper's algorithm, written out in the paper's order. This base offers the words it
is written with: ``draws``, ``minimise`` (or its two halves ``accumulate`` and ``step``), ``frozen``, ``averages`` and
``count``. Removing every callback changes nothing that is learned.
"""

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from zoo.draws import SampleDraws, TrainingDraws
from zoo.render import Rendered
from zoo.training import resume
from zoo.training.averages import Average
from zoo.training.nonfinite import Faults, NonFiniteLoss, parameters, stopped
from zoo.training.optimizers import OptimizerFactory
from zoo.training.precision import HalfPrecision, Precision
from zoo.utils.old_names import renamed_tensors

MAX_LOSS_SCALE = 2.0**24  # where gradients are zero it would grow without end, and take as many skipped steps to return


class GAN(pl.LightningModule):
    """Base of all systems.

    Args:
        generator: a ``zoo.generator.Generator``, or what answers as it does.
        discriminator: scores images.
        optimizer_g, optimizer_d: make an optimizer from parameters.
        averages: averaged generators by name; the first one is what samples, scores and weights are made from.
        seed: of every random number drawn in training.
        precision: in which ``networks_2d`` compute; all else, and all regularisers, compute in float32.
        max_skips: steps in a row that are left out because gradients are not finite, before training stops.
    """

    networks_2d = ("discriminator",)  # a system with two-dimensional networks in its generator adds their names

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        optimizer_g: OptimizerFactory,
        optimizer_d: OptimizerFactory,
        averages: dict[str, Average] | None = None,
        seed: int = 0,
        precision: Precision = "float32",
        max_skips: int = 3,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator = generator, discriminator
        self.make_optimizer_g, self.make_optimizer_d = optimizer_g, optimizer_d
        self.averages = nn.ModuleDict(averages or {})
        for average in self.averages.values():
            average.follow(generator)
        self.seed, self.precision, self.faults = seed, precision, Faults(max_skips)
        self.half: HalfPrecision | None = None
        if precision != "float32":  # after the averages were copied: what samples are made from stays float32
            self.half = HalfPrecision([self.get_submodule(name) for name in self.networks_2d], precision)
        self.scalers: dict[str, torch.amp.GradScaler] = {}
        self.iterations = 0
        self.images_seen = 0
        self.seconds = 0.0  # of training, over all runs that were resumed
        self.started: float | None = None
        self.config: dict[str, Any] | None = None  # of the model and of the data, as yaml would hold them
        self.data_config: dict[str, Any] | None = None
        self.settings: list[dict[str, Any]] = []  # of the optimizers, as they were made
        self.resumed: dict[str, Any] = {}  # what of a checkpoint is needed once the optimizers are there

    def configure_optimizers(self) -> list[Optimizer]:
        return [
            self.make_optimizer_g(self.generator.named_parameters("generator")),
            self.make_optimizer_d(self.discriminator.named_parameters("discriminator")),
        ]

    @property
    def sampler(self) -> nn.Module:
        """The generator to draw samples from: the first average, or the trained one where there is none."""
        return next(iter(self.averages.values())).module if self.averages else self.generator

    def draws(self) -> TrainingDraws:
        """This iteration's random numbers, a function of (seed, iterations, rank)."""
        return TrainingDraws(self.seed, self.iterations, self.global_rank, self.device, self.dtype)

    def accumulate(self, prefix: str, terms: dict[str, Tensor], *, last: bool = True) -> None:
        """Add the gradient of the sum of the terms, and log each of them as ``prefix/name``.

        Args:
            prefix: name of the loss, ``loss_g`` or ``loss_d``; its sum is logged under it.
            terms: the loss, by term.
            last: gradients are synchronised between processes only on the last call before ``step``.
        """
        self.faults.note(self, prefix, terms)
        loss = sum(terms.values())
        self.log(prefix, loss.detach(), prog_bar=True)
        self.log_dict({f"{prefix}/{name}": term.detach() for name, term in terms.items()})
        strategy = self.trainer.strategy
        wait = not last and isinstance(strategy, DDPStrategy)
        with strategy.block_backward_sync() if wait else nullcontext():
            self.manual_backward(self.scalers[prefix].scale(loss) if self.scales_losses else loss)

    def step(self, optimizer: LightningOptimizer, clip_norm: float | None = None) -> None:
        """One optimizer step with the accumulated gradients, which are then cleared.

        Gradients that are not finite, or not made so by ``sanitise``, change nothing, see ``zoo.training.nonfinite``.
        With fp16, where a loss that was scaled too much has such, that is looked for first, and the next loss is scaled
        less.

        Only the generator's optimizer counts: ``trainer.global_step``, and with it ``max_steps``, checkpoint intervals
        and the loggers' axis, are iterations. Steps that are left out count all the same.

        Raises:
            NonFiniteLoss: the loss is not finite, or gradients of fp16 overflow however little it is scaled.
            NonFiniteGradients: gradients were not finite too many times in a row.
        """
        if optimizer is not self.optimizers()[0]:
            optimizer._on_before_step = optimizer._on_after_step = lambda: None
        overflowed = self.scales_losses and self.unscale(optimizer)
        if not overflowed:
            self.sanitise(optimizer)
        norm = get_total_norm([p.grad for p in parameters(optimizer) if p.grad is not None])
        if self.faults.are_none(self, norm):
            if clip_norm is not None:
                clip_grads_with_norm_(parameters(optimizer), clip_norm, norm)
            optimizer.step()
        else:
            if not overflowed:
                self.faults.skip(self, optimizer)
            optimizer._on_before_step()
            optimizer._on_after_step()
        optimizer.zero_grad()
        self.faults.pending.clear()

    def sanitise(self, optimizer: LightningOptimizer) -> None:
        """What a paper makes of gradients, unscaled ones, before they are looked at and used; here nothing."""

    @property
    def scales_losses(self) -> bool:
        """Whether losses are scaled now: with fp16, but not where nothing computes in it."""
        return bool(self.scalers) and not self.half.is_paused

    def unscale(self, optimizer: LightningOptimizer) -> bool:
        """Divide gradients by the scale of their loss, choose the next one, and say whether any is not finite."""
        prefix = "loss_g" if optimizer is self.optimizers()[0] else "loss_d"
        scaler = self.scalers[prefix]
        scaler.unscale_(optimizer.optimizer)
        before = scaler.get_scale()
        scaler.update()
        after = scaler.get_scale()
        if after > MAX_LOSS_SCALE:
            scaler.update(MAX_LOSS_SCALE)
        self.log(f"{prefix}/scale", before)
        if after < min(before, 1):
            raise stopped(
                NonFiniteLoss,
                self,
                f"Gradients in fp16 are not finite at iteration {self.iterations}, even with a loss scale of {before}: "
                "go on with --model.precision bf16 or float32.",
            )
        return after < before

    def full_precision(self) -> AbstractContextManager:
        """Inside, every network computes in float32: for regularisers, which differentiate twice.

        What is accumulated and stepped inside, too, is not scaled: its gradients cannot overflow.
        """
        return nullcontext() if self.half is None else self.half.paused()

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

    def on_fit_start(self) -> None:
        if self.trainer.precision != "32-true":
            raise ValueError(
                f"--trainer.precision {self.trainer.precision} would change the renderer, too: leave it out and give "
                "--model.precision bf16 or fp16, which keeps the renderer in float32."
            )
        if self.precision == "fp16":
            self.scalers = {name: torch.amp.GradScaler(self.device.type) for name in ("loss_g", "loss_d")}
            for name, state in self.resumed.get("scalers", {}).items():
                self.scalers[name].load_state_dict(state)
        self.settings = resume.settings(self.optimizers(use_pl_optimizer=False))
        if self.resumed.get("settings"):
            resume.check_optimizers(self.resumed["settings"], self.settings)
        for optimizer in self.optimizers(use_pl_optimizer=False) if self.resumed else []:
            by_name = partial(resume.by_name, order=self.resumed["tensors"], model=self)
            optimizer.register_load_state_dict_pre_hook(by_name)

    def on_train_start(self) -> None:
        if self.resumed.get("settings"):  # Lightning has restored the checkpoint's own since on_fit_start
            optimizers = self.optimizers(use_pl_optimizer=False)
            changes = resume.apply_changes(self.resumed["settings"], self.settings, optimizers)
            self.tell(changes if not (self.config and self.resumed["config"]) else [])  # told with the config's
        self.resumed = {}
        self.started = time.monotonic() - self.seconds

    def tell(self, changes: list[str]) -> None:
        """Say what is not as it was when the checkpoint was written; once, however many processes there are."""
        for line in changes if self.global_rank == 0 else []:
            print(f"resume: {line}", file=sys.stderr)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing is learned or measured here: scores are a callback's."""

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """As ``validation_step``."""

    def predict_step(self, indices: Tensor) -> Rendered:
        """The samples with these indices [B]."""
        draws = SampleDraws(self.seed, indices.tolist(), self.device, self.dtype)
        styles = self.sampler.map(self.sampler.latents(len(indices), draws))
        return self.sampler.render(styles, self.sampler.cameras(len(indices), draws), draws=draws)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.started is not None:
            self.seconds = time.monotonic() - self.started
        clocks = {"iterations": self.iterations, "images_seen": self.images_seen, "seconds": round(self.seconds, 1)}
        checkpoint |= {
            "clocks": clocks,
            "config": self.config,
            "data_config": self.data_config,
            "processes": self.trainer.world_size,
            "settings": self.settings,
            "scalers": {name: scaler.state_dict() for name, scaler in self.scalers.items()},
            "skipped": dict(self.faults.skipped),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = renamed_tensors(checkpoint["state_dict"], self)
        is_fit = self._trainer is not None and self.trainer.state.fn == "fit"
        resume.check_fits(checkpoint, self.state_dict(), self.trainer.world_size if is_fit else None)
        self.tell(resume.config_changes(checkpoint.get("config"), self.config, "model"))
        self.tell(resume.config_changes(checkpoint.get("data_config"), self.data_config, "data"))
        self.iterations = checkpoint["clocks"]["iterations"]
        self.images_seen = checkpoint["clocks"]["images_seen"]
        self.seconds = checkpoint["clocks"].get("seconds", 0.0)
        self.faults.skipped = dict(checkpoint.get("skipped", {}))
        self.resumed = {name: checkpoint[name] for name in ("settings", "scalers", "config") if name in checkpoint}
        self.resumed["tensors"] = list(checkpoint["state_dict"])
