"""StyleSDF's training: real images, losses and stages, and the other side of each of their options."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.same_runs import train, write
from tests.systems import SYSTEMS, NoiseData
from tests.test_gan import fit
from tests.test_stylesdf import generator
from tests.tiny_systems import BOUNDARY
from zoo.cli.command import main
from zoo.draws import SampleDraws, TrainingDraws
from zoo.stylesdf.discriminator import ImageDiscriminator, PoseDiscriminator, StagedDiscriminator
from zoo.stylesdf.model import Generator, Latent
from zoo.stylesdf.stages import ImageStage
from zoo.stylesdf.training import StyleSDF, density_of, downsample_hamming, part_sizes, random_points
from zoo.training.gan import GAN
from zoo.utils.errors import UserError
from zoo.weights.bundle import build


def gan(**changed) -> StyleSDF:
    """A tiny one with other options."""
    torch.manual_seed(0)
    model = copy.deepcopy(SYSTEMS["stylesdf"]()["model"])
    return build(model | {"init_args": model["init_args"] | changed}, GAN)


def trained(model: StyleSDF, steps: int, folder) -> StyleSDF:
    fit(model, steps, folder, loader=NoiseData(resolution=16))
    return model


def state(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def moved(network: torch.nn.Module, before: dict[str, Tensor]) -> set[str]:
    """Names of the tensors that have changed; what is not known yet has not."""
    now = network.state_dict()
    return {name for name in now if not torch.allclose(now[name], before[name], rtol=0, atol=0, equal_nan=True)}


# Images


@pytest.mark.parametrize("side", [24, 16, 8])
def test_images_become_smaller_as_in_the_published_program(side):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    theirs = Image.fromarray(pixels).resize((side, side), Image.Resampling.HAMMING)
    ours = downsample_hamming(torch.from_numpy(pixels).permute(2, 0, 1)[None].double() / 127.5 - 1, side)
    assert torch.equal(((ours[0] + 1) * 127.5).round().permute(1, 2, 0), torch.from_numpy(np.array(theirs)).double())


def test_sides_that_do_not_fit_are_refused():
    images = torch.zeros(1, 3, 16, 16)
    assert downsample_hamming(images, 16) is images
    for side in (5, 32):
        with pytest.raises(UserError, match=f"side 16 cannot be made {side} pixels"):
            downsample_hamming(images, side)


# Losses


def eikonal(model: StyleSDF, chunk: int | None) -> tuple[Tensor, Tensor]:
    """The term, and its gradient in the first layer."""
    stage = replace(model.stages[1], surface_weight=0.0)
    made, draws = model.generator, SampleDraws(0, [0, 1])
    made.renderer.chunk = chunk
    latents, camera = made.sample(2, draws)
    term = model.loss_of(stage, made.mapping(latents.z), camera, draws)["eikonal"]
    (gradient,) = torch.autograd.grad(term, made.field.layers[0].linear.weight)
    return term, gradient


def test_gradients_of_distances_are_those_of_world_points():
    model = gan()
    made, draws = model.generator.double(), SampleDraws(0, [0, 1], dtype=torch.float64)
    latents, camera = made.sample(2, draws)
    seen = made.integrate(made.map(latents), camera, 2, None, differentiable=True)
    (gradient,) = torch.autograd.grad(seen.raw.sum(), seen.samples.positions)
    slopes = slopes_at(made, seen.samples.points.detach().flatten(1, 2), latents)
    assert torch.allclose(gradient.flatten(1, 2), slopes, rtol=1e-4, atol=1e-5)


def test_gradients_of_distances_are_looked_at_at_some_points_of_the_bounds():
    model = gan().double()
    made, draws = model.generator, SampleDraws(0, [0, 1], dtype=torch.float64)
    latents, camera = made.sample(2, draws)
    stage = replace(model.stages[1], eikonal_points=50, eikonal_weight=2.0)
    term = model.loss_of(stage, made.mapping(latents.z), camera, draws)["eikonal"]
    points = random_points(made, 2, 50, SampleDraws(0, [0, 1], dtype=torch.float64))[:, :, 0]
    low, high = points.flatten(0, 1).aminmax(dim=0)
    assert torch.allclose(torch.stack([low, high]), made.bounds, atol=0.1 * (made.bounds[1] - made.bounds[0]).min())
    expected = 2 * (slopes_at(made, points, latents).norm(dim=-1) - 1).square().mean()
    assert torch.allclose(term, expected, rtol=1e-4)


def test_r1_every_so_many_iterations_weighs_as_many_times_as_much(tmp_path, monkeypatch):
    asked, whole = [], StyleSDF.loss_d

    def noted(self, stage, real, fake, pose, with_r1):
        asked.append(with_r1)
        return whole(self, stage, real, fake, pose, with_r1)

    monkeypatch.setattr(StyleSDF, "loss_d", noted)
    of = {"r1_every": 3, "pose_weight": 0.0, "eikonal_weight": 0.0, "surface_weight": 0.0}
    volume = {"class_path": "zoo.stylesdf.VolumeStage", "init_args": of}
    model = trained(gan(sphere=None, volume=volume, image=None), 5, tmp_path)
    assert asked == [True, False, False, True, False]
    stage, side = model.stages[0], model.generator.render_side
    images, poses = torch.rand(4, 3, side, side).split(2), torch.zeros(2, 2)
    every = whole(model, replace(stage, r1_every=1), *images, poses, True)
    rare = whole(model, stage, *images, poses, True)
    assert torch.allclose(rare["r1"], 3 * every["r1"]) and every["r1"] > 0
    assert "r1" not in whole(model, stage, *images, poses, False)


def slopes_at(made: Generator, points: Tensor, latents: Latent) -> Tensor:
    """How distances change along the axes at points [B, N, 3], by differences."""
    styles, step = made.map(latents), 1e-6 * torch.eye(3, dtype=points.dtype)
    ahead, behind = ([made.signed_distance(points + s * d, styles) for d in step] for s in (1, -1))
    return torch.cat([(a - b) / 2e-6 for a, b in zip(ahead, behind, strict=True)], dim=-1)


def test_points_in_parts_have_the_same_eikonal_term():
    whole, parts = eikonal(gan(), None), eikonal(gan(), 20)
    assert torch.allclose(whole[0], parts[0], rtol=1e-5) and torch.allclose(whole[1], parts[1], rtol=1e-3, atol=1e-6)


def test_weights_of_zero_leave_terms_out():
    """Each by itself: in the published program the minimal surface goes with the eikonal term."""
    model = gan()
    made, draws = model.generator, SampleDraws(0, [0, 1])
    latents, camera = made.sample(2, draws)
    terms = ("fake", "pose", "eikonal", "surface")
    for left_out in terms[1:]:
        stage = replace(model.stages[1], **{f"{left_out}_weight": 0.0})
        found = model.loss_of(stage, made.mapping(latents.z), camera, draws)
        assert [*found] == [name for name in terms if name != left_out]


@pytest.mark.parametrize("stage", ["volume", "image"])
def test_parts_are_summed_or_averaged(stage, tmp_path):
    """Of stochastic gradient descent, steps are twice as long for the sum of two parts."""
    changes = {}
    for parts in ("sum", "mean"):
        sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 1e-3}}
        settings = {"optimizer_g": sgd, "optimizer_d": sgd, "sphere": None, "volume": None, "image": None}
        of = SYSTEMS["stylesdf"]()["model"]["init_args"][stage]
        of["init_args"] |= {"parts": parts, "settings_g": {}, "settings_d": {}, "path_weight": 0.0}
        if stage == "volume":
            of["init_args"] = {n: of["init_args"][n] for n in ("parts", "at_once")}
        model = gan(**settings | {stage: of})
        before = model.generator.field.colour.bias if stage == "volume" else model.generator.decoder.rgb.bias
        start = before.detach().clone()
        trained(model, 1, tmp_path)
        changes[parts] = before.detach() - start
    assert changes["mean"].abs().max() > 0
    # The generator sees a discriminator that has moved half as far, too.
    assert torch.allclose(changes["sum"], 2 * changes["mean"], rtol=0.05)


@pytest.mark.parametrize(("passes", "rendered"), [("whole", [4, 4]), ("parts", [2, 2])])
def test_path_lengths_are_of_whole_batches_or_of_parts(passes, rendered, tmp_path, monkeypatch):
    of = SYSTEMS["stylesdf"]()["model"]["init_args"]["image"]
    of["init_args"] |= {"path_passes": passes, "path_shrink": 1}
    model, seen = gan(sphere=None, volume=None, image=of), []
    loss_path = model.loss_path
    monkeypatch.setattr(
        model, "loss_path", lambda stage, images, *rest: seen.append(len(images)) or loss_path(stage, images, *rest)
    )
    trained(model, 1, tmp_path)
    assert seen == rendered


# Stages


def test_the_sphere_moves_distances_alone(tmp_path):
    model = gan()
    before = state(model.generator)
    judges = state(model.discriminator)
    trained(model, 2, tmp_path)
    colours = ("field.view_layer", "field.colour", "renderer.quadrature.density.beta", "decoder.")
    changed = moved(model.generator, before) - {"decoder.trained"}
    assert changed and not any(name.startswith(colours) for name in changed)
    assert moved(model.discriminator, judges) == set()
    assert moved(model.emas["ema"].module, state(model.generator)) == set()  # copies
    assert model.images_seen == 0 and model.iterations == 2
    steps = {float(of["step"]) for of in model.trainer.optimizers[0].state.values()}
    assert steps == {2.0}


def test_a_sphere_is_learned(tmp_path):
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": 3e-3, "betas": [0.0, 0.9]}}
    sphere = {"class_path": "zoo.stylesdf.SphereStage", "init_args": {"iterations": 300, "batch": 4, "radius": 0.05}}
    model = gan(sphere=sphere, optimizer_g=adam)
    points = 0.05 * torch.randn(2, 200, 3)

    def error() -> Tensor:
        made = model.sampler
        found = made.signed_distance(points, made.map(made.latents(2, SampleDraws(0, [0, 1]))))
        return (found[..., 0] - points.norm(dim=-1) + 0.05).abs().mean()

    before = error()
    trained(model, 300, tmp_path)
    assert error() < 0.3 * before


def test_moments_of_the_sphere_are_kept(tmp_path):
    model = trained(gan(), BOUNDARY, tmp_path)
    optimizer = model.trainer.optimizers[0]
    steps = {name: optimizer.state[p]["step"] for name, p in model.generator.named_parameters() if p in optimizer.state}
    assert steps["field.layers.0.linear.weight"] == BOUNDARY and steps["field.colour.weight"] == BOUNDARY - 2


def test_a_schedule_gives_beta_instead_of_learning_it(tmp_path):
    schedule = {"class_path": "zoo.training.LinearSchedule", "init_args": {"start": 0.1, "end": 0.02, "images": 8}}
    volume = {"class_path": "zoo.stylesdf.VolumeStage", "init_args": {"pose_weight": 0.0, "beta": schedule}}
    model = trained(gan(sphere=None, volume=volume, image=None), 2, tmp_path)
    half = 0.1 - 0.08 * (model.images_seen / 2) / 8  # after the first of two iterations
    for network in (model.generator, model.sampler):  # an EMA's would lag behind
        assert network.renderer.quadrature.density.beta.item() == pytest.approx(half)
    made = generator()
    made.renderer.quadrature.density = torch.nn.ReLU()
    with pytest.raises(UserError, match="beta of VolumeStage needs a density that has one"):
        density_of(made)


def test_the_decoder_learns_from_the_average_of_a_renderer_that_stays(tmp_path):
    model = trained(gan(), BOUNDARY, tmp_path)
    average, judges = state(model.sampler), state(model.discriminator)
    assert not model.generator.decoder.trained and moved(model.generator, average)
    trained(model, BOUNDARY + 2, tmp_path)
    for network in (model.generator, model.sampler):
        changed = moved(network, average)
        assert changed and all(name.startswith("decoder.") for name in changed)
    assert all(name.startswith("image.") for name in moved(model.discriminator, judges))
    assert model.generator.decoder.trained and model.sampler.decoder.trained


def test_the_second_stage_alone_starts_from_weights_of_the_first(tmp_path):
    first = SYSTEMS["stylesdf"]()
    options = first["model"]["init_args"]
    options["generator"]["init_args"] = options["generator"]["init_args"] | {"decoder": None, "render_side": 8}
    options |= {"sphere": None, "image": None}
    train(["fit", "-c", write(first, tmp_path / "first"), "--trainer.max_steps", "2"])
    assert main(["bundle", str(tmp_path / "first/checkpoints/last.ckpt"), str(tmp_path / "bundle")]) == 0
    words = ["--init_from", str(tmp_path / "bundle"), "--init_fresh", "[generator.decoder]", "--trainer.max_steps", "2"]
    words += ["--model.sphere", "null", "--model.volume", "null"]
    train(["fit", "-c", write(SYSTEMS["stylesdf"](), tmp_path / "second"), *words])
    theirs, ours = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("first", "second")
    )
    kept = [name for name in theirs if name.startswith("emas.ema.module.") and "mean" not in name]
    assert any("field" in name for name in kept)
    for name in kept:
        assert torch.equal(ours[name], theirs[name]) and torch.equal(
            ours[name.replace("emas.ema.module", "generator")], theirs[name]
        )


def test_stages_without_their_networks_are_refused():
    adam, whole = partial(torch.optim.Adam, lr=1e-3), gan()
    volume, image, small = whole.discriminator.volume, ImageStage(), PoseDiscriminator([4, 4])
    unsure = PoseDiscriminator([4, 4, 4], guesses_pose=False)
    for parts, stages, message in (
        ({"volume": volume}, {"volume": None}, "has no stage"),
        ({"volume": volume}, {"image": image}, "The stage image needs a discriminator"),
        ({"image": whole.discriminator.image}, {}, "The stage volume needs a discriminator"),
        ({"volume": small}, {}, "makes images of side 8: its discriminator takes 4"),
        ({"volume": unsure}, {}, "pose_weight needs guesses"),
    ):
        with pytest.raises(UserError, match=message):
            StyleSDF(whole.generator, StagedDiscriminator(**parts), adam, adam, **stages)
    alone = generator(decoder=None, render_side=8)
    with pytest.raises(UserError, match="The stage image needs a decoder"):
        judges = StagedDiscriminator(image=ImageDiscriminator({8: 4, 4: 4}))
        StyleSDF(alone, judges, adam, adam, volume=None, image=image)


def test_batches_are_split_as_published():
    assert part_sizes(8, 2) == [2, 2, 2, 2] and part_sizes(5, 2) == [2, 2, 1] and part_sizes(3, None) == [3]


def test_draws_of_the_sphere_are_those_of_the_iteration():
    model = gan()
    first, again, later = (model.loss_sphere(model.stages[0], TrainingDraws(0, i)) for i in (0, 0, 1))
    assert first == again != later
