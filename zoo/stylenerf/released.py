"""The published StyleNeRF's checkpoints: pickles with the source text of their classes, none of which is run.

They hold the arguments that they were built with, which are not those of its current experiments. ``ffhq-512-cc`` is
not in the repository's README.
"""

from zoo.weights.catalogue import Address, Released, Score

FOLDER = "https://huggingface.co/facebook/stylenerf-ffhq-config-basic/resolve/main"
PROTOCOL = "50,000 generated, all real ones"
QUOTED = "the paper's, as its repository's issue 50 quotes it"
RECALLED = "the paper's, from memory, not checked"


def stylenerf(name: str, config: str, size: float | None, fid: Score | None = None, note: str = "") -> Released:
    """A row; sizes are those of the README."""
    file = name.replace("-", "_") + ".pkl"
    return Released(
        name=f"stylenerf-{name}.official",
        config=f"stylenerf/{config}",
        paper="https://arxiv.org/abs/2110.08985",
        file=file,
        addresses=(Address("hub", f"{FOLDER}/{file}"),),
        weights_licence="CC BY-NC 4.0; parts come from StyleGAN2 under NVIDIA's licence, not commercial either",
        data_licence="FFHQ: CC BY-NC-SA 4.0, pictures have licences of their own",
        size=size,
        fid=fid,
        note=note,
    )


RELEASED = [
    stylenerf("ffhq-256", "ffhq256", 134, Score(8.0, PROTOCOL, QUOTED)),
    stylenerf("ffhq-512", "ffhq512", 156, Score(7.8, PROTOCOL, RECALLED)),
    stylenerf("ffhq-1024", "ffhq1024", 193, Score(8.1, PROTOCOL, RECALLED)),
    stylenerf("ffhq-512-cc", "ffhq512", None, note="Its cameras calibrate themselves; not in the README."),
]
