"""StyleGAN2's blocks against formulas written out, and their derivatives."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import conv2d, leaky_relu, pad

from zoo.layers.stylegan2 import (
    Convolution,
    Dense,
    Mapping,
    ModulatedConvolution,
    Noise,
    activate,
    downsample,
    fir_filter,
    minibatch_stddev,
    normalise,
    upsample,
)


def spread_out(x: Tensor) -> Tensor:
    """Zeros between the pixels."""
    y = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    y[:, :, ::2, ::2] = x
    return y


def fir(x: Tensor, gain: float) -> Tensor:
    """The filter [1, 3, 3, 1] each way, written out as sums of shifted pixels."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype)
    height, width = x.shape[2] - 3, x.shape[3] - 3
    shifted = [taps[i] * taps[j] * x[:, :, i : i + height, j : j + width] for i in range(4) for j in range(4)]
    return sum(shifted) * (gain / 64)


def test_doubling_is_zeros_between_the_pixels_then_the_filter():
    x = torch.randn(2, 3, 4, 6)
    expected = fir(pad(spread_out(x), (2, 1, 2, 1)), 4.0)
    assert torch.allclose(upsample(x), expected, atol=1e-6)


@pytest.mark.parametrize("padding", [(2, 1, 2, 1), (1, 1, 1, 1), (2, 2, 2, 2)])
def test_the_filter_is_a_sum_of_shifted_pixels(padding):
    x = torch.randn(2, 5, 4, 6)
    assert torch.allclose(fir_filter(x, padding, gain=4.0), fir(pad(x, padding), 4.0), atol=1e-6)


def test_halving_is_the_filter_then_every_second_pixel():
    x = torch.randn(2, 3, 8, 6)
    assert torch.allclose(downsample(x), fir(pad(x, (1, 1, 1, 1)), 1.0)[:, :, ::2, ::2], atol=1e-6)
    assert torch.allclose(fir_filter(x, (2, 1, 0, 3)), fir(pad(x, (2, 1, 0, 3)), 1.0), atol=1e-6)


@pytest.mark.parametrize(("padding", "stride"), [((2, 2, 2, 2), 1), ((1, 1, 1, 1), 2), ((2, 1, 2, 1), 2)])
def test_the_filter_can_be_differentiated_twice(padding, stride):
    x = torch.randn(2, 3, 7, 6, dtype=torch.double, requires_grad=True)  # some pixels of odd sides are left over
    assert gradcheck(lambda x: fir_filter(x, padding, stride), x)
    assert gradgradcheck(lambda x: fir_filter(x, padding, stride), x)


def test_equalised_layers_scale_what_they_store():
    dense = Dense(16, 8, bias=1.0, rate=0.01)
    assert abs(dense.weight.std() / 100 - 1) < 0.3
    assert dense.bias[0] == 100
    x = torch.randn(5, 16)
    expected = x @ dense.weight.mT * (0.01 / 4) + dense.bias * 0.01
    assert torch.allclose(dense(x), expected, atol=1e-5)
    assert torch.allclose(dense(x, 2.0), 2 * expected, atol=1e-5)

    conv = Convolution(4, 6, 3)
    images = torch.randn(2, 4, 8, 8)
    assert torch.allclose(conv(images), conv2d(images, conv.weight / 6, conv.bias, padding=1), atol=1e-5)


def test_a_convolution_that_halves_filters_first():
    images = torch.randn(2, 4, 8, 8)
    for size in (1, 3):
        conv = Convolution(4, 6, size, down=True, bias=False)
        full = fir(pad(images, (size // 2 + 1,) * 4), 1.0)
        expected = conv2d(full, conv.weight * conv.scale, stride=2)
        assert torch.allclose(conv(images), expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("demodulate", [False, True])
@pytest.mark.parametrize("up", [False, True])
def test_a_modulated_convolution_is_one_with_kernels_of_each_image(size, demodulate, up):
    conv = ModulatedConvolution(4, 6, size, w_dim=5, demodulate=demodulate, up=up)
    x, w = torch.randn(2, 4, 8, 8), torch.randn(2, 5)
    kernels = conv.weight * conv.style(w)[:, None, :, None, None]
    if demodulate:
        kernels = kernels / (kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    else:
        kernels = kernels / math.sqrt(4 * size**2)
    assert torch.allclose(conv.kernels(w, 3.0), 3 * kernels, atol=1e-5)
    images = spread_out(x) if up else x
    flipped = kernels.flip(3, 4) if up else kernels  # upsampling is a transposed convolution
    expected = torch.cat([conv2d(i[None], k, padding=size // 2) for i, k in zip(images, flipped, strict=True)])
    if up:
        # What the last row and column would spread beyond the image is cut off before the filter above only.
        both = torch.cat(
            [conv2d(pad(i[None], (size // 2,) * 4), k, padding=size // 2) for i, k in zip(images, flipped, strict=True)]
        )
        lead = size // 2
        expected = fir(pad(both, (2 - lead, 1 - lead, 2 - lead, 1 - lead)), 4.0)
    assert torch.allclose(conv(x, w), expected, atol=1e-5)


def test_demodulated_outputs_keep_their_variance():
    conv = ModulatedConvolution(64, 32, w_dim=8)
    y = conv(torch.randn(2, 64, 32, 32), 3 * torch.randn(2, 8))
    assert abs(y.var(dim=(2, 3)).mean() - 1) < 0.1


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize(("inputs", "style"), [(torch.full((1, 64, 8, 8), 256.0), 8.0), (torch.randn(1, 64, 8, 8), 40)])
def test_modulated_convolutions_stay_in_the_range_of_fp16(inputs, style, up):
    """Large inputs all of one sign, and styles whose squares are large."""
    conv = ModulatedConvolution(64, 4, 3, w_dim=2, up=up)
    with torch.no_grad():
        conv.weight.abs_(), conv.style.bias.fill_(style)
    expected = conv(inputs, torch.zeros(1, 2))
    with torch.autocast("cpu", torch.float16):
        y = conv(inputs.half(), torch.zeros(1, 2))
    assert y.dtype == torch.float16
    torch.testing.assert_close(y.float(), expected, rtol=0.02, atol=0.02)


def test_mapping_ignores_the_length_of_z():
    mapping = Mapping(6, 8, 10, layers=3)
    z = torch.randn(4, 6)
    assert mapping(z).shape == (4, 10)
    assert torch.allclose(mapping(z), mapping(5 * z), atol=1e-5)
    assert torch.allclose(normalise(z).square().mean(1), torch.ones(4), atol=1e-5)
    x = normalise(z)
    for layer in mapping.layers:
        x = leaky_relu(layer(x), 0.2) * math.sqrt(2)
    assert torch.allclose(mapping(z), x, atol=1e-5)


def test_activation_is_bounded():
    x = torch.tensor([-100.0, -1.0, 1.0, 100.0])
    assert torch.allclose(activate(x.clone(), 5.0), torch.tensor([-5.0, -0.2, 1.0, 5.0]))
    assert activate(x.clone(), None)[-1] == 100


def test_noise_starts_silent_and_uses_what_is_drawn():
    noise = Noise(4)
    assert not noise(None).any()
    with torch.no_grad():
        noise.strength.fill_(2.0)
    drawn = torch.randn(3, 1, 4, 4)
    assert torch.equal(noise(drawn), 2 * drawn)
    assert torch.equal(noise(None), 2 * noise.stored)


def test_deviation_compares_images_a_stride_apart():
    x = torch.randn(8, 3, 4, 4)
    y = minibatch_stddev(x, 4)
    assert y.shape == (8, 4, 4, 4)
    assert torch.equal(y[:, :3], x)
    for i in (0, 1):  # images i, i + 2, i + 4, i + 6
        expected = (x[i::2].var(0, unbiased=False) + 1e-8).sqrt().mean()
        assert torch.allclose(y[i::2, 3], expected)
    assert minibatch_stddev(x[:2], 4).shape[0] == 2
    with pytest.raises(ValueError, match="a batch of 6 must be a multiple"):
        minibatch_stddev(torch.randn(6, 3, 4, 4), 4)


SMALL = {
    "doubled": lambda x, w: upsample(x),
    "halved": lambda x, w: downsample(x),
    "deviation": lambda x, w: minibatch_stddev(x, 2),
    "modulated": lambda x, w: BLOCKS["modulated"](x, w),
    "modulated3up": lambda x, w: BLOCKS["modulated3up"](x, w),
    "down": lambda x, w: activate(BLOCKS["down"](x), 1.0),
}
BLOCKS = {
    "modulated": ModulatedConvolution(2, 3, w_dim=4, up=True).double(),
    "modulated3up": ModulatedConvolution(2, 3, 3, w_dim=4, up=True).double(),
    "down": Convolution(2, 3, 3, down=True).double(),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_deviations_and_lengths_hold_in_every_type(dtype):
    """In fp16 1e-8 is zero and the square of 300 infinite; float64 keeps all its digits."""
    same = torch.ones(4, 3, 2, 2, dtype=dtype, requires_grad=True)
    y = minibatch_stddev(same)
    y.sum().backward()
    assert y.dtype == dtype and same.grad.isfinite().all() and abs(y[0, -1, 0, 0].item() - 1e-4) < 1e-6
    far = torch.tensor([0.0, 600.0], dtype=dtype).view(2, 1, 1, 1)
    assert minibatch_stddev(far)[:, -1].flatten().tolist() == pytest.approx([300.0] * 2, rel=0.01)
    lengths = normalise(torch.tensor([[0.0, 0.0], [300.0, -300.0]], dtype=dtype))
    assert lengths.flatten().tolist() == pytest.approx([0.0, 0.0, 1.0, -1.0])
    if dtype == torch.float64:
        near = torch.tensor([0.0, 2e-9], dtype=dtype).view(2, 1, 1, 1)
        assert minibatch_stddev(near)[0, -1].item() == pytest.approx((1e-18 + 1e-8) ** 0.5, rel=1e-14)


@pytest.mark.parametrize("name", SMALL)
def test_blocks_can_be_differentiated_twice(name):
    inputs = torch.randn(2, 2, 4, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in inputs]
    assert gradcheck(SMALL[name], inputs, fast_mode=True)
    assert gradgradcheck(SMALL[name], inputs, fast_mode=True)
