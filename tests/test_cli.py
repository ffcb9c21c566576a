"""The zoo command: everything a user types, on a tiny pi-GAN."""

import csv
import inspect
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from tests.test_documentation import blocks
from tests.tiny import write_config
from zoo.cli.command import main
from zoo.utils.paths import BUNDLED
from zoo.weights.fetch import sha256_of

pytestmark = pytest.mark.xdist_group("processes")

ROOT = Path(__file__).parent.parent


def child(code: str) -> tuple[subprocess.CompletedProcess, float]:
    """Run Python code from the repository; and the processor seconds it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run of three iterations, with all callbacks."""
    folder = tmp_path_factory.mktemp("run")
    config = write_config(folder)
    extra = ["--trainer.callbacks+=callbacks.samples.SampleGrid", "--trainer.callbacks.every=2"]
    assert main(["fit", "-c", config, *extra, "--trainer.callbacks+=callbacks.preview.PriorPreview"]) == 0
    return folder / "run"


def test_help_is_quick_and_imports_nothing_heavy():
    done, seconds = child(
        "from zoo.cli.command import main; import sys; main(['--help']); print('torch' in sys.modules)"
    )
    assert "leaderboard" in done.stdout and done.stdout.endswith("False\n")
    assert seconds < 0.5


@pytest.mark.parametrize(
    "verb",
    [
        "fit",
        "sample",
        "orbit",
        "mesh",
        "view",
        "invert",
        "evaluate",
        "leaderboard",
        "compare",
        "benchmark",
        "bundle",
        "convert",
        "list",
        "download",
        "push",
    ],
)
def test_help_of_a_verb_imports_nothing_heavy(verb):
    code = (
        "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); from zoo.cli.command import main\n"
    )
    code += f"main(['{verb}', '--help'])"
    done, _ = child(code)
    assert done.returncode == 0 and "usage: zoo" in done.stdout and done.stdout.endswith("False\n")


def test_help_shows_options_as_they_are_typed(capsys):
    with pytest.raises(SystemExit):
        main(["data", "pack", "--help"])
    text = capsys.readouterr().out
    assert "[--overwrite]" in text and "{lanczos,bicubic," in text
    assert not [word for word in ("type:", "null", "False", "required", "class", "Literal") if word in text]
    with pytest.raises(SystemExit):
        main(["benchmark", "--help"])
    assert "(default: 3)" in capsys.readouterr().out


def test_the_command_that_resumes_is_one_for_a_shell():
    from callbacks.interrupt import GracefulInterrupt
    from zoo.cli.lightning import resume_command

    command = resume_command(["fit", "-c", "my car.yaml", "--ckpt_path", "old.ckpt", "--data.stages", "{0: {}}"])
    resuming = GracefulInterrupt(command).resuming(Path("my runs/last.ckpt"))
    assert resuming == "zoo fit -c 'my car.yaml' --data.stages '{0: {}}' --ckpt_path 'my runs/last.ckpt'"


def test_the_command_that_resumes_is_as_it_was_typed(monkeypatch):
    from zoo.cli import lightning

    started = []
    monkeypatch.setattr(lightning, "start", lambda words, resuming: started.append((words, resuming)))
    lightning.run(["fit", "-c", "pigan/cars32", "--device", "cpu"])
    ((words, resuming),) = started
    assert Path(words[2]).is_file() and words[3:] == ["--trainer.accelerator", "cpu"]
    assert resuming == "zoo fit -c pigan/cars32 --device cpu --ckpt_path {checkpoint}"


def test_a_run_leaves_what_is_needed_to_go_on(run):
    assert (run / "checkpoints" / "last.ckpt").is_file() and (run / "views.png").is_file()
    assert sorted(p.name for p in (run / "samples").iterdir()) == [f"iteration-00000{i}.png" for i in (0, 2, 3)]
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["model"]["class_path"] == "zoo.pigan.PiGAN" and saved["trainer"]["max_steps"] == 3
    with open(run / "metrics.csv") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["0", "1", "2"]


def test_sample_draws_latents_by_views(run, tmp_path):
    source = str(run / "checkpoints" / "last.ckpt")
    assert main(["sample", source, "--out", str(tmp_path / "grid.png"), "--seeds", "1,4-5", "--views", "4"]) == 0
    assert Image.open(tmp_path / "grid.png").size == (4 * 66 - 2, 6 * 66 - 2)
    assert main(["sample", source, "--out", str(tmp_path / "flat.png"), "--seeds", "1", "--depth", "false"]) == 0
    assert Image.open(tmp_path / "flat.png").size == (6 * 66 - 2, 64)


def test_single_images_are_those_that_are_scored(run, tmp_path):
    from torchvision.io import decode_image

    from zoo.evaluate.samples import fakes
    from zoo.weights.bundle import load_bundle

    source = str(run / "checkpoints" / "last.ckpt")
    assert main(["sample", source, "--images", str(tmp_path), "--count", "9", "--truncation", "0.7"]) == 0
    scored = fakes(load_bundle(source)[0], torch.arange(9), 0, 0.7, "per-sample")
    written = [decode_image(str(tmp_path / f"{i:06d}.png")) for i in range(9)]
    assert torch.equal(torch.stack(written), scored)


def test_orbit_turns_image_beside_depth(run, tmp_path):
    source = str(run / "checkpoints" / "last.ckpt")
    for name in ("orbit.gif", "orbit.webp"):
        assert main(["orbit", source, "--out", str(tmp_path / name), "--frames", "5", "--seeds", "0,1"]) == 0
        video = Image.open(tmp_path / name)
        assert video.n_frames == 5 and video.size == (258, 258)


def test_bundle_of_a_checkpoint_draws_the_same(run, tmp_path):
    source = str(run / "checkpoints" / "last.ckpt")
    assert main(["bundle", source, str(tmp_path / "b"), "--license", "MIT"]) == 0
    assert "| license | MIT |" in (tmp_path / "b" / "README.md").read_text()
    assert main(["bundle", "--license", "MIT", source, "--out", str(tmp_path / "named")]) == 0
    assert main(["bundle", f"--out={tmp_path / 'again'}", "--checkpoint", source]) == 0
    assert (tmp_path / "named" / "config.yaml").is_file() and (tmp_path / "again" / "config.yaml").is_file()
    for name, place in (("a.png", source), ("b.png", str(tmp_path / "b"))):
        main(["sample", place, "--out", str(tmp_path / name), "--seeds", "0", "--truncation", "0.5"])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_list_and_leaderboard_show_what_is_asked_for(capsys):
    assert main(["list", "pigan/*"]) == 0
    assert "pigan/cars32" in capsys.readouterr().out
    assert main(["leaderboard", "cars", "--metric", "kid", "--markdown", "--top", "1"]) == 0
    shown = capsys.readouterr().out
    assert "KID |" in shown and "FID" not in shown and "more" in shown
    assert main(["leaderboard", "cats"]) == 2 and "Did you mean 'cars'?" in capsys.readouterr().err


def test_evaluate_hands_everything_on(run, tmp_path, monkeypatch, capsys):
    from zoo import leaderboard
    from zoo.evaluate import protocol

    seen = {}
    signature = inspect.signature(protocol.score)

    def stand_in(*args, **kwargs):
        seen.update(signature.bind(*args, **kwargs).arguments)
        fields = dict.fromkeys(("dataset", "dataset_digest", "extractor_sha256", "hardware", "date"), "x")
        fields |= dict.fromkeys(("resolution", "n_real", "n_fake"), 9) | {"condition": "none", "better": "less"}
        fields["weights_sha256"] = sha256_of(run / "checkpoints" / "last.ckpt")
        one = {"metric": "fid-cars-none-9", "value": 1.5, "standard_error": None, "better": "less", "record": {}}
        return protocol.Scores({"fid-cars-none-9": one}, fields)

    monkeypatch.setattr(protocol, "score", stand_in)
    monkeypatch.setattr(leaderboard, "RESULTS", tmp_path / "tracked.csv", raising=False)
    source, own = str(run / "checkpoints" / "last.ckpt"), tmp_path / "r.csv"
    words = ["--real", "tests.tiny.Noise", "--count", "9", "--truncation", "0.5", "--results", str(own), "--record"]
    words += ["--consistency", "1"]
    assert main(["evaluate", source, *words]) == 0
    assert seen["real"].resolution == 8 and seen["n_fake"] == 9 and seen["truncation"] == 0.5
    (row,) = leaderboard.read(own)
    assert [row] == leaderboard.read(tmp_path / "tracked.csv")
    assert row["system"] == "PiGAN" and row["images_seen"] == 12 and row["value"] == 1.5
    real = {"class_path": "tests.tiny.Noise", "init_args": {"resolution": 8}}
    assert json.loads(row["record"]) == {"source": source, "real": real, "extractor": "efficientnetlite0"}
    printed = capsys.readouterr().out
    assert "fid-cars-none-9" in printed and "share of surface points" in printed
    Image.new("RGB", (16, 16)).save(tmp_path / "one.png")
    assert main(["evaluate", str(tmp_path), *words[:2], "--results", str(own)]) == 0
    assert seen["real"].resolution == 16 and leaderboard.read(own)[1]["weights"] == tmp_path.name


CARS = """
class_path: datamodules.Cars
init_args: {resolution: 32, test_count: 40, root: cars}
"""


def test_a_row_is_measured_again(tmp_path, monkeypatch, capsys):
    from zoo.leaderboard import read
    from zoo.leaderboard.table import COLUMNS, row_id

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    shutil.copytree(BUNDLED / "pigan-cars32", "mine")
    Path("cars.yaml").write_text(CARS)
    density = {"class_path": "zoo.evaluate.metrics.density.density_metric", "init_args": {"grid": 8}}
    (code,) = (code for code in blocks(ROOT / "docs/metrics.md", "python") if "# brightness.py" in code)
    Path("brightness.py").write_text(code)
    own = {"class_path": "brightness.brightness_metric", "init_args": {"views": 3}}
    Path("metrics.yaml").write_text(json.dumps(["zoo.evaluate.metrics.fid.fid_metric", density, own]))
    words = (
        "evaluate mine --real cars.yaml --metrics metrics.yaml --count 6 --objects 2 --seed 3 --results r.csv --json"
    )
    assert main(words.split()) == 0
    printed = json.loads(capsys.readouterr().out)
    rows = read("r.csv")
    assert [row["metric"] for row in rows] == ["fid-cars-none-6", "outside-2objects", "brightness-2objects-3views"]
    assert [row["value"] for row in printed] == [row["value"] for row in rows]
    assert rows[1]["dataset"] == "cars" and rows[1]["n_real"] == rows[1]["extractor_sha256"] == ""
    again = ["evaluate", "--results", "r.csv", "--row"]
    for row in rows:
        assert main([*again, row_id(row)]) == 0
        assert f"{row['value']:.6g} in the table, {row['value']:.6g} now" in capsys.readouterr().out

    def refusal(**change) -> str:
        changed = rows[0] | change
        with open("r.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(COLUMNS))
            writer.writeheader()
            writer.writerow(changed)
        assert main([*again, row_id(read("r.csv")[0])]) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert f"was measured as {rows[0]['value'] * 1.1:.6g}, but is" in refusal(value=rows[0]["value"] * 1.1)
    assert "does not say how it was measured" in refusal(record="")
    assert "with other weights, of sha256 abab" in refusal(weights_sha256="ab" * 32)
    assert "with other real images, of sha256 abab" in refusal(dataset_digest="ab" * 32)
    assert "with other weights of cars, of sha256 abab" in refusal(extractor_sha256="ab" * 32)
    assert main([*again, "none"]) == 2 and "'none' is no row" in capsys.readouterr().err
    for option in ("--count 3", "--seed 4", "--truncation 0.5", "--extractor cars", "--json"):
        assert main([*again, "none", *option.split()]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"zoo: error: {option} ") and "changes nothing beside --row" in error
    assert main(["evaluate"]) == 2 and "Name what to score" in capsys.readouterr().err


def test_weights_that_change_while_they_are_scored_make_no_row(run, tmp_path, monkeypatch, capsys):
    from zoo.evaluate import protocol

    weights = tmp_path / "mine.ckpt"
    shutil.copy(run / "checkpoints" / "last.ckpt", weights)

    def change(*args, **kwargs):
        weights.write_bytes(weights.read_bytes() + b" ")
        return protocol.Scores({}, {})

    monkeypatch.setattr(protocol, "score", change)
    words = ["--real", "tests.tiny.Noise", "--count", "9", "--results", str(tmp_path / "r.csv")]
    assert main(["evaluate", str(weights), *words]) == 2
    assert "mine.ckpt has changed while it was scored" in capsys.readouterr().err
    assert not (tmp_path / "r.csv").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fti"], "Did you mean 'fit'?"),
        (["sample", "nosuch", "--out", "x.png"], "no weights named 'nosuch'"),
        (["sample", "x", "--ouput", "x.png"], "no option '--ouput'. Did you mean '--out'?"),
        (["sample", "x", "--out", "x.png", "--seeds", "a-b"], "'a-b' is not a list of samples"),
        (["sample", "{run}/checkpoints/lst.ckpt", "--out", "x.png"], "checkpoints/last.ckpt"),
        (["sample", "x", "--out", "x.png", "--views", "0"], "views is 0: give a number from 1 to 100000."),
        (["mesh", "x", "--resolution", "0"], "resolution is 0: give a number from 1 to 100000."),
        (["mesh", "x", "y.ply"], "'y.ply' is one value too many"),
        (["bundle", "--out", "x"], "Missing: checkpoint."),
        (["orbit", "{run}/checkpoints/last.ckpt", "--device", "gpu"], "'gpu' is no device: take auto"),
        (["evaluate", "{run}/samples", "--consistency", "3"], "--consistency 3 changes nothing for a folder of images"),
        (["orbit", "{run}/checkpoints/last.ckpt", "--out", "x.avi"], "written as .gif, .webp or .mp4, not as 'x.avi'"),
        (["orbit", "{run}/checkpoints/last.ckpt", "--frames", "0"], "frames is 0: give a number from 1 to 100000."),
        (["orbit", "{run}/checkpoints/last.ckpt", "--seeds", "3", "--interpolate"], "such as --seeds 0-3"),
        (["orbit", "{run}/checkpoints/last.ckpt", "--edit", "rotate", "--path", "rise"], "leave out --edit"),
        (["mesh", "{run}/checkpoints/last.ckpt", "--out", "x.obj"], "written as .ply or .glb, not as 'x.obj'"),
        (["mesh", "{run}/checkpoints/last.ckpt", "--level", "0"], "level is 0.0: give a number above 0."),
        (["mesh", "{run}/checkpoints/last.ckpt", "--cells", "1"], "cells is 1: give a number from 2 to 100000."),
        (["benchmark", "pigan/cars23"], "Did you mean 'pigan/cars32'?"),
        (["fit", "-c", "{run}/config.yml"], "Did you mean '{run}/config.yaml'?"),
        (
            ["fit", "-c", "{run}/config.yaml", "--model.r1_wieght", "3"],
            "no option 'r1_wieght'. Did you mean 'r1_weight'?",
        ),
        (["fit", "-c", "{run}/config.yaml", "--model.generator.field.hiden_dim", "3"], "Did you mean 'hidden_dim'?"),
        (["fit", "-c", "{run}/config.yaml", "--model.emaas", "3"], "Did you mean 'emas'?"),
        (["fit", "-c", "{run}/config.yaml", "--data", "datamodules.Cras"], "Did you mean 'Cars'?"),  # and not Cats
        (
            ["fit", "-c", "{run}/config.yaml", "--data", "tests.tiny.Nosie"],
            "no 'tests.tiny.Nosie'. Did you mean 'Noise'?",
        ),
        (["fit", "-c", "pigan/celeba64", "--data.num_worker", "3"], "Did you mean 'num_workers'?"),
        (["fit", "-c", "{run}/config.yaml", "--data.batch_size", "many"], "batch_size must be a whole number"),
        (["fit", "-c", "{run}/config.yaml", "--trainer.max_step", "3"], "Did you mean '--trainer.max_steps'?"),
        (["fit", "-c", "{run}/config.yaml", "--ckpt_path", "{run}/checkpoints/lst.ckpt"], "checkpoints/last.ckpt'?"),
        (["fit"], "Missing: data, model."),
        *(
            ([*words, option, "x" * 300], "File name too long")
            for words, option in [
                (["sample", "pigan-cars32"], "--out"),
                (["bundle", "--out", "b"], "--checkpoint"),
                (["leaderboard"], "--results"),
                (["fit", "-c", "{run}/config.yaml"], "--ckpt_path"),
                (["fit", "-c", "{run}/config.yaml"], "--trainer.default_root_dir"),
            ]
        ),
    ],
)
def test_a_mistake_ends_in_one_clear_line(words, message, run, capsys):
    try:
        code = main([word.replace("{run}", str(run)) for word in words])
    except SystemExit as stop:
        code = stop.code
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2 and last.startswith("zoo: error: ") and message.replace("{run}", str(run)) in last


def test_printed_config_runs_again(run, tmp_path, capsys):
    config = write_config(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "-c", config, "--print_config"])
    assert stop.value.code == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    assert main(["fit", "-c", str(tmp_path / "printed.yaml"), "--trainer.max_steps", "2"]) == 0
    ours, first = (list(csv.DictReader((f / "metrics.csv").read_text().splitlines())) for f in (tmp_path / "run", run))
    assert len(ours) == 2 and ours == first[:2]


def test_resuming_obeys_what_was_typed_and_keeps_old_metrics(tmp_path):
    config, run = write_config(tmp_path), tmp_path / "run"
    assert main(["fit", "-c", config]) == 0
    last = str(run / "checkpoints" / "last.ckpt")
    typed = ["--ckpt_path", last, "--model.r1_weight", "7", "--trainer.max_steps", "5"]
    assert main(["fit", "-c", config, *typed]) == 0
    state = torch.load(last, weights_only=True)
    assert state["clocks"].pop("seconds") > 0
    assert state["clocks"] == {"iterations": 5, "images_seen": 20} and state["global_step"] == 5
    assert state["config"]["init_args"]["r1_weight"] == 7
    assert (run / "metrics-1.csv").is_file() and (run / "metrics.csv").is_file()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, capsys):
    config = write_config(tmp_path, max_steps=9)
    assert main(["fit", "-c", config, "--checkpoint.every", "2", "--data.broken_from", "12"]) == 1
    assert "loss_d/real is nan" in capsys.readouterr().err.strip().splitlines()[-1]
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["clocks"]["iterations"] == 2
    assert all(value.isfinite().all() for name, value in state["state_dict"].items() if "discriminator" in name)


def test_ctrl_c_saves_and_says_how_to_resume(tmp_path):
    config = write_config(tmp_path, max_steps=100_000)
    words = [sys.executable, "-m", "zoo.cli", "fit", "-c", config, "--progress.line_every_seconds", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        while not process.stderr.readline().startswith("iteration"):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read().strip().splitlines()
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert rest[-1] == f"zoo {' '.join(words[3:])} --ckpt_path {last}"
    done = torch.load(last, weights_only=True)["clocks"]["iterations"]
    assert main([*rest[-1].split()[1:], "--trainer.max_steps", str(done + 1)]) == 0
    assert torch.load(last, weights_only=True)["clocks"]["iterations"] == done + 1


def test_one_process_needs_no_strategy():
    from zoo.cli import lightning as training

    assert [training.processes(d, n, "cpu") for d, n in ((1, 1), ("2", 1), ([0, 1], 2), ("auto", 1))] == [1, 2, 4, 1]
    assert training.strategy({"devices": 1, "num_nodes": 1, "accelerator": "cpu", "strategy": "auto"}) == "auto"


@pytest.mark.parametrize("packed", [False, True])
def test_fit_and_predict_on_a_folder_or_zip_of_ones_own_images(tmp_path, monkeypatch, capsys, packed):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for i in range(6):
        Image.new("RGB", (30 + i, 24), (40 * i, 90, 200)).save(tmp_path / "mine" / f"{i}.png")
    path = shutil.make_archive("packed", "zip", "mine") if packed else "mine"
    words = ["-c", write_config(tmp_path), "--data", "datamodules.ImageFolder", "--data.path", str(path)]
    words += ["--data.resolution", "8", "--data.batch_size", "4"]
    assert main(["fit", *words, "--trainer.callbacks+=callbacks.preview.PriorPreview"]) == 0
    run = tmp_path / "run"
    assert (run / "views.png").is_file()
    losses = (run / "metrics.csv").read_text()
    assert main(["predict", *words, "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]) == 0
    assert len(list((run / "predictions").glob("0000*.png"))) == 16 and (run / "metrics.csv").read_text() == losses
    assert main(["predict", *words, "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]) == 0
    for place in (run, run / "earlier-1"):  # none are replaced
        assert len(list((place / "predictions").glob("0000*.png"))) == 16
    assert f"are in '{run / 'earlier-1' / 'predictions'}' now." in capsys.readouterr().err
    assert main(["evaluate", str(run / "predictions"), "--real", str(path), "--extractor", "cars"]) == 2
    assert "take efficientnetlite0, or leave the extractor out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "trainer"),
    [
        (["--device", "cpu"], ["--trainer.accelerator", "cpu"]),
        (["--device=auto"], ["--trainer.accelerator", "auto"]),
        (["--device", "cuda"], ["--trainer.accelerator", "gpu"]),
        (["--device=cuda:1"], ["--trainer.accelerator", "gpu", "--trainer.devices", "[1]"]),
    ],
)
def test_training_takes_a_device_like_all_other_verbs(words, trainer):
    from zoo.cli import lightning as training

    assert training.with_device(["fit", *words, "-c", "x.yaml"]) == ["fit", *trainer, "-c", "x.yaml"]


def test_training_says_where_it_runs_and_refuses_what_is_no_device(tmp_path, capsys):
    config = write_config(tmp_path, max_steps=1)
    assert main(["fit", "-c", config, "--device", "gpu"]) == 2
    assert "'gpu' is no device: take auto, cpu, cuda" in capsys.readouterr().err
    assert main(["fit", "-c", config, "--device", "cpu"]) == 0
    assert "Running on cpu." in capsys.readouterr().err.splitlines()
