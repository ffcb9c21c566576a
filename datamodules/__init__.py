"""Where pictures come from: LightningDataModules, one file a source, on the loaders of ``datamodules.base``."""

from datamodules.cars import Cars

__all__ = ["Cars"]
