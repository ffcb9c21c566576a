"""Winograd's convolution against torch's."""

from unittest.mock import patch

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import conv2d

from zoo.layers import winograd as module
from zoo.layers.winograd import conv3x3, directly, winograd


@pytest.mark.parametrize("size", [(8, 12), (4, 4), (16, 16)])
def test_it_is_a_convolution(size):
    x, weight, bias = torch.randn(2, 5, *size).double(), torch.randn(7, 5, 3, 3).double(), torch.randn(7).double()
    assert torch.allclose(winograd(x, weight, bias), conv2d(x, weight, bias, padding=1), atol=1e-10)


def test_rounding_stays_small():
    x, weight = torch.randn(1, 128, 16, 16), torch.randn(128, 128, 3, 3) / (9 * 128) ** 0.5
    exact = conv2d(x.double(), weight.double(), padding=1)
    assert (winograd(x, weight) - exact).abs().max() < 1e-4 * exact.abs().max()


def test_it_can_be_differentiated_twice():
    x, weight = torch.randn(2, 2, 4, 8, dtype=torch.float64), torch.randn(3, 2, 3, 3, dtype=torch.float64)
    inputs = x.requires_grad_(), weight.requires_grad_()
    assert gradcheck(winograd, inputs, fast_mode=True) and gradgradcheck(winograd, inputs, fast_mode=True)


@pytest.mark.parametrize(
    ("shape", "channels", "taken"),
    [
        ((1, 128, 16, 16), 128, True),
        ((1, 128, 8, 8), 128, False),
        ((1, 64, 16, 16), 128, False),
        ((1, 128, 18, 16), 128, False),
    ],
)
def test_only_large_layers_take_it(shape, channels, taken):
    x, weight = torch.randn(shape), torch.randn(channels, shape[1], 3, 3)
    with patch.object(module, "winograd", wraps=winograd) as called:
        y = conv3x3(x, weight)
    assert called.called == taken
    assert torch.allclose(y, conv2d(x, weight, padding=1), atol=1e-2)


def test_penalties_can_ask_for_the_direct_way():
    x, weight = torch.randn(1, 128, 16, 16), torch.randn(128, 128, 3, 3)
    with patch.object(module, "winograd", wraps=winograd) as called:
        with directly():
            conv3x3(x, weight)
        assert not called.called
        conv3x3(x, weight)
        assert called.called
