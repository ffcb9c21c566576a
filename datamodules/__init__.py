"""LightningDataModules: folders and zips of images, published data sets, and procedural cars."""

import zoo  # before torch: sets how its threads wait
from datamodules.cars import Cars
from datamodules.images import ImageFolder
from datamodules.published import AFHQ, FFHQ, Bedrooms, Carla, Cats, CelebA, CompCars

__all__ = ["AFHQ", "FFHQ", "Bedrooms", "Carla", "Cars", "Cats", "CelebA", "CompCars", "ImageFolder"]
