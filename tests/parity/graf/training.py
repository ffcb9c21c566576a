"""Cases of losses with their gradients, and of a training step."""

import re
from functools import partial

import torch
from torch import nn

import zoo.graf.training
from tests.parity.graf.build import build_patches, codes, load_discriminator, load_generator
from tests.parity.graf.draws import published_draws
from tests.parity.harness import Case
from tests.parity.published import (
    Before,
    Watched,
    by_published_name,
    copies,
    gradients_of,
    last_losses,
    load,
    noted,
    train,
    watching,
)
from tests.parity.replay import Replay
from zoo.graf.convert import DISCRIMINATOR, GENERATOR
from zoo.graf.model import gaussian
from zoo.graf.training import GRAF
from zoo.render import to_map
from zoo.training.ema import EMA
from zoo.weights.names import to_published


def build_gan(case: Case, **kwargs) -> GRAF:
    config, training = case.config, case.config["training"]
    assert training["optimizer"] == "rmsprop" and training["gan_type"] == "standard" and training["reg_type"] == "real"
    patches = build_patches(config)
    make = partial(torch.optim.RMSprop, alpha=0.99, eps=1e-8)
    nerf = config["nerf"]
    gan = GRAF(
        generator=load_generator(case),
        discriminator=load_discriminator(case, patches.size, config["discriminator"]["ndf"], "discriminator."),
        optimizer_g=partial(make, lr=training["lr_g"]),
        optimizer_d=partial(make, lr=training["lr_d"]),
        patches=patches,
        r1_weight=training["reg_param"],
        density_noise=nerf["raw_noise_std"],
        noise_iterations=5000 if nerf["decrease_noise"] else 0,
        mirror=config["discriminator"]["hflip"],
        milestones=[int(i) for i in str(training["lr_anneal_every"]).split(",")],
        decay=training["lr_anneal"],
        **kwargs,
    )
    gan.iterations = config["iteration"]
    return gan


def losses(case: Case) -> None:
    config = case.config
    gan = build_gan(case)
    size, noise = config["data"]["imsize"], config["raw_noise_std_used"]
    real = to_map(case.inputs["real_patches"].unflatten(0, (-1, gan.patches.size**2)))
    discriminator = gan.discriminator.forward = Watched(gan.discriminator.forward)

    draws = Replay(published_draws(case, "d_step", config, gan.patches))
    with torch.no_grad():
        fake = gan.generate(codes(config, case.inputs["z_d"]), size, draws, noise)
    terms = gan.loss_d(real, fake, draws)
    sum(terms.values()).backward()
    assert draws.used_up()
    (_, real_scores), (_, fake_scores) = discriminator.calls
    case.compare("d.real_scores", real_scores.scores.detach()[..., None, None])
    case.compare("d.fake_scores", fake_scores.scores.detach()[..., None, None])
    case.relative("d.loss", (terms["real"] + terms["fake"]).detach(), 1e-4)
    case.relative("d.reg", terms["r1"].detach(), 1e-4)
    found = gradients_of(gan.discriminator, DISCRIMINATOR[gan.patches.size])
    case.gradients("d.grad_norms", "d.grad.", found, case.config["d_param_order"])

    discriminator.calls.clear()
    draws = Replay(published_draws(case, "g_step", config, gan.patches))
    gan.discriminator.requires_grad_(False)
    fake = gan.generate(codes(config, case.inputs["z_g"]), size, draws, noise)
    terms = gan.loss_g(fake, draws)
    sum(terms.values()).backward()
    assert draws.used_up()
    case.compare("g.fake_scores", discriminator.calls[0][1].scores.detach()[..., None, None])
    case.relative("g.loss", terms["fake"].detach(), 1e-4)
    found = gradients_of(gan.generator, GENERATOR)
    case.gradients("g.grad_norms", "g.grad.", found, case.config["g_param_order"])


def step(case: Case) -> None:
    config, training = case.config, case.config["training"]
    patches = build_patches(config)
    recorded = []
    for block in ("patches", "d_step", "g_step"):
        if block != "patches":
            recorded.append(("z", case.inputs[f"z_{block[0]}"]))
        recorded += published_draws(case, block, config, patches)
    emas = {"ema": EMA(training["model_average_beta"])} if training["take_model_average"] else {}
    # The case begins in the middle, where the discriminator's noise is not the schedule's.
    draws, noises = Replay(recorded), [config["raw_noise_std_d_step"], config["raw_noise_std_g_step"]]
    gan = build_gan(case, emas=emas)
    gan.draws, gan.noise_at, steps = lambda: draws, lambda _: noises.pop(0), noted(gan)
    gan.generator.prior = gaussian  # the codes were recorded as they are
    table = DISCRIMINATOR[patches.size]
    if emas:
        state = {
            n.replace("_test.", ".", 1): t
            for n, t in case.weights("").items()
            if re.match(r"generator(_fine)?_test\.", n)
        }
        load(gan.emas["ema"].module, state, GENERATOR)

    networks = {"d": by_published_name(gan.discriminator, table)}
    networks["generator"] = by_published_name(gan.generator, GENERATOR)
    if emas:
        networks["generator_test"] = by_published_name(gan.emas["ema"].module, GENERATOR)
    for name in ("generator", "generator_test"):
        networks |= split_networks(name, networks.pop(name, {}))
    # the optimizer has the second network's parameters after the first one's
    both = [networks["generator"], networks.get("generator_fine", {})]
    order = [part[name] for part in both for name in published_order(config, part)]
    fills = {"g": order, "d": [networks["d"][name] for name in config["d_param_order"]]}
    moments = [
        {
            parameter: {"square_avg": torch.full_like(parameter, value)}
            for parameter, value in zip(of, case.inputs[f"opt_{player}.square_avg_fill"].tolist(), strict=True)
        }
        for player, of in fills.items()
    ]
    before = {player: copies(parameters) for player, parameters in networks.items()}
    with watching(zoo.graf.training, "sample_patches") as cuts:
        images = case.inputs["real_images"]
        train(gan, images, len(images), Before(moments))
    assert draws.used_up() and not noises

    case.compare("real_patches", cuts.calls[0][1].flatten(2).mT.reshape(-1, 3))
    losses = last_losses(steps)
    d, g = losses["loss_d"], losses["loss_g"]
    case.each_relative("losses", torch.stack([d["real"] + d["fake"], d["r1"], g["fake"]]), 1e-4)
    for player, parameters in networks.items():
        if f"{player}.change_norms" in case.outputs:
            case.changes(f"{player}.change_norms", parameters, before[player], config[f"{player}_param_order"])
        values = to_published(gan.discriminator.state_dict(), table) if player == "d" else parameters
        for name, value in case.recorded(f"{player}.after.", values).items():
            case.relative(name, value)


def split_networks(name: str, parameters: dict[str, nn.Parameter]) -> dict[str, dict[str, nn.Parameter]]:
    """generator or generator_test as its published parts, under names without the part's."""
    fine = name.replace("generator", "generator_fine")
    parts: dict[str, dict[str, nn.Parameter]] = {}
    for published, parameter in parameters.items():
        part, rest = published.split(".", 1)
        parts.setdefault({"generator": name, "generator_fine": fine}[part], {})[rest] = parameter
    return parts


def published_order(config: dict, part: dict[str, nn.Parameter]) -> list[str]:
    """Names of a network's parameters in the order in which the published code made them."""
    return sorted(part, key=config["generator_param_order"].index)
