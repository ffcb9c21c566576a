"""How StyleNeRF is trained: as StyleGAN2 is, with the NeRF path's loss and progressive growing (section 3.3)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from zoo.draws import Draws
from zoo.layers.ada import Augmentation
from zoo.losses import logistic_fake, logistic_real, r1_penalty
from zoo.stylenerf.growing import Grown, Growth
from zoo.stylenerf.model import Generator, Synthesised
from zoo.training import stylegan2
from zoo.training.ddp import average
from zoo.training.gan import GAN
from zoo.training.optimizers import frozen
from zoo.utils.host_numbers import fill, number
from zoo.utils.ranges import at_least, between


class StyleNeRF(GAN):
    """The training algorithm of StyleNeRF, which is StyleGAN2's and the NeRF path: generator, then discriminator.

    Both have a regulariser of their own, which is computed, with a step of its own, only every so many iterations, and
    weighs as many times as much.

    Args:
        nerf_path_weight: of the NeRF path's loss (equation 9).
        nerf_path_side: it is computed for so many pixels squared of each image; 0 for none.
        density_noise: standard deviation of the noise on raw densities.
        r1_weight: gamma; half of it multiplies the R1 penalty.
        r1_every: iterations.
        path_weight: of the path length penalty (Karras 2020, section 3.2).
        path_every: iterations.
        path_shrink: a batch of it is so many times smaller.
        path_decay: share of a batch in the mean path length.
        mixing: share of batches in which later layers get another latent's w.
        mean_decay: share of the old mean w in the new one.
        growth: progressive growing; None for all levels from the start. Larger images of a batch are made as small as
            the generator's; smaller ones fix the level themselves.
        augment: changes what the discriminator sees, see ``zoo.layers.ada``; None for nothing.
        optimizers, options: of every system, see ``zoo.training.gan.GAN``.
    """

    compiled_fields = ("generator.foreground", "generator.background.field")
    compiled_networks = networks_2d = ("discriminator", "generator.synthesis")
    sanitise = staticmethod(stylegan2.bound_gradients)

    def __init__(
        self,
        generator: Generator,
        discriminator: nn.Module,
        *optimizers: Any,
        nerf_path_weight: float = 2.0,
        nerf_path_side: int = 16,
        density_noise: float = 1.0,
        r1_weight: float = 0.5,
        r1_every: int = 16,
        path_weight: float = 2.0,
        path_every: int = 4,
        path_shrink: int = 2,
        path_decay: float = 0.01,
        mixing: float = 0.9,
        mean_decay: float = 0.995,
        growth: Growth | None = None,
        augment: Augmentation | None = None,
        **options: Any,
    ) -> None:
        at_least(0, self, nerf_path_weight=nerf_path_weight, nerf_path_side=nerf_path_side, density_noise=density_noise)
        at_least(0, self, r1_weight=r1_weight, path_weight=path_weight)
        at_least(1, self, r1_every=r1_every, path_every=path_every, path_shrink=path_shrink)
        between(0, 1, self, path_decay=path_decay, mixing=mixing, mean_decay=mean_decay)
        super().__init__(generator, discriminator, *optimizers, **options)
        self.nerf_path_weight, self.nerf_path_side = nerf_path_weight, nerf_path_side
        self.density_noise, self.r1_weight, self.r1_every = density_noise, r1_weight, r1_every
        self.path_weight, self.path_every, self.path_shrink = path_weight, path_every, path_shrink
        self.path_decay, self.mixing, self.mean_decay, self.growth = path_decay, mixing, mean_decay, growth
        self.augment = augment
        self.register_buffer("mean_path", torch.zeros(()))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        draws, n = self.draws(), len(batch["image"])
        optimizer_g, optimizer_d = self.optimizers()
        level = self.grow(batch["image"].shape[-1])
        real = downsample_lanczos(batch["image"], level.side)

        with frozen(self.discriminator):
            terms = self.loss_g(n, level, draws)
            self.minimise(optimizer_g, "loss_g", terms)
        if self.path_weight and self.iterations % self.path_every == 0:
            with self.full_precision():
                path = self.loss_path(max(1, n // self.path_shrink), level, draws)
                self.minimise(optimizer_g, "loss_g", {"path": path}, counted=False)

        with torch.no_grad():
            fake, _ = self.generate(n, level, draws)
        loss_fake = logistic_fake(self.discriminate(fake.rendered.image, draws).scores)
        self.accumulate("loss_d", {"fake": loss_fake})
        loss_real = logistic_real(self.discriminate_real(real, draws))
        self.accumulate("loss_d", {"real": loss_real})
        self.step(optimizer_d)
        if self.r1_weight and self.iterations % self.r1_every == 0:
            with self.full_precision():
                self.minimise(optimizer_d, "loss_d", {"r1": self.loss_r1(real, draws)})

        # Without the regularisers, which would make the curves jump.
        self.log_dict({"loss_g": sum(terms.values()).detach(), "loss_d": (loss_fake + loss_real).detach()}, True)
        average(self.running_statistics())
        self.update_emas()
        if self.augment is not None:
            self.augment.adjust(self.iterations, n * self.trainer.world_size)
        self.count(n)

    def running_statistics(self) -> list[Tensor]:
        """Running statistics of one process's batches, to be averaged over all processes at the end of an iteration."""
        sizes = [part.magnitude for part in self.generator.modules() if getattr(part, "magnitude", None) is not None]
        noted = [] if self.augment is None else self.augment.running_statistics()
        return [self.generator.mean_w, self.mean_path, *sizes, *noted]

    def grow(self, side: int) -> Grown:
        """Set how far both networks have grown; the level of this iteration's images."""
        fixed = self.growth is None or side < self.generator.resolution
        alpha = 1.0 if fixed else self.growth(self.images_seen)
        fill(self.discriminator.alpha, alpha)
        level = self.generator.grow(alpha)
        return level if side >= level.side else Grown(side, 1.0)

    def generate(self, n: int, level: Grown, draws: Draws) -> tuple[Synthesised, Tensor]:
        """Images of n new latents from new cameras, and their w [B, L, D]."""
        generator = self.generator
        latent = generator.latents(n, draws)
        w = stylegan2.mix_styles(generator, latent.z, draws, self.mixing, self.mean_decay)
        synthesised = generator.synthesise(
            generator.styles(w, latent.background, draws, update_magnitude=True),
            generator.cameras(n, draws),
            level,
            draws,
            density_noise=self.density_noise,
            update_magnitude=True,
            path_side=self.nerf_path_side if number(generator.alpha) != 0 else 0,
        )
        return synthesised, w

    def discriminate(self, images: Tensor, draws: Draws) -> Any:
        """The discriminator's output for images, changed by the augmentation."""
        return self.discriminator(images if self.augment is None else self.augment(images, draws))

    def discriminate_real(self, images: Tensor, draws: Draws) -> Tensor:
        """Scores of real images, which the augmentation adapts to."""
        scores = self.discriminate(images, draws).scores
        if self.augment is not None:
            self.augment.observe(scores.detach())
        return scores

    def loss_g(self, n: int, level: Grown, draws: Draws) -> dict[str, Tensor]:
        """Generator loss of n images, by term."""
        fake, _ = self.generate(n, level, draws)
        terms = {"fake": logistic_real(self.discriminate(fake.rendered.image, draws).scores)}
        if fake.path is not None:
            terms["nerf_path"] = self.nerf_path_weight * fake.path.loss(fake.rendered.image).mean()
        return terms

    def loss_path(self, n: int, level: Grown, draws: Draws) -> Tensor:
        """Path length regulariser for n images; moves the mean path length."""
        synthesised, w = self.generate(n, level, draws)
        images = synthesised.rendered.image
        penalty = stylegan2.path_length_penalty(images, w, draws, self.mean_path, self.path_decay)
        # Parameters that only images depend on get a gradient of zero, as published, so that their moments decay, too.
        return self.path_weight * self.path_every * penalty + 0 * images[:, 0, 0, 0].mean()

    def loss_r1(self, real: Tensor, draws: Draws) -> Tensor:
        """R1 regulariser of the discriminator."""
        real = real.detach().requires_grad_()
        scores = self.discriminate_real(real, draws)
        loss = 0.5 * self.r1_weight * self.r1_every * r1_penalty(scores, real)
        return loss + 0 * scores.mean()  # see loss_path


def downsample_lanczos(images: Tensor, side: int) -> Tensor:
    """Images [B, 3, H, H] in [-1, 1] at a power of two times fewer pixels, rounded to bytes as published.

    Lanczos' window of eight pixels of the large image, whatever the factor: the program's library does no more.
    """
    factor = images.shape[-1] // side
    if factor == 1:
        return images
    place = torch.arange(-3.5, 4.0, device=images.device, dtype=images.dtype)
    taps = torch.sinc(place) * torch.sinc(place / 4)
    rows = (taps / taps.sum()).view(1, 1, -1, 1)
    around = pad((images + 1) * 127.5, [4] * 4, mode="replicate")[..., factor // 2 :, factor // 2 :]
    lines = conv2d(around.flatten(0, 1)[:, None], rows, stride=(factor, 1))
    small = conv2d(lines, rows.mT, stride=(1, factor)).view(*images.shape[:2], side, side)
    return small.round().clamp(0, 255) / 127.5 - 1
