"""VolumeGAN: its volume, lookup, rendering, truncation and interface, and published arguments and files."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import conv3d, grid_sample, interpolate

from tests.tiny_systems import volumegan
from zoo.cli.command import main
from zoo.draws import SampleDraws
from zoo.layers.lookup import trilinear
from zoo.render import (
    FixedPoses,
    Quadrature,
    infinite_last_interval,
    last_sample,
    shifted_softplus,
    softplus,
    white,
    zero_last_interval,
)
from zoo.training.gan import GAN
from zoo.volumegan import convert as weights
from zoo.volumegan.extras import Unjittered, unit_intervals
from zoo.volumegan.field import StructuralVolume, upsampled_conv3d
from zoo.volumegan.model import Latent
from zoo.volumegan.training import VolumeGAN
from zoo.weights.bundle import build, load_bundle
from zoo.weights.convert import convert

CASES = Path(__file__).parent / "parity" / "cases" / "volumegan"


def tiny(**changes) -> VolumeGAN:
    """A tiny VolumeGAN, without growth."""
    config = volumegan()["model"]
    config["init_args"] |= {"growth": None} | changes
    return build(config, GAN)


def sample(gan: VolumeGAN, n: int = 2, **kwargs):
    generator, draws = gan.generator, SampleDraws(0, range(n))
    return generator.render(generator.map(generator.latents(n, draws)), generator.cameras(n, draws), **kwargs)


# The structural volume


def test_widths_of_the_volume_halve_down_to_the_last():
    volume = StructuralVolume(32, 4, 256, 32)
    assert [conv.out_channels for conv in volume.convs] == [256, 128, 64, 32]
    assert volume.style.out_features == 960
    assert sum(p.numel() for p in volume.parameters()) > 3e6
    assert StructuralVolume(4, 2, 4, 4, w_dim=8)(torch.randn(3, 8)).shape == (3, 4, 4, 4, 4)


def test_a_convolution_of_a_larger_volume_needs_only_the_smaller_one():
    x, weight = torch.randn(2, 3, 4, 5, 6, dtype=torch.double), torch.randn(7, 3, 3, 3, 3, dtype=torch.double)
    bias = torch.randn(7, dtype=torch.double)
    plain = conv3d(interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=1)
    torch.testing.assert_close(upsampled_conv3d(x, weight, bias), plain)


def test_lookup_interpolates_and_repeats_the_border():
    volume, points = torch.randn(2, 3, 4, 5, 6), torch.rand(2, 50, 3) * 3 - 1.5
    bounds = torch.tensor([[-1.0, -0.8, -0.6], [0.9, 1.0, 0.7]])
    grid = (points - bounds[0]) / (bounds[1] - bounds[0]) * 2 - 1
    expected = grid_sample(volume, grid[:, None, None], align_corners=True, padding_mode="border")[:, :, 0, 0].mT
    assert torch.allclose(trilinear(volume.movedim(1, -1).contiguous(), points, bounds), expected, atol=1e-5)


def test_lookup_can_be_differentiated_twice():
    volume = torch.randn(2, 3, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    points = (torch.rand(2, 4, 3, dtype=torch.float64) * 3 - 1.5).requires_grad_()
    bounds = torch.tensor([[-1.0, -0.8, -0.6], [0.9, 1.0, 0.7]]).double()
    assert gradcheck(trilinear, (volume, points, bounds)) and gradgradcheck(trilinear, (volume, points, bounds))


# Rendering


def test_generator_interface():
    gan = tiny()
    generator, draws = gan.generator, SampleDraws(3, range(2))
    latent, camera = generator.latents(2, draws), generator.cameras(2, draws)
    styles = generator.map(latent)
    rendered = generator.render(styles, camera, draws=draws)
    assert rendered.image.shape == (2, 3, 8, 8) and rendered.raw.shape == (2, 3, 4, 4)
    assert rendered.depth.shape == rendered.opacity.shape == (2, 1, 4, 4)
    assert torch.equal(generator(latent, camera, draws=draws).image, rendered.image)
    assert generator.render(styles, camera, resolution=4).image.shape[-1] == 4
    with pytest.raises(ValueError, match="renders images of side 4, 8, not 16"):
        generator.render(styles, camera, resolution=16)
    points = torch.rand(2, 10, 3) * 0.2 - 0.1
    assert generator.density(points, styles).shape == (2, 10, 1)
    assert (generator.density(points, styles) >= 0).all()
    latents, cameras = generator.turntable(latent, 3)
    assert len(latents.z) == len(cameras.pose) == 6 and torch.equal(latents.z[0], latents.z[2])
    assert generator.rays(camera, 5).directions.shape == (2, 25, 3)
    assert generator.prepare() is generator


def test_without_draws_nothing_is_random():
    gan = tiny()
    with torch.no_grad():
        for block in gan.generator.synthesis.blocks:
            block.up.noise.strength.fill_(1.0)
    draws = SampleDraws(0, range(2))
    first, again = sample(gan).image, sample(gan).image
    assert torch.equal(first, again)
    assert not torch.equal(sample(gan, draws=draws).image, first)


@pytest.mark.parametrize(
    ("part", "option", "message"),
    [("structure", "channels", "reads 4 features of a volume that has 5"), ("synthesis", "most_channels", "takes 5")],
)
def test_parts_that_do_not_fit_each_other_are_refused(part, option, message):
    config = volumegan()["model"]
    config["init_args"]["generator"]["init_args"][part]["init_args"][option] = 5
    with pytest.raises(ValueError, match=message):
        build(config, GAN)


@pytest.mark.parametrize("background", [white, last_sample])
def test_colours_of_composites_are_composites_of_colours(background):
    generator = tiny().generator
    generator.renderer.quadrature = Quadrature(intervals=zero_last_interval, background=background)
    with torch.no_grad():
        generator.field.colour.bias.normal_()
    draws = SampleDraws(0, range(2))
    styles, camera = generator.map(generator.latents(2, draws)), generator.cameras(2, draws)
    features, _, _ = generator.render_features(styles, camera, None)

    class Coloured(torch.nn.Module):
        def forward(self, samples, condition):
            raw, hidden = generator.field(samples, condition)
            return raw, generator.field.colour(hidden)

    rays = generator.rays(camera, 4)
    expected = generator.renderer(Coloured(), rays, generator.field.modulate(styles))
    assert expected.opacity.min() < 0.9
    assert torch.allclose(features.flatten(2).mT, expected.features, atol=1e-5)


def test_sampled_features_come_in_the_order_of_depths():
    generator = tiny().generator
    draws = SampleDraws(0, range(2))
    styles, camera = generator.map(generator.latents(2, draws)), generator.cameras(2, draws)
    found = generator.renderer(generator.field, generator.rays(camera, 4), generator.field.modulate(styles), draws)
    assert (found.samples.t.diff(dim=-1) >= 0).all()
    composite = torch.einsum("brs,brsc->brc", found.weights, found.sampled)
    assert torch.allclose(composite, found.features, atol=1e-5)


def test_truncation_moves_the_first_layers_only():
    generator = tiny().generator
    generator.mean_w.normal_()
    latent = Latent(torch.randn(2, 4))
    whole, half = generator.map(latent), generator.map(latent, truncation=0.5, layers=3)
    assert torch.allclose(half.w[:, :3], (whole.w[:, :3] + generator.mean_w) / 2)
    assert torch.equal(half.w[:, 3:], whole.w[:, 3:])
    everything = generator.map(latent, truncation=0.0)  # eight layers, and there are only six
    assert torch.allclose(everything.w, generator.mean_w.expand_as(everything.w))
    assert torch.allclose(everything.feature_volume[0], everything.feature_volume[1])


@pytest.mark.parametrize(("truncation", "layers"), [(0.5, 0), (1.5, None)])
def test_truncation_of_no_layers_or_above_one_does_nothing(truncation, layers):
    generator = tiny().generator
    generator.mean_w.normal_()
    latent = Latent(torch.randn(2, 4))
    assert torch.equal(generator.map(latent, truncation=truncation, layers=layers).w, generator.map(latent).w)


def test_gradients_reach_styles_and_camera():
    generator = tiny().generator
    draws = SampleDraws(0, range(2))
    styles, camera = generator.map(generator.latents(2, draws)), generator.cameras(2, draws)
    pose, w = camera.pose.clone().requires_grad_(), styles.w.detach().requires_grad_()
    image = generator.render(generator.styles(w), camera._replace(pose=pose)).image
    of_pose, of_w = torch.autograd.grad(image.square().sum(), (pose, w))
    assert of_pose.abs().sum() > 0
    # Layers 0 and 1 make the field and layers 3 to 5 the image, but the 2D network's first one is read by none.
    assert (of_w.abs().sum((0, 2)) > 0).tolist() == [True, True, False, True, True, True]


# Ways of rendering, and published arguments


def test_the_coarse_pass_can_have_a_density_of_its_own():
    config = weights.renderer_config({"num_steps": 4}, {"clamp_mode": "softplus"}, {"clamp_mode": "mipnerf"})
    renderer = build(config, torch.nn.Module)
    assert (renderer.coarse.density, renderer.quadrature.density) == (softplus, shifted_softplus)
    asked = []
    renderer.fine = lambda t, weights, draws: asked.append(weights) or t
    rays = tiny().generator.rays(FixedPoses()(2, None), 2)
    result = renderer(lambda samples, _: (samples.points[..., :1], samples.points), rays, None)
    samples = renderer.depths(rays, None)
    assert torch.equal(asked[0], Quadrature(softplus).weigh(samples.points[..., :1], samples))
    assert torch.equal(result.weights, Quadrature(shifted_softplus)(result.raw, result.samples).weights)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label_dim": 3}, "'label_dim' 3 has no counterpart"),
        ({"bg_cfg": {}}, "'bg_cfg'"),
        ({"vr_cfg": {"num_per_group": 4}}, "num_per_group"),
        ({"hs_cfg": {"clamp_mode": "exp"}}, "'exp' has no counterpart here: relu, softplus, mipnerf"),
        ({"fg_cfg": {"activation_type": "relu"}}, "'activation_type' 'relu' has no counterpart"),
        ({"embed_cfg": {"input_dim": 2}}, "'input_dim' 2"),
        ({"fv_cfg": {"w_dim": 256}}, "'w_dim' 256"),
        ({"noise_type": "channel"}, "'noise_type' 'channel'"),
        ({"out_dim": 256}, "'out_dim' 256 must be 512"),
        ({"depth": 3}, "'depth' 3 of the generator is unknown"),
        ({"ps_cfg": {"axis": "x"}}, "'axis' 'x' of the ps_cfg is unknown"),
        ({"vr_cfg": {"fill_mode": "weight"}}, "fill_mode"),
        ({"hs_cfg": {"render_mode": "sum"}}, "render_mode 'sum' has no counterpart here, only no_dist"),
        ({"normalize_z": False}, "'normalize_z' False"),
        ({"filter_kernel": [1, 2, 1]}, "'filter_kernel'"),
        ({"lr_mul": 0.5}, "'lr_mul' 0.5"),
    ],
)
def test_published_arguments_without_counterpart_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        weights.generator_config(given)


def test_published_arguments_become_options():
    config = weights.generator_config(
        {
            "resolution": 64,
            "nerf_res": 16,
            "fmaps_base": 512,
            "out_dim": 32,
            "conv_clamp": None,
            "final_tanh": True,
            "mapping_lr_mul": 0.1,
            "filter_kernel": [1, 3, 3, 1],
            "ps_cfg": {"perturb_mode": "none", "camera_dist": "uniform", "num_steps": 5},
            "vr_cfg": {"white_back": True, "render_mode": "no_dist"},
        }
    )
    generator = build(config, torch.nn.Module)
    assert generator.synthesis.start is not None and generator.synthesis.clamp is None  # the published class's defaults
    assert isinstance(generator.renderer.depths, Unjittered) and generator.renderer.quadrature.background is white
    assert generator.renderer.fine.samples == 5 and generator.mapping.layers[0].rate == 0.1
    assert (
        generator.renderer.quadrature.intervals is unit_intervals
        and generator.renderer.coarse.intervals is infinite_last_interval
    )
    assert type(generator.poses).__name__ == "UniformPoses"
    draws = SampleDraws(0, [0])
    image = generator.render(generator.map(generator.latents(1, draws)), generator.cameras(1, draws)).image
    assert image.shape == (1, 3, 64, 64) and image.abs().max() <= 1


def test_published_discriminators_become_options():
    given = {"resolution": 32, "init_res": 8, "fmaps_base": 256, "mbstd_groups": 0, "architecture": "origin"}
    discriminator = build(weights.discriminator_config(given, {}), torch.nn.Module)
    assert discriminator.sides == [32, 16, 8] and discriminator.clamp is None  # the published class's default
    assert discriminator.blocks[0].skip is None and discriminator(torch.randn(3, 3, 32, 32)).scores.shape == (3, 1)


def test_a_published_file_becomes_a_bundle(tmp_path, capsys):
    source = CASES / "checkpoint" / "checkpoint-000002.pth"
    assert main(["convert", str(source), str(tmp_path / "ema")]) == 0
    generator, info = load_bundle(tmp_path / "ema")
    assert info.card["system"] == "VolumeGAN" and info.card["images_seen"] == "8"
    raw = convert(source, tmp_path / "raw", weights="raw")[0].network
    assert not torch.equal(raw.mapping.layers[0].weight, generator.mapping.layers[0].weight)
    with pytest.raises(ValueError, match="no weights 'smooth': ema, raw, discriminator"):
        convert(source, tmp_path / "none", weights="smooth")


def test_published_experiments_have_the_published_size():
    config = yaml.safe_load((Path(__file__).parent.parent / "configs/volumegan/ffhq256.yaml").read_text())["model"]
    with torch.device("meta"):
        gan = build(config, GAN)
    generator = gan.generator
    assert sum(p.numel() for p in generator.parameters()) == 8_688_271
    structure_and_field = sum(p.numel() for part in (generator.structure, generator.field) for p in part.parameters())
    assert structure_and_field == 4_236_544
    assert sum(p.numel() for p in gan.discriminator.parameters()) == 28_875_393
    assert replace(gan.growth, levels=3) == gan.growth
