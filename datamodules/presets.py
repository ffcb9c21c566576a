"""How published programs make squares of the images of a data set: which crop, which filter, mirrored or not.

``PRESETS[data set][paper]``; a crop, filter or flip that is given beside a preset wins over its own. Where a paper has
no settings for a data set, it has no preset of it here.
"""

from dataclasses import dataclass, replace

from datamodules.images import Crop, Filter
from datamodules.resized import Whole
from zoo.utils.errors import UserError, near, printable

CENTRE = Crop()


@dataclass(frozen=True)
class Preset:
    """From an image to a square of it.

    Args:
        crop: that square.
        filter: for resizing.
        flip: half of the training images are mirrored.
        random_crop: in training, the square lies anywhere along the longer side, for scores in the middle.
    """

    crop: Crop = CENTRE
    filter: Filter = "lanczos"
    flip: bool = True
    random_crop: bool = False


PLAIN = Preset()  # the centre square
AREA = Preset(filter="box")  # cv2's INTER_AREA, which StyleGAN2-ADA's and Hammer's readers take
SQUEEZED = Preset(Whole(), "bilinear")  # torchvision's Resize((size, size))

PRESETS = {
    "celeba": {
        "pigan": Preset(Crop(side=256, shorter=320), "subsample"),
        "graf": Preset(Crop(side=108), "bilinear"),
        "giraffe": Preset(Crop(side=108), "bilinear"),
        "volumegan": AREA,  # of its program, which has no settings of its own for this data set
        "plain": PLAIN,
    },
    "celebahq": {
        "graf": Preset(Crop(side=650), "bilinear"),
        "giraffe": Preset(Crop(side=650), "bilinear"),
        "plain": PLAIN,
    },
    "ffhq": {
        "cips3d": PLAIN,
        "stylenerf": AREA,
        "volumegan": AREA,
        "giraffe": SQUEEZED,
        "eg3d": replace(PLAIN, flip=False),  # its zip holds mirrored copies, each with its own camera
        "plain": PLAIN,
    },
    "afhq": {
        "cips3d": PLAIN,
        "stylenerf": replace(AREA, flip=False),
        "eg3d": replace(PLAIN, flip=False),  # as of FFHQ
        "plain": PLAIN,
    },
    "cats": {
        "pigan": Preset(filter="subsample"),
        "graf": Preset(filter="bilinear"),
        "giraffe": SQUEEZED,
        "volumegan": AREA,  # as of CelebA
        "plain": PLAIN,
    },
    "carla": {
        "pigan": Preset(filter="subsample", flip=False),
        "graf": Preset(filter="bilinear", flip=False),
        "volumegan": replace(AREA, flip=False),  # as of CelebA
        "plain": PLAIN,
    },
    "compcars": {
        "giraffe": Preset(filter="bilinear", random_crop=True),
        "stylenerf": replace(AREA, flip=False),
        "volumegan": AREA,  # as of CelebA
        "plain": PLAIN,
    },
    "lsun": {
        "giraffe": SQUEEZED,  # of churches
        "giraffe2d": Preset(filter="bilinear", random_crop=True),  # of its two-dimensional baseline
        "volumegan": AREA,  # of bedrooms; as of CelebA
        "plain": PLAIN,
    },
    "clevr": {"giraffe": SQUEEZED, "plain": PLAIN},
    "cub": {"graf": Preset(filter="bilinear", flip=False), "plain": PLAIN},
    "srncars": {"eg3d": replace(PLAIN, flip=False), "plain": PLAIN},
}


def preset_of(data: str, name: str, crop: Crop | None, filter: Filter | None, flip: bool | None) -> Preset:
    """A data set's preset, with what is given instead of its own.

    Raises:
        UserError: there is no such preset.
    """
    presets = PRESETS[data]
    if name not in presets:
        raise UserError(
            f"There is no preset '{printable(name, 40)}' of {data}; take one of {', '.join(presets)}."
            f"{near(str(name), list(presets))}"
        )
    preset = presets[name]
    return Preset(
        crop=preset.crop if crop is None else crop,
        filter=preset.filter if filter is None else filter,
        flip=preset.flip if flip is None else flip,
        random_crop=preset.random_crop and crop is None,
    )
