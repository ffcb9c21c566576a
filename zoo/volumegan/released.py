"""The one published checkpoint of VolumeGAN, from its README; no FID is stated beside it."""

from zoo.weights.catalogue import Address, Released, Score

RELEASED = [
    Released(
        name="volumegan-ffhq-256.official",
        config="volumegan/ffhq256",
        paper="https://arxiv.org/abs/2112.10759",
        file="volumegan_ffhq256.pth",
        addresses=(Address("dropbox", "https://www.dropbox.com/s/ygwhufzwi2vb2t8/volumegan_ffhq256.pth?dl=0"),),
        weights_licence="MIT (the repository's; none is stated for the weights alone)",
        data_licence="FFHQ: CC BY-NC-SA 4.0, pictures have licences of their own",
        fid=Score(9.1, "50,000 generated, all real ones", "the paper's table 1; a benchmark page also lists 9.598"),
        note="A user reports that Dropbox is not reachable from everywhere (volumegan issue 9).",
    ),
]
