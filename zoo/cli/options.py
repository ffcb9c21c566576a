"""Options that several verbs share: a verb passes its other options on, and jsonargparse finds them there."""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

from zoo.utils.devices import check_device_name, use_device
from zoo.utils.errors import UserError, printable
from zoo.utils.ranges import between, given

if TYPE_CHECKING:
    from zoo.generator import Generator
    from zoo.weights.bundle import BundleInfo

MOST_SAMPLES = 10_000  # of a grid, a video or meshes
MOST_IMAGES = 10_000_000  # to draw and to score
LARGEST_TRUNCATION = 100.0
LARGEST_SEED = 2**32 - 1  # of numpy's
LARGEST = 100_000  # side of an image, size of a batch, or number of frames, views, cells or steps


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
        between(1, LARGEST, **given(resolution=self.resolution))
        between(-LARGEST_TRUNCATION, LARGEST_TRUNCATION, truncation=self.truncation)
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
        UserError: it is something else, counts down, or stands for more samples than anybody looks at.
    """
    found: list[int] = []
    for part in text.split(","):
        low, dash, high = part.partition("-")
        try:
            first, last = int(low), int(high if dash else low)
        except ValueError:
            first, last = -1, -1
        if min(first, last) < 0:
            raise UserError(f"'{printable(text, 60)}' is not a list of samples such as 0-7 or 0,3,8.")
        if last < first:
            raise UserError(f"'{printable(part, 60)}' of --seeds counts down: write {last}-{first}.")
        if last - first >= MOST_SAMPLES - len(found):
            raise UserError(
                f"'{printable(text, 60)}' stands for more than {MOST_SAMPLES:,} samples: give fewer --seeds."
            )
        found += range(first, last + 1)
    return found


def refuse_unused(where: str, verb: Callable, **values: Any) -> None:
    """Refuse options that are given, and would change nothing.

    Args:
        where: they are unused, such as "for a grid".
        verb: the function with their defaults.
        values: of the options.

    Raises:
        UserError: names the first one.
    """
    for name, value in values.items():
        if value != signature(verb).parameters[name].default:
            raise UserError(f"--{name} {printable(value, 60)} changes nothing {where}: leave it out.")
