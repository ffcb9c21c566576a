"""A system computes in the precision of its networks and of what it is given: nothing inside rounds to float32."""

import copy

import pytest
import torch
from torch import Tensor

from tests.parity.published import train
from tests.systems import SYSTEMS, NoiseData
from zoo.render import Camera
from zoo.training.gan import GAN
from zoo.weights.bundle import build


def trained_and_drawn(system: str, default: torch.dtype) -> dict[str, Tensor]:
    """Weights of float64 after eight iterations, and images, where torch by itself makes tensors of this type."""
    config = copy.deepcopy(SYSTEMS[system]())
    torch.manual_seed(0)
    gan = build(config["model"], GAN).double()
    data = NoiseData(resolution=gan.generator.resolution, posed=True)
    source, camera = data.train_source(), data.train_source().all_cameras().take(slice(16))
    images = torch.stack([source.item(i, gan.generator.resolution)["image"] for i in range(16)])
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        cameras = Camera(*(x.repeat(2, 1, 1).double() for x in camera))
        train(gan, images.repeat(2, 1, 1, 1).double() / 127.5 - 1, 4, cameras=cameras)
        drawn = gan.predict_step(torch.arange(2))
    finally:
        torch.set_default_dtype(before)
    found = dict(gan.named_parameters()) | dict(gan.named_buffers()) | drawn._asdict()
    return {name: t for name, t in found.items() if isinstance(t, Tensor) and t.is_floating_point()}


@pytest.mark.parametrize("system", SYSTEMS)
def test_networks_in_float64_compute_in_float64(system):
    ours = trained_and_drawn(system, torch.float32)
    exact = trained_and_drawn(system, torch.float64)
    assert [name for name, t in ours.items() if t.dtype != torch.float64] == []
    assert [n for n, t in exact.items() if not torch.allclose(ours[n], t, rtol=0, atol=1e-9, equal_nan=True)] == []
