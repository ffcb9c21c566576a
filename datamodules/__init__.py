"""Where pictures come from: LightningDataModules, one file a source, on the loaders of ``datamodules.base``."""

from datamodules.cars import Cars
from datamodules.images import ImageFolder
from datamodules.published import Carla, Cats, CelebA

__all__ = ["Carla", "Cars", "Cats", "CelebA", "ImageFolder"]
