"""How VolumeGAN is trained."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor

from zoo.draws import Draws
from zoo.layers import plain
from zoo.losses import logistic_fake, logistic_real, r1_penalty
from zoo.training import stylegan2
from zoo.training.ddp import average
from zoo.training.gan import GAN
from zoo.training.nonfinite import parameters
from zoo.training.optimizers import frozen
from zoo.utils.host_numbers import fill, number
from zoo.utils.ranges import at_least, between
from zoo.volumegan.discriminator import Discriminator
from zoo.volumegan.model import Generator


@dataclass(frozen=True)
class Growth:
    """Progressive growing: after each ``hold`` images the next level fades in over ``fade`` images.

    Args:
        levels: that are left out at the start.
        hold, fade: images.
        every: iterations between changes.
    """

    levels: int = 3
    hold: int = 750_000
    fade: int = 750_000
    every: int = 4

    def __post_init__(self) -> None:
        at_least(0, self, levels=self.levels, hold=self.hold)
        at_least(1, self, fade=self.fade, every=self.every)

    def __call__(self, images_seen: int) -> float:
        """How many of the finest levels are left out after so many images."""
        done, rest = divmod(images_seen, self.hold + self.fade)
        return max(0.0, self.levels - done - max(0, rest - self.hold) / self.fade)


class VolumeGAN(GAN):
    """The training algorithm of VolumeGAN, which is StyleGAN2's: generator, then discriminator, every iteration.

    Both have a regulariser of their own, which is computed, with a step of its own, only every so many iterations, and
    weighs as many times as much.

    Args:
        r1_weight: gamma; half of it multiplies the R1 penalty.
        r1_every: iterations.
        path_weight: of the path length penalty (Karras 2020, section 3.2).
        path_every: iterations.
        path_shrink: a batch of it is so many times smaller.
        path_decay: share of a batch in the mean path length.
        mixing: share of batches in which the 2D network's later layers get another latent's w.
        mean_decay: share of the old mean w in the new one.
        growth: progressive growing; None for all levels from the start. Batches smaller than the generator's resolution
            fix the level themselves.
        optimizers, options: of every system, see ``zoo.training.gan.GAN``.
    """

    compiled_networks = ("discriminator", "generator.structure", "generator.synthesis")
    networks_2d = ("discriminator", "generator.synthesis")

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        *optimizers: Any,
        r1_weight: float = 10.0,
        r1_every: int = 16,
        path_weight: float = 2.0,
        path_every: int = 4,
        path_shrink: int = 2,
        path_decay: float = 0.01,
        mixing: float = 0.9,
        mean_decay: float = 0.995,
        growth: Growth | None = None,
        **options: Any,
    ) -> None:
        at_least(0, self, r1_weight=r1_weight, path_weight=path_weight)
        at_least(1, self, r1_every=r1_every, path_every=path_every, path_shrink=path_shrink)
        between(0, 1, self, path_decay=path_decay, mixing=mixing, mean_decay=mean_decay)
        super().__init__(generator, discriminator, *optimizers, **options)
        self.r1_weight, self.r1_every = r1_weight, r1_every
        self.path_weight, self.path_every, self.path_shrink = path_weight, path_every, path_shrink
        self.path_decay, self.mixing, self.mean_decay, self.growth = path_decay, mixing, mean_decay, growth
        self.register_buffer("mean_path", torch.zeros(()))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        real, draws = batch["image"], self.draws()
        optimizer_g, optimizer_d = self.optimizers()
        n, resolution = len(real), real.shape[-1]
        self.grow(resolution)

        with frozen(self.discriminator):
            terms = self.loss_g(n, resolution, draws)
            self.minimise(optimizer_g, "loss_g", terms)
        if self.path_weight and self.iterations % self.path_every == 0:
            with self.full_precision():
                path = self.loss_path(max(1, n // self.path_shrink), resolution, draws)
                self.minimise(optimizer_g, "loss_g", {"path": path}, counted=False)

        with torch.no_grad():
            fake, _ = self.generate(n, resolution, draws)
        loss_fake = logistic_fake(self.discriminator(fake).scores)
        self.accumulate("loss_d", {"fake": loss_fake})
        loss_real = logistic_real(self.discriminator(real).scores)
        self.accumulate("loss_d", {"real": loss_real})
        self.step(optimizer_d)
        if self.r1_weight and self.iterations % self.r1_every == 0:
            with self.full_precision():
                self.minimise(optimizer_d, "loss_d", {"r1": self.loss_r1(real)})

        # Without the regularisers, which would make the curves jump.
        self.log_dict({"loss_g": terms["fake"].detach(), "loss_d": (loss_fake + loss_real).detach()}, prog_bar=True)
        average([self.generator.mean_w, self.mean_path])
        self.update_emas()
        self.count(n)

    def generate(self, n: int, resolution: int, draws: Draws) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, H] of n new latents from new cameras, and their w [B, L, D].

        Styles are mixed in the 2D network only.
        """
        generator = self.generator
        z, first = generator.latents(n, draws).z, generator.field.num_layers
        w = stylegan2.mix_styles(generator, z, draws, self.mixing, self.mean_decay, first)
        camera = generator.cameras(n, draws)
        return generator.render(generator.styles(w), camera, resolution=resolution, draws=draws).image, w

    def loss_g(self, n: int, resolution: int, draws: Draws) -> dict[str, Tensor]:
        """Generator loss of n images."""
        fake, _ = self.generate(n, resolution, draws)
        return {"fake": logistic_real(self.discriminator(fake).scores)}

    def loss_path(self, n: int, resolution: int, draws: Draws) -> Tensor:
        """Path length regulariser for n images; moves the mean path length."""
        images, w = self.generate(n, resolution, draws)
        penalty = stylegan2.path_length_penalty(images, w, draws, self.mean_path, self.path_decay)
        return self.path_weight * self.path_every * penalty

    def loss_r1(self, real: Tensor) -> Tensor:
        """R1 regulariser of the discriminator."""
        real = real.detach().requires_grad_()
        with plain():  # R1's gradients of biases are tiny remainders, which other rounding changes by thousandths
            scores = self.discriminator(real).scores
        penalty = r1_penalty(scores, real)
        return 0.5 * self.r1_weight * self.r1_every * penalty

    def grow(self, resolution: int) -> None:
        """Set both networks' level of detail; optimizers' states are reset when a level begins or ends fading in."""
        lod = math.log2(self.generator.resolution / resolution)
        if lod == 0 and self.growth is not None:
            if self.iterations > 0 and (self.iterations + 1) % self.growth.every:
                return
            lod = self.growth(self.images_seen)
        before = number(self.generator.lod)
        for network in (self.generator, self.discriminator):
            fill(network.lod, lod)
        if (math.ceil(before), math.floor(before)) != (math.ceil(lod), math.floor(lod)):
            for optimizer in self.optimizers():
                optimizer.optimizer.state.clear()

    def sanitise(self, optimizer: LightningOptimizer) -> None:
        """Make gradients finite, up to 1e5.

        A parameter that has had a gradient before but has none from this loss is stepped with zeros, as published, so
        that its moments in Adam decay.
        """
        stylegan2.bound_gradients(optimizer, clamp=True)
        for parameter in parameters(optimizer):
            if parameter.grad is None and parameter in optimizer.optimizer.state:
                parameter.grad = torch.zeros_like(parameter)
