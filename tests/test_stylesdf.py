"""StyleSDF's networks: sizes, field, renderer, truncation, decoder and discriminators."""

import copy

import pytest
import torch

from tests.systems import SYSTEMS
from zoo.draws import SampleDraws
from zoo.render import (
    FixedPoses,
    Quadrature,
    Rays,
    Samples,
    black,
    infinite_last_interval,
    last_sample,
    look_at,
    softplus,
)
from zoo.stylesdf.decoder import Decoder
from zoo.stylesdf.discriminator import ImageDiscriminator, PoseDiscriminator, StagedDiscriminator
from zoo.stylesdf.extras import published_pose
from zoo.stylesdf.field import OffsetDepths, SigmoidDensity
from zoo.stylesdf.model import Generator
from zoo.stylesdf.training import StyleSDF, pose_of
from zoo.utils.errors import UserError
from zoo.utils.paths import read_experiment
from zoo.weights.bundle import build


def generator(**changed) -> Generator:
    torch.manual_seed(0)
    config = copy.deepcopy(SYSTEMS["stylesdf"]()["model"]["init_args"]["generator"])
    return build(config | {"init_args": config["init_args"] | changed}, Generator)


# Sizes


@pytest.mark.parametrize(
    ("experiment", "decoder", "discriminator"),
    [
        ("ffhq256", 5_760_910, 28_864_129),
        ("ffhq512", 6_003_283, 28_982_849),
        ("afhq512", 6_003_283, 28_982_849),
        ("ffhq1024", 6_096_824, 29_012_513),
    ],
)
def test_experiments_have_the_published_sizes(experiment, decoder, discriminator):
    """The published layers also have biases that nothing reads."""
    with torch.device("meta"):
        model = build(read_experiment(f"stylesdf/{experiment}")["model"], StyleSDF)
    made, judges = model.generator, model.discriminator
    unread = made.decoder.layer.conv.bias.numel()
    unread += sum(2 * block.second.conv.bias.numel() for block in made.decoder.blocks)

    def numbers(*parts: torch.nn.Module) -> int:
        return sum(p.numel() for part in parts for p in part.parameters())

    assert numbers(made.mapping, made.field, made.renderer) == 1_910_789
    assert numbers(made.decoder) + unread == decoder
    assert (numbers(judges.volume), numbers(judges.image)) == (12_098_003, discriminator)


# Field and renderer


def test_offset_depths_share_a_shift_along_each_ray():
    rays = Rays(torch.zeros(2, 5, 3), torch.ones(2, 5, 3))
    depths = OffsetDepths(1.0, 2.0, 4)
    assert torch.allclose(depths(rays, None).t[0, 0], torch.tensor([1.0, 1.25, 1.5, 1.75]))
    t = depths(rays, SampleDraws(0, [0, 1])).t
    shift = t - depths(rays, None).t
    assert torch.allclose(shift, shift[..., :1].expand_as(shift), atol=1e-6)
    assert shift.min() >= 0 and shift.max() < 0.25 and shift[..., 0].unique().numel() == 10


@pytest.mark.parametrize(("view", "same"), [("world", False), ("camera", True)])
def test_directions_of_the_camera_look_the_same_from_all_sides(view, same):
    field = generator().field
    field.evaluation_view = view
    w, points = torch.randn(2, 4), torch.rand(2, 3, 4, 3) - 0.5
    at = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    colours = []
    for eye in at:
        pose = look_at(eye.expand(2, 3))
        local = torch.tensor([[0.1, 0.2, -1.0]]).expand(2, 3, 3)
        samples = Samples(eye.expand(2, 3, 3), local @ pose[:, :3, :3].mT, torch.ones(2, 3, 4), points)
        colours.append(field.eval()(samples, field.condition(w, pose))[1])
    assert torch.allclose(*colours, atol=1e-5) == same


def test_training_and_evaluation_have_their_own_views():
    field = generator().field
    pose = look_at(torch.tensor([[0.0, 0.0, 1.0]]))
    assert field.condition(torch.randn(1, 4), pose).rotation is None  # published: trained in the world
    assert field.eval().condition(torch.randn(1, 4), pose).rotation is not None  # but shown in the camera's frame


def test_signed_distances_are_what_is_rendered():
    made = generator()
    styles = made.map(made.latents(2, SampleDraws(0, [0, 1])))
    seen = made.integrate(styles, FixedPoses()(2, None), 4, None)
    found = made.signed_distance(seen.samples.points.flatten(1, 2), styles)
    assert torch.allclose(found.view_as(seen.raw), seen.raw, atol=1e-6)
    made.renderer.quadrature = Quadrature(softplus)
    with pytest.raises(UserError, match="renders densities, not distances"):
        made.signed_distance(torch.zeros(2, 1, 3), styles)


def test_depth_is_a_distance():
    made = generator().eval()
    made.field.distance.weight.data.zero_()
    made.field.distance.bias.data.fill_(-1.0)
    made.renderer.quadrature.density.beta.data.fill_(1e-3)  # solid: every ray ends at its first sample
    rendered = made.render(made.map(made.latents(1, SampleDraws(0, [0]))), FixedPoses()(1, None))
    directions = made.rays(FixedPoses()(1, None), 8).directions
    assert torch.allclose(rendered.depth.flatten(), 0.88 * directions.norm(dim=-1).flatten(), atol=1e-4)


@pytest.mark.parametrize("background", [black, last_sample])
def test_what_the_last_sample_takes_is_not_opaque(background):
    """It has an interval without end, which no density is too small for."""
    made = generator().eval()
    made.field.distance.weight.data.zero_()
    made.field.distance.bias.data.fill_(0.05)  # empty, as far from a surface as half of an object is wide
    made.renderer.quadrature = Quadrature(SigmoidDensity(0.003), infinite_last_interval, background)
    styles, camera = made.map(made.latents(1, SampleDraws(0, [0]))), FixedPoses()(1, None)
    assert made.integrate(styles, camera, 8, None).weights[..., -1].min() > 0.99
    rendered = made.render(styles, camera)
    assert rendered.opacity.max() < 1e-3 and rendered.depth.isnan().all()


def test_cameras_are_the_published_ones_but_at_the_poles():
    azimuth, elevation = torch.tensor([[0.3], [-1.2]]), torch.tensor([[0.1], [-0.4]])
    pose = published_pose(azimuth, elevation)
    assert torch.allclose(pose, look_at(pose[:, :3, 3]), atol=1e-6)
    assert torch.allclose(
        pose_of(FixedPoses()(2, None)._replace(pose=pose)), torch.cat([azimuth, elevation], 1), atol=1e-6
    )


# Truncation


def test_latents_of_the_decoder_are_truncated_twice_or_once():
    twice, once = generator(), generator(truncates_twice=False)
    latents = twice.latents(2, SampleDraws(0, [0, 1]))
    mean_w, mean_latent = twice.means()
    w, whole = twice.mapping(latents.z), twice.map(latents)
    for made in (twice, once):
        assert torch.allclose(made.map(latents, truncation=0.5).w, (mean_w + w) / 2, atol=1e-6)
    expected = (mean_latent + whole.latents) / 2
    assert torch.allclose(once.map(latents, truncation=0.5).latents, expected, atol=1e-6)
    expected = (mean_latent + twice.decoder.latents((mean_w + w) / 2)) / 2
    assert torch.allclose(twice.map(latents, truncation=0.5).latents, expected, atol=1e-6)
    assert not torch.allclose(twice.map(latents, truncation=0.5).latents, once.map(latents, truncation=0.5).latents)


def test_means_are_stored():
    made = generator()
    mean_w, mean_latent = made.means()
    assert made.mean_w.isnan().all() and torch.equal(made.prepare().mean_w, mean_w)
    assert torch.equal(made.decoder.mean_latent, mean_latent)
    made.mapping.layers[0].weight.data.zero_()
    assert torch.equal(made.means()[0], mean_w)


# Decoder


def test_images_are_rendered_ones_until_the_decoder_is_trained():
    made = generator().eval()
    styles, camera = made.map(made.latents(2, SampleDraws(0, [0, 1]))), FixedPoses()(2, None)
    decoded = made.render(styles, camera)
    made.decoder.trained.fill_(0)
    enlarged = made.render(styles, camera)
    assert torch.equal(decoded.raw, enlarged.raw) and decoded.image.shape == enlarged.image.shape == (2, 3, 16, 16)
    assert torch.equal(enlarged.image, torch.nn.functional.interpolate(enlarged.raw, 16, mode="bilinear"))
    assert not torch.allclose(decoded.image, enlarged.image)


def test_a_decoder_that_does_not_fit_is_refused():
    made = generator()
    with pytest.raises(UserError, match="6 features and 4 numbers of w, but the decoder takes 5 and 256"):
        Generator(made.field, made.renderer, made.poses, Decoder({8: 4, 16: 4}, feature_dim=5))
    with pytest.raises(UserError, match="give each twice that before it"):
        Decoder({8: 4, 12: 4})


def test_other_sides_are_for_the_first_stage_alone():
    made = generator()
    styles, camera = made.map(made.latents(1, SampleDraws(0, [0]))), FixedPoses()(1, None)
    with pytest.raises(UserError, match="makes images of side 16, not 8"):
        made.render(styles, camera, resolution=8)
    alone = generator(decoder=None)
    styles = alone.map(alone.latents(1, SampleDraws(0, [0])))
    assert styles.latents is None and [*alone.free_parameters(styles)] == ["w"]
    assert alone.render(styles, camera, resolution=5).image.shape == (1, 3, 5, 5)


# Discriminators


@pytest.mark.parametrize(("batch", "group"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 3), (7, 7), (8, 4), (10, 2)])
def test_any_batch_has_groups(batch, group):
    network = ImageDiscriminator({8: 4, 4: 4})
    assert network.group(batch) == group
    assert network(torch.randn(batch, 3, 8, 8)).scores.shape == (batch, 1)


def test_images_find_their_discriminator():
    both = StagedDiscriminator(PoseDiscriminator([4, 4, 4]), ImageDiscriminator({16: 4, 8: 4, 4: 4}))
    assert both(torch.zeros(4, 3, 8, 8)).camera.shape == (4, 2)
    assert both(torch.zeros(4, 3, 16, 16)).camera is None
    with pytest.raises(UserError, match="take images of side 8 and 16, not 32"):
        both(torch.zeros(4, 3, 32, 32))
    with pytest.raises(UserError, match="has no discriminator"):
        StagedDiscriminator()
