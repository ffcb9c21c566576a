"""GIRAFFE: axes, boxes and their rules, composition and marching, and published sizes."""

import math

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from zoo.draws import SampleDraws, TrainingDraws
from zoo.export.views import turntable_views
from zoo.giraffe.field import Field, Octaves
from zoo.giraffe.model import Generator, NeuralRenderer
from zoo.giraffe.rendering import SceneRenderer, StratifiedDepths, densest, weighted
from zoo.giraffe.scenes import BoxPrior, Counts, ScenePoses, are_free, to_paper, to_zoo
from zoo.render import VolumeRenderer
from zoo.training.gan import GAN
from zoo.utils.paths import CONFIGS
from zoo.weights.bundle import build

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
