"""Faces of people and animals: data sets of the published experiments, as they were released.

None is downloaded, and none could be tried here: the trees follow the documentation that each class cites. A path is
the released folder, a zip of it, or the folder of images in it; ``preset`` is one of ``datamodules.presets``, and a
crop, filter or flip that is given wins over it.
"""

from functools import partial
from typing import Any, Literal

from datamodules.images import Crop, Filter, ImageFolder
from datamodules.objects import CLEVR, CUB, LSUN, Bedrooms, Carla, CompCars, SRNCars
from datamodules.prepared import (
    cat_faces,
    is_image_or_array,
    of_crops,
    of_points,
    partition,
    recropped,
    upright,
    with_arrays,
    with_crops,
)
from datamodules.presets import preset_of
from datamodules.releases import ANY, Release, Split, in_folder, numbered

# Class paths of earlier versions begin with datamodules.published.
__all__ = [
    "AFHQ",
    "CLEVR",
    "CUB",
    "FFHQ",
    "LSUN",
    "Bedrooms",
    "Carla",
    "Cats",
    "CelebA",
    "CelebAHQ",
    "CompCars",
    "FFHQRecropped",
    "SRNCars",
]

FFHQ_SPLIT = partial(numbered, range(60_000), range(60_000, 70_000))
TREES = {
    "celeba": Release(
        "CelebA",
        "mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        """
img_align_celeba/000001.jpg
img_align_celeba/...
list_eval_partition.txt  (or Eval/; for splits)
        """,
        (r"(.*/)?img_align_celeba(_png)?/.+", ANY),
        partition,
    ),
    "celebahq": Release(
        "CelebA-HQ",
        "github.com/tkarras/progressive_growing_of_gans",
        """
00000.png or 0.jpg or imgHQ00000.npy
...
or, with splits:
train/female/000004.jpg
val/male/...
        """,
        choose=partial(in_folder, {"train": ("train",), "test": ("val", "test")}),
        is_image=is_image_or_array,
    ),
    "ffhq": Release(
        "FFHQ",
        "github.com/NVlabs/ffhq-dataset",
        """
images1024x1024/00000/00000.png
images1024x1024/01000/01000.png
...
or StyleGAN's zip:
00000/img00000000.png
dataset.json
        """,
        (r"(.*/)?images1024x1024/.+", r"(?!(.*/)?in-the-wild-images/).*"),
        FFHQ_SPLIT,
    ),
    "ffhq_recropped": Release(
        "FFHQ aligned as for EG3D",
        "github.com/NVlabs/eg3d (dataset_preprocessing/ffhq)",
        """
00000.png  (1500x1500, or in 00000/)
...
cropping_params.json
        """,
        choose=FFHQ_SPLIT,
    ),
    "afhq": Release(
        "AFHQ",
        "github.com/clovaai/stargan-v2",
        """
train/cat/flickr_cat_000002.jpg  (.png in v2)
train/dog/...
train/wild/...
test/cat/...  (val/ in v1)
        """,
        choose=partial(in_folder, {"train": ("train",), "test": ("test", "val")}),
    ),
    "cats": Release(
        "the cats",
        "www.kaggle.com/crawford/cat-dataset",
        """
CAT_00/00000001_000.jpg
CAT_00/00000001_000.jpg.cat  (not of prepared ones)
...
CAT_06/...
        """,
        (r"(.*/)?CAT_\d\d/.+", ANY),
    ),
}


class CelebA(ImageFolder):
    """202,599 faces of celebrities, 178x218: mmlab.ie.cuhk.edu.hk/projects/CelebA.html; non-commercial research only.

    ``img_align_celeba/000001.jpg`` and on; ``list_eval_partition.txt`` beside that folder, or in ``Eval`` there, has
    the split. Source: ``torchvision.datasets.CelebA``; ``Eval`` is that of the download page, not confirmed.

    Args:
        path: the folder that holds ``img_align_celeba``, that folder itself, or a zip of it.
        crop, filter, flip: as in ``ImageFolder``; instead of the preset's.
        preset: ``pigan`` (256 pixels of the image resized to 320, first pixel of each cell), ``graf`` and ``giraffe``
            (the 108 pixels in the middle, at resolutions up to 128), ``volumegan``, ``plain``.
        split: all, train (162,770), val (19,867) or test (19,962).
    """

    def __init__(
        self,
        path: str = "data/celeba/img_align_celeba",
        crop: Crop | None = None,
        filter: Filter | None = None,
        flip: bool | None = None,
        preset: str = "pigan",
        split: Literal["train", "val", "test", "all"] = "all",
        **kwargs: Any,
    ) -> None:
        use = preset_of("celeba", preset, crop, filter, flip)
        super().__init__(path, crop=use.crop, filter=use.filter, flip=use.flip, **kwargs)
        self.name, self.files.layout = "celeba", TREES["celeba"].layout(split)


class CelebAHQ(ImageFolder):
    """30,000 faces, 1024x1024, made of CelebA: github.com/tkarras/progressive_growing_of_gans; non-commercial only.

    Terms are those of CelebA and of that program (CC BY-NC 4.0). A folder or zip of images, or of arrays ``.npy``
    (1, 3, H, W) of 8 bits or of floats from 0 to 1, as GRAF's ``graf/datasets.py`` reads them; or ``train/female`` ...
    ``val/male``, as of github.com/clovaai/stargan-v2.

    Args:
        path: that folder or zip.
        crop, filter, flip: as in ``ImageFolder``; instead of the preset's.
        preset: ``graf`` and ``giraffe`` (the 650 pixels in the middle), ``plain``.
        split: all; train or test where the images lie in ``train`` and ``val``.
    """

    def __init__(
        self,
        path: str = "data/celeba_hq",
        crop: Crop | None = None,
        filter: Filter | None = None,
        flip: bool | None = None,
        preset: str = "plain",
        split: Split = "all",
        **kwargs: Any,
    ) -> None:
        use = preset_of("celebahq", preset, crop, filter, flip)
        super().__init__(path, crop=use.crop, filter=use.filter, flip=use.flip, **kwargs)
        self.name, self.files.layout = "celebahq", TREES["celebahq"].layout(split, with_arrays)


class FFHQ(ImageFolder):
    """70,000 faces from Flickr, aligned, 1024x1024: github.com/NVlabs/ffhq-dataset, whose README has the tree.

    For non-commercial use (CC BY-NC-SA 4.0; each image has a licence of its own). The released folder, whose
    ``images1024x1024`` is taken, or the zip that StyleGAN2-ADA's ``dataset_tool.py`` makes of it, of any size
    (``00000/img00000000.png`` and ``dataset.json``; its README), also EG3D's.

    Args:
        path: folder or zip.
        crop, filter, flip: as in ``ImageFolder``; instead of the preset's.
        preset: ``cips3d``, ``stylenerf``, ``volumegan``, ``giraffe``, ``eg3d`` (not mirrored: its zip is already),
            ``plain``.
        split: all, train (the first 60,000) or test (the last 10,000, which the README calls validation). The papers
            take all.
    """

    def __init__(
        self,
        path: str = "data/ffhq",
        flip: bool | None = None,
        crop: Crop | None = None,
        filter: Filter | None = None,
        preset: str = "plain",
        split: Split = "all",
        **kwargs: Any,
    ) -> None:
        use = preset_of("ffhq", preset, crop, filter, flip)
        super().__init__(path, crop=use.crop, filter=use.filter, flip=use.flip, **kwargs)
        self.name, self.files.layout = "ffhq", TREES["ffhq"].layout(split)


class FFHQRecropped(ImageFolder):
    """FFHQ with EG3D's crops of 512x512, in which the face is as large as the cameras of EG3D say.

    Faces are cut out here, from the landmarks in ``cropping_params.json``; no face detector is needed. The images are
    those that ``dataset_preprocessing/ffhq`` of github.com/NVlabs/eg3d makes first, 1500x1500, of FFHQ's
    ``in-the-wild-images``; its ``runme.py`` names the address of the json. Images without a line there are left out.
    Read off ``crop_images.py`` there, and never compared with its output. Licence as of ``FFHQ``.

    Args:
        path: folder or zip of these images and the json.
        crop, filter, flip: as in ``ImageFolder``, of the crops; instead of the preset's.
        preset: ``eg3d`` (not mirrored) or others of ``FFHQ``.
        split: as of ``FFHQ``.
    """

    def __init__(
        self,
        path: str = "data/ffhq/realign1500",
        flip: bool | None = None,
        crop: Crop | None = None,
        filter: Filter | None = None,
        preset: str = "eg3d",
        split: Split = "all",
        **kwargs: Any,
    ) -> None:
        use = preset_of("ffhq", preset, crop, filter, flip)
        super().__init__(path, crop=use.crop, filter=use.filter, flip=use.flip, **kwargs)
        layout = TREES["ffhq_recropped"].layout(split, also=with_crops, prepare=recropped, digest=of_crops)
        self.name, self.files.layout = "ffhq_recropped", layout


class AFHQ(ImageFolder):
    """Faces of cats, dogs and wild animals, 512x512: github.com/clovaai/stargan-v2, whose README has the tree.

    16,130 JPEGs in v1, whose folder ``val`` is its test set, or 15,803 PNGs in v2. For non-commercial use
    (CC BY-NC 4.0). That v2's folder is called ``test`` is not confirmed by that README; programs that read it say so.

    Args:
        path: folder or zip; ``.../train/cat`` for cats alone.
        crop, filter, flip: as in ``ImageFolder``; instead of the preset's.
        preset: ``cips3d``, ``stylenerf`` (not mirrored), ``eg3d`` (not mirrored: its zip is already), ``plain``.
        split: all that is in the path, train, or test.
    """

    def __init__(
        self,
        path: str = "data/afhqv2/train",
        flip: bool | None = None,
        crop: Crop | None = None,
        filter: Filter | None = None,
        preset: str = "plain",
        split: Split = "all",
        **kwargs: Any,
    ) -> None:
        use = preset_of("afhq", preset, crop, filter, flip)
        super().__init__(path, crop=use.crop, filter=use.filter, flip=use.flip, **kwargs)
        self.name, self.files.layout = "afhq", TREES["afhq"].layout(split)


class Cats(ImageFolder):
    """Faces of cats, of the Cat Head data set of Zhang et al. (ECCV 2008): www.kaggle.com/crawford/cat-dataset.

    Either the 9,407 images of 64x64 that GRAF's ``data/preprocess_cats.py`` makes, GIRAFFE's ``cats.zip``, or the
    10,000 original photographs with nine points each in ``<image>.cat`` (academictorrents.com describes the format).
    Those are made upright and cut out here, as wide as from ear to ear, with the eyes at two fifths of the height;
    smaller ones than 64 pixels are left out. Never compared with GRAF's own images. Licence: none stated.

    Args:
        path: folder or zip.
        crop, filter, flip: as in ``ImageFolder``; instead of the preset's.
        preset: ``pigan`` (first pixel of each cell), ``graf``, ``giraffe``, ``volumegan``, ``plain``.
    """

    def __init__(
        self,
        path: str = "data/cats",
        filter: Filter | None = None,
        flip: bool | None = None,
        crop: Crop | None = None,
        preset: str = "pigan",
        **kwargs: Any,
    ) -> None:
        use = preset_of("cats", preset, crop, filter, flip)
        super().__init__(path, crop=use.crop, filter=use.filter, flip=use.flip, **kwargs)
        self.name = "cats"
        self.files.layout = TREES["cats"].layout(also=cat_faces, prepare=upright, digest=of_points)
