"""Queries in chunks, recomputed in the backward pass only where a gradient arrives, against plain autograd."""

import pytest
import torch
from torch import Tensor, nn

from zoo.draws import TrainingDraws
from zoo.render import (
    Background,
    Camera,
    GaussianPoses,
    Importance,
    JitteredUniform,
    Quadrature,
    Samples,
    VolumeRenderer,
    black,
    last_sample,
    pixel_corners,
    relu,
    softplus,
    through,
    white,
)
from zoo.render.query import query


class Field(nn.Module):
    """A small network that is asked about single points, and notes how many."""

    def __init__(self) -> None:
        super().__init__()
        stream = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(6, 16, generator=stream, dtype=torch.float64) * 4)
        self.second = nn.Parameter(torch.randn(16, 4, generator=stream, dtype=torch.float64))
        self.asked: list[int] = []

    def forward(self, samples: Samples, condition: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        self.asked.append(samples.t.numel())
        directions = samples.directions[:, :, None].expand_as(samples.points)
        hidden = (torch.cat([samples.points, directions], -1) @ self.first + condition["shift"][:, None, None]).sin()
        raw, features = (hidden @ self.second).split([1, 3], dim=-1)
        return raw * 20, features.sigmoid()


def gradients(chunk: int | None, density, background: Background, field=None) -> tuple[Tensor, list[Tensor]]:
    """The image of a field, and the gradients of a loss with respect to all that it depends on."""
    field = field or Field()
    stream = torch.Generator().manual_seed(1)
    condition = {"shift": torch.randn(2, 16, generator=stream, dtype=torch.float64).requires_grad_()}
    camera = GaussianPoses(yaw_spread=0.3, pitch_spread=0.2)(2, TrainingDraws(0, 0))
    pose = camera.pose.double().requires_grad_()
    rays = through(Camera(pose, camera.intrinsics.double()), pixel_corners(6).double())
    renderer = VolumeRenderer(
        JitteredUniform(0.8, 1.2, 5), Quadrature(density, background=background), Importance(4), chunk=chunk
    )
    result = renderer(field, rays, condition, TrainingDraws(0, 1), density_noise=0.5)
    loss = (result.features.square() + result.depth).sum()
    leaves = [condition["shift"], pose, *(field.parameters() if isinstance(field, nn.Module) else ())]
    return result.features, [*torch.autograd.grad(loss, leaves)]


@pytest.mark.parametrize("background", [black, white, last_sample])
@pytest.mark.parametrize("density", [relu, softplus])
def test_gradients_are_those_of_plain_autograd(density, background) -> None:
    plain, wanted = gradients(None, density, background)
    chunked, found = gradients(37, density, background)
    torch.testing.assert_close(chunked, plain)
    for a, b in zip(found, wanted, strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b)


def test_any_callable_can_be_a_field() -> None:
    module = Field()
    plain, wanted = gradients(None, relu, black, lambda samples, condition: module(samples, condition))
    chunked, found = gradients(37, relu, black, lambda samples, condition: module(samples, condition))
    torch.testing.assert_close((chunked, *found), (plain, *wanted))


def test_the_backward_pass_leaves_out_what_no_gradient_reaches() -> None:
    field, rays = Field(), 50
    samples = Samples(*torch.randn(2, 2, rays, 3, dtype=torch.float64), torch.rand(2, rays, 4, dtype=torch.float64))
    condition = {"shift": torch.zeros(2, 16, dtype=torch.float64)}
    raw, features = query(field, samples, condition, chunk=40)
    assert sum(field.asked) == 2 * rays * 4
    field.asked.clear()
    (raw[0, 3, 1].sum() + features[0, 7].sum() + features[1, :2, 0].sum()).backward()
    assert field.asked == [2 * 5]  # five of the first image; two of the second, filled up
    field.asked.clear()
    query(field, samples, condition, chunk=40)[0].mul(0).sum().backward()
    assert sum(field.asked) == 2 * rays * 4  # nothing beside the forward pass
    assert field.first.grad is not None


def test_precision_is_the_same_in_both_passes() -> None:
    seen = []

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, samples: Samples, condition: None) -> tuple[Tensor, Tensor]:
            out = self.layer(samples.points)
            seen.append(out.dtype)
            return out[..., :1], out[..., 1:]

    samples = Samples(torch.randn(1, 9, 3), torch.randn(1, 9, 3), torch.rand(1, 9, 2))
    with torch.autocast("cpu", torch.bfloat16):
        raw, features = query(Half(), samples, None, chunk=6)
    (raw.sum() + features.sum()).backward()
    assert set(seen) == {torch.bfloat16} and len(seen) == 6


def test_gradients_can_be_differentiated_again() -> None:
    samples = Samples(*torch.randn(2, 1, 30, 3, dtype=torch.float64), torch.rand(1, 30, 2, dtype=torch.float64))
    found = []
    for chunk in (None, 8):
        field, condition = Field(), {"shift": torch.zeros(1, 16, dtype=torch.float64, requires_grad=True)}
        raw, _ = query(field, samples, condition, chunk)
        (first,) = torch.autograd.grad(raw.sum(), condition["shift"], create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), [field.first, field.second, condition["shift"]]))
    torch.testing.assert_close(found[1], found[0])
    assert all(gradient.abs().max() > 0 for gradient in found[0])
