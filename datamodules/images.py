"""Images from a folder or a zip file, in any format that Pillow reads by itself, see ``zoo.utils.images``.

Every image is cropped to a square, by default the largest in the middle, and then resized, by default with Pillow's
Lanczos filter.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.base import ImageData
from datamodules.camera_files import CameraSet, find_cameras, matched, read_cameras
from datamodules.labels import find_labels
from datamodules.packed import Packed, PackedZip, read_packed
from zoo.render.cameras import Camera
from zoo.utils.errors import UserError
from zoo.utils.image_folders import CheckedImages, Layout, OnBad, say, uncollected, whole
from zoo.utils.listed_files import File, Zip, text
from zoo.utils.ranges import at_least, finite, given, one_of

FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}
Filter = Literal["lanczos", "bicubic", "bilinear", "box", "nearest", "subsample"]


@dataclass(frozen=True)
class Crop:
    """Which square of an image is used.

    Args:
        side: of the square [pixels]; None for the shorter side of the image.
        shorter: the image is resized (bilinear) to this length of its shorter side before; None leaves it.
        right, down: where the square's middle is, from the middle of the image [pixels].
    """

    side: int | None = None
    shorter: int | None = None
    right: int = 0
    down: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, **given(side=self.side, shorter=self.shorter))
        finite(self, right=self.right, down=self.down)

    def __call__(self, image: Image.Image) -> Image.Image:
        """The square; black where it leaves the image."""
        if self.shorter is not None:
            image = image.resize(self.resized(image.size), Image.Resampling.BILINEAR)
        return image.crop(self.square(image.size))

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height [pixels] of an image of this size before the square is cut out."""
        short = min(size)
        width, height = (length if self.shorter is None else self.shorter * length // short for length in size)
        return width, height

    def square(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the square in an image of this size, after ``resized`` [pixels]."""
        side = self.side or min(size)
        left = round((size[0] - side) / 2) + self.right
        top = round((size[1] - side) / 2) + self.down
        return left, top, left + side, top + side


def fit(image: Image.Image, resolution: int, filter: Filter = "lanczos", crop: Crop = Crop()) -> Tensor:
    """A square of an image, resized; uint8 [3, resolution, resolution].

    The filter ``nearest`` takes the pixel in the middle of each cell; ``subsample`` takes the first one, as
    ``torch.nn.functional.interpolate`` does and with it several published programs.
    """
    image = crop(image)
    if image.size != (resolution, resolution) and filter in FILTERS:
        image = image.resize((resolution, resolution), FILTERS[filter])
    pixels = torch.from_numpy(np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)))
    if pixels.shape[1:] != (resolution, resolution):
        rows, columns = (torch.arange(resolution) * length // resolution for length in pixels.shape[1:])
        pixels = pixels[:, rows][:, :, columns]
    return pixels.contiguous()


def window(
    size: tuple[int, int], resolution: int, filter: Filter = "lanczos", crop: Crop = Crop()
) -> tuple[float, float, float, float]:
    """What ``fit`` shows of an image of this size: left, top, width and height as shares of the image's."""
    width, height = crop.resized(size)
    left, top, right, bottom = crop.square((width, height))
    across, down = right - left, bottom - top
    # Where the first pixel of each cell stands for the cell, it is shown where the cell's middle belongs.
    early = 0.0 if filter in FILTERS else 0.5
    left, top = left + early * (1 - across / resolution), top + early * (1 - down / resolution)
    return left / width, top / height, across / width, down / height


class ImageFiles(CheckedImages):
    """The images of a folder or zip, cropped and resized; a ``datamodules.base.Source``.

    Items also hold "camera", where each image has one, and "label", the number of its class, where each has one, see
    ``datamodules.labels``.

    Args:
        path, on_bad, manifests, layout: as of ``CheckedImages``.
        filter: for resizing.
        crop: the square that is used.
        cameras: a file of cameras, see ``datamodules.camera_files``; "auto" for those that come with the images, if
            each image has one; None for none.
    """

    def __init__(
        self,
        path: str | Path,
        filter: Filter = "lanczos",
        on_bad: OnBad = "skip",
        manifests: str | Path = "data/manifests",
        crop: Crop = Crop(),
        layout: Layout = Layout(),
        cameras: str | None = "auto",
    ) -> None:
        super().__init__(path, on_bad, manifests, layout)
        one_of(Filter, filter=filter)
        self.filter, self.crop, self.camera_file = filter, crop, cameras
        self.whole_cameras: Camera | None = None  # of whole images
        self.labels: list[int] | None = None
        self.packed: Packed | None = None

    def open(self) -> list[str]:
        self.read_packed()
        return super().open()

    def read_packed(self) -> Packed | None:
        """The manifest, where the path is a zip of ``datamodules.pack``, whose images are then used as they are.

        Raises:
            UserError: it was packed with another crop or filter than those given here.
        """
        is_zip = self.path.suffix.lower() == ".zip" and self.path.is_file()
        if is_zip and self.container is None:
            container = self.layout.container(self.path)
            with uncollected():
                packed = read_packed(container) if isinstance(container, Zip) else None
            self.container = self.use(packed, container) if packed else container
        return self.packed

    def use(self, packed: Packed, container: Zip) -> PackedZip:
        """Take the images of a packed zip as they are, or refuse them."""
        asked, ours = (str(self.crop), self.filter), (packed.crop, packed.filter)
        if asked not in (ours, (str(Crop()), "lanczos")):
            raise UserError(
                f"'{text(self.path, 80)}' was packed with {ours[0]} and the filter {ours[1]}, and here {asked[0]} "
                f"and {asked[1]} are asked for: pack the images again for these (zoo data pack --experiment), or "
                "take --data datamodules.ImageFolder."
            )
        if self.layout.split not in ("all", packed.split):
            raise UserError(
                f"'{text(self.path, 80)}' was packed from the split '{packed.split}', and the split "
                f"'{self.layout.split}' is asked for: pack that one (zoo data pack --experiment)."
            )
        images = PackedZip(self.path)
        images.opened = container.opened  # to list 100,000 members again would take a second
        self.packed, self.crop, self.layout = packed, Crop(), Layout(split=packed.split)
        what = f"images packed from '{text(packed.name, 80)}' at {packed.resolution}x{packed.resolution}"
        say(f"'{text(self.path, 80)}' holds {what}; they are used as they are.")
        return images

    def look_at(self, others: list[File]) -> None:
        self.labels = find_labels(self.container, self.names)
        try:
            found = self.find_cameras(others)
            self.whole_cameras = found and found.of(self.names)
        except UserError as error:
            if self.camera_file != "auto":
                raise
            say(f"Cameras that come with '{text(self.path)}' are not used: {error}")
            return
        if self.whole_cameras is None:
            super().look_at(others)
        else:
            say(
                f"Each image of '{text(self.path)}' has a camera ({found.source}). It is not used by models whose "
                "cameras have a distribution of their own; zoo.render.DatasetPoses draws from those of the images."
            )

    def find_cameras(self, others: list[File] | None = None) -> CameraSet | None:
        """The cameras to be used, of some of the images at least; None where there are none."""
        if self.camera_file == "auto":
            return find_cameras(self.container, self.names, others)
        return self.camera_file and matched(read_cameras(self.camera_file), self.names)

    def item(self, index: int, resolution: int) -> dict[str, Any]:
        return self.cut(index, self.image(index), resolution, self.crop)

    def cut(self, index: int, image: Image.Image, resolution: int, crop: Crop) -> dict[str, Any]:
        """The item of a whole image."""
        item: dict[str, Any] = {"image": fit(image, resolution, self.filter, crop)}
        if self.whole_cameras is not None:
            camera = Camera(*(x[index] for x in self.whole_cameras))
            item["camera"] = camera.cropped(*window(image.size, resolution, self.filter, crop))
        if self.labels is not None:
            item["label"] = self.labels[index]
        return item

    def cameras(self, resolution: int) -> Camera | None:
        """The cameras of all images as they are shown, N of them; None where there are none."""
        names = self.open()
        if self.whole_cameras is None:
            return None
        sizes = [*self.sizes.values()] if self.layout.prepare is whole else [self.image(0).size] * len(names)
        windows = torch.tensor([window(size, resolution, self.filter, self.crop) for size in sizes])
        return self.whole_cameras.cropped(*windows.unbind(1))

    def digest(self, resolution: int) -> str:
        """Of packed images, as long as they are those that were written, that of the images they were made from."""
        self.open()
        if self.packed and (self.packed.resolution, self.packed.hashes) == (resolution, self.hashes):
            return self.packed.digest
        square = "centre square" if self.crop == Crop() else str(self.crop)
        about = ["images/1", f"{square}, {self.filter}, {resolution}", *map(":".join, self.hashes.items())]
        about += self.layout.digest(self.container)
        return hashlib.sha256("\n".join(about).encode(errors="surrogateescape")).hexdigest()


class ImageFolder(ImageData):
    """Images of a folder with all its subfolders, or of a zip file, in any format that Pillow reads by itself.

    Scores compare with the same images, unmirrored.

    Args:
        path: folder or zip file.
        resolution: pixels each way; a square of each image is resized to it.
        batch_size: images of a batch on each process.
        crop: that square; by default the largest one in the middle.
        filter: for resizing.
        on_bad: skip files that are broken, empty or too large with a warning that names them, or refuse to start.
        manifests: folder for the list of checked files.
        cameras: a file of cameras for all images; "auto" for those that come with them; None for none.
        options: as of ``ImageData``.
    """

    def __init__(
        self,
        path: str,
        resolution: int = 64,
        batch_size: int = 8,
        crop: Crop | None = None,
        filter: Filter = "lanczos",
        on_bad: OnBad = "skip",
        manifests: str = "data/manifests",
        cameras: str | None = "auto",
        **options: Any,
    ) -> None:
        super().__init__(resolution, batch_size, **options)
        self.files = ImageFiles(path, filter, on_bad, manifests, crop or Crop(), cameras=cameras)
        self.name = self.files.name

    def prepare_data(self) -> None:
        """Check the files that are new."""
        self.files.open()

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if packed := self.files.read_packed():
            self.name = packed.name  # scores of both are of one data set

    def train_source(self) -> ImageFiles:
        return self.files
