"""How the published pi-GAN's options and tensors become our networks, cameras and renderers."""

import torch
from torch import Tensor, nn

from tests.parity.harness import Case
from tests.parity.published import load
from zoo.pigan.convert import DISCRIMINATOR, GENERATOR, PLAIN_DISCRIMINATOR
from zoo.pigan.model import Discriminator, FilmSiren, Generator, SpatialEmbedding
from zoo.render import (
    FixedPoses,
    GaussianPoses,
    HybridPoses,
    Importance,
    JitteredUniform,
    Orbit,
    Quadrature,
    SpherePoses,
    TruncatedGaussianPoses,
    UniformPoses,
    VolumeRenderer,
    black,
    last_sample,
    relu,
    softplus,
    white,
)

BOX = 2 / 0.24
IMAGE = 1e-3  # usual tolerance of images, since eight sines of thirty times their argument amplify rounding
CHANNELS = {"sg": ["32", "64", "128", "256", "400", "400", "400", "400"]}
CHANNELS["progressive"] = ["16", *CHANNELS["sg"][:4], "400", "400", "400", "400"]


def build_generator(config: dict) -> Generator:
    """Our generator for the published constructor's arguments."""
    of = config["generator"]
    embedding = None
    if of["siren"].startswith("EmbeddingPiGAN"):
        embedding = SpatialEmbedding(32, 2)
        embedding.cube = nn.Parameter(torch.zeros(1, 32, *of.get("spatial_embedding_grid", (96, 96, 96))))
    scale = 1.0 if of["siren"] == "TALLSIREN" else BOX
    field = FilmSiren(of["hidden_dim"], of.get("n_film_layers", 8), scale, embedding)
    poses = Orbit(fov_deg=config.get("render", {}).get("fov", 12))
    return Generator(
        field, VolumeRenderer(JitteredUniform(0.8, 1.2, 4)), poses, of["z_dim"], of.get("map_hidden_dim", 256)
    )


def build_renderer(options: dict) -> VolumeRenderer:
    """Our renderer for the published forward call's arguments."""
    samples = options["num_steps"]

    def background(weights: Tensor) -> tuple[Tensor, Tensor]:
        added = white(weights)[1] if options.get("white_back") else black(weights)[1]
        return (last_sample(weights)[0] if options.get("last_back") else weights), added

    return VolumeRenderer(
        JitteredUniform(options["ray_start"], options["ray_end"], samples),
        Quadrature(softplus if options.get("clamp_mode") == "softplus" else relu, background=background),
        fine=Importance(samples, floor=2e-5) if options.get("hierarchical_sample", True) else None,
        chunk=options.get("chunk"),
    )


def load_generator(case: Case) -> Generator:
    return load(build_generator(case.config), case.weights("generator."), GENERATOR, unknown="mean_.*")


def build_discriminator(kind: str, widths: dict[str, int]) -> Discriminator:
    progressive = kind.startswith("Progressive")
    channels = [widths[c] for c in CHANNELS["progressive" if progressive else "sg"]]
    return Discriminator(
        channels,
        coordinates=kind != "StridedDiscriminator",
        downsample="pool" if progressive else "stride",
        latent_dim=256 if "Encoder" in kind else 0,
    )


def load_discriminator(case: Case, kind: str, widths: dict[str, int], prefix: str) -> Discriminator:
    return load(build_discriminator(kind, widths), case.weights(prefix), discriminator_table(kind), unread="pose_layer")


def discriminator_table(kind: str) -> list:
    return DISCRIMINATOR if kind != "StridedDiscriminator" else PLAIN_DISCRIMINATOR


POSES = {
    "uniform": UniformPoses,
    "gaussian": GaussianPoses,
    "normal": GaussianPoses,
    "hybrid": HybridPoses,
    "truncated_gaussian": TruncatedGaussianPoses,
    "spherical_uniform": SpherePoses,
}  # any other name is a fixed camera


def build_poses(of: dict) -> Orbit:
    """Our distribution of cameras for a published curriculum."""
    kind = POSES.get(of["sample_dist"], FixedPoses)
    return kind(of["h_mean"], of["h_stddev"], of["v_mean"], of["v_stddev"], fov_deg=of["fov"])


# Colours that the published code can paint instead of the rendered ones, for looking into a field.
FILLS = {
    "no": lambda r: r.features,
    "weight": lambda r: r.weights.sum(-1, keepdim=True).expand_as(r.features),
    "debug": lambda r: torch.where(r.weights.sum(-1, keepdim=True) < 0.9, torch.tensor([1.0, 0.0, 0.0]), r.features),
}
