"""A system without rays and without a field, in plain torch: it trains, and every verb that needs neither works."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import softplus

from zoo.cli import speed
from zoo.cli.command import main
from zoo.draws import Draws
from zoo.evaluate import protocol
from zoo.generator import Generator
from zoo.render import Camera, Poses, Rendered
from zoo.training.gan import GAN
from zoo.training.optimizers import frozen
from zoo.weights import bundle

pytestmark = pytest.mark.xdist_group("processes")


class Latent(NamedTuple):
    z: Tensor


class Splats(NamedTuple):
    """K gaussian balls: middles [B, K, 3], colours [B, K, 3], standard deviations [B, K]."""

    middles: Tensor
    colours: Tensor
    sizes: Tensor


class Splatter(Generator):
    """Coloured gaussians, made by a network, drawn into the image one before the other."""

    def __init__(self, poses: Poses, splats: int = 12, latent_dim: int = 8, resolution: int = 32) -> None:
        super().__init__(poses, resolution, [[-1.0] * 3, [1.0] * 3])
        self.latent_dim = latent_dim
        self.network = nn.Sequential(nn.Linear(latent_dim, 32), nn.LeakyReLU(0.2), nn.Linear(32, 7 * splats))

    def latents(self, n: int, draws: Draws) -> Latent:
        return Latent(draws.normal("z", (n, self.latent_dim)))

    def map(self, latents: Latent, *, truncation: float = 1.0, condition: Camera | None = None) -> Splats:
        x = self.network(truncation * latents.z).unflatten(1, (-1, 7))
        return Splats(x[..., :3].tanh(), x[..., 3:6].tanh(), 0.1 + 0.2 * x[..., 6].sigmoid())

    def render(
        self, styles: Splats, camera: Camera, *, resolution: int | None = None, draws: Draws | None = None
    ) -> Rendered:
        side = resolution or self.resolution
        seen = (styles.middles - camera.origins[:, None]) @ camera.pose[:, :3, :3]  # in camera space
        order = seen[..., 2].argsort(1, descending=True)  # the nearest first
        seen, colours = (x.gather(1, order[..., None].expand(-1, -1, 3)) for x in (seen, styles.colours))
        ahead, focal = -seen[..., 2:], camera.intrinsics.diagonal(dim1=1, dim2=2)[:, None, :2]
        places = camera.intrinsics[:, None, :2, 2] + focal * seen[..., :2] * seen.new_tensor([1.0, -1.0]) / ahead
        spread = focal[..., 0] * styles.sizes.gather(1, order) / ahead[..., 0]
        line = (torch.arange(side, device=seen.device, dtype=seen.dtype) + 0.5) / side
        off = (line - places[..., :1, None]).square() + (line[:, None] - places[..., 1:, None]).square()
        alpha = 0.95 * torch.exp(-off / (2 * spread[..., None, None].square()))
        weights = alpha * torch.cat([torch.ones_like(alpha[:, :1]), (1 - alpha[:, :-1]).cumprod(1)], dim=1)
        opacity = weights.sum(1, keepdim=True)
        image = torch.einsum("bkhw,bkc->bchw", weights, colours) + 1 - opacity
        depth = (weights * seen.norm(dim=-1)[..., None, None]).sum(1, keepdim=True) / opacity
        return Rendered(image, image, depth.where(opacity > 1e-3, torch.nan), opacity)


class ImageDiscriminator(nn.Module):
    """Scores [B, 1] of images of any size."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, channels, 4, 2), nn.LeakyReLU(0.2), nn.Conv2d(channels, 1, 4, 2))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean((2, 3))


class SplatGAN(GAN):
    """The plainest of GANs."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        real, draws = batch["image"], self.draws()
        optimizer_g, optimizer_d = self.optimizers()
        fake = self.generator(*self.generator.sample(len(real), draws), draws=draws).image
        with frozen(self.discriminator):
            self.minimise(optimizer_g, "loss_g", {"fake": softplus(-self.discriminator(fake)).mean()})
        real, fake = self.discriminator(real), self.discriminator(fake.detach())
        self.minimise(optimizer_d, "loss_d", {"real": softplus(-real).mean(), "fake": softplus(fake).mean()})
        self.count(len(batch["image"]))


def named(name: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": init_args}


POSES = named("zoo.render.UniformPoses", yaw_spread=3.2, pitch_mean=1.3, pitch_spread=0.3, radius=4.0, fov_deg=40)
WATCHERS = [
    named("callbacks.samples.SampleGrid", every=1, latents=2, views=3),
    named("callbacks.preview.PriorPreview", count=4),
    named("callbacks.scores.Scores", every=1, n_fake=4),
    named("callbacks.diagnostics.Diagnostics", every=1, n=1, views=3),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with an experiment, its run of two iterations, and a bundle of that."""
    home = tmp_path_factory.mktemp("splats")
    adam = named("torch.optim.Adam", lr=0.01, betas=[0.0, 0.9])
    networks = {
        "generator": named(f"{__name__}.Splatter", poses=POSES),
        "discriminator": named(f"{__name__}.ImageDiscriminator"),
    }
    trainer = {"max_steps": 2, "accelerator": "cpu", "log_every_n_steps": 1, "default_root_dir": str(home / "run")}
    config = {
        "trainer": trainer | {"callbacks": WATCHERS},
        "model": named(f"{__name__}.SplatGAN", **networks, optimizer_g=adam, optimizer_d=adam),
        "data": named("tests.systems.NoiseData", resolution=32),
    }
    (home / "splats.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bundle, "ALLOWED", ["zoo", "tests"])  # weights may name no class from elsewhere
        patched.setattr(speed, "matrix_rate", lambda *_: 1.0)  # seconds less
        assert main(["fit", "-c", str(home / "splats.yaml")]) == 0
        assert main(["bundle", str(home / "run" / "checkpoints" / "last.ckpt"), str(home / "weights")]) == 0
        yield home


def test_it_trains_and_is_watched(home: Path) -> None:
    assert (home / "run" / "views.png").is_file() and len(list((home / "run" / "samples").glob("*.png"))) == 3
    with open(home / "run" / "metrics.csv") as file:
        columns = set(next(csv.reader(file)))
    assert {"loss_g", "fid-cars-none-4", "diagnostics/opacity", "diagnostics/nonfinite"} <= columns
    assert not {"diagnostics/flatness", "diagnostics/parallax"} & columns  # which compare depths along rays


NAME = f"{__name__}.Splatter"
INVERT = "invert {home}/run/views.png {home}/weights --out {home}/found --samples 4 --latent_steps 2 --style_steps 2"
EVALUATE = "evaluate {home}/weights --real tests.systems.NoiseData"
OF_RUN = "-c {home}/splats.yaml --ckpt_path {home}/run/checkpoints/last.ckpt"


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("sample {home}/weights --out {home}/grid.png --seeds 0-1 --views 3", "grid.png"),
        ("sample {home}/weights --images {home}/images --count 3 --truncation 0.5", "images/000002.png"),
        ("orbit {home}/weights --out {home}/loop.gif --seeds 0-2 --frames 4 --path spiral --interpolate", "loop.gif"),
        (EVALUATE + " --count 4 --results {home}/results.csv", "results.csv"),
        (INVERT + " --weight_steps 0", "found/comparison.png"),
        ("predict " + OF_RUN, "run/predictions/000003.png"),
        ("validate " + OF_RUN, None),
        ("benchmark {home}/splats.yaml --steps 1", None),
        ("benchmark {home}/splats.yaml --steps 1 --work train", None),
    ],
)
def test_it_does_what_every_generator_does(words: str, left: str | None, home: Path, capsys) -> None:
    assert main(words.format(home=home).split()) == 0
    assert left is None or (home / left).is_file()
    if left == "results.csv":
        assert main(["leaderboard", "--results", str(home / left)]) == 0 and "SplatGAN" in capsys.readouterr().out


def test_its_cameras_go_round_it(home: Path) -> None:
    assert main(f"orbit {home}/weights --out {home}/round.gif --seeds 0,3 --frames 4".split()) == 0
    film = Image.open(home / "round.gif")
    assert len({film.seek(i) or film.convert("RGB").tobytes() for i in range(film.n_frames)}) == 4


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("mesh {home}/weights", f"A mesh needs density and rays, which {NAME} does not have."),
        (
            EVALUATE + " --consistency 1",
            f"Consistency in 3D needs density and rays, which {NAME} does not have.",
        ),
        ("sample {home}/weights --out x.png --edit rotate", f"--edit rotate needs edits, which {NAME} does not have."),
        (INVERT, "What the weights stage optimises does not change images of this kind: give it 0 steps."),
    ],
)
def test_what_it_lacks_is_said_in_one_sentence(words: str, sentence: str, home: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(protocol, "score", lambda *_, **__: pytest.fail("what takes long came first"))
    assert main(words.format(home=home).split()) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == f"zoo: error: {sentence}"
