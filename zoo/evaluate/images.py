"""Images that some other program wrote, to be scored as they are: nothing is cropped or resized."""

import hashlib
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo.utils.errors import UserError
from zoo.utils.image_folders import CheckedImages, container_of, text
from zoo.utils.paths import is_image
from zoo.utils.readers import loader


def holds_images(path: Path) -> bool:
    """Whether this is a folder or zip with images, wherever in it."""
    with suppress(UserError):
        return any(is_image(file.name) for file in container_of(path.expanduser()).files())
    return False


class ImagePathDataset(Dataset):
    """Images of one size in a folder or zip, in the order of their names; with the interface of a datamodule that
    scores need.

    Raises:
        UserError: no images, or images of different sizes.
    """

    def __init__(self, path: Path | str, manifests: Path | str = "data/manifests") -> None:
        self.images = CheckedImages(path, manifests=manifests)

    @property
    def name(self) -> str:
        path = self.images.path.resolve()
        return text(path.name if path.is_dir() else path.stem)

    @cached_property
    def resolution(self) -> int:
        width, height = self.images.image(0).size
        if width != height:
            raise UserError(f"'{self.shown(0)}' is {width}x{height}; scores take square images.")
        return width

    def shown(self, index: int) -> str:
        """The name of an image, as sentences show it."""
        return text(self.images.path / self.images.open()[index])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        pixels = torch.from_numpy(np.array(self.images.image(index))).permute(2, 0, 1)
        if pixels.shape[1:] != (self.resolution, self.resolution):
            raise UserError(
                f"'{self.shown(index)}' is {pixels.shape[2]}x{pixels.shape[1]}, but '{self.shown(0)}' is "
                f"{self.resolution}x{self.resolution}; scores take images of one size."
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
