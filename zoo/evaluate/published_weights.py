"""Weights of extractors that others publish: a checked file, downloaded where it is missing."""

from dataclasses import dataclass
from pathlib import Path

import torch

from zoo.utils.errors import UserError, missing_file
from zoo.weights.catalogue import Address
from zoo.weights.fetch import NotFetched, fetch, sha256_of


@dataclass(frozen=True)
class PublishedWeights:
    """Where the weights of an extractor are published.

    extractor: its name.
    title: what the file holds, for sentences.
    url: of the file.
    sha256: its beginning.
    option: of ``zoo evaluate``, that names a copy.
    """

    extractor: str
    title: str
    url: str
    sha256: str
    option: str

    @property
    def path(self) -> Path:
        """Where torch.hub keeps the file, too."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.url.split("/")[-1]


INCEPTION = PublishedWeights(
    extractor="inception2015",
    title="the Inception weights of 2015-12-05",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d",  # as its name states it
    option="--inception_weights",
)
DINOV2 = PublishedWeights(
    extractor="dinov2",
    title="the weights of DINOv2's ViT-L/14",
    url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    sha256="d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",  # as refiners and others record it
    option="--dinov2_weights",
)


def checked_file(weights: PublishedWeights, copy: Path | str | None = None) -> tuple[Path, str]:
    """The file with these weights, and its sha256.

    Args:
        copy: a file that the user has; by default torch.hub's, downloaded if missing.

    Raises:
        UserError: the file has another hash.
        FileNotFoundError: no file, and no download.
    """
    if copy and Path(copy).is_dir():
        raise FileNotFoundError(missing_file(copy))
    path = Path(copy) if copy else weights.path
    if not path.exists():
        if copy:
            raise FileNotFoundError(f"There is no file {path}; it should hold the weights {weights.url}.")
        try:
            fetch([Address("web", weights.url)], path, weights.sha256)
        except NotFetched as error:
            raise FileNotFoundError(
                f"The extractor {weights.extractor} needs {weights.title}: {error} Then put the file (sha256 "
                f"{weights.sha256[:12]}...) at {path}, or name your copy with {weights.option}."
            ) from error
    found = sha256_of(path)
    if not found.startswith(weights.sha256):
        raise UserError(
            f"{path} does not hold {weights.title}: its sha256 is {found[:12]}..., "
            f"but that of {weights.url} begins with {weights.sha256[:12]}."
        )
    return path, found
