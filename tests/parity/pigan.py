"""How the published pi-GAN's arguments, names and draws translate into ours."""

import math
import re
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

import zoo.pigan.model
import zoo.pigan.training
from tests.parity.harness import (
    Before,
    Case,
    Replay,
    Watched,
    by_published_name,
    even_quantiles,
    gradients_of,
    same_tensors,
    train,
)
from zoo.pigan import convert as pigan
from zoo.pigan.convert import DISCRIMINATOR, GENERATOR, PLAIN_DISCRIMINATOR
from zoo.pigan.model import Discriminator, FilmSiren, Generator, Latent, SpatialEmbedding, Styles
from zoo.pigan.training import PiGAN, Stage
from zoo.render import (
    Camera,
    FixedPoses,
    GaussianPoses,
    HybridPoses,
    Importance,
    JitteredUniform,
    Orbit,
    Quadrature,
    Rays,
    Samples,
    SpherePoses,
    TruncatedGaussianPoses,
    UniformPoses,
    VolumeRenderer,
    black,
    clamp_pitch,
    inverse_cdf,
    last_sample,
    pixel_corners,
    relu,
    softplus,
    through,
    white,
)
from zoo.training.ema import EMA, WarmUpDecay
from zoo.weights.bundle import UNUSED
from zoo.weights.convert import convert_network
from zoo.weights.names import from_published, to_published
from zoo.weights.read import Place, read

BOX = 2 / 0.24
IMAGE = 1e-3  # usual tolerance of images, since eight sines of thirty times their argument amplify rounding
CHANNELS = {"sg": ["32", "64", "128", "256", "400", "400", "400", "400"]}
CHANNELS["progressive"] = ["16", *CHANNELS["sg"][:4], "400", "400", "400", "400"]


def build_generator(config: dict) -> Generator:
    """Our generator for the published constructor's arguments."""
    of = config["generator"]
    embedding = None
    if of["siren"].startswith("EmbeddingPiGAN"):
        embedding = SpatialEmbedding(32, 2)
        embedding.cube = nn.Parameter(torch.zeros(1, 32, *of.get("spatial_embedding_grid", (96, 96, 96))))
    scale = 1.0 if of["siren"] == "TALLSIREN" else BOX
    field = FilmSiren(of["hidden_dim"], of.get("n_film_layers", 8), scale, embedding)
    poses = Orbit(fov_deg=config.get("render", {}).get("fov", 12))
    return Generator(
        field, VolumeRenderer(JitteredUniform(0.8, 1.2, 4)), poses, of["z_dim"], of.get("map_hidden_dim", 256)
    )


def build_renderer(options: dict) -> VolumeRenderer:
    """Our renderer for the published forward call's arguments."""
    samples = options["num_steps"]

    def background(weights: Tensor) -> tuple[Tensor, Tensor]:
        added = white(weights)[1] if options.get("white_back") else black(weights)[1]
        return (last_sample(weights)[0] if options.get("last_back") else weights), added

    return VolumeRenderer(
        JitteredUniform(options["ray_start"], options["ray_end"], samples),
        Quadrature(softplus if options.get("clamp_mode") == "softplus" else relu, background=background),
        fine=Importance(samples, floor=2e-5) if options.get("hierarchical_sample", True) else None,
        chunk=options.get("chunk"),
    )


def load_generator(case: Case, config: dict | None = None) -> Generator:
    generator = build_generator(config or case.config)
    names = [n for n in generator.state_dict() if not n.startswith("mean_")]
    state = from_published(case.weights("generator."), names, GENERATOR)
    missing, unexpected = generator.load_state_dict(state, strict=False)
    assert not unexpected and all(n.startswith("mean_") for n in missing)
    return generator


def build_discriminator(kind: str, widths: dict[str, int]) -> Discriminator:
    progressive = kind.startswith("Progressive")
    channels = [widths[c] for c in CHANNELS["progressive" if progressive else "sg"]]
    return Discriminator(
        channels,
        coordinates=kind != "StridedDiscriminator",
        downsample="pool" if progressive else "stride",
        latent_dim=256 if "Encoder" in kind else 0,
    )


def load_discriminator(case: Case, kind: str, widths: dict[str, int], prefix: str) -> Discriminator:
    discriminator = build_discriminator(kind, widths)
    table = DISCRIMINATOR if kind != "StridedDiscriminator" else PLAIN_DISCRIMINATOR
    state = from_published(case.weights(prefix), list(discriminator.state_dict()), table)
    unused = {n for n in state if n.startswith(UNUSED)}
    assert all("pose_layer" in n for n in unused), unused
    discriminator.load_state_dict({n: t for n, t in state.items() if n not in unused})
    return discriminator


def forward_draws(recorded: list[Tensor], hierarchical: bool) -> list[tuple[str, Tensor]]:
    """Draws of one published forward call, under our names; a random camera's two angles come second and third."""
    angles = [("yaw", recorded[1]), ("pitch", recorded[2])] if recorded[1].dim() == 2 else []
    rest = recorded[1 + len(angles) :]
    names = ["coarse_density_noise", "importance", "final_density_noise"] if hierarchical else ["final_density_noise"]
    assert len(rest) == len(names)
    return [("jitter", recorded[0]), *angles, *zip(names, rest, strict=True)]


# Kinds of case


SCENARIOS = {
    "hier_noise": {},
    "coarse_only": {"hierarchical_sample": False, "nerf_noise": 0},
    "last_back": {"last_back": True, "nerf_noise": 0},
    "white_back": {"white_back": True, "nerf_noise": 0},
    "softplus": {"clamp_mode": "softplus", "nerf_noise": 0},
    "lock_view": {"nerf_noise": 0},
}


@torch.no_grad()
def render(case: Case) -> None:
    generator = load_generator(case)
    yaw, pitch = case.inputs["yaw"], case.inputs["pitch"]
    camera = generator.poses.camera(yaw, pitch)
    styles = generator.map(Latent(case.inputs["z"]))
    for block in case.blocks():
        if block == "query":
            query(case, generator)
            continue
        options = {**case.config["render"], "hierarchical_sample": True, **SCENARIOS[block]}
        hierarchical, size = options["hierarchical_sample"], options["img_size"]
        renderer = generator.renderer = build_renderer(options)
        renderer.fine = Watched(renderer.fine) if hierarchical else None
        field = Watched(partial(generator.field, lock_view=block == "lock_view"))
        draws = Replay(forward_draws(case.draws(block), hierarchical))
        rays = generator.rays(camera, size)
        integrated = renderer(field, rays, generator.field.modulate(styles), draws, options["nerf_noise"])

        origins, x, y, z = camera.origins, *camera.origins.T
        angles = torch.stack([torch.acos(y / origins.norm(dim=-1)), torch.atan2(z, x)], dim=-1)
        (coarse, _), (coarse_raw, coarse_colour) = field.calls[0]
        ours = {
            "pose": angles,
            "rays_d_cam": rays.directions @ camera.pose[:, :3, :3],
            "z_linear": renderer.depths(rays, None).t[..., None],
            "rays_d": rays.directions,
            "rays_o": rays.origins,
            "z_vals": coarse.t[..., None],
            "points_world": coarse.points,
            "frequencies": styles.frequencies.flatten(1),
            "phase_shifts": styles.phases.flatten(1),
            "coarse_rgb_sigma": torch.cat([coarse_colour, coarse_raw], -1).flatten(1, 2),
        }
        if hierarchical:
            ((_, weights, _), fine_t) = renderer.fine.calls[0]
            (fine, _), (fine_raw, fine_colour) = field.calls[1]
            ours |= {
                "coarse_weights": weights[..., None],
                "fine_z": fine_t.flatten(0, 1),
                "fine_points": fine.points.flatten(1, 2),
                "fine_rgb_sigma": torch.cat([fine_colour, fine_raw], -1).flatten(1, 2),
            }
        ours |= {
            "weights": integrated.weights[..., None],
            "depth": integrated.depth,
            "image": 2 * integrated.features.mT.unflatten(-1, (size, size)) - 1,
        }
        for name, value in ours.items():
            if f"{block}.{name}" not in case.outputs:
                continue
            if name.endswith("rgb_sigma"):
                case.relative(f"{block}.{name}", value)
            else:
                case.compare(f"{block}.{name}", value, IMAGE if name == "image" else 1e-4)
        assert draws.used_up() or options["nerf_noise"] == 0

        again = Replay(forward_draws(case.draws(block), hierarchical))  # the public way gives the same image
        rendered = generator.render(
            styles,
            camera,
            resolution=size,
            draws=again,
            density_noise=options["nerf_noise"],
            lock_view=block == "lock_view",
        )
        assert torch.equal(rendered.image, ours["image"])


def query(case: Case, generator: Generator) -> None:
    """The field at single points: each is a ray of one sample."""
    points, directions = case.inputs["query_points"], case.inputs["query_dirs"]
    samples = Samples(points, directions, torch.zeros_like(points[..., :1]))
    styles = generator.map(Latent(case.inputs["z"]))
    with patch.object(zoo.pigan.model, "sine", Watched(zoo.pigan.model.sine)) as watched:
        raw, colour = generator.field(samples, generator.field.modulate(styles))
    case.compare("query.film_activations", torch.stack([result for _, result in watched.calls]), IMAGE)
    case.relative("query.rgb_sigma", torch.cat([colour, raw], -1)[:, :, 0])


def remember(activations: list[Tensor], module: nn.Module, inputs: tuple, output: Tensor) -> None:
    activations.append(leaky_relu(output, 0.2) if isinstance(module, nn.Conv2d) else output)


@torch.no_grad()
def discriminator(case: Case) -> None:
    for kind in case.config["classes"]:
        discriminator = load_discriminator(case, kind, case.config["channel_map"], f"discriminator.{kind}.")
        for name in case.outputs:
            if not name.startswith(f"{kind}."):
                continue
            size, rest = name.removeprefix(f"{kind}.size").split(".", 1)
            alpha, what = rest.removeprefix("alpha").rsplit(".", 1)
            activations: list[Tensor] = []
            keep = partial(remember, activations)
            hooks = [m.register_forward_hook(keep) for m in [*discriminator.from_rgb, *discriminator.blocks]]
            output = discriminator(case.inputs[f"image{size}"], float(alpha))
            for hook in hooks:
                hook.remove()
            field = {"score": "scores", "latent": "latent", "position": "camera"}.get(what)
            case.compare(name, getattr(output, field) if field else activations[int(what.removeprefix("act"))])


POSES = {
    "uniform": UniformPoses,
    "gaussian": GaussianPoses,
    "normal": GaussianPoses,
    "hybrid": HybridPoses,
    "truncated_gaussian": TruncatedGaussianPoses,
    "spherical_uniform": SpherePoses,
}  # any other name is a fixed camera


def build_poses(of: dict) -> Orbit:
    """Our distribution of cameras for a published curriculum."""
    kind = POSES.get(of["sample_dist"], FixedPoses)
    return kind(of["h_mean"], of["h_stddev"], of["v_mean"], of["v_stddev"], fov_deg=of["fov"])


class Trained(PiGAN):
    """The losses without a trainer, at a given iteration and fade."""

    def __init__(self, case: Case, **kwargs) -> None:
        super().__init__(**kwargs)
        self.fixed_alpha = case.config["loss"]["alpha"]
        self.noise = case.config["loss"]["nerf_noise"]

    alpha = property(lambda self: self.fixed_alpha)
    density_noise = property(lambda self: self.noise)


def losses(case: Case) -> None:
    config, options, loss = case.config, case.config["render"], case.config["loss"]
    generator = load_generator(case)
    generator.poses = build_poses(options)
    generator.renderer = build_renderer(options)
    of = config["discriminator"]
    discriminator = load_discriminator(case, of["class"], of["channel_map"], "discriminator.")
    gan = Trained(
        case,
        generator=generator,
        discriminator=discriminator,
        optimizer_g=torch.optim.Adam,
        optimizer_d=torch.optim.Adam,
        r1_weight=loss["r1_lambda"],
        latent_weight=loss["z_lambda"],
        angle_weight=loss["pos_lambda"],
        top_k_every=loss["topk_interval"],
        top_k_least=loss["topk_v"],
    )
    gan.iterations = loss["step"]
    real, z = case.inputs["real"], case.inputs["z_d"]
    hierarchical = options["hierarchical_sample"]

    with torch.no_grad():
        fake, angles = gan.generate(z, real, Replay(forward_draws(case.draws("gen_d"), hierarchical)))
    case.compare("fake_d", fake, IMAGE)
    case.compare("pos_d", angles)
    watched = discriminator.forward = Watched(discriminator.forward)
    terms = gan.loss_d(real, fake, z, angles)
    (_, on_real), (_, on_fake) = watched.calls
    guessed = terms.get("latent", 0.0) + terms.get("angles", 0.0)
    total = sum(terms.values())
    total.backward()
    case.compare("d.real_scores", on_real.scores.detach())
    case.compare("d.fake_scores", on_fake.scores.detach())
    for name, term in (("d.latent_penalty", "latent"), ("d.position_penalty", "angles")):
        case.relative(name, torch.as_tensor(terms.get(term, 0.0)), 1e-4)
    case.relative("d.adversarial", (terms["real"] + terms["fake"]).detach(), 1e-4)
    case.relative("d.r1_term", terms["r1"].detach(), 1e-3)
    case.relative("d.r1_raw", terms["r1"].detach() / (0.5 * loss["r1_lambda"]), 1e-3)
    case.relative("d.identity", torch.as_tensor(guessed).detach(), 1e-4)
    case.relative("d.loss", total.detach(), 1e-4)
    table = DISCRIMINATOR if of["class"] != "StridedDiscriminator" else PLAIN_DISCRIMINATOR
    order = case.config["d_param_order"]
    case.gradients("d.grad_norms", "d.grad.", gradients_of(discriminator, table), order)

    watched.calls.clear()
    discriminator.requires_grad_(False)
    z = case.inputs["z_g"]
    fake, angles = gan.generate(z, real, Replay(forward_draws(case.draws("gen_g"), hierarchical)))
    with patch.object(zoo.pigan.training, "top_k", Watched(zoo.pigan.training.top_k)) as kept:
        terms = gan.loss_g(fake, z, angles)
    total = sum(terms.values())
    total.backward()
    case.compare("g.fake", fake, IMAGE)
    case.compare("g.fake_scores", watched.calls[0][1].scores.detach())
    (_, count), _ = kept.calls[0]
    case.compare("g.topk", count)
    case.relative("g.identity", torch.as_tensor(terms.get("latent", 0.0) + terms.get("angles", 0.0)).detach(), 1e-4)
    case.relative("g.loss", total.detach(), 1e-4)
    order = case.config["g_param_order"]
    case.gradients("g.grad_norms", "g.grad.", gradients_of(generator, GENERATOR), order)
    norms = torch.stack([p.grad.norm() for p in generator.parameters()])
    case.relative("g.grad_total_norm", norms.norm())


# A published draw's name without number, place and distribution -> ours.
DRAWS = {
    "perturb": "jitter",
    "branch": "pose_kind",
    "theta": "yaw",
    "phi": "pitch",
    "v": "pitch",
    "z_d": "z",
    "z_g": "z",
    "coarse_noise": "coarse_density_noise",
    "importance_u": "importance",
    "final_noise": "final_density_noise",
}


def ours_by_name(recorded: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Draws that carry their published names, under ours."""
    pairs = []
    for name, numbers in recorded.items():
        base = re.sub(r"^\d+_|_(U|N|N4)$", "", name.split(".", 1)[1]).rsplit(".", 1)[-1]
        if base != "fixed_z_N(unused)":
            pairs.append((DRAWS[base], numbers))
    return pairs


class Replayed(PiGAN):
    """Training on recorded numbers, with a record of losses and of gradient norms before clipping."""

    def __init__(self, recorded: list[tuple[str, Tensor]], **kwargs) -> None:
        super().__init__(**kwargs)
        self.replay, self.totals, self.penalties, self.norms, self.kept = Replay(recorded), [], [], [], []

    def draws(self) -> Replay:
        return self.replay

    def accumulate(self, prefix: str, terms: dict[str, Tensor]) -> None:
        self.totals.append((prefix, sum(terms.values()).detach()))
        self.penalties += [terms["r1"].detach()] if "r1" in terms else []
        super().accumulate(prefix, terms)

    def step(self, optimizer, **how) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.norms.append(torch.stack([g.norm() for g in gradients]).norm())
        super().step(optimizer, **how)


def step(case: Case) -> None:
    config, of = case.config, case.config["curriculum"]
    stages = {int(key): value for key, value in of.items() if key.isdigit() and value}
    now = stages[max(start for start in stages if start <= config["start_step"])]
    generator = load_generator(case)
    generator.poses, generator.renderer = build_poses(of), build_renderer(of | now)
    kind = config["discriminator"]["class"]
    discriminator = load_discriminator(case, kind, config["discriminator"]["channel_map"], "discriminator.")
    table = DISCRIMINATOR if kind != "StridedDiscriminator" else PLAIN_DISCRIMINATOR
    adam = partial(torch.optim.Adam, betas=tuple(map(float, of["betas"])), weight_decay=of["weight_decay"])
    gan = Replayed(
        ours_by_name(case.named_draws("draws")),
        generator=generator,
        discriminator=discriminator,
        optimizer_g=adam,
        optimizer_d=adam,
        emas={f"ema{i + 1}": EMA(WarmUpDecay(decay)) for i, decay in enumerate(config["ema_decays"])},
        r1_weight=of["r1_lambda"],
        latent_weight=of["z_lambda"],
        angle_weight=of["pos_lambda"],
        top_k_every=of["topk_interval"],
        top_k_least=of["topk_v"],
        fade_iterations=of["fade_steps"],
        clip_norm=of["grad_clip"],
        stages=[Stage(start, v["gen_lr"], v["disc_lr"], v["batch_split"]) for start, v in sorted(stages.items())],
        mapping_lr=1.0,  # its unique_lr never matches a parameter
    )
    gan.iterations = config["start_step"]
    case.compare("alpha", gan.alpha)
    case.compare("nerf_noise", gan.density_noise)

    published_g, published_d = by_published_name(generator, GENERATOR), by_published_name(discriminator, table)
    moments = []
    for player, parameters in (("G", published_g), ("D", published_d)):
        order = config[f"{player.lower()}_param_order"]
        values = case.inputs[f"opt_{player}.exp_avg_sq_fill"].tolist()
        found = [(parameters[n], value) for n, value in zip(order, values, strict=True) if n in parameters]
        moments.append(
            {p: {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.full_like(p, value)} for p, value in found}
        )
    averaged = {}
    for name, ema in gan.emas.items():
        ema.updates = config["ema_num_updates_before"]
        averaged[name] = by_published_name(ema.module, GENERATOR)
        for k, published in enumerate(config["g_param_order"]):
            averaged[name][published].data.copy_(case.inputs[f"{name}.shadow.{k:03d}"])
    networks = {"g": published_g, "d": published_d, **averaged}
    before = {player: {n: p.detach().clone() for n, p in ps.items()} for player, ps in networks.items()}

    with patch.object(zoo.pigan.training, "top_k", Watched(zoo.pigan.training.top_k)) as kept:
        real = case.inputs["real"]
        trainer = train(gan, real, len(real), Before(moments))

    case.compare("topk_num", kept.calls[0][0][1])
    case.relative("d_loss", torch.stack([total for prefix, total in gan.totals if prefix == "loss_d"]), 1e-4)
    case.relative("g_losses", torch.stack([total for prefix, total in gan.totals if prefix == "loss_g"]), 1e-4)
    case.relative("grad_penalty", gan.penalties[0])
    case.relative("clip_total_norm_d", gan.norms[0])
    case.relative("clip_total_norm_g", gan.norms[1])
    case.compare("lr", torch.tensor([optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]))
    for player, parameters in networks.items():
        order = config[f"{'d' if player == 'd' else 'g'}_param_order"]
        changes = {n: case.change(p, before[player][n]).norm() for n, p in parameters.items()}
        if f"{player}.change_norms" in case.outputs:
            # What our network does not have, since nothing reads it, doesn't change.
            norms = torch.stack([changes.get(n, torch.tensor(0.0)) for n in order])
            case.each_relative(f"{player}.change_norms", norms, 1e-2)
        for name in case.outputs:
            if name.startswith(f"{player}.after."):
                case.compare(name, parameters[name.removeprefix(f"{player}.after.")].detach())
    updates = gan.emas["ema1"].updates
    # A pass over the data is no unit of ours; the published loop begins one here.
    case.compare("counters", torch.tensor([gan.iterations] * 2 + case.outputs["counters"][2:4].tolist() + [updates]))


@torch.no_grad()
def sampling(case: Case) -> None:
    of = case.config
    size, depths = of["img_size"], JitteredUniform(of["ray_start"], of["ray_end"], of["num_steps"])
    n = len(case.outputs["rays.rays_d_cam"])
    still = Camera(torch.eye(4).repeat(n, 1, 1), FixedPoses(fov_deg=of["fov"])(n, None).intrinsics)
    rays = through(still, pixel_corners(size))
    for block, draws in (("rays", None), ("perturb", Replay([("jitter", t) for t in case.draws("perturb")]))):
        samples = depths(rays, draws)
        case.compare(f"{block}.{'points_cam' if draws is None else 'points'}", samples.points)
        case.compare(f"{block}.z_vals", samples.t[..., None])
    case.compare("rays.rays_d_cam", rays.directions)

    for block in case.blocks():
        if block.startswith("camera_"):
            meaning = case.info["outputs"][f"{block}.origin"]["meaning"]
            angles = {
                name: exact(text) for name, text in re.findall(r"(h_std|v_std|h_mean|v_mean)=([-\d.e]+)", meaning)
            }
            kind = POSES.get(block.removeprefix("camera_").rstrip("0123456789"), FixedPoses)
            poses = kind(angles["h_mean"], angles["h_std"], angles["v_mean"], angles["v_std"])
            draws = Replay(ours_by_name(case.named_draws(block)))
            yaw, pitch = poses.angles(len(case.outputs[f"{block}.yaw"]), draws)
            assert draws.used_up()
            camera = poses.camera(yaw, pitch)
            case.compare(f"{block}.yaw", yaw)
            case.compare(f"{block}.pitch", clamp_pitch(pitch))
            case.compare(f"{block}.origin", camera.origins)
            case.compare(f"{block}.cam2world", camera.pose)
        if block.startswith(("comp_", "fill_")):
            composite(case, block)

    draws = Replay(ours_by_name(case.named_draws("full")))
    poses = GaussianPoses(math.pi / 2, 0.3, math.pi / 2, 0.155, fov_deg=of["fov"])  # as the outputs' meaning says
    yaw, pitch = poses.angles(n, draws)
    rays = through(poses.camera(yaw, pitch), pixel_corners(size))
    samples = depths(rays, draws)
    ours = {"points": samples.points, "z_vals": samples.t[..., None], "rays_d": rays.directions}
    for name, value in (ours | {"rays_o": rays.origins, "pitch": pitch, "yaw": yaw}).items():
        case.compare(f"full.{name}", value)

    edges, weights = case.inputs["pdf.bins"], case.inputs["pdf.weights"] + 1e-5
    u = case.draws("pdf_random")[0]
    case.compare("pdf.random", inverse_cdf(edges, weights, u))
    case.compare("pdf.det", inverse_cdf(edges, weights, even_quantiles(edges, case.outputs["pdf.det"])))


def exact(text: str) -> float:
    """A number that was printed with six digits; the angles of the published curricula are known exactly."""
    known = {f"{value:g}": value for value in (math.pi / 2, math.pi, math.pi / 4, math.pi / 4 * 85 / 90)}
    return known.get(text, float(text))


UNUSED_DEPTHS = {"ray_start": 0.0, "ray_end": 1.0, "num_steps": 2, "hierarchical_sample": False}


def composite(case: Case, block: str) -> None:
    """Compositing of given colours and densities: a field that knows them already."""
    colour, raw = case.inputs["comp.rgb_sigma"].split([3, 1], dim=-1)
    t = case.inputs["comp.z_vals"][..., 0]
    meaning = case.info["outputs"][f"{block}.rgb"]["meaning"]
    noise = re.search(r"noise_std=([\d.]+)", meaning)
    flags = dict(re.findall(r"_(last|white)([01])", block))
    renderer = build_renderer(
        {
            **UNUSED_DEPTHS,
            "clamp_mode": "softplus" if "softplus" in block else "relu",
            "last_back": flags.get("last") == "1",
            "white_back": flags.get("white") == "1",
        }
    )
    renderer.depths = lambda rays, draws: Samples(*rays[:2], t)
    rays = Rays(torch.zeros(*t.shape[:2], 3), torch.tensor([0.0, 0.0, -1.0]).expand(*t.shape[:2], 3))
    draws = Replay([("final_density_noise", numbers) for numbers in case.draws(block)])
    result = renderer(lambda samples, _: (raw, colour), rays, None, draws, float(noise[1]) if noise else 0.0)
    fill = block.removeprefix("fill_") if block.startswith("fill_") else "no"
    ours = {"rgb": FILLS[fill](result), "depth": result.depth, "weights": result.weights[..., None]}
    for name, value in ours.items():
        if f"{block}.{name}" in case.outputs:
            case.compare(f"{block}.{name}", value)


# truncation, then what else the block's call was given
TRUNCATED = {
    "psi1": (1.0, {}),
    "psi07": (0.7, {}),
    "psi0": (0.0, {}),
    "psi07_lock": (0.7, {"lock_view": True}),
    "psi07_lastback": (0.7, {"last_back": True}),
    "fill_weight": (0.7, {"fill": "weight"}),
    "fill_debug": (0.7, {"fill": "debug"}),
    "chunked": (0.7, {"chunk": 37}),
    "interp": (0.7, {}),
    "fwf": (0.7, {}),
}


@torch.no_grad()
def truncation(case: Case) -> None:
    generator, options = load_generator(case), case.config["render"]
    means = generator.mapping(case.inputs["z_avg"])
    generator.mean_frequencies, generator.mean_phases = (x.mean(0, keepdim=True) for x in means)
    case.compare("avg_frequencies", generator.mean_frequencies.flatten(1))
    case.compare("avg_phase_shifts", generator.mean_phases.flatten(1))
    size, latent = options["img_size"], Latent(case.inputs["z"])
    for block, (psi, changed) in TRUNCATED.items():
        styles = generator.map(latent, truncation=psi)
        if block == "interp":
            styles = Styles(*(0.75 * x[:1] + 0.25 * x[1:] for x in styles))
        n = len(styles.phases)
        camera = generator.poses.camera(torch.full((n, 1), options["h_mean"]), torch.full((n, 1), options["v_mean"]))
        renderer = build_renderer(options | changed)
        field = partial(generator.field, lock_view=changed.get("lock_view", False))
        draws = Replay(forward_draws(case.draws(block), options["hierarchical_sample"]))
        result = renderer(field, generator.rays(camera, size), generator.field.modulate(styles), draws)
        colour = FILLS[changed.get("fill", "no")](result)
        case.compare(f"{block}.image", 2 * colour.mT.unflatten(-1, (size, size)) - 1, IMAGE)
        if f"{block}.depth" in case.outputs:
            case.compare(f"{block}.depth", result.depth.unflatten(1, (size, size))[..., 0])
    shape(case, generator, generator.map(Latent(latent.z[:1]), truncation=0.5))


def shape(case: Case, generator: Generator, styles: Styles) -> None:
    """The published script's cube of densities, at its points with their fractional indices."""
    n = len(case.outputs["shape.sigmas"])
    i, side = torch.arange(n**3, dtype=case.dtype), 0.3
    points = (torch.stack([i / n / n % n, i / n % n, i % n], -1) * (side / (n - 1)) - side / 2)[None]
    case.compare("shape.samples", points)
    samples = Samples(points, torch.zeros_like(points), torch.zeros_like(points[..., :1]))
    raw, _ = generator.field(samples, generator.field.modulate(styles))
    case.relative("shape.sigmas", raw.reshape(n, n, n))


# Colours that the published code can paint instead of the rendered ones, for looking into a field.
FILLS = {
    "no": lambda r: r.features,
    "weight": lambda r: r.weights.sum(-1, keepdim=True).expand_as(r.features),
    "debug": lambda r: torch.where(r.weights.sum(-1, keepdim=True) < 0.9, torch.tensor([1.0, 0.0, 0.0]), r.features),
}


@torch.no_grad()
def checkpoint(case: Case) -> None:
    """Files of a training run: every tensor, and what is drawn with them once they are bundles."""
    config, jitter = case.config, case.draws("hier_noise")[0]  # as block hier_noise of the case "render"
    options = {"fov": 12, "ray_start": 0.88, "ray_end": 1.12, "num_steps": jitter.shape[2], "nerf_noise": 0.4}
    experiment = {
        "class_path": "zoo.pigan.Generator",
        "init_args": {
            "field": {"class_path": "zoo.pigan.FilmSiren"},
            "renderer": {
                "class_path": "zoo.render.VolumeRenderer",
                "init_args": {
                    "depths": {
                        "class_path": "zoo.render.JitteredUniform",
                        "init_args": {
                            "near": options["ray_start"],
                            "far": options["ray_end"],
                            "samples": jitter.shape[2],
                        },
                    }
                },
            },
            "poses": {"class_path": "zoo.render.Orbit", "init_args": {"fov_deg": options["fov"]}},
        },
    }
    place = Place(case.folder / "generator.pth")
    contents = read(place)
    for name, about in case.info["files"].items():
        assert read(case.folder / name).names == about["pickle_globals"], name

    rendered_images = {}
    for weights, prefix in (("raw", "generator."), ("ema", "ema."), ("ema2", "ema2.")):
        made = convert_network(pigan, place, contents, experiment, weights)
        generator, expected = made.network, case.published(prefix)
        learned = {n: t for n, t in generator.state_dict().items() if not n.startswith("mean_")}
        back = to_published(learned | made.unused, GENERATOR)
        assert same_tensors(back, expected)
        assert made.card["iterations"] == 12345 and generator.latent_dim == config["generator"]["z_dim"]
        generator.load_state_dict({n: case.cast(t) for n, t in generator.to(case.dtype).state_dict().items()})
        generator.renderer = build_renderer(options)
        camera = generator.poses.camera(case.inputs["yaw"], case.inputs["pitch"])
        draws = Replay(forward_draws(case.draws("hier_noise"), True))
        styles = generator.map(Latent(case.inputs["z"]))
        rendered = generator.render(
            styles, camera, resolution=math.isqrt(jitter.shape[1]), draws=draws, density_noise=options["nerf_noise"]
        )
        rendered_images[weights] = rendered.image
    for weights in ("raw", "ema"):
        for name in (f"image_{weights}", f"image_{weights}_torch1.8.1"):
            case.compare(name, rendered_images[weights], IMAGE)
    assert not torch.allclose(rendered_images["raw"], rendered_images["ema"], atol=1e-2)

    place = Place(case.folder / "discriminator.pth")
    made = convert_network(pigan, place, read(place))
    back, expected = to_published(made.network.state_dict(), DISCRIMINATOR), case.published("discriminator.")
    assert same_tensors(back, expected)
    assert made.network.from_rgb[0].out_channels == config["discriminator"]["channel_map"]["32"]


KINDS = {
    "render": render,
    "sampling": sampling,
    "discriminator": discriminator,
    "losses": losses,
    "step": step,
    "truncation": truncation,
    "checkpoint": checkpoint,
}

# Outputs that our formulation does not have, by case, with the reason.
ABSENT: dict[str, dict[str, str]] = {}
# Outputs whose tolerance may be over ten times the usual, by kind of case and pattern of names: how often, and why.
IMPORTANCE = (
    "follows from importance samples: in cells which are nearly empty rounding moves them a thousand times as far, and "
    "eight sines amplify that"
)
LOOSE: dict[str, dict[str, tuple[float, str]]] = {
    "render": {r".*\.(fine_.*|weights|depth|image)": (100, IMPORTANCE)},
    "step": {r".*\.change_norms": (1e5, "some parameters move by less than the distance to the next float32 number")},
}
