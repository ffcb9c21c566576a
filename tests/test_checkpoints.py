"""Checkpoints are whole whenever a run ends, hold what was scored, and are found again by a job that is restarted."""

import errno
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from callbacks.scores import Scores
from tests.runs import fit, kill_again_and_again, load, wait_for_iteration
from tests.tiny import write_config
from zoo.cli import lightning as training
from zoo.cli.command import main
from zoo.cli.lightning import job_checkpoint
from zoo.training import checkpoint_files
from zoo.training.checkpoint_files import read_checkpoint
from zoo.training.checkpoint_io import AtomicCheckpoints, NotSaved, not_saved
from zoo.training.lightning_private import HANDED_OVER
from zoo.utils.errors import UserError
from zoo.utils.files import held, lock_of, sweep

pytestmark = pytest.mark.xdist_group("processes")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Files


def test_a_checkpoint_for_which_there_is_no_space_leaves_the_old_one(tmp_path):
    files, path = AtomicCheckpoints(), tmp_path / "x.ckpt"
    clocks = {"iterations": 1, "images_seen": 2}
    files.save_checkpoint({"state_dict": {"a": torch.ones(3)}, "clocks": clocks}, path)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(NotSaved, match=r"no space left for it .*File too large.*from before is still whole"):
            files.save_checkpoint({"a": torch.zeros(1_000_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert names(tmp_path) == ["x.ckpt"]
    assert torch.equal(files.load_checkpoint(path)["state_dict"]["a"], torch.ones(3))


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EROFS, "make the folder writable"),
        (errno.EACCES, "make the folder writable"),
        (errno.EIO, "Input/output error; mend that"),
    ],
)
def test_what_to_do_about_a_checkpoint_that_was_not_saved(number, message, tmp_path):
    assert message in not_saved(tmp_path / "last.ckpt", OSError(number, os.strerror(number)))


def test_a_run_that_cannot_save_stops_with_one_sentence(tmp_path, monkeypatch, capsys):
    config, saves, save = write_config(tmp_path, max_steps=9), [], torch.save

    def fail_the_second_time(checkpoint, file):
        saves.append(save(checkpoint, file))
        if len(saves) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint_files.torch, "save", fail_the_second_time)
    assert main(["fit", "-c", config, "--checkpoint.every", "2"]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("zoo: error: The checkpoint") and "make room" in last and "still whole" in last
    folder = tmp_path / "run" / "checkpoints"
    assert names(folder) == ["last.ckpt"] and load(folder / "last.ckpt")["clocks"]["iterations"] == 2


def test_a_folder_that_is_gone_or_none(tmp_path, capsys):
    config = write_config(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("not a folder")
    assert main(["fit", "-c", config]) == 1
    assert "was not saved: File exists; mend that" in capsys.readouterr().err.strip().splitlines()[-1]
    assert "still whole" not in not_saved(tmp_path / "none.ckpt", OSError(errno.ENOSPC, "No space left on device"))


def test_other_files_for_which_there_is_no_space(tmp_path, monkeypatch, capsys):
    def fail(folder):
        raise OSError(errno.ENOSPC, "No space left on device", f"{folder}/metrics.csv")

    monkeypatch.setattr(training, "keep_old_metrics", fail)
    assert main(["fit", "-c", write_config(tmp_path)]) == 1
    assert "metrics.csv': there is no space left for it" in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_file_that_is_no_checkpoint_is_refused_in_one_sentence(tmp_path, capsys):
    config = write_config(tmp_path)
    assert main(["fit", "-c", config]) == 0
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    whole = last.read_bytes()
    for bad in (b"", whole[: len(whole) // 2]):
        last.write_bytes(bad)
        assert main(["fit", "-c", config, "--ckpt_path", str(last)]) == 2
        assert "is damaged or not a checkpoint of a run" in capsys.readouterr().err.strip().splitlines()[-1]


def test_weights_alone_are_no_run_that_can_go_on(tmp_path):
    clocks = {"iterations": 1, "images_seen": 2}
    torch.save({"state_dict": {"a": torch.ones(3)}, "clocks": clocks, "epoch": 0}, tmp_path / "x.ckpt")
    assert read_checkpoint(tmp_path / "x.ckpt")["clocks"] == clocks
    with pytest.raises(UserError, match=r"holds weights alone.*start from them with --init_from"):
        read_checkpoint(tmp_path / "x.ckpt", to_resume=True)
    for name, value in {"clocks": {}, "state_dict": [1], "config": 5}.items():
        torch.save({"state_dict": {}, "clocks": clocks, name: value}, tmp_path / "x.ckpt")
        why = r"is not a checkpoint of a run here: (it|clocks) .* 'zoo convert' makes a bundle"
        with pytest.raises(UserError, match=why):
            read_checkpoint(tmp_path / "x.ckpt")


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"a": Hostile()}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match="is damaged or not a checkpoint of a run"):
        AtomicCheckpoints().load_checkpoint(tmp_path / "x.ckpt", weights_only=False)
    assert not (tmp_path / "executed").exists()


def test_what_killed_runs_left_is_swept_but_not_what_is_being_written(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    dead, living = folder / ".saving-1.tmp", folder / ".saving-2.tmp"
    dead.write_text("half"), living.write_text("half")
    with held(lock_of(living)):
        assert main(["fit", "-c", write_config(tmp_path)]) == 0
        assert names(folder) == [".saving-2.lock", ".saving-2.tmp", "last.ckpt"]
    assert sweep(folder) == [living]


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_one_interval_at_most(tmp_path):
    kills = kill_again_and_again(tmp_path, 4)
    assert len(kills) == 4


# The best score


@pytest.fixture
def scored(tmp_path, monkeypatch):
    """Runs to an iteration, scored every other one with given values; returns the kept files."""
    folder = tmp_path / "run" / "checkpoints"

    def run(steps: int, values: dict[int, float], *words: str, resume: str | None = "last.ckpt") -> list[str]:
        monkeypatch.setattr(
            Scores, "measure", lambda self, trainer, model: {"kid-x": 1.0, "fid-x": values[model.iterations]}
        )
        scores = ["--trainer.callbacks+=callbacks.scores.Scores", "--trainer.callbacks.every=2"]
        resumed = ["--ckpt_path", str(folder / resume)] if resume and folder.is_dir() else []
        every = ["--trainer.max_steps", str(steps), "--checkpoint.every", "1"]
        assert main(["fit", "-c", write_config(tmp_path), *scores, *every, *resumed, *words]) == 0
        return [name for name in names(folder) if name.startswith("best-")]

    run.folder = folder
    return run


def test_the_best_checkpoint_is_of_the_weights_that_were_scored(scored):
    best = scored(7, {0: 9.5, 2: 9.0, 4: 7.123456, 6: 8.0, 7: float("nan")})
    assert best == ["best-fid-x=7.1235-iteration-000004.ckpt"]
    assert load(scored.folder / best[0])["clocks"]["iterations"] == 4
    assert load(scored.folder / "last.ckpt")["clocks"]["iterations"] == 7


def test_a_resumed_run_keeps_the_best_so_far(scored):
    first = scored(4, {0: 9.5, 2: 7.0, 4: 8.0})
    assert first == ["best-fid-x=7-iteration-000002.ckpt"]
    assert scored(6, {6: 7.5}) == first
    assert scored(8, {8: 6.5}) == ["best-fid-x=6.5-iteration-000008.ckpt"]


def test_a_run_that_goes_on_in_another_folder_remembers_the_best(scored, tmp_path):
    scored(2, {0: 9.5, 2: 7.0})
    elsewhere = ["--trainer.default_root_dir", str(tmp_path / "elsewhere")]
    scored(4, {4: 8.0}, *elsewhere)
    assert names(tmp_path / "elsewhere" / "checkpoints") == ["last.ckpt"]


def test_a_run_that_goes_on_from_before_its_best_leaves_it(scored):
    scored(3, {0: 9.5, 2: 8.0, 3: 9.0}, "--checkpoint.keep_every", "3")
    assert scored(4, {4: 5.0}) == ["best-fid-x=5-iteration-000004.ckpt"]
    assert scored(6, {4: 7.0, 6: 6.0}, resume="iteration-000003.ckpt") == ["best-fid-x=5-iteration-000004.ckpt"]
    assert scored(8, {8: 4.0}) == ["best-fid-x=4-iteration-000008.ckpt"]


def test_which_score_is_best_can_be_chosen(scored, capsys):
    assert scored(2, {0: 9.0, 2: 8.0}, "--checkpoint.best", "kid") == ["best-kid-x=1-iteration-000000.ckpt"]
    assert len(scored(4, {4: 1.0}, "--checkpoint.best", "null")) == 1
    with pytest.raises(AssertionError):
        scored(6, {6: 1.0}, "--checkpoint.best", "fdi")
    assert "can be null or one of kid-x, fid-x" in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_score_that_was_due_when_the_run_was_stopped_is_taken_when_it_goes_on(scored):
    scored(3, {0: 9.5, 2: 9.0, 3: 9.0}, "--checkpoint.keep_every", "2")
    kept = scored.folder / "iteration-000002.ckpt"
    state = load(kept)
    state["callbacks"]["Scores"]["scored_at"] = 0  # as GracefulInterrupt saves it, before any score
    torch.save(state, kept)
    assert scored(3, {2: 5.0, 3: 9.0}, resume=kept.name) == ["best-fid-x=5-iteration-000002.ckpt"]


# Signals


def stop(process: subprocess.Popen, number: int) -> list[str]:
    process.send_signal(number)
    return process.stderr.read().strip().splitlines()


@pytest.mark.parametrize("whole_group", [False, True])
def test_sigterm_saves_and_ends_with_143(whole_group, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    from PIL import Image

    for i in range(8):
        Image.new("RGB", (8, 8), (30 * i, 90, 200)).save(images / f"{i}.png")
    config = write_config(tmp_path, max_steps=100_000)
    data = ["--data", "datamodules.ImageFolder", "--data.path", str(images), "--data.resolution", "8"]
    data += ["--data.num_workers", "1"]
    with fit(config, *data) as process:
        wait_for_iteration(process, 3)
        if whole_group:  # with the processes that read images, as SLURM and systemd do
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.send_signal(signal.SIGTERM)
        said = process.stderr.read().strip().splitlines()
        assert process.wait(timeout=60) == 143, said
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    iterations = load(last)["clocks"]["iterations"]
    assert said[-2] == f"Stopped by SIGTERM at iteration {iterations} and saved. To resume:"
    assert said[-1].endswith(f"--ckpt_path {last}")
    assert main(["fit", "-c", config, "--ckpt_path", str(last), "--trainer.max_steps", str(iterations + 1)]) == 0


def test_two_processes_stop_after_the_same_iteration(tmp_path):
    config = write_config(tmp_path, max_steps=100_000)
    several = ["--trainer.devices", "2", "--trainer.callbacks+=callbacks.scores.Scores"]
    with fit(config, *several, "--trainer.callbacks.at_start=false", "--checkpoint.every", "4") as process:
        wait_for_iteration(process, 3)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)  # the second process alone
        said = process.stderr.read().strip().splitlines()
        assert process.wait(timeout=60) == 143, said
    state = load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert len([line for line in said if line.startswith("Stopped by SIGTERM")]) == 1
    assert f"Stopped by SIGTERM at iteration {state['clocks']['iterations']} and saved." in "\n".join(said)
    assert not any("Traceback" in line for line in said)


# SLURM


@pytest.fixture
def job(tmp_path) -> dict[str, str]:
    """The environment of a job of SLURM with one task, whose scontrol writes down what it is asked for."""
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/requeued\n')
    scontrol.chmod(0o755)
    tasks = {"NTASKS": "1", "NTASKS_PER_NODE": "1", "NNODES": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    names = {"JOB_ID": "4711", "JOB_NAME": "train", "NODELIST": "localhost"}
    slurm = {f"SLURM_{name}": value for name, value in (tasks | names).items()}
    return slurm | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}


def test_a_job_of_slurm_is_put_back_into_the_queue_and_goes_on(job, tmp_path):
    config = write_config(tmp_path, max_steps=100_000, default_root_dir=None)
    run = tmp_path / "runs" / "tiny" / "job-4711"
    with fit(config, **job) as process:
        wait_for_iteration(process, 3)
        process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 60
        while not (tmp_path / "requeued").exists():  # it comes after the checkpoint
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        assert (tmp_path / "requeued").read_text() == "requeue 4711\n"
        first = load(run / "hpc_ckpt_1.ckpt")
        said = stop(process, signal.SIGTERM)  # SLURM ends the job that was put back
        assert process.wait(timeout=60) == 143
    second = load(run / "hpc_ckpt_2.ckpt")
    assert 3 <= first["clocks"]["iterations"] < second["clocks"]["iterations"]
    # whole iterations only: the counter that the generator's optimizer moves agrees with the clock
    assert all(state["global_step"] == state["clocks"]["iterations"] for state in (first, second))
    assert "The same job resumes from there when it is requeued" in "\n".join(said)

    with fit(config, "--trainer.max_steps", str(second["clocks"]["iterations"] + 2), **job) as process:
        said = process.stderr.read()
        assert process.wait(timeout=60) == 0, said
    assert "hpc_ckpt_2.ckpt" in said
    last = load(run / "checkpoints" / "last.ckpt")["clocks"]["iterations"]
    assert last == second["clocks"]["iterations"] + 2


def test_a_restarted_job_takes_its_newest_checkpoint(job, tmp_path, monkeypatch):
    last, queued = tmp_path / "checkpoints" / "last.ckpt", tmp_path / "hpc_ckpt_1.ckpt"
    last.parent.mkdir()
    last.write_text(""), os.utime(last, (2, 2))
    assert job_checkpoint(tmp_path) is None  # not a job of SLURM
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    assert job_checkpoint(tmp_path) is None  # a new job in an old folder
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert job_checkpoint(tmp_path) == last
    queued.write_text(""), os.utime(queued, (3, 3))
    assert job_checkpoint(tmp_path) == queued
    os.utime(queued, (1, 1))
    assert job_checkpoint(tmp_path) == last


def test_processes_hand_weights_over(tmp_path):
    """As those of ``--trainer.strategy ddp_spawn`` do at their end: tensors by name and nothing else."""
    AtomicCheckpoints().save_checkpoint({"a": torch.ones(3)}, tmp_path / HANDED_OVER)
    assert torch.equal(AtomicCheckpoints().load_checkpoint(tmp_path / HANDED_OVER)["a"], torch.ones(3))
