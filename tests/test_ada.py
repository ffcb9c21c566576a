"""Adaptive augmentation: every change against a closed form, derivatives, the controller, saved state."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from tests.tiny_systems import stylenerf
from zoo.draws import SampleDraws, TrainingDraws
from zoo.layers.ada import BGC, OTHERS, Augmentation, Controller, sample_bilinear
from zoo.training.gan import GAN
from zoo.weights.bundle import build

SIDE = 32


class Fixed:
    """Draws that are given by name; all gates are open."""

    def __init__(self, **numbers: float | Tensor) -> None:
        self.numbers = numbers

    def uniform(self, name: str, shape) -> Tensor:
        return torch.as_tensor(0.0 if name.endswith("_gate") else self.numbers[name]).expand(*shape)

    normal = uniform


def changed(images: Tensor, name: str, *, probability: float = 1.0, weights: dict | None = None, **numbers) -> Tensor:
    """Images after one change, drawn as given."""
    return Augmentation({name: 1.0} if weights is None else weights, probability)(images, Fixed(**numbers))


def ramp(x: float, y: float) -> Tensor:
    """Images whose values grow linearly from their middle, to the right and down."""
    line = torch.arange(SIDE) - (SIDE - 1) / 2
    channels = [x * line + y * line[:, None] + c for c in range(3)]
    return torch.stack(channels)[None]


def middle(images: Tensor, share: float = 0.5) -> Tensor:
    """The middle of images, which sees nothing mirrored."""
    margin = round(images.shape[-1] * (1 - share) / 2)
    return images[..., margin:-margin, margin:-margin]


def agree(ours: Tensor, expected: Tensor, tolerance: float = 0.1) -> bool:
    """By default up to the tenth of a pixel by which the wavelet, not symmetric, moves what is turned."""
    return torch.allclose(middle(ours), middle(expected), atol=tolerance)


# Warps: a linear image, seen through an affine map, is another one


def test_places_are_looked_up_with_zeros_beyond_the_border():
    images, grid = torch.randn(2, 3, 5, 7).double(), torch.rand(2, 4, 6, 2).double() * 3 - 1.5
    assert torch.allclose(sample_bilinear(images, grid), grid_sample(images, grid, align_corners=False), atol=1e-12)


def test_flip_and_quarter_turns():
    images = ramp(0.25, 0.75)
    assert agree(changed(images, "xflip", xflip=0.9), images.flip(3))
    assert agree(changed(images, "xflip", xflip=0.1), images, 1e-5)
    for quarters in range(4):
        turned = changed(images, "rotate90", rotate90=(quarters + 0.5) / 4)
        assert agree(turned, images.rot90(quarters, (2, 3)))


def test_whole_pixels_are_moved_exactly():
    images = torch.rand(2, 3, SIDE, SIDE)  # of all frequencies
    moved = changed(images, "xint", xint=torch.tensor([1.0, 0.75]))  # 4 pixels to the right, 2 down
    assert torch.allclose(moved[..., 6:, 6:], images[..., 4:-2, 2:-4], atol=1e-5)
    assert torch.allclose(changed(images, "xint", xint=0.5), images, atol=1e-5)


def test_moves_by_parts_of_pixels():
    moved = changed(ramp(1.0, 3.0), "xfrac", xfrac=torch.tensor([0.5, -0.25]))  # standard deviation: 4 pixels
    assert agree(moved, ramp(1.0, 3.0) - 1.0 * 2 + 3.0 * 1, 1e-3)


def test_scale_and_stretch():
    octaves = math.log2(1.25) / 0.2  # standard deviations
    assert agree(changed(ramp(0.25, 0.75), "scale", scale=octaves), ramp(0.25 / 1.25, 0.75 / 1.25))
    assert agree(changed(ramp(0.25, 0.75), "aniso", aniso=octaves), ramp(0.25 / 1.25, 0.75 * 1.25))


@pytest.mark.parametrize("when", ["prerotate", "postrotate"])
def test_rotation(when):
    angle = math.radians(30)
    numbers = {"prerotate": 0.5, "postrotate": 0.5} | {when: 0.5 + angle / (2 * math.pi)}
    turned = changed(ramp(1.0, 0.0), "rotate", **numbers)
    assert agree(turned, ramp(math.cos(angle), -math.sin(angle)))


# Colours


def test_colours_by_closed_forms():
    images = torch.rand(2, 3, 4, 4)
    grey = images.mean(1, keepdim=True)
    assert torch.allclose(changed(images, "brightness", brightness=1.5), images + 0.3)
    assert torch.allclose(changed(images, "contrast", contrast=2.0), images * 2)
    assert torch.allclose(changed(images, "lumaflip", lumaflip=0.9), images - 2 * grey, atol=1e-6)
    assert torch.allclose(changed(images, "saturation", saturation=1.0), grey + 2 * (images - grey), atol=1e-6)
    third = changed(images, "hue", hue=0.5 + 1 / 3)  # a third of a turn takes red to green to blue
    assert torch.allclose(third, images.roll(1, dims=1), atol=1e-5)


def test_bands_of_frequencies():
    flat, fine = torch.ones(1, 3, 48, 48), (torch.arange(48) % 2 * 2.0 - 1).expand(1, 3, 48, 48)
    power = torch.tensor([10, 1, 1, 1]) / 13
    for band, images in ((0, flat), (3, fine)):  # flat down all columns, flat or as fine as it gets along all rows
        change = torch.ones(4).index_fill(0, torch.tensor(band), 2.0)
        gains = change / (power * change.square()).sum().sqrt()
        numbers = {f"imgfilter{i}": float(i == band) for i in range(4)}
        assert torch.allclose(changed(images, "imgfilter", **numbers), images * gains[0] * gains[band], atol=1e-3)
    assert torch.allclose(changed(flat, "imgfilter", **dict.fromkeys(numbers, 0.0)), flat, atol=1e-5)


def test_noise_and_holes():
    images, pixels = torch.zeros(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    assert torch.allclose(changed(images, "noise", noise=-2.0, noise_pixels=pixels), pixels * 0.2)
    seen = changed(images + 1, "cutout", cutout=torch.tensor([0.25, 0.5]))  # half of a side around there
    assert not seen[:, :, 2:6, 0:4].any() and seen.sum() == 2 * 3 * (64 - 16)


# Probabilities


ALL = BGC | dict.fromkeys(OTHERS, 1.0)


def test_a_probability_of_zero_changes_nothing():
    images = torch.rand(4, 3, SIDE, SIDE) * 2 - 1
    kept = Augmentation(ALL, 0.0)(images, TrainingDraws(0, 0))
    assert torch.allclose(kept, images, atol=1e-5)


def test_each_image_is_changed_with_the_probability():
    images = torch.rand(400, 3, 2, 2) + 1
    chosen = Augmentation({"brightness": 0.5}, 0.6)(images, SampleDraws(0, range(400)))
    share = ((chosen - images).flatten(1).abs().amax(1) > 0).float().mean()
    assert 0.24 < share < 0.36
    assert not torch.equal(chosen, Augmentation({"brightness": 0.5}, 0.6)(images, SampleDraws(1, range(400))))


def test_unknown_changes_are_refused():
    with pytest.raises(ValueError, match="There is no augmentation 'blur', only xflip"):
        Augmentation({"blur": 1.0})
    with pytest.raises(ValueError, match="'imgfilter' needs images of more than 21 pixels a side, not 16x16"):
        changed(torch.rand(1, 3, 16, 16), "imgfilter", **{f"imgfilter{i}": 0.0 for i in range(4)})


# Derivatives


class Doubles(SampleDraws):
    """Draws in float64."""

    def uniform(self, name: str, shape) -> Tensor:
        return super().uniform(name, shape).double()

    def normal(self, name: str, shape) -> Tensor:
        return super().normal(name, shape).double()


def test_everything_can_be_differentiated_twice():
    augmentation, draws = Augmentation(ALL, 1.0).double(), partial(Doubles, 3, range(1))
    images = torch.rand(1, 3, 24, 24, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(1, 3, 24, 24, dtype=torch.float64)

    def penalty(images: Tensor) -> Tensor:
        score = augmentation(images, draws()).pow(3).sum()
        (gradient,) = torch.autograd.grad(score, images, create_graph=True)
        return gradient.square().sum()

    (slope,) = torch.autograd.grad(penalty(images), images)
    step = 1e-5 * direction
    differences = (penalty(images + step) - penalty(images - step)) / 2e-5
    assert torch.allclose((slope * direction).sum(), differences.detach(), rtol=1e-5)


# The controller


@pytest.mark.parametrize(("scores", "start", "expected"), [(1.0, 0.2, 0.24), (-1.0, 0.2, 0.16), (-1.0, 0.02, 0.0)])
def test_the_controller_moves_at_the_published_rate(scores, start, expected):
    augmentation = Augmentation(probability=start, controller=Controller(target=0.6, every=4, images=1000))
    for iteration in range(1, 5):
        augmentation.observe(torch.full((10, 1), scores))
        augmentation.adjust(iteration, 10)  # 10 x 4 of 1000 images
    assert augmentation.probability.item() == pytest.approx(expected)
    assert not augmentation.controller.signs and not augmentation.controller.count


def test_at_the_target_the_probability_stays():
    augmentation = Augmentation(probability=0.3, controller=Controller(target=0.6, every=1, images=100))
    augmentation.observe(torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0]))  # a mean sign of 0.6
    augmentation.adjust(0, 5)
    assert augmentation.probability == pytest.approx(0.3)


def test_its_state_is_saved_and_comes_back():
    def new() -> Augmentation:
        return Augmentation(probability=0.1, controller=Controller(every=2, images=100))

    def go_on(augmentation: Augmentation, iterations: range) -> None:
        for iteration in iterations:
            augmentation.observe(torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0 if iteration < 3 else 1.0]))
            augmentation.adjust(iteration, 5)

    whole, first, second = new(), new(), new()
    go_on(whole, range(6))
    go_on(first, range(3))
    second.load_state_dict(first.state_dict())
    go_on(second, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole.buffers(), second.buffers(), strict=True))


# In systems

CONFIG = {"class_path": "zoo.layers.ada.Augmentation", "init_args": {"probability": 0.5}}


def test_it_is_an_object_in_a_config():
    config = stylenerf()["model"]
    config["init_args"]["augment"] = CONFIG
    gan, images = build(config, GAN), torch.rand(2, 3, 16, 16)
    assert gan.augment.probability == 0.5 and "augment.probability" in gan.state_dict()
    plain = gan.discriminator(images).scores
    assert not torch.allclose(gan.discriminate(images, TrainingDraws(0, 0)).scores, plain)
