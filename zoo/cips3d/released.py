"""The published CIPS-3D's checkpoints, releases of its repository: zips of a run's folder, discriminators included."""

from zoo.weights.catalogue import Address, Released, Score

FOLDER = "https://github.com/PeterouZh/CIPS-3D/releases/download"


def cips3d(name: str, file: str, inside: str, data: str | None, fid: Score | None = None, note: str = "") -> Released:
    """A row; ``file`` is below ``FOLDER``."""
    return Released(
        name=f"cips3d-{name}-256.official",
        config=f"cips3d/{name}256",
        paper="https://arxiv.org/abs/2110.09788",
        file=file.split("/")[-1],
        addresses=(Address("github", f"{FOLDER}/{file}"),),
        weights_licence="MIT (the repository's; none is stated for the weights alone)",
        data_licence=data,
        inside=f"{inside}/",
        fid=fid,
        note=note,
    )


RELEASED = [
    cips3d(
        "ffhq",
        "v0.0.2/train_ffhq_high-20220105_143314_190.zip",
        "resume_iter_645500",
        "FFHQ: CC BY-NC-SA 4.0, pictures have licences of their own",
        Score(6.97, "50,000 generated, 50,000 real ones, written as JPEG", "the paper's abstract"),
    ),
    cips3d(
        "afhq",
        "v0.0.3/finetune_afhq-20220124_193407_473_r256.zip",
        "resume_iter200000",
        "AFHQ: CC BY-NC 4.0",
        note="Finetuned from the one of FFHQ, whose radiance field it keeps.",
    ),
    cips3d("cartoon", "v0.0.3/finetune_photo2cartoon-20220107_172255_454_r256.zip", "resume_iter29050", None),
]
