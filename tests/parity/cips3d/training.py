"""Cases of losses with their gradients, and of training steps."""

from functools import partial

import pytorch_lightning as pl
import torch
from torch import Tensor

from tests.parity.cips3d.build import build_poses, build_renderer, frozen_parts, load_discriminator, load_generator
from tests.parity.cips3d.draws import recorded, replay
from tests.parity.harness import Case, Replay, Watched, by_published_name, gradients_of, train
from zoo.cips3d.convert import DISCRIMINATOR, GENERATOR
from zoo.cips3d.training import CIPS3D, Stage
from zoo.layers.diffaugment import diffaugment
from zoo.training.ema import EMA


def build_gan(case: Case, block: str, scenario: dict, cls: type[CIPS3D], **more) -> CIPS3D:
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
    gan = cls(
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
        gan = build_gan(case, block, scenario, CIPS3D)
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
            (gradient,) = torch.autograd.grad(real_scores.sum(), images, retain_graph=True)
            weight = 0.5 * gan.r1_weight * gan.r1_every
            penalties = weight * gradient.square().flatten(1).sum(1, keepdim=True)
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


class Replayed(CIPS3D):
    """Training on recorded numbers, with a record of losses and of gradient norms before clipping."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.replays, self.losses, self.totals, self.norms = [], {}, [], []

    def draws(self) -> Replay:
        return self.replays.pop(0)

    def accumulate(self, prefix: str, terms: dict[str, Tensor]) -> None:
        self.losses[prefix] = sum(terms.values()).detach()
        super().accumulate(prefix, terms)

    def step(self, optimizer, **how) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.norms.append(torch.stack([g.norm() for g in gradients]).norm())
        self.totals += self.losses.values()
        self.losses = {}
        super().step(optimizer, **how)


def step(case: Case) -> None:
    real = case.inputs["real_u8"] / 127.5 - 1
    for block, scenario in case.config["scenarios"].items():
        ema, iterations = EMA(scenario["ema_decay"]), scenario["iters"]
        gan = build_gan(case, block, scenario, Replayed, emas={"ema": ema})
        gan.replays = [replay(recorded(case, f"{block}.it{i}"), real.shape[-1]) for i in range(iterations)]
        averaged = load_generator(case, case.config["generator"], scenario["gen"], "G_ema.")
        ema.module.load_state_dict(averaged.state_dict())
        networks = {
            "G": by_published_name(gan.generator, GENERATOR),
            "D": by_published_name(gan.discriminator, DISCRIMINATOR),
            "E": by_published_name(ema.module, GENERATOR),
        }
        before = {player: {n: p.detach().clone() for n, p in ps.items()} for player, ps in networks.items()}
        used = list(gan.replays)
        train(gan, real.repeat(iterations, 1, 1, 1), len(real), pl.Callback())
        assert all(draws.used_up() for draws in used)

        for i in range(iterations):
            for k, player in enumerate("DG"):
                name = f"{block}.it{i}.{player}_total_norm"
                case.each_relative(name, gan.norms[2 * i + k], 1e-3)
                case.each_relative(f"{block}.it{i}.{player.lower()}_loss", gan.totals[2 * i + k], 1e-4)
        for player, parameters in networks.items():
            order = case.config[f"param_names_{'D' if player == 'D' else 'G'}"]
            changes = {n: case.change(p, before[player][n]).norm() for n, p in parameters.items()}
            if player == "E":  # what nothing reads changes, too, where the ema started from other numbers
                kept = [n in changes for n in order]
                order = [n for n in order if n in changes]
                case.outputs[f"{block}.E.change_norms"] = case.outputs[f"{block}.E.change_norms"][kept]
            # What our network does not have, since nothing reads it, doesn't change.
            norms = torch.stack([changes.get(n, torch.tensor(0.0)) for n in order])
            case.each_relative(f"{block}.{player}.change_norms", norms, 1e-2)
            for name in case.outputs:
                if name.startswith(f"{block}.{player}.after."):
                    case.compare(name, parameters[name.removeprefix(f"{block}.{player}.after.")].detach())
