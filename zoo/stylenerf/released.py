"""The published StyleNeRF's checkpoints: pickles with the source text of their classes, none of which is run.

They hold the arguments that they were built with, which are not those of its current experiments. ``ffhq-512-cc`` is
not in the repository's README, which states the sizes.
"""

from zoo.weights.catalogue import FFHQ, Score, row

FOLDER = "https://huggingface.co/facebook/stylenerf-ffhq-config-basic/resolve/main"
COMMON = {
    "paper": "https://arxiv.org/abs/2110.08985",
    "weights_licence": "CC BY-NC 4.0; parts come from StyleGAN2 under NVIDIA's licence, not commercial either",
    "data_licence": FFHQ,
}
QUOTED = Score(8.0, "50,000 generated images, all real ones", "paper, as quoted in StyleNeRF issue 50")

RELEASED = [
    row(
        "stylenerf",
        name,
        config,
        "hub",
        f"{FOLDER}/{name.replace('-', '_')}.pkl",
        size=size,
        fid=fid,
        note=note,
        **COMMON,
    )
    for name, config, size, fid, note in [
        ("ffhq-256", "ffhq256", 134, QUOTED, ""),
        ("ffhq-512", "ffhq512", 156, None, ""),
        ("ffhq-1024", "ffhq1024", 193, None, ""),
        ("ffhq-512-cc", "ffhq512", None, None, "Its cameras calibrate themselves; not in the README."),
    ]
]
