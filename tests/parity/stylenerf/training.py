"""Cases of losses with their gradients, and of a training step."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

import zoo.training.stylegan2
from tests.parity.harness import Case
from tests.parity.published import Before, Watched, adam_moments, copies, noted, squared_gradients, train, watching
from tests.parity.replay import Replay
from tests.parity.stylenerf.build import fill_generator, load_discriminator, load_generator
from tests.parity.stylenerf.draws import FromDoubles, replay
from zoo.losses import logistic_fake, logistic_real
from zoo.stylenerf import convert as stylenerf
from zoo.stylenerf.growing import Grown, Growth
from zoo.stylenerf.training import StyleNeRF
from zoo.training.ema import EMA
from zoo.weights.names import published_name


def build_gan(case: Case, **kwargs) -> StyleNeRF:
    """Our training for the published arguments."""
    of, spec = case.config["loss"], case.config["spec"]
    synthesis = case.config["generator"]["synthesis_kwargs"]
    generator = load_generator(case).train()
    generator.poses = FromDoubles(generator.poses)
    generator.renderer.chunk = 100  # small, so that the field is asked again in the backward pass
    if generator.background is not None:
        generator.background.chunk = 100
    begin, end = of.get("curriculum") or (0, 0)
    return StyleNeRF(
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
    return {"generator": stylenerf.table(gan.generator), "discriminator": stylenerf.table(gan.discriminator)}


def norms_of(tensors: dict[str, Tensor | None]) -> dict[str, Tensor]:
    """Norms; -1 for None, as the cases have it."""
    return {name: torch.tensor(-1.0) if tensor is None else tensor.norm() for name, tensor in tensors.items()}


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
        with watching(zoo.training.stylegan2, "path_lengths") as lengths:
            loss = gan.loss_path(n // gan.path_shrink, level, draws)
        loss.backward()
        penalty = (lengths.calls[0][1] - gan.mean_path).square()
        found |= {"backward.Gpl": loss, "Loss_pl_penalty": penalty, "Loss_G_reg": penalty * gan.path_weight}
        found["pl_mean_after"] = gan.mean_path
    elif phase == "Dmain":
        with torch.no_grad():
            fake, _ = gan.generate(n, level, draws)
        loss_fake = logistic_fake(gan.discriminate(fake.rendered.image, draws).scores)
        loss_fake.backward()
        loss_real = logistic_real(gan.discriminate_real(real, draws))
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
        found["Loss_r1_penalty"] = squared_gradients(gan.discriminator(images).scores, images)
        found["Loss_D_reg"] = found["Loss_r1_penalty"] * gan.r1_weight / 2
    return found


def trained(case: Case, variant: str) -> dict[str, Any]:
    """All numbers of one iteration, by published name."""
    config = case.config
    decay = 0.5 ** (config["batch"] / (config["ema_kimg"] * 1000))
    assert abs(decay - config["ema_beta"]) < 1e-12
    gan = build_gan(case, emas={"ema": EMA(decay)})
    averaged = case.weights("generator.") | case.weights("generator_ema.")
    fill_generator(gan.emas["ema"].module, averaged)
    draws = replay(case, *config["phases"], layers=gan.generator.num_layers)
    draws.queues["z"].pop()  # drawn for the last phase too, which has no images of its own
    gan.images_seen, gan.draws, steps = config["cur_nimg"], lambda: draws, noted(gan)
    made = gan.generate = Watched(gan.generate)
    table = tables(gan) | {"generator_ema": tables(gan)["generator"]}
    networks = {
        "generator": gan.generator,
        "discriminator": gan.discriminator,
        "generator_ema": gan.emas["ema"].module,
    }
    before = {player: copies(network.state_dict()) for player, network in networks.items()}
    real = case.inputs["real_img"]
    second = ((gan.generator, 1e-2), (gan.discriminator, 1e-3))
    warm = Before([{p: adam_moments(p, value) for p in network.parameters()} for network, value in second])
    train(gan, real, len(real), *([warm] if variant == "warm" else []))
    assert gan.iterations == 1 and draws.used_up()

    found = {f"{phase}.total_grad_norm": step.norm() for phase, step in zip(config["phases"], steps, strict=True)}
    losses = [sum(terms.values()) for step in steps for _, terms in step.losses]
    names = ["Gmain.backward.Gmain", "Greg.backward.Gpl", "Dmain.backward.Dgen", "Dmain.backward.Dr1"]
    found |= dict(zip([*names, "Dreg.backward.Dr1"], losses, strict=True))
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
