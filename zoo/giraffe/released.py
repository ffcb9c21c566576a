"""The published GIRAFFE's checkpoints, from its ``*_pretrained`` experiments.

The ends of the files' names are the beginnings of their sha256. The repository states no FID; those here are the
paper's, as far as they could be checked.
"""

from zoo.weights.catalogue import CELEBA, FFHQ, MIT, Score, row

FOLDER = "https://s3.eu-central-1.amazonaws.com/avg-projects/giraffe/models"
COMMON = {"paper": "https://arxiv.org/abs/2011.12100", "weights_licence": MIT}
PROTOCOL = "20,000 generated images, with jitter and noise of the density; up to 20,000 real ones, cropped and flipped"
QUOTED = "paper, as quoted in giraffe issue 34"
COMPCARS = "CompCars: research that is not commercial"

RELEASED = [
    row(
        "giraffe",
        name,
        config,
        "s3",
        f"{FOLDER}/checkpoint_{file}-{sha256}.pt",
        data_licence=data,
        sha256=sha256,
        fid=None if fid is None else Score(fid, PROTOCOL, QUOTED),
        note="A user measured FID 31.51 with this file and the published program (giraffe issue 39)."
        if "ffhq" in name
        else "",
        **COMMON,
    )
    for name, config, file, sha256, fid, data in [
        ("compcars-64", "compcars64", "compcars64", "e85060a0", None, COMPCARS),
        ("cats-64", "cats64", "cats64", "ff00b26f", 8, None),
        ("celeba-64", "celeba64", "celeba64", "dbe11f3e", None, CELEBA),
        ("chairs-64", "chairs64", "chairs64", "114befac", 20, None),
        ("church-64", "church64", "church64", "03c09878", None, None),
        ("compcars-256", "compcars256", "cars256", "d9ea5e11", None, COMPCARS),
        ("celebahq-256", "celebahq256", "celebahq256", "d5b11030", None, CELEBA),
        ("ffhq-256", "ffhq256", "ffhq256", "fa488759", None, FFHQ),
        ("church-256", "church256", "church256", "ebd63480", None, None),
        ("clevr2-256", "clevr2_256", "clevr2256", "96bd7074", None, None),
        ("clevr2345-256", "clevr2345_256", "clevr2345256", "aa03cd59", None, None),
    ]
]
