"""GIRAFFE: boxes and their rules, composition, cameras, edits, and what its training must not get wrong."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor, nn
from torch.optim import RMSprop
from torch.utils.data import DataLoader

from tests.tiny import CONFIG
from zoo.cli.command import main
from zoo.draws import SampleDraws, TrainingDraws
from zoo.evaluate.metrics.consistency import consistency
from zoo.export.views import find_edit, turntable_views
from zoo.giraffe import convert as giraffe
from zoo.giraffe.edits import EDITS
from zoo.giraffe.extras import object_masks
from zoo.giraffe.field import Field, Octaves
from zoo.giraffe.model import Discriminator, Generator, NeuralRenderer
from zoo.giraffe.rendering import SceneRenderer, StratifiedDepths, densest, weighted
from zoo.giraffe.scenes import BoxPrior, Counts, Latent, ScenePoses, are_free, to_paper, to_zoo, vertical_rotation
from zoo.giraffe.training import GIRAFFE
from zoo.render import Camera, VolumeRenderer
from zoo.training.ema import EMA
from zoo.training.gan import GAN
from zoo.utils.errors import UserError
from zoo.utils.paths import CONFIGS
from zoo.weights.bundle import build, save_bundle
from zoo.weights.convert import convert_network
from zoo.weights.names import to_published
from zoo.weights.read import Contents, Place

DEPTHS = StratifiedDepths(1.0, 4.5, 24)


def tiny_field(features: int = 6, **kwargs) -> Field:
    kwargs = {"latent_dim": 4, "hidden_dim": 8, "num_layers": 4, "skips": [2], "features": features} | kwargs
    return Field(Octaves(4), Octaves(2), **kwargs)


def tiny_generator(**kwargs) -> Generator:
    torch.manual_seed(0)
    boxes = BoxPrior(2, (0.3, 0.2, 0.2), (0.4, 0.3, 0.3), (-0.4, -0.4, -0.1), (0.4, 0.4, 0.1))
    poses = ScenePoses(polar=(0.3, 0.5), fov_deg=40.0)
    renderer = SceneRenderer(DEPTHS, chunk=50)
    neural_renderer = NeuralRenderer(1, 6, 8, least=2)
    parts = {
        "boxes": boxes,
        "poses": poses,
        "renderer": renderer,
        "neural_renderer": neural_renderer,
        "feature_resolution": 6,
    } | kwargs
    generator = Generator(tiny_field(), tiny_field(skips=[], num_layers=3), **parts)
    with torch.no_grad():
        for field in (generator.scene.objects, generator.scene.background):
            field.density.weight *= 4  # at its start a field of few units is as good as empty
            field.density.bias.fill_(0.5)
    return generator


def test_axes_come_back() -> None:
    points = torch.tensor([[1.0, 2.0, 3.0]])
    assert to_paper(points).tolist() == [[3.0, 1.0, 2.0]] and torch.equal(to_zoo(to_paper(points)), points)


# Boxes


def test_boxes_stay_in_their_ranges() -> None:
    prior = BoxPrior(3, (0.2, 0.16, 0.1), (0.4, 0.32, 0.2), (-0.5, 0.1, 0.0), (0.5, 0.3, 0.0), (0.4, 0.6))
    scale, place, rotation = prior(200, TrainingDraws(0, 0))
    assert scale.shape == place.shape == (200, 3, 3) and rotation.shape == (200, 3, 3, 3)
    for low, high, values in ((prior.scale_min, prior.scale_max, scale), (prior.place_min, prior.place_max, place)):
        least, most = values.flatten(0, 1).amin(0), values.flatten(0, 1).amax(0)
        assert (least >= torch.tensor(low) - 1e-6).all() and (most <= torch.tensor(high) + 1e-6).all()
        assert (most - least >= 0.9 * (torch.tensor(high) - torch.tensor(low))).all()
    torch.testing.assert_close(scale[..., 1] / scale[..., 0], torch.full((200, 3), 0.8))
    turns = torch.atan2(rotation[..., 1, 0], rotation[..., 0, 0]) / (2 * math.pi) % 1
    assert turns.min() >= 0.4 and turns.max() <= 0.6
    free = BoxPrior(1, (0.1,) * 3, (0.2,) * 3, one_scale=False)(50, TrainingDraws(0, 0)).scale
    assert (free[..., 0] - free[..., 1]).abs().max() > 0.01


def test_objects_on_a_plane_all_have_its_height() -> None:
    prior = BoxPrior(2, level=0.1665)
    assert (prior(20, TrainingDraws(0, 0)).place[..., 2] == 0.1665).all()
    assert (prior.at(torch.zeros(2, 3), torch.rand(2, 3), torch.zeros(2)).place[..., 2] == 0.1665).all()


def test_scenes_come_from_a_file_that_is_opened_at_first_use(tmp_path) -> None:
    path = tmp_path / "coordinates.npz"
    prior = BoxPrior(2, level=0.5, coordinates=path, coordinates_scale=0.5)
    with pytest.raises(ValueError, match=r"no file .*coordinates\.npz.* or set the boxes' coordinates to null"):
        prior(4, TrainingDraws(0, 0))
    np.savez(path, coordinates=np.zeros((5, 3, 3)))
    with pytest.raises(ValueError, match=r"shape \(scenes, 2, 3\)"):
        prior(4, TrainingDraws(0, 0))
    known = np.arange(30.0).reshape(5, 2, 3)
    np.savez(path, coordinates=known)
    place = prior(60, TrainingDraws(0, 0)).place
    rows = {tuple(row) for row in place.flatten(1).tolist()}
    assert rows == {tuple(row) for row in (known * 0.5).reshape(5, 6).tolist()}  # the plane is not for them


def test_boxes_that_must_not_touch() -> None:
    prior = BoxPrior(3, (0.1,) * 3, (0.1,) * 3, (-0.5, -0.5, 0.0), (0.5, 0.5, 0.0), margin=0.1)
    scale, place, _ = prior(64, TrainingDraws(0, 0))
    assert are_free(scale, place, 0.1).all()
    loose = BoxPrior(3, (0.1,) * 3, (0.1,) * 3, (-0.5, -0.5, 0.0), (0.5, 0.5, 0.0))(64, TrainingDraws(0, 0)).place
    redrawn = ~are_free(scale, loose, 0.1)
    assert redrawn.any() and torch.equal(place[~redrawn], loose[~redrawn])
    with pytest.raises(ValueError, match="make scale_max or margin smaller"):
        BoxPrior(3, (0.4,) * 3, (0.4,) * 3, (-0.1, -0.1, 0.0), (0.1, 0.1, 0.0), margin=0.1)(1, TrainingDraws(0, 0))


def test_counts_of_objects_have_their_shares() -> None:
    there = Counts((0.2, 0.3, 0.5))(20_000, 5, TrainingDraws(0, 0))
    counts = there.sum(1).bincount(minlength=6) / len(there)
    torch.testing.assert_close(counts, torch.tensor([0.0, 0.0, 0.2, 0.3, 0.5, 0.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(there.float().mean(0), torch.full((5,), 3.3 / 5), atol=0.02, rtol=0)
    with pytest.raises(ValueError, match="Up to 4 objects need at least 4 boxes, not 3"):
        Counts((0.2, 0.3, 0.5))(1, 3, TrainingDraws(0, 0))


# Composition and marching


def test_composition_by_hand() -> None:
    densities = torch.tensor([[3.0, 0.0, 0.0], [1.0, 2.0, 0.0]]).view(2, 1, 1, 3)
    density, shares = weighted(densities)
    assert density.flatten().tolist() == [4.0, 2.0, 0.0]
    assert shares.flatten(1).tolist() == [[0.75, 0.0, 0.0], [0.25, 1.0, 0.0]]
    density, shares = densest(densities)
    assert density.flatten().tolist() == [3.0, 2.0, 0.0]
    assert shares[:, 0, 0, :2].tolist() == [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("compose", [weighted, densest])
@pytest.mark.parametrize("recompute", [True, False])
def test_marching_equals_a_scene_as_one_field_of_any_renderer(compose, recompute) -> None:
    generator = tiny_generator(compose=compose)
    draws = SampleDraws(0, [0, 1, 2])
    latent, camera = generator.latents(3, draws), generator.cameras(3, draws)
    latent.present[1, 0] = latent.present[2, 2] = False  # an object and a background that are not there
    results, gradients = [], []
    for renderer in (
        VolumeRenderer(DEPTHS),
        SceneRenderer(DEPTHS, chunk=50, recompute=recompute),
        SceneRenderer(DEPTHS, chunk=None),
    ):
        generator.renderer = renderer
        rendered = generator.render(latent, camera)
        results.append(rendered)
        generator.zero_grad()
        (rendered.image.square().mean() + rendered.depth.nan_to_num().mean()).backward()
        gradients.append([p.grad.clone() for p in generator.parameters()])
    for result, gradient in zip(results[1:], gradients[1:], strict=True):
        for ours, theirs in zip(result, results[0], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, equal_nan=True)
        for ours, theirs in zip(gradient, gradients[0], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)


def test_noise_and_jitter_come_with_draws_only() -> None:
    generator = tiny_generator()
    latent, camera = generator.latents(1, SampleDraws(0, [0])), generator.cameras(1, None)

    def image(draws) -> Tensor:
        return generator.render(latent, camera, draws=draws).image

    with torch.no_grad():
        still, noisy = image(None), image(SampleDraws(0, [0]))
        assert torch.equal(image(None), still) and not torch.equal(noisy, still)
        generator.density_noise = 0.0
        assert not torch.equal(image(SampleDraws(0, [0])), noisy)


def test_samples_are_the_same_in_every_batch() -> None:
    generator = tiny_generator(background_rotation=(0.0, 0.5))

    def sample(indices: list[int]) -> Tensor:
        draws = SampleDraws(3, indices)
        latent = generator.latents(len(indices), draws)
        return generator.render(latent, generator.cameras(len(indices), draws), draws=draws).image

    with torch.no_grad():
        torch.testing.assert_close(sample([4]), sample([1, 4, 2])[1:2], atol=1e-5, rtol=0)


def test_what_a_generator_returns() -> None:
    generator = tiny_generator()
    latent, camera = generator.turntable(generator.latents(2, TrainingDraws(0, 0)), 3)
    with torch.no_grad():
        rendered = generator.render(generator.map(latent), camera, resolution=8)
        far = generator.density(torch.full((6, 7, 3), 3.0), latent)
        points = (torch.rand(6, 500, 3) * 2 - 1) * 2
        somewhere = generator.density(points, latent)
    assert [tuple(x.shape) for x in rendered] == [(6, 3, 8, 8), (6, 3, 4, 4), (6, 1, 4, 4), (6, 1, 4, 4)]
    assert rendered.image.abs().max() <= 1 and (far == 0).all() and somewhere.max() > 0
    low, high = generator.bounds
    assert ((points >= low) & (points <= high)).all(-1)[somewhere[..., 0] > 0].all()
    with pytest.raises(ValueError, match="a multiple of 2 from 4 on, such as 12, not 7"):
        generator.render(latent, camera, resolution=7)


# Cameras


def solid(generator: Generator) -> Generator:
    """Objects that are dense wherever their boxes are."""
    with torch.no_grad():
        generator.scene.objects.density.weight.zero_()
        generator.scene.objects.density.bias.fill_(100.0)
    return generator


def at(place: tuple[float, float, float]) -> Latent:
    codes = torch.zeros(1, 1, 4), torch.zeros(1, 1, 4), torch.zeros(1, 4), torch.zeros(1, 4)
    there = torch.ones(1, 2, dtype=torch.bool)
    scale = torch.full((1, 1, 3), 0.3)
    return Latent(*codes, scale, torch.tensor([[place]]), torch.eye(3)[None, None], torch.eye(3)[None], there)


def test_where_objects_are_seen() -> None:
    poses = ScenePoses(polar=(0.5, 0.5), fov_deg=60.0)
    generator = solid(
        tiny_generator(boxes=BoxPrior(1), poses=poses, renderer=SceneRenderer(StratifiedDepths(1, 4, 60)))
    )
    camera = generator.cameras(1, None)
    torch.testing.assert_close(camera.origins, torch.tensor([[0.0, 0.0, 2.732]]))

    def seen(*place: float) -> Tensor:
        with torch.no_grad():
            return object_masks(generator, at(place), camera, resolution=32)[0, 0] > 0.5

    rows, columns = seen(0.0, 0.8, 0.0).nonzero().T  # to the right
    assert columns.min() > 8 and (rows.float().mean() - 7.5).abs() < 1
    rows, columns = seen(0.0, 0.0, 0.8).nonzero().T  # upwards
    assert rows.max() < 8 and (columns.float().mean() - 7.5).abs() < 1
    assert seen(0.8, 0.0, 0.0).sum() > 1.5 * seen(-0.8, 0.0, 0.0).sum()  # towards the camera
    alone = at((0.8, 0.0, 0.0))
    alone.present[:, 1] = False
    with torch.no_grad():
        depth = generator.render(alone, camera, resolution=30).depth[0, 0, 7, 7]
    assert depth.item() == pytest.approx(2.732 - 0.8 - 1.1 * 0.3, abs=0.1)


def test_cameras_from_above_are_zoomed_in_as_in_published_batches() -> None:
    poses = ScenePoses(polar=(0.05, 0.5))
    share = torch.tensor([0.0, 0.5, 1.0])

    class Fixed:
        def uniform(self, name: str, shape) -> Tensor:
            return share[: shape[0]] if name == "polar" else torch.zeros(shape)

    sine = (1 - (1 - 2 * (0.05 + 0.45 * share)) ** 2).sqrt()
    plain = poses.at(torch.zeros(3), share, torch.zeros(3)).intrinsics[:, 0, 0]
    torch.testing.assert_close(plain, plain[:1].expand(3))
    for camera, steepest in ((poses(3, Fixed()), 1.0), (poses.together(2, Fixed()), float(sine[1]))):
        n = len(camera.pose)
        torch.testing.assert_close(camera.intrinsics[:, 0, 0].float(), plain[:n] / sine[:n] * steepest)
        torch.testing.assert_close(camera.intrinsics[:, 1, 1], camera.intrinsics[:, 0, 0])
    unzoomed = ScenePoses(polar=(0.05, 0.5), zoom=False)
    torch.testing.assert_close(unzoomed(3, Fixed()).intrinsics[:, 0, 0], plain)
    rotation = poses(3, Fixed()).pose[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(3, 3, 3))


def test_near_cameras_have_shorter_rays_in_the_limit_of_large_batches() -> None:
    generator = tiny_generator(poses=ScenePoses(radius=(2.0, 4.0)))
    camera = generator.poses.at(torch.zeros(2), torch.full((2,), 0.5), torch.tensor([0.0, 1.0]))
    rays = generator.rays(camera, 5)
    along = -(rays.directions * camera.pose[:, None, :3, 2]).sum(-1)
    torch.testing.assert_close(along, torch.tensor([[0.5], [1.0]]).expand(2, 25))


@pytest.mark.parametrize("rotation", [(0.0, 1.0), (0.4, 0.6)])
def test_a_camera_round_still_boxes_sees_what_a_still_one_sees_of_turning_boxes(rotation) -> None:
    generator = tiny_generator(boxes=BoxPrior(1, rotation=rotation), background_rotation=(0.0, 0.5))
    latent = generator.latents(2, TrainingDraws(0, 0))
    scenes, cameras = generator.turntable(latent, 4)
    assert (scenes.rotation == scenes.rotation[0]).all() and cameras.origins.unique(dim=0).shape == (4, 3)
    turns = torch.arange(4) / 4 if rotation == (0.0, 1.0) else torch.linspace(0.4, 0.6, 4)
    still = Latent(*(x.repeat_interleave(4, 0) for x in latent))
    still = still._replace(rotation=vertical_rotation(turns)[:, None].repeat(2, 1, 1, 1), place=scenes.place)
    middle = generator.cameras(1, None)
    with torch.no_grad():
        expected = generator.render(still, Camera(*(x.expand(8, -1, -1) for x in middle)))
        rendered = generator.render(scenes, cameras)
    assert (expected.image[0] - expected.image[1]).abs().max() > 1e-4
    for ours, theirs in zip(rendered, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4, equal_nan=True)


def test_a_background_goes_with_a_camera_of_any_place() -> None:
    generator = tiny_generator(background_rotation=(0.0, 0.5))
    latent = generator.latents(1, TrainingDraws(0, 0))
    scenes, camera = generator.orbit_at(latent, torch.tensor([0.0, 0.3, 0.8]))
    still = scenes._replace(background_rotation=latent.background_rotation.expand(3, -1, -1))
    torch.testing.assert_close(generator.with_backdrop(still, camera).background_rotation, scenes.background_rotation)
    generator.poses = ScenePoses(azimuth=(0.35, 0.0))  # cameras went so far round in training
    left = generator.with_backdrop(still, camera).background_rotation
    torch.testing.assert_close(left[:2], still.background_rotation[:2])


def test_several_objects_go_round_together() -> None:
    generator = tiny_generator()
    latent = generator.latents(2, TrainingDraws(0, 0))
    latent.present[1, 1] = False
    scenes, _ = generator.turntable(latent, 3)
    place = scenes.place[::3]
    torch.testing.assert_close(place[0].diff(dim=0), latent.place[0].diff(dim=0))
    torch.testing.assert_close(place[0, :, :2].mean(0), torch.zeros(2))
    torch.testing.assert_close(place[1, 0, :2], torch.zeros(2))
    assert torch.equal(place[..., 2], latent.place[..., 2])


def test_a_solid_box_holds_together_in_3d() -> None:
    boxes = BoxPrior(1, (0.6, 0.35, 0.3), (0.6, 0.35, 0.3), (-0.2, -0.2, 0.0), (0.2, 0.2, 0.0))
    renderer, poses = SceneRenderer(StratifiedDepths(1, 4, 60)), ScenePoses(polar=(0.3, 0.4))
    generator = solid(tiny_generator(boxes=boxes, poses=poses, renderer=renderer, feature_resolution=24))
    numbers = consistency(generator, 1)
    assert numbers["silhouettes"] > 0.9 and numbers["surface"] > 0.98
    assert numbers["outside"] == numbers["nonfinite"] == 0 and 0.05 < numbers["opacity"] < 0.5


# Edits


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_gives_its_frames(name) -> None:
    generator = tiny_generator()
    latent = generator.latents(2, SampleDraws(0, [0, 1]))
    scenes, camera = EDITS[name](generator, latent, 7, SampleDraws(0, [0, 1]))
    assert {len(x) for x in (*scenes, *camera)} == {14}
    assert scenes.shape_code.shape[1] == scenes.place.shape[1] == scenes.present.shape[1] - 1
    with torch.no_grad():
        image = generator.render(scenes, camera, resolution=40).image.unflatten(0, (2, 7))
    assert image.isfinite().all() and image.diff(dim=1).abs().max() > 1e-5
    again, _ = EDITS[name](generator, Latent(*(x[1:] for x in latent)), 7, SampleDraws(0, [1]))
    torch.testing.assert_close(Latent(*(x[7:] for x in scenes)), again)  # scenes do not depend on their neighbours


def test_what_edits_change_and_what_they_leave() -> None:
    generator = tiny_generator()
    draws = SampleDraws(0, [0])
    latent = generator.latents(1, draws)
    added = EDITS["add-cars"](generator, latent, 12, draws)[0].present
    assert added.sum(1).tolist() == [1 + stage for stage in (1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6)]
    assert EDITS["add-clevr10"](generator, latent, 6, draws)[0].present.sum(1).tolist() == [3, 5, 7, 9, 11, 13]
    swapped = EDITS["swap-shape"](generator, latent, 3, draws)[0]
    assert torch.equal(swapped.shape_code[0], latent.shape_code[0]) and not torch.equal(
        swapped.shape_code[1], latent.shape_code[0]
    )
    assert torch.equal(swapped.appearance_code, latent.appearance_code.expand(3, -1, -1))
    assert torch.equal(swapped.place, latent.place.expand(3, -1, -1))
    wandered = EDITS["interpolate-appearance"](generator, latent, 12, draws)[0].appearance_code
    assert torch.equal(wandered[1], wandered[2]) and torch.equal(
        wandered[11], wandered[0]
    )  # legs meet, the loop closes
    depth = EDITS["depth"](generator, latent, 5, draws)[0].place
    assert (depth[:, -1, 0].diff() > 0).all() and (depth[:, 0].diff(dim=0) == 0).all()


def test_edits_from_the_command_line(tmp_path, capsys) -> None:
    config = {
        "class_path": "zoo.giraffe.Generator",
        "init_args": yaml.safe_load((CONFIGS / "giraffe" / "cars32.yaml").read_text())["model"]["init_args"][
            "generator"
        ]["init_args"],
    }
    save_bundle(tmp_path / "bundle", build(config, nn.Module), config)
    out = ["--out", str(tmp_path / "grid.png"), "--seeds", "0", "--views", "2"]
    assert main(["sample", str(tmp_path / "bundle"), *out, "--edit", "elevation"]) == 0
    assert (tmp_path / "grid.png").is_file()
    assert main(["sample", str(tmp_path / "bundle"), *out, "--edit", "elevatoin"]) == 2
    assert "Did you mean 'elevation'?" in capsys.readouterr().err
    with pytest.raises(ValueError, match="needs edits, which"):
        find_edit(build(CONFIG["model"]["init_args"]["generator"], nn.Module), "rotate")


def test_an_edit_that_moves_nothing_is_refused() -> None:
    boxes = BoxPrior(1, place_min=(0.0, 0.0, 0.0), place_max=(0.0, 0.0, 0.0))
    with pytest.raises(UserError, match="--edit circle changes nothing"):
        turntable_views(tiny_generator(boxes=boxes), [3], 3, edit="circle")


def test_views_of_an_edit() -> None:
    generator = tiny_generator()
    edited, turned_round = turntable_views(generator, [3], 3, edit="elevation"), turntable_views(generator, [3], 3)
    assert edited.image.shape == turned_round.image.shape and not torch.equal(edited.image, turned_round.image)


# Training


def tiny_gan(**kwargs) -> GIRAFFE:
    generator = tiny_generator(feature_resolution=8, background_rotation=(0.0, 0.5))
    optimizer = partial(RMSprop, lr=1e-3)
    emas = {"ema": EMA(0.5, "keep")}
    return GIRAFFE(generator, Discriminator(16, 8), optimizer, optimizer, emas=emas, **kwargs)


def test_r1_keeps_its_weight_on_the_zoos_range() -> None:
    gan = tiny_gan()
    real = torch.rand(3, 3, 16, 16, requires_grad=True)
    scores = gan.discriminator(real * 2 - 1).scores
    (gradient,) = torch.autograd.grad(scores.sum(), real)
    terms = gan.loss_d(real * 2 - 1, torch.zeros(3, 3, 16, 16))
    torch.testing.assert_close(terms["r1"], 10 * gradient.square().sum() / 3)
    wide = tiny_gan(r1_range=2.0).loss_d(real * 2 - 1, torch.zeros(3, 3, 16, 16))
    torch.testing.assert_close(wide["r1"] * 4, terms["r1"])


def test_the_discriminator_sees_images_in_its_own_range() -> None:
    seen = []
    discriminator = Discriminator(16, 8)
    discriminator.layers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    discriminator(torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 16, 16))
    assert seen[0][0, :, 0, 0].tolist() == [0.0, 0.5, 1.0]
    with pytest.raises(ValueError, match="takes images of side 16, not 8"):
        discriminator(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("channels", [1, 4])
def test_a_discriminator_of_other_than_three_channels(channels) -> None:
    discriminator = Discriminator(16, 8, image_channels=channels)
    images = torch.rand(2, channels + 1, 16, 16)
    assert torch.equal(discriminator(images).scores, discriminator(images[:, :channels]).scores)
    other = images.index_fill(1, torch.tensor([channels - 1]), 0.0)
    assert not torch.equal(discriminator(images).scores, discriminator(other).scores)
    with pytest.raises(ValueError, match=f"takes {channels} channels, not {channels - 1}"):
        discriminator(images[:, : channels - 1])

    files = giraffe.official({"discriminator": to_published(discriminator.state_dict(), giraffe.DISCRIMINATOR)}, {})
    place, contents = Place(Path("model.pt")), Contents(files["model.pt"], [], "")
    made = convert_network(giraffe, place, contents, weights="discriminator")
    assert made.config["init_args"] == {"resolution": 16, "channels": 8, "image_channels": channels}
    assert torch.equal(made.network(images).scores, discriminator(images).scores)


@pytest.mark.parametrize("resolution", [-8, 0, 4, 12, 24])
def test_sides_that_do_not_halve_down_to_four_are_refused(resolution) -> None:
    with pytest.raises(ValueError, match=r"give a power of two >= 8|resolution of Discriminator is"):
        Discriminator(resolution)


def test_training_draws_one_background_for_all_and_evaluation_one_each() -> None:
    gan, seen = tiny_gan(), []
    render = gan.generator.render
    gan.generator.render = lambda styles, *args, **kwargs: (seen.append(styles), render(styles, *args, **kwargs))[1]
    with torch.no_grad():
        gan.generator.together(4, TrainingDraws(0, 0))
    rotation = seen[0].background_rotation
    assert torch.equal(rotation, rotation[:1].expand(4, -1, -1)) and not torch.equal(rotation[0], torch.eye(3))
    own = gan.generator.latents(4, SampleDraws(0, range(4))).background_rotation
    assert len({tuple(r.flatten().tolist()) for r in own}) == 4


def test_two_iterations_in_the_published_order(tmp_path) -> None:
    order: list[str] = []

    class Watched(GIRAFFE):
        def minimise(self, optimizer, prefix, terms, **how) -> None:
            order.append(prefix)
            super().minimise(optimizer, prefix, terms, **how)

        def loss_d(self, real, fake):
            assert not fake.requires_grad and len(fake) == 6 and len(real) == 4
            return super().loss_d(real, fake)

    gan = tiny_gan(fakes=6)
    gan.__class__ = Watched
    start = {n: p.detach().clone() for n, p in gan.generator.named_parameters()}
    update = gan.emas["ema"].update
    gan.emas["ema"].update = lambda generator: (order.append("ema"), update(generator))[1]
    images = torch.rand(8, 3, 16, 16) * 2 - 1
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_steps=2, accelerator="cpu", default_root_dir=tmp_path, enable_model_summary=False, **quiet)
    trainer.fit(gan, DataLoader([{"image": image} for image in images], 4))
    assert order == ["loss_g", "ema", "loss_d"] * 2 and (gan.iterations, gan.images_seen) == (2, 8)
    moved = [n for n, p in gan.generator.named_parameters() if not torch.equal(p, start[n])]
    assert {n.split(".")[0] for n in moved} == {"scene", "neural_renderer"} and len(moved) > 0.9 * len(start)


# What was published


@pytest.mark.parametrize(
    ("name", "generator", "discriminator"),
    [
        ("compcars64", 411_595, 2_763_776),
        ("ffhq256", 748_497, 2_802_432),
        ("clevr2345_256", 195_441, 2_802_432),
        ("compcars64_2d", 1_689_267, 640_945),
    ],
)
def test_published_sizes(name, generator, discriminator) -> None:
    config = yaml.safe_load((CONFIGS / "giraffe" / f"{name}.yaml").read_text())["model"]
    with torch.device("meta"):
        gan = build(config, GAN)
    assert sum(p.numel() for p in gan.generator.parameters()) == generator
    assert sum(p.numel() for p in gan.discriminator.parameters()) == discriminator


def test_the_plain_gan_answers_like_a_generator() -> None:
    from zoo.giraffe.extras import PlainGenerator

    generator = PlainGenerator(4, 16, 4, 8)
    views = turntable_views(generator, [0, 1], 2)
    assert views.image.shape == (2, 2, 3, 16, 16) and views.depth.isnan().all()
    assert torch.equal(views.image[:, 0], views.image[:, 1])
    with pytest.raises(ValueError, match="of side 16 only, not 32"):
        generator.render(generator.latents(1, SampleDraws(0, [0])), generator.cameras(1, None), resolution=32)
