"""How EG3D is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from zoo.draws import Draws
from zoo.eg3d.discriminator import DualDiscriminator, pair
from zoo.eg3d.field import TriPlaneField
from zoo.eg3d.model import Generator, Latent, Styles
from zoo.eg3d.synthesis import resize
from zoo.layers import plain
from zoo.layers.ada import Augmentation
from zoo.losses import logistic_fake, logistic_real, r1_penalty
from zoo.render import Camera, Rendered, Samples
from zoo.training import stylegan2
from zoo.training.ddp import average
from zoo.training.gan import GAN
from zoo.training.optimizers import frozen
from zoo.training.schedules import LinearSchedule
from zoo.utils.constants import constant
from zoo.utils.errors import UserError
from zoo.utils.host_numbers import fill, number
from zoo.utils.ranges import above, at_least, between, given

Terms = dict[str, Tensor]

# What moves while training goes on


class RampedDecay:
    """Decay of an EMA with a half-life in images, at first a share of those that were seen: it begins as a copy.

    Args:
        half_life: images.
        batch: images of an iteration, of all processes together.
        ramp: share of the images so far that is the longest half-life; None for the whole one from the start, which
            the published program takes where it resumes.
    """

    def __init__(self, half_life: float = 10_000, batch: int = 32, ramp: float | None = 0.05) -> None:
        above(0, self, half_life=half_life, **given(ramp=ramp))
        at_least(1, self, batch=batch)
        self.half_life, self.batch, self.ramp = half_life, batch, ramp

    def __call__(self, updates: int) -> float:
        seen = (updates - 1) * self.batch
        half_life = self.half_life if self.ramp is None else min(self.half_life, self.ramp * seen)
        return 0.5 ** (self.batch / max(half_life, 1e-8))


# Regularisers of the density: of (make_planes, field, n, draws), where make_planes conditions anew each time


@dataclass(frozen=True)
class DensityTV:
    """Raw densities of points near each other are to be alike (the published reg_type "l1").

    Args:
        weight: of the mean distance.
        spread: standard deviation of the way to the other point [world units]; None for a 256th of the planes' side.
        points: for each object.
        side: of the cube that points are drawn from [world units], 2 as published, whatever the planes span; None for
            what they span.
    """

    weight: float = 0.25
    spread: float | None = 0.004
    points: int = 1000
    side: float | None = 2.0

    def __post_init__(self) -> None:
        at_least(0, self, weight=self.weight, **given(spread=self.spread))
        at_least(1, self, points=self.points)
        above(0, self, **given(side=self.side))

    def __call__(self, make_planes: Callable[[], Tensor], field: TriPlaneField, n: int, draws: Draws) -> Terms:
        spread = field.extent / 256 if self.spread is None else self.spread
        points = random_points(n, self.points, field.extent if self.side is None else self.side, draws)
        moved = points + spread * draws.normal("offsets", points.shape)
        here, there = raw_densities(field, make_planes(), points, moved)
        return {"density": self.weight * (here - there).abs().mean()}


@dataclass(frozen=True)
class Monotonic:
    """Density is not to become less on the way back, along -z ("monotonic-detach" and "monotonic-fixed").

    Args:
        weight: of how much it does, from one point to another a 256th of the planes' side behind it.
        detached: only the density behind is moved.
        points: for each object.
        smooth: the other term of this loss.
        side: as of ``DensityTV``.
    """

    weight: float = 10.0
    detached: bool = True
    points: int = 2000
    smooth: DensityTV = DensityTV(spread=None)
    side: float | None = 2.0

    def __post_init__(self) -> None:
        at_least(0, self, weight=self.weight)
        at_least(1, self, points=self.points)
        above(0, self, **given(side=self.side))

    def __call__(self, make_planes: Callable[[], Tensor], field: TriPlaneField, n: int, draws: Draws) -> Terms:
        points = random_points(n, self.points, field.extent if self.side is None else self.side, draws)
        behind = points + constant([0.0, 0.0, -field.extent / 256], points)
        first, second = raw_densities(field, make_planes(), points, behind)
        loss = ((first.detach() if self.detached else first) - second).relu().mean()
        return {"monotonic": self.weight * loss} | self.smooth(make_planes, field, n, draws)


def random_points(n: int, points: int, side: float, draws: Draws) -> Tensor:
    """Points [n, P, 3], uniform in a cube about the origin."""
    return (draws.uniform("points", (n, points, 3)) * 2 - 1) * (side / 2)


def raw_densities(field: TriPlaneField, planes: Tensor, *points: Tensor) -> list[Tensor]:
    """Raw densities [B, P, 1] of each of several sets of points [B, P, 3]."""
    everywhere = torch.cat(points, dim=1)[:, :, None]
    nothing = torch.zeros_like(everywhere[:, :, 0])
    samples = Samples(nothing, nothing, nothing[..., :1], everywhere)
    return list(field(samples, planes)[0][:, :, 0].split([x.shape[1] for x in points], dim=1))


# Training


class Reals(NamedTuple):
    """Real images [B, 3, H, H], what of them corresponds to raw ones [B, 3, h, h], and their B cameras."""

    image: Tensor
    raw: Tensor
    camera: Camera


class EG3D(GAN):
    """The training algorithm of EG3D: that of StyleGAN2 for pairs of images, with cameras.

    Both networks have a regulariser of their own, which is computed, with a step of its own, only every so many
    iterations, and weighs as many times as much. Images need cameras, ``batch["camera"]``; those of generated images
    are the generator's ``poses``, published from the same data set (``zoo.render.DatasetPoses``).

    Args:
        swap: probability that an object is conditioned on the camera of another image of the batch than it is rendered
            from (gpc_reg_prob), so that it does not know its camera; None for never.
        blur: deviation of the Gaussian that blurs what the discriminator sees at first [pixels]; None for none. The raw
            image of generated ones is not blurred, as published.
        growth: side of the rendered image [pixels], rounded; None for the generator's ``render_side``.
        regulariser: of the density; None for none.
        density_every: iterations.
        r1_weight: gamma; half of it multiplies the R1 penalty, of both images.
        r1_every: iterations.
        r1_of_seen: R1 differentiates by images as the discriminator sees them, blurred and augmented, as published;
            else by the images themselves, as StyleGAN2 does.
        mean_decay: share of the old mean w in the new one.
        augment: of all images that the discriminator sees; None for none.
        at_once: images of each part of a batch (batch_gpu), within which cameras are swapped and images compared;
            gradients of the parts' mean losses are summed, as published. None for the whole batch.
        optimizers, options: of every system, see ``zoo.training.gan.GAN``.
    """

    compiled_networks = ("discriminator", "generator.plane_network", "generator.superresolution")
    networks_2d = ("discriminator", "generator.superresolution")
    sanitise = staticmethod(stylegan2.bound_gradients)

    def __init__(
        self,
        generator: Generator,
        discriminator: DualDiscriminator,
        *optimizers: Any,
        swap: LinearSchedule | None = None,
        blur: LinearSchedule | None = None,
        growth: LinearSchedule | None = None,
        regulariser: DensityTV | Monotonic | None = DensityTV(),
        density_every: int = 4,
        r1_weight: float = 1.0,
        r1_every: int = 16,
        r1_of_seen: bool = True,
        mean_decay: float = 0.998,
        augment: Augmentation | None = None,
        at_once: int | None = None,
        **options: Any,
    ) -> None:
        at_least(0, self, r1_weight=r1_weight)
        at_least(1, self, r1_every=r1_every, density_every=density_every, **given(at_once=at_once))
        between(0, 1, self, mean_decay=mean_decay)
        super().__init__(generator, discriminator, *optimizers, **options)
        self.swap, self.blur, self.growth = swap, blur, growth
        self.regulariser, self.density_every = regulariser, density_every
        self.r1_weight, self.r1_every, self.r1_of_seen = r1_weight, r1_every, r1_of_seen
        self.mean_decay, self.augment, self.at_once = mean_decay, augment, at_once

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        draws, n = self.draws(), len(batch["image"])
        optimizer_g, optimizer_d = self.optimizers()
        self.grow()
        parts = self.reals(batch["image"], real_cameras(batch).to(self.generator.bounds))
        sizes = [len(part.image) for part in parts]

        with frozen(self.discriminator):
            loss_g = self.accumulate_all("loss_g", [partial(self.loss_g, size, draws) for size in sizes])
            self.step(optimizer_g)
        if self.regulariser is not None and self.iterations % self.density_every == 0:
            with self.full_precision():
                self.accumulate_all("loss_g", [partial(self.loss_density, size, draws) for size in sizes])
                self.step(optimizer_g, counted=False)

        both = ((partial(self.loss_fake, len(p.image), draws), partial(self.loss_real, p, draws)) for p in parts)
        loss_d = self.accumulate_all("loss_d", [loss for pair in both for loss in pair])
        self.step(optimizer_d)
        if self.r1_weight and self.iterations % self.r1_every == 0:
            with self.full_precision():
                self.accumulate_all("loss_d", [partial(self.loss_r1, part, draws) for part in parts])
                self.step(optimizer_d)

        # Without the regularisers, which would make the curves jump.
        self.log_dict({"loss_g": loss_g / len(parts), "loss_d": loss_d / len(parts)}, prog_bar=True)
        noted = [] if self.augment is None else self.augment.running_statistics()
        average([self.generator.mean_w, *noted])
        self.update_emas()
        if self.augment is not None:
            self.augment.adjust(self.iterations, n * self.trainer.world_size)
        self.count(n)

    def accumulate_all(self, prefix: str, losses: list[Callable[[], Terms]]) -> Tensor:
        """Add the gradients of losses, each of which is computed when the one before is done; their sum."""
        total = torch.zeros((), device=self.device)
        for loss in losses:
            terms = loss()
            self.accumulate(prefix, terms)
            total = total + sum(terms.values()).detach()
        return total

    # What generators are conditioned on

    def condition(self, camera: Camera, draws: Draws, together: bool = False) -> Camera:
        """The cameras that B objects are conditioned on: their own, or now and then that of their neighbour.

        Args:
            camera: B cameras that they are rendered from.
            together: all are swapped, or none.
        """
        if self.swap is None or not self.generator.condition_scale:
            return camera
        u = draws.shared("swap_all", ()) if together else draws.uniform("swap", (len(camera.pose), 1))
        is_swapped = u.view(-1, 1, 1) < self.swap(self.images_seen)
        return Camera(*(torch.where(is_swapped, x.roll(1, 0), x) for x in camera))

    def generate(self, n: int, draws: Draws, update_mean: bool = False) -> tuple[Rendered, Camera]:
        """Images of n new latents, and the new cameras that they are rendered from.

        Args:
            update_mean: the mean w follows theirs.
        """
        latents, camera = self.generator.sample(n, draws)
        styles = self.styles(latents, self.condition(camera, draws), draws, update_mean)
        return self.generator.render(styles, camera, draws=draws), camera

    def styles(self, latents: Latent, condition: Camera, draws: Draws, update_mean: bool = False) -> Styles:
        """Styles of latents, conditioned on these cameras, with random image noise."""
        generator = self.generator
        w = generator.conditioned(latents.z, condition)
        if update_mean:
            generator.mean_w.lerp_(w.detach().mean(0), 1 - self.mean_decay)
        return generator.styles(w[:, None].expand(-1, generator.num_layers, -1), draws)

    # What the discriminator sees

    def grow(self) -> None:
        """From now on, the generator renders the side of now."""
        if self.growth is not None:
            fill(self.generator.render_side, round(self.growth(self.images_seen)))

    def reals(self, images: Tensor, camera: Camera) -> list[Reals]:
        """Real images and their raw ones, at the side that the generator renders."""
        raw = blurred(resize(images, round(number(self.generator.render_side))), self.sigma)
        size = len(images) if self.at_once is None else self.at_once
        parts = [slice(start, start + size) for start in range(0, len(images), size)]
        return [Reals(images[part], raw[part], camera.take(part)) for part in parts]

    @property
    def sigma(self) -> float:
        """Deviation of the blur of now [pixels]."""
        return 0.0 if self.blur is None else self.blur(self.images_seen)

    def seen(self, images: Tensor, raw: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Images and raw images as the discriminator sees them."""
        images = blurred(images, self.sigma)
        if self.augment is None:
            return images, raw
        both = self.augment(pair(images, raw), draws)
        return both[:, :3], resize(both[:, 3:], raw.shape[-1])

    def score(self, images: Tensor, raw: Tensor, camera: Camera, draws: Draws) -> Tensor:
        """Scores [B, 1]."""
        return self.discriminator(images, raw, camera, draws).scores

    def score_real(self, images: Tensor, raw: Tensor, camera: Camera, draws: Draws) -> Tensor:
        """Scores [B, 1] of real images, which the augmentation adapts to."""
        scores = self.score(images, raw, camera, draws)
        if self.augment is not None:
            self.augment.observe(scores.detach())
        return scores

    # Losses

    def loss_g(self, n: int, draws: Draws) -> Terms:
        """Generator loss of n images."""
        fake, camera = self.generate(n, draws)
        scores = self.score(*self.seen(fake.image, fake.raw, draws), camera, draws)
        return {"fake": logistic_real(scores)}

    def loss_density(self, n: int, draws: Draws) -> Terms:
        """Regulariser of the generator for n objects."""
        latents, camera = self.generator.sample(n, draws)

        def planes() -> Tensor:
            return self.styles(latents, self.condition(camera, draws, together=True), draws).planes

        terms = self.regulariser(planes, self.generator.field, n, draws)
        return {name: self.density_every * term for name, term in terms.items()}

    def loss_fake(self, n: int, draws: Draws) -> Terms:
        """Discriminator loss of n images of the generator, whose mean w follows theirs."""
        with torch.no_grad():
            fake, camera = self.generate(n, draws, update_mean=True)
        return {"fake": logistic_fake(self.score(*self.seen(fake.image, fake.raw, draws), camera, draws))}

    def loss_real(self, reals: Reals, draws: Draws) -> Terms:
        """Discriminator loss of real images."""
        scores = self.score_real(*self.seen(reals.image, reals.raw, draws), reals.camera, draws)
        return {"real": logistic_real(scores)}

    def loss_r1(self, reals: Reals, draws: Draws) -> Terms:
        """R1 regulariser of the discriminator for real images and their raw ones."""
        given = reals.image.detach().requires_grad_(), reals.raw.detach().requires_grad_()
        seen = self.seen(*given, draws)
        with plain():  # as in VolumeGAN: other rounding would change gradients of biases, which are tiny remainders
            scores = self.score_real(*seen, reals.camera, draws)
        penalty = r1_penalty(scores, *(seen if self.r1_of_seen else given))
        return {"r1": 0.5 * self.r1_weight * self.r1_every * penalty}


def real_cameras(batch: dict[str, Any]) -> Camera:
    """The cameras of a batch's images.

    Raises:
        UserError: they have none.
    """
    if batch.get("camera") is None:
        raise UserError("EG3D trains on images with cameras, but these have none: give a data set that has them.")
    return batch["camera"]


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Images [B, C, H, W] blurred by 2^-(distance / sigma)^2, up to three sigma away; zeros beyond the border."""
    reach = int(3 * sigma)
    if reach == 0:
        return images
    line = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype).div(sigma).square().neg().exp2()
    rows = (line / line.sum()).view(1, 1, -1, 1)
    lines = conv2d(images.flatten(0, 1)[:, None], rows, padding=(reach, 0))
    return conv2d(lines, rows.mT, padding=(0, reach)).view_as(images)
