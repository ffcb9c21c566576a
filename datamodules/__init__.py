"""Where pictures come from: LightningDataModules, one file a source, on the loaders of ``datamodules.base``."""

from datamodules.cars import Cars
from datamodules.images import ImageFolder
from datamodules.published import AFHQ, FFHQ, Carla, Cats, CelebA

__all__ = ["AFHQ", "FFHQ", "Carla", "Cars", "Cats", "CelebA", "ImageFolder"]
