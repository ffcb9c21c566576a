"""Pictures that are brought to a square in other ways than by a crop in the middle."""

from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch.utils.data import DataLoader

from datamodules.base import EndlessBatches, Key, Pictures
from datamodules.images import Crop, Filter, ImageFiles, ImageFolder, decode, fit
from zoo.draws import stream_seed


@dataclass(frozen=True)
class Whole(Crop):
    """Nothing is cut off: a picture that is no square is squeezed into one."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return image


class Squeezed(ImageFolder):
    """Whole pictures, squeezed into a square.

    Args:
        path: folder or zip file.
        filter, flip: as in ``ImageFolder``.
    """

    def __init__(self, path: str, filter: Filter = "bilinear", flip: bool = True, **kwargs: Any) -> None:
        super().__init__(path, crop=Whole(), filter=filter, flip=flip, **kwargs)


class CroppedFiles(ImageFiles):
    """Pictures cut to a square somewhere along their longer side."""

    def somewhere(self, index: int, resolution: int, chance: float) -> Any:
        """The picture with this index, its square ``chance`` of the way from the left or top to the other end."""
        image = decode(self.container.read(self.open()[index]))
        shorter, longer = sorted(image.size)
        slack = resolution * longer // shorter - resolution
        start = min(int(chance * (slack + 1)), slack) - round(slack / 2)
        wide = image.width > image.height
        crop = Crop(shorter=resolution, right=start if wide else 0, down=0 if wide else start)
        return fit(image, resolution, self.filter, crop)


class CroppedPictures(Pictures):
    """Training pictures with a crop of their own for each draw."""

    crop_seed = 0

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, draw, resolution = key
        chance = stream_seed("crop", self.crop_seed, draw) / 2**63
        image = self.source.somewhere(index, resolution, chance)
        if self.flip_seed is not None and stream_seed("flip", self.flip_seed, draw) % 2:
            image = image.flip(-1)
        return {"image": image / 127.5 - 1, "index": index}


class RandomlyCropped(ImageFolder):
    """Pictures resized by their shorter side; in training cut anywhere along the longer one, for scores in the middle.

    Args:
        path: folder or zip file.
        filter, flip: as in ``ImageFolder``.
    """

    def __init__(self, path: str, filter: Filter = "bilinear", flip: bool = True, **kwargs: Any) -> None:
        super().__init__(path, filter=filter, flip=flip, **kwargs)
        files = self.files
        self.files = CroppedFiles(path, files.filter, files.on_bad, files.manifests, files.crop)

    def train_dataloader(self) -> DataLoader:
        """Endless batches, from the first one that was not trained yet."""
        batches = EndlessBatches(len(self.files), self.stages, self.seed, *self._process(), start=self.batches_done)
        pictures = CroppedPictures(self.files, self.resolution, self.seed if self.flip else None)
        pictures.crop_seed = self.seed
        return DataLoader(pictures, batch_sampler=batches, num_workers=self.num_workers)
