"""Several processes: they agree with one, with each other, and end together."""

import json
import math
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from jsonargparse import Namespace

from tests.processes import scores
from tests.same_runs import assert_same_run, differences, write
from tests.systems import SYSTEMS, NoiseData
from tests.test_gan import tiny_generator
from zoo.cli.checks import check_strategy
from zoo.cli.command import main
from zoo.cli.lightning import strategy
from zoo.evaluate import protocol, real_statistics
from zoo.training import DDP, ddp
from zoo.utils.errors import UserError
from zoo.weights.bundle import load_bundle

ROOT = Path(__file__).parent.parent
TWO = ["--trainer.devices", "2"]
SECONDS = 150  # until a run counts as hanging; alone on two cores one takes fifteen

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(4 * SECONDS)]


def start(words: list[str], folder: Path, **environment: str) -> subprocess.Popen:
    """``python -m ...`` in a process group of its own, which speaks over the loopback interface only."""
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"}
    with open(folder / f"log-{len(list(folder.glob('log-*')))}.txt", "w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=folder,
            env=os.environ | own | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(*processes: subprocess.Popen) -> list[int]:
    """Exit codes; whatever is left of the processes' groups is ended."""
    try:
        return [process.wait(timeout=SECONDS) for process in processes]
    finally:
        for process in processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def zoo(words: list[str], folder: Path) -> int:
    """The exit code of the command in processes of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    return finish(start(["zoo", *words], folder))[0]


def log(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("log-*")))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def kept(folder: Path, rank: int = 0) -> dict:
    return torch.load(folder / f"kept-{rank}.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_two_processes_learn_as_with_torch_stay_alike_and_resume_exactly(system, tmp_path) -> None:
    """Four trainings in one pair of processes: with torch's DDP, with ours, the first part of that, and the rest."""
    plain, whole, halves = (tmp_path / name for name in ("plain", "whole", "halves"))
    last = str(halves / "checkpoints" / "last.ckpt")
    commands = [
        ["fit", "-c", write(SYSTEMS[system](), folder), *TWO, "--trainer.callbacks+=tests.processes.Keep", *words]
        for folder, *words in [
            (plain, "--trainer.max_steps", "7", "--trainer.strategy={class_path: tests.processes.TorchDDP}"),
            (whole, "--trainer.max_steps", "7", "--trainer.callbacks+=tests.processes.Traffic"),
            (halves, "--trainer.max_steps", "5"),
            (halves, "--trainer.max_steps", "7", "--ckpt_path", last),
        ]
    ]
    words = ["tests.commands", *(shlex.join(command) for command in commands)]
    port = str(free_port())
    pair = [start(words, tmp_path, LOCAL_RANK=rank, MASTER_PORT=port) for rank in "01"]
    assert finish(*pair) == [0, 0], log(tmp_path)

    seen = [(whole / f"seen-{rank}.txt").read_text() for rank in (0, 1)]
    assert seen[0] != seen[1] and seen[0].count("\n") == seen[1].count("\n") == 7
    assert kept(whole, 0)["losses"] != kept(whole, 1)["losses"]
    assert differences(kept(whole, 0)["state"], kept(whole, 1)["state"]) == []
    assert_same_run(whole, halves)
    for mine, theirs in zip(kept(whole)["gradients"], kept(plain)["gradients"], strict=True):
        assert mine.keys() == theirs.keys() and mine
        largest = max(gradient.abs().max() for gradient in theirs.values())
        assert max((mine[name] - theirs[name]).abs().max() for name in mine) <= 1e-7 * largest
    sent = [json.loads((whole / f"sent-{rank}.json").read_text()) for rank in (0, 1)]
    assert sent[0] == sent[1]
    gradients = sum(gradient.nbytes for step in kept(whole)["gradients"] for gradient in step.values())
    assert gradients < sum(size for iteration in sent[0] for _, size in iteration) < gradients + 7 * 5000


@pytest.mark.slow
@pytest.mark.parametrize("system", ["pigan"])
def test_two_processes_agree_score_as_one_stop_together_and_resume_exactly(system, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    config = SYSTEMS[system]()
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    words = [*TWO, "--trainer.max_steps", "20"]
    watchers = ["tests.processes.Keep", "tests.processes.ScoreAtEnd", "callbacks.samples.SampleGrid"]
    watching = [f"--trainer.callbacks+={name}" for name in watchers]
    assert zoo(["fit", "-c", write(config, whole), *words, *watching], whole) == 0, log(whole)

    assert differences(kept(whole, 0)["state"], kept(whole, 1)["state"]) == []
    seen = [(whole / f"seen-{rank}.txt").read_text() for rank in (0, 1)]
    assert seen[0] != seen[1] and seen[0].count("\n") == seen[1].count("\n") == 20
    two = [json.loads((whole / f"scores-{rank}.json").read_text()) for rank in (0, 1)]
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "another"))
    generator, _ = load_bundle(whole / "checkpoints" / "last.ckpt")
    assert two[0] == two[1] == pytest.approx(scores(generator, NoiseData()), rel=1e-4)
    assert (whole / "samples" / "iteration-000020.png").is_file()

    last = halves / "checkpoints" / "last.ckpt"
    trouble = ["--trainer.callbacks+=tests.processes.Trouble", "--trainer.callbacks.at", "5"]
    trouble += ["--trainer.callbacks.rank", "1", "--trainer.callbacks.interrupt", "true"]
    assert zoo(["fit", "-c", write(config, halves), *words, *trouble], halves) == 130, log(halves)
    assert torch.load(last, weights_only=True)["clocks"]["iterations"] == 6
    assert zoo(["fit", "-c", write(config, halves), *words, "--ckpt_path", str(last)], halves) == 0, log(halves)
    assert_same_run(whole, halves, interrupted_at=5)


@pytest.mark.slow
@pytest.mark.parametrize("system", ["volumegan"])
def test_an_overflow_on_one_process_is_skipped_on_all(system, tmp_path) -> None:
    """Also in gradients that are accumulated before processes exchange them, as those of fakes are here."""
    words = ["fit", "-c", write(SYSTEMS[system](), tmp_path), *TWO, "--model.precision", "fp16"]
    words += ["--trainer.max_steps", "3", "--trainer.callbacks+=tests.processes.Keep"]
    words += ["--trainer.callbacks+=tests.processes.Overflow", "--trainer.callbacks.rank", "1"]
    assert zoo(words, tmp_path) == 0, log(tmp_path)
    first, second = kept(tmp_path, 0), kept(tmp_path, 1)
    for losses in (first["losses"], second["losses"]):
        for name in ("loss_g/scale", "loss_d/scale"):
            assert [of_iteration[name] for of_iteration in losses] == [2.0**8, 2.0**8, 2.0**7]
        assert all(math.isfinite(value) for value in losses[-1].values())
    assert len(first["gradients"]) == len(second["gradients"]) == 4 + 0 + 3  # with the regularisers' steps
    assert differences(first["state"], second["state"]) == []


@pytest.mark.parametrize("system", ["pigan"])
def test_an_error_on_one_process_ends_all_after_they_exchanged_gradients(system, tmp_path) -> None:
    trouble = [
        "--trainer.callbacks+=tests.processes.Trouble",
        "--trainer.callbacks.at",
        "2",
        "--trainer.callbacks.rank",
    ]
    words = ["fit", "-c", write(SYSTEMS[system](), tmp_path), *TWO, "--trainer.max_steps", "99", *trouble, "1"]
    words += ["--trainer.callbacks+=tests.processes.Exchange"]
    assert zoo(words, tmp_path) not in (0, 130)
    assert "trouble on process 1" in log(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("system", ["pigan"])
def test_two_machines_learn_as_one_process_with_the_larger_batch(system, tmp_path) -> None:
    """Losses and gradients that are means over independent samples, under torchrun over the loopback interface."""
    config = SYSTEMS[system]()
    for part in ("data", "model"):
        config[part]["init_args"].pop("stages", None)
    sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01}}  # Adam would enlarge what is only rounding
    config["model"]["init_args"] |= {"optimizer_g": sgd, "optimizer_d": sgd}
    one, two = tmp_path / "one", tmp_path / "two"
    words = ["--trainer.callbacks+=tests.processes.SameDraws", "--trainer.callbacks+=tests.processes.Keep"]
    words += ["--trainer.max_steps", "4"]
    assert main(["fit", "-c", write(config, one), *words, "--data.batch_size", "8"]) == 0

    command = ["zoo", "fit", "-c", write(config, two), *words, "--data.batch_size", "4", "--trainer.devices", "1"]
    torchrun = ["torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1"]
    torchrun += ["--master-port", str(free_port())]
    nodes = [[*torchrun, "--node-rank", str(rank), "-m", *command, "--trainer.num_nodes", "2"] for rank in (0, 1)]
    assert finish(*(start(words, two) for words in nodes)) == [0, 0], log(two)

    single, ranks = kept(one), [kept(two, rank) for rank in (0, 1)]
    assert differences(ranks[0]["gradients"], ranks[1]["gradients"]) == []
    assert len(single["gradients"]) == 8
    for mine, theirs in zip(single["gradients"], ranks[0]["gradients"], strict=True):
        assert mine.keys() == theirs.keys() and mine
        for name in mine:
            torch.testing.assert_close(
                theirs[name], mine[name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
            )
    for mine, *theirs in zip(single["losses"], *(rank["losses"] for rank in ranks), strict=True):
        assert theirs[0] != theirs[1]
        for name in mine:
            assert mine[name] == pytest.approx((theirs[0][name] + theirs[1][name]) / 2, rel=1e-5, abs=1e-7)


@pytest.mark.slow
def test_benchmark_compares_two_processes_with_one(tmp_path) -> None:
    config = write(SYSTEMS["pigan"](), tmp_path)
    words = ["--batch", "2", "--steps", "2", "--threads", "1", "--json"]
    assert zoo(["benchmark", config, "--work", "train", "--devices", "2", *words], tmp_path) == 0, log(tmp_path)
    facts = json.loads(log(tmp_path).strip().splitlines()[-1])
    assert facts["processes"] == 2 and facts["resolution"] == 8 and facts["threads"] == 1
    for images, name in ((4, ""), (2, "_of_one")):
        of_all = facts[f"images_per_second{name}"] * facts[f"seconds_per_step{name}"]
        assert of_all == pytest.approx(images, rel=1e-2)
    ratio = facts["images_per_second"] / facts["images_per_second_of_one"]
    assert facts["scaling_efficiency"] == pytest.approx(ratio / 2, abs=2e-3)


def test_every_ddp_is_ours() -> None:
    options = {"devices": 2, "num_nodes": 1, "accelerator": "cpu"}
    lightnings = "pytorch_lightning.strategies.DDPStrategy"
    names = {"auto": "popen", "ddp": "popen", "ddp_spawn": "spawn", "ddp_fork": "fork", "ddp_notebook": "fork"}
    names |= {"DDPStrategy": "popen", lightnings: "popen", "zoo.training.DDP": "popen"}
    names |= {"ddp_find_unused_parameters_false": "popen", "ddp_spawn_find_unused_parameters_true": "spawn"}
    for name, start_method in names.items():
        chosen = strategy(options | {"strategy": name})
        assert type(chosen) is DDP and chosen._start_method == start_method and chosen._timeout == timedelta(minutes=5)

    half_an_hour = timedelta(minutes=30)
    given = Namespace(timeout=half_an_hour, process_group_backend="gloo", ddp_comm_hook=None)
    for unused in ({}, {"dict_kwargs": {"find_unused_parameters": True}}):  # as config.yaml of earlier runs has it
        trainer = Namespace(strategy=Namespace(class_path=lightnings, init_args=given, **unused))
        check_strategy(trainer)
        assert trainer.strategy.class_path == "zoo.training.DDP"
        assert dict(trainer.strategy.init_args) == {"timeout": half_an_hour, "process_group_backend": "gloo"}


@pytest.mark.parametrize(
    ("class_path", "options", "message"),
    [
        (
            "DDPStrategy",
            {"init_args": Namespace(process_group_backend="abc")},
            "_backend of --trainer.strategy is 'abc'",
        ),
        ("DDPStrategy", {"dict_kwargs": {"static_graph": True}}, "gives static_graph, which zoo.training.DDP has not"),
        ("DeepSpeedStrategy", {}, "DeepSpeedStrategy', with which no GAN is trained here: take 'ddp', or derive"),
    ],
)
def test_a_strategy_that_no_gan_trains_with_is_refused(class_path, options, message) -> None:
    chosen = Namespace(class_path=f"pytorch_lightning.strategies.{class_path}", **options)
    with pytest.raises(UserError, match=re.escape(message)):
        check_strategy(Namespace(strategy=chosen))


def test_buckets_hold_all_tensors_of_one_kind(monkeypatch) -> None:
    monkeypatch.setattr(ddp, "BUCKET_BYTES", 12)
    tensors = [torch.zeros(n) for n in (1, 2, 1, 5, 0, 3)]
    other = torch.zeros(1, dtype=torch.float64)
    sizes = [[tensor.numel() for tensor in bucket] for bucket in ddp.buckets([*tensors[:2], other, *tensors[2:]])]
    assert sizes == [[1, 2], [1], [5], [0, 3], [1]] and list(ddp.buckets([])) == []


def test_fewer_images_than_processes(monkeypatch) -> None:
    monkeypatch.setattr(real_statistics, "rank_and_world", lambda: (0, 3))
    with pytest.raises(ValueError, match="3 processes cannot share 2 images of"):
        next(real_statistics.image_batches(NoiseData(), [0, 1], 2, None))
    monkeypatch.setattr(protocol, "rank_and_world", lambda: (2, 3))
    with pytest.raises(ValueError, match="3 processes cannot share 2 generated images"):
        protocol.score(tiny_generator(), NoiseData(), n_fake=2)
