"""Cases of losses with their gradients, and of training steps."""

from functools import partial

import torch

from tests.parity.cips3d.build import build_poses, build_renderer, frozen_parts, load_discriminator, load_generator
from tests.parity.cips3d.draws import recorded, replay
from tests.parity.harness import Case
from tests.parity.published import Watched, by_published_name, copies, gradients_of, noted, squared_gradients, train
from zoo.cips3d.convert import DISCRIMINATOR, GENERATOR
from zoo.cips3d.training import CIPS3D, Stage
from zoo.layers.diffaugment import diffaugment
from zoo.training.ema import EMA


def build_gan(case: Case, scenario: dict, **more) -> CIPS3D:
    """Our training for a published scenario."""
    cfg, kind = scenario["cfg"], scenario["gen"]
    if cfg.get("batch_split", 1) not in (1, 2):
        raise ValueError(
            "The published program breaks off with more than two slices of a batch: batch_split is 1 or 2."
        )
    if cfg.get("use_amp_D") or cfg.get("use_amp_G"):
        raise ValueError("The published numbers are those of float32: use_amp_D and use_amp_G must be off.")
    if cfg["G_kwargs"].get("psi", 1) < 1:
        raise ValueError("The published program never trains with truncated styles: psi must be 1.")
    if cfg["img_size"] >= 256:
        raise ValueError("From 256 pixels on, the published program draws in parts (forward_points) in one step only.")
    generator = load_generator(case, case.config["generator"], kind)
    generator.renderer, generator.poses = build_renderer(cfg["G_kwargs"]), build_poses(cfg["G_kwargs"])
    stage = Stage(
        lr_g=cfg["gen_lr"],
        lr_d=cfg["disc_lr"],
        auxiliary_every=cfg["update_aux_every"] if cfg["train_aux_img"] else 0,
        fade_iterations=cfg["fade_steps"] if cfg["warmup_D"] else 0,
        noise_iterations=0 if cfg["nerf_noise_disable"] else 5000,
        augment=diffaugment if scenario["diffaug"] else None,
        frozen=frozen_parts(kind),
        batch_split=cfg.get("batch_split", 1),
        gradient_rays=None if cfg.get("grad_points") is None else cfg["grad_points"] ** 2,  # pixels along a side
        ema_start=scenario.get("ema_start_itr", 1000),
    )
    of = {"betas": cfg["betas"], "eps": 1e-8, "weight_decay": 0} | case.config.get("adam", {})
    adam = partial(
        torch.optim.Adam, betas=tuple(map(float, of["betas"])), eps=of["eps"], weight_decay=of["weight_decay"]
    )
    gan = CIPS3D(
        generator=generator,
        discriminator=load_discriminator(case, case.config["discriminator"], "discriminator."),
        optimizer_g=adam,
        optimizer_d=adam,
        r1_weight=cfg["r1_lambda"],
        r1_every=cfg["d_reg_every"],
        clip_norm=cfg["grad_clip"],
        stages=[stage],
        **more,
    )
    gan.iterations = scenario["step"]
    return gan


def losses(case: Case) -> None:
    names = {"G": case.config["param_names_G"], "D": case.config["param_names_D"]}
    real = case.inputs["real_u8"] / 127.5 - 1
    for block, scenario in case.config["scenarios"].items():
        gan = build_gan(case, scenario)
        gan.freeze(gan.stage)
        draws = replay(recorded(case, block), real.shape[-1])
        case.compare(f"{block}.alpha", gan.alpha)
        case.compare(f"{block}.nerf_noise", gan.density_noise)

        with torch.no_grad():
            fake = gan.fakes(real, draws)
        discriminator = gan.discriminate = Watched(gan.discriminate)
        terms = gan.loss_real(real, draws) | gan.loss_fake(fake, draws)
        ((images, _), real_scores), (_, fake_scores) = discriminator.calls
        if "r1" in terms:
            weight = 0.5 * gan.r1_weight * gan.r1_every
            penalties = weight * squared_gradients(real_scores, images)[:, None]
            assert torch.allclose(terms["r1"], penalties.mean())
        else:  # the published program's placeholder in iterations without R1
            penalties = torch.zeros_like(case.outputs[f"{block}.D.grad_penalty"])
        sum(terms.values()).backward()
        order = torch.arange(len(fake))
        if gan.stage.batch_split == 2 and not gan.auxiliary:  # the published program swaps quarters then
            order = order.view(2, 2, -1).transpose(0, 1).flatten()
        case.compare(f"{block}.D.fake_images", fake[order])
        case.scores(f"{block}.D.r_preds", real_scores)
        case.scores(f"{block}.D.g_preds", fake_scores[order])
        case.each_relative(f"{block}.D.grad_penalty", penalties, 1e-3)
        case.each_relative(f"{block}.D.d_loss", sum(terms.values()), 1e-4)
        found = gradients_of(gan.discriminator, DISCRIMINATOR)
        case.gradients(f"{block}.D.grad_norms", f"{block}.D.grad.", found, names["D"])

        discriminator.calls.clear()
        gan.discriminator.requires_grad_(False)
        slices = [gan.generate(latent, real, draws) for latent in gan.slices(real, draws)]
        terms = [sum(gan.loss_g(torch.cat(parts), draws).values()) for parts in slices]
        sum(terms).backward()
        fake = torch.cat([torch.cat(parts) for parts in zip(*slices, strict=True)])
        scores = [result.chunk(len(slices[0])) for _, result in discriminator.calls]
        case.compare(f"{block}.G.fake_images", fake.detach())
        case.scores(f"{block}.G.g_preds", torch.cat([torch.cat(p) for p in zip(*scores, strict=True)]))
        case.each_relative(f"{block}.G.g_loss", terms[-1], 1e-4)  # the published loop keeps the last
        found = gradients_of(gan.generator, GENERATOR)
        case.gradients(f"{block}.G.grad_norms", f"{block}.G.grad.", found, names["G"])
        assert draws.used_up()


def step(case: Case) -> None:
    real = case.inputs["real_u8"] / 127.5 - 1
    for block, scenario in case.config["scenarios"].items():
        ema, iterations = EMA(scenario["ema_decay"]), scenario["iters"]
        gan = build_gan(case, scenario, emas={"ema": ema})
        replays = [replay(recorded(case, f"{block}.it{i}"), real.shape[-1]) for i in range(iterations)]
        gan.draws, steps = partial(next, iter(replays)), noted(gan)
        averaged = load_generator(case, case.config["generator"], scenario["gen"], "G_ema.")
        ema.module.load_state_dict(averaged.state_dict())
        networks = {
            "G": by_published_name(gan.generator, GENERATOR),
            "D": by_published_name(gan.discriminator, DISCRIMINATOR),
            "E": by_published_name(ema.module, GENERATOR),
        }
        before = {player: copies(parameters) for player, parameters in networks.items()}
        train(gan, real.repeat(iterations, 1, 1, 1), len(real))
        assert all(draws.used_up() for draws in replays)

        for i in range(iterations):
            for k, player in enumerate("DG"):
                name = f"{block}.it{i}.{player}_total_norm"
                case.each_relative(name, steps[2 * i + k].norm(), 1e-3)
                _, terms = steps[2 * i + k].losses[-1]  # the published loop keeps the last
                case.each_relative(f"{block}.it{i}.{player.lower()}_loss", sum(terms.values()), 1e-4)
        for player, parameters in networks.items():
            order = case.config[f"param_names_{'D' if player == 'D' else 'G'}"]
            # What our network does not have, since nothing reads it, doesn't change, but for an EMA of other numbers.
            unread = [n for n in order if n not in parameters] if player == "E" else []
            case.changes(f"{block}.{player}.change_norms", parameters, before[player], order, unread)
            for name, value in case.recorded(f"{block}.{player}.after.", parameters).items():
                case.compare(name, value)
