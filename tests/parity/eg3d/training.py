"""Cases of losses with their gradients, and of training steps."""

from functools import partial
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

import zoo.eg3d.training
from tests.parity.eg3d.build import as_images, load_discriminator, load_generator
from tests.parity.eg3d.draws import camera_draws, recorded
from tests.parity.harness import Case
from tests.parity.published import Watched, by_published_name, copies, gradients_of, squared_gradients, train
from tests.parity.replay import Replay
from zoo.eg3d.cameras import camera_of
from zoo.eg3d.convert import table
from zoo.eg3d.model import Generator
from zoo.eg3d.training import EG3D, DensityTV, Monotonic, RampedDecay
from zoo.losses import r1_penalty
from zoo.render import Camera, DatasetPoses
from zoo.training.ema import EMA
from zoo.training.schedules import LinearSchedule


def build_gan(case: Case, reg_type: str = "l1", **options: Any) -> EG3D:
    """Our training for the published arguments."""
    of, marching = case.config["loss"], case.config["generator"]["rendering_kwargs"]
    growth, last = None, of["neural_rendering_resolution_final"]
    if last is not None:
        fade = of["neural_rendering_resolution_fade_kimg"]
        growth = LinearSchedule(of["neural_rendering_resolution_initial"], last, 1000 * fade)
    swap = of["gpc_reg_prob"]
    smooth = DensityTV(marching["density_reg"], spread=None)
    regulariser = {
        "l1": DensityTV(marching["density_reg"], marching["density_reg_p_dist"]),
        "monotonic-detach": Monotonic(detached=True, smooth=smooth),
        "monotonic-fixed": Monotonic(detached=False, smooth=smooth),
    }[reg_type]
    options = {"optimizer_g": torch.optim.Adam, "optimizer_d": torch.optim.Adam} | options
    return EG3D(
        load_generator(case).train(),
        load_discriminator(case).train(),
        swap=None if swap is None else LinearSchedule(1, swap, 1000 * of["gpc_reg_fade_kimg"]),
        blur=LinearSchedule(of["blur_init_sigma"], 0, 1000 * of["blur_fade_kimg"]),
        growth=growth,
        regulariser=regulariser,
        r1_weight=of["r1_gamma"],
        **options,
    )


def draw_from(generator: Generator, labels: Tensor) -> None:
    """Draw cameras from these labels."""
    generator.poses = DatasetPoses()
    generator.poses.fill(camera_of(labels))


def losses(case: Case) -> None:
    real, camera = as_images(case, case.inputs["real_uint8"]), camera_of(case.inputs["real_c"])
    for mode, phases in case.config["modes"].items():
        for phase, of in phases.items():
            gan = build_gan(case, of["reg_type"], density_every=of["gain"], r1_every=of["gain"])
            gan.images_seen, n = of["cur_nimg"], of["batch"]
            draw_from(gan.generator, case.inputs["gen_c"])
            cameras = camera_draws(torch.arange(n), len(case.inputs["gen_c"]))
            draws = Replay([*recorded(case, f"{mode}.{phase}"), ("z", case.inputs["gen_z"][:n]), ("camera", cameras)])
            one_phase(case, f"{mode}.{phase}", gan, real[:n], camera.take(slice(n)), draws)


def one_phase(case: Case, name: str, gan: EG3D, real: Tensor, camera: Camera, draws: Replay) -> None:
    """One phase of the published training: its losses and their gradients."""
    n, scored = len(real), Watched(gan.score)
    gan.grow()
    (reals,) = gan.reals(real, camera)
    gan.score = scored
    network = gan.generator if ".G" in name else gan.discriminator
    kind, ours = name.split(".")[-1], {}
    if kind == "Gmain":
        backward = list(gan.loss_g(n, draws).values())
    elif kind == "Greg":
        backward = list(gan.loss_density(n, draws).values())
    elif kind == "Dmain":
        backward = [gan.loss_fake(n, draws)["fake"], gan.loss_real(reals, draws)["real"]]
        fakes, scores = (result for _, result in scored.calls)
        ours = {"w_avg": gan.generator.mean_w, "Loss_D_loss": softplus(fakes) + softplus(-scores)}
    else:
        backward = [gan.loss_r1(reals, draws)["r1"]]
    scores = [result for _, result in scored.calls]
    if kind.startswith("D"):
        ((*seen, _, _), result) = scored.calls[-1]
        ours |= {"Loss_scores_real": result, "d_image": seen[0], "d_image_raw": seen[1]}
    if kind == "Dreg":
        ours["Loss_r1_penalty"] = squared_gradients(scores[0], *seen)
        ours["Loss_D_reg"] = gan.r1_weight / 2 * ours["Loss_r1_penalty"]
    if kind in ("Gmain", "Dmain"):
        ours["Loss_scores_fake"] = scores[0]
    if kind == "Gmain":
        ours["Loss_G_loss"] = softplus(-scores[0])
    ours |= {
        f"Loss_signs_{of}": ours[f"Loss_scores_{of}"].sign() for of in ("fake", "real") if f"Loss_scores_{of}" in ours
    }
    for key, value in ours.items():
        if (output := f"{name}.{key}") in case.outputs:
            value = value[: len(case.outputs[output])]
            (case.relative if "Loss" in key else case.compare)(output, value, 1e-4)
    case.relative(f"{name}.backward", torch.stack(backward), 1e-4)
    if f"{name}.grad_norms" not in case.outputs:
        return
    network.zero_grad()
    sum(backward).backward()
    found, order = gradients_of(network, table(network)), order_of(case, kind[0])
    case.gradients(f"{name}.grad_norms", f"{name}.grad.", found, order, CANCELS.get(kind, ()))


# Gradients that cancel: what is recorded of them is rounding noise.
CANCELS = {"Greg": ["decoder.net.2.bias"]}


def order_of(case: Case, player: str) -> list[str]:
    """The published order of the parameters of G, G_ema or D."""
    return case.config["parameter_order"]["discriminator" if player == "D" else "generator"]


class After(pl.Callback):
    """Compares the state after each iteration."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def on_train_start(self, trainer: pl.Trainer, gan: EG3D) -> None:
        self.before = {name: copies(parameters) for name, parameters in self.parameters(gan).items()}

    def parameters(self, gan: EG3D) -> dict[str, dict[str, nn.Parameter]]:
        networks = {"G": gan.generator, "G_ema": gan.emas["ema"].module, "D": gan.discriminator}
        return {name: by_published_name(network, table(network)) for name, network in networks.items()}

    def on_train_batch_end(self, trainer: pl.Trainer, gan: EG3D, *_: Any) -> None:
        case, start = self.case, f"it{gan.iterations - 1}"
        for name, values in self.parameters(gan).items():
            case.changes(f"{start}.{name}.change_norms", values, self.before[name], order_of(case, name))
            means = {"G": gan.generator, "G_ema": gan.emas["ema"].module}
            if name in means:
                case.compare(f"{start}.{name}.w_avg", means[name].mean_w)
            for output, value in case.recorded(f"{start}.{name}.", values).items():
                case.relative(output, value, 1e-2)

    def on_train_end(self, trainer: pl.Trainer, gan: EG3D) -> None:
        case = self.case
        for name, optimizer in zip(("G", "D"), trainer.optimizers, strict=True):
            values, order = self.parameters(gan)[name], order_of(case, name)
            states = {key: optimizer.state[p] for key, p in values.items() if p in optimizer.state}
            case.norms(f"end.{name}.second_moment_norms", {k: s["exp_avg_sq"] for k, s in states.items()}, order)
            steps = {key: state["step"].to(case.device) for key, state in states.items()}
            case.norms(f"end.{name}.optimizer_steps", steps, order)


def step(case: Case) -> None:
    of, n = case.config, case.config["batch_size"]
    labels = case.inputs["labels"]
    optimizers = {
        f"optimizer_{p.lower()}": partial(
            torch.optim.Adam, lr=of["effective"][f"{p} lr"], betas=of["effective"][f"{p} betas"]
        )
        for p in ("G", "D")
    }
    every = {"density_every": of["optimizer"]["G"]["reg_interval"], "r1_every": of["optimizer"]["D"]["reg_interval"]}
    decay = RampedDecay(1000 * of["ema_kimg"], n, of["ema_rampup"])
    gan = build_gan(case, emas={"ema": EMA(decay)}, at_once=of["batch_gpu"], **optimizers, **every)
    gan.images_seen = of["cur_nimg_at_start"]
    gan.emas["ema"].updates = gan.images_seen // n
    draw_from(gan.generator, labels)
    draw_from(gan.emas["ema"].module, labels)
    phases = [phase["name"] for phase in of["phases"]]
    replays: list[Replay] = []
    gan.draws = lambda: replays[gan.iterations]
    for start in dict.fromkeys(name.split(".")[0] for name in phases):
        z, *index = case.draws(f"{start}.data")
        cameras = camera_draws(torch.stack(index).to(case.dtype), len(labels))
        pairs = []
        for i, phase in enumerate(("Gmain", "Greg", "Dmain")):
            if f"{start}.{phase}" in phases:
                for first in range(i * n, (i + 1) * n, of["batch_gpu"]):
                    part = slice(first, min(first + of["batch_gpu"], (i + 1) * n))
                    pairs += [("z", z[part]), ("camera", cameras[part])]
                pairs += recorded(case, f"{start}.{phase}")
        replays.append(Replay(pairs))
    scored, reg = Watched(gan.score), Watched(gan.loss_density)
    gan.score, gan.loss_density, penalties = scored, reg, []

    def watched_penalty(scores: Tensor, *images: Tensor) -> Tensor:
        penalties.append(squared_gradients(scores, *images))
        return r1_penalty(scores, *images)

    images = as_images(case, case.inputs["real_uint8"])
    with patch.object(zoo.eg3d.training, "r1_penalty", watched_penalty):
        train(gan, images, n, After(case), cameras=camera_of(labels))
    assert gan.iterations == len(replays) and all(draws.used_up() for draws in replays)
    scores = [result.detach() for _, result in scored.calls]
    for phase in phases:
        kind, ours, backward = phase.split(".")[-1], {}, []
        for _ in range(0, n, of["batch_gpu"]):  # what parts of a batch report is one after the other
            now = {}
            if kind == "Gmain":
                fake = scores.pop(0)
                now = {"Loss_scores_fake": fake, "Loss_G_loss": softplus(-fake)}
                backward.append(softplus(-fake).mean())
            if kind == "Dmain":
                fake, real = scores.pop(0), scores.pop(0)
                terms = softplus(fake), softplus(-real)
                now = {"Loss_scores_fake": fake, "Loss_scores_real": real, "Loss_D_loss": sum(terms)}
                backward += [term.mean() for term in terms]
            if kind == "Dreg":
                penalty = penalties.pop(0)
                now = {"Loss_scores_real": scores.pop(0), "Loss_r1_penalty": penalty}
                now["Loss_D_reg"] = gan.r1_weight / 2 * penalty
                backward.append(gan.r1_every * now["Loss_D_reg"].mean())
            if kind == "Greg":
                backward += [term.detach() for term in reg.calls.pop(0)[1].values()]
            ours = {name: torch.cat([ours[name], value]) if ours else value for name, value in now.items()}
        ours["backward"] = torch.stack(backward)
        for name, value in ours.items():
            case.relative(f"{phase}.{name}", value, 1e-4)
