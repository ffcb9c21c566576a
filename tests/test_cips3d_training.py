"""CIPS-3D's training: discriminator and augmentation, stages, R1, samples by stage, a step at 512 x 512."""

import copy
import math
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tests.test_cips3d import build_generator, state
from tests.tiny import NoiseImages
from zoo.cips3d.discriminator import Discriminator, Tower
from zoo.cips3d.model import Generator
from zoo.cips3d.training import CIPS3D, Stage
from zoo.draws import SampleDraws, TrainingDraws
from zoo.layers.diffaugment import cutout, cutout_side, diffaugment, largest_shift, translation
from zoo.render import JitteredUniform, VolumeRenderer
from zoo.training.ema import EMA
from zoo.utils.paths import read_experiment


def build_gan(cls: type[CIPS3D] = CIPS3D, **kwargs) -> CIPS3D:
    adam = partial(torch.optim.Adam, lr=1e-2, betas=(0.0, 0.99))
    towers = Tower([8, 6, 4]), Tower([6, 4, 4], shrink_first=True)
    kwargs = {"emas": {"slow": EMA(0.5)}} | kwargs
    return cls(build_generator(), Discriminator(*towers), adam, adam, **kwargs)


def train(gan: CIPS3D, steps: int, folder: Path, data: Dataset | None = None) -> CIPS3D:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    where = {"accelerator": "cpu", "default_root_dir": folder, "enable_model_summary": False}
    pl.Trainer(max_steps=steps, **where, **quiet).fit(gan, DataLoader(data or NoiseImages(8, 40, None), 4))
    return gan


# Discriminator


def test_a_size_that_no_level_takes_is_named() -> None:
    tower = Tower([4, 4, 4])
    with pytest.raises(ValueError, match="side 4, 8, 16, not 12"):
        tower(torch.zeros(1, 3, 12, 12))
    with pytest.raises(ValueError, match="group of 2 or more"):
        Tower([4, 4], group=1)


def test_augmentation_is_not_clamped_and_can_be_differentiated_twice() -> None:
    images = (torch.rand(2, 3, 8, 8, dtype=torch.double) * 2 - 1).requires_grad_()
    function = lambda x: diffaugment(x, SampleDraws(0, [1, 2]))  # noqa: E731
    assert function(3 * images).abs().max() > 1
    assert torch.autograd.gradcheck(function, images) and torch.autograd.gradgradcheck(
        lambda x: function(x) ** 2, images
    )


def test_augmentation_moves_and_cuts_as_told() -> None:
    images = torch.arange(1.0, 65.0).view(1, 1, 8, 8)
    moved = translation(images, torch.tensor([1]), torch.tensor([-2]))
    assert torch.equal(moved[0, 0, :7, 2:], images[0, 0, 1:, :6])
    assert not moved[0, 0, 7].any() and not moved[0, 0, :, :2].any()
    assert (largest_shift(20), cutout_side(64)) == (3, 13)  # rounded, not cut off
    cut = cutout(images, torch.tensor([8]), torch.tensor([0]), 4)  # over a corner: a quarter remains in the image
    assert not cut[0, 0, 6:, :2].any() and int((cut == 0).sum()) == 4


# Training


class Recorded(CIPS3D):
    """Remembers what each iteration was like."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[dict] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        before = state(self.generator)
        averaged = state(self.sampler)
        optimizer = self.optimizers()[0].optimizer
        super().training_step(batch, batch_idx)
        moved = {
            name.split(".")[0] for name, p in self.generator.named_parameters() if not torch.equal(p, before[name])
        }
        follows = any(not torch.equal(p, averaged[name]) for name, p in self.sampler.named_parameters())
        steps = {int(entry["step"]) for entry in optimizer.state.values()}
        learning_rate = optimizer.param_groups[0]["lr"]
        self.seen.append({"moved": moved, "follows": follows, "steps": max(steps), "lr": learning_rate})


STAGES = [
    Stage(start=0, lr_g=1e-2, ema_start=1, noise_iterations=4),
    Stage(
        start=2,
        lr_g=1e-3,
        auxiliary_every=0,
        fade_iterations=4,
        noise_iterations=0,
        augment=diffaugment,
        frozen=("field", "mapping.shape", "auxiliary"),
        ema_start=2,
    ),
]


def test_stages(tmp_path) -> None:
    gan = train(build_gan(Recorded, stages=STAGES), 2, tmp_path)
    first = copy.deepcopy(gan.sampler)
    assert (gan.alpha, gan.density_noise, gan.auxiliary) == (0.0, 0.0, False)  # of iteration 2
    assert [seen["follows"] for seen in gan.seen] == [False, True] and [seen["steps"] for seen in gan.seen] == [1, 2]
    assert gan.seen[0]["moved"] == {"field", "mapping", "inr", "auxiliary"}

    torch.manual_seed(0)
    gan = train(build_gan(Recorded, stages=STAGES), 5, tmp_path)
    assert [seen["steps"] for seen in gan.seen] == [1, 2, 1, 2, 3]  # optimizers start anew
    assert [seen["lr"] for seen in gan.seen] == [1e-2, 1e-2, 1e-3, 1e-3, 1e-3]
    assert [seen["follows"] for seen in gan.seen] == [False, True, False, False, True]
    assert gan.seen[3]["moved"] == {"inr", "mapping"}
    for part in ("field", "mapping.shape", "auxiliary"):  # they froze as the EMA had them
        frozen, averaged = gan.generator.get_submodule(part), first.get_submodule(part)
        assert all(torch.equal(a, b) for a, b in zip(frozen.parameters(), averaged.parameters(), strict=True)), part
    assert gan.alpha == 0.75


def test_what_the_schedules_say() -> None:
    gan = build_gan(stages=[Stage(noise_iterations=10, auxiliary_every=2)])
    gan.iterations = 5
    assert math.isclose(gan.density_noise, 0.5) and not gan.auxiliary and gan.alpha == 1
    gan.iterations = 12
    assert gan.density_noise == 0 and gan.auxiliary


def test_slices_of_a_batch_add_up(tmp_path) -> None:
    gan = build_gan(stages=[Stage(batch_split=2)])
    real, asked = torch.zeros(4, 3, 8, 8), []
    gan.generator.field.register_forward_hook(lambda _, inputs, __: asked.append(len(inputs[0].t)))
    fake = gan.fakes(real, TrainingDraws(0, 0))
    assert fake.shape == (8, 3, 8, 8) and set(asked) == {2}
    draws = TrainingDraws(0, 0)
    pairs = [gan.generate(latent, real, draws) for latent in gan.slices(real, draws)]
    assert torch.equal(fake, torch.cat([pairs[0][0], pairs[1][0], pairs[0][1], pairs[1][1]]))  # towers take halves

    seen = []
    gan.loss_g = lambda fake, draws: seen.append(fake) or {"fake": fake.mean()}
    train(gan, 1, tmp_path)
    assert [len(fake) for fake in seen] == [4, 4]


def test_r1_is_paid_when_it_is_due() -> None:
    gan = build_gan(r1_every=3)
    real = torch.rand(2, 3, 8, 8)
    draws = TrainingDraws(0, 0)
    assert set(gan.loss_real(real, draws)) == {"real", "r1"}
    once = gan.loss_real(real, draws)["r1"]
    gan.r1_every = 1
    assert torch.allclose(once, 3 * gan.loss_real(real, draws)["r1"])
    gan.r1_every, gan.iterations = 3, 1
    assert set(gan.loss_real(real, draws)) == {"real"}


def test_r1_is_of_the_towers_that_take_part() -> None:
    gan = build_gan(stages=[Stage(auxiliary_every=2)])
    towers = gan.discriminator.main, gan.discriminator.auxiliary
    for iteration in (0, 1):
        gan.iterations = iteration
        found = torch.autograd.grad(
            gan.loss_real(torch.rand(2, 3, 8, 8), TrainingDraws(0, 0))["r1"],
            [tower.dense.weight for tower in towers],
            allow_unused=True,
        )
        assert [gradient is not None for gradient in found] == [True, iteration == 0]


@pytest.mark.parametrize(
    ("stages", "message"),
    [([Stage(start=3)], "must start at 0"), ([Stage(frozen=("feild",))], "no parts to freeze named feild")],
)
def test_bad_stages(stages, message) -> None:
    with pytest.raises(ValueError, match=message):
        build_gan(stages=stages)


# Samples by stage


def test_a_stage_has_samples_of_its_own() -> None:
    asked = []
    generator = build_generator()
    generator.field.register_forward_hook(lambda _, inputs, __: asked.append(inputs[0].t.shape[-1]))
    gan = build_gan(stages=[Stage(), Stage(start=1, samples=7)])
    gan.generator = generator
    for iteration, expected in ((0, {4}), (1, {7})):
        gan.iterations = iteration
        asked.clear()
        gan.fakes(torch.zeros(2, 3, 4, 4), TrainingDraws(0, iteration, 0))
        assert set(asked) == expected
    assert generator.renderer.depths.samples == generator.renderer.fine.samples == 4
    generator.renderer = nn.Identity()
    with pytest.raises(ValueError, match="leave samples out"):
        gan.fakes(torch.zeros(2, 3, 4, 4), TrainingDraws(0, 1, 0))


# 512 x 512


def test_a_step_at_512_with_gradients_for_few_rays(tmp_path) -> None:
    """The stage of cips3d/ffhq512, with narrow networks."""
    config = read_experiment("cips3d/ffhq512")["model"]["init_args"]
    (of,) = config["stages"]
    assert of["gradient_rays"] == 512 * 512 // 4 and config["generator"]["init_args"]["resolution"] == 512
    torch.manual_seed(0)
    plain = build_generator()
    renderer = VolumeRenderer(JitteredUniform(0.88, 1.12, 3))
    generator = Generator(plain.field, plain.inr, plain.mapping, renderer, plain.poses, resolution=512)
    stage = Stage(**{**of, "augment": diffaugment, "frozen": tuple(of["frozen"]), "gradient_rays": 4096})
    adam = partial(torch.optim.Adam, lr=1e-2, betas=(0.0, 0.99))
    discriminator = Discriminator(Tower([4] * 8), Tower([4] * 8, shrink_first=True))
    gan = Recorded(generator, discriminator, adam, adam, {"slow": EMA(0.5)}, stages=[stage])
    gan.loss_g = Kept(gan.loss_g)
    train(gan, 1, tmp_path, NoiseImages(512, 1, None))
    assert gan.loss_g.shapes == [(1, 3, 512, 512)]  # whole images are scored
    assert gan.seen[0]["moved"] == {"inr", "mapping"}


class Kept:
    """A loss that remembers the shapes of what it was given."""

    def __init__(self, loss) -> None:
        self.loss, self.shapes = loss, []

    def __call__(self, fake: Tensor, draws) -> dict[str, Tensor]:
        self.shapes.append(tuple(fake.shape))
        return self.loss(fake, draws)
