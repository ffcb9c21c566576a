"""Every faster way of computing a layer agrees with the plain one, and ``zoo.layers.plain`` turns it off."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, softplus

from tests.parity.published import train
from tests.tiny_systems import pigan
from zoo.layers import is_plain, plain
from zoo.layers import winograd as module
from zoo.layers.discriminator import Discriminator
from zoo.layers.winograd import suits, winograd
from zoo.training.gan import GAN
from zoo.weights.bundle import build


def scores_and_gradients(discriminator: Discriminator, images: Tensor) -> list[Tensor]:
    """Scores, their slopes, gradients of a loss, and gradients of R1, which differentiates twice."""
    learned, scores = list(discriminator.parameters()), discriminator(images).scores
    (slopes,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    firsts = torch.autograd.grad(softplus(scores).sum(), learned, retain_graph=True, allow_unused=True)
    seconds = torch.autograd.grad(slopes.square().sum(), learned, allow_unused=True)
    return [x for x in (scores, slopes, *firsts, *seconds) if x is not None]


def test_winograd_agrees_with_plain_convolutions():
    discriminator = Discriminator({16: 5, 8: 4, 4: 3}, groups=2).double()
    images = torch.randn(4, 3, 16, 16).double().requires_grad_()
    with (
        patch.object(module, "suits", lambda x, weight: True),
        patch.object(module, "winograd", wraps=winograd) as taken,
    ):
        found = scores_and_gradients(discriminator, images)
        assert taken.call_count == 3
        with plain():
            expected = scores_and_gradients(discriminator, images)
        assert taken.call_count == 3
    assert len(found) == len(expected) > 30
    for ours, direct in zip(found, expected, strict=True):
        assert torch.allclose(ours, direct, rtol=0, atol=1e-10)


@pytest.mark.parametrize("is_asked_for", [False, True])
def test_training_can_be_plain(is_asked_for):
    config, seen = pigan()["model"], []
    config["init_args"]["plain"] = is_asked_for
    gan = build(config, GAN)
    gan.discriminator.register_forward_hook(lambda *_: seen.append(is_plain()))
    train(gan, torch.randn(2, 3, 8, 8), 2)
    assert set(seen) == {is_asked_for} and not is_plain()


def test_rounding_of_winograd_stays_small():
    x, weight = torch.randn(1, 128, 16, 16), torch.randn(128, 128, 3, 3) / (9 * 128) ** 0.5
    exact = conv2d(x.double(), weight.double(), padding=1)
    assert (winograd(x, weight) - exact).abs().max() < 1e-4 * exact.abs().max()


@pytest.mark.parametrize(
    ("shape", "channels", "dtype", "expected"),
    [
        ((1, 128, 16, 16), 128, torch.float32, True),
        ((1, 128, 16, 16), 128, torch.float64, False),
        ((1, 128, 8, 8), 128, torch.float32, False),
        ((1, 64, 16, 16), 128, torch.float32, False),
        ((1, 128, 18, 16), 128, torch.float32, False),
    ],
)
def test_only_large_layers_in_float32_take_winograd(shape, channels, dtype, expected):
    x, weight = torch.randn(shape, dtype=dtype), torch.randn(channels, shape[1], 3, 3, dtype=dtype)
    assert suits(x, weight) == expected
