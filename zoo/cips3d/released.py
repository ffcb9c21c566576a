"""The published CIPS-3D's checkpoints, releases of its repository: zips of a run's folder, discriminators included."""

from zoo.weights.catalogue import FFHQ, MIT, Score, row

FOLDER = "https://github.com/PeterouZh/CIPS-3D/releases/download"
COMMON = {"paper": "https://arxiv.org/abs/2110.09788", "weights_licence": MIT}

RELEASED = [
    row(
        "cips3d",
        "ffhq-256",
        "ffhq256",
        "github",
        f"{FOLDER}/v0.0.2/train_ffhq_high-20220105_143314_190.zip",
        data_licence=FFHQ,
        inside="resume_iter_645500/",
        fid=Score(6.97, "50,000 generated, 50,000 real ones, written as JPEG", "the paper's abstract"),
        **COMMON,
    ),
    row(
        "cips3d",
        "afhq-256",
        "afhq256",
        "github",
        f"{FOLDER}/v0.0.3/finetune_afhq-20220124_193407_473_r256.zip",
        data_licence="AFHQ: CC BY-NC 4.0",
        inside="resume_iter200000/",
        note="Finetuned from the one of FFHQ, whose radiance field it keeps.",
        **COMMON,
    ),
    row(
        "cips3d",
        "cartoon-256",
        "cartoon256",
        "github",
        f"{FOLDER}/v0.0.3/finetune_photo2cartoon-20220107_172255_454_r256.zip",
        data_licence=None,
        inside="resume_iter29050/",
        **COMMON,
    ),
]
