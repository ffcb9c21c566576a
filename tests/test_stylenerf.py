"""StyleNeRF: its fields, growth, NeRF path, training, published arguments and interface."""

import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor
from torch.nn.functional import interpolate

from tests.parity.replay import Replay
from tests.systems import NoiseData
from tests.tiny_systems import stylenerf
from zoo.cli.command import main
from zoo.draws import SampleDraws, TrainingDraws
from zoo.layers.upsampling import NearestConcat, PixelShuffle, neighbours
from zoo.render import white
from zoo.stylenerf import convert as weights
from zoo.stylenerf.field import ContractedSpacing, inverted_sphere_directions
from zoo.stylenerf.growing import Grown, Growth, grown
from zoo.stylenerf.model import Generator, Latent, path_pixels
from zoo.stylenerf.training import StyleNeRF, downsample_lanczos
from zoo.training.gan import GAN
from zoo.utils.paths import CONFIGS
from zoo.weights.bundle import build, load_bundle

CASES = Path(__file__).parent / "parity" / "cases" / "stylenerf"


def tiny(**changes) -> StyleNeRF:
    """A tiny StyleNeRF that is grown."""
    config = stylenerf()["model"]
    config["init_args"] |= {"growth": None, "augment": None} | changes
    return build(config, GAN)


def sample(gan: StyleNeRF, n: int = 2, **kwargs):
    generator, draws = gan.generator, SampleDraws(0, range(n))
    return generator.render(generator.map(generator.latents(n, draws)), generator.cameras(n, draws), **kwargs)


# Rendering


def test_generator_interface():
    generator, draws = tiny().generator, SampleDraws(3, range(2))
    latent, camera = generator.latents(2, draws), generator.cameras(2, draws)
    styles = generator.map(latent)
    rendered = generator.render(styles, camera, draws=draws)
    assert rendered.image.shape == (2, 3, 16, 16) and rendered.raw.shape == (2, 3, 8, 8)
    assert rendered.depth.shape == rendered.opacity.shape == (2, 1, 8, 8)
    assert torch.equal(generator(latent, camera, draws=draws).image, rendered.image)
    assert generator.render(styles, camera, resolution=8).image.shape[-1] == 8
    with pytest.raises(ValueError, match="renders images of side 8, 16, not 32"):
        generator.render(styles, camera, resolution=32)
    points = torch.rand(2, 10, 3) * 0.2 - 0.1
    assert generator.density(points, styles).shape == (2, 10, 1)
    assert (generator.density(points, styles) >= 0).all()
    latents, cameras = generator.turntable(latent, 3)
    assert len(latents.z) == len(latents.background) == len(cameras.pose) == 6
    assert torch.equal(latents.background[0], latents.background[2])
    assert generator.rays(camera, 5).directions.shape == (2, 25, 3)
    assert generator.prepare() is generator


def test_depth_is_a_distance_from_the_camera():
    generator = tiny().generator
    with torch.no_grad():
        generator.foreground.density.bias.fill_(1e4)  # opaque at the first sample that has a length
    rendered = sample(tiny_like(generator), resolution=8)
    directions = generator.rays(generator.cameras(2, SampleDraws(0, range(2))), 8).directions.norm(dim=-1)
    assert torch.allclose(rendered.depth.flatten(1), 0.88 * directions, atol=1e-4)
    assert torch.allclose(rendered.opacity, torch.ones_like(rendered.opacity))


def tiny_like(generator: Generator) -> StyleNeRF:
    gan = tiny()
    gan.generator.load_state_dict(generator.state_dict())
    return gan


def test_without_draws_nothing_is_random_and_nothing_moves():
    gan = tiny()
    gan.train()
    before = {name: tensor.clone() for name, tensor in gan.generator.state_dict().items()}
    assert torch.equal(sample(gan).image, sample(gan).image)
    assert not torch.equal(sample(gan, draws=SampleDraws(0, range(2))).image, sample(gan).image)
    assert all(torch.equal(before[name], tensor) for name, tensor in gan.generator.state_dict().items())


def test_chunks_change_nothing():
    gan = tiny()
    small = sample(gan, draws=SampleDraws(0, range(2))).image
    gan.generator.renderer.chunk = gan.generator.background.chunk = None
    assert torch.allclose(sample(gan, draws=SampleDraws(0, range(2))).image, small, atol=1e-5)


def test_the_background_is_seen_through_what_the_object_leaves():
    gan = tiny()
    generator = gan.generator
    latent, camera = Latent(torch.randn(2, 4), torch.randn(2, 3)), generator.cameras(2, None)
    other = latent._replace(background=torch.randn(2, 3))

    def shown(latent: Latent) -> Tensor:
        return generator.render(generator.map(latent), camera, resolution=8).image

    assert not torch.allclose(shown(latent), shown(other))
    with torch.no_grad():
        generator.foreground.density.bias.fill_(1e4)
    assert torch.allclose(shown(latent), shown(other), atol=1e-6)


def test_gradients_reach_styles_and_camera():
    generator = tiny().generator
    draws = SampleDraws(0, range(2))
    latent, camera = generator.latents(2, draws), generator.cameras(2, draws)
    pose, w = camera.pose.clone().requires_grad_(), generator.map(latent).w.detach().requires_grad_()
    image = generator.render(generator.styles(w, latent.background), camera._replace(pose=pose)).image
    of_pose, of_w = torch.autograd.grad(image.square().sum(), (pose, w))
    assert of_pose.abs().sum() > 0
    assert (of_w.abs().sum((0, 2)) > 0).all()


def test_points_outside_the_sphere_keep_their_rays():
    origins = torch.tensor([[[0.0, 0.0, 1.0]]])
    directions = torch.tensor([[[0.1, 0.05, -1.0]]])
    inverse = torch.tensor([[[1.0, 0.5, 1e-6]]])
    found = inverted_sphere_directions(origins, directions, inverse)[0, 0] / inverse[0, 0, :, None]
    along = (found[:2] - origins[0]) / directions[0]
    assert torch.allclose(along, along[:, :1].expand(-1, 3), rtol=1e-3)
    assert torch.allclose(found[:2].norm(dim=-1), torch.tensor([1.0, 2.0]), atol=1e-5)


def test_the_warped_world_lies_within_a_sphere_of_radius_two():
    spacing = ContractedSpacing(0.88, 3.2)
    t = torch.linspace(0, 1, 5)
    assert torch.allclose(spacing.distance(t)[[0, -1]], torch.tensor([0.88, 3.2]))
    assert torch.allclose((1 / spacing.distance(t)).diff(), (1 / spacing.distance(t)).diff()[0].expand(4))
    points = torch.tensor([[0.5, 0.0, 0.0], [0.0, 4.0, 0.0]])
    assert torch.allclose(spacing.contract(points), torch.tensor([[0.5, 0.0, 0.0], [0.0, 1.75, 0.0]]))


def test_truncation_moves_the_first_layers_only():
    generator = tiny().generator
    generator.mean_w.normal_()
    latent = Latent(torch.randn(2, 4), torch.randn(2, 3))
    whole, half = generator.map(latent), generator.map(latent, truncation=0.5, layers=3)
    assert torch.allclose(half.w[:, :3], (whole.w[:, :3] + generator.mean_w) / 2)
    assert torch.equal(half.w[:, 3:], whole.w[:, 3:])
    assert torch.allclose(generator.map(latent, truncation=0.0).w, generator.mean_w.expand_as(whole.w))
    assert torch.equal(generator.map(latent, truncation=0.0, layers=0).w, whole.w)


# Upsamplers


@pytest.mark.parametrize("kind", [PixelShuffle, NearestConcat])
def test_a_silent_adapter_leaves_repeated_pixels(kind):
    up, x = kind(8, blur=False), torch.randn(2, 8, 3, 5)
    torch.nn.init.zeros_(up.adapter.second.weight)
    assert torch.equal(up(x), interpolate(x, scale_factor=2, mode="nearest"))


def test_neighbours_of_quarters():
    x = torch.arange(9.0).view(1, 1, 3, 3)
    found = neighbours(x)[0, 0, 2:4, 2:4]  # of the middle pixel, 4: left 3, above 1, right 5, below 7
    assert found.tolist() == [[2.0, 3.0], [5.0, 6.0]]


# Growth


def test_growth_starts_at_the_lowest_level_and_fades():
    growth = Growth(500, 4500)
    assert [growth(n) for n in (0, 500, 2500, 4500, 9000)] == [0, 0, 0.5, 1, 1]
    found = [grown(torch.tensor(alpha), 32, 256) for alpha in (-1.0, 0.0, 0.1, 0.5, 0.999, 1.0)]
    assert [level.side for level in found] == [256, 32, 64, 128, 256, 256]
    assert [round(level.share, 2) for level in found] == [1, 1, 0.3, 0.5, 1.0, 1]
    assert grown(torch.tensor(0.3), None, 256) == Grown(256, 1.0)


def test_levels_that_have_not_grown_are_shown_enlarged():
    gan = tiny()
    low = sample(gan, resolution=8).image
    whole = sample(gan).image
    gan.generator.grow(0.0)
    assert torch.equal(sample(gan).image, interpolate(low, 16, mode="bilinear"))
    gan.generator.grow(0.25)
    expected = torch.lerp(interpolate(low, 16, mode="bilinear"), whole, 0.25)
    assert torch.allclose(sample(gan).image, expected, atol=1e-6)
    assert torch.equal(sample(gan, resolution=8).image, low)


def test_the_map_itself_can_grow():
    gan = tiny()
    gan.generator.start, gan.generator.feature_start = None, 4
    gan.generator.grow(0.5)
    assert sample(gan).raw.shape[-1] == 8 and sample(gan).depth.shape[-1] == 6
    gan.generator.grow(1.0)
    assert sample(gan).depth.shape[-1] == 8


def test_the_discriminator_fades_only_when_told_to():
    discriminator, images = tiny().discriminator, torch.randn(2, 3, 16, 16)
    whole, small = discriminator(images).scores, discriminator(interpolate(images, 8, mode="bilinear")).scores
    discriminator.alpha.fill_(0.0)
    assert torch.equal(discriminator(images).scores, small)
    discriminator.alpha.fill_(0.5)
    assert torch.equal(discriminator(images).scores, whole)
    discriminator.fades_in = True
    assert not torch.allclose(discriminator(images).scores, whole)
    discriminator.doubles = False
    discriminator.alpha.fill_(0.0)
    assert not torch.allclose(discriminator(images).scores, small)


def test_images_are_made_smaller_by_the_published_window():
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    assert downsample_lanczos(images, 16) is images
    assert torch.allclose(downsample_lanczos(torch.full_like(images, 1.0), 4), torch.ones(1, 3, 4, 4))
    line = torch.linspace(-0.8, 0.8, 16).expand(1, 3, 16, 16)
    small = downsample_lanczos(line, 8)
    assert torch.allclose(small[..., 2:-2], line.unfold(3, 2, 2).mean(-1)[:, :, ::2, 2:-2], atol=1 / 127)
    assert torch.allclose((small + 1) * 127.5, ((small + 1) * 127.5).round(), atol=1e-3)


# The NeRF path


def test_path_pixels_are_an_even_grid():
    index = path_pixels(torch.tensor([[0.0, 0.99], [0.5, 0.0]]), 2, 8)
    assert index.tolist() == [[24, 28, 56, 60], [2, 6, 34, 38]]
    with pytest.raises(ValueError, match="grid of 16 x 16 pixels does not fit into images of 8"):
        path_pixels(torch.zeros(1, 2), 16, 8)


def test_without_a_2d_network_the_path_is_the_image():
    """Where the image is the field's own map, compositing before or after makes no difference."""
    gan = tiny()
    generator, draws = gan.generator, TrainingDraws(0, 0)
    styles = generator.map(generator.latents(2, draws))
    still = {"path_pixels": torch.zeros(2, 2)}
    # Without jitter both sets of rays have the same samples: a replay of the middle of every cell
    for name, size in (("jitter", 4), ("importance", 4), ("background_jitter", 3)):
        still[name] = torch.full((2, 64 + 16, size), 0.5)
    made = generator.synthesise(
        styles, generator.cameras(2, None), Grown(8, 1.0), Replay(list(still.items())), path_side=4
    )
    assert made.path.loss(made.rendered.image).max() < 1e-9
    assert made.path.index.shape == (2, 16) and made.path.weights.shape == (2, 16, 11)
    assert torch.allclose(made.path.weights.sum(-1), torch.ones(2, 16), atol=1e-5)


def test_white_light_takes_part_in_the_path():
    gan = tiny()
    generator, draws = gan.generator, TrainingDraws(0, 0)
    generator.background, generator.renderer.quadrature.background = None, white
    generator.renderer.quadrature.density = lambda raw, points: raw.new_full(
        raw.shape, 0.2
    )  # light is left on every ray
    still = {"path_pixels": torch.zeros(2, 2), "jitter": torch.full((2, 64 + 16, 4), 0.5)}
    still["importance"] = still["jitter"]
    made = generator.synthesise(
        generator.map(generator.latents(2, draws)),
        generator.cameras(2, None),
        Grown(8, 1.0),
        Replay(list(still.items())),
        path_side=4,
    )
    assert made.path.weights[..., -1].min() > 0.1
    assert made.path.loss(made.rendered.image).max() < 1e-9


def test_the_path_needs_an_upsampler_that_can_be_left_out():
    config = stylenerf()["model"]
    config["init_args"]["generator"]["init_args"]["synthesis"]["init_args"]["upsampler"] = None
    gan = build(config, GAN)
    with pytest.raises(ValueError, match="choose one as the synthesis network's upsampler, or set path_side to 0"):
        gan.generate(2, Grown(16, 1.0), TrainingDraws(0, 0))


def test_what_is_left_out_of_a_files_arguments_is_said():
    given = {"z_dim": 8, "synthesis_kwargs": {"camera_kwargs": {"range_radius": [0.9, 1.1], "lens": 3}, "fancy": {}}}
    assert weights.notes(given) == [
        "its arguments fancy, lens are not known here and are left out",
        "its cameras' distances, 0.9 to 1.1, become their mean",
    ]
    kwargs = {"synthesis_kwargs": {"camera_kwargs": {"range_radius": [1.0, 1.0]}}}
    assert weights.notes(kwargs) == []


# Training


def fit(gan: StyleNeRF, folder: Path, steps: int) -> None:
    """So many iterations on noise."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", default_root_dir=folder, enable_model_summary=False, **quiet
    )
    trainer.fit(gan, NoiseData(resolution=16))
    assert trainer.global_step == gan.iterations == steps


def test_regularisers_are_lazy_and_running_means_move(tmp_path):
    gan, called = tiny(r1_every=3, path_every=2), []
    for name in ("loss_g", "loss_path", "loss_r1"):
        method = getattr(gan, name)

        def watched(*args, name: str = name, method=method):
            called.append((gan.iterations, name.removeprefix("loss_")))
            return method(*args)

        setattr(gan, name, watched)
    fit(gan, tmp_path, 4)
    expected = [(0, "g"), (0, "path"), (0, "r1"), (1, "g"), (2, "g"), (2, "path"), (3, "g"), (3, "r1")]
    assert called == expected
    assert gan.mean_path > 0 and gan.generator.mean_w.any()
    assert all(
        layer.magnitude != 1 for block in gan.generator.synthesis.blocks for layer in (block.first, block.second)
    )


def test_training_is_reproducible_and_changes_everything(tmp_path):
    one, two = (tiny(seed=1) for _ in range(2))
    two.load_state_dict(one.state_dict())
    before = {name: p.clone() for name, p in one.named_parameters()}
    fit(one, tmp_path, 2)
    fit(two, tmp_path, 2)
    for name, p in one.named_parameters():
        assert torch.equal(p, two.get_parameter(name)), name
        assert not torch.equal(p, before[name]), name


def test_growing_trains_on_smaller_images(tmp_path):
    gan, sides = tiny(), []
    gan.growth = Growth(4, 16)
    discriminator = gan.discriminate
    gan.discriminate = lambda images, draws: sides.append(images.shape[-1]) or discriminator(images, draws)
    fit(gan, tmp_path, 3)
    assert sides == [8] * 7 + [16] * 3  # R1 looks once more in the first iteration


def test_smaller_images_fix_the_level():
    gan = tiny()
    gan.growth = Growth(4, 16)
    assert gan.grow(16) == Grown(8, 1.0) and gan.discriminator.alpha == 0
    assert gan.grow(8) == Grown(8, 1.0) and gan.discriminator.alpha == 1
    gan.images_seen = 10
    assert gan.grow(8) == Grown(8, 1.0) and gan.grow(16) == Grown(16, 0.5)


def test_gradients_are_made_finite(tmp_path):
    gan = tiny(r1_weight=0.0, path_weight=0.0)
    parameter = gan.generator.foreground.density.bias
    parameter.register_hook(lambda gradient: gradient * torch.nan)
    fit(gan, tmp_path, 1)
    assert parameter.isfinite().all() and not gan.guard.skipped


def test_mixing_changes_later_layers_only():
    gan = tiny(mixing=0.9, mean_decay=0.5)
    z, other = torch.randn(2, 4), torch.randn(2, 4)
    for coin, cut, expected in ((0.95, 0.0, 7), (0.85, 0.0, 1), (0.85, 0.99, 6)):
        numbers = {"z": z, "mixing": torch.tensor(coin), "cut": torch.tensor(cut), "mixed_z": other}
        draws = Some(numbers)
        gan.generator.mean_w.zero_()
        _, w = gan.generate(2, Grown(16, 1.0), draws)
        first, second = gan.generator.mapping(z), gan.generator.mapping(other)
        for layer in range(7):
            assert torch.equal(w[:, layer], first if layer < expected else second)
        assert torch.allclose(gan.generator.mean_w, 0.5 * first.mean(0))


class Some(TrainingDraws):
    """Draws of which some are given."""

    def __init__(self, given: dict[str, Tensor]) -> None:
        super().__init__(0, 0)
        self.given = given

    def uniform(self, name: str, shape) -> Tensor:
        return self.given[name] if name in self.given else super().uniform(name, shape)

    def normal(self, name: str, shape) -> Tensor:
        return self.given[name] if name in self.given else super().normal(name, shape)

    def shared(self, name: str, shape) -> Tensor:
        return self.given[name] if name in self.given else super().shared(name, shape)


# Published arguments and files


@pytest.mark.parametrize(
    "mode, kind",
    [("nn_cat", "NearestConcat"), ("pixelshuffle_noblur", "PixelShuffle"), ("bilinear_ada", "Interpolate")],
)
def test_published_upsamplers(mode, kind):
    assert weights.upsampler_config(mode)["upsampler"]["class_path"].endswith(kind)


def test_unknown_published_arguments_are_refused():
    with pytest.raises(ValueError, match="upsample_mode 'sinc' has no counterpart"):
        weights.upsampler_config("sinc")
    with pytest.raises(ValueError, match="'architecture' 'resnet' has no counterpart"):
        weights.discriminator_config({"architecture": "resnet", "img_resolution": 32})
    given = json.loads((CASES / "render" / "case.json").read_text())["config"]["generator"]
    given["synthesis_kwargs"]["camera_kwargs"]["ray_align_corner"] = True
    with pytest.raises(ValueError, match="'ray_align_corner' True has no counterpart"):
        weights.generator_config(given)


def test_a_published_file_becomes_a_bundle(tmp_path):
    file = CASES / "checkpoint" / "network-snapshot-000000.pkl"
    assert main(["convert", str(file), str(tmp_path / "bundle")]) == 0
    grid = tmp_path / "grid.png"
    assert main(["sample", str(tmp_path / "bundle"), "--out", str(grid), "--seeds", "0", "--views", "1"]) == 0
    assert grid.stat().st_size > 1000
    generator, info = load_bundle(tmp_path / "bundle")
    assert isinstance(generator, Generator) and info.card["system"] == "StyleNeRF"
    draws = SampleDraws(0, range(1))
    styles = generator.map(generator.latents(1, draws), truncation=0.7)
    assert generator.render(styles, generator.cameras(1, draws)).image.shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    "name, millions",
    [
        ("ffhq256", 5.265),
        ("ffhq512", 5.412),
        ("ffhq1024", 5.482),
        ("ffhq512_released", 5.589),
        ("ffhq1024_released", 10.189),
    ],
)
def test_full_sizes_are_the_published_ones(name, millions):
    config = yaml.safe_load((CONFIGS / "stylenerf" / f"{name}.yaml").read_text())["model"]
    with torch.device("meta"):
        gan = build(config, GAN)
    assert sum(p.numel() for p in gan.generator.parameters()) / 1e6 == pytest.approx(millions, abs=6e-4)
    expected = {256: 23.052, 512: 27.774, 1024: 27.802}[gan.generator.resolution]
    assert sum(p.numel() for p in gan.discriminator.parameters()) / 1e6 == pytest.approx(expected, abs=6e-4)
