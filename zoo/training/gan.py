"""What every system here is: two networks, two optimizers, EMAs of the generator, two clocks.

A system's ``training_step`` is its paper's algorithm, written out in the paper's order. This base offers the words it
is written with: ``draws``, ``minimise`` (or its two halves ``accumulate`` and ``step``), ``full_precision``,
``update_emas`` and ``count``. Removing every callback changes nothing that is learned.
"""

from contextlib import AbstractContextManager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from zoo import layers
from zoo.draws import TrainingDraws
from zoo.generator import render_samples
from zoo.render import DatasetPoses, Rendered
from zoo.render.plan import share_plan
from zoo.training import resume
from zoo.training.channels_last import match_layout, use_channels_last
from zoo.training.compiling import compile_networks
from zoo.training.ddp import average_gradients
from zoo.training.ema import EMA
from zoo.training.nonfinite import NonFiniteGuard, parameters
from zoo.training.optimizers import OptimizerFactory, check_optimizer, use_fused
from zoo.training.precision import HalfPrecision, Precision
from zoo.utils.devices import allow_tf32
from zoo.utils.errors import UserError
from zoo.utils.ranges import at_least, finite


class GAN(pl.LightningModule):
    """Base of all systems.

    Args:
        generator: a ``zoo.generator.Generator``, or what answers as it does.
        discriminator: scores images.
        optimizer_g, optimizer_d: make an optimizer from named parameters.
        emas: EMAs of the generator by name; samples, scores and bundles are those of the first.
        seed: of every random number drawn in training.
        precision: in which ``networks_2d`` compute; all else, and all regularisers, compute in float32.
        max_skips: steps in a row that are left out because gradients are not finite, before training stops.
        plain: layers are computed in torch's own way, and never in a faster one of ours, see ``zoo.layers.plain``.
        tf32: whether GPUs may round what they multiply to 10 bits, see ``zoo.utils.devices.allow_tf32``.
        compile: fields and 2D networks are trained as compiled code, see ``zoo.training.compiling``.
    """

    compiled_fields = ("generator.field",)  # by ``compile``, for any number of points; a system with others names them
    compiled_networks = ("discriminator",)  # by ``compile``, for each size of their inputs
    networks_2d = ("discriminator",)  # a system with two-dimensional networks in its generator adds their names

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        optimizer_g: OptimizerFactory,
        optimizer_d: OptimizerFactory,
        emas: dict[str, EMA] | None = None,
        seed: int = 0,
        precision: Precision = "float32",
        max_skips: int = 3,
        plain: bool = False,
        tf32: bool = False,
        compile: bool = False,
    ) -> None:
        finite(self, seed=seed)
        at_least(0, self, max_skips=max_skips)
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator = generator, discriminator
        check_optimizer("optimizer_g", optimizer_g)
        check_optimizer("optimizer_d", optimizer_d)
        self.make_optimizer_g, self.make_optimizer_d = optimizer_g, optimizer_d
        self.emas = nn.ModuleDict(emas or {})
        for ema in self.emas.values():
            ema.init_from(generator)
        self.seed, self.guard = seed, NonFiniteGuard(max_skips)
        self.plan, self.tf32 = share_plan(self), tf32
        if plain:
            self.training_step = layers.plain()(self.training_step)
        # After the EMAs were copied, so that they stay float32.
        self.half = HalfPrecision([self.get_submodule(name) for name in self.networks_2d], precision)
        self.compiles = compile
        self.iterations = self.images_seen = 0
        self.seconds, self.started = 0.0, None  # of training, over all runs that were resumed, and the time it started
        self.config = self.data_config = None  # of the model and of the data, as yaml would hold them
        self.settings: list[dict[str, Any]] = []  # of the optimizers, as they were made
        self.resumed: dict[str, Any] = {}  # what of a checkpoint is needed once the optimizers are there

    def configure_optimizers(self) -> list[Optimizer]:
        return [
            self.make_optimizer_g(self.generator.named_parameters("generator")),
            self.make_optimizer_d(self.discriminator.named_parameters("discriminator")),
        ]

    def stage_starts(self) -> list[int]:
        """First iterations of the stages of training; [0] where it has none."""
        return [stage.start for stage in getattr(self, "stages", [])] or [0]

    @property
    def sampler(self) -> nn.Module:
        """The generator to draw samples from: the first EMA, or the trained one where there is none."""
        return next(iter(self.emas.values())).module if self.emas else self.generator

    def draws(self) -> TrainingDraws:
        """This iteration's random numbers, a function of (seed, iterations, rank)."""
        return TrainingDraws(self.seed, self.iterations, self.global_rank, self.device, self.dtype)

    def full_precision(self) -> AbstractContextManager:
        """Inside, every network computes in float32 and without compiled code: for what is differentiated twice."""
        return self.half.paused()

    def minimise(self, optimizer: LightningOptimizer, prefix: str, terms: dict[str, Tensor], **how: Any) -> None:
        """``accumulate`` and ``step``."""
        self.accumulate(prefix, terms)
        self.step(optimizer, **how)

    def accumulate(self, prefix: str, terms: dict[str, Tensor]) -> None:
        """Add the gradient of the sum of the terms, and log each of them as ``prefix/name``.

        Args:
            prefix: name of the loss, ``loss_g`` or ``loss_d``; its sum is logged under it.
            terms: the loss, by term.
        """
        self.guard.note(self, prefix, terms)
        loss = sum(terms.values())
        self.log(prefix, loss.detach(), prog_bar=True)
        self.log_dict({f"{prefix}/{name}": term.detach() for name, term in terms.items()})
        self.manual_backward(self.half.scaled(loss, prefix))

    def step(self, optimizer: LightningOptimizer, *, clip_norm: float | None = None, counted: bool = True) -> None:
        """One optimizer step with the accumulated gradients, averaged over all processes, which are then cleared.

        Gradients that are not finite, or not made so by ``sanitise``, change nothing, see ``zoo.training.nonfinite``.

        Args:
            clip_norm: longest that all gradients together may be.
            counted: False for a regulariser's own step. Of the generator's other steps, one an iteration, Lightning
                counts each, also one that changes nothing: so ``max_steps``, intervals and loggers mean iterations.

        Raises:
            NonFiniteLoss: the loss is not finite, or gradients of fp16 overflow however little it is scaled.
            NonFiniteGradients: gradients were not finite too many times in a row.
        """
        is_generator = optimizer is self.optimizers()[0]
        average_gradients(parameters(optimizer))
        name = "loss_g" if is_generator else "loss_d"
        scales = self.half.unscale(self, optimizer, name)
        self.sanitise(optimizer)
        norm = get_total_norm([p.grad for p in parameters(optimizer) if p.grad is not None])
        *finite, scales = self.guard.read(self, norm, scales)
        overflowed = bool(scales) and self.half.has_overflowed(self, name, *scales)
        if not self.guard.is_finite(self, optimizer, *finite, overflowed):
            optimizer.zero_grad()  # a step without gradients changes nothing
        elif clip_norm is not None:
            clip_grads_with_norm_(parameters(optimizer), clip_norm, norm)
        if is_generator and counted:
            optimizer.step()
        else:
            self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)
        optimizer.zero_grad()

    def sanitise(self, optimizer: LightningOptimizer) -> None:
        """What a paper makes of gradients, unscaled ones, before they are looked at and used; here nothing.

        Gradients of fp16 that have overflowed are not used, whatever it makes of them.
        """

    def update_emas(self) -> None:
        """Update all EMAs of the generator."""
        for ema in self.emas.values():
            ema.update(self.generator)

    def count(self, images: int) -> None:
        """Move both clocks by so many real images of this process; the last line of every ``training_step``."""
        self.iterations += 1
        self.images_seen += images * self.trainer.world_size

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing is learned or measured here: scores are a callback's."""

    test_step = validation_step

    def predict_step(self, indices: Tensor) -> Rendered:
        """The samples with these indices [B]."""
        return render_samples(self.sampler, indices.tolist(), self.seed)

    def fill_poses(self, data: Any) -> None:
        """Give the cameras of the training images to the generators that draw from them.

        Args:
            data: the datamodule.

        Raises:
            UserError: its images have no cameras.
        """
        poses = [module for module in self.modules() if isinstance(module, DatasetPoses)]
        camera = data.cameras() if poses and hasattr(data, "cameras") else None
        if poses and camera is None:
            raise UserError(
                "DatasetPoses draws from the cameras of the training images, but these have none: give images with "
                "cameras or, to a system that needs none, another distribution as --model.generator.poses."
            )
        for each in poses:
            each.fill(camera)

    def setup(self, stage: str) -> None:
        allow_tf32(self.tf32)

    def on_fit_start(self) -> None:
        if self.trainer.datamodule is not None:
            self.fill_poses(self.trainer.datamodule)
        self.plan.report = rank_zero_info
        self.half.start(self, self.resumed.get("scalers", {}))
        use_channels_last(self)
        if self.compiles:
            compile_networks(self)
        for optimizer in self.optimizers(use_pl_optimizer=False):
            use_fused(optimizer)
        resume.start(self)

    def on_train_start(self) -> None:
        for optimizer in self.optimizers(use_pl_optimizer=False):
            match_layout(optimizer)
        resume.finish(self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= resume.state(self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        resume.load(self, checkpoint)
