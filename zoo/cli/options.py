"""Options that several verbs share: a verb passes its other options on, and jsonargparse finds them there."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.utils.devices import check_device_name, use_device
from zoo.utils.errors import UserError

if TYPE_CHECKING:
    from zoo.generator import Generator
    from zoo.weights.bundle import BundleInfo


@dataclass
class SampleOptions:
    """Which weights samples are drawn with, and how.

    Args:
        source: a name that 'zoo list' shows, the folder of a weights bundle, or a .ckpt of a run.
        truncation: below 1, samples are nearer to the mean.
        resolution: side of the images in pixels; by default the generator's own.
        seed: of the whole set of samples.
        device: auto (a CUDA GPU where there is one, else the CPU), cpu, cuda, cuda:1 or mps.
    """

    source: str
    truncation: float = 1.0
    resolution: int | None = None
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.resolution is not None and self.resolution < 1:
            raise UserError(f"A resolution is at least 1 pixel, not {self.resolution}.")
        check_device_name(self.device)

    def load(self) -> "tuple[Generator, BundleInfo]":
        """The generator, on its device, and what is known of it.

        Raises:
            UserError: there are no such weights, no such device, or no images of that side.
        """
        from zoo.weights import load_bundle

        device = use_device(self.device)
        generator, info = load_bundle(self.source, self.resolution)
        return generator.to(device), info

    @property
    def drawn(self) -> dict[str, Any]:
        """What all functions that draw samples take."""
        return {"seed": self.seed, "truncation": self.truncation, "resolution": self.resolution}


def numbers(text: str) -> list[int]:
    """The numbers in a text such as '0-3,8'.

    Raises:
        UserError: it is something else.
    """
    try:
        return [number for part in text.split(",") for number in span(part)]
    except ValueError:
        raise UserError(f"'{text}' is not a list of samples such as 0-7 or 0,3,8.") from None


def span(part: str) -> Iterator[int]:
    """The numbers from the first to the last in '3-8'."""
    first, _, last = part.partition("-")
    return iter(range(int(first), int(last or first) + 1))
