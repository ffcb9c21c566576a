"""How StyleSDF is trained: a sphere first, then the volume renderer, then the decoder (section 3.4)."""

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss
from torch.optim import Optimizer

from zoo.draws import Draws, coin
from zoo.layers import plain
from zoo.losses import logistic_fake, logistic_real, r1_penalty
from zoo.render import Camera, Samples, to_map
from zoo.render.depths import stratify
from zoo.stylesdf.discriminator import StagedDiscriminator
from zoo.stylesdf.field import SigmoidDensity
from zoo.stylesdf.model import Generator
from zoo.stylesdf.stages import ImageStage, SphereStage, Stage, VolumeStage
from zoo.training import stylegan2
from zoo.training.ddp import average
from zoo.training.gan import GAN
from zoo.training.optimizers import frozen
from zoo.utils.errors import UserError
from zoo.utils.host_numbers import fill

Terms = dict[str, Tensor]


class StyleSDF(GAN):
    """The training algorithm of StyleSDF, all stages in one run, one after the other; None leaves one out.

    * sphere: the generator's optimizer, whose state the next stage goes on with, and no discriminator. All processes
      average their gradients, so they end with the same weights; those of the published program train each by itself,
      without that, and start the next stage with weights of their own. EMAs are copies.
    * volume: discriminator, then generator, at the side that is rendered; larger images are made smaller.
    * image: discriminator, then generator, then now and then path lengths, of whole images. It starts with the weights
      of the first EMA, whose renderer it keeps, and EMAs start again. ``--init_from`` of weights without a decoder,
      with ``--init_fresh [generator.decoder]``, and no other stages, is that stage alone.

    Args:
        sphere, volume, image: the stages.
        optimizers, options: of every system, see ``zoo.training.gan.GAN``; both optimizers are those of the first
            stages, see ``ImageStage`` for the second's.

    Raises:
        UserError: there is no stage, or a stage has no networks.
    """

    generator: Generator
    discriminator: StagedDiscriminator
    mean_path: Tensor

    compiled_networks = ("discriminator.volume", "discriminator.image", "generator.decoder")

    def __init__(
        self,
        generator: Generator,
        discriminator: StagedDiscriminator,
        *optimizers: Any,
        sphere: SphereStage | None = None,
        volume: VolumeStage | None = VolumeStage(),
        image: ImageStage | None = None,
        **options: Any,
    ) -> None:
        self.networks_2d = ("discriminator", *(["generator.decoder"] if generator.decoder is not None else []))
        super().__init__(generator, discriminator, *optimizers, **options)
        self.image, stages = image, (sphere, volume, image)
        self.stages: list[Stage] = [stage for stage in stages if stage is not None]
        if not self.stages:
            raise UserError("StyleSDF has no stage: give sphere, volume or image.")
        check_networks(volume, image, generator, discriminator)
        if volume is not None and volume.beta is not None:
            density_of(generator).beta.requires_grad_(False)
        self.register_buffer("mean_path", torch.zeros(()))

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimizer a network, as always; what the second stage trains is a group with settings of its own."""
        own: list[dict[str, Any]] = [{}, {}] if self.image is None else [self.image.settings_g, self.image.settings_d]
        optimizers = []
        for role, part, make, settings in zip(
            ("generator", "discriminator"),
            ("generator.decoder.", "discriminator.image."),
            (self.make_optimizer_g, self.make_optimizer_d),
            own,
            strict=True,
        ):
            named = [*getattr(self, role).named_parameters(role)]
            first = [(name, p) for name, p in named if not name.startswith(part)]
            second = [(name, p) for name, p in named if name.startswith(part)]
            groups = [{"params": first}, {"params": second, **settings}]
            optimizers.append(make([group for group in groups if group["params"]]))
        return optimizers

    def stage_starts(self) -> list[int]:
        return [*accumulate((stage.iterations for stage in self.stages[:-1]), initial=0)]

    def stage(self) -> tuple[Stage, int]:
        """The stage of this iteration, and how many of its own are done."""
        starts = self.stage_starts()
        index = bisect_right(starts, self.iterations) - 1
        return self.stages[index], self.iterations - starts[index]

    def generators(self) -> list[Generator]:
        """The one that is trained, and its EMAs."""
        return [self.generator, *(ema.module for ema in self.emas.values())]

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        stage, done = self.stage()
        for network in self.generators():
            if network.decoder is not None:
                fill(network.decoder.trained, float(isinstance(stage, ImageStage)))
        if isinstance(stage, SphereStage):
            self.sphere_step(stage)
        elif isinstance(stage, VolumeStage):
            self.volume_step(stage, done, downsample_hamming(batch["image"], self.generator.render_side))
        else:
            self.image_step(stage, done, batch["image"])

    # Sphere

    def sphere_step(self, stage: SphereStage) -> None:
        """An iteration of the stage before all."""
        optimizer_g, _ = self.optimizers()
        self.minimise(optimizer_g, "loss_g", {"sphere": self.loss_sphere(stage, self.draws())})
        self.restart_emas()
        self.count(0)

    def loss_sphere(self, stage: SphereStage, draws: Draws) -> Tensor:
        """Mean distance of distances from those of the sphere."""
        latents, camera = self.generator.sample(stage.batch, draws)
        samples = sphere_samples(self.generator, camera, draws)
        condition = self.generator.field.condition(self.generator.mapping(latents.z))
        wanted = samples.points.norm(dim=-1, keepdim=True) - stage.radius
        return (self.generator.field.distances(samples.points, condition) - wanted).abs().mean()

    def restart_emas(self) -> None:
        """Let all EMAs begin as copies."""
        for ema in self.emas.values():
            ema.restart(self.generator)

    # Volume

    def volume_step(self, stage: VolumeStage, done: int, real: Tensor) -> None:
        """An iteration of the first stage."""
        if stage.beta is not None:  # of EMAs, too: nothing is learned of it, and their surface would be less sharp
            for network in self.generators():
                density_of(network).beta.fill_(stage.beta(self.images_seen))
        draws, sizes = self.draws(), part_sizes(len(real), stage.at_once)
        optimizer_g, optimizer_d = self.optimizers()
        latents, camera = self.generator.sample(len(real), draws)
        with torch.no_grad():
            w = self.generator.mapping(latents.z)
            fakes = [self.rendered(*part, draws) for part in in_parts(sizes, w, *camera)]
        with_r1 = bool(stage.r1_weight) and done % stage.r1_every == 0
        self.minimise(optimizer_d, "loss_d", self.loss_d(stage, real, torch.cat(fakes), pose_of(camera), with_r1))

        with frozen(self.discriminator):
            self.accumulate_parts("loss_g", stage, [lambda n=n: self.loss_g(stage, n, draws) for n in sizes])
            self.step(optimizer_g)
        self.update_emas()
        self.count(len(real))

    def rendered(self, w: Tensor, pose: Tensor, intrinsics: Tensor, draws: Draws) -> Tensor:
        """Rendered images [B, 3, h, h]."""
        generator = self.generator
        styles = generator.styles(w)._replace(latents=None)
        integrated = generator.integrate(styles, Camera(pose, intrinsics), generator.render_side, draws)
        return to_map(integrated.features) * 2 - 1

    def loss_d(self, stage: VolumeStage, real: Tensor, fake: Tensor, pose: Tensor, with_r1: bool) -> Terms:
        """Discriminator loss of rendered images from cameras with these angles, by term."""
        penalty = {}
        if with_r1:
            real = real.detach().requires_grad_()
            with self.full_precision(), plain():  # R1 differentiates these scores
                scores = self.discriminator(real).scores
            penalty = {"r1": 0.5 * stage.r1_weight * stage.r1_every * r1_penalty(scores, real)}
        else:
            scores = self.discriminator(real).scores
        output = self.discriminator(fake)
        terms = {"real": logistic_real(scores), "fake": logistic_fake(output.scores)}
        return terms | penalty | pose_loss(stage, output.camera, pose)

    def loss_g(self, stage: VolumeStage, n: int, draws: Draws) -> Terms:
        """Generator loss of n new images, by term."""
        generator = self.generator
        latents, camera = generator.sample(n, draws)
        return self.loss_of(stage, generator.mapping(latents.z), camera, draws)

    def loss_of(self, stage: VolumeStage, w: Tensor, camera: Camera, draws: Draws) -> Terms:
        """Generator loss of images of w [B, D] from B cameras, by term."""
        generator = self.generator
        styles, side = generator.styles(w)._replace(latents=None), generator.render_side
        with self.full_precision():  # the eikonal loss differentiates distances twice
            seen = generator.integrate(styles, camera, side, draws, differentiable=stage.eikonal_points is None)
        output = self.discriminator(to_map(seen.features) * 2 - 1)
        terms = {"fake": logistic_real(output.scores), **pose_loss(stage, output.camera, pose_of(camera))}
        if stage.eikonal_weight:
            with self.full_precision():
                distances, points = seen.raw, seen.samples.positions
                if stage.eikonal_points is not None:
                    points = random_points(generator, len(w), stage.eikonal_points, draws).requires_grad_()
                    distances = generator.field.distances(points, generator.field.condition(w))
                (gradient,) = torch.autograd.grad(distances.sum(), points, create_graph=True)
            terms["eikonal"] = stage.eikonal_weight * (gradient.norm(dim=-1) - 1).square().mean()
        if stage.surface_weight:
            near = torch.exp(-stage.surface_sharpness * seen.raw.abs())
            terms["surface"] = stage.surface_weight * near.mean()
        return terms

    # Image

    def image_step(self, stage: ImageStage, done: int, real: Tensor) -> None:
        """An iteration of the second stage."""
        if done == 0 and self.emas:
            self.generator.load_state_dict(self.sampler.state_dict())
            self.restart_emas()
        draws, sizes = self.draws(), part_sizes(len(real), stage.at_once)
        optimizer_g, optimizer_d = self.optimizers()
        with_r1 = bool(stage.r1_weight) and done % stage.r1_every == 0

        fakes, reals = in_parts(sizes, *self.objects(stage, len(real), draws)), real.split(sizes)
        images = torch.no_grad()(self.images)
        losses = [
            lambda of=of, part=part: self.loss_d_image(stage, part, images(*of, draws)[0], with_r1)
            for of, part in zip(fakes, reals, strict=True)
        ]
        self.accumulate_parts("loss_d", stage, losses)
        self.step(optimizer_d)

        with frozen(self.discriminator):
            self.accumulate_parts("loss_g", stage, [lambda n=n: self.loss_g_image(stage, n, draws) for n in sizes])
            self.step(optimizer_g)
        if stage.path_weight and done % stage.path_every == 0:
            with self.full_precision():
                self.path_step(stage, max(1, len(real) // stage.path_shrink), draws)
        self.update_emas()
        self.count(len(real))

    def objects(self, stage: ImageStage, n: int, draws: Draws) -> tuple[Tensor | None, ...]:
        """n new w, others for style mixing or None, and n cameras; they have no gradients."""
        z = self.generator.latents(n, draws).z
        mixes = coin(draws, "mixing") < stage.mixing
        other = draws.normal("mixed_z", z.shape) if mixes else None
        with torch.no_grad():
            w, mixed = (None if x is None else self.generator.mapping(x) for x in (z, other))
        return w, mixed, *self.generator.cameras(n, draws)

    def images(
        self, w: Tensor, mixed: Tensor | None, pose: Tensor, intrinsics: Tensor, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, H] and the latents [B, L, D] that the decoder made them of."""
        generator = self.generator
        cut = 0 if mixed is None else 1 + int(coin(draws, "cut") * (generator.decoder.num_layers - 1))
        styles = generator.styles(w, mixed, cut)
        with torch.no_grad():
            camera = Camera(pose, intrinsics)
            seen = generator.integrate(styles, camera, generator.render_side, draws, with_features=True)
        return generator.decoder(to_map(seen.features[..., 3:]), styles.latents, draws), styles.latents

    def loss_d_image(self, stage: ImageStage, real: Tensor, fake: Tensor, with_r1: bool) -> Terms:
        """Discriminator loss of images, by term."""
        fakes = {"fake": logistic_fake(self.discriminator(fake).scores)}
        if not with_r1:
            return {"real": logistic_real(self.discriminator(real).scores), **fakes}
        real = real.detach().requires_grad_()
        with self.full_precision(), plain():
            scores = self.discriminator(real).scores
        r1 = 0.5 * stage.r1_weight * stage.r1_every * r1_penalty(scores, real)
        return {"real": logistic_real(scores), **fakes, "r1": r1}

    def loss_g_image(self, stage: ImageStage, n: int, draws: Draws) -> Terms:
        """Generator loss of n images."""
        image, _ = self.images(*self.objects(stage, n, draws), draws)
        return {"fake": logistic_real(self.discriminator(image).scores)}

    def path_step(self, stage: ImageStage, n: int, draws: Draws) -> None:
        """A step of the path length regulariser for n images."""
        sizes = part_sizes(n, stage.at_once)
        objects = self.objects(stage, n, draws)
        passes = [objects] * len(sizes) if stage.path_passes == "whole" else in_parts(sizes, *objects)
        losses = [lambda of=of: {"path": self.loss_path(stage, *self.images(*of, draws), draws)} for of in passes]
        self.accumulate_parts("loss_g", stage, losses)
        self.step(self.optimizers()[0], counted=False)
        average([self.mean_path])

    def loss_path(self, stage: ImageStage, images: Tensor, latents: Tensor, draws: Draws) -> Tensor:
        """Path length penalty of images; moves the mean path length."""
        penalty = stylegan2.path_length_penalty(images, latents, draws, self.mean_path, stage.path_decay)
        # Parameters that only images depend on get a gradient of zero, as published, so that their moments decay, too.
        return stage.path_weight * stage.path_every * penalty + 0 * images[:, 0, 0, 0].mean()

    def accumulate_parts(self, prefix: str, stage: VolumeStage | ImageStage, losses: list[Callable[[], Terms]]) -> None:
        """Add the gradients of the losses of parts of a batch, each computed when the one before is done."""
        share = 1.0 if stage.parts == "sum" else 1 / len(losses)
        for loss in losses:
            terms = {name: term * share for name, term in loss().items()}
            self.accumulate(prefix, terms)


def check_networks(
    volume: VolumeStage | None, image: ImageStage | None, generator: Generator, discriminator: StagedDiscriminator
) -> None:
    """Refuse stages without their networks."""
    for name, stage, network, side in (
        ("volume", volume, discriminator.volume, generator.render_side),
        ("image", image, discriminator.image, generator.resolution),
    ):
        if stage is not None and network is None:
            raise UserError(f"The stage {name} needs a discriminator: give {name} of the StagedDiscriminator.")
        if stage is not None and network.resolution != side:
            raise UserError(
                f"The stage {name} makes images of side {side}: its discriminator takes {network.resolution}."
            )
    if volume is not None and volume.pose_weight and not discriminator.volume.guesses_pose:
        raise UserError("pose_weight needs guesses: set guesses_pose of the PoseDiscriminator, or pose_weight to 0.")
    if image is not None and generator.decoder is None:
        raise UserError("The stage image needs a decoder: give the generator one.")


def density_of(generator: Generator) -> SigmoidDensity:
    """The density of its renderer.

    Raises:
        UserError: it has no beta.
    """
    density = generator.renderer.quadrature.density
    if not isinstance(density, SigmoidDensity):
        raise UserError("beta of VolumeStage needs a density that has one: give zoo.stylesdf.SigmoidDensity.")
    return density


def pose_of(camera: Camera) -> Tensor:
    """Azimuth, from the front to the right, and elevation of cameras about the origin, [B, 2] [rad]."""
    x, y, z = torch.nn.functional.normalize(camera.origins, dim=-1).unbind(-1)
    return torch.stack([torch.atan2(x, z), torch.asin(y.clamp(-1, 1))], dim=-1)


def pose_loss(stage: VolumeStage, guesses: Tensor | None, pose: Tensor) -> Terms:
    """Loss of wrong guesses of angles [B, 2]; none without its weight."""
    if not stage.pose_weight or guesses is None:
        return {}
    return {"pose": stage.pose_weight * smooth_l1_loss(guesses, pose)}


def sphere_samples(generator: Generator, camera: Camera, draws: Draws) -> Samples:
    """Where distances are compared with those of a sphere: depths are drawn between the middles of the usual ones."""
    rays = generator.rays(camera, generator.render_side)
    even = generator.renderer.depths(rays, None)
    return even._replace(t=stratify(even.t, draws))


def random_points(generator: Generator, n: int, count: int, draws: Draws) -> Tensor:
    """Points [n, count, 1, 3], uniform in the generator's bounds."""
    low, high = generator.bounds
    return low + draws.uniform("eikonal_points", (n, count, 1, 3)) * (high - low)


def part_sizes(n: int, at_once: int | None) -> list[int]:
    """Sizes of the parts of a batch."""
    size = n if at_once is None else at_once
    return [min(size, n - start) for start in range(0, n, size)]


def in_parts(sizes: list[int], *parts: Tensor | None) -> list[tuple[Tensor | None, ...]]:
    """Tensors [B, ...], or None, in parts of these sizes."""
    split = [[None] * len(sizes) if part is None else part.split(sizes) for part in parts]
    return [*zip(*split, strict=True)]


def downsample_hamming(images: Tensor, side: int) -> Tensor:
    """Images [B, 3, H, H] in [-1, 1] at a whole number of times fewer pixels, rounded to bytes as published.

    Raises:
        UserError: the sides do not fit.
    """
    factor, rest = divmod(images.shape[-1], side)
    if rest or not factor:
        raise UserError(f"Images of side {images.shape[-1]} cannot be made {side} pixels: give a multiple of that.")
    if factor == 1:
        return images
    # In whole numbers, as in Pillow, whose sums do not depend on their order: many lie between two bytes.
    exact = {"device": images.device, "dtype": torch.float32 if images.device.type == "mps" else torch.float64}
    place = torch.arange(images.shape[-1], **exact) - factor * torch.arange(side, **exact)[:, None] + (1 - factor) / 2
    place = (place / factor).clamp(-1, 1)
    taps = torch.sinc(place) * (0.54 + 0.46 * torch.cos(torch.pi * place))
    taps = (taps / taps.sum(1, keepdim=True) * 2**22).round()
    bytes_ = ((images + 1) * 127.5).round().to(exact["dtype"])
    for _ in range(2):  # columns first, rounded in between
        bytes_ = ((bytes_ @ taps.mT + 2**21) / 2**22).floor().clamp(0, 255).mT
    return bytes_.to(images.dtype) / 127.5 - 1
