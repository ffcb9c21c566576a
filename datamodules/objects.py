"""Cars, scenes and birds: data sets of the published experiments, as they were released.

None is downloaded, and none could be tried here: the trees follow the documentation that each class cites. A path is
the released folder, a zip of it, or the folder of images in it; ``preset`` is one of ``datamodules.presets``, and a
crop, filter or flip that is given wins over it.
"""

from dataclasses import replace
from functools import partial
from typing import Any, Literal

from datamodules.base import ImageDataset
from datamodules.images import Crop, Filter, ImageFolder
from datamodules.lmdb_images import first_of, lmdb_in
from datamodules.prepared import bird_split, cut_out, listed, of_masks, with_masks
from datamodules.presets import preset_of
from datamodules.releases import ANY, Release, Split, in_folder
from datamodules.resized import CroppedImages
from zoo.utils.image_folders import Layout
from zoo.utils.ranges import at_least, given

TREES = {
    "carla": Release(
        "GRAF's CARLA",
        "github.com/autonomousvision/graf (data/download_carla.sh)",
        """
images/000000.png  (or without images/)
...
        """,
        (r"(.*/)?images/.+", ANY),
    ),
    "compcars": Release(
        "CompCars",
        "mmlab.ie.cuhk.edu.hk/datasets/comp_cars",
        """
data/image/78/1/2014/3ac218c0c6c378.jpg
data/image/...
data/train_test_split/classification/train.txt  (for splits)
or GIRAFFE's comprehensive_cars.zip:
images/....jpg
        """,
        (r"(.*/)?image/\d+/\d+/[^/]+/.+", r"(?!(.*/)?part/).*"),
        listed,
    ),
    "lsun": Release(
        "LSUN's {category}",
        "github.com/fyu/lsun",
        """
{category}_train_lmdb/data.mdb
{category}_val_lmdb/data.mdb
or images that were exported from it
        """,
    ),
    "clevr": Release(
        "GIRAFFE's CLEVR",
        "github.com/autonomousvision/giraffe (scripts/download_dataset.sh)",
        """
images/....png
fid_files/clevr2_256.npz  (not needed)
prior/clevr2_256.npz  (where objects are)
        """,
        (r"(.*/)?images/.+", ANY),
    ),
    "cub": Release(
        "CUB-200-2011",
        "www.vision.caltech.edu/datasets/cub_200_2011",
        """
images/001.Black_footed_Albatross/Black_Footed_Albatross_0001_796111.jpg
images/...
images.txt
bounding_boxes.txt
train_test_split.txt
segmentations/001.Black_footed_Albatross/....png  (or beside the folder)
        """,
        (r"(.*/)?images/\d{3}\.[^/]+/.+",),
        bird_split,
    ),
    "srncars": Release(
        "SRN's cars",
        "github.com/vsitzmann/scene-representation-networks",
        """
cars_train/<object>/rgb/000000.png
cars_train/<object>/pose/000000.txt
cars_train/<object>/intrinsics.txt
cars_val/...  cars_test/...
        """,
        (r"(.*/)?rgb/[^/]+",),
        partial(in_folder, {"train": ("cars_train",), "val": ("cars_val",), "test": ("cars_test",)}),
    ),
}

CUT_OUT = {"also": with_masks, "prepare": cut_out, "digest": of_masks}
LsunSplit = Literal["train", "test"]
CarSplit = Literal["train", "val", "test", "all"]


def lsun_layout(category: str, split: LsunSplit, limit: int | None) -> Layout:
    """How images of a category of LSUN are read; of a missing package nothing is said before their first use."""
    release = TREES["lsun"]
    of = replace(release, title=release.title.format(category=category), tree=release.tree.format(category=category))
    name = f"{category}_{'train' if split == 'train' else 'val'}_lmdb"
    return of.layout(container=partial(lmdb_in, name), also=None if limit is None else partial(first_of, limit))


def randomly_cropped(data: ImageFolder) -> CroppedImages:
    """Training items with a random square of each."""
    return CroppedImages(data.files, data.resolution, data.seed if data.flip else None, data.seed)


class Carla(ImageFolder):
    """10,000 images of 18 cars in the simulator CARLA, 512x512, on white: github.com/autonomousvision/graf.

    ``data/download_carla.sh`` there fetches ``carla.zip`` and, for the cameras, ``data/download_carla_poses.sh``
    ``carla_poses.zip``. GRAF reads PNGs in the folder itself, pi-GAN in ``images``; which one the zip holds is not
    confirmed, and both are read. Licence: none stated for the images.

    Args:
        path: folder or zip.
        crop, filter, flip: as in ``ImageFolder``; instead of the preset's.
        preset: ``pigan`` (first pixel of each cell), ``graf``, ``volumegan``, ``plain``; only the last mirrors.
    """

    def __init__(
        self,
        path: str = "data/carla/images",
        filter: Filter | None = None,
        flip: bool | None = None,
        crop: Crop | None = None,
        preset: str = "pigan",
        **kwargs: Any,
    ) -> None:
        use = preset_of("carla", preset, crop, filter, flip)
        super().__init__(path, crop=use.crop, filter=use.filter, flip=use.flip, **kwargs)
        self.name, self.files.layout = "carla", TREES["carla"].layout()


class CompCars(ImageFolder):
    """136,726 images of cars from the web: mmlab.ie.cuhk.edu.hk/datasets/comp_cars; non-commercial research only.

    ``data/image/<make>/<model>/<year>/<image>.jpg``, as ``tensorbay.opendataset.CompCars`` describes it; images of
    parts are left out. Or ``images/*.jpg`` of GIRAFFE's ``comprehensive_cars.zip``.

    Args:
        path: folder or zip.
        crop, filter, flip: as in ``ImageFolder``; instead of the preset's.
        preset: ``giraffe`` (a random square along the longer side), ``stylenerf`` (not mirrored), ``volumegan``,
            ``plain``.
        split: all; train or test of the release's classification task, which has a part of the images only.
    """

    def __init__(
        self,
        path: str = "data/compcars",
        flip: bool | None = None,
        crop: Crop | None = None,
        filter: Filter | None = None,
        preset: str = "plain",
        split: Split = "all",
        **kwargs: Any,
    ) -> None:
        use = preset_of("compcars", preset, crop, filter, flip)
        super().__init__(path, crop=use.crop, filter=use.filter, flip=use.flip, **kwargs)
        self.name, self.files.layout = "compcars", TREES["compcars"].layout(split)
        self.random_crop = use.random_crop

    def train_dataset(self) -> ImageDataset:
        return randomly_cropped(self) if self.random_crop else super().train_dataset()


class LSUN(ImageFolder):
    """Scenes and objects of LSUN, 256 pixels on the shorter side: github.com/fyu/lsun, whose README has the format.

    Read from the LMDB itself, through the package ``lmdb`` (``pip install 'gan3d-zoo[lsun]'``), or from images that
    LSUN's ``data.py`` exported; a zip of an LMDB must be unpacked. Every image is checked at the first use, which
    takes hours for the 3,033,042 bedrooms: ``limit`` takes less. Licence: none found.

    Args:
        path: the folder that holds ``<category>_train_lmdb``, that LMDB itself, or a folder or zip of images.
        category: bedroom, church_outdoor ...
        crop, filter, flip: as in ``ImageFolder``; instead of the preset's.
        preset: ``giraffe`` (squeezed to a square), ``giraffe2d`` (a random square along the longer side),
            ``volumegan``, ``plain``.
        split: train, or test for ``<category>_val_lmdb``; of images that were exported all are taken.
        limit: number of images, the first ones by key; all by default.
    """

    def __init__(
        self,
        path: str = "data/lsun",
        category: str = "bedroom",
        crop: Crop | None = None,
        filter: Filter | None = None,
        flip: bool | None = None,
        preset: str = "plain",
        split: LsunSplit = "train",
        limit: int | None = None,
        **kwargs: Any,
    ) -> None:
        use = preset_of("lsun", preset, crop, filter, flip)
        super().__init__(path, crop=use.crop, filter=use.filter, flip=use.flip, **kwargs)
        self.name, self.files.layout = category, lsun_layout(category, split, limit)
        self.random_crop = use.random_crop
        at_least(1, self, **given(limit=limit))

    def train_dataset(self) -> ImageDataset:
        return randomly_cropped(self) if self.random_crop else super().train_dataset()


class Bedrooms(ImageFolder):
    """Bedrooms of LSUN, whose tree, licence and presets are those of ``LSUN``.

    Args:
        path: folder or zip of exported images, or what ``LSUN`` reads.
        crop, filter, flip: as in ``ImageFolder``; instead of the preset's.
        preset: as of ``LSUN``, but for its random squares.
    """

    def __init__(
        self,
        path: str = "data/lsun/bedroom",
        flip: bool | None = None,
        crop: Crop | None = None,
        filter: Filter | None = None,
        preset: str = "plain",
        **kwargs: Any,
    ) -> None:
        use = preset_of("lsun", preset, crop, filter, flip)
        super().__init__(path, crop=use.crop, filter=use.filter, flip=use.flip, **kwargs)
        self.name, self.files.layout = "bedroom", lsun_layout("bedroom", "train", None)


class CLEVR(ImageFolder):
    """Scenes of simple objects, rendered for GIRAFFE with CLEVR's program: github.com/autonomousvision/giraffe.

    ``scripts/download_dataset.sh`` there fetches ``clevr2.zip`` (two objects) and ``clevr2345.zip`` (two to five);
    its configs read ``images/*.png`` and ``prior/``. Licence: none stated for the images.

    Args:
        path: folder or zip.
        crop, filter, flip: as in ``ImageFolder``; instead of the preset's.
        preset: ``giraffe`` or ``plain``.
    """

    def __init__(
        self,
        path: str = "data/clevr2",
        crop: Crop | None = None,
        filter: Filter | None = None,
        flip: bool | None = None,
        preset: str = "giraffe",
        **kwargs: Any,
    ) -> None:
        use = preset_of("clevr", preset, crop, filter, flip)
        super().__init__(path, crop=use.crop, filter=use.filter, flip=use.flip, **kwargs)
        self.name, self.files.layout = "clevr", TREES["clevr"].layout()


class CUB(ImageFolder):
    """11,788 photographs of birds of 200 species: www.vision.caltech.edu/datasets/cub_200_2011.

    ``CUB_200_2011`` with ``images.txt``, ``bounding_boxes.txt``, ``train_test_split.txt``, as its README says, and the
    masks ``segmentations``, which are released by themselves, in it or beside it. Each bird is put on white: the square
    around its box, without what its mask leaves out, as GRAF's ``data/preprocess_cub.py`` does. GRAF takes 8,444 of
    them: its ``data/cub/filtered_files.txt``, put into the folder, selects them. Images from the web; licence: none
    stated on the page, for non-commercial research (not confirmed).

    Args:
        path: folder or zip.
        crop, filter, flip: as in ``ImageFolder``, of the cut-outs; instead of the preset's.
        preset: ``graf`` (not mirrored) or ``plain``.
        split: all, train (5,994) or test (5,794).
        cut_out: birds on white; else whole photographs, for which no masks are needed.
    """

    def __init__(
        self,
        path: str = "data/CUB_200_2011",
        crop: Crop | None = None,
        filter: Filter | None = None,
        flip: bool | None = None,
        preset: str = "graf",
        split: Split = "all",
        cut_out: bool = True,
        **kwargs: Any,
    ) -> None:
        use = preset_of("cub", preset, crop, filter, flip)
        super().__init__(path, crop=use.crop, filter=use.filter, flip=use.flip, **kwargs)
        parts = CUT_OUT if cut_out else {}
        self.name, self.files.layout = "cub", TREES["cub"].layout(split, **parts)


class SRNCars(ImageFolder):
    """Renderings of ShapeNet's cars with cameras, 128x128: github.com/vsitzmann/scene-representation-networks.

    ``cars_train/<object>/rgb/000000.png``, ``pose/000000.txt`` and ``intrinsics.txt``, on white, as ``dataio.py`` there
    and pixelNeRF's ``SRNDataset`` read them. For those who have registered with ShapeNet (not confirmed).

    Args:
        path: the folder that holds ``cars_train``, that folder itself, or a zip.
        crop, filter, flip: as in ``ImageFolder``; instead of the preset's.
        preset: ``eg3d`` (not mirrored: cameras are not) or ``plain``.
        split: train, val or test: objects of ``cars_train``, ``cars_val`` or ``cars_test``; or all.
    """

    def __init__(
        self,
        path: str = "data/srn_cars",
        crop: Crop | None = None,
        filter: Filter | None = None,
        flip: bool | None = None,
        preset: str = "eg3d",
        split: CarSplit = "train",
        **kwargs: Any,
    ) -> None:
        use = preset_of("srncars", preset, crop, filter, flip)
        super().__init__(path, crop=use.crop, filter=use.filter, flip=use.flip, **kwargs)
        self.name, self.files.layout = "srncars", TREES["srncars"].layout(split)
