"""The published pi-GAN's checkpoints, from its README: zips with the generator and two EMAs.

Its repository has no licence file and states no FID; those here are the paper's, at 128x128.
"""

from zoo.weights.catalogue import CELEBA, Score, row

FOLDER = "https://drive.google.com/file/d"
PROTOCOL = "at 128x128; numbers of images are not stated, and the program writes them as JPEG"
SOURCE = "paper, table 1"
CARLA = "not stated; images that GRAF's authors rendered with CARLA"

RELEASED = [
    row(
        "pigan",
        name,
        config,
        "drive",
        f"{FOLDER}/{identity}/view",
        file,
        paper="https://arxiv.org/abs/2012.00926",
        weights_licence=None,
        data_licence=data,
        fid=Score(fid, PROTOCOL, SOURCE),
    )
    for name, config, file, identity, fid, data in [
        ("celeba-64", "celeba64", "CelebA.zip", "1bRB4-KxQplJryJvqyEa8Ixkf_BVm4Nn6", 14.7, CELEBA),
        ("cats-64", "cats64", "Cats.zip", "1WBA-WI8DA7FqXn7__0TdBO0eO08C_EhG", 16.6, None),
        ("carla-128", "carla128", "CARLA.zip", "1n4eXijbSD48oJVAbAV4hgdcTbT3Yv4xO", 29.2, CARLA),
    ]
]
