"""Cases of losses with their gradients, and of a training step."""

from functools import partial

import torch

import zoo.pigan.training
from tests.parity.harness import Case
from tests.parity.pigan.build import (
    IMAGE,
    build_poses,
    build_renderer,
    discriminator_table,
    load_discriminator,
    load_generator,
)
from tests.parity.pigan.draws import forward_draws, ours_by_name
from tests.parity.published import (
    Before,
    Watched,
    adam_moments,
    by_published_name,
    copies,
    gradients_of,
    noted,
    train,
    watching,
)
from tests.parity.replay import Replay
from zoo.pigan.convert import GENERATOR
from zoo.pigan.training import PiGAN, Stage
from zoo.training.ema import EMA, WarmUpDecay


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
    found = gradients_of(discriminator, discriminator_table(of["class"]))
    case.gradients("d.grad_norms", "d.grad.", found, config["d_param_order"])

    watched.calls.clear()
    discriminator.requires_grad_(False)
    z = case.inputs["z_g"]
    fake, angles = gan.generate(z, real, Replay(forward_draws(case.draws("gen_g"), hierarchical)))
    with watching(zoo.pigan.training, "top_k") as kept:
        terms = gan.loss_g(fake, z, angles)
    total = sum(terms.values())
    total.backward()
    case.compare("g.fake", fake, IMAGE)
    case.compare("g.fake_scores", watched.calls[0][1].scores.detach())
    (_, count), _ = kept.calls[0]
    case.compare("g.topk", count)
    case.relative("g.identity", torch.as_tensor(terms.get("latent", 0.0) + terms.get("angles", 0.0)).detach(), 1e-4)
    case.relative("g.loss", total.detach(), 1e-4)
    case.gradients("g.grad_norms", "g.grad.", gradients_of(generator, GENERATOR), config["g_param_order"])
    norms = torch.stack([p.grad.norm() for p in generator.parameters()])
    case.relative("g.grad_total_norm", norms.norm())


def step(case: Case) -> None:
    config, of = case.config, case.config["curriculum"]
    stages = {int(key): value for key, value in of.items() if key.isdigit() and value}
    now = stages[max(start for start in stages if start <= config["start_step"])]
    generator = load_generator(case)
    generator.poses, generator.renderer = build_poses(of), build_renderer(of | now)
    kind = config["discriminator"]["class"]
    discriminator = load_discriminator(case, kind, config["discriminator"]["channel_map"], "discriminator.")
    adam = partial(torch.optim.Adam, betas=tuple(map(float, of["betas"])), weight_decay=of["weight_decay"])
    gan = PiGAN(
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
    gan.iterations, draws = config["start_step"], Replay(ours_by_name(case.named_draws("draws")))
    gan.draws, steps = lambda: draws, noted(gan)
    case.compare("alpha", gan.alpha)
    case.compare("nerf_noise", gan.density_noise)

    published_g = by_published_name(generator, GENERATOR)
    published_d = by_published_name(discriminator, discriminator_table(kind))
    moments = []
    for player, parameters in (("G", published_g), ("D", published_d)):
        order = config[f"{player.lower()}_param_order"]
        values = case.inputs[f"opt_{player}.exp_avg_sq_fill"].tolist()
        found = [(parameters[n], value) for n, value in zip(order, values, strict=True) if n in parameters]
        moments.append({parameter: adam_moments(parameter, value) for parameter, value in found})
    averaged = {}
    for name, ema in gan.emas.items():
        ema.updates = config["ema_num_updates_before"]
        averaged[name] = by_published_name(ema.module, GENERATOR)
        for k, published in enumerate(config["g_param_order"]):
            averaged[name][published].data.copy_(case.inputs[f"{name}.shadow.{k:03d}"])
    networks = {"g": published_g, "d": published_d, **averaged}
    before = {player: copies(parameters) for player, parameters in networks.items()}

    with watching(zoo.pigan.training, "top_k") as kept:
        real = case.inputs["real"]
        trainer = train(gan, real, len(real), Before(moments))

    case.compare("topk_num", kept.calls[0][0][1])
    losses_d, losses_g = ([terms for _, terms in step.losses] for step in steps)
    case.relative("d_loss", torch.stack([sum(terms.values()) for terms in losses_d]), 1e-4)
    case.relative("g_losses", torch.stack([sum(terms.values()) for terms in losses_g]), 1e-4)
    case.relative("grad_penalty", losses_d[0]["r1"])
    case.relative("clip_total_norm_d", steps[0].norm())
    case.relative("clip_total_norm_g", steps[1].norm())
    case.compare("lr", torch.tensor([optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]))
    for player, parameters in networks.items():
        order = config[f"{'d' if player == 'd' else 'g'}_param_order"]
        if f"{player}.change_norms" in case.outputs:
            # What our network does not have, since nothing reads it, doesn't change.
            case.changes(f"{player}.change_norms", parameters, before[player], order)
        for name, value in case.recorded(f"{player}.after.", parameters).items():
            case.compare(name, value)
    updates = gan.emas["ema1"].updates
    # A pass over the data is no unit of ours; the published loop begins one here.
    case.compare("counters", torch.tensor([gan.iterations] * 2 + case.outputs["counters"][2:4].tolist() + [updates]))
