"""How the published VolumeGAN's arguments, names and draws translate into ours."""

import math
import re
from functools import partial
from unittest.mock import patch

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

import zoo.training.stylegan2
import zoo.volumegan.training
from tests.parity.harness import Case, Followed, Replay, Watched, even_quantiles, same_tensors, train
from zoo.layers.lookup import trilinear
from zoo.layers.stylegan2 import minibatch_stddev, normalise
from zoo.render import (
    Camera,
    HybridPoses,
    Importance,
    Integrated,
    JitteredUniform,
    Orbit,
    Rays,
    Samples,
    Stratified,
    VolumeRenderer,
    clamp_pitch,
    inverse_cdf,
    pixel_corners,
    through,
)
from zoo.training.ema import EMA
from zoo.volumegan import convert as volumegan
from zoo.volumegan.convert import GENERATOR, discriminator_table, generator_config, poses_config, renderer_config
from zoo.volumegan.discriminator import Discriminator
from zoo.volumegan.extras import Unjittered
from zoo.volumegan.field import Styles
from zoo.volumegan.model import Generator, Latent
from zoo.volumegan.training import VolumeGAN
from zoo.weights.bundle import UNUSED, build
from zoo.weights.convert import convert_network
from zoo.weights.names import from_published, published_name, to_published
from zoo.weights.read import Place, read

# Published arguments


def load_generator(case: Case, **cameras) -> Generator:
    """Our generator for the published constructor's arguments, with the case's weights.

    Args:
        cameras: other values of its ``ps_cfg``.
    """
    of = case.config["generator"]
    config = generator_config(of | {"ps_cfg": of["ps_cfg"] | cameras})
    generator = build(config, nn.Module).eval()
    state = from_published(case.weights("generator."), list(generator.state_dict()), GENERATOR)
    unused = {name for name in state if name.startswith(UNUSED)}
    assert all(name.endswith("filter") for name in unused), unused
    generator.load_state_dict({name: tensor for name, tensor in state.items() if name not in unused})
    return generator


def load_discriminator(case: Case) -> Discriminator:
    state = case.weights("discriminator.")
    discriminator = build(volumegan.discriminator_config(case.config["discriminator"], state), nn.Module)
    ours = from_published(state, list(discriminator.state_dict()), discriminator_table(len(discriminator.blocks)))
    unused = {name for name in ours if name.startswith(UNUSED)}
    assert all(name.endswith("filter") for name in unused), unused
    discriminator.load_state_dict({name: tensor for name, tensor in ours.items() if name not in unused})
    return discriminator


def build_poses(of: dict) -> Orbit:
    config = poses_config(of)
    return getattr(zoo.render, config["class_path"].removeprefix("zoo.render."))(**config["init_args"])


# A published draw's name -> ours
DRAWS = {
    "z": "z",
    "mix_u": "mixing",
    "mix_z": "mixed_z",
    "cam_yaw_n": "yaw",
    "cam_pitch_n": "pitch",
    "cam_yaw_u": "yaw",
    "cam_pitch_u": "pitch",
    "tn_yaw": "yaw",
    "tn_pitch": "pitch",
    "jitter_u": "jitter",
    "pdf_u": "importance",
    "image_noise": "path_noise",
}


def replay(case: Case, *blocks: str, generator: Generator) -> Replay:
    """The draws of some blocks (prefixes of names), one block after the other.

    What a block did without comes from what the generator stores: image noise, and depths without jitter.
    """
    pairs = []
    silent = case.config.get("generator_train_kwargs", {}).get("noise_mode") == "none"
    for block in blocks:
        start = f"{block}." if block else ""
        found = {n.removeprefix(start): t for n, t in case.inputs.items() if n.startswith(start)}
        pairs += [(DRAWS[name], numbers) for name, numbers in found.items() if name in DRAWS]
        if isinstance(generator.poses, HybridPoses):  # the numbers that it drew show which half it took
            pairs.append(("pose_kind", torch.tensor(0.2 if "cam_yaw_u" in found else 0.8)))
        if block and "mix_u" not in found:  # no mixing
            pairs.append(("mixing", torch.tensor(1.0)))
        if "mix_cutoff" in found:
            first, end = generator.field.num_layers, generator.num_layers
            pairs.append(("cut", (found["mix_cutoff"] - first + 0.5) / (end - first)))
        n = len(found["pdf_u"]) // generator.synthesis.low**2
        for name, noise in stored_noise(generator).items():
            given = found.get(name.replace("noise", "noise_layer"), noise * (not silent))
            pairs.append((name, given.expand(n, -1, -1, -1)))
    return Replay(pairs)


def stored_noise(generator: Generator) -> dict[str, Tensor]:
    """Image noise by the name of its draw."""
    layers = [layer for block in generator.synthesis.blocks for layer in (block.up, block.same)]
    return {f"noise{i + 1}": layer.noise.stored for i, layer in enumerate(layers)}


# Their gradients are zero, since an instance norm follows: what is recorded of them is rounding noise.
WITHOUT_EFFECT = r"nerfmlp\.fv\.layer\d+\.bias"


def leave_out_noise(case: Case) -> None:
    """Compare with no gradient, moment or value of what has no effect."""
    case.outputs = {name: t for name, t in case.outputs.items() if not re.search(WITHOUT_EFFECT, name)}


def compare_norms(case: Case, name: str, ours: dict[str, Tensor], player: str, share: float) -> None:
    """Compare norms, each in units of its own, in the published order of parameters.

    What our network does not have, since nothing reads it, has norm zero.
    """
    order = case.info["parameter_order"][player]
    assert set(ours) <= set(order), set(ours) - set(order)
    kept = [i for i, parameter in enumerate(order) if not re.fullmatch(WITHOUT_EFFECT, parameter)]
    case.outputs[name] = case.outputs[name][kept]
    case.each_relative(name, torch.stack([ours.get(order[i], torch.tensor(0.0)) for i in kept]), share)


def norms(tensors: dict[str, Tensor | None], table: list) -> dict[str, Tensor]:
    """Norms by published name; zero for None."""
    return {
        published_name(name, table): torch.tensor(0.0) if tensor is None else tensor.norm()
        for name, tensor in tensors.items()
    }


# Kinds of case


@torch.no_grad()
def render(case: Case) -> None:
    generator = load_generator(case)
    renderer, field, synthesis = generator.renderer, generator.field, generator.synthesis
    if "jitter_u" not in case.inputs:
        renderer.depths = Unjittered(renderer.depths)
    given = (case.cast(case.outputs[n]) if n in case.outputs else None for n in ("coarse_weights", "fine_z"))
    renderer.chunk, renderer.fine = None, Followed(renderer.fine, *given)
    low, z = synthesis.low, case.inputs["z"]

    def draws() -> Replay:
        return replay(case, "", generator=generator)

    def const() -> Replay:
        found = draws()
        found.queues |= {name: [noise.expand(len(z), -1, -1, -1)] for name, noise in stored_noise(generator).items()}
        return found

    def as_map(x: Tensor) -> Tensor:
        return x.unflatten(1, (low, low))

    yaw, pitch = generator.poses.angles(len(z), draws())
    camera = generator.poses.camera(yaw, pitch)
    styles = generator.map(Latent(z))
    rays = generator.rays(camera, low)
    watched = Watched(field)
    integrated: Integrated = renderer(watched, rays, field.modulate(styles), const())
    ((coarse, _), (coarse_raw, coarse_hidden)), ((fine, _), (fine_raw, fine_hidden)) = watched.calls
    ours = {
        "z_norm": normalise(z),
        "w": generator.mapping(z),
        "wp": styles.w,
        "yaw": yaw,
        "pitch": clamp_pitch(pitch),
        "cam_pos": camera.origins,
        "cam2world": camera.pose,
        "ray_origins": as_map(rays.origins),
        "ray_dirs": as_map(rays.directions),
        "coarse_pts": as_map(coarse.points),
        "coarse_z": as_map(coarse.t)[..., None],
        "volume": styles.feature_volume,
        "coarse_feat": as_map(field.colour(coarse_hidden)),
        "coarse_weights": as_map(renderer.fine.weights)[..., None],
        "fine_z": as_map(renderer.fine.t)[..., None],
        "fine_pts": as_map(fine.points),
        "fine_feat": as_map(field.colour(fine_hidden)),
        "merged_z": as_map(integrated.samples.t)[..., None],
        "weights": as_map(integrated.weights)[..., None],
        "depth": as_map(integrated.depth),
    }
    for name, value in ours.items():
        if name in case.outputs:
            case.scores(name, value)
    for name, value in (("coarse_sigma", coarse_raw), ("fine_sigma", fine_raw), ("merged_sigma", integrated.raw)):
        if name in case.outputs:
            case.relative(name, as_map(value))

    case.scores("feature2d", generator.render_features(styles, camera, const())[0])
    remembered: dict[str, Tensor] = {}
    hooks = []
    for i, block in enumerate(synthesis.blocks):
        parts = {f"layer{2 * i + 1}": block.up, f"layer{2 * i + 2}": block.same, f"output{i + 1}": block.rgb}
        for name, part in parts.items():
            conv = getattr(part, "conv", part)
            hooks += [
                part.register_forward_hook(partial(remember, remembered, f"syn.{name}")),
                conv.style.register_forward_hook(partial(remember, remembered, f"style.{name}")),
            ]
    rendered = generator.render(styles, camera, draws=const())
    for hook in hooks:
        hook.remove()
    remembered["rgb_lowres"] = remembered["syn.rgb_init_res"] = rendered.raw  # the second where it is a layer
    for name, value in remembered.items():
        if name not in case.outputs:
            continue
        if name.startswith("syn.output"):  # without its bias and bound
            value = value + synthesis.blocks[int(name.removeprefix("syn.output")) - 1].rgb.bias[:, None, None]
            value = value if synthesis.clamp is None else value.clamp(-synthesis.clamp, synthesis.clamp)
        case.scores(name, value)
    case.compare("image", rendered.image)

    none = const()
    none.queues |= {name: [torch.zeros_like(numbers[0])] for name, numbers in none.queues.items() if "noise" in name}
    case.compare("image_noise_none", generator.render(styles, camera, draws=none).image)
    case.compare("image_noise_random", generator.render(styles, camera, draws=draws()).image)
    for name in case.outputs:
        if name.startswith("image_lod_"):
            generator.lod.fill_(float(name.removeprefix("image_lod_")))
            case.compare(name, generator.render(styles, camera, draws=const()).image)

    points = case.inputs["query_pts"]
    samples = Samples(points, torch.zeros_like(points), torch.zeros_like(points[..., :1]))
    raw, hidden = field(samples, field.modulate(styles))
    case.relative("query_sigma", raw[:, :, 0])
    case.scores("query_feat", field.colour(hidden)[:, :, 0])


def remember(remembered: dict[str, Tensor], name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
    remembered[name] = output.clone()


@torch.no_grad()
def discriminator(case: Case) -> None:
    discriminator, images = load_discriminator(case), case.inputs["image"]
    watched = discriminator.features = Watched(discriminator.features)
    for name in case.outputs:
        if name.startswith("score_lod_") and name != "score_lod_arg":
            discriminator.lod.fill_(float(name.removeprefix("score_lod_")))
            case.scores(name, discriminator(images).scores)
    if "score_lod_arg" in case.outputs:
        discriminator.lod.fill_(1.0)  # what it was given as an argument
        case.scores("score_lod_arg", discriminator(images).scores)
    discriminator.lod.fill_(0.0)
    for name in case.outputs:
        if name.startswith("score_batch"):
            case.scores(name, discriminator(images[: int(name.removeprefix("score_batch"))]).scores)
    discriminator(images)
    features = watched.calls[-1][1]
    case.scores("feat_before_mbstd", features)
    if "mbstd_channel" in case.outputs:
        case.compare("mbstd_channel", minibatch_stddev(features, discriminator.groups)[:, -1:])


def build_gan(case: Case, kind: type[VolumeGAN] = VolumeGAN, **kwargs) -> VolumeGAN:
    """Our training for the published arguments."""
    of_d, of_g = case.config["loss"]["d_loss_kwargs"], case.config["loss"]["g_loss_kwargs"]
    train = case.config["generator_train_kwargs"]
    optimizers = {}
    for player, name in (("g", "generator_opt"), ("d", "discriminator_opt")):
        of = case.config[name]
        optimizers[f"optimizer_{player}"] = partial(torch.optim.Adam, lr=of["base_lr"], betas=tuple(of["betas"]))
    generator = load_generator(case).train()
    generator.renderer.chunk = 64  # small, so that the field is asked again in the backward pass
    return kind(
        generator=generator,
        discriminator=load_discriminator(case).train(),
        **optimizers,
        r1_weight=of_d["r1_gamma"],
        r1_every=of_d["r1_interval"],
        path_weight=of_g["pl_weight"],
        path_every=of_g["pl_interval"],
        path_shrink=of_g["pl_batch_shrink"],
        path_decay=of_g["pl_decay"],
        mixing=train["style_mixing_prob"] or 0.0,
        mean_decay=1.0 if train["w_moving_decay"] is None else train["w_moving_decay"],
        **kwargs,
    )


def per_image(scores: Tensor, images: Tensor) -> Tensor:
    """Squared length of the gradient of each image's score."""
    (gradient,) = torch.autograd.grad(scores.sum(), images, retain_graph=True)
    return gradient.square().flatten(1).sum(1)


def losses(case: Case) -> None:
    leave_out_noise(case)
    real = case.inputs["real"]
    size = real.shape[-1]
    mean_w = case.inputs["w_avg0"]
    for lod in case.config["spec"].get("lods", [0.0]):
        start = f"lod{lod}." if lod else ""
        gan = build_gan(case)
        generator, discriminator = gan.generator, gan.discriminator
        generator.lod.fill_(lod)
        discriminator.lod.fill_(lod)
        watched = discriminator.forward = Watched(discriminator.forward)

        def compare(name: str, loss: Tensor, network: nn.Module, start: str = start, case: Case = case) -> None:
            """The loss, and its gradients."""
            network.zero_grad()
            loss.backward()
            case.relative(f"{start}{name}_loss", loss, 1e-4)
            full = {"g": "g_loss"}.get(name, name)
            compare_gradients(case, f"{start}{full}", network)

        generator.mean_w.copy_(mean_w)
        discriminator.requires_grad_(False)
        loss = gan.loss_g(len(real), size, replay(case, "g", generator=generator))
        discriminator.requires_grad_(True)
        ((fake,), output) = watched.calls[-1]
        compare("g", sum(loss.values()), generator)
        case.relative(f"{start}g_loss_per_sample", softplus(-output.scores), 1e-4)
        case.compare(f"{start}fake_image", fake)
        case.compare(f"{start}w_avg_after_g", generator.mean_w)
        # The published program was set back here, and not again before the next level's loss.
        generator.mean_w.copy_(case.inputs["w_avg0"])

        if f"{start}pl_loss" in case.outputs:
            gan.mean_path.copy_(case.inputs["pl_mean"])
            n = len(case.inputs["pl.z"])
            assert n == max(1, len(real) // gan.path_shrink)
            with patch.object(
                zoo.training.stylegan2, "path_lengths", Watched(zoo.training.stylegan2.path_lengths)
            ) as lengths:
                loss = gan.loss_path(n, size, replay(case, "pl", generator=generator))
            compare("pl", loss, generator)
            penalties = (lengths.calls[0][1] - gan.mean_path).square()
            case.relative(f"{start}pl_penalty_per_sample", penalties)
            case.relative(f"{start}pl_mean_after", gan.mean_path, 1e-4)

        with torch.no_grad():
            fake, _ = gan.generate(len(real), size, replay(case, "d", generator=generator))
        mean_w = generator.mean_w
        compare("d_fake", zoo.volumegan.training.logistic_fake(discriminator(fake).scores), discriminator)
        compare("d_real", zoo.volumegan.training.logistic_real(discriminator(real).scores), discriminator)
        watched.calls.clear()
        if f"{start}r1_loss" in case.outputs:
            compare("r1", gan.loss_r1(real), discriminator)
            images = real.clone().requires_grad_()
            case.relative(f"{start}r1_per_sample", per_image(discriminator(images).scores, images))


def compare_gradients(case: Case, name: str, network: nn.Module) -> None:
    """Norms of all gradients, and the full ones that were recorded."""
    player = "generator" if isinstance(network, Generator) else "discriminator"
    table = GENERATOR if player == "generator" else discriminator_table(len(network.blocks))
    gradients = {name: p.grad for name, p in network.named_parameters()}
    compare_norms(case, f"grad_norm.{name}", norms(gradients, table), player, 1e-3)
    published = {published_name(n, table): gradient for n, gradient in gradients.items()}
    for output in case.outputs:
        if output.startswith(f"grad.{name}."):
            ours = published[output.removeprefix(f"grad.{name}.")]
            case.relative(output, torch.zeros(case.outputs[output].shape) if ours is None else ours)


class Replayed(VolumeGAN):
    """Training on recorded numbers."""

    def draws(self) -> Replay:
        return self.replays[self.iterations]


class After(pl.Callback):
    """Compares the state after each iteration."""

    def __init__(self, case: Case, output: Watched, lengths: Watched, gradients: list[Tensor]) -> None:
        self.case, self.outputs, self.lengths, self.gradients = case, output, lengths, gradients
        self.penalties: Tensor | None = None

    def on_train_start(self, trainer: pl.Trainer, gan: pl.LightningModule) -> None:
        self.before = {name: p.detach().clone() for name, p in gan.named_parameters()}
        self.mean_before = gan.mean_path.clone()

    def on_train_batch_end(self, trainer: pl.Trainer, gan: pl.LightningModule, *_) -> None:
        case, k = self.case, gan.iterations
        tables = {"generator": GENERATOR, "discriminator": discriminator_table(len(gan.discriminator.blocks))}
        tables["generator_smooth"] = GENERATOR
        places = {"generator": "generator.", "discriminator": "discriminator."}
        places["generator_smooth"] = "emas.ema.module."
        buffers = dict(gan.named_buffers())
        for player, start in places.items():
            values = {n.removeprefix(start): p for n, p in gan.named_parameters() if n.startswith(start)}
            origin = "generator." if player == "generator_smooth" else start
            changes = {n: case.change(p, self.before[origin + n]) for n, p in values.items()}
            order = "generator" if player == "generator_smooth" else player
            compare_norms(case, f"{k}.change_norm.{player}", norms(changes, tables[player]), order, 1e-2)
            published = {published_name(n, tables[player]): p.detach() for n, p in values.items()}
            if player != "discriminator":
                published["w_avg"] = buffers[f"{start}mean_w"]
            for name in case.outputs:
                if name.startswith(f"{k}.value.{player}."):
                    case.relative(name, published[name.removeprefix(f"{k}.value.{player}.")])
            if player != "generator_smooth":
                optimizer = trainer.optimizers[0 if player == "generator" else 1]
                own = {published_name(n, tables[player]): p for n, p in values.items()}
                for name in case.outputs:
                    if name.startswith(f"{k}.adam_exp_avg_sq.{player}."):
                        state = optimizer.state[own[name.removeprefix(f"{k}.adam_exp_avg_sq.{player}.")]]
                        case.relative(name, state["exp_avg_sq"])
        scores = [output.scores.detach() for _, output in self.outputs.calls]
        self.outputs.calls.clear()
        stats = {"G": softplus(-scores[0]), "D_Fake": softplus(scores[1]), "D_Real": softplus(-scores[2])}
        if self.lengths.calls:  # the published statistics keep what was measured last
            lengths = self.lengths.calls.pop()[1].detach()
            self.penalties = (lengths - gan.mean_path).square()
        if self.penalties is not None:
            stats["Path_Length_Penalty"] = self.penalties
        if self.gradients:
            stats["Real_Gradient_Penalty"] = self.gradients[-1]
        for name, value in stats.items():
            case.relative(f"{k}.stat.{name}", value, 1e-3 if name.endswith("Penalty") else 1e-4)
        case.relative(f"{k}.pl_mean", gan.mean_path, 1e-4)


def step(case: Case) -> None:
    leave_out_noise(case)
    config = case.config
    count = len([name for name in case.inputs if re.fullmatch(r"\d+\.real", name)])
    decay = 0.5 ** (config["batch_size"] * config["world_size"] / config["g_ema_img"])
    gan = build_gan(case, Replayed, emas={"ema": EMA(decay)})
    case.compare("ema_beta", torch.tensor(decay))
    gan.replays = []
    for k in range(1, count + 1):
        blocks = [f"{k}.{block}" for block in ("g", "pl", "d") if f"{k}.{block}.z" in case.inputs]
        gan.replays.append(replay(case, *blocks, generator=gan.generator))
    output = gan.discriminator.forward = Watched(gan.discriminator.forward)
    gradients: list[Tensor] = []
    penalty = zoo.volumegan.training.r1_penalty

    def watched_penalty(scores: Tensor, images: Tensor) -> Tensor:
        gradients.append(per_image(scores, images).detach())
        return penalty(scores, images)

    with (
        patch.object(zoo.training.stylegan2, "path_lengths", Watched(zoo.training.stylegan2.path_lengths)) as lengths,
        patch.object(zoo.volumegan.training, "r1_penalty", watched_penalty),
    ):
        reals = torch.cat([case.inputs[f"{k}.real"] for k in range(1, count + 1)])
        train(gan, reals, config["batch_size"], After(case, output, lengths, gradients))
    assert gan.iterations == count and all(recorded.used_up() for recorded in gan.replays)


@torch.no_grad()
def truncation(case: Case) -> None:
    generator = load_generator(case)
    generator.renderer.depths = Unjittered(generator.renderer.depths)
    latent = Latent(case.inputs["z"])

    def draw(styles: Styles) -> Tensor:
        draws = replay(case, "", generator=generator)
        return generator.render(styles, generator.cameras(len(latent.z), draws), draws=draws).image

    for name in case.outputs:
        if found := re.fullmatch(r"wp_psi(.+)_layers(\d+)", name):
            styles = generator.map(latent, truncation=float(found[1]), layers=int(found[2]))
            case.scores(name, styles.w)
            case.compare(name.replace("wp", "image", 1), draw(styles))
    if "image_fused_modulate" in case.outputs:
        case.compare("image_fused_modulate", draw(generator.map(latent)))

    spec = case.config["spec"]
    if "image_video" in case.outputs:
        video = load_generator(case, num_steps=case.inputs["video.pdf_u"].shape[1])
        video.renderer.depths = Unjittered(video.renderer.depths)
        angles = (torch.full((len(latent.z), 1), spec[name]) for name in ("yaw", "pitch"))
        draws = replay(case, "video", generator=video)
        styles = video.map(latent, truncation=0.7, layers=8)  # as the published script has it
        case.compare("image_video", video.render(styles, video.poses.camera(*angles), draws=draws).image)

    if "mix_wp" in case.outputs:
        decay = case.config["generator_train_kwargs"]["w_moving_decay"]
        gan = VolumeGAN(generator, nn.Identity(), torch.optim.Adam, torch.optim.Adam, mean_decay=decay)
        draws = replay(case, "", generator=generator)
        first, end = generator.field.num_layers, generator.num_layers
        draws.queues |= {
            "mixing": [torch.tensor(0.0)],
            "cut": [torch.tensor((spec["cutoff"] - first + 0.5) / (end - first))],
        }
        image, w = gan.generate(len(latent.z), generator.resolution, draws)
        case.scores("mix_wp", w)
        case.compare("mix_image", image)
        case.compare("mix_w_avg_after", generator.mean_w)


@torch.no_grad()
def sampling(case: Case) -> None:
    of = case.config["generator"]["ps_cfg"]
    near, far = of["ray_start"], of["ray_end"]
    for block in ("rays", "rays_w3_h2"):
        n, height, side, count, _ = case.outputs[f"{block}.pts"].shape
        depths, directions = (case.cast(case.outputs[f"{block}.{name}"]) for name in ("pts_z", "ray_dirs"))
        ends, corner = depths[0, 0, 0, [0, -1], 0], directions[0, 0, 0]
        # The arguments are stated nowhere: that which the first ray shows, all others must have.
        rays = local_rays(n, height, side, 2 * math.degrees(math.atan2(corner[1], -corner[2])))
        samples = JitteredUniform(*ends.tolist(), count)(rays, None)
        case.compare(f"{block}.pts", samples.points.unflatten(1, (height, side)))
        case.compare(f"{block}.pts_z", samples.t.unflatten(1, (height, side))[..., None])
        case.compare(f"{block}.ray_dirs", rays.directions.unflatten(1, (height, side)))

    for block in case.blocks():
        if block.startswith("cam_"):
            camera_distribution(case, block, of)

    shape = case.outputs["world.pts"].shape
    n, side, count = shape[0], shape[1], shape[3]
    camera = orbit(case, of | {"camera_dist": "gaussian"}, cut=n)
    rays = through(camera, pixel_corners(side))
    samples = JitteredUniform(near, far, count)(rays, None)
    case.compare("world.pts", samples.points.unflatten(1, (side, side)))
    case.compare("world.ray_dirs", rays.directions.unflatten(1, (side, side)))
    case.compare("world.ray_origins", rays.origins.unflatten(1, (side, side)))

    for mode, depths in (("None", JitteredUniform), ("mid", Stratified), ("none", JitteredUniform)):
        shape = case.outputs[f"perturb_{mode}.pts"].shape
        rays = local_rays(shape[0], shape[1], shape[2], of["fov"])
        draws = None if mode == "none" else Replay([("jitter", case.inputs["jitter_u"])])
        samples = depths(near, far, shape[3])(rays, draws)
        case.compare(f"perturb_{mode}.pts", samples.points.unflatten(1, shape[1:3]))
        case.compare(f"perturb_{mode}.pts_z", samples.t.unflatten(1, shape[1:3])[..., None])

    n, side, _, count, _ = case.outputs["full.pts"].shape
    draws = Replay([(DRAWS[name], case.inputs[f"full.{name}"]) for name in ("cam_yaw_n", "cam_pitch_n", "jitter_u")])
    poses = build_poses(of | {"camera_dist": "gaussian"})
    yaw, pitch = poses.angles(n, draws)
    rays = through(poses.camera(yaw, pitch), pixel_corners(side))
    samples = JitteredUniform(near, far, count)(rays, draws)
    ours = {"pts": samples.points, "ray_dirs": rays.directions, "ray_origins": rays.origins}
    for name, value in (ours | {"pts_z": samples.t[..., None]}).items():
        case.compare(f"full.{name}", value.unflatten(1, (side, side)))
    case.compare("full.yaw", yaw)
    case.compare("full.pitch", clamp_pitch(pitch))

    edges, weights = case.inputs["pdf.bins"], case.inputs["pdf.weights"] + 1e-5
    case.compare("pdf_u", inverse_cdf(edges, weights, case.inputs["pdf.u"]))
    case.compare("pdf_det", inverse_cdf(edges, weights, even_quantiles(edges, case.outputs["pdf_det"])))
    for block in case.blocks():
        if block.startswith(("hs_", "render_")):
            composite(case, block)
    given = (case.inputs[f"interp.{name}"] for name in ("points", "bounds"))
    case.compare("interp", trilinear(case.inputs["interp.volume"].movedim(1, -1).contiguous(), *given).mT)


def local_rays(n: int, height: int, side: int, fov: float) -> Rays:
    """Rays of a camera at the origin that looks along -z; rectangular images have the field of view both ways."""
    still = Camera(torch.eye(4).repeat(n, 1, 1), build_poses({"fov": fov})(n, None).intrinsics)
    y, x = torch.meshgrid(torch.linspace(1, -1, height), torch.linspace(-1, 1, side), indexing="ij")
    return through(still, torch.stack([x, y], -1).reshape(-1, 2))


# Names of the draws of each published distribution.
CAMERA_DRAWS = {
    "uniform": ("cam_yaw_u", "cam_pitch_u"),
    "gaussian": ("cam_yaw_n", "cam_pitch_n"),
    "hybrid": ("cam_yaw_u", "cam_pitch_u"),
    "hybrid_b": ("cam_yaw_n", "cam_pitch_n"),
    "truncated_gaussian": ("tn_yaw", "tn_pitch"),
    "spherical_uniform": ("cam_yaw_u", "cam_pitch_u"),
}


def orbit(case: Case, of: dict, cut: int) -> Camera:
    """The first cameras of a gaussian distribution."""
    poses = build_poses(of)
    names = CAMERA_DRAWS[of["camera_dist"]]
    yaw, pitch = poses.angles(cut, Replay([(DRAWS[name], case.inputs[name][:cut]) for name in names]))
    return poses.camera(yaw, pitch)


def camera_distribution(case: Case, block: str, of: dict) -> None:
    kind = block.removeprefix("cam_")
    of = of | {"camera_dist": kind.removesuffix("_b")}
    if kind == "uniform":
        of = of | {"radius": 1.3}  # as the notes say
    poses = build_poses(of)
    draws = [(DRAWS[name], case.inputs[name]) for name in CAMERA_DRAWS[kind]]
    coin = torch.tensor(0.8 if kind == "hybrid_b" else 0.2)  # as the notes say
    yaw, pitch = poses.angles(len(case.outputs[f"{block}.yaw"]), Replay([*draws, ("pose_kind", coin)]))
    camera = poses.camera(yaw, pitch)
    case.compare(f"{block}.yaw", yaw)
    case.compare(f"{block}.pitch", clamp_pitch(pitch))
    case.compare(f"{block}.cam_pos", camera.origins)
    case.compare(f"{block}.cam2world", camera.pose)


# What follows the clamp mode in the name of a block of compositing -> published arguments
COMPOSITES = {
    "last": {"last_back": True},
    "white": {"white_back": True},
    "maxd": {"max_depth": 1.25},  # stated nowhere; the recorded weights have it
    "nodist": {"render_mode": "no_dist"},
}


def composite(case: Case, block: str) -> None:
    """Importance sampling and compositing of given features and densities: a field that knows them already."""
    kind, mode, *rest = block.split("_")
    features, raw, t = (case.inputs[f"hs.{name}"] for name in ("feat", "sigma", "z"))
    options = COMPOSITES.get(rest[0] if rest else "", {})
    count = t.shape[2]
    config = renderer_config({"num_steps": count}, {"clamp_mode": mode}, {"clamp_mode": mode} | options)
    renderer: VolumeRenderer = build(config, nn.Module)
    rays = Rays(case.inputs["hs.ray_origins"], case.inputs["hs.ray_dirs"])
    given = Samples(rays.origins, rays.directions, t[..., 0])
    if kind == "hs":
        weights = (renderer.coarse or renderer.quadrature).weigh(raw, given)
        assert isinstance(renderer.fine, Importance)
        fine = renderer.fine(given.t, weights, Replay([("importance", case.inputs["hs.pdf_u"])]))
        case.compare(f"{block}.pts_z", fine[..., None])
        case.compare(f"{block}.pts", Samples(*rays[:2], fine).points)
        return
    renderer.depths, renderer.fine = (lambda rays, draws: given), None
    result = renderer(lambda samples, _: (raw, features), rays, None)
    weights = result.weights
    rgb = weights.sum(-1, keepdim=True).expand_as(result.features) if rest == ["weight"] else result.features
    case.compare(f"{block}.rgb", rgb)
    case.compare(f"{block}.depth", (weights * given.t).sum(-1, keepdim=True))
    case.compare(f"{block}.weights", weights[..., None])


@torch.no_grad()
def checkpoint(case: Case) -> None:
    """A file of a training run: every tensor, and what is drawn with them."""
    place = Place(case.folder / case.info["checkpoint"])
    contents = read(place)
    for weights, model in volumegan.WEIGHTS.items():
        if model not in contents.value["models"]:
            continue
        made = convert_network(volumegan, place, contents, None, weights)
        network, expected = made.network, contents.value["models"][model]
        table = discriminator_table(len(network.blocks)) if model == "discriminator" else GENERATOR
        back = to_published(network.state_dict() | made.unused, table)
        assert same_tensors(back, expected)
        about = contents.value["running_metadata"]
        assert (made.card["iterations"], made.card["images_seen"]) == (about["iter"], about["seen_img"])
        network.load_state_dict({name: case.cast(t) for name, t in network.to(case.dtype).state_dict().items()})
        if model == "discriminator":
            case.scores("score", network(case.inputs["image"]).scores)
            continue
        network.renderer.depths = Unjittered(network.renderer.depths)
        draws = replay(case, "", generator=network)
        styles = network.map(Latent(case.inputs["z"]))
        camera = network.cameras(len(case.inputs["z"]), draws)
        case.compare(f"image_{model}", network.render(styles, camera, draws=draws).image)
    if "pl_mean" in case.outputs:
        case.compare("pl_mean", contents.value["loss"]["pl_mean"])


KINDS = {
    "render": render,
    "sampling": sampling,
    "discriminator": discriminator,
    "losses": losses,
    "step": step,
    "truncation": truncation,
    "checkpoint": checkpoint,
}

ALPHAS = "the published 'alphas' are the light before the first sample, always 1; we do not keep it"
MODES = ("relu", "softplus", "mipnerf", "relu_last", "relu_white", "relu_maxd", "softplus_nodist", "relu_weight")
# Outputs that our formulation does not have, by case, with the reason.
ABSENT: dict[str, dict[str, str]] = {
    "render": {"transmittance_first": ALPHAS},
    "sampling": {f"render_{mode}.alphas": ALPHAS for mode in MODES},
    "truncation": {
        "sampler_num_steps_after_video_call": "the published sampler keeps the numbers of its last call; ours has none"
    },
}
# Outputs with tolerances of more than ten times what is usual, by case and pattern of names, with the reason.
NEARLY_EMPTY = "in cells which are nearly empty rounding moves importance samples a thousand times as far"
IMPORTANCE = (
    "follows from importance samples that were not recorded: in cells which are nearly empty rounding moves them a "
    "thousand times as far"
)
SIGNS = (
    "Adam's first steps are as long for tiny gradients as for large ones: rounding, which importance samples enlarge, "
    "turns some of them round"
)
KINKS = "a score's gradient jumps where rounding moves a number past a kink of a leaky ReLU"
LOOSE: dict[str, dict[str, tuple[float, str]]] = {
    "render": {
        "fine_z": (30, NEARLY_EMPTY),
        r"fine_.*|merged_.*|weights|depth|feature2d|syn\..*|rgb_lowres|image.*": (100, IMPORTANCE),
    },
    "losses": {r"(.*\.)?(fake_image|g_loss.*|pl_.*|d_fake_loss|grad_norm\..*|grad\..*)": (100, IMPORTANCE)},
    "sampling": {r"hs_.*": (30, NEARLY_EMPTY)},
    "step": {
        r"\d+\.(value|change_norm|adam_exp_avg_sq|stat)\..*": (100, SIGNS),
        r"\d+\.stat\.Real_Gradient_Penalty": (300, KINKS),
    },
    "truncation": {r".*image.*": (300, IMPORTANCE)},
    "checkpoint": {r"image.*": (100, IMPORTANCE)},
}
