"""Where pictures come from: LightningDataModules, one file a source, on the loaders of ``datamodules.base``."""

from datamodules.cars import Cars
from datamodules.images import ImageFolder

__all__ = ["Cars", "ImageFolder"]
