"""The published CIPS-3D's checkpoints, releases of its repository: zips of a run's folder, discriminators included."""

from zoo.weights.catalogue import FFHQ, MIT, Score, row

FOLDER = "https://github.com/PeterouZh/CIPS-3D/releases/download"
COMMON = {"paper": "https://arxiv.org/abs/2110.09788", "weights_licence": MIT}
ABSTRACT = Score(6.97, "50,000 generated and 50,000 real images, written as JPEG", "paper, abstract")
FINETUNED = "Finetuned from the one of FFHQ, whose radiance field it keeps."
AFHQ = "AFHQ: CC BY-NC 4.0"

RELEASED = [
    row("cips3d", f"{data}-256", f"{data}256", "github", f"{FOLDER}/{file}", inside=inside, **more, **COMMON)
    for data, file, inside, more in [
        (
            "ffhq",
            "v0.0.2/train_ffhq_high-20220105_143314_190.zip",
            "resume_iter_645500/",
            {"data_licence": FFHQ, "fid": ABSTRACT},
        ),
        (
            "afhq",
            "v0.0.3/finetune_afhq-20220124_193407_473_r256.zip",
            "resume_iter200000/",
            {"data_licence": AFHQ, "note": FINETUNED},
        ),
        (
            "cartoon",
            "v0.0.3/finetune_photo2cartoon-20220107_172255_454_r256.zip",
            "resume_iter29050/",
            {"data_licence": None},
        ),
    ]
]
