"""Cases of losses with their gradients, and of training steps, also of the 2D baseline."""

from collections.abc import Iterator
from functools import partial

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from tests.parity.giraffe.build import (
    DISCRIMINATOR_2D,
    GENERATOR_2D,
    camera_of,
    latent_of,
    load_discriminator,
    load_generator,
    load_residual,
)
from tests.parity.giraffe.draws import rendering_draws, scene_draws
from tests.parity.harness import Case
from tests.parity.published import by_published_name, copies, last_losses, load, noted, squared_gradients, train
from tests.parity.replay import Replay
from zoo.giraffe.convert import DISCRIMINATOR, GENERATOR
from zoo.giraffe.extras import PlainGenerator, PlainLatent
from zoo.giraffe.rendering import densest
from zoo.giraffe.training import GIRAFFE
from zoo.training.ema import EMA


def rmsprop(lr: float) -> partial:
    return partial(torch.optim.RMSprop, lr=lr, alpha=0.99, eps=1e-8)


def losses(case: Case) -> None:
    generator, discriminator = load_generator(case), load_discriminator(case)
    gan = GIRAFFE(generator, discriminator, rmsprop(5e-4), rmsprop(1e-4))
    latent = latent_of(case.inputs)
    camera, farthest = camera_of(case.inputs["camera_mat"], case.inputs["world_mat"])

    def fakes() -> Tensor:
        draws = Replay(rendering_draws(case.block("train.")))
        return generator.render(latent, camera, draws=draws, farthest=farthest).image

    fake = fakes()
    case.compare("G.image", (fake + 1) / 2)
    case.compare("G.d_fake", discriminator(fake).scores)
    loss = sum(gan.loss_g(fake).values())
    case.relative("G.loss", loss, 1e-4)
    compare_gradients(case, "G", generator, loss, GENERATOR)
    if "G_max.loss" in case.outputs:
        generator.scene.compose = densest
        loss = sum(gan.loss_g(fakes()).values())
        case.relative("G_max.loss", loss, 1e-4)
        compare_gradients(case, "G_max", generator, loss, GENERATOR)

    real = case.inputs["x_real"].requires_grad_()
    scores = discriminator(real * 2 - 1).scores
    case.compare("D.d_real", scores)
    case.each_relative("D.grad2_per_image", squared_gradients(scores, real))
    # As recorded: which side of zero a hidden unit is on decides its slope.
    terms = gan.loss_d(real * 2 - 1, case.cast(case.outputs["G.image"]) * 2 - 1)
    for name, key in (("loss_real", "real"), ("reg", "r1"), ("loss_fake", "fake")):
        case.relative(f"D.{name}", terms[key], 1e-4)
    case.relative("D.loss", sum(terms.values()), 1e-4)
    compare_gradients(case, "D.gan", discriminator, terms["real"] + terms["fake"], DISCRIMINATOR)
    compare_gradients(case, "D.reg", discriminator, terms["r1"], DISCRIMINATOR)
    compare_gradients(case, "D", discriminator, sum(terms.values()), DISCRIMINATOR)


def compare_gradients(case: Case, name: str, network: nn.Module, loss: Tensor, table: list) -> None:
    """Norms of all gradients in the published order, and the full ones that were recorded."""
    player, _, part = name.partition(".")
    parameters = by_published_name(network, table)
    gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
    prefix = f"{player}.{part}_" if part else f"{player}."
    found = dict(zip(parameters, gradients, strict=True))
    case.gradients(f"{prefix}grad_norms", f"{prefix}grad.", found, case.info[f"param_names_{player[0]}"])


class AfterEach(pl.Callback):
    """Calls a function with the number of the iteration after each."""

    def __init__(self, function) -> None:
        self.function = function

    def on_train_batch_end(self, trainer: pl.Trainer, gan: GIRAFFE, *args) -> None:
        self.function(gan.iterations - 1, trainer.optimizers)


def parameters(gan: GIRAFFE, generator_table: list, discriminator_table: list) -> Iterator[tuple[str, dict]]:
    """Parameters by published name of the three networks."""
    networks = {
        "generator": (gan.generator, generator_table),
        "generator_test": (gan.emas["ema"].module, generator_table),
        "discriminator": (gan.discriminator, discriminator_table),
    }
    for name, (network, table) in networks.items():
        yield name, by_published_name(network, table)


def compare_changes(case: Case, prefix: str, gan: GIRAFFE, before: dict, tables: tuple[list, list]) -> None:
    """How far each parameter has moved, and the values that were recorded."""
    for network, now in parameters(gan, *tables):
        case.changes(f"{prefix}{network}.change_norms", now, before[network], order_of(case, network))
        for name, value in case.recorded(f"{prefix}after.{network}.", now).items():
            case.relative(name, value)


def order_of(case: Case, network: str) -> list[str]:
    """Published names of a network's parameters, in order."""
    return [n.removeprefix(f"{network}.") for n in case.info["param_names"][network]]


def seen_later(case: Case, name: str) -> bool:
    """Whether the recording shows a parameter as it was after the last step: it kept no copies on the way."""
    _, after, rest = name.partition(".after.")
    last = f"step{case.config['steps'] - 1}{after}{rest}"
    return name != last and last in case.outputs and torch.equal(case.outputs[name], case.outputs[last])


def step(case: Case) -> None:
    steps, of = case.config["steps"], case.config
    recorded = [[pair for phase in "GD" for pair in scene_draws(case.block(f"step{k}.{phase}."))] for k in range(steps)]
    gan = GIRAFFE(
        generator=load_generator(case),
        discriminator=load_discriminator(case),
        optimizer_g=rmsprop(of["learning_rate"]),
        optimizer_d=rmsprop(of["learning_rate_d"]),
        emas={"ema": EMA(case.info["ema_beta"], "keep")},
        fakes=len(case.inputs["step0.G.z_shape_obj"]),
    )
    gan.emas["ema"].module = load_generator(case, "generator_test.").requires_grad_(False)
    gan.draws, noted_steps = lambda: Replay(recorded[gan.iterations]), noted(gan)
    tables = GENERATOR, DISCRIMINATOR
    before = {name: copies(of_it) for name, of_it in parameters(gan, *tables)}

    def look(k: int, optimizers: list[torch.optim.Optimizer]) -> None:
        losses = last_losses(noted_steps)
        loss_d = losses["loss_d"]
        case.relative(f"step{k}.loss_generator", losses["loss_g"]["fake"], 1e-4)
        case.relative(f"step{k}.loss_discriminator", loss_d["real"] + loss_d["fake"], 1e-4)
        case.relative(f"step{k}.loss_regularizer", loss_d["r1"], 1e-4)
        compare_changes(case, f"step{k}.", gan, before, tables)
        for name, now in parameters(gan, *tables):
            if name != "generator_test":
                state = optimizers[name == "discriminator"].state
                moments = [state[now[n]]["square_avg"].norm() for n in order_of(case, name)]
                case.each_relative(f"step{k}.{name}.square_avg_norms", torch.stack(moments))

    real = torch.stack([case.inputs[f"step{k}.x_real"] for k in range(steps)])
    train(gan, real.flatten(0, 1) * 2 - 1, real.shape[1], AfterEach(look))
    assert gan.iterations == steps
    final = dict(parameters(gan, *tables))
    for name in filter(partial(seen_later, case), case.outputs):
        network, parameter = name.partition(".after.")[2].split(".", 1)
        case.relative(name, final[network][parameter])


def gan2d(case: Case) -> None:
    of = case.config
    size = of["generator_kwargs"].get("size", 64)
    widths = of["generator_kwargs"].get("nfilter", 16), of["generator_kwargs"].get("nfilter_max", 512)

    def generator(prefix: str) -> PlainGenerator:
        return load(PlainGenerator(of["z_dim"], size, *widths), case.weights(prefix), GENERATOR_2D)

    discriminator = load_residual(case, of["discriminator_kwargs"], "discriminator.")
    gan = GIRAFFE(
        generator=generator("generator."),
        discriminator=discriminator,
        optimizer_g=rmsprop(of["learning_rate"]),
        optimizer_d=rmsprop(of["learning_rate_d"]),
        emas={"ema": EMA(0.999, "keep")},
        r1_range=2.0,
        fakes=of["batch"],
    )
    gan.emas["ema"].module = generator("generator_test.").requires_grad_(False)
    draws = Replay([("z", case.inputs["z_G"]), ("z", case.inputs["z_D"])])
    gan.draws, steps = lambda: draws, noted(gan)
    with torch.no_grad():
        latent = PlainLatent(case.inputs["z_eval"])
        image = gan.generator(latent, gan.generator.cameras(len(latent.z), None)).image
        case.compare("image_tanh", image)
        case.compare("image_01", 0.5 * image + 0.5)
        case.compare("score", discriminator(image).scores)
    tables = GENERATOR_2D, DISCRIMINATOR_2D
    before = {name: copies(of_it) for name, of_it in parameters(gan, *tables)}

    def look(k: int, optimizers: list[torch.optim.Optimizer]) -> None:
        losses = last_losses(steps)
        terms = losses["loss_d"]
        ours = {
            "generator": losses["loss_g"]["fake"],
            "discriminator": terms["real"] + terms["fake"],
            "regularizer": terms["r1"],
            "d_real": terms["real"],
            "d_fake": terms["fake"],
        }
        for name, value in ours.items():
            case.relative(f"step.{name}", value, 1e-4)
        compare_changes(case, "step.", gan, before, tables)
        gradients = {parameter: gradient for step in steps for parameter, gradient in step.gradients.items()}
        for network, now in parameters(gan, *tables):
            if network != "generator_test":
                player, found = network[0].upper(), {name: gradients[parameter] for name, parameter in now.items()}
                case.gradients(f"{player}.grad_norms", f"{player}.grad.", found, order_of(case, network))

    train(gan, case.inputs["x_real"], of["batch"], AfterEach(look))
