"""How GIRAFFE is trained."""

from typing import Any

import torch
from torch import Tensor, nn

from zoo.losses import logistic_fake, logistic_real, r1_penalty
from zoo.training.gan import GAN
from zoo.training.optimizers import frozen
from zoo.utils.ranges import above, at_least, given


class GIRAFFE(GAN):
    """The training algorithm of GIRAFFE (section 3.4): generator, its EMA, then discriminator, every iteration.

    Args:
        generator: a ``Generator``, or another with its ``together``.
        r1_weight: multiplies the R1 penalty (no half), for images as wide as ``r1_range``.
        r1_range: distance of black and white that the weight is meant for: the paper trains on [0, 1], the zoo's images
            are in [-1, 1]. A gradient is half as long on a range twice as wide; the penalty is put right for that.
        fakes: generated images of each half of an iteration; None: as many as real ones.
        optimizers, options: of every system, see ``zoo.training.gan.GAN``.
    """

    compiled_fields = ("generator.scene.objects", "generator.scene.background")
    compiled_networks = ("discriminator", "generator.neural_renderer")

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        *optimizers: Any,
        r1_weight: float = 10.0,
        r1_range: float = 1.0,
        fakes: int | None = None,
        **options: Any,
    ) -> None:
        at_least(0, self, r1_weight=r1_weight)
        above(0, self, r1_range=r1_range)
        at_least(1, self, **given(fakes=fakes))
        super().__init__(generator, discriminator, *optimizers, **options)
        self.r1_weight, self.r1_range, self.fakes = r1_weight, r1_range, fakes

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        real, draws = batch["image"], self.draws()
        optimizer_g, optimizer_d = self.optimizers()
        fakes = self.fakes or len(real)

        with frozen(self.discriminator):
            self.minimise(optimizer_g, "loss_g", self.loss_g(self.generator.together(fakes, draws)))
        self.update_emas()

        with torch.no_grad():
            fake = self.generator.together(fakes, draws)
        self.minimise(optimizer_d, "loss_d", self.loss_d(real, fake))
        self.count(len(real))

    def loss_g(self, fake: Tensor) -> dict[str, Tensor]:
        """Generator loss, by term."""
        return {"fake": logistic_real(self.discriminator(fake).scores)}

    def loss_d(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Discriminator loss, by term."""
        real = real.detach().requires_grad_()
        with self.full_precision():  # R1 differentiates these scores
            scores = self.discriminator(real).scores
        return {
            "real": logistic_real(scores),
            "fake": logistic_fake(self.discriminator(fake).scores),
            "r1": self.r1_weight * (2 / self.r1_range) ** 2 * r1_penalty(scores, real),
        }
