"""GIRAFFE's training: R1, the discriminator, draws, and the published order of an iteration."""

from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.optim import RMSprop
from torch.utils.data import DataLoader

from tests.test_giraffe import tiny_generator
from zoo.draws import SampleDraws, TrainingDraws
from zoo.giraffe import convert as giraffe
from zoo.giraffe.model import Discriminator
from zoo.giraffe.training import GIRAFFE
from zoo.training.ema import EMA
from zoo.weights.convert import convert_network
from zoo.weights.names import to_published
from zoo.weights.read import Contents, Place


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
