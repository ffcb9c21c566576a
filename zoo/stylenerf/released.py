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
PROTOCOL = "50,000 generated, all real ones"
QUOTED = "the paper's, as its repository's issue 50 quotes it"
RECALLED = "the paper's, from memory, not checked"

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
        ("ffhq-256", "ffhq256", 134, Score(8.0, PROTOCOL, QUOTED), ""),
        ("ffhq-512", "ffhq512", 156, Score(7.8, PROTOCOL, RECALLED), ""),
        ("ffhq-1024", "ffhq1024", 193, Score(8.1, PROTOCOL, RECALLED), ""),
        ("ffhq-512-cc", "ffhq512", None, None, "Its cameras calibrate themselves; not in the README."),
    ]
]
