"""Images that some other program wrote, to be scored: squares of one size as they are, others as real images are."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo.utils.errors import UserError
from zoo.utils.image_folders import CheckedImages
from zoo.utils.listed_files import container_of, text
from zoo.utils.paths import is_image
from zoo.utils.readers import loader


def holds_images(path: Path) -> bool:
    """Whether this is a folder or zip with images, wherever in it."""
    with suppress(UserError):
        return any(is_image(file.name) for file in container_of(path.expanduser()).files())
    return False


def resizing(images: CheckedImages, resolution: int) -> str | None:
    """The line that says how images are made squares of this side; None where all of them are."""
    images.open()
    for name, (width, height) in images.sizes.items():
        if (width, height) != (resolution, resolution):
            return (
                f"Images of '{text(images.path, 80)}' that are not {resolution}x{resolution}, such as "
                f"'{text(name, 60)}' ({width}x{height}), are resized: the largest square in the middle of each, by "
                "Lanczos' filter."
            )
    return None


class ImagePathDataset(Dataset):
    """Images in a folder or zip, in the order of their names; with the interface of a datamodule that scores need.

    Args:
        path, manifests: as of ``CheckedImages``.
        resolution: side of the images [pixels]; by default the shorter side of the first one.
        fit: makes a square of this side, uint8 [3, H, H], of an image that is none; by default there must be no such.

    Raises:
        UserError: no images, or images of other sizes and no ``fit``.
    """

    def __init__(
        self,
        path: Path | str,
        manifests: Path | str = "data/manifests",
        resolution: int | None = None,
        fit: Callable[[Image.Image, int], Tensor] | None = None,
    ) -> None:
        self.images, self.fit = CheckedImages(path, manifests=manifests), fit
        if resolution is not None:
            self.resolution = resolution

    @property
    def name(self) -> str:
        path = self.images.path.resolve()
        return text(path.name if path.is_dir() else path.stem)

    @cached_property
    def resolution(self) -> int:
        width, height = self.images.image(0).size
        if width != height and self.fit is None:
            raise UserError(f"'{self.shown(0)}' is {width}x{height}; scores take square images.")
        return min(width, height)

    def shown(self, index: int) -> str:
        """The name of an image, as sentences show it."""
        return text(self.images.path / self.images.open()[index])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image, side = self.images.image(index), self.resolution
        if image.size == (side, side):
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        elif self.fit is not None:
            pixels = self.fit(image, side)
        else:
            raise UserError(
                f"'{self.shown(index)}' is {image.width}x{image.height}, but '{self.shown(0)}' is {side}x{side}; "
                "scores take images of one size."
            )
        return {"image": pixels / 127.5 - 1, "index": torch.tensor(index)}

    def val_dataloader(self) -> DataLoader:
        return loader(self, batch_size=32)

    def digest(self) -> str:
        """sha256 over names and contents."""
        self.images.open()
        digest = hashlib.sha256()
        for name, content in self.images.hashes.items():
            digest.update(name.encode(errors="surrogateescape") + b"\0" + bytes.fromhex(content))
        return digest.hexdigest()
