"""VolumeGAN's training: growth, lazy regularisers, path lengths, mixing, steps that can be repeated."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

import zoo.training.stylegan2
from tests.parity.replay import Replay
from tests.systems import NoiseData
from tests.test_volumegan import sample, tiny
from zoo.draws import TrainingDraws
from zoo.layers import is_plain
from zoo.layers.stylegan2 import GAIN, activate
from zoo.losses import path_lengths
from zoo.render import FixedPoses
from zoo.volumegan.discriminator import Discriminator
from zoo.volumegan.field import StructuralVolume
from zoo.volumegan.synthesis import SynthesisNetwork
from zoo.volumegan.training import Growth, VolumeGAN

# Growth


def test_growth_holds_and_fades():
    growth = Growth(levels=3, hold=750_000, fade=750_000)
    seen = [0, 750_000, 1_125_000, 1_500_000, 2_250_000, 3_000_000, 4_125_000, 4_500_000, 25_000_000]
    assert [growth(n) for n in seen] == [3, 3, 2.5, 2, 2, 1, 0.5, 0, 0]


def test_levels_that_are_left_out_are_shown_enlarged_and_fade_in():
    gan = tiny()
    whole, small = sample(gan).image, sample(gan, resolution=4).image
    enlarged = interpolate(small, scale_factor=2, mode="nearest")
    gan.generator.lod.fill_(1.0)
    assert torch.equal(sample(gan).image, enlarged)
    gan.generator.lod.fill_(0.3)
    assert torch.allclose(sample(gan).image, 0.7 * whole + 0.3 * enlarged, atol=1e-6)
    assert torch.equal(sample(gan, resolution=4).image, small)


def test_images_enter_the_discriminator_at_the_level_of_detail():
    discriminator, images = Discriminator(16, 64, groups=2), torch.randn(4, 3, 16, 16)
    discriminator.lod.fill_(1.0)
    small = avg_pool2d(images, 2)
    assert torch.allclose(discriminator(images).scores, discriminator(small).scores, atol=1e-6)
    discriminator.lod.fill_(0.999)
    assert not torch.equal(discriminator(images).scores, discriminator(small).scores)
    assert torch.allclose(discriminator(images).scores, discriminator(small).scores, atol=1e-2)
    with pytest.raises(ValueError, match="takes images of side 16, 8, 4, not 2"):
        discriminator(images[..., :2, :2])


def test_images_may_fade_in_at_the_last_level():
    discriminator, images = Discriminator(8, 64, groups=0, last=4), torch.randn(3, 3, 8, 8)
    small = avg_pool2d(images, 2)
    entered, finer = activate(discriminator.from_rgb[1](small, GAIN)), discriminator.features(images)
    discriminator.lod.fill_(0.25)
    assert torch.allclose(discriminator.features(images), 0.75 * finer + 0.25 * entered, atol=1e-5)
    discriminator.lod.fill_(1.0)
    assert torch.allclose(discriminator.features(images), entered, atol=1e-6)
    assert torch.allclose(discriminator(images).scores, discriminator(small).scores, atol=1e-6)
    discriminator.lod.fill_(2.0)
    with pytest.raises(ValueError, match="lod is 2"):
        discriminator.features(images)


def test_a_discriminator_without_groups_scores_each_image_alone():
    discriminator, images = Discriminator(8, 64, groups=0), torch.randn(3, 3, 8, 8)
    alone = torch.cat([discriminator(image[None]).scores for image in images])
    assert torch.allclose(discriminator(images).scores, alone, atol=1e-5)
    compared = Discriminator(8, 64, groups=4)
    assert not torch.allclose(compared(images).scores[:1], compared(images[:1]).scores, atol=1e-3)


@pytest.mark.parametrize(
    ("part", "sizes"),
    [(StructuralVolume, (24, 4)), (SynthesisNetwork, (8, 24)), (Discriminator, (24,)), (SynthesisNetwork, (8, 4))],
)
def test_sizes_that_doubling_misses_are_refused(part, sizes):
    with pytest.raises(ValueError, match="doubled any number of times, not"):
        part(*sizes)


def test_r1_takes_no_way_that_rounds_more():
    gan, seen = tiny(), []
    gan.discriminator.register_forward_hook(lambda *_: seen.append(is_plain()))
    gan.loss_r1(torch.randn(2, 3, 8, 8))
    assert seen == [True] and not is_plain()


def test_optimizers_forget_when_a_level_comes_or_has_come(tmp_path):
    gan = tiny(growth=None)
    gan.growth = Growth(levels=1, hold=8, fade=16, every=1)
    cleared = []
    before = gan.grow

    def grow(resolution: int) -> None:
        sizes = [len(o.optimizer.state) for o in gan.optimizers()]
        before(resolution)
        emptied = [len(o.optimizer.state) == 0 for o in gan.optimizers()]
        cleared.append((gan.generator.lod.item(), all(emptied) and all(sizes)))

    gan.grow = grow
    fit(gan, tmp_path, 8)
    # batches of 4: the fade goes from 8 to 24 images, and starts when the level is first below 1
    assert [lod for lod, _ in cleared] == [1, 1, 1, 0.75, 0.5, 0.25, 0, 0]
    assert [was for _, was in cleared] == [False, False, False, True, False, False, True, False]
    assert gan.discriminator.lod == 0


def test_smaller_batches_fix_the_level(tmp_path):
    gan = tiny(growth=None)
    gan.growth = Growth(levels=1)
    fit(gan, tmp_path, 1, resolution=4)
    assert gan.generator.lod == 1 and gan.discriminator.lod == 1


# Training


def fit(gan: VolumeGAN, folder: Path, steps: int, resolution: int = 8) -> None:
    """So many iterations on noise."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", default_root_dir=folder, enable_model_summary=False, **quiet
    )
    data = NoiseData(stages={0: {"resolution": resolution}})
    trainer.fit(gan, data)
    assert trainer.global_step == gan.iterations == steps


def test_regularisers_are_lazy(tmp_path):
    gan, called = tiny(r1_every=3, path_every=2), []
    for name in ("loss_g", "loss_path", "loss_r1"):
        method = getattr(gan, name)

        def watched(*args, name: str = name, method=method) -> Tensor:
            called.append((gan.iterations, name.removeprefix("loss_")))
            return method(*args)

        setattr(gan, name, watched)
    fit(gan, tmp_path, 4)
    expected = [(0, "g"), (0, "path"), (0, "r1"), (1, "g"), (2, "g"), (2, "path"), (3, "g"), (3, "r1")]
    assert called == expected
    assert gan.mean_path > 0 and gan.generator.mean_w.any()


def test_a_step_without_a_gradient_still_ages_adam(tmp_path):
    gan = tiny(r1_every=100, path_every=1)
    fit(gan, tmp_path, 1)
    steps = {name: gan.trainer.optimizers[0].state[p]["step"] for name, p in gan.generator.named_parameters()}
    assert steps["synthesis.blocks.0.rgb.bias"] == 2  # the path penalty does not depend on it


def test_gradients_are_made_finite(tmp_path):
    gan = tiny(r1_weight=0.0, path_weight=0.0)
    parameter = gan.generator.field.density.bias
    parameter.register_hook(lambda gradient: gradient * torch.nan)
    other = gan.generator.field.colour.bias
    other.register_hook(lambda gradient: gradient + 1e9)
    fit(gan, tmp_path, 1)
    assert parameter.isfinite().all()
    moments = gan.trainer.optimizers[0].state[other]["exp_avg_sq"]
    assert torch.allclose(moments, torch.full_like(moments, 0.01 * 1e10))


def test_path_lengths_are_those_of_finite_steps():
    w = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    matrix = torch.randn(12, 3 * 4 * 4, dtype=torch.float64)
    images = (w.flatten(1) @ matrix).unflatten(1, (3, 4, 4))
    noise = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    moved = (noise.flatten(1) / 4) @ matrix.mT
    expected = moved.unflatten(1, (3, 4)).square().sum(2).mean(1).sqrt()
    assert torch.allclose(path_lengths(images, w, noise), expected)


def test_the_path_penalty_follows_its_mean():
    gan = tiny(path_decay=0.25, path_every=3, path_weight=5.0)
    gan.mean_path.fill_(0.5)
    lengths = []
    before = path_lengths
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo.training.stylegan2, "path_lengths", lambda *a: lengths.append(before(*a)) or lengths[-1])
        loss = gan.loss_path(4, 8, TrainingDraws(0, 0))
    assert torch.allclose(gan.mean_path, 0.75 * 0.5 + 0.25 * lengths[0].mean())
    assert torch.allclose(loss, 15 * (lengths[0] - gan.mean_path).square().mean())
    loss.backward()
    assert gan.generator.mapping.layers[0].weight.grad.abs().sum() > 0


def test_mixing_changes_later_layers_of_the_2d_network_only():
    gan = tiny(mixing=0.9, mean_decay=0.5)
    gan.generator.poses = FixedPoses(fov_deg=12.0)
    z, other = torch.randn(2, 4), torch.randn(2, 4)
    quiet = {"jitter": torch.rand(2, 16, 4), "importance": torch.rand(2, 16, 4)}
    for coin, cut, expected in ((0.95, 0.0, 6), (0.85, 0.0, 2), (0.85, 0.3, 3), (0.0, 0.99, 5)):
        numbers = {"z": z, "mixing": torch.tensor(coin), "cut": torch.tensor(cut), "mixed_z": other, **quiet}
        numbers |= {f"noise{i}": torch.randn(2, 1, 8, 8) for i in (1, 2)}
        gan.generator.mean_w.zero_()
        _, w = gan.generate(2, 8, Replay(list(numbers.items())))
        first, second = gan.generator.mapping(z), gan.generator.mapping(other)
        for layer in range(6):
            assert torch.equal(w[:, layer], first if layer < expected else second)
        assert torch.allclose(gan.generator.mean_w, 0.5 * first.mean(0))


def test_training_is_reproducible_and_changes_everything(tmp_path):
    one, two = (tiny(seed=1) for _ in range(2))
    two.load_state_dict(one.state_dict())
    before = {name: p.clone() for name, p in one.named_parameters()}
    fit(one, tmp_path, 2)
    fit(two, tmp_path, 2)
    for name, p in one.named_parameters():
        assert torch.equal(p, two.get_parameter(name)), name
        never_read = name.startswith(("discriminator.from_rgb.1", "discriminator.from_rgb.2"))  # images enter before
        assert torch.equal(p, before[name]) == never_read, name
