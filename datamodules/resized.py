"""Image folders without the centre crop: squeezed to a square, or cropped at random."""

from dataclasses import dataclass
from typing import Any

from datamodules.base import ImageDataset
from datamodules.images import Crop, Filter, ImageFiles, ImageFolder
from zoo.draws import stream_seed


@dataclass(frozen=True)
class Whole(Crop):
    """No crop: an image that is not square is squeezed into a square."""

    def square(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        return 0, 0, *size


class Squeezed(ImageFolder):
    """Whole images, squeezed into a square.

    Args:
        path: folder or zip file.
        filter, flip: as in ``ImageFolder``.
    """

    def __init__(self, path: str, filter: Filter = "bilinear", flip: bool = True, **kwargs: Any) -> None:
        super().__init__(path, crop=Whole(), filter=filter, flip=flip, **kwargs)


class CroppedImages(ImageDataset):
    """Training images with a random crop along the longer side for each draw.

    Args:
        source, resolution, flip_seed: as in ``ImageDataset``.
        crop_seed: of the positions of the crops.
    """

    def __init__(self, source: ImageFiles, resolution: int, flip_seed: int | None, crop_seed: int) -> None:
        super().__init__(source, resolution, flip_seed)
        self.crop_seed = crop_seed

    def read(self, index: int, draw: int | None, resolution: int) -> dict[str, Any]:
        if draw is None:
            return super().read(index, draw, resolution)
        image = self.source.image(index)
        shorter, longer = sorted(image.size)
        slack = resolution * longer // shorter - resolution
        chance = stream_seed("crop", self.crop_seed, draw) / 2**63
        start = min(int(chance * (slack + 1)), slack) - round(slack / 2)
        wide = image.width > image.height
        crop = Crop(shorter=resolution, right=start if wide else 0, down=0 if wide else start)
        return self.source.cut(index, image, resolution, crop)


class RandomlyCropped(ImageFolder):
    """Images resized by their shorter side and cropped along the longer one: at random, for scores in the middle.

    Args:
        path: folder or zip file.
        filter, flip: as in ``ImageFolder``.
    """

    def __init__(self, path: str, filter: Filter = "bilinear", flip: bool = True, **kwargs: Any) -> None:
        super().__init__(path, filter=filter, flip=flip, **kwargs)

    def train_dataset(self) -> CroppedImages:
        return CroppedImages(self.files, self.resolution, self.seed if self.flip else None, self.seed)
