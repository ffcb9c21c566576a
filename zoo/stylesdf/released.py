"""The published StyleSDF's checkpoints, from its ``download_models.py``, which states their sizes and MD5s.

Its repository states no FID; those of the paper are of 256x256 pixels, which none of the files makes.
"""

from zoo.weights.catalogue import FFHQ, row

AFHQ = "AFHQ: CC BY-NC 4.0, all three kinds of animals together"
RENDERED = "The first stage alone: the volume renderer, of 64x64 pixels."
SPHERE = "The renderer as it is when training begins: all of its objects are spheres."

RELEASED = [
    row(
        "stylesdf",
        name,
        config,
        "drive",
        f"https://drive.google.com/uc?id={identity}",
        f"{file}.pt",
        paper="https://arxiv.org/abs/2112.11427",
        weights_licence="CC BY-NC-SA 4.0 (the repository's): not commercial, share alike",
        data_licence=data,
        size=size,
        md5=md5,
        note=note,
    )
    for name, config, file, identity, size, md5, data, note in [
        (
            "ffhq-1024",
            "ffhq1024",
            "ffhq1024x1024",
            "13s_dH768zJ3IHUjySVbD1DqcMolqKlBi",
            202.570217,
            "1ab9522157e537351fcf4faed9c92abb",
            FFHQ,
            "",
        ),
        (
            "ffhq-64",
            "ffhq1024",
            "ffhq_vol_renderer",
            "1zzB-ACuas7lSAln8pDnIqlWOEg869CCK",
            63.736197,
            "fe62f26032ccc8f04e1101b07bcd7462",
            FFHQ,
            RENDERED,
        ),
        (
            "afhq-512",
            "afhq512",
            "afhq512x512",
            "1jZcV5__EPS56JBllRmUfUjMHExql_eSq",
            184.908743,
            "91eeaab2da5c0d2134c04bb56ac5aeb6",
            AFHQ,
            "",
        ),
        (
            "afhq-64",
            "afhq512",
            "afhq_vol_renderer",
            "1xhZjuJt_teghAQEoJevAxrU5_8VqqX42",
            63.736197,
            "cb3beb6cd3c43d9119356400165e7f26",
            AFHQ,
            RENDERED,
        ),
        (
            "sphere-64",
            "ffhq1024",
            "sphere_init",
            "1CcYWbHFrJyb4u5rBFx_ww-ceYWd309tk",
            63.736197,
            "a6be653435b0e49633e6838f18ff4df6",
            None,
            SPHERE,
        ),
    ]
]
