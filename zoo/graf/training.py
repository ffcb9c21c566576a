"""How GRAF is trained: on patches whose scale falls (sections 3.1 and 3.3)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.draws import Draws
from zoo.graf.model import Generator, Latent
from zoo.graf.rays import Patches, sample_patches
from zoo.losses import logistic_fake, logistic_real, r1_penalty
from zoo.training.gan import GAN
from zoo.training.optimizers import frozen, share_learning_rates
from zoo.utils.ranges import above, at_least


def random_flip(patches: Tensor, draws: Draws) -> Tensor:
    """Patches [B, 3, K, K], each mirrored or not by chance."""
    keep = draws.uniform("mirror", (len(patches), 1, 1, 1)) >= 0.5
    return torch.where(keep, patches, patches.flip(-1))


class GRAF(GAN):
    """The training algorithm of GRAF (section 3.3 and supplement): discriminator, then generator, every iteration.

    Args:
        discriminator: scores patches [B, 3, K, K]: ``Discriminator``, or another.
        patches: where patches have their points.
        r1_weight: lambda; multiplies the R1 penalty, which as published is averaged over the points of a patch: the
            penalty of the paper's equation 12 divided by K K.
        density_noise: standard deviation of the noise on raw densities at the start.
        noise_iterations: it falls linearly over these and stays at its last value above zero; 0 for no fall.
        mirror: half of all patches, real and generated, are mirrored before the discriminator sees them.
        milestones: both learning rates are multiplied by ``decay`` at each of these iterations; without any, learning
            rates are left to callbacks.
        optimizers, options: of every system, see ``zoo.training.gan.GAN``.
    """

    compiled_fields = ("generator.field", "generator.renderer.field")

    def __init__(
        self,
        generator: Generator,
        discriminator: nn.Module,
        *optimizers: Any,
        patches: Patches = Patches(),
        r1_weight: float = 10.0,
        density_noise: float = 1.0,
        noise_iterations: int = 5000,
        mirror: bool = False,
        milestones: Sequence[int] = (50_000, 100_000, 200_000),
        decay: float = 0.5,
        **options: Any,
    ) -> None:
        at_least(0, self, r1_weight=r1_weight, density_noise=density_noise)
        at_least(0, self, noise_iterations=noise_iterations, milestones=milestones)
        above(0, self, decay=decay)
        super().__init__(generator, discriminator, *optimizers, **options)
        self.patches, self.r1_weight, self.mirror = patches, r1_weight, mirror
        self.density_noise, self.noise_iterations = density_noise, noise_iterations
        self.milestones, self.decay = milestones, decay

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        images, draws = batch["image"], self.draws()
        optimizer_g, optimizer_d = self.optimizers()
        if self.milestones:
            share_learning_rates([optimizer_g, optimizer_d], self.settings, self.share)

        real = sample_patches(images, self.patches(len(images), self.iterations, draws))
        latent = self.generator.latents(len(images), draws)
        with torch.no_grad():
            fake = self.generate(latent, images.shape[-1], draws, self.noise_at(self.iterations - 1))
        self.minimise(optimizer_d, "loss_d", self.loss_d(real, fake, draws))

        latent = self.generator.latents(len(images), draws)
        with frozen(self.discriminator):
            fake = self.generate(latent, images.shape[-1], draws, self.noise_at(self.iterations))
            self.minimise(optimizer_g, "loss_g", self.loss_g(fake, draws))

        self.update_emas()
        self.count(len(images))

    def generate(self, latent: Latent, resolution: int, draws: Draws, noise: float) -> Tensor:
        """Patches [B, 3, K, K] of images of this resolution, from random cameras."""
        camera = self.generator.cameras(len(latent.shape_code), draws)
        places = self.patches(len(latent.shape_code), self.iterations, draws)
        return self.generator.render(
            self.generator.map(latent), camera, resolution=resolution, draws=draws, density_noise=noise, places=places
        ).image

    def discriminate(self, patches: Tensor, draws: Draws) -> Tensor:
        """Scores [B, 1] of patches."""
        return self.discriminator(random_flip(patches, draws) if self.mirror else patches).scores

    def loss_d(self, real: Tensor, fake: Tensor, draws: Draws) -> dict[str, Tensor]:
        """Discriminator loss, by term."""
        real = real.detach().requires_grad_()
        with self.full_precision():  # R1 differentiates these scores
            scores = self.discriminate(real, draws)
        points = self.patches.size**2
        return {
            "real": logistic_real(scores),
            "r1": self.r1_weight / points * r1_penalty(scores, real),
            "fake": logistic_fake(self.discriminate(fake, draws)),
        }

    def loss_g(self, fake: Tensor, draws: Draws) -> dict[str, Tensor]:
        """Generator loss, by term."""
        return {"fake": logistic_real(self.discriminate(fake, draws))}

    def noise_at(self, iteration: int) -> float:
        """Standard deviation of the noise on raw densities for the generator's step of an iteration.

        The discriminator's step comes before the published code lowers it, and so has that of the iteration before.
        """
        if not self.noise_iterations:
            return self.density_noise
        return self.density_noise * (1 - min(max(iteration, 0), self.noise_iterations - 1) / self.noise_iterations)

    @property
    def share(self) -> float:
        """Of the learning rates at the start, in this iteration."""
        return self.decay ** sum(self.iterations >= milestone for milestone in self.milestones)
