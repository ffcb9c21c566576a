"""The published EG3D's checkpoints: pickles with the source text of their classes, none of which is run.

Names are those of the program's ``docs/models.md``, which links NVIDIA's catalogue.
"""

from zoo.weights.catalogue import FFHQ, Score, row

FOLDER = "https://api.ngc.nvidia.com/v2/models/nvidia/research/eg3d/versions/1/files"
AFHQ = "AFHQ: CC BY-NC 4.0"
SHAPENET = "ShapeNet: research that is not commercial"
PROTOCOL = "50,000 generated images, all real ones"
REBALANCED = "Fine-tuned where steep views are as frequent as others."

RELEASED = [
    row(
        "eg3d",
        name,
        config,
        "web",
        f"{FOLDER}/{file}.pkl",
        paper="https://arxiv.org/abs/2112.07945",
        weights_licence="NVIDIA Source Code License for EG3D: not commercial",
        data_licence=data,
        fid=fid,
        note=note,
    )
    for name, file, config, data, fid, note in [
        ("ffhq-512-64", "ffhq512-64", "ffhq512_64", FFHQ, None, "Renders 64x64 pixels."),
        ("ffhq-512", "ffhq512-128", "ffhq512_128", FFHQ, Score(4.7, PROTOCOL, "paper, table 2"), ""),
        ("ffhqrebalanced-512-64", "ffhqrebalanced512-64", "ffhq512_rebalanced", FFHQ, None, REBALANCED),
        ("ffhqrebalanced-512", "ffhqrebalanced512-128", "ffhq512_rebalanced", FFHQ, None, REBALANCED),
        ("afhqcats-512", "afhqcats512-128", "afhqcats512", AFHQ, Score(2.77, PROTOCOL, "paper, table 2"), ""),
        ("shapenetcars-128", "shapenetcars128-64", "shapenetcars128", SHAPENET, None, ""),
    ]
]
