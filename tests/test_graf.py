"""GRAF: patches and their annealing, spectral norm, the generator's interface, schedules, two steps of training."""

import math
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import RMSprop
from torch.utils.data import DataLoader

from zoo.draws import SampleDraws, TrainingDraws
from zoo.graf.model import Discriminator, Generator, HierarchicalRenderer, Latent, RadianceField, uniform
from zoo.graf.rays import AlongAxis, OnSphere, Orthographic, Patches, all_pixels, sample_patches, through_centres, z_up
from zoo.graf.training import GRAF, random_flip
from zoo.layers.discriminator import DiscriminatorOutput
from zoo.layers.encoding import positional_encoding
from zoo.render import Importance, Quadrature, Rays, Samples, VolumeRenderer, pixel_centres, through, white
from zoo.training.ema import EMA


def tiny_field(**kwargs) -> RadianceField:
    return RadianceField(**({"shape_dim": 3, "appearance_dim": 2, "hidden_dim": 8, "point_octaves": 2} | kwargs))


def tiny_generator(**kwargs) -> Generator:
    renderer = VolumeRenderer(AlongAxis(7.5, 12.5, 4, radius=10.5), Quadrature(background=white), chunk=256)
    poses = OnSphere((0.0, 90.0), (70.0, 85.0), (9.5, 10.5), 10.0)
    return Generator(**({"field": tiny_field(), "renderer": renderer, "poses": poses, "resolution": 8} | kwargs))


def tiny_gan(**kwargs) -> GRAF:
    torch.manual_seed(0)
    g, d = partial(RMSprop, lr=5e-4), partial(RMSprop, lr=1e-4)
    return GRAF(tiny_generator(), Discriminator(32, 2), g, d, emas={"ema": EMA(0.5)}, **kwargs)


class Recorded:
    """Draws that give the same number everywhere."""

    def __init__(self, number: float) -> None:
        self.number = number

    def uniform(self, name: str, shape) -> Tensor:
        return torch.full(tuple(shape), self.number)


# Encoding


def test_encoding_is_sine_and_cosine_by_octave():
    x = torch.tensor([[0.5, -1.0, 2.0]])
    expected = torch.cat([x, x.sin(), x.cos(), (2 * x).sin(), (2 * x).cos()], dim=-1)
    assert torch.equal(positional_encoding(x, 2), expected)
    waves = positional_encoding(x, 1, base=math.pi, identity=False)
    assert torch.allclose(waves, torch.cat([(math.pi * x).sin(), (math.pi * x).cos()], dim=-1))
    assert torch.equal(positional_encoding(x, 0), x)
    assert positional_encoding(x, 10).shape == (1, 63)


# Patches


@pytest.mark.parametrize(
    ("iteration", "scale"),
    [(0, 0.9), (999, 0.9), (60_500, math.exp(-0.45)), (184_000, math.exp(-1.38)), (185_000, 0.25), (400_000, 0.25)],
)
def test_the_least_scale_falls_as_published(iteration, scale):
    assert Patches(anneal=0.0025).least_scale(iteration) == pytest.approx(scale)


def test_without_annealing_the_least_scale_is_fixed():
    assert Patches(min_scale=0.25, anneal=None).least_scale(0) == 0.25
    assert Patches(min_scale=0.125, anneal=0.0019).least_scale(364_000) > 0.125
    assert Patches(min_scale=0.125, anneal=0.0019).least_scale(365_000) == 0.125


def test_patches_stay_inside_and_keep_their_scale():
    places = Patches(size=5, anneal=None)(100, 0, TrainingDraws(0, 0))
    assert places.shape == (100, 5, 5, 2) and places.abs().max() <= 1 + 1e-6
    width = places[:, 0, -1, 0] - places[:, 0, 0, 0]
    height = places[:, -1, 0, 1] - places[:, 0, 0, 1]
    assert torch.allclose(width, height, atol=1e-6) and width.min() >= 0.5 - 1e-6 and width.max() > 1.8
    assert places[..., 0].amin((1, 2)).min() < -0.9 and places[..., 0].amax((1, 2)).max() > 0.9


def test_a_patch_of_full_size_is_the_image_itself():
    places = Patches(size=8, min_scale=1.0, anneal=None)(2, 0, Recorded(0.7))
    image = torch.rand(2, 3, 8, 8)
    assert torch.allclose(sample_patches(image, places), image, atol=1e-6)


def test_real_and_generated_patches_are_at_the_same_places():
    generator = tiny_generator(field=tiny_field(), resolution=16)
    camera = generator.cameras(2, TrainingDraws(0, 1))
    places = Patches(size=6, anneal=None)(2, 0, TrainingDraws(0, 2))
    columns = all_pixels(16).mT.reshape(1, 2, 16, 16).expand(2, -1, -1, -1)  # an image of its own coordinates
    pixels = sample_patches(columns, places)
    rays = generator.patch_rays(camera, places, 16)
    local = (rays.directions[..., None, :] @ camera.pose[:, None, :3, :3])[..., 0, :]  # back into camera space
    focal = 16 * camera.intrinsics[0, 0, 0]
    assert torch.allclose(local[..., 0] * focal + 8, pixels[:, 0].flatten(1), atol=1e-3)
    assert torch.allclose(8 - local[..., 1] * focal, pixels[:, 1].flatten(1), atol=1e-3)
    latent = generator.latents(2, TrainingDraws(0, 3))
    whole = generator.render(latent, camera, resolution=16)
    every = Patches(size=16, min_scale=1.0, anneal=None)(2, 0, Recorded(0.0))
    patch = generator.render(latent, camera, resolution=16, places=every)
    assert torch.allclose(patch.image, whole.image, atol=1e-4)


def test_mirroring_follows_its_draws():
    patches = torch.rand(2, 3, 4, 4)
    assert torch.equal(random_flip(patches, Recorded(0.7)), patches)
    assert torch.equal(random_flip(patches, Recorded(0.2)), patches.flip(-1))


# Cameras and rays


def test_cameras_are_where_they_were_asked_for():
    poses = OnSphere((0.0, 90.0), (70.0, 85.0), (9.5, 10.5), 10.0)
    camera = poses(200, TrainingDraws(0, 0))
    x, y, z = z_up(camera.origins).unbind(-1)
    radius = camera.origins.norm(dim=-1)
    polar, azimuth = (z / radius).acos().rad2deg(), torch.atan2(y, x).rad2deg()
    for values, (low, high) in ((polar, (70, 85)), (azimuth, (0, 90)), (radius, (9.5, 10.5))):
        margin = 0.1 * (high - low)
        assert low - 1e-3 <= values.min() < low + margin and high - margin < values.max() <= high + 1e-3
    towards = -camera.origins / radius[:, None]
    assert torch.allclose(-camera.pose[:, :3, 2], towards, atol=1e-5)
    assert (camera.pose[:, 1, 1] > 0).all()  # upright


def test_a_full_turn_leaves_out_its_end_and_a_part_of_one_does_not():
    angles = []
    for azimuth in ((0.0, 360.0), (0.0, 90.0)):
        x, y, _ = z_up(OnSphere(azimuth).turntable(4).origins).unbind(-1)
        angles.append(torch.atan2(y, x).rad2deg() % 360)
    assert torch.allclose(angles[0], torch.tensor([0.0, 90.0, 180.0, 270.0]), atol=1e-3)
    assert torch.allclose(angles[1], torch.tensor([0.0, 30.0, 60.0, 90.0]), atol=1e-3)


def test_parallel_rays_are_parallel():
    generator = tiny_generator(lens=Orthographic(5.0))
    camera = generator.cameras(1, None)
    rays = generator.rays(camera, 8)
    assert torch.allclose(rays.directions, rays.directions[:, :1].expand_as(rays.directions))
    assert (rays.origins[0, 7] - rays.origins[0, 0]).norm() == pytest.approx(5 * 7 / 8, rel=1e-5)


def test_rays_through_centres_are_those_of_the_renderer():
    generator = tiny_generator(lens=through_centres)
    camera = generator.cameras(2, SampleDraws(0, [0, 1]))
    rays = generator.rays(camera, 8)
    expected = through(camera, pixel_centres(8), unit=False)
    assert torch.allclose(rays.origins, expected.origins) and torch.allclose(
        rays.directions, expected.directions, atol=1e-6
    )
    assert not torch.allclose(tiny_generator().rays(camera, 8).directions, expected.directions, atol=1e-3)


def test_planes_move_with_the_camera():
    origins = torch.tensor([[[0.0, 0.0, 9.5], [0.0, 10.5, 0.0]]])
    near, far = AlongAxis(7.5, 12.5, 4, radius=10.5).planes(Rays(origins, origins))
    assert torch.allclose(near[0, :, 0], torch.tensor([6.5, 7.5])) and torch.allclose(far - near, torch.tensor(5.0))


# Field and generator


def test_shape_decides_the_density_and_appearance_only_the_colour():
    field = tiny_field()
    samples = Samples(torch.randn(1, 5, 3), torch.randn(1, 5, 3), torch.rand(1, 5, 2))
    raw, colour = field(samples, Latent(torch.ones(1, 3), torch.ones(1, 2)))
    same, other = field(samples, Latent(torch.ones(1, 3), -torch.ones(1, 2)))
    assert torch.equal(raw, same) and not torch.allclose(colour, other, atol=1e-3)
    changed, _ = field(samples, Latent(-torch.ones(1, 3), torch.ones(1, 2)))
    assert not torch.allclose(raw, changed, atol=1e-3)


def test_folded_layers_are_the_layers_in_full():
    field = tiny_field(num_layers=8, view_octaves=1)
    samples = Samples(torch.randn(2, 3, 3), torch.randn(2, 3, 3), torch.rand(2, 3, 4))
    latent = Latent(torch.randn(2, 3), torch.randn(2, 2))
    raw, colour = field(samples, latent)
    shape, appearance = (code[:, None, None].expand(2, 3, 4, -1) for code in latent)
    directions = torch.nn.functional.normalize(z_up(samples.directions), dim=-1)[:, :, None].expand(2, 3, 4, 3)
    entering = torch.cat([positional_encoding(z_up(samples.points), 2), shape], dim=-1)
    x = entering
    for i, layer in enumerate(field.layers):
        x = layer(x if i != 5 else torch.cat([entering, x], dim=-1)).relu()
    seen = torch.cat([field.feature(x), positional_encoding(directions, 1), appearance], dim=-1)
    assert torch.allclose(raw, field.density(x), atol=1e-6)
    assert torch.allclose(colour, field.colour(field.colour_hidden(seen).relu()).sigmoid(), atol=1e-6)


def test_the_published_field_has_the_published_size():
    assert sum(p.numel() for p in RadianceField().parameters()) == 677_764
    assert sum(p.numel() for p in RadianceField(view_octaves=None).parameters()) == 674_308
    assert sum(p.numel() for p in Discriminator().parameters()) == 2_635_776


def test_the_generator_answers_the_interface():
    generator = tiny_generator().prepare()
    draws = SampleDraws(0, [3, 5])
    latent = generator.latents(2, draws)
    styles = generator.map(latent, truncation=0.5)
    assert torch.equal(styles.shape_code, 0.5 * latent.shape_code)
    camera = generator.cameras(2, draws)
    rendered = generator.render(generator.map(latent), camera, draws=draws)
    assert rendered.image.shape == (2, 3, 8, 8) and rendered.depth.shape == rendered.opacity.shape == (2, 1, 8, 8)
    assert rendered.image.abs().max() <= 1 and torch.equal(generator(latent, camera, draws=draws).image, rendered.image)
    alone = SampleDraws(0, [5])
    again = generator.render(generator.latents(1, alone), generator.cameras(1, alone), draws=alone)
    assert torch.allclose(again.image[0], rendered.image[1], atol=1e-5)
    density = generator.density(torch.randn(2, 7, 3), styles)
    assert density.shape == (2, 7, 1) and (density >= 0).all()
    latents, cameras = generator.turntable(latent, 3)
    assert latents.shape_code.shape == (6, 3) and torch.equal(latents.shape_code[2], latent.shape_code[0])
    assert cameras.pose.shape == (6, 4, 4)
    assert generator.render(generator.map(latents), cameras, resolution=4).image.shape == (6, 3, 4, 4)


def test_depth_is_a_distance_along_the_ray():
    generator = tiny_generator(
        renderer=VolumeRenderer(AlongAxis(8.0, 12.0, 2), Quadrature(lambda raw, points: 1e3 + 0 * raw))
    )
    rendered = generator.render(generator.latents(1, TrainingDraws(0, 0)), generator.cameras(1, None))
    lengths = generator.rays(generator.cameras(1, None), 8).directions.norm(dim=-1)
    assert torch.allclose(rendered.depth.flatten(), 8 * lengths[0], rtol=1e-5) and lengths.max() > 1.003


def test_uniform_codes_are_between_minus_one_and_one():
    codes = uniform(500, 3, TrainingDraws(0, 0))
    assert codes.min() < -0.95 and codes.max() > 0.95 and codes.abs().max() <= 1


def test_only_the_second_network_learns():
    renderer = HierarchicalRenderer(
        VolumeRenderer(AlongAxis(7.5, 12.5, 4), chunk=64), Importance(3, right=True), tiny_field()
    )
    generator = tiny_generator(renderer=renderer)
    draws = TrainingDraws(0, 0)
    latent, camera = generator.latents(2, draws), generator.cameras(2, draws)
    generator.render(latent, camera, draws=draws, density_noise=1.0).image.sum().backward()
    assert all(p.grad is None for p in generator.field.parameters())
    assert all(p.grad is not None for p in renderer.field.parameters())
    before = generator.density(torch.randn(2, 7, 3), latent)
    with torch.no_grad():
        renderer.field.density.bias += 1
    assert (generator.density(torch.randn(2, 7, 3), latent) > before.min()).all()


# Discriminator


def test_spectral_norm_moves_once_a_call_and_only_in_training():
    discriminator = Discriminator(32, 2)
    first = discriminator.convolutions[0]
    patches, u = torch.rand(2, 3, 32, 32), first.weight_u.clone()
    discriminator.eval()(patches)
    assert torch.equal(first.weight_u, u)
    matrix = first.weight_orig.detach().flatten(1)
    v = torch.nn.functional.normalize(matrix.T @ u, dim=0)
    expected = torch.nn.functional.normalize(matrix @ v, dim=0)
    discriminator.train()(patches)
    assert torch.allclose(first.weight_u, expected, atol=1e-6)
    for _ in range(50):
        discriminator(patches)
    assert torch.linalg.matrix_norm(first.weight.detach().flatten(1), 2) == pytest.approx(1, abs=1e-3)
    assert {name.rsplit(".")[-1] for name in discriminator.state_dict()} == {"weight_orig", "weight_u", "weight_v"}


@pytest.mark.parametrize(("size", "convolutions"), [(32, 4), (64, 5), (128, 6)])
def test_every_size_of_patches_is_scored(size, convolutions):
    discriminator = Discriminator(size, 2)
    assert len(discriminator.convolutions) == convolutions and discriminator(
        torch.rand(2, 3, size, size)
    ).scores.shape == (2, 1)
    with pytest.raises(ValueError, match=f"of side {size}, not 16"):
        discriminator(torch.rand(2, 3, 16, 16))


def test_other_sizes_of_patches_are_refused():
    with pytest.raises(ValueError, match="give a size of 32, 64 or 128"):
        Discriminator(48)


# Training


def test_schedules_are_functions_of_the_clock():
    gan = tiny_gan()
    assert [gan.noise_at(i) for i in (-1, 0, 2500, 4999, 80_000)] == pytest.approx([1, 1, 0.5, 2e-4, 2e-4])
    assert tiny_gan(noise_iterations=0).noise_at(9000) == 1
    for iterations, share in ((0, 1), (49_999, 1), (50_000, 0.5), (100_000, 0.25), (300_000, 0.125), (10, 1)):
        gan.iterations = iterations
        assert gan.share == share


def test_the_penalty_is_averaged_over_points():
    gan = tiny_gan(r1_weight=10.0)
    gan.discriminator = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 1))
    gan.discriminator.register_forward_hook(lambda _, __, scores: DiscriminatorOutput(scores))
    real = torch.rand(2, 3, 32, 32)
    terms = gan.loss_d(real, real, TrainingDraws(0, 0))
    squared = gan.discriminator[1].weight.square().sum()
    assert terms["r1"].item() == pytest.approx(10 * squared.item() / 1024, rel=1e-5)


def test_two_steps_of_training(tmp_path):
    gan = tiny_gan(mirror=True)
    seen, noises = [], []
    gan.discriminator.register_forward_hook(lambda *call: seen.append(call[2].scores.shape))
    noise_at = gan.noise_at
    gan.noise_at = lambda iteration: noises.append(iteration) or noise_at(iteration)
    before = {name: p.detach().clone() for name, p in gan.named_parameters()}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_steps=2, accelerator="cpu", enable_model_summary=False, default_root_dir=tmp_path, **quiet)
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    trainer.fit(gan, DataLoader([{"image": image} for image in images], 2))
    assert gan.iterations == trainer.global_step == 2 and gan.images_seen == 4
    assert len(seen) == 6 and noises == [-1, 0, 0, 1]
    moved = {name for name, p in gan.named_parameters() if not torch.equal(p, before[name])}
    for part in ("generator.field", "discriminator", "emas.ema"):
        assert any(name.startswith(part) for name in moved), part
    assert gan.sampler is gan.emas["ema"].module


@pytest.mark.parametrize(("milestones", "rate"), [([1], 5e-5), ([], 5e-6)], ids=["its own", "those of a callback"])
def test_learning_rates_are_its_own_unless_it_has_no_milestones(milestones, rate, tmp_path):
    from callbacks.decay import LearningRateDecay

    gan = tiny_gan(milestones=milestones, decay=0.1)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_steps": 2}
    decay = LearningRateDecay(shares=[0.5], factor=0.01)
    trainer = pl.Trainer(
        accelerator="cpu", enable_model_summary=False, default_root_dir=tmp_path, callbacks=[decay], **options
    )
    trainer.fit(gan, DataLoader([{"image": torch.zeros(3, 16, 16)}] * 4, 2))
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(rate)
