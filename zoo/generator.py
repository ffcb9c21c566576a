"""What all generators have in common: cameras, views from all sides, densities.

B batch, N points
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.draws import Draws, SampleDraws
from zoo.render import Camera, Poses, Rendered, Samples, Volume
from zoo.render.query import query


class BaseGenerator(nn.Module):
    """Base of all generators: latents and cameras to images.

    A system's own generator adds

    * ``latents(n, draws)``: n latents, a named tuple of tensors [n, ...];
    * ``map(latent, truncation=1.0)``: styles, all that does not depend on the camera;
    * ``rays(camera, resolution)``: the rays of an image's pixels, row by row;
    * ``render(styles, camera, resolution=None, draws=None)``: ``zoo.render.Rendered``.

    Args:
        poses: distribution of cameras.
        resolution: of images where none is asked for.
        bounds: world box of the object, two corners.
    """

    field: nn.Module
    volume: Volume

    def __init__(self, poses: Poses, resolution: int, bounds: Any) -> None:
        super().__init__()
        self.poses, self.resolution = poses, resolution
        self.register_buffer("bounds", torch.tensor(bounds), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.bounds.device

    @property
    def dtype(self) -> torch.dtype:
        return self.bounds.dtype

    def cameras(self, n: int, draws: Draws | None) -> Camera:
        """n cameras from the prior."""
        return self.poses(n, draws).to(self.bounds)

    def prepare(self) -> "BaseGenerator":
        """Compute what is stored with finished weights but not learned: nothing, or a mean style."""
        return self

    def forward(self, latent: Any, camera: Camera, **kwargs: Any) -> Rendered:
        """``map`` and ``render``."""
        return self.render(self.map(latent), camera, **kwargs)

    def turntable(self, latent: Any, n: int) -> tuple[Any, Camera]:
        """Latents (or styles) and cameras that show each of B objects from n sides, object after object, B n long."""
        return each_from(latent, self.poses.turntable(n).to(self.bounds))

    def around(self, latent: Any, turn: Tensor) -> tuple[Any, Camera]:
        """As ``turntable``, from these places [T] on its way: 0 is its beginning, 1 its end; both are B T long."""
        return each_from(latent, self.poses.around(turn).to(self.bounds))

    def without_background(self, styles: Any) -> Any:
        """Styles whose depth and opacity are the objects' alone: the same ones, unless a background is opaque too."""
        return styles

    def codes(self, styles: Any) -> dict[str, Tensor]:
        """The parts of styles that may be anything, by name: all, unless some follow from others or are bound."""
        return styles._asdict()

    def with_codes(self, styles: Any, codes: dict[str, Tensor]) -> Any:
        """Styles in which these parts are others, and with them what follows."""
        return styles._replace(**codes)

    def condition(self, styles: Any) -> Any:
        """What the field is handed with its samples."""
        return styles

    def density(self, points: Tensor, styles: Any) -> Tensor:
        """Density per world length [B, N, 1] at points [B, N, 3]."""
        return density_at(points, self.field, self.condition(styles), self.volume)


def each_from(latent: Any, camera: Camera) -> tuple[Any, Camera]:
    """Each of B latents from each of n cameras, latent after latent, both B n long."""
    n = len(camera.pose)
    latents = type(latent)(*(None if x is None else x.repeat_interleave(n, 0) for x in latent))
    return latents, Camera(*(x.repeat(len(latent[0]), 1, 1) for x in camera))


def density_at(points: Tensor, field: nn.Module, condition: Any, volume: Volume) -> Tensor:
    """Density per world length [B, N, 1] that a renderer makes of a field at points [B, N, 3]."""
    samples = Samples(points, torch.zeros_like(points), torch.zeros_like(points[..., :1]))
    raw, _ = query(field, samples, condition, chunk=4096)
    return volume.density(raw, points[:, :, None])[:, :, 0]


DrawsPolicy = Literal["per-sample", "none"]


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards every module is as it was."""
    training = [module for network in networks for module in network.modules() if module.training]
    for network in networks:
        network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def render_samples(
    generator: nn.Module,
    indices: Sequence[int],
    seed: int = 0,
    truncation: float = 1.0,
    resolution: int | None = None,
    draws: DrawsPolicy = "per-sample",
    device: torch.device | str | None = None,
) -> Rendered:
    """The samples with these indices, in one batch; each depends on (seed, index) only, not on its neighbours.

    Args:
        generator: any system's generator.
        indices: which samples, at least 0 each.
        truncation: as in ``generator.map``.
        resolution: side of the image [pixels]; by default the generator's own.
        draws: ``per-sample``: the renderer jitters with numbers that belong to the sample; ``none``: no jitter.
            Latents and cameras are random either way.
        device: where; by default where the generator is.
    """
    random = SampleDraws(seed, indices, generator.bounds.device if device is None else device)
    with evaluating(generator):
        styles = generator.map(generator.latents(len(indices), random), truncation=truncation)
        camera = generator.cameras(len(indices), random)
        return generator.render(
            styles, camera, resolution=resolution, draws={"per-sample": random, "none": None}[draws]
        )


QUANTISATION = "round-1"  # version of ``quantise``


def quantise(images: Tensor) -> Tensor:
    """Images in [-1, 1] to uint8, rounded; done once to every picture that is scored or written."""
    return ((images + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)
