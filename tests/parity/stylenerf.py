"""How the published StyleNeRF's arguments, names and draws translate into ours."""

import copy
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

import zoo.render
import zoo.stylenerf.model
import zoo.stylenerf.training
import zoo.training.stylegan2
from tests.parity.harness import CASES, Case, Replay, Watched, train
from zoo.layers.ada import SYM6, Augmentation, band_filters
from zoo.layers.stylegan2 import upsample
from zoo.layers.upsampling import Upsampler
from zoo.render import (
    Camera,
    Importance,
    Orbit,
    Poses,
    Rays,
    Samples,
    last_sample,
    look_at,
    pixel_centres,
    stratify,
    to_map,
)
from zoo.stylenerf import convert as stylenerf
from zoo.stylenerf.discriminator import Discriminator
from zoo.stylenerf.extras import CameraNetwork, DualDiscriminator, LearnedPoses, PlaneNetwork, TriPlaneField, pose_of
from zoo.stylenerf.field import (
    BackgroundRenderer,
    ContractedSpacing,
    NormalisedDepthRenderer,
    PlainField,
    Styles,
    encoded,
    inverted_sphere_directions,
    paper_axes,
    rays_through,
)
from zoo.stylenerf.growing import Grown, Growth
from zoo.stylenerf.model import Generator, Latent, path_pixels
from zoo.stylenerf.synthesis import Block, StyledLayer
from zoo.stylenerf.training import StyleNeRF
from zoo.training.ema import EMA
from zoo.weights.bundle import build
from zoo.weights.convert import convert_network
from zoo.weights.names import published_name, to_published
from zoo.weights.read import Place, read

# Augmentation


class Constant:
    """The published pipe's percentiles: every draw at the same place of its distribution, and nothing left out."""

    def __init__(self, case: Case, percentile: float) -> None:
        self.case, self.percentile = case, percentile

    def uniform(self, name: str, shape) -> Tensor:
        value = 0.0 if name.endswith("_gate") else 0.5 if name == "postrotate" else self.percentile
        return self.case.cast(torch.full(tuple(shape), value))

    def normal(self, name: str, shape) -> Tensor:
        value = torch.erfinv(torch.tensor(2 * self.percentile - 1)).item()
        return self.case.cast(torch.full(tuple(shape), value))


def augmentation_arguments(given: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Weights and other arguments of our augmentation for those of the published pipe."""
    weights, strengths, options = {}, {}, {}
    for name, value in given.items():
        change = re.sub(r"_(std|max|size)$", "", name)
        if name == "imgfilter_bands":
            options["bands"] = tuple(value)
        elif name == change:
            weights[name] = float(value)
        else:
            strengths[change] = float(value)
    return weights, options | ({"strengths": strengths} if strengths else {})


def augment(case: Case) -> None:
    images = case.inputs["img"]
    for name in case.outputs:
        if not (found := re.fullmatch(r"(p|percentile)([\d.]+)\.(\w+)", name)):
            continue
        kind, number, pipe = found[1], float(found[2]), found[3]
        probability = number if kind == "p" else 1.0
        weights, options = augmentation_arguments(case.config["pipes"][pipe])
        augmentation = Augmentation(weights, probability, **options)
        draws = Constant(case, number)
        if kind == "p":
            recorded = {n.removeprefix(f"p{found[2]}."): t for n, t in case.inputs.items()}
            draws = Replay([(re.sub(r"_[iutn]$", "", n).replace("_p", "_gate"), t) for n, t in recorded.items()])
        case.compare(name, augmentation(images, draws))
    line = torch.tensor(SYM6)
    case.compare("Hz_geom", line / line.sum())
    case.compare("Hz_fbank", band_filters())


# Upsamplers


class Options(nn.Module):
    """Of a synthesis network's blocks, built from a config."""

    def __init__(self, upsampler: Upsampler | None = None, image_up: Callable[[Tensor], Any] = upsample) -> None:
        super().__init__()
        self.upsampler, self.image_up = upsampler, image_up


def options(mode: str) -> Options:
    config = stylenerf.upsampler_config(mode)
    return build({"class_path": "tests.parity.stylenerf.Options", "init_args": config}, nn.Module)


def fill(network: nn.Module, published: dict[str, Tensor], name: Callable[[str], str]) -> None:
    """Load published tensors, all of which must be known or constants."""
    published = dict(published)
    ours = {n: published.pop(name(n)).view_as(t) for n, t in network.state_dict().items()}
    assert all(re.search(r"(resample_filter|coords|diffs|coeffs)$", n) for n in published), published.keys()
    network.load_state_dict(ours)


@torch.no_grad()
def upsamplers(case: Case) -> None:
    of, inputs = case.config["layer"], case.inputs
    sizes = of["in_channels"], of["out_channels"]
    x, w = inputs["x"], inputs["w"]
    for name in case.config["cases"]:
        mode, size = name.rsplit(".k", 1)
        made, weights = options(mode), case.weights(f"{name}.")
        layer = StyledLayer(
            *sizes,
            int(size),
            of["w_dim"],
            up=None if made.upsampler is None else made.upsampler(of["out_channels"]),
            fir_up=made.upsampler is None,
            noise=of["resolution"] if "noise_const" in weights else None,
            decay=of["magnitude_ema_beta"],
        )
        fill(layer, weights, partial(published_name, table=stylenerf.LAYER))
        bound = of["conv_clamp"]
        case.compare(name, layer(x, w, bound=bound))
        if case.outputs[f"{name}.skip_up"].numel() > 1:
            case.compare(f"{name}.skip_up", layer(x, w, bound=bound, pixelwise=True))
        silent = torch.zeros(len(x), 1, of["resolution"], of["resolution"])
        case.compare(f"{name}.gain0.5", 0.5 * layer(x, w, silent, bound=bound))
    for name in dict.fromkeys(re.findall(r"block\.(\w+)\.", " ".join(case.outputs))):
        made = options(name)
        block = Block(
            *sizes, of["resolution"], made.upsampler, made.image_up, w_dim=of["w_dim"], decay=of["magnitude_ema_beta"]
        )
        fill(block, case.weights(f"block.{name}."), partial(published_name, table=stylenerf.BLOCK))
        features, image = block(x, inputs["img"], inputs["ws3"], bound=of["conv_clamp"])
        case.compare(f"block.{name}.x", features)
        case.compare(f"block.{name}.img", image)
        features, _ = block(x, inputs["img"], inputs["ws3"], bound=of["conv_clamp"], update_magnitude=True)
        case.compare(f"block.{name}.train.x", features)
        case.compare(f"block.{name}.train.conv0.w_avg", block.first.magnitude)


# Generators


def load_generator(case: Case, changes: dict | None = None, prefix: str = "generator.") -> Generator:
    """Our generator for the published constructor's arguments, with the case's weights.

    Args:
        changes: other values of its ``renderer_kwargs``.
    """
    of = case.config["generator"]
    synthesis = of["synthesis_kwargs"]
    synthesis = synthesis | {"renderer_kwargs": synthesis["renderer_kwargs"] | (changes or {})}
    generator = build(stylenerf.generator_config(of | {"synthesis_kwargs": synthesis}), nn.Module).eval()
    fill_generator(generator, case.weights(prefix))
    return generator


def fill_generator(generator: Generator, published: dict[str, Tensor]) -> None:
    fill(generator, published, partial(published_name, table=stylenerf.table(generator)))


def our_camera(inverse_intrinsics: Tensor, pose: Tensor) -> Camera:
    """A published camera as ours: its world has other axes, its intrinsics are inverse and for pixels from -1 to 1."""
    intrinsics = torch.eye(3).repeat(len(pose), 1, 1)
    intrinsics[:, :2, 2] = 0.5
    intrinsics[:, [0, 1], [0, 1]] = 0.5 / inverse_intrinsics[:, [0, 1], [0, 1]]
    return Camera(pose[:, [1, 2, 0, 3]], intrinsics)


def given_camera(case: Case) -> Camera:
    return our_camera(case.inputs["camera_inv_intrinsics"], case.inputs["camera_to_world"])


class WatchedModule(nn.Module):
    """A module that remembers what it was asked and what it said."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.calls = module, []

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)

    def forward(self, *args, **kwargs):
        result = self.module(*args, **kwargs)
        self.calls.append((args, result))
        return result


class Recorded:
    """Fine depths that were recorded."""

    def __init__(self, t: Tensor) -> None:
        self.t = t

    def __call__(self, t: Tensor, weights: Tensor, draws) -> Tensor:
        return self.t


def recorded_fine(case: Case, name: str, coarse: int) -> Recorded:
    """Those of the recorded depths of this name that are not the coarse ones."""
    found = case.outputs[name]
    fine = []
    for line in found.flatten(0, 1).tolist():
        for value in torch.linspace(0, 1, coarse).tolist():
            line.remove(min(line, key=lambda found, value=value: abs(found - value)))
        fine.append(line)
    return Recorded(case.cast(torch.tensor(fine)).unflatten(0, found.shape[:2]))


def weigh(renderer: NormalisedDepthRenderer, rays: Rays, t: Tensor, raw: Tensor) -> Tensor:
    """Weights of samples at shares t of the way."""
    return renderer.quadrature.weigh(raw, renderer.measured(renderer.place(rays, t)))


def compare_fine(case: Case, mode: str, generator: Generator, rays: Rays) -> None:
    """Our fine depths for the recorded raw densities."""
    renderer, theirs = generator.renderer, case.outputs[f"{mode}.depth_unit_sorted"]
    t = torch.linspace(0, 1, renderer.samples).expand(*theirs.shape[:2], -1)
    weights = weigh(renderer, rays, t, case.cast(case.outputs[f"{mode}.fg_sigma_raw"]).unflatten(1, t.shape[1:]))
    case.compare(f"{mode}.depth_unit_sorted", torch.cat([renderer.fine(t, weights, None), t], -1).sort(-1).values)


@torch.no_grad()
def render(case: Case) -> None:
    z, camera = case.inputs["z"], given_camera(case)
    latent = Latent(z, case.inputs.get("z_shape_bg", z[:, :0]))
    for mode, settings in case.config["modes"].items():
        alpha = settings["alpha"]
        # The program takes 20 samples where its networks were never told how far they have grown.
        generator = load_generator(case, {"n_ray_samples": 20} if alpha == -1 else None)
        generator.renderer.chunk = None
        if generator.background is not None:
            generator.background.chunk = None
        level = generator.grow(alpha)
        styles = generator.map(latent)
        case.compare("ws", styles.w)
        side = min(level.side, generator.feature_side)
        recorded = [n for n in case.outputs if n.endswith(".depth_unit_sorted")]
        name = next((n for n in recorded if n.startswith(f"{mode}.")), *(recorded[:1] or [None]))
        if name is not None and generator.renderer.fine is not None and alpha != -1:
            # Importance samples of one mode were recorded: they are checked by themselves, and what follows in all
            # modes with the same rays starts from them.
            if name.startswith(f"{mode}."):
                compare_fine(case, mode, generator, generator.rays(camera, side))
            if case.outputs[name].shape[1] == side**2:
                generator.renderer.fine = recorded_fine(case, name, generator.renderer.samples)
        ours, raw = intermediate(case, mode, generator, styles, camera)
        for name in case.outputs:
            part = name.removeprefix(f"{mode}.")
            if part == name or part not in ours | raw or name in case.compared:
                continue
            if part in raw:
                case.relative(name, raw[part])
            else:
                case.compare(name, ours[part])


def intermediate(
    case: Case, mode: str, generator: Generator, styles: Styles, camera: Camera
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """An image and all that leads to it, by published name; raw densities apart."""
    ours: dict[str, Tensor] = {}
    raw: dict[str, Tensor] = {}
    watched: dict[str, WatchedModule] = {}

    def watch(owner: nn.Module, name: str) -> WatchedModule:
        watched[name] = WatchedModule(getattr(owner, name))
        setattr(owner, name, watched[name])
        return watched[name]

    front, renderer = watch(generator, "foreground"), watch(generator, "renderer")
    behind = None if generator.background is None else watch(generator.background, "field")
    outside = None if generator.background is None else watch(generator, "background")
    painted = [WatchedModule(block) for block in generator.synthesis.blocks]
    generator.synthesis.blocks = nn.ModuleList(painted)
    side = case.outputs[f"{mode}.img"].shape[-1]
    rendered = generator.render(styles, camera, resolution=side)

    low = rendered.raw.shape[-1]
    film = pixel_centres(low).expand(len(styles.w), -1, -1)
    rays = generator.rays(camera, low)
    ours["pixels"] = film
    ours["ray_origin"], ours["ray_vector"] = paper_axes(rays.origins), paper_axes(rays.directions)
    ours["ray_target"] = paper_axes(rays.origins + rays.directions)
    shares = []
    for number, ((samples, _), (density, hidden)) in enumerate(front.calls):
        last = "" if number == 0 else f".{number + 1}"
        shares.append(samples.t)
        ours[f"fg_points{last}"] = paper_axes(samples.points).flatten(1, 2)
        raw[f"fg_sigma_raw{last}"] = density.flatten(1, 2)
        ours[f"fg_feat{last}"] = front.module.colours(hidden.flatten(1, 2), 1.0, styles)
    ((_, integrated),) = renderer.calls
    ours["depth_sorted"] = integrated.samples.t
    ours["fg_weights"], ours["bg_lambda"] = integrated.weights, 1 - integrated.opacity[..., 0]
    ours["depth_map"] = integrated.depth[..., 0]
    if behind is not None:
        (((samples, _), (density, hidden)),) = behind.calls
        ((_, found),) = outside.calls
        sphere = inverted_sphere_directions(samples.origins, samples.directions, samples.t)
        ours["bg_points"] = torch.cat([paper_axes(sphere), samples.t[..., None]], -1).flatten(1, 2)
        ours["bg_feat"] = behind.module.colours(hidden.flatten(1, 2), 1.0)
        raw["bg_sigma_raw"] = density.flatten(1, 2)
        ours["bg_weights"], ours["bg_depths"] = found.weights, -samples.t
    if painted and painted[0].calls:
        ours["feature_lowres"] = painted[0].calls[0][0][0]
    else:
        colours = generator.composite(integrated, found if behind is not None else None, styles)
        ours["feature_lowres"] = colours[..., 3:].mT.unflatten(2, (low, low))
    ours["image_lowres"] = rendered.raw
    for block in painted:
        for _, (features, image) in block.calls:
            ours[f"b{block.module.resolution}.x"], ours[f"b{block.module.resolution}.img"] = features, image
    ours["img"] = rendered.image
    if isinstance(front.module, TriPlaneField):
        ours |= planes_of(front.module.network, styles.w)
    ours["depth_unit_sorted"] = torch.cat(shares, -1).sort(-1).values
    return ours, raw


def planes_of(network: PlaneNetwork, w: Tensor) -> dict[str, Tensor]:
    """Features and planes after each block."""
    found = {}
    blocks = [WatchedModule(block) for block in network.blocks]
    first = WatchedModule(network.layer)
    rgb = WatchedModule(network.rgb)
    network.blocks, network.layer, network.rgb = nn.ModuleList(blocks), first, rgb
    network(w)
    found[f"in_b{network.start}.x"] = first.calls[0][1]
    found[f"in_b{network.start}.img"] = blocks[0].calls[0][0][1] if blocks else rgb.calls[0][1]
    for block in blocks:
        (_, (x, image)) = block.calls[0]
        found |= {f"in_b{block.module.resolution}.x": x, f"in_b{block.module.resolution}.img": image}
    return found


# Discriminators


def load_discriminator(config: dict, weights: dict[str, Tensor]) -> Discriminator:
    discriminator = build(stylenerf.discriminator_config(config), nn.Module)
    fill(discriminator, weights, partial(published_name, table=stylenerf.table(discriminator)))
    return discriminator


@torch.no_grad()
def discriminator(case: Case) -> None:
    discriminator = load_discriminator(case.config["discriminator"], case.weights("discriminator."))
    for name, mode in case.config["modes"].items():
        discriminator.alpha.fill_(mode["alpha"])
        discriminator.fades_in = isinstance(mode["curr_status"], list)
        case.compare(name, discriminator(case.inputs[mode["image"]]).scores)


@torch.no_grad()
def discriminator_variants(case: Case) -> None:
    images, raw = case.inputs["img32"], case.inputs["img_nerf"]
    for name, config in case.config["variants"].items():
        discriminator = load_discriminator(config | case.config["common"], case.weights(f"discriminator_{name}."))
        discriminator.alpha.fill_(1.0)
        output = discriminator(images, raw) if isinstance(discriminator, DualDiscriminator) else discriminator(images)
        case.compare(f"{name}.logits", output.scores)
        if f"{name}.camera" in case.outputs:
            case.compare(f"{name}.camera", output.camera)
        if f"{name}.camera_loss" in case.outputs:
            case.compare(f"{name}.camera_loss", (output.camera - case.inputs["camera_UV"]).square().mean())
        if f"{name}.logits_without_img_nerf" in case.outputs:
            case.compare(f"{name}.logits_without_img_nerf", discriminator(images).scores)


# Training

# A published draw's name -> ours
DRAWS = {
    "gen_z": "z",
    "mix_prob_u": "mixing",
    "mix_z": "mixed_z",
    "camera_u_n": "yaw",
    "camera_u_u": "yaw",
    "camera_v_n": "pitch",
    "camera_v_u": "pitch",
    "z_shape_bg": "z_background",
    "reg_pixel_u": "path_pixels",
    "fg_stratified_u": "jitter",
    "fg_density_noise_coarse": "coarse_density_noise",
    "hierarchical_u": "importance",
    "fg_density_noise_fine": "fine_density_noise",
    "bg_stratified_u": "background_jitter",
    "bg_density_noise": "background_density_noise",
    "pl_noise": "path_noise",
}


def replay(case: Case, *blocks: str, layers: int) -> Replay:
    """The draws of some blocks (prefixes of names), one block after the other.

    Args:
        layers: of w.
    """
    pairs = []
    for block in blocks:
        found = {n.removeprefix(f"{block}."): t for n, t in case.inputs.items() if n.startswith(f"{block}.")}
        found = {name: numbers for name, numbers in found.items() if "." not in name}
        for name, numbers in found.items():
            if name == "camera_u_n":  # the published azimuth runs the other way round
                numbers = -numbers
            elif name == "camera_u_u":
                numbers = 1 - numbers
            elif name == "gen_z" and "mix_z" in found:  # path lengths take half of the latents
                numbers = numbers[: len(found["mix_z"])]
            elif name == "mix_cutoff":
                pairs.append(("cut", (numbers - 1 + 0.5) / (layers - 1)))
            if name in DRAWS:
                pairs.append((DRAWS[name], numbers))
    return Replay(pairs)


def rounded(camera: Camera) -> Camera:
    """Cameras of float64 as published: places are rounded, and where they look is computed from the rounded ones."""
    place = camera.origins.float().to(torch.get_default_dtype())
    behind = normalize(place, dim=-1)
    right = normalize(torch.linalg.cross(place.new_tensor([0.0, 1.0, 0.0]).expand_as(place), behind), dim=-1)
    up = normalize(torch.linalg.cross(behind, right), dim=-1)
    pose = camera.pose.to(place.dtype)
    pose[:, :3] = torch.stack([right, up, behind, place], dim=-1)
    return Camera(pose, camera.intrinsics.float().to(place.dtype))


class FromDoubles:
    """Cameras from the same numbers in float64."""

    def __init__(self, poses: Poses) -> None:
        self.poses = poses

    def __call__(self, n: int, draws: Replay) -> Camera:
        double = Replay([(name, draws.queues[name].pop(0).double()) for name in ("yaw", "pitch")])
        return rounded(self.poses(n, double))


def build_gan(case: Case, kind: type[StyleNeRF] = StyleNeRF, **kwargs) -> StyleNeRF:
    """Our training for the published arguments."""
    of, spec = case.config["loss"], case.config["spec"]
    synthesis = case.config["generator"]["synthesis_kwargs"]
    generator = load_generator(case).train()
    generator.poses = FromDoubles(generator.poses)
    generator.renderer.chunk = 100  # small, so that the field is asked again in the backward pass
    if generator.background is not None:
        generator.background.chunk = 100
    begin, end = of.get("curriculum") or (0, 0)
    return kind(
        generator=generator,
        discriminator=load_discriminator(case.config["discriminator"], case.weights("discriminator.")).train(),
        optimizer_g=partial(torch.optim.Adam, lr=spec["lrate"] * 4 / 5, betas=(0.0, 0.99 ** (4 / 5))),
        optimizer_d=partial(torch.optim.Adam, lr=spec["lrate_disc"] * 16 / 17, betas=(0.0, 0.99 ** (16 / 17))),
        nerf_path_side=synthesis.get("n_reg_samples", 0),
        r1_weight=of["r1_gamma"],
        path_weight=of["pl_weight"],
        path_shrink=of["pl_batch_shrink"],
        path_decay=of["pl_decay"],
        mixing=of["style_mixing_prob"],
        growth=Growth(begin * 1000, end * 1000),
        **kwargs,
    )


def tables(gan: StyleNeRF) -> dict[str, list]:
    return {
        "generator": stylenerf.table(gan.generator),
        "discriminator": stylenerf.table(gan.discriminator),
    }


def norms_of(tensors: dict[str, Tensor | None]) -> dict[str, Tensor]:
    """Norms; -1 for None, as the cases have it."""
    return {name: torch.tensor(-1.0) if tensor is None else tensor.norm() for name, tensor in tensors.items()}


def per_image(scores: Tensor, images: Tensor) -> Tensor:
    """Squared length of the gradient of each image's score."""
    (gradient,) = torch.autograd.grad(scores.sum(), images, retain_graph=True)
    return gradient.square().flatten(1).sum(1)


def losses(case: Case) -> None:
    for mode, about in case.config["modes"].items():
        for phase in about["phases"]:
            ours = phase_of(case, mode, phase)
            order = case.config["grad_norm_order"]["generator" if phase.startswith("G") else "discriminator"]
            gradients = norms_of({n.removeprefix("grad."): g for n, g in ours.items() if n.startswith("grad.")})
            assert set(gradients) == set(order), set(gradients) ^ set(order)
            case.each_relative(f"{mode}.{phase}.grad_norm", torch.stack([gradients[name] for name in order]))
            for name in case.outputs:
                part = name.removeprefix(f"{mode}.{phase}.")
                if part == name or part == "grad_norm":
                    continue
                share = 1e-3 if part.startswith("grad.") else 1e-5 if part.startswith("buffer.") else 1e-4
                case.relative(name, ours[part].reshape_as(case.outputs[name]), share)


def phase_of(case: Case, mode: str, phase: str) -> dict[str, Any]:
    """All numbers of one of the four losses in one mode, by published name."""
    about = case.config["modes"][mode]
    gan = build_gan(case)
    gan.images_seen = about["cur_nimg"]
    gan.mean_path.copy_(case.inputs["pl_mean"])
    real = case.inputs[f"real_img{about['resolution']}"]
    level = gan.grow(gan.generator.resolution)
    assert level.side == about["resolution"]
    draws = replay(case, f"{mode}.{phase}", layers=gan.generator.num_layers)
    found = run_phase(phase, gan, level, real, draws)
    player = "generator" if phase.startswith("G") else "discriminator"
    table = tables(gan)
    for name, parameter in getattr(gan, player).named_parameters():
        found[f"grad.{published_name(name, table[player])}"] = parameter.grad
    for name, buffer in gan.generator.state_dict().items():
        found[f"buffer.{published_name(name, table['generator'])}"] = buffer
    return found


def run_phase(phase: str, gan: StyleNeRF, level: Grown, real: Tensor, draws: Replay) -> dict[str, Tensor]:
    """One of the four losses, backwards too, and what it is made of."""
    n, found = len(real), {}
    output = gan.discriminator.forward = Watched(gan.discriminator.forward)
    made = gan.generator.synthesise = Watched(gan.generator.synthesise)
    sampled = gan.generator.samples = Watched(gan.generator.samples)
    if phase == "Gmain":
        loss = sum(gan.loss_g(n, level, draws).values())
        loss.backward()
        ((_, fake),) = made.calls
        scores = output.calls[0][1].scores
        found |= {"backward.Gmain": loss, "Loss_scores_fake": scores, "Loss_G_loss": softplus(-scores)}
        if fake.path is not None:
            found["Loss_G_reg_loss"] = gan.nerf_path_weight * fake.path.loss(fake.rendered.image)
            ((_, (colours, weights)),) = sampled.calls
            side = math.isqrt(weights.shape[1])
            found["reg.x_rand"], found["reg.rgb_rand"] = colours[:, 3:], colours[:, :3]
            found["reg.weights"], found["reg.rgb_rand_out"] = weights.mT.unflatten(2, (side, side)), fake.path.samples
    elif phase == "Greg":
        with patch.object(
            zoo.training.stylegan2, "path_lengths", Watched(zoo.training.stylegan2.path_lengths)
        ) as lengths:
            loss = gan.loss_path(n // gan.path_shrink, level, draws)
        loss.backward()
        penalty = (lengths.calls[0][1] - gan.mean_path).square()
        found |= {"backward.Gpl": loss, "Loss_pl_penalty": penalty, "Loss_G_reg": penalty * gan.path_weight}
        found["pl_mean_after"] = gan.mean_path
    elif phase == "Dmain":
        with torch.no_grad():
            fake, _ = gan.generate(n, level, draws)
        loss_fake = zoo.stylenerf.training.logistic_fake(gan.discriminate(fake.rendered.image, draws).scores)
        loss_fake.backward()
        loss_real = zoo.stylenerf.training.logistic_real(gan.discriminate_real(real, draws))
        loss_real.backward()
        constant = torch.tensor(0.0)  # the published sum has the generator's regulariser in it
        if fake.path is not None:
            found["Loss_D_reg_loss"] = gan.nerf_path_weight * fake.path.loss(fake.rendered.image)
            constant = found["Loss_D_reg_loss"].mean()
        found |= {"backward.Dgen": loss_fake + constant, "backward.Dr1": loss_real}
        found["Loss_D_loss"] = loss_fake + constant + loss_real
        found["Loss_scores_fake"], found["Loss_scores_real"] = (call[1].scores for call in output.calls)
    else:
        loss = gan.loss_r1(real, draws)
        loss.backward()
        found |= {"backward.Dr1": loss, "Loss_scores_real": output.calls[0][1].scores}
        images = real.clone().requires_grad_()
        found["Loss_r1_penalty"] = per_image(gan.discriminator(images).scores, images)
        found["Loss_D_reg"] = found["Loss_r1_penalty"] * gan.r1_weight / 2
    return found


class Replayed(StyleNeRF):
    """Training on recorded numbers, which notes the losses and how long gradients are."""

    def draws(self) -> Replay:
        return self.recorded

    def accumulate(self, prefix: str, terms: dict[str, Tensor]) -> None:
        self.losses.append(sum(terms.values()).detach())
        super().accumulate(prefix, terms)

    def step(self, optimizer, **how) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.lengths.append(torch.stack([g.norm() for g in gradients]).norm())
        super().step(optimizer, **how)


class Warm(pl.Callback):
    """Gives both optimizers the state that the case says."""

    def on_train_start(self, trainer: pl.Trainer, gan: pl.LightningModule) -> None:
        for optimizer, second in zip(trainer.optimizers, (1e-2, 1e-3), strict=True):
            for parameter in optimizer.param_groups[0]["params"]:
                optimizer.state[parameter] = {
                    "step": torch.tensor(10.0),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.full_like(parameter, second),
                }


def trained(case: Case, variant: str) -> dict[str, Any]:
    """All numbers of one iteration, by published name."""
    config = case.config
    decay = 0.5 ** (config["batch"] / (config["ema_kimg"] * 1000))
    assert abs(decay - config["ema_beta"]) < 1e-12
    gan = build_gan(case, Replayed, emas={"ema": EMA(decay)})
    averaged = case.weights("generator.") | case.weights("generator_ema.")
    fill_generator(gan.emas["ema"].module, averaged)
    gan.images_seen, gan.losses, gan.lengths = config["cur_nimg"], [], []
    gan.recorded = replay(case, *config["phases"], layers=gan.generator.num_layers)
    gan.recorded.queues["z"].pop()  # drawn for the last phase too, which has no images of its own
    made = gan.generate = Watched(gan.generate)
    table = tables(gan) | {"generator_ema": tables(gan)["generator"]}
    networks = {
        "generator": gan.generator,
        "discriminator": gan.discriminator,
        "generator_ema": gan.emas["ema"].module,
    }
    before = {
        player: {n: t.detach().clone() for n, t in network.state_dict().items()} for player, network in networks.items()
    }
    real = case.inputs["real_img"]
    train(gan, real, len(real), Warm() if variant == "warm" else pl.Callback())
    assert gan.iterations == 1 and gan.recorded.used_up()

    found: dict[str, Any] = {
        f"{phase}.total_grad_norm": n for phase, n in zip(config["phases"], gan.lengths, strict=True)
    }
    names = ["Gmain.backward.Gmain", "Greg.backward.Gpl", "Dmain.backward.Dgen", "Dmain.backward.Dr1"]
    found |= dict(zip([*names, "Dreg.backward.Dr1"], gan.losses, strict=True))
    path = made.calls[2][1][0]
    if path.path is not None:  # a constant in the published sum
        found["Dmain.backward.Dgen"] += gan.nerf_path_weight * path.path.loss(path.rendered.image).mean()
    found["pl_mean_after"] = gan.mean_path
    for player, network in networks.items():
        learned = dict(network.named_parameters())
        state = {n: t.detach() for n, t in network.state_dict().items()}
        found |= {f"{player}.after.{published_name(n, table[player])}": t for n, t in state.items()}
        changes = {published_name(n, table[player]): case.change(state[n], before[player][n]) for n in learned}
        found[f"{player}.change_norm"] = norms_of(changes)
    return found


def step(case: Case) -> None:
    for variant in case.blocks():
        ours = trained(case, variant)
        for name in case.outputs:
            part = name.removeprefix(f"{variant}.")
            if part == name:
                continue
            if part.endswith("change_norm"):
                order = case.config["param_order"][part.split(".")[0].removesuffix("_ema")]
                assert set(ours[part]) == set(order), set(ours[part]) ^ set(order)
                case.each_relative(name, torch.stack([ours[part][n] for n in order]), 1e-2)
            else:
                case.relative(name, ours[part], 1e-4 if "backward" in part or part == "pl_mean_after" else 1e-3)


# Cameras and sampling


def published_pose(camera: Camera) -> Tensor:
    """Camera-to-world matrices in the published axes."""
    return camera.pose[:, [2, 0, 1, 3]]


def inverse_intrinsics(camera: Camera) -> Tensor:
    matrix = torch.eye(4).repeat(len(camera.pose), 1, 1)
    matrix[:, [0, 1], [0, 1]] = 0.5 / camera.intrinsics[:, [0, 1], [0, 1]]
    return matrix


def linear_cameras(given: dict, uvr: Tensor) -> Camera:
    """Published cameras at shares of their ranges; a fourth number scales the radius."""
    poses = build_poses(given)
    uvr = uvr.double()
    azimuth, polar, radius = (
        low + (high - low) * share
        for (low, high), share in zip(
            (given["range_u"], given["range_v"], given["range_radius"]), uvr[:, :3].unbind(1), strict=True
        )
    )
    radius = radius * (uvr[:, 3] if uvr.shape[1] > 3 else 1.0)
    camera = poses.camera(math.pi / 2 - azimuth[:, None], polar[:, None])
    camera.pose[:, :3, 3] *= radius[:, None] / poses.radius
    return rounded(camera)


def build_poses(given: dict) -> Orbit:
    config = stylenerf.poses_config(given)
    return getattr(zoo.render, config["class_path"].removeprefix("zoo.render."))(**config["init_args"])


def rolled_film(film: Tensor, theta: float | Tensor) -> Tensor:
    """Film coordinates [..., 2] as a camera sees them that is turned around where it looks, by an angle [rad]."""
    x, y, theta = film[..., 0], film[..., 1], torch.as_tensor(theta, dtype=film.dtype)
    return torch.stack([x * theta.cos() - y * theta.sin(), x * theta.sin() + y * theta.cos()], dim=-1)


@torch.no_grad()
def sampling(case: Case) -> None:
    for model, given in case.config["camera_kwargs"].items():
        cameras_of(case, model, given)
        depths_of(case, model, given)
        u = case.inputs[f"{model}.reg_pixel_u"]
        count, side = case.outputs[f"{model}.reg_index"].shape[1], case.outputs[f"{model}.pixels_tgt8"].shape[-1]
        index = path_pixels(u, math.isqrt(count), side)
        case.compare(f"{model}.reg_index", index)
        case.compare(f"{model}.reg_pixels", pixel_centres(side)[index])
    for name in case.outputs:
        if found := re.fullmatch(r"posenc\.(p4_)?L(\d+)(_usepos)?", name):
            points = case.inputs["posenc.p4" if found[1] else "posenc.p"]
            case.compare(name, encoded(points, int(found[2]), found[3] is not None))
    eye = case.inputs["lookat.eye"]
    case.compare("lookat.R", published_pose(Camera(look_at(eye[:, [1, 2, 0]]), eye))[:, :3, :3])
    case.compare("cam9d.RT16", pose_of(case.inputs["cam9d.d9"]).flatten(1))


def cameras_of(case: Case, model: str, given: dict) -> None:
    poses = build_poses(given)
    names = {"u": "yaw", "v": "pitch"}
    kind = "n" if given["gaussian_camera"] else "u"
    drawn = {axis: case.inputs[f"{model}.random.camera_{axis}_{kind}"].double() for axis in names}
    turned = drawn | {"u": -drawn["u"] if kind == "n" else 1 - drawn["u"]}
    angles = poses.angles(len(drawn["u"]), Replay([(names[axis], x) for axis, x in turned.items()]))
    camera = rounded(poses.camera(*angles))
    case.compare(f"{model}.random.c2w", published_pose(camera))
    case.compare(f"{model}.random.inv_intrinsics", inverse_intrinsics(camera))
    azimuth, polar = math.pi / 2 - angles[0][:, 0], angles[1][:, 0]
    shares = [
        (angle - low) / (high - low)
        for angle, (low, high) in zip((azimuth, polar), (given["range_u"], given["range_v"]), strict=True)
    ]
    case.compare(f"{model}.random.mode", torch.stack([*shares, torch.zeros_like(azimuth)], -1))
    uvr = case.inputs[f"{model}.list.uvr"]
    case.compare(f"{model}.list.c2w", published_pose(linear_cameras(given, uvr)))
    scaled = torch.tensor([[0.25, 0.75, 0.5, 1.3]])  # as its meaning says
    case.compare(f"{model}.list4.c2w", published_pose(linear_cameras(given, scaled)))
    wide = build_poses(given | {"fov": 20})(1, None)
    case.compare(f"{model}.fov20.inv_intrinsics", inverse_intrinsics(wide))
    uv = case.inputs[f"{model}.tensor.uv"]
    case.compare(f"{model}.tensor.c2w", published_pose(LearnedPoses(poses).at(uv)))
    uniform = LearnedPoses(build_poses(given | {"gaussian_camera": False}))
    case.compare(f"{model}.tensor_uniform.c2w", published_pose(uniform.at(uv)))

    theta = case.inputs[f"{model}.roll_theta"]
    for name in case.outputs:
        if found := re.fullmatch(rf"{model}\.pixels_(vol|tgt)(\d+)(_roll)?", name):
            shape = case.outputs[name].shape
            film = pixel_centres(int(found[2])).expand(shape[0], -1, -1)
            if found[3]:
                film = rolled_film(film, theta[:, None])
            case.compare(name, film if found[1] == "vol" else film.mT.unflatten(2, shape[2:]))


def depths_of(case: Case, model: str, given: dict) -> None:
    def compare(name: str, ours: Tensor) -> None:
        case.compare(f"{model}.{name}", ours)

    u, raw = case.inputs[f"{model}.stratified_u"], case.inputs[f"{model}.sigma"][..., None]
    batch, count, samples = u.shape
    renderer = build(stylenerf.renderer_config(given, {"n_ray_samples": samples}), nn.Module)
    pose = case.cast(case.outputs[f"{model}.random.c2w"][:batch])
    rays = rays_through(
        our_camera(case.cast(case.outputs[f"{model}.random.inv_intrinsics"][:batch]), pose),
        pixel_centres(math.isqrt(count)),
    )
    compare("rays4.origin", paper_axes(rays.origins))
    compare("rays4.vector", paper_axes(rays.directions))
    compare("rays4.target", paper_axes(rays.origins + rays.directions))
    t = stratify(torch.linspace(0, 1, samples).expand_as(u), Replay([("jitter", u)]), "jitter")
    distance = renderer.spacing.distance(t)
    compare("depth_unit_jittered", t)
    compare("depth_jittered", distance)
    back = (
        (1 / distance - 1 / renderer.spacing.near)
        if isinstance(renderer.spacing, ContractedSpacing)
        else distance - renderer.spacing.near
    )
    compare(
        "depth_inverse", back * renderer.spacing.rate * (-1 if isinstance(renderer.spacing, ContractedSpacing) else 1)
    )
    points = renderer.spacing.contract(Samples(rays.origins, rays.directions, distance).points)
    compare("points", paper_axes(points).flatten(1, 2))
    behind = BackgroundRenderer(PlainField(), case.outputs[f"{model}.bg_points"].shape[1] // count, given["bg_start"])
    asked = WatchedModule(behind.field)
    behind.field = asked
    behind(rays, torch.zeros(batch, behind.field.latent_dim))
    (samples_behind, _), _ = asked.calls[0]
    sphere = inverted_sphere_directions(samples_behind.origins, samples_behind.directions, samples_behind.t)
    compare("bg_points", torch.cat([paper_axes(sphere), samples_behind.t[..., None]], -1).flatten(1, 2))

    weights = weigh(renderer, rays, t, raw)
    # Intervals are differences of depths near 1: of their seven digits they keep five.
    for last, weighed in (("0", weights), ("1e+10", last_sample(weights)[0])):
        case.compare(f"{model}.weights_last{last}", weighed, 1e-3)
        case.compare(f"{model}.T_last{last}", 1 - weights.sum(-1), 1e-3)
    weights = case.cast(case.outputs[f"{model}.weights_last0"])
    compare("fine_det", renderer.fine(t, weights, None))
    drawn = Replay([("importance", case.inputs[f"{model}.hierarchical_u"])])
    compare("fine_rand", renderer.fine(t, weights, drawn))


def beside(case: Case, name: str) -> Case:
    """The case of this name that a case refers to."""
    here = case.folder.parent / name
    return Case(here if here.is_dir() else CASES / "stylenerf" / name)


@torch.no_grad()
def camera_predictor(case: Case) -> None:
    weights = {n.removeprefix("camera_generator."): t for n, t in case.weights("").items()}
    table = [(r"first\.", "affine1."), (r"second\.", "affine2."), (r"last\.", "proj.")]
    for model in case.config["models"]:
        given = beside(case, "sampling").config["camera_kwargs"][model]
        poses = LearnedPoses(build_poses(given), CameraNetwork(len(weights["affine1.bias"])))
        fill(poses.network, weights, partial(published_name, table=table))
        place = case.inputs[f"{model}.rand_mode"]
        moves = poses.moves(place)
        case.compare(f"{model}.pred", moves)
        drawn = [("camera", place)]
        poses.alpha.fill_(0.0)
        case.compare(f"{model}.c2w_alpha0", published_pose(poses(len(place), Replay(drawn))))
        poses.alpha.fill_(1.0)
        camera = poses(len(place), Replay(drawn))
        case.compare(f"{model}.c2w", published_pose(camera))
        moved = place + poses.strength * moves
        case.compare(f"{model}.mode", torch.cat([moved, torch.full((len(place), 1), 0.5)], 1))
        of = beside(case, "render" if model == "stylenerf_ffhq" else "render_cars").config["generator"]
        of = of | {"synthesis_kwargs": of["synthesis_kwargs"] | {"predict_camera": True}}
        generator = build(stylenerf.generator_config(of), nn.Module)
        assert isinstance(generator.poses, LearnedPoses)
        case.compare(f"{model}.num_ws", torch.tensor(generator.num_layers))


# Files


@torch.no_grad()
def checkpoint(case: Case) -> None:
    """A file of a training run: every tensor, and what is drawn with them."""
    place = Place(case.folder / case.info["file"])
    contents = read(place)
    assert stylenerf.part(contents) == "generator" and stylenerf.experiments(contents) is None
    render_case = beside(case, "render")
    expected = {
        "raw": case.published("generator."),
        "ema": render_case.published("generator."),
        "discriminator": render_case.published("discriminator."),
    }
    for weights, state in expected.items():
        made = convert_network(stylenerf, place, contents, weights=weights)
        back = to_published(made.network.state_dict() | made.unused, stylenerf.table(made.network))
        (back,) = stylenerf.official({weights: back}, {})["network-snapshot.pt"].values()
        assert set(back) == set(state), set(back) ^ set(state)
        assert all(torch.allclose(back[name].to(t.dtype), t, rtol=0, atol=1e-12) for name, t in state.items()), weights
        config = case.config["discriminator" if weights == "discriminator" else "generator"]
        make = stylenerf.discriminator_config if weights == "discriminator" else stylenerf.generator_config
        assert made.config == make(config), weights
        assert made.card["images_seen"] == 0


# Truncation, mixing, and the program's ways of rendering


def truncation(case: Case) -> None:
    ours = truncate(case, load_generator(case))
    for name in case.outputs:
        case.compare(name, ours[name])


def truncate(case: Case, generator: Generator) -> dict[str, Tensor]:
    """All numbers of the case, by published name."""
    given = case.config["generator"]["synthesis_kwargs"]["camera_kwargs"]
    steps = next(int(name.split(":")[1]) for name in case.outputs if name.startswith("img.steps:"))
    stepped, alone = copy.deepcopy(generator), copy.deepcopy(generator)
    stepped.renderer.samples, stepped.renderer.fine = steps, Importance(steps)
    alone.background, alone.renderer.quadrature.background = None, last_sample
    z, other, behind = (case.inputs[name] for name in ("z", "z2", "z_shape_bg"))
    latent, camera = Latent(z, behind), given_camera(case)
    plain, second = generator.map(latent), generator.map(Latent(other, behind))
    ours = {"ws.psi1": plain.w, "ws2.psi1": second.w, "img.psi1": generator.render(plain, camera).image}
    for name in case.outputs:
        if found := re.fullmatch(r"ws\.psi([\d.]+?)(\.cutoff(\d+))?", name):
            if found[1] != "1":
                layers = None if found[3] is None else int(found[3])
                ours[name] = generator.map(latent, truncation=float(found[1]), layers=layers).w
                ours[name.replace("ws", "img", 1)] = generator.render(Styles(ours[name], behind), camera).image
        elif found := re.fullmatch(r"ws\.mix(\d+)-(\d+)", name):
            first, last = int(found[1]), int(found[2]) + 1
            w = torch.cat([plain.w[:, :first], second.w[:, first:last], plain.w[:, last:]], 1)
            ours[name], ours[name.replace("ws", "img", 1)] = w, generator.render(Styles(w, behind), camera).image
        elif found := re.fullmatch(r"img\.roll([\d.]+)", name):
            film = rolled_film(pixel_centres(generator.synthesis.low), float(found[1]))
            with patch.object(zoo.stylenerf.model, "pixel_centres", lambda *_, film=film: film):
                ours[name] = generator.render(plain, camera).image
    ours[f"img.steps:{steps}"] = stepped.render(plain, camera).image
    ours["img.not_render_background"] = alone.render(plain, camera).image

    def at(u: float, v: float) -> Camera:
        seen = linear_cameras(given, torch.tensor([[u, v, 0.5]]))
        return Camera(*(x.expand(len(z), -1, -1) for x in seen))

    still = build_poses(given).camera(
        *(torch.full((len(z), 1), angle, dtype=torch.float64) for angle in (math.pi / 2, math.pi / 2 + 0.2))
    )
    still = rounded(still)
    ours["img.freeze_bg"] = generator.render(plain, at(0.8, 0.3), background_camera=still).image  # as its meaning says
    empty = copy.deepcopy(generator)
    empty.renderer.quadrature.density = lambda raw, points: torch.zeros_like(raw)
    ours["img.only_render_background"] = empty.render(plain, camera).image
    ours |= early(generator, plain, camera)

    t = case.inputs["traj_t"].double() * 2 * math.pi
    camera = build_poses(given).camera(math.pi / 2 - 0.4 * t.sin()[:, None], math.pi / 2 + 0.2 * t.cos()[:, None])
    ours["traj.c2w"] = published_pose(camera)
    generator.mean_w.lerp_(generator.mapping(z).mean(0), 1 - 0.995)
    ours["w_avg.after"] = generator.mean_w
    return ours


def early(generator: Generator, styles: Styles, camera: Camera) -> dict[str, Tensor]:
    """Maps of positions, of normals computed from them, and of the density's gradient."""
    low = generator.synthesis.low
    rays = generator.rays(camera, low)
    condition = generator.foreground.modulate(styles)
    found = generator.renderer(generator.foreground, rays, condition)
    places = to_map(paper_axes(rays.origins + found.depth * rays.directions))
    right = places[:, :, 1:-1, 2:] - places[:, :, 1:-1, :-2]
    down = places[:, :, 2:, 1:-1] - places[:, :, :-2, 1:-1]
    normals = normalize(torch.linalg.cross(right, down, dim=1), dim=1)
    points = Samples(rays.origins, rays.directions, found.samples.t).points.detach().requires_grad_()
    raw, _ = generator.foreground(Samples(rays.origins, rays.directions, found.samples.t, points), condition)
    (gradient,) = torch.autograd.grad(raw.sum(), points)
    gradient = -normalize(torch.einsum("brs,brsc->brc", found.weights, paper_axes(gradient)), dim=-1)
    return {"img.early_depth": places, "img.early_normal": normals, "img.early_gradient": to_map(gradient)}


KINDS = {
    "augment": augment,
    "upsamplers": upsamplers,
    "render": render,
    "discriminator": discriminator,
    "discriminator_variants": discriminator_variants,
    "losses": losses,
    "step": step,
    "sampling": sampling,
    "camera_predictor": camera_predictor,
    "checkpoint": checkpoint,
    "truncation": truncation,
}
NO_SKIP = "left out of a convolution it is part of, upsampling has no meaning; the program returns a placeholder"
ABSENT: dict[str, dict[str, str]] = {
    "upsamplers": {"default.k1.skip_up": NO_SKIP, "default.k3.skip_up": NO_SKIP},
}
# Outputs whose tolerance may be over ten times the usual, by kind of case and pattern of names: how often, and why.
IMPORTANCE = (
    "follows from importance samples that were not recorded: in cells which are nearly empty rounding moves them a "
    "thousand times as far, and the encoding's highest frequency again"
)
CANCELS = "the bias of the density's last layer moves the whole volume: shares of its gradient cancel but for rounding"
KINKS = f"{IMPORTANCE}; units of the discriminator that are that near zero have one slope or another"
VANISHES = "where the density's gradient is nearly zero its direction is all rounding"
LOOSE: dict[str, dict[str, tuple[float, str]]] = {
    "render": {r".*\.(depth_unit_sorted|img|image_lowres|depth_map|b\d+\.(x|img))": (300, IMPORTANCE)},
    "truncation": {r"img\.early_gradient": (1e4, VANISHES), r"img\..*": (300, IMPORTANCE)},
    "sampling": {r".*\.fine_(det|rand)": (30, IMPORTANCE)},
    "losses": {
        r".*\.reg\.(rgb_rand|rgb_rand_out|x_rand)": (300, IMPORTANCE),
        r".*Gmain\.(grad_norm|grad\..*sigma_out\.bias)": (1e5, CANCELS),
        r".*(main|reg)\.(Loss.*|backward.*|grad_norm|grad\..*)": (100, KINKS),
    },
    "step": {r".*\.(backward\..*|pl_mean_after|total_grad_norm|change_norm|after\..*)": (300, KINKS)},
}
