"""Cases of losses with their gradients, and of training steps."""

import re
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import zoo.training.stylegan2
from tests.parity.harness import Case
from tests.parity.published import Watched, by_published_name, copies, gradients_of, train, watching
from tests.parity.replay import Replay
from tests.parity.stylesdf.build import UNREAD, camera_of, make_discriminator, make_generator, table
from tests.parity.stylesdf.draws import cut_draw, recorded
from zoo.losses import logistic_real
from zoo.stylesdf import convert as stylesdf
from zoo.stylesdf.discriminator import ImageDiscriminator, StagedDiscriminator
from zoo.stylesdf.stages import ImageStage, SphereStage, VolumeStage
from zoo.stylesdf.training import StyleSDF, pose_of, sphere_samples
from zoo.training.ema import EMA


def parameters(network: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters, in their published names and shapes."""
    return stylesdf.with_axes(copies(by_published_name(network, table(network))))


def gradients(network: nn.Module, loss: Tensor | None = None) -> dict[str, Tensor]:
    """Gradients in published names and shapes, of this loss, or those that there are."""
    if loss is not None:
        network.zero_grad()
        loss.backward(retain_graph=True)
    return stylesdf.with_axes(gradients_of(network, table(network)))


def order_of(case: Case, name: str) -> list[str]:
    """The published order of the parameters that an output of this name is of."""
    keys = (f"{name[0]}.parameter_order", "g.parameter_order", "parameter_order")
    return next(case.config[key] for key in keys if key in case.config)


def compare_changes(
    case: Case, name: str, network: nn.Module, before: dict[str, Tensor], more: dict[str, Tensor] | None = None
) -> None:
    """Compare norms of what a step has changed; ``more`` of tensors that we do not have."""
    now = parameters(network)
    changes = {n: case.change(now[n], before[n]) for n in now} | (more or {})
    case.norms(name, changes, order_of(case, name), 1e-2)


def adam(of: dict[str, Any]) -> Any:
    """Makes the published optimizer."""
    return partial(torch.optim.Adam, lr=of["lr"], betas=tuple(map(float, of["betas"])), eps=of["eps"])


def build_gan(case: Case, kind: type[StyleSDF] = StyleSDF, **options: Any) -> StyleSDF:
    """Training with the case's networks, and its optimizers where it has any."""
    discriminator = make_discriminator(case)
    part = "image" if isinstance(discriminator, ImageDiscriminator) else "volume"
    of = case.config.get("optimizers", {role: NO_OPTIMIZER for role in ("generator", "discriminator")})
    optimizers = [adam(of[role]) for role in ("generator", "discriminator")]
    staged = StagedDiscriminator(**{part: discriminator})
    return kind(make_generator(case), staged, *optimizers, **({"volume": None} | options))


NO_OPTIMIZER = {"lr": 1e-3, "betas": [0, 0.9], "eps": 1e-8}


def sphere_init(case: Case) -> None:
    stage = SphereStage(batch=len(case.inputs["z"]), radius=case.config["camera"]["dist_radius"] / 2)
    gan = build_gan(case, sphere=stage)
    generator = gan.generator
    camera = camera_of(case)
    generator.cameras = lambda n, draws: camera
    block = [("z", case.inputs["z"]), *recorded(case, "draw")]
    samples = sphere_samples(generator, camera, Replay(block))
    shape = case.outputs["z_vals"].shape
    condition = generator.field.condition(generator.mapping(case.inputs["z"]))
    case.compare("z_vals", samples.t.view(shape))
    case.scores("sdf", generator.field.distances(samples.points, condition).view(shape))
    case.compare("target", (samples.points.norm(dim=-1) - stage.radius).view(shape))
    loss = gan.loss_sphere(stage, Replay(block))
    case.compare("loss", loss)
    case.gradients("grad_norm", "grad.", gradients(generator, loss), order_of(case, "grad_norm"))
    before = parameters(generator)
    adam(case.config["optimizer"])(generator.parameters()).step()
    compare_changes(case, "change_norm", generator, before)


def relative(case: Case, start: str, **ours: Tensor) -> None:
    """Compare losses and what they are made of."""
    for name, value in ours.items():
        case.relative(f"{start}{name}", value, 1e-4)


def terms(case: Case, start: str, network: nn.Module, ours: dict[str, Tensor]) -> None:
    """Compare losses and their gradients by term."""
    for name, loss in (ours | {"total": sum(ours.values())}).items():
        if f"{start}.{name}" in case.outputs:
            case.relative(f"{start}.{name}", loss, 1e-4)
        if f"{start}.grad_norm.{name}" in case.outputs:
            found, order = gradients(network, loss), order_of(case, start)
            case.gradients(f"{start}.grad_norm.{name}", f"{start}.grad.{name}.", found, order)


def volume_stage(of: dict[str, Any], **more: Any) -> VolumeStage:
    return VolumeStage(
        r1_weight=of["r1"],
        pose_weight=of["view_lambda"],
        eikonal_weight=of["eikonal_lambda"],
        surface_weight=of["min_surf_lambda"],
        surface_sharpness=of["min_surf_beta"],
        **more,
    )


def losses_stage1(case: Case) -> None:
    stage, camera = volume_stage(case.config["loss"]), camera_of(case)
    gan = build_gan(case, volume=stage)
    found = gan.loss_d(stage, case.inputs["real"], case.inputs["fake"], pose_of(camera), with_r1=True)
    relative(case, "d.unweighted.", r1=found["r1"] / (stage.r1_weight / 2), view=found["pose"] / stage.pose_weight)
    ours = {"adversarial": found["real"] + found["fake"], "r1": found["r1"], "view": found["pose"]}
    terms(case, "d", gan.discriminator.volume, ours)

    w, block = gan.generator.mapping(case.inputs["z"]), recorded(case, "draw")
    image = gan.rendered(w, *camera, Replay(block))
    case.compare("g.image", image)
    found = gan.loss_of(stage, w, camera, Replay(block))
    names = {"fake": "adversarial", "pose": "view", "eikonal": "eikonal", "surface": "minimal_surface"}
    weights = {"view": stage.pose_weight, "eikonal": stage.eikonal_weight, "minimal_surface": stage.surface_weight}
    ours = {names[name]: value for name, value in found.items()}
    relative(case, "g.unweighted.", **{name: ours[name] / weight for name, weight in weights.items()})
    terms(case, "g", gan.generator, ours)


def image_stage(of: dict[str, Any], **more: Any) -> ImageStage:
    return ImageStage(
        r1_weight=of["r1"],
        r1_every=of["d_reg_every"],
        path_weight=of["path_regularize"],
        path_every=of["g_reg_every"],
        path_decay=of.get("path_decay", 0.01),
        **more,
    )


def losses_stage2(case: Case) -> None:
    stage, camera = image_stage(case.config["loss"]), camera_of(case)
    gan = build_gan(case, image=stage)
    found = gan.loss_d_image(stage, case.inputs["real"], case.inputs["fake"], True)
    relative(case, "d.unweighted.", r1=found["r1"] / (stage.r1_weight / 2 * stage.r1_every))
    terms(case, "d", gan.discriminator.image, {"adversarial": found["real"] + found["fake"], "r1": found["r1"]})

    with torch.no_grad():
        w, other = (gan.generator.mapping(case.inputs[name]) for name in ("z", "z2"))
    image, _ = gan.images(w, None, *camera, Replay(recorded(case, "draw")))
    case.compare("g.image", image)
    terms(case, "g", gan.generator, {"adversarial": logistic_real(gan.discriminator.image(image).scores)})

    layers = gan.generator.decoder.num_layers
    (noise,) = case.draws("path_noise")
    # The index at which styles are switched was not recorded, but what came of it.
    is_first = (case.outputs["g.path_latents"] - gan.generator.styles(w).latents).abs().amax((0, 2)) < 1e-3
    cut = cut_draw(is_first.sum(), layers)
    draws = Replay([*recorded(case, "path.draw"), ("path_noise", noise), ("cut", cut)])
    image, latents = gan.images(w, other, *camera, draws)
    gan.mean_path.copy_(case.inputs["mean_path_length"])
    with watching(zoo.training.stylegan2, "path_lengths") as lengths:
        loss = gan.loss_path(stage, image, latents, draws)
    relative(case, "g.", path_lengths=lengths.calls[0][1], mean_path_length=gan.mean_path)
    relative(case, "g.unweighted.", path=loss / (stage.path_weight * stage.path_every))
    case.scores("g.path_latents", latents)
    terms(case, "g", gan.generator, {"path": loss})


class Stepwise(StyleSDF):
    """Training on recorded numbers that compares gradients and weights of each step."""

    def begin(self, case: Case) -> None:
        switches = sorted(name for name in case.inputs if re.fullmatch(r"draw\.randint_\d+", name))
        cuts = [("cut", cut_draw(case.inputs[name], self.generator.decoder.num_layers)) for name in switches]
        self.replay = Replay([*recorded(case, "draw", first=2), *cuts])  # the first two are of its validation
        self.case, self.first = case, self.iterations
        self.noted: dict[str, Tensor] = {}
        self.part = self.discriminator.image or self.discriminator.volume
        self.part.forward = self.scored = Watched(self.part.forward)

    def draws(self) -> Replay:
        return self.replay

    def accumulate(self, prefix: str, terms: dict[str, Tensor]) -> None:
        self.noted |= {f"{prefix}.{name}": term.detach() for name, term in terms.items()}
        super().accumulate(prefix, terms)

    def step(self, optimizer: Any, *, counted: bool = True, **how: Any) -> None:
        of_generator = optimizer is self.optimizers()[0]
        network = self.generator if of_generator else self.part
        step = ("g" if counted else "path") if of_generator else "d"
        label = f"{'g' if of_generator else 'd'}.{step}{self.iterations - self.first}"
        before = parameters(network)
        self.case.norms(f"{label}.grad_norm", gradients(network), order_of(self.case, label))
        if not of_generator:
            order = ["real_score", "fake_score"]
            order = order[::-1] if isinstance(self.part, ImageDiscriminator) else order
            scores = [result.scores.detach().mean() for _, result in self.scored.calls[-2:]]
            self.noted |= zip(order, scores, strict=True)
        super().step(optimizer, counted=counted, **how)
        self.compare(label, network, before)

    def compare(self, label: str, network: nn.Module, before: dict[str, Tensor], **more: Tensor) -> None:
        """Compare changes, and the values that were recorded."""
        compare_changes(self.case, f"{label}.change_norm", network, before, more)
        unread = {n: t for n, t in self.case.weights("generator.").items() if re.search(UNREAD, n)}
        values = unread | parameters(network)
        for name, value in self.case.recorded(f"{label}.value.", values).items():
            self.case.relative(name, value, 1e-2)

    def update_emas(self) -> None:
        network = self.emas["ema"].module
        before = parameters(network)
        super().update_emas()
        label, decay = self.iterations - self.first, self.emas["ema"].decay
        theirs, average = (self.case.weights(f"{name}.") for name in ("generator", "generator_ema"))
        unread = [n for n in theirs if re.search(UNREAD, n) and n.endswith("bias")]  # but averaged
        drawn = {n: (1 - decay) * decay**label * (theirs[n] - average[n]) for n in unread}
        self.compare(f"ema{label}", network, before, **drawn)
        ours = self.noted | {"loss_d": self.noted["loss_d.real"] + self.noted["loss_d.fake"]}
        found = {theirs: ours[name] for theirs, name in LOGGED.items() if name in ours}
        seen = {n: loss for n, loss in found.items() if f"loss{label}.{n}" in self.case.outputs}
        relative(self.case, f"loss{label}.", **seen)


LOGGED = {
    "d": "loss_d",
    "d_view": "loss_d.pose",
    "r1": "loss_d.r1",
    "g": "loss_g.fake",
    "g_view": "loss_g.pose",
    "g_eikonal": "loss_g.eikonal",
    "g_minimal_surface": "loss_g.surface",
    "real_score": "real_score",
    "fake_score": "fake_score",
}


def steps(case: Case, start: int = 0, **stages: Any) -> Stepwise:
    """Train for as many iterations as were recorded."""
    ema = EMA(case.config["ema_decay"], "keep")
    gan = build_gan(case, Stepwise, emas={"ema": ema}, **stages)
    ema.module.load_state_dict(make_generator(case, "generator_ema.").state_dict())
    gan.iterations = start
    gan.begin(case)
    real = [case.inputs[f"real.{i}"] for i in range(len([n for n in case.inputs if n.startswith("real.")]))]
    train(gan, torch.cat(real), len(real[0]))
    assert gan.replay.used_up() or set(n for n, q in gan.replay.queues.items() if q) <= {"mixing", "mixed_z"}
    return gan


def step_stage1(case: Case) -> None:
    of = case.config["training"]
    steps(case, volume=volume_stage(of, at_once=of["chunk"]))


def step_stage2(case: Case) -> None:
    of = case.config["training"]
    stage = image_stage(of, mixing=of["mixing"], at_once=of["chunk"], path_shrink=of["path_batch_shrink"])
    with watching(zoo.training.stylegan2, "path_lengths") as lengths:
        steps(case, of["start_iter"], image=stage)
    mean = torch.zeros(())
    for i, (_, of_pass) in enumerate(lengths.calls):
        mean = torch.lerp(mean, of_pass.detach().mean(), stage.path_decay)
        penalty = (of_pass - mean).square().mean()
        relative(case, f"path.pass{i}.", lengths=of_pass, mean=mean, penalty=penalty)
    for k in (0, 1):  # the last pass's, in both
        relative(case, f"loss{k}.", path=penalty, path_length=of_pass.mean())
