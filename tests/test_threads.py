"""How OpenMP's threads wait, how many there are, and how many CPUs count as ours."""

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from datamodules.cars import Cars
from tests.tiny import write_config
from zoo.cli import lightning as training
from zoo.cli.command import main, with_underscores
from zoo.cli.speed import busy_process
from zoo.utils import threads

pytestmark = pytest.mark.xdist_group("processes")
ROOT = Path(__file__).parent.parent
SCRIPT = Path(sysconfig.get_path("scripts")) / "zoo"
PYTHON = [sys.executable, "-c"]
FAKE_TORCH = """
import os
print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("KMP_BLOCKTIME"), flush=True)
os._exit(0)
"""
SPAWN = """
import zoo
from torch.utils.data import DataLoader
assert len(list(DataLoader(range(2), num_workers=1, multiprocessing_context="spawn"))) == 2
"""


def clean(**more: str) -> dict[str, str]:
    """The environment of a user who has set nothing of OpenMP's."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    return ours | {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"} | more


@pytest.mark.parametrize(
    "command",
    [
        *([*PYTHON, f"import {first}"] for first in ("zoo.training.gan", "datamodules", "callbacks.samples")),
        [*PYTHON, "import zoo; zoo.PiGAN"],
        [sys.executable, "-m", "zoo", "fit", "-c", "pigan/cars32"],
        [str(SCRIPT), "sample", "pigan-cars32", "--out", "grid.png"],
    ],
    ids=["zoo.training.gan", "datamodules", "callbacks", "zoo", "python -m zoo", "zoo sample"],
)
def test_the_spin_is_set_when_torch_is_imported(command, tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text(FAKE_TORCH)
    environment = clean(PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == list(threads.SHORT_SPIN.values()), done.stderr


def spins(command: list[str], folder: Path, **environment: str) -> list[bool]:
    """Whether OpenMP's library took the short spin, for each process that loads it: what it prints about itself."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=clean(OMP_DISPLAY_ENV="verbose", **environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said = process.communicate(timeout=200)[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    found = re.findall(r"(GOMP_SPINCOUNT|KMP_BLOCKTIME) ?= ?'(\w+)'", said)
    assert found, said[-2000:]
    return [value == threads.SHORT_SPIN[name] for name, value in found]


def test_the_library_reads_the_spin_before_or_never(tmp_path):
    assert spins([*PYTHON, "import zoo, torch"], tmp_path) == [True]
    assert spins([*PYTHON, "import torch, zoo"], tmp_path) == [False]


@pytest.mark.slow
def test_processes_of_processes_wait_briefly(tmp_path):
    """Those that read images, those that the trainer starts, and those of torchrun, which imports torch first."""
    assert spins([*PYTHON, SPAWN], tmp_path) == [True, True]
    words = ["-m", "zoo", "fit", "-c", write_config(tmp_path), "--trainer.max_steps", "1"]
    assert spins([sys.executable, *words, "--trainer.devices", "2"], tmp_path) == [True, True]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    assert spins([sys.executable, *torchrun, *words, "--print_config"], tmp_path) == [False, True]


@pytest.fixture
def environment(monkeypatch) -> dict[str, str]:
    """``os.environ`` of a user who has set nothing of OpenMP's, on a machine of eight CPUs."""
    monkeypatch.setattr(os, "environ", clean())
    monkeypatch.setattr(threads, "affinity", lambda: 8)
    monkeypatch.setattr(threads, "cpu_quota", lambda root: 8.0)
    monkeypatch.setattr(threads, "THREADS_GIVEN", False)
    return os.environ


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY", "KMP_LIBRARY"])
def test_how_threads_wait_is_the_users_to_say(name, environment):
    environment[name] = "1"
    before = dict(environment)
    threads.configure_openmp()
    assert environment == before


def test_nothing_but_the_spin_is_set_where_nothing_limits_us(environment):
    before = dict(environment)
    threads.configure_openmp()
    assert environment == before | threads.SHORT_SPIN


def test_threads_of_a_container(environment, monkeypatch):
    monkeypatch.setattr(threads, "cpu_quota", lambda root: 3.9)
    threads.configure_openmp()
    assert environment["OMP_NUM_THREADS"] == "3"
    monkeypatch.setattr(threads, "THREADS_GIVEN", True)
    environment["OMP_NUM_THREADS"] = "7"
    threads.configure_openmp()
    assert environment["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize("processes, each", [(2, "4"), (3, "2"), (20, "1")])
def test_processes_of_one_machine_share_its_cpus(processes, each, environment):
    environment["LOCAL_WORLD_SIZE"] = str(processes)
    threads.configure_openmp()
    assert environment["OMP_NUM_THREADS"] == each


@pytest.mark.parametrize("cpus", [2, 8], ids=["of its own", "of all"])
def test_processes_of_slurm(cpus, environment, monkeypatch):
    """Each of four has two CPUs, whether it may run on these alone or on all eight of the job."""
    monkeypatch.setattr(threads, "affinity", lambda: cpus)
    environment["SLURM_CPUS_ON_NODE"] = "8"
    assert threads.cpus_of_each(4) == 2


def test_the_trainer_shares_cpus_among_its_processes(tmp_path, monkeypatch, environment):
    """Also where it starts the processes itself: before that, so that they inherit it."""
    monkeypatch.setattr(threads, "cpu_quota", lambda root: 6.0)
    before = torch.get_num_threads()
    monkeypatch.setattr(training.LightningCLI, "instantiate_trainer", lambda *_, **__: 1 / 0)
    try:
        with pytest.raises(ZeroDivisionError):
            main(["fit", "-c", write_config(tmp_path), "--trainer.devices", "3"])
        assert torch.get_num_threads() == 2 and environment["OMP_NUM_THREADS"] == "2"
    finally:
        torch.set_num_threads(before)


def test_threads_follow_the_cpus_that_a_process_may_run_on(tmp_path):
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import zoo.utils.threads, torch\n"
    code += "print(zoo.utils.threads.available_cpus(), torch.get_num_threads())"
    done = subprocess.run([*PYTHON, code], env=clean(), capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.split() == ["1", "1"]


GROUPS = {
    "none": ("0::/", {}, 8),
    "no limit": ("0::/", {"cpu.max": "max 100000"}, 8),
    "version 2": ("0::/", {"cpu.max": "150000 100000"}, 1),
    "less than one": ("0::/", {"cpu.max": "20000 100000"}, 1),
    "more than there are": ("0::/", {"cpu.max": "6400000 100000"}, 8),
    "the group's own": ("0::/a/b", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "max 100000"}, 3),
    "a group's around it": ("0::/a/b", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "100000 50000"}, 2),
    "another group's": ("0::/a/b", {"a/c/cpu.max": "300000 100000"}, 8),
    "seen from inside": ("0::/docker/1f", {"cpu.max": "200000 100000"}, 2),
    "version 1": (
        "5:cpuset:/\n4:cpu,cpuacct:/docker/1f\n0::/",
        {"cpu,cpuacct/docker/1f/cpu.cfs_quota_us": "250000", "cpu,cpuacct/docker/1f/cpu.cfs_period_us": "50000"},
        5,
    ),
    "version 1 from inside": (
        "4:cpu,cpuacct:/docker/1f",
        {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"},
        4,
    ),
    "version 1 without limit": ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
    "both versions": ("3:memory:/\n0::/a", {"unified/a/cpu.max": "200000 100000"}, 2),
}


@pytest.mark.parametrize("groups, files, cpus", GROUPS.values(), ids=GROUPS)
def test_cpus_of_control_groups(groups, files, cpus, tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "affinity", lambda: 8)
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": files[name] for name in files}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert threads.available_cpus(tmp_path) == cpus
    assert threads.available_cpus(tmp_path / "nothing here") == 8


@pytest.mark.parametrize("asked, processes, started", [(0, 1, 0), (2, 1, 2), (6, 1, 4), (6, 2, 2), (6, 8, 1)])
def test_no_more_processes_read_images_than_there_are_cpus(asked, processes, started, environment, monkeypatch, caplog):
    monkeypatch.setattr(threads, "affinity", lambda: 4)
    data = Cars(16, 4, num_workers=asked)
    data.trainer = SimpleNamespace(num_devices=processes, global_rank=0, world_size=processes, global_step=0)
    data.setup("fit")
    assert data.num_workers == started
    assert ("num_workers" in caplog.text) == (started < asked)


def test_options_may_have_dashes():
    words = ["x", "--beside-load", "--a-b=c-d", "--other-one", "--from"]
    expected = ["x", "--beside_load", "--a_b=c-d", "--other-one", "--from_file"]
    assert with_underscores(words, ["beside_load", "a_b"]) == expected


def is_running(process: int) -> bool:
    """Whether it is there and no zombie."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_the_busy_process_is_of_another_session_and_ends_with_its_context():
    with suppress(KeyError), busy_process() as busy:
        assert is_running(busy) and os.getsid(busy) == busy != os.getsid(0)
        raise KeyError
    assert not is_running(busy)


def test_the_busy_process_ends_with_the_one_that_started_it():
    code = "from zoo.cli.speed import busy_process; import time\n"
    code += "with busy_process() as busy: print(busy, flush=True); time.sleep(100)"
    with subprocess.Popen([*PYTHON, code], env=clean(), stdout=subprocess.PIPE, text=True) as starter:
        try:
            busy = int(starter.stdout.readline())
            assert is_running(busy)
        finally:
            starter.kill()
    deadline = time.monotonic() + 20
    while is_running(busy) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(busy)


@pytest.mark.slow
def test_training_beside_another_program(tmp_path):
    """Spinning as long as OpenMP's libraries do by themselves makes it about fifteen times slower."""
    words = ["-m", "zoo", "benchmark", "pigan/cars32", "--work", "train", "--batch", "8", "--threads", "2"]
    words += ["--steps", "8", "--json", "--beside-load"]
    done = subprocess.run(
        [sys.executable, *words], env=clean(), capture_output=True, text=True, timeout=250, check=True
    )
    facts = json.loads(done.stdout)
    quiet, busy = facts["seconds_per_step"], facts["seconds_per_step_beside_load"]
    assert facts["threads"] == 2 and facts["beside_load_ratio"] == pytest.approx(busy / quiet, rel=0.01)
    assert facts["beside_load_ratio"] < 8
