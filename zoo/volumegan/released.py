"""The one published checkpoint of VolumeGAN, from its README; no FID is stated beside it."""

from zoo.weights.catalogue import FFHQ, MIT, Score, row

RELEASED = [
    row(
        "volumegan",
        "ffhq-256",
        "ffhq256",
        "dropbox",
        "https://www.dropbox.com/s/ygwhufzwi2vb2t8/volumegan_ffhq256.pth?dl=0",
        "volumegan_ffhq256.pth",
        paper="https://arxiv.org/abs/2112.10759",
        weights_licence=MIT,
        data_licence=FFHQ,
        fid=Score(9.1, "50,000 generated images, all real ones", "paper, table 1"),
        note="A user reports that Dropbox is not reachable from everywhere (volumegan issue 9).",
    ),
]
