"""How CIPS-3D is trained: in stages, on all rays or on some of them."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.cips3d.discriminator import Discriminator
from zoo.cips3d.model import Augment, Generator, Latent
from zoo.draws import Draws
from zoo.losses import logistic_fake, logistic_real, r1_penalty
from zoo.training.gan import GAN
from zoo.training.optimizers import frozen, set_learning_rates
from zoo.training.schedules import check_stages, current_stage, ramp_down, ramp_up
from zoo.utils.errors import UserError
from zoo.utils.protocols import check_call
from zoo.utils.ranges import at_least, between, given


@dataclass(frozen=True)
class Stage:
    """Part of a curriculum, a run of its own in the published program; the images' resolution is the data's to say.

    Args:
        start: its first iteration. All that is counted in iterations counts from here, and optimizers start anew.
        lr_g, lr_d: learning rates; None for those that the optimizers were made with.
        auxiliary_every: the auxiliary discriminator takes part every so many iterations; 0 for never.
        fade_iterations: the discriminator's newest level is blended in over these; 0 for at once.
        noise_iterations: the noise on densities falls linearly from 1 to 0 over these; 0 for no noise.
        augment: changes what the discriminator sees, such as ``zoo.layers.diffaugment.diffaugment``.
        frozen: parts of the generator that don't learn, such as "field"; they start from the first EMA's.
        gradient_rays: the generator learns from so many rays of each image; None for all.
        batch_split: slices of the batch that are generated one after the other, for memory; the generator's gradient is
            their sum, as published.
        ema_start: iterations before the EMAs are updated.
        samples: along each ray in training, see ``Generator.render``; in evaluation, the renderer's own number.
    """

    start: int = 0
    lr_g: float | None = None
    lr_d: float | None = None
    auxiliary_every: int = 1
    fade_iterations: int = 0
    noise_iterations: int = 5000
    augment: Augment | None = None
    frozen: tuple[str, ...] = ()
    gradient_rays: int | None = None
    batch_split: int = 1
    ema_start: int = 1000
    samples: int | None = None

    def __post_init__(self) -> None:
        at_least(0, self, start=self.start, **given(lr_g=self.lr_g, lr_d=self.lr_d))
        at_least(0, self, fade_iterations=self.fade_iterations, noise_iterations=self.noise_iterations)
        at_least(0, self, auxiliary_every=self.auxiliary_every, ema_start=self.ema_start)
        optional = given(gradient_rays=self.gradient_rays, samples=self.samples)
        at_least(1, self, batch_split=self.batch_split, **optional)
        check_call("images, draws", self, augment=self.augment)


class CIPS3D(GAN):
    """The training algorithm of CIPS-3D: discriminators, then generator, every iteration.

    Args:
        r1_weight: gamma; half of it multiplies the R1 penalty.
        r1_every: the penalty is computed every so many iterations, and weighs as many times as much.
        clip_norm: longest gradient of each network.
        stages: the curriculum, in order.
        optimizers, options: of every system, see ``zoo.training.gan.GAN``.
    """

    compiled_fields = ("generator.field", "generator.inr")
    compiled_networks = ("discriminator.main", "discriminator.auxiliary")

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        *optimizers: Any,
        r1_weight: float = 10.0,
        r1_every: int = 1,
        clip_norm: float = 10.0,
        stages: list[Stage] | None = None,
        **options: Any,
    ) -> None:
        at_least(0, self, r1_weight=r1_weight)
        at_least(1, self, r1_every=r1_every)
        between(1e-6, math.inf, self, clip_norm=clip_norm)
        super().__init__(generator, discriminator, *optimizers, **options)
        self.r1_weight, self.r1_every, self.clip_norm = r1_weight, r1_every, clip_norm
        self.stages = check_stages(stages or [Stage()])
        parts = dict(generator.named_modules())
        if unknown := sorted({part for stage in self.stages for part in stage.frozen if part not in parts}):
            raise UserError(f"The generator has no parts to freeze named {', '.join(unknown)}; it has 'field', ...")

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        real, draws, stage = batch["image"], self.draws(), self.stage
        optimizer_g, optimizer_d = self.optimizers()
        if self.since_start == 0:
            self.begin(stage, [optimizer_g, optimizer_d])
        set_learning_rates([optimizer_g, optimizer_d], [stage.lr_g, stage.lr_d])
        self.freeze(stage)

        with torch.no_grad():
            fake = self.fakes(real, draws)
        on_real = self.loss_real(real, draws)
        self.accumulate("loss_d", on_real)  # one after the other: half the memory
        on_real = {name: term.detach() for name, term in on_real.items()}
        self.minimise(optimizer_d, "loss_d", on_real | self.loss_fake(fake, draws), clip_norm=self.clip_norm)

        with frozen(self.discriminator):
            for latent in self.slices(real, draws):
                fake = torch.cat(self.generate(latent, real, draws))
                self.accumulate("loss_g", self.loss_g(fake, draws))
        self.step(optimizer_g, clip_norm=self.clip_norm)

        if self.since_start >= stage.ema_start:
            self.update_emas()
        self.count(len(real))

    def begin(self, stage: Stage, optimizers: list) -> None:
        """Between two stages: reset the optimizers' states, and give parts that freeze the EMA's weights."""
        for optimizer in optimizers:
            optimizer.optimizer.state.clear()
        for part in stage.frozen if self.emas else ():
            self.generator.get_submodule(part).load_state_dict(self.sampler.get_submodule(part).state_dict())

    def freeze(self, stage: Stage) -> None:
        """Freeze the parts of the generator that this stage freezes, and no others."""
        self.generator.requires_grad_(True)
        for part in stage.frozen:
            self.generator.get_submodule(part).requires_grad_(False)

    def slices(self, real: Tensor, draws: Draws) -> list[Latent]:
        """Latents of as many images as there are real ones, in slices."""
        latent = self.generator.latents(len(real), draws)
        return [Latent(*parts) for parts in zip(*(z.chunk(self.stage.batch_split) for z in latent), strict=True)]

    def generate(self, latent: Latent, like: Tensor, draws: Draws) -> list[Tensor]:
        """Images from random cameras, as large as those given, and those of the field if needed."""
        rendered = self.generator(
            latent,
            self.generator.cameras(len(latent.z_shape), draws),
            resolution=like.shape[-1],
            draws=draws,
            density_noise=self.density_noise,
            gradient_rays=self.stage.gradient_rays,
            samples=self.stage.samples,
        )
        return [rendered.image, rendered.raw] if self.auxiliary else [rendered.image]

    def fakes(self, real: Tensor, draws: Draws) -> Tensor:
        """As many images as there are real ones; below them those of the field, if needed."""
        slices = [self.generate(latent, real, draws) for latent in self.slices(real, draws)]
        return torch.cat([torch.cat(parts) for parts in zip(*slices, strict=True)])

    def discriminate(self, images: Tensor, draws: Draws) -> Tensor:
        """Scores of both towers, or of the main one."""
        return self.discriminator(images, self.alpha, self.auxiliary, self.stage.augment, draws).scores

    def loss_real(self, real: Tensor, draws: Draws) -> dict[str, Tensor]:
        """Loss of the discriminators on real images, by term; both towers weigh the same."""
        real = torch.cat([real, real]) if self.auxiliary else real
        if self.since_start % self.r1_every != 0:
            return {"real": logistic_real(self.discriminate(real, draws))}
        real, weight = real.detach().requires_grad_(), 0.5 * self.r1_weight * self.r1_every
        with self.full_precision():
            scores = self.discriminate(real, draws)
            return {"real": logistic_real(scores), "r1": weight * r1_penalty(scores, real)}

    def loss_fake(self, fake: Tensor, draws: Draws) -> dict[str, Tensor]:
        """Loss of the discriminators on generated images."""
        return {"fake": logistic_fake(self.discriminate(fake, draws))}

    def loss_g(self, fake: Tensor, draws: Draws) -> dict[str, Tensor]:
        """Generator loss."""
        return {"fake": logistic_real(self.discriminate(fake, draws))}

    @property
    def stage(self) -> Stage:
        """The stage of this iteration."""
        return current_stage(self.stages, self.iterations)

    @property
    def since_start(self) -> int:
        """Iterations of this stage."""
        return self.iterations - self.stage.start

    @property
    def auxiliary(self) -> bool:
        """Whether the auxiliary discriminator takes part in this iteration."""
        every = self.stage.auxiliary_every
        return every > 0 and self.since_start % every == 0

    @property
    def alpha(self) -> float:
        """Share of the newest resolution in the discriminators' blend."""
        return ramp_up(self.since_start, self.stage.fade_iterations)

    @property
    def density_noise(self) -> float:
        """Standard deviation of the noise on raw densities."""
        return ramp_down(self.since_start, self.stage.noise_iterations)
