"""Data sets of the published experiments. None is downloaded: each docstring gives its source and expected layout.

The defaults of CelebA, Cats and Carla are pi-GAN's: its crops, and its way of resizing, which keeps the first pixel of
each cell. Those of the others are Pillow's Lanczos filter and no crop, as in most published programs.
"""

from typing import Any

from datamodules.images import Crop, Filter, ImageFolder


class CelebA(ImageFolder):
    """200,000 faces of celebrities: ``img_align_celeba`` (178x218) from mmlab.ie.cuhk.edu.hk/projects/CelebA.html.

    For non-commercial research only (its licence).

    Args:
        path: the folder ``img_align_celeba``, or a zip of it.
        crop, filter, flip: as in ``ImageFolder``.
    """

    def __init__(
        self,
        path: str = "data/celeba/img_align_celeba",
        crop: Crop = Crop(side=256, shorter=320),
        filter: Filter = "subsample",
        flip: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(path, crop=crop, filter=filter, flip=flip, **kwargs)
        self.name = "celeba"


class Cats(ImageFolder):
    """Faces of cats, cut out of the Cat Head data set of Zhang et al. (ECCV 2008); GRAF's script makes 9,407 of 64x64.

    Args:
        path: folder or zip of the square images.
        filter, flip: as in ``ImageFolder``.
    """

    def __init__(self, path: str = "data/cats", filter: Filter = "subsample", flip: bool = True, **kwargs: Any) -> None:
        super().__init__(path, filter=filter, flip=flip, **kwargs)
        self.name = "cats"


class Carla(ImageFolder):
    """10,000 images of 18 cars in the simulator CARLA, on white: from GRAF, github.com/autonomousvision/graf.

    Args:
        path: folder or zip of the images (512x512).
        filter, flip: as in ``ImageFolder``.
    """

    def __init__(
        self, path: str = "data/carla/images", filter: Filter = "subsample", flip: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(path, filter=filter, flip=flip, **kwargs)
        self.name = "carla"


class FFHQ(ImageFolder):
    """70,000 faces from Flickr, aligned, 1024x1024 or smaller: github.com/NVlabs/ffhq-dataset.

    For non-commercial use (CC BY-NC-SA 4.0; each image has a licence of its own).

    Args:
        path: folder or zip of the images.
        flip: as in ``ImageFolder``.
    """

    def __init__(self, path: str = "data/ffhq", flip: bool = True, **kwargs: Any) -> None:
        super().__init__(path, flip=flip, **kwargs)
        self.name = "ffhq"


class CompCars(ImageFolder):
    """136,726 images of cars from the web: mmlab.ie.cuhk.edu.hk/datasets/comp_cars; for non-commercial research.

    Args:
        path: folder or zip of the images.
        flip: as in ``ImageFolder``.
    """

    def __init__(self, path: str = "data/compcars", flip: bool = True, **kwargs: Any) -> None:
        super().__init__(path, flip=flip, **kwargs)
        self.name = "compcars"


class Bedrooms(ImageFolder):
    """Bedrooms of LSUN (github.com/fyu/lsun), its LMDB unpacked into images.

    Args:
        path: folder or zip of the images.
        flip: as in ``ImageFolder``.
    """

    def __init__(self, path: str = "data/lsun/bedroom", flip: bool = True, **kwargs: Any) -> None:
        super().__init__(path, flip=flip, **kwargs)
        self.name = "bedroom"


class AFHQ(ImageFolder):
    """About 15,000 faces of cats, dogs and wild animals, 512x512: AFHQv2 of github.com/clovaai/stargan-v2.

    For non-commercial use (CC BY-NC 4.0).

    Args:
        path: folder or zip of the images; ``.../train/cat`` for cats alone.
        flip: as in ``ImageFolder``.
    """

    def __init__(self, path: str = "data/afhqv2/train", flip: bool = True, **kwargs: Any) -> None:
        super().__init__(path, flip=flip, **kwargs)
        self.name = "afhq"
