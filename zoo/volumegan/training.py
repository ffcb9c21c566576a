"""How VolumeGAN is trained."""

import math
from dataclasses import dataclass

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor

from zoo.draws import Draws
from zoo.layers.winograd import directly
from zoo.losses import judged_fake, judged_real, path_lengths, r1_penalty
from zoo.training.averages import Average
from zoo.training.gan import GAN
from zoo.training.nonfinite import parameters
from zoo.training.optimizers import OptimizerFactory, frozen
from zoo.training.precision import Precision
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
        max_skips: as in ``zoo.training.gan.GAN``.
    """

    networks_2d = ("discriminator", "generator.painter")

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        optimizer_g: OptimizerFactory,
        optimizer_d: OptimizerFactory,
        averages: dict[str, Average] | None = None,
        seed: int = 0,
        precision: Precision = "float32",
        r1_weight: float = 10.0,
        r1_every: int = 16,
        path_weight: float = 2.0,
        path_every: int = 4,
        path_shrink: int = 2,
        path_decay: float = 0.01,
        mixing: float = 0.9,
        mean_decay: float = 0.995,
        growth: Growth | None = None,
        max_skips: int = 3,
    ) -> None:
        super().__init__(generator, discriminator, optimizer_g, optimizer_d, averages, seed, precision, max_skips)
        self.r1_weight, self.r1_every = r1_weight, r1_every
        self.path_weight, self.path_every, self.path_shrink = path_weight, path_every, path_shrink
        self.path_decay, self.mixing, self.mean_decay, self.growth = path_decay, mixing, mean_decay, growth
        self.register_buffer("mean_path", torch.zeros(()))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        real, draws = batch["image"], self.draws()
        optimizer_g, optimizer_d = self.optimizers()
        self.grow(real.shape[-1])

        with frozen(self.discriminator):
            terms = self.loss_g(len(real), real.shape[-1], draws)
            self.minimise(optimizer_g, "loss_g", terms)
        if self.path_weight and self.iterations % self.path_every == 0:
            # Lightning counts steps of this optimizer as iterations: the one above was this iteration's.
            optimizer_g._on_before_step = optimizer_g._on_after_step = lambda: None
            with self.full_precision():
                n = max(1, len(real) // self.path_shrink)
                self.minimise(optimizer_g, "loss_g", {"path": self.loss_path(n, real.shape[-1], draws)})

        with torch.no_grad():
            fake, _ = self.generate(len(real), real.shape[-1], draws)
        paid_fake = judged_fake(self.discriminator(fake).scores)
        self.accumulate("loss_d", {"fake": paid_fake}, last=False)
        paid_real = judged_real(self.discriminator(real).scores)
        self.accumulate("loss_d", {"real": paid_real})
        self.step(optimizer_d)
        if self.r1_weight and self.iterations % self.r1_every == 0:
            with self.full_precision():
                self.minimise(optimizer_d, "loss_d", {"r1": self.loss_r1(real)})

        # Without the regularisers, which would make the curves jump.
        self.log_dict({"loss_g": terms["fake"].detach(), "loss_d": (paid_fake + paid_real).detach()}, prog_bar=True)
        for mean in (self.generator.mean_w, self.mean_path):  # over the batches of all processes
            mean.copy_(self.trainer.strategy.reduce(mean.clone(), reduce_op="mean"))
        for average in self.averages.values():
            average.update(self.generator)
        self.count(len(real))

    def generate(self, n: int, resolution: int, draws: Draws) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, H] of n new latents from new cameras, and their w [B, L, D].

        The mean w follows the first latents. With style mixing, later layers of the 2D network follow second ones.
        """
        w = self.generator.mapping(self.generator.latents(n, draws).z)
        self.generator.follow(w, self.mean_decay)
        w = w[:, None].expand(-1, self.generator.num_layers, -1)
        if draws.shared("mixing", ()) < self.mixing:
            other = self.generator.mapping(draws.normal("mixed_z", (n, self.generator.latent_dim)))
            first, end = self.generator.field.num_layers, self.generator.num_layers
            cut = first + int(draws.shared("cut", ()) * (end - first))
            w = torch.cat([w[:, :cut], other[:, None].expand(-1, end - cut, -1)], dim=1)
        camera = self.generator.cameras(n, draws)
        rendered = self.generator.render(self.generator.styles(w), camera, resolution=resolution, draws=draws)
        return rendered.image, w

    def loss_g(self, n: int, resolution: int, draws: Draws) -> dict[str, Tensor]:
        """What the generator pays for n images."""
        fake, _ = self.generate(n, resolution, draws)
        return {"fake": judged_real(self.discriminator(fake).scores)}

    def loss_path(self, n: int, resolution: int, draws: Draws) -> Tensor:
        """What the generator pays for pictures that change faster or slower with w than the mean; moves that mean."""
        image, w = self.generate(n, resolution, draws)
        lengths = path_lengths(image, w, draws.normal("path_noise", image.shape))
        mean = torch.lerp(self.mean_path, lengths.mean(), self.path_decay)
        self.mean_path.copy_(mean.detach())
        return self.path_weight * self.path_every * (lengths - mean).square().mean()

    def loss_r1(self, real: Tensor) -> Tensor:
        """What the discriminator pays for gradients at real images."""
        real = real.detach().requires_grad_()
        with directly():
            scores = self.discriminator(real).scores
        penalty = r1_penalty(scores, real)
        return 0.5 * self.r1_weight * self.r1_every * penalty

    def grow(self, resolution: int) -> None:
        """Set both networks' level of detail; optimizers forget what they know when a level comes or has come."""
        smaller = math.log2(self.generator.resolution / resolution)
        if smaller == 0 and self.growth is not None:
            if self.iterations > 0 and (self.iterations + 1) % self.growth.every:
                return
            lod = self.growth(self.images_seen)
        else:
            lod = smaller
        before = self.generator.lod.item()
        for network in (self.generator, self.discriminator):
            network.lod.fill_(lod)
        if (math.ceil(before), math.floor(before)) != (math.ceil(lod), math.floor(lod)):
            for optimizer in self.optimizers():
                optimizer.optimizer.state.clear()

    def sanitise(self, optimizer: LightningOptimizer) -> None:
        """Make gradients finite, up to 1e5.

        A parameter that has had a gradient before but has none from this loss is stepped with zeros, as published: Adam
        then forgets a little of its past gradients.
        """
        for parameter in parameters(optimizer):
            if parameter.grad is not None:
                parameter.grad.nan_to_num_(0.0).clamp_(-1e5, 1e5)
            elif parameter in optimizer.optimizer.state:
                parameter.grad = torch.zeros_like(parameter)
