"""Comparisons: what a protocol may say, the commands of a run, what is skipped and resumed, and the report."""

import csv
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.test_leaderboard import ROW
from tests.test_user_errors import refusal
from tests.tiny import CONFIG
from zoo import leaderboard
from zoo.cli import compare
from zoo.cli.command import main
from zoo.cli.comparison import Run, check_unchanged, read_protocol
from zoo.cli.comparison_report import plan_of, write_report
from zoo.cli.comparison_runs import commands, lacking, note, noted, side_by_side
from zoo.leaderboard.spread import averaged, spread_text, spread_texts
from zoo.utils.errors import UserError
from zoo.utils.paths import BUNDLED
from zoo.weights.fetch import sha256_of

pytestmark = pytest.mark.xdist_group("processes")

ROOT = Path(__file__).parent.parent
DATA = {"class_path": "datamodules.Cars", "init_args": {"resolution": 32, "train_count": 100, "test_count": 100}}
SAID = {"data": DATA, "budget": {"processor_seconds": 2}, "systems": {"tiny": "tiny.yaml"}}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working folder, with the recipe of a tiny system."""
    monkeypatch.chdir(tmp_path)
    write_recipe("tiny.yaml")
    return tmp_path


def write_recipe(name: str, **data) -> None:
    options = {**DATA["init_args"], "batch_size": 4, **data}
    model = CONFIG["model"]["init_args"]
    generator = model["generator"] | {"init_args": model["generator"]["init_args"] | {"resolution": 32}}
    scores = {"class_path": "callbacks.scores.Scores", "init_args": {"every": 50, "n_fake": 20, "at_start": False}}
    trainer = {"accelerator": "cpu", "log_every_n_steps": 10, "callbacks": [scores]}
    config = {"trainer": trainer, "data": DATA | {"init_args": options}}
    sides = {"init_args": {"channels": [4, 4, 8, 8, 8], "latent_dim": 0}}
    model = model | {"generator": generator, "discriminator": model["discriminator"] | sides}
    config["model"] = CONFIG["model"] | {"init_args": model}
    Path(name).write_text(yaml.safe_dump(config))


def write_protocol(**said) -> Path:
    Path("cars.yaml").write_text(yaml.safe_dump(SAID | said))
    return Path("cars.yaml")


# The protocol

REFUSED = [
    ({"budget": {"processor_seconds": 0}}, "processor_seconds of the budget is 0: give a number above 0."),
    ({"budget": {"processor_minutes": 1}}, "which no budget has. Did you mean 'processor_seconds'?"),
    ({"budget": {"processor_seconds": 1, "wall_seconds": 1}}, "has two clocks: give processor_seconds or wall"),
    ({"budget": 25}, "gives no budget: say processor_seconds or wall_seconds."),
    ({"systems": {}}, "names no systems: give at least one, such as pigan: pigan/cars32."),
    ({"systems": {"a": "pigan/car32"}}, "There is no experiment 'pigan/car32' and no such file. Did you mean 'pigan/"),
    ({"systems": {"a/b": "tiny.yaml"}}, "calls a system 'a/b': take letters, digits"),
    ({"systems": {"a": {"seeds": [1]}}}, "gives no recipe of a: name an experiment"),
    ({"systems": {"a": {"recipe": "tiny.yaml", "seed": 1}}}, "gives 'seed', which no system has (here a). Did you me"),
    ({"systems": {"a": []}}, "recipe of a is (): name an experiment, or a list of them."),
    ({"seeds": []}, "gives no seeds of tiny: give at least one, such as [0]."),
    ({"seeds": [0, 0]}, "seeds of tiny are [0, 0]: give whole numbers, each once."),
    ({"seeds": [-1]}, "seeds of tiny holds -1: give numbers from 0 to 4294967295."),
    ({"metric": "all"}, "gives 'metric', which no comparison has. Did you mean 'metrics'?"),
    ({"metrics": "imag"}, "There are no metrics 'imag'"),
    ({"samples": "x"}, "'x' is not a list of samples such as 0-7 or 0,3,8."),
    ({"device": "gpu"}, "gpu"),
    ({"count": 1}, "count is 1: give a number from 2"),
    ({"count": 20.5}, "count of 'cars.yaml' is 20.5: give a whole number."),
    ({"objects": None}, "objects of 'cars.yaml' is null: give a whole number."),
    ({"samples": 3}, "samples of 'cars.yaml' is 3: give a text, in quotes if it is a number."),
    ({"metrics": ["fid"]}, "metrics of 'cars.yaml' is ['fid']: give a text"),
    ({"data": {"init_args": {}}}, "has no class_path: name a datamodule, such as datamodules.Cars."),
    ({"systems": {"a": "graf/cars64"}}, "The recipe of a has resolution 64 in its data, and 'cars.yaml' compares 32"),
]


@pytest.mark.parametrize(("said", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_what_cannot_be_compared_is_refused_in_one_sentence(said, message, folder, capsys):
    sentence = refusal(["compare", str(write_protocol(**said)), "--plan"], capsys)
    assert message in sentence and len(sentence) < 300
    assert [path.name for path in folder.iterdir()] == ["tiny.yaml", "cars.yaml"] or not Path("runs").exists()


def test_a_file_that_is_no_protocol_is_refused(folder, capsys):
    Path("broken.yaml").write_text("systems: [}")
    assert "'broken.yaml' is no yaml" in refusal(["compare", "broken.yaml"], capsys)
    assert "There is no file 'brokn.yaml'. Did you mean 'broken.yaml'?" in refusal(["compare", "brokn.yaml"], capsys)
    assert "jobs is 0: give a number from 1" in refusal(["compare", "cars.yaml", "--jobs", "0"], capsys)
    assert "--out" in refusal(["compare", str(write_protocol()), "--out", "cars.yaml"], capsys)


def test_the_protocol_that_comes_with_the_project_is_valid():
    protocol = read_protocol(ROOT / "configs" / "comparison.yaml")
    runs = protocol.runs()
    assert all(run.recipe[0] == f"{run.system.split('-')[0]}/cars32" for run in runs)
    assert [run.name for run in runs[:2]] == ["giraffe-25min-seed0", "pigan-25min-seed0"]
    assert runs[-1].seed == 2  # first seeds first


def test_overlays_are_merged_and_the_last_resolution_of_stages_counts(folder):
    Path("over.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"train_count": 100}}}))
    stages = {0: {"resolution": 16}, 10: {"resolution": 32}}
    write_recipe("grows.yaml", train_count=7, stages=stages)
    read_protocol(write_protocol(systems={"tiny": ["grows.yaml", "over.yaml"]}))
    with pytest.raises(UserError, match="has train_count 7 in its data"):
        read_protocol(write_protocol(systems={"tiny": "grows.yaml"}))


def test_runs_of_another_protocol_or_recipe_are_not_mixed(folder):
    check_unchanged(folder, read_protocol(write_protocol()))
    check_unchanged(folder, read_protocol(write_protocol(seeds=[0, 1], systems={"other": "tiny.yaml"})))
    with pytest.raises(
        UserError, match=r"have budget \{'processor_seconds': 2\}, and 'cars.yaml' says .* 3\}: give an"
    ):
        check_unchanged(folder, read_protocol(write_protocol(budget={"processor_seconds": 3})))
    write_recipe("tiny.yaml", batch_size=8)
    with pytest.raises(UserError, match="The recipe of tiny has changed since its runs"):
        check_unchanged(folder, read_protocol(write_protocol()))


# What a run lacks


@pytest.fixture
def weights(folder) -> Path:
    """A run of which the weights are there."""
    run = folder / "out" / "tiny-seed0"
    run.mkdir(parents=True)
    for name in ("model.safetensors", "config.yaml", "README.md"):
        (run / name).write_bytes((BUNDLED / "pigan-cars32" / name).read_bytes())
    return run


def test_a_run_lacks_what_is_not_there(weights):
    protocol, results, run = read_protocol(write_protocol()), Path("results.csv"), Run("tiny", ("tiny.yaml",), 0)
    assert list(lacking(protocol, run, weights, results)) == ["grid.png", "orbit.gif", "mesh.png", "scores"]
    (weights / "grid.png").touch()
    row = ROW | {"weights": "tiny-seed0", "weights_sha256": sha256_of(weights / "model.safetensors")}
    leaderboard.append_row(row, results)
    assert list(lacking(protocol, run, weights, results)) == ["orbit.gif", "mesh.png"]
    (weights / "model.safetensors").write_bytes(b"others")  # trained once more
    assert list(lacking(protocol, run, weights, results)) == ["orbit.gif", "mesh.png", "scores"]
    (weights / "model.safetensors").unlink()
    assert lacking(protocol, run, weights, results) == {}  # its rows are there
    assert list(lacking(protocol, run, weights, Path("none.csv")))[:2] == ["training", "weights"]


def test_the_commands_of_a_run_say_all(folder):
    said = {"seeds": [3], "device": "cpu", "budget": {"wall_seconds": 600}, "license": "MIT", "metrics": "fid_kid"}
    protocol, run = read_protocol(write_protocol(**said)), Run("tiny", ("tiny.yaml", "overlays/bf16"), 3)
    made = {name: shlex.join(words) for name, words in commands(protocol, run, Path("o"), Path("r.csv")).items()}
    assert "-c tiny.yaml -c overlays/bf16" in made["training"] and "--ckpt_path" not in made["training"]
    assert "--seed_everything 3 --model.seed 3" in made["training"]
    assert made["training"].endswith("callbacks.budget.Budget --trainer.callbacks.wall_seconds 600")
    assert "callbacks+=callbacks.curve.Curve" in made["training"]  # the recipe has none
    assert "--experiment tiny.yaml" in made["weights"] and "--license MIT" in made["weights"]
    assert "--real cars.yaml --metrics fid_kid" in made["scores"] and "--results r.csv" in made["scores"]
    Path("o/training/checkpoints").mkdir(parents=True)
    Path("o/training/checkpoints/last.ckpt").touch()
    assert commands(protocol, run, Path("o"), Path("r.csv"))["training"][-2] == "--ckpt_path"


def test_the_plan_says_what_would_be_run_and_how_long(weights):
    protocol = read_protocol(write_protocol(seeds=[0, 1], budget={"processor_seconds": 1500}))
    text = plan_of(protocol, weights.parent, Path("results.csv"), jobs=2)
    assert "tiny-seed1  training, weights" in text and "25 min" in text and "zoo fit -c tiny.yaml" in text
    assert "In all about 12.5 min, 2 at once" in text and "not measured yet, and not in it: grid.png" in text
    for made, seconds in (("grid.png", 60.0), ("training", 1740.0)):
        note(weights, made=made, seconds=seconds, code=0, said="", command="zoo ...")
    text = plan_of(protocol, weights.parent, Path("results.csv"), jobs=1)
    assert "In all about 31 min" in text and "not in it: mesh.png, orbit.gif, scores, weights." in text


def test_one_sample_of_each_system_is_drawn_once_there_are_two(weights):
    protocol = read_protocol(write_protocol(systems={"tiny": "tiny.yaml", "b": "tiny.yaml"}, seeds=[0, 1]))
    assert side_by_side(protocol, weights.parent) == []
    for name in ("b-seed1", "tiny-seed1"):
        shutil.copytree(weights, weights.parent / name)
    both = f"{weights.parent}/tiny-seed0,{weights.parent}/b-seed1"
    assert side_by_side(protocol, weights.parent)[:3] == ["sample", both, "--out"]


# The report


def test_the_report_has_means_with_their_spread_costs_and_what_failed(weights):
    protocol = read_protocol(
        write_protocol(systems={"tiny": {"recipe": "tiny.yaml", "seeds": [0, 1]}, "b": "tiny.yaml"})
    )
    results = Path("results.csv")
    for name, value in (("tiny-seed0", 9.0), ("tiny-seed1", 11.0), ("b-seed0", 30.0)):
        spent = {"processor_seconds": 1500.0, "parameters": 1234, "processor_seconds_per_image": 0.005}
        leaderboard.append_row(ROW | spent | {"weights": name, "value": value, "weights_sha256": name}, results)
    (weights / "curve.csv").write_text("iteration,processor_seconds,loss_g,fid-x\n1,60,0.5,\n2,120,0.7,20\n")
    (weights / "grid.png").touch()
    note(weights, made="mesh.png", seconds=1, code=2, said="No surface.", command="zoo mesh x")
    note(weights, made="grid.png", seconds=1, code=0, said="", command="zoo sample x")
    note(weights.parent, made="systems.png", seconds=1, code=0, said="", command="zoo sample y")
    (weights.parent / "systems.png").touch()
    text = write_report(protocol, weights.parent, results).read_text()
    assert "(systems.png)\n\n```bash\nzoo sample y\n```\n\n## Scores" in text
    assert "| **10.00 (9.000 to 11.00)** | 30.00 |" in text
    assert "| tiny   | 0    | tiny.yaml | 9.000 | 2" in text and "25 min" in text and "1,234" in text
    assert "![tiny-seed0: samples](tiny-seed0/grid.png)" in text and "![FID over" in text
    assert "- tiny-seed0: mesh.png: No surface. `zoo mesh" in text and "- tiny-seed1" not in text
    assert "- tiny-seed0: orbit.gif: not run yet `zoo orbit" in text
    assert "```bash\nzoo sample x\n```" in text
    (first, second) = csv.DictReader((weights.parent / "report.csv").open())
    assert (first["system"], first["seeds"], first["mean"], first["smallest"]) == ("tiny", "2", "10.0", "9.0")
    assert second["system"] == "b" and second["largest"] == "30.0"
    assert "tiny-seed0" in (weights.parent / "curves.svg").read_text()


def test_of_several_seeds_the_larger_error_counts():
    rows = [ROW | {"value": value, "standard_error": 0.3} for value in (8.0, 10.0, 12.0)]
    assert averaged(rows)["value"] == 10.0
    assert averaged(rows)["standard_error"] == pytest.approx(2 / 3**0.5)  # of the seeds
    assert averaged([row | {"standard_error": 9.0} for row in rows])["standard_error"] == pytest.approx(9 / 3**0.5)
    assert averaged(rows[:1])["standard_error"] == 0.3 and spread_text(rows[:1]) == "8.000"
    assert averaged([ROW])["standard_error"] == "" and spread_text(rows) == "10.00 (8.000 to 12.00)"
    better, floor = ROW | {"value": 4.0}, ROW | {"value": 5.0}
    assert spread_texts({"a": [better], "b": [floor]}) == {"a": "**4.000**", "b": "5.000"}
    assert spread_texts({"a": [floor], "b": [floor]}) == {"a": "5.000", "b": "5.000"}  # nothing is beaten


# Runs


def in_this_process(self: compare.Workers, made: str, words: list[str], folder: Path) -> int:
    """``Workers.call`` without the time that a process takes to start."""
    try:
        code = main(words)
    except SystemExit as stop:
        code = int(stop.code or 0)
    note(folder, made=made, seconds=1, code=code, said="failed" if code else "", command=shlex.join(["zoo", *words]))
    return code


def check_finished(run: Path) -> None:
    """All of a run is there."""
    rows = [row for row in leaderboard.read("out/results.csv") if row["weights"] == run.name]
    assert len(rows) == 2 and {row["system"] for row in rows} == {"PiGAN"}
    assert (run / "curve.csv").stat().st_size < 20_000 and "<svg" in (run / "curve.svg").read_text()
    assert Image.open(run / "grid.png").size and Image.open(run / "orbit.gif").n_frames == 36
    assert f"{run.name}/grid.png" in Path("out/README.md").read_text()


def test_a_comparison_is_made_and_then_left_alone(folder, monkeypatch, capsys):
    monkeypatch.setattr(compare.Workers, "call", in_this_process)
    write_protocol(metrics="fid_kid", count=20, budget={"processor_seconds": 0.5}, samples="0")
    assert main(["compare", "cars.yaml", "--out", "out"]) == 0
    run = Path("out/tiny-seed0")
    check_finished(run)
    (row, _) = leaderboard.read("out/results.csv")
    assert 0.5 <= row["processor_seconds"] < 1 and row["config"] == "tiny.yaml" and row["n_real"] == 100
    count = len(noted(run))
    (run / "grid.png").unlink()
    capsys.readouterr()
    assert main(["compare", "cars.yaml", "--out", "out"]) == 0
    assert {row["made"] for row in noted(run)[count:]} - {"mesh.png"} == {"grid.png"}  # it may have no surface
    assert capsys.readouterr().out.splitlines()[-1] == "out/README.md"


def test_what_fails_is_said_and_others_are_run(folder, monkeypatch, capsys):
    def failing(self: compare.Workers, made: str, words: list[str], folder: Path) -> int:
        code = 1 if "bad-seed0" in str(folder) or made == "orbit.gif" else 0
        note(folder, made=made, seconds=1, code=code, said="It is broken." if code else "", command="zoo x")
        return code

    monkeypatch.setattr(compare.Workers, "call", failing)
    write_protocol(systems={"bad": "tiny.yaml", "tiny": "tiny.yaml"})
    assert main(["compare", "cars.yaml", "--out", "out", "--jobs", "2"]) == 1
    assert "2 of 2 runs are not finished: 'out/README.md' says why." in capsys.readouterr().err
    assert [row["made"] for row in noted(Path("out/bad-seed0"))] == ["training"]  # without weights, nothing else
    assert [row["made"] for row in noted(Path("out/tiny-seed0"))][-2:] == ["mesh.png", "scores"]
    assert "- bad-seed0: training: It is broken. `zoo fit" in Path("out/README.md").read_text()


def child_of(process: int) -> int | None:
    """The process that this one started; Linux says it."""
    children = Path(f"/proc/{process}/task").glob("*/children")
    return next((int(word) for file in children for word in file.read_text().split()), None)


def wait_for(condition, process: subprocess.Popen) -> None:
    end = time.monotonic() + 200
    while not condition():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the training's process as Linux says it")
def test_killed_and_stopped_runs_go_on_where_they_were(folder, monkeypatch, capsys):
    """Two runs: the training of the first is killed, the comparison is stopped in the second; then all is finished."""
    write_protocol(seeds=[0, 1], metrics="fid_kid", count=20, checkpoint_every=2, samples="0")
    runs = [Path(f"out/tiny-seed{seed}") for seed in (0, 1)]
    last = [run / "training" / "checkpoints" / "last.ckpt" for run in runs]
    words = [sys.executable, "-m", "zoo", "compare", "cars.yaml", "--out", "out", "--threads", "1"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(last[0].is_file, process)
        os.kill(child_of(process.pid), signal.SIGKILL)
        wait_for(last[1].is_file, process)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=200)[1]
    finally:
        process.kill()
    assert process.returncode == 143 and "Stopped; trainings have saved. The same command goes on." in said
    assert "tiny-seed0: training failed (killed by signal 9): zoo fit -c tiny.yaml" in said
    assert [noted(run)[-1]["code"] for run in runs] == ["-9", "143"]

    monkeypatch.setattr(compare.Workers, "call", in_this_process)
    assert main(["compare", "cars.yaml", "--out", "out", "--plan"]) == 0
    assert "training from " in capsys.readouterr().out
    assert main(["compare", "cars.yaml", "--out", "out"]) == 0
    for run in runs:
        assert "--ckpt_path" in noted(run)[1]["command"] and noted(run)[1]["code"] == "0"
        check_finished(run)
    assert all(2 <= row["processor_seconds"] < 3 for row in leaderboard.read("out/results.csv"))
