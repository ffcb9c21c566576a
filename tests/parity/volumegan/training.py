"""Cases of losses with their gradients, and of training steps."""

import re
from functools import partial
from unittest.mock import patch

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

import zoo.training.stylegan2
import zoo.volumegan.training
from tests.parity.harness import Case
from tests.parity.published import Watched, by_published_name, copies, gradients_of, squared_gradients, train, watching
from tests.parity.replay import Replay
from tests.parity.volumegan.build import load_discriminator, load_generator
from tests.parity.volumegan.draws import replay
from zoo.losses import logistic_fake, logistic_real
from zoo.training.ema import EMA
from zoo.volumegan.convert import GENERATOR, discriminator_table
from zoo.volumegan.model import Generator
from zoo.volumegan.training import VolumeGAN

# Their gradients are zero, since an instance norm follows: what is recorded of them is rounding noise.
WITHOUT_EFFECT = r"nerfmlp\.fv\.layer\d+\.bias"


def leave_out_noise(case: Case) -> None:
    """Compare with no gradient, moment or value of what has no effect."""
    case.outputs = {name: t for name, t in case.outputs.items() if not re.search(WITHOUT_EFFECT, name)}


def order_of(case: Case, player: str) -> tuple[list[str], list[str]]:
    """The published order of a network's parameters, and those of them that have no effect."""
    order = case.info["parameter_order"][player]
    return order, [name for name in order if re.fullmatch(WITHOUT_EFFECT, name)]


def table_of(network: nn.Module) -> list:
    return GENERATOR if isinstance(network, Generator) else discriminator_table(len(network.blocks))


def build_gan(case: Case, **kwargs) -> VolumeGAN:
    """Our training for the published arguments."""
    of_d, of_g = case.config["loss"]["d_loss_kwargs"], case.config["loss"]["g_loss_kwargs"]
    train = case.config["generator_train_kwargs"]
    optimizers = {}
    for player, name in (("g", "generator_opt"), ("d", "discriminator_opt")):
        of = case.config[name]
        optimizers[f"optimizer_{player}"] = partial(torch.optim.Adam, lr=of["base_lr"], betas=tuple(of["betas"]))
    generator = load_generator(case).train()
    generator.renderer.chunk = 64  # small, so that the field is asked again in the backward pass
    return VolumeGAN(
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
            with watching(zoo.training.stylegan2, "path_lengths") as lengths:
                loss = gan.loss_path(n, size, replay(case, "pl", generator=generator))
            compare("pl", loss, generator)
            penalties = (lengths.calls[0][1] - gan.mean_path).square()
            case.relative(f"{start}pl_penalty_per_sample", penalties)
            case.relative(f"{start}pl_mean_after", gan.mean_path, 1e-4)

        with torch.no_grad():
            fake, _ = gan.generate(len(real), size, replay(case, "d", generator=generator))
        mean_w = generator.mean_w
        compare("d_fake", logistic_fake(discriminator(fake).scores), discriminator)
        compare("d_real", logistic_real(discriminator(real).scores), discriminator)
        watched.calls.clear()
        if f"{start}r1_loss" in case.outputs:
            compare("r1", gan.loss_r1(real), discriminator)
            images = real.clone().requires_grad_()
            case.relative(f"{start}r1_per_sample", squared_gradients(discriminator(images).scores, images))


def compare_gradients(case: Case, name: str, network: nn.Module) -> None:
    """Norms of all gradients, and the full ones that were recorded."""
    order, without = order_of(case, "generator" if isinstance(network, Generator) else "discriminator")
    found = gradients_of(network, table_of(network))
    case.gradients(f"grad_norm.{name}", f"grad.{name}.", found, order, without)


class After(pl.Callback):
    """Compares the state after each iteration."""

    def __init__(self, case: Case, output: Watched, lengths: Watched, gradients: list[Tensor]) -> None:
        self.case, self.outputs, self.lengths, self.gradients = case, output, lengths, gradients
        self.penalties: Tensor | None = None

    def on_train_start(self, trainer: pl.Trainer, gan: pl.LightningModule) -> None:
        learned = {"generator": gan.generator, "discriminator": gan.discriminator}
        self.before = {player: copies(by_published_name(n, table_of(n))) for player, n in learned.items()}

    def on_train_batch_end(self, trainer: pl.Trainer, gan: pl.LightningModule, *_) -> None:
        case, k = self.case, gan.iterations
        optimizers = dict(zip(("generator", "discriminator"), trainer.optimizers, strict=True))
        networks = {"generator": gan.generator, "discriminator": gan.discriminator}
        networks["generator_smooth"] = gan.emas["ema"].module
        for player, network in networks.items():
            of, values = player.removesuffix("_smooth"), by_published_name(network, table_of(network))
            case.changes(f"{k}.change_norm.{player}", values, self.before[of], *order_of(case, of))
            means = {} if player == "discriminator" else {"w_avg": network.mean_w}
            for name, value in case.recorded(f"{k}.value.{player}.", values | means).items():
                case.relative(name, value)
            if player in optimizers:
                state = optimizers[player].state
                moments = {name: state[p]["exp_avg_sq"] for name, p in values.items() if p in state}
                for name, value in case.recorded(f"{k}.adam_exp_avg_sq.{player}.", moments).items():
                    case.relative(name, value)
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
    gan = build_gan(case, emas={"ema": EMA(decay)})
    case.compare("ema_beta", torch.tensor(decay))
    replays: list[Replay] = []
    gan.draws = lambda: replays[gan.iterations]
    for k in range(1, count + 1):
        blocks = [f"{k}.{block}" for block in ("g", "pl", "d") if f"{k}.{block}.z" in case.inputs]
        replays.append(replay(case, *blocks, generator=gan.generator))
    output = gan.discriminator.forward = Watched(gan.discriminator.forward)
    gradients: list[Tensor] = []
    penalty = zoo.volumegan.training.r1_penalty

    def watched_penalty(scores: Tensor, images: Tensor) -> Tensor:
        gradients.append(squared_gradients(scores, images).detach())
        return penalty(scores, images)

    with (
        watching(zoo.training.stylegan2, "path_lengths") as lengths,
        patch.object(zoo.volumegan.training, "r1_penalty", watched_penalty),
    ):
        reals = torch.cat([case.inputs[f"{k}.real"] for k in range(1, count + 1)])
        train(gan, reals, config["batch_size"], After(case, output, lengths, gradients))
    assert gan.iterations == count and all(recorded.used_up() for recorded in replays)
