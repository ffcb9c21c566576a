"""A folder of images that some other program wrote, to be scored as it is: nothing is cropped or resized."""

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo.utils.errors import UserError
from zoo.utils.paths import IMAGE_SUFFIXES, is_image
from zoo.utils.readers import loader


def holds_images(path: Path) -> bool:
    """Whether this is a folder of images."""
    return path.is_dir() and any(is_image(file.name) for file in path.iterdir())


class ImagePathDataset(Dataset):
    """Images of one size, in the order of their names; with the interface that scores need of a datamodule.

    Raises:
        UserError: no images, or images of different sizes.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @cached_property
    def files(self) -> list[Path]:
        files = sorted(file for file in self.path.glob("*") if is_image(file.name))
        if not files:
            raise UserError(f"{self.path} holds no images ({', '.join(IMAGE_SUFFIXES)}).")
        return files

    @cached_property
    def resolution(self) -> int:
        with Image.open(self.files[0]) as image:
            width, height = image.size
        if width != height:
            raise UserError(f"{self.files[0]} is {width}x{height}; scores take square images.")
        return width

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        with Image.open(self.files[index]) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        if pixels.shape[1:] != (self.resolution, self.resolution):
            raise UserError(
                f"{self.files[index]} is {pixels.shape[2]}x{pixels.shape[1]}, but {self.files[0].name} is "
                f"{self.resolution}x{self.resolution}; scores take images of one size."
            )
        return {"image": pixels / 127.5 - 1, "index": torch.tensor(index)}

    def val_dataloader(self) -> DataLoader:
        return loader(self, batch_size=32)

    def digest(self) -> str:
        """sha256 over names and contents."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()
