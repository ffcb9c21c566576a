"""The folder of a run: of one run at a time, which takes nothing from an earlier one."""

import fcntl
import functools
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml

import callbacks.run_folder
from callbacks.run_folder import locked_folder
from datamodules import Cars
from tests.runs import fit, wait_for_iteration
from tests.tiny import write_config
from zoo.cli.command import main
from zoo.cli.lightning import run_of
from zoo.utils.errors import UserError
from zoo.weights.find import find


def files(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def iterations(path) -> int:
    return torch.load(path, weights_only=True)["clocks"]["iterations"]


def test_an_earlier_run_is_set_aside(tmp_path, capsys):
    config, run = write_config(tmp_path), tmp_path / "run"
    own = {"config.yaml", "metrics.csv", "checkpoints/last.ckpt"}
    (run / "samples").mkdir(parents=True)
    (run / "samples" / "mine.txt").write_text("not a run's")
    assert main(["fit", "-c", config, "--checkpoint.keep_every", "2"]) == 0
    assert "earlier run" not in capsys.readouterr().err
    before = (run / "config.yaml").read_bytes()
    words = ["fit", "-c", str(run / "config.yaml"), "--init_from", str(run / "checkpoints" / "last.ckpt")]
    assert main([*words, "--trainer.max_steps", "2"]) == 0  # begins with what it sets aside
    place = run / "earlier-1"
    last = place / "checkpoints" / "last.ckpt"
    assert f"is in '{place}' now. To resume it instead, give --ckpt_path {last}" in capsys.readouterr().err
    kept = {"config.yaml", "metrics-1.csv", "checkpoints/last.ckpt", "checkpoints/iteration-000002.ckpt"}
    assert files(place) == kept and (place / "config.yaml").read_bytes() == before and iterations(last) == 3
    assert files(run) - {f"earlier-1/{name}" for name in kept} == own | {
        "checkpoints/iteration-000002.ckpt",
        "samples/mine.txt",
    }
    assert main(["fit", "-c", config, "--ckpt_path", str(last), "--trainer.max_steps", "4"]) == 0
    assert iterations(run / "checkpoints" / "last.ckpt") == 4
    assert iterations(run / "earlier-2" / "checkpoints" / "last.ckpt") == 2


def test_a_run_that_goes_on_keeps_its_folder_and_one_that_goes_back_keeps_the_rest(tmp_path):
    config, run = write_config(tmp_path), tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    assert main(["fit", "-c", config, "--checkpoint.keep_every", "1", "--trainer.max_steps", "2"]) == 0
    assert main(["fit", "-c", config, "--ckpt_path", str(last)]) == 0
    assert not (run / "earlier-1").exists() and (run / "metrics-1.csv").is_file()
    first = run / "checkpoints" / "iteration-000001.ckpt"
    assert main(["fit", "-c", config, "--ckpt_path", str(first), "--trainer.max_steps", "2"]) == 0
    assert files(run / "earlier-1") == {"checkpoints/iteration-000002.ckpt", "checkpoints/last.ckpt"}
    assert iterations(run / "earlier-1" / "checkpoints" / "last.ckpt") == 3 and iterations(last) == 2
    assert first.is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.generator.mapping_dim", "6"], "does not fit the model"),
        (["--trainer.max_steps", "2"], "--trainer.max_steps is 2, but 3 iterations are done in the checkpoint"),
        (["--model.optimizer_d", "torch.optim.SGD"], "holds the state of Adam for optimizer_d"),
    ],
)
def test_what_is_refused_leaves_the_folder_as_it_is(words, message, tmp_path, capsys):
    config, run = write_config(tmp_path), tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    assert main(["fit", "-c", config]) == 0
    before = {name: (run / name).read_bytes() for name in files(run) - {"metrics.csv"}}
    assert main(["fit", "-c", config, "--ckpt_path", str(last), *words]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert {name: (run / name).read_bytes() for name in before} == before
    assert not (run / "earlier-1").exists()


@pytest.mark.parametrize("option", ["--ckpt_path", "--init_from"])
def test_weights_of_another_system_are_called_so(option, tmp_path, capsys):
    other = str(Path(__file__).parent / "fixtures" / "volumegan" / "last.ckpt")
    assert main(["fit", "-c", write_config(tmp_path), option, other]) == 2
    assert "the model, which is PiGAN and not VolumeGAN: " in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_run_goes_on_in_the_folder_of_its_checkpoint(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    assert run_of(str(run / "checkpoints" / "last.ckpt")) is None  # no run's
    (run / "config.yaml").touch()
    assert run_of(None) is None
    for name in ("checkpoints/last.ckpt", "hpc_ckpt_1.ckpt", "earlier-2/checkpoints/last.ckpt"):
        assert run_of(str(run / name)) == str(run)


def test_the_folder_of_a_run_is_no_weights(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    for folder in (tmp_path, tmp_path / "checkpoints"):
        with pytest.raises(UserError, match=r"name a checkpoint of it, such as '.*/checkpoints/last\.ckpt'"):
            find(folder)


class PressedTwice(pl.Callback):
    def on_train_batch_end(self, *_) -> None:
        raise KeyboardInterrupt


def test_a_second_ctrl_c_is_called_interrupted(tmp_path, capsys):
    before = signal.getsignal(signal.SIGINT)
    try:
        words = ["fit", "-c", write_config(tmp_path), "--trainer.callbacks+=tests.test_run_folder.PressedTwice"]
        assert main(words) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    said = capsys.readouterr().err
    assert said.strip().splitlines()[-1] == "zoo: error: Interrupted." and "KeyboardInterrupt" not in said


def test_a_run_that_is_done_says_so(tmp_path, capsys):
    config = write_config(tmp_path)
    assert main(["fit", "-c", config, "--progress.line_every_seconds", "0"]) == 0
    said = capsys.readouterr().err
    assert said.count("iteration 3/3") == 1 and "stopped" not in said  # once, and by us
    assert main(["fit", "-c", config, "--ckpt_path", str(tmp_path / "run" / "checkpoints" / "last.ckpt")]) == 0
    assert "all 3 iterations of --trainer.max_steps are done" in capsys.readouterr().err


def test_two_runs_do_not_share_a_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        callbacks.run_folder, "held_alone", functools.partial(callbacks.run_folder.held_alone, wait=0.1)
    )
    config = write_config(tmp_path)
    with locked_folder(tmp_path / "run"):
        assert main(["fit", "-c", config]) == 2
        assert "Another run is writing into" in capsys.readouterr().err.strip().splitlines()[-1]
    assert files(tmp_path) == {"tiny.yaml"}
    assert main(["fit", "-c", config]) == 0


def test_a_run_waits_for_the_end_of_one_that_was_killed(tmp_path):
    """Here of a child that has taken over its lock, to end when it is told to."""
    with open(tmp_path / ".running.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock.fileno()])
    threading.Timer(0.5, child.stdin.close).start()
    with locked_folder(tmp_path):
        assert child.wait(10) == 0


@pytest.mark.xdist_group("processes")
def test_a_killed_run_frees_its_folder_also_with_readers_and_ddp_trains_alone(tmp_path):
    config = write_config(tmp_path, max_steps=10_000, strategy="ddp")
    small = ["--data.num_workers=1", "--data.resolution=8", "--data.train_count=9", "--data.test_count=9"]
    with fit(config, "--data", "datamodules.Cars", *small) as process:
        wait_for_iteration(process, 2)
        os.kill(process.pid, signal.SIGKILL)  # the readers end by themselves
        assert main(["fit", "-c", write_config(tmp_path, max_steps=1)]) == 0
    assert yaml.safe_load((tmp_path / "run" / "earlier-1" / "config.yaml").read_text())["trainer"]["strategy"] == "ddp"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "--trainer.max_epochs", "1"], "--trainer.max_epochs is 1, but training has no epochs"),
        (["fit", "--trainer.min_epochs", "2"], "leave it out and give --trainer.min_steps, a number of iterations"),
        (
            ["fit", "--trainer.strategy", "fsdp"],
            "'fsdp', with which no GAN is trained here: take 'ddp', or leave it out",
        ),
        (
            ["fit", "--trainer.strategy=deepspeed_stage_2"],
            "--trainer.strategy is 'deepspeed_stage_2', with which no GAN",
        ),
        (
            ["fit", "--trainer.strategy", "pytorch_lightning.strategies.FSDPStrategy"],
            "FSDPStrategy', with which no GAN",
        ),
        (["fit", "--init_from="], "--init_from is empty: name the weights to start from, or leave it out."),
        (["predict"], "'zoo predict' without weights would draw from random ones"),
        (["validate"], "'zoo validate' without weights would draw from random ones"),
    ],
)
def test_what_makes_no_sense_is_refused(words, message, tmp_path, capsys):
    assert main([words[0], "-c", write_config(tmp_path), *words[1:]]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in said and len(said) < 300 and not (tmp_path / "run").exists()


def test_fewer_items_than_processes_are_one_sentence(monkeypatch):
    data = Cars(resolution=8, batch_size=2, predict_count=1, test_count=1)
    for rank in range(2):
        monkeypatch.setattr(data, "_process", lambda rank=rank: (rank, 2))
        for loader in (data.val_dataloader, data.predict_dataloader):
            with pytest.raises(ValueError, match=r"2 processes cannot share 1 "):
                loader()
