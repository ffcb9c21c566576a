"""The rasteriser of docs/adding-a-renderer.md, without rays or a field: it trains, and what needs neither works."""

import csv
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.test_documentation import write_files
from tests.tiny import named
from zoo.cli import speed
from zoo.cli.command import main
from zoo.evaluate import protocol

pytestmark = pytest.mark.xdist_group("processes")


WATCHERS = [
    named("callbacks.samples.SampleGrid", every=1, latents=2, views=3),
    named("callbacks.preview.PriorPreview", count=4),
    named("callbacks.scores.Scores", every=1, n_fake=4),
    named("callbacks.diagnostics.Diagnostics", every=1, n=1, views=3),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with the experiment of the page, its run of two iterations, and a bundle of that."""
    home = tmp_path_factory.mktemp("splats")
    write_files(home)
    config = yaml.safe_load((home / "splats.yaml").read_text())
    config["data"] = named("tests.systems.NoiseData", resolution=32)
    config["trainer"] = {"max_steps": 2, "accelerator": "cpu", "log_every_n_steps": 1, "callbacks": WATCHERS}
    config["trainer"]["default_root_dir"] = str(home / "run")
    (home / "splats.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(home))
        patched.setenv("ZOO_TRUST", "splats")
        patched.setattr(speed, "matrix_rate", lambda *_: 1.0)  # seconds less
        assert main(["fit", "-c", str(home / "splats.yaml")]) == 0
        assert main(["bundle", str(home / "run" / "checkpoints" / "last.ckpt"), str(home / "weights")]) == 0
        yield home
    for name in ("toy", "splats"):
        sys.modules.pop(name)


def test_it_trains_and_is_watched(home: Path) -> None:
    assert (home / "run" / "views.png").is_file() and len(list((home / "run" / "samples").glob("*.png"))) == 3
    with open(home / "run" / "metrics.csv") as file:
        columns = set(next(csv.reader(file)))
    assert {"loss_g", "fid-cars-none-4", "diagnostics/opacity", "diagnostics/nonfinite"} <= columns
    assert not {"diagnostics/flatness", "diagnostics/parallax"} & columns  # which compare depths along rays


NAME = "splats.SplatGenerator"
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
        assert main(["leaderboard", "--results", str(home / left)]) == 0 and "ToyGAN" in capsys.readouterr().out


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
