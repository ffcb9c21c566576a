"""How pi-GAN is trained: its curriculum and its two losses (section 3.3 and supplement)."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.optim import Optimizer

from zoo.draws import Draws
from zoo.layers.discriminator import DiscriminatorOutput
from zoo.losses import logistic_fake, logistic_real, r1_penalty, top_k
from zoo.pigan.model import Discriminator, Generator, Latent
from zoo.render import clamp_pitch
from zoo.training.gan import GAN
from zoo.training.optimizers import frozen, set_learning_rates
from zoo.training.schedules import check_stages, current_stage, ramp_down, ramp_up
from zoo.utils.errors import UserError
from zoo.utils.ranges import at_least, between, given


@dataclass(frozen=True)
class Stage:
    """Part of a curriculum; the images' resolution and number are the data's to say.

    Args:
        start: its first iteration, from which the fade of a new resolution counts.
        lr_g, lr_d: learning rates from here on; None leaves them as they were.
        batch_split: images are generated in so many slices of the batch, to save memory.
    """

    start: int = 0
    lr_g: float | None = None
    lr_d: float | None = None
    batch_split: int = 1

    def __post_init__(self) -> None:
        at_least(0, self, start=self.start, **given(lr_g=self.lr_g, lr_d=self.lr_d))
        at_least(1, self, batch_split=self.batch_split)


class PiGAN(GAN):
    """The training algorithm of pi-GAN (section 3.3 and supplement): discriminator, then generator, every iteration.

    Args:
        r1_weight: gamma; half of it multiplies the R1 penalty.
        latent_weight, angle_weight: of wrong guesses of latent and camera in the losses of both networks.
        top_k_every, top_k_least: the generator learns from its best images only: a share that falls by one percent
            every so many iterations down to the least share.
        noise_iterations: the noise on densities falls linearly from 1 to 0 over these.
        fade_iterations: a new resolution is blended in over these, and the first one too.
        clip_norm: longest gradient of each network.
        stages: the curriculum, in order.
        slices: the generator's gradient is the sum over the slices of a batch, as published, or their mean.
        mapping_lr: learning rate of the mapping network as a share of the generator's.
        optimizers, options: of every system, see ``zoo.training.gan.GAN``.

    Raises:
        UserError: a weight is given to guesses that the discriminator does not make; or a number is out of its range.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        *optimizers: Any,
        r1_weight: float = 0.2,
        latent_weight: float = 0.0,
        angle_weight: float = 0.0,
        top_k_every: int = 2000,
        top_k_least: float = 1.0,
        noise_iterations: int = 5000,
        fade_iterations: int = 10_000,
        clip_norm: float = 10.0,
        stages: list[Stage] | None = None,
        slices: Literal["sum", "mean"] = "sum",
        mapping_lr: float = 1.0,
        **options: Any,
    ) -> None:
        at_least(0, self, r1_weight=r1_weight, latent_weight=latent_weight, angle_weight=angle_weight)
        at_least(0, self, noise_iterations=noise_iterations, fade_iterations=fade_iterations, mapping_lr=mapping_lr)
        at_least(1, self, top_k_every=top_k_every)
        between(0, 1, self, top_k_least=top_k_least)
        between(1e-6, math.inf, self, clip_norm=clip_norm)
        if (latent_weight or angle_weight) and discriminator.latent_dim != generator.latent_dim:
            raise UserError(
                f"latent_weight and angle_weight need guesses of the discriminator: set its latent_dim, "
                f"{discriminator.latent_dim}, to the generator's, {generator.latent_dim}."
            )
        super().__init__(generator, discriminator, *optimizers, **options)
        self.r1_weight, self.latent_weight, self.angle_weight = r1_weight, latent_weight, angle_weight
        self.top_k_every, self.top_k_least = top_k_every, top_k_least
        self.noise_iterations, self.fade_iterations = noise_iterations, fade_iterations
        self.clip_norm, self.slices, self.mapping_lr = clip_norm, slices, mapping_lr
        self.stages = check_stages(stages or [Stage()])

    def configure_optimizers(self) -> list[Optimizer]:
        field = self.generator.field.named_parameters("generator.field")
        mapping = self.generator.mapping.named_parameters("generator.mapping")
        groups = [{"params": [*field], "share": 1.0}, {"params": [*mapping], "share": self.mapping_lr}]
        optimizer_g = self.make_optimizer_g(groups)
        for group in optimizer_g.param_groups:
            group["lr"] *= group["share"]
        return [optimizer_g, self.make_optimizer_d(self.discriminator.named_parameters("discriminator"))]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        real, draws, stage = batch["image"], self.draws(), self.stage
        optimizer_g, optimizer_d = self.optimizers()
        set_learning_rates([optimizer_g, optimizer_d], [stage.lr_g, stage.lr_d])

        latent = self.generator.latents(len(real), draws)
        with torch.no_grad():
            slices = [self.generate(z, real, draws) for z in latent.z.chunk(stage.batch_split)]
        fake, angles = (torch.cat(parts) for parts in zip(*slices, strict=True))
        self.minimise(optimizer_d, "loss_d", self.loss_d(real, fake, latent.z, angles), clip_norm=self.clip_norm)

        latent = self.generator.latents(len(real), draws)
        with frozen(self.discriminator):
            for z in latent.z.chunk(stage.batch_split):
                fake, angles = self.generate(z, real, draws)
                terms = self.loss_g(fake, z, angles)
                if self.slices == "mean":
                    terms = {name: term * len(z) / len(real) for name, term in terms.items()}
                self.accumulate("loss_g", terms)
        self.step(optimizer_g, clip_norm=self.clip_norm)

        self.update_emas()
        self.count(len(real))

    def generate(self, z: Tensor, like: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Images from random cameras, as large as those given, and their pitch and yaw [B, 2]."""
        camera, yaw, pitch = self.generator.poses.with_angles(len(z), draws)
        styles = self.generator.map(Latent(z))
        rendered = self.generator.render(
            styles, camera, resolution=like.shape[-1], draws=draws, density_noise=self.density_noise
        )
        return rendered.image, torch.cat([clamp_pitch(pitch), yaw], dim=-1)

    def loss_d(self, real: Tensor, fake: Tensor, z: Tensor, angles: Tensor) -> dict[str, Tensor]:
        """Discriminator loss, by term."""
        real = real.detach().requires_grad_()
        with self.full_precision():  # R1 differentiates these scores
            on_real = self.discriminator(real, self.alpha)
        on_fake = self.discriminator(fake, self.alpha)
        return {
            "real": logistic_real(on_real.scores),
            "fake": logistic_fake(on_fake.scores),
            "r1": 0.5 * self.r1_weight * r1_penalty(on_real.scores, real),
            **self.guesses(on_fake, z, angles),
        }

    def loss_g(self, fake: Tensor, z: Tensor, angles: Tensor) -> dict[str, Tensor]:
        """Generator loss, by term: for its best images, and for what can't be guessed from all of them."""
        output = self.discriminator(fake, self.alpha)
        count = math.ceil(max(0.99 ** (self.iterations / self.top_k_every), self.top_k_least) * len(fake))
        return {"fake": logistic_real(top_k(output.scores, count)), **self.guesses(output, z, angles)}

    def guesses(self, output: DiscriminatorOutput, z: Tensor, angles: Tensor) -> dict[str, Tensor]:
        """Penalties for wrong guesses of latent and camera; none without weights."""
        if not self.latent_weight and not self.angle_weight:
            return {}
        return {
            "latent": self.latent_weight * mse_loss(output.latent, z),
            "angles": self.angle_weight * mse_loss(output.camera, angles),
        }

    @property
    def stage(self) -> Stage:
        """The stage of this iteration."""
        return current_stage(self.stages, self.iterations)

    @property
    def alpha(self) -> float:
        """Share of the newest resolution in the discriminator's blend."""
        return ramp_up(self.iterations - self.stage.start, self.fade_iterations)

    @property
    def density_noise(self) -> float:
        """Standard deviation of the noise on raw densities."""
        return ramp_down(self.iterations, self.noise_iterations)
