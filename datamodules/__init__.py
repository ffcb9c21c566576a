"""LightningDataModules: folders and zips of images, published data sets, and procedural cars."""

import zoo  # before torch: sets how its threads wait
from datamodules.cars import Cars
from datamodules.images import ImageFolder
from datamodules.objects import CLEVR, CUB, LSUN, Bedrooms, Carla, CompCars, SRNCars
from datamodules.published import AFHQ, FFHQ, Cats, CelebA, CelebAHQ, FFHQRecropped

__all__ = [
    "AFHQ",
    "CLEVR",
    "CUB",
    "FFHQ",
    "LSUN",
    "Bedrooms",
    "Carla",
    "Cars",
    "Cats",
    "CelebA",
    "CelebAHQ",
    "CompCars",
    "FFHQRecropped",
    "ImageFolder",
    "SRNCars",
]
