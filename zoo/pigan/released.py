"""The published pi-GAN's checkpoints, from its README: zips with the generator and two averages.

Its repository has no licence file and states no FID; those here are the paper's, at 128x128.
"""

from zoo.weights.catalogue import Address, Released, Score

PROTOCOL = "at 128x128; numbers of pictures are not stated, and the program writes them as JPEG"
SEEN = "the paper's table 1, as a benchmark page repeats it"


def pigan(name: str, config: str, file: str, identity: str, fid: float, data: str | None) -> Released:
    """A row; ``identity`` is Google Drive's."""
    return Released(
        name=f"pigan-{name}.official",
        config=f"pigan/{config}",
        paper="https://arxiv.org/abs/2012.00926",
        file=file,
        addresses=(Address("drive", f"https://drive.google.com/file/d/{identity}/view"),),
        weights_licence=None,
        data_licence=data,
        fid=Score(fid, PROTOCOL, SEEN),
        note="The repository has no licence: by default all rights are reserved.",
    )


RELEASED = [
    pigan(
        "celeba-64",
        "celeba64",
        "CelebA.zip",
        "1bRB4-KxQplJryJvqyEa8Ixkf_BVm4Nn6",
        14.7,
        "CelebA: research that is not commercial",
    ),
    pigan("cats-64", "cats64", "Cats.zip", "1WBA-WI8DA7FqXn7__0TdBO0eO08C_EhG", 16.6, None),
    pigan(
        "carla-128",
        "carla128",
        "CARLA.zip",
        "1n4eXijbSD48oJVAbAV4hgdcTbT3Yv4xO",
        29.2,
        "not stated; pictures that GRAF's authors rendered with CARLA",
    ),
]
