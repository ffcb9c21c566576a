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

import pytest
import torch

from datamodules.cars import Cars
from tests.tiny import write_config
from zoo import threads, training
from zoo.benchmark import BUSY, busy_process
from zoo.cli import main, with_underscores

ROOT = Path(__file__).parent.parent
TOOK = re.compile(
    r"(GOMP_SPINCOUNT|KMP_BLOCKTIME) ?= ?'(\w+)'"
)  # in what OpenMP's libraries print when they are loaded
PYTHON = [sys.executable, "-c"]
SPAWN = """
import zoo
from torch.utils.data import DataLoader
assert len(list(DataLoader(range(2), num_workers=1, multiprocessing_context="spawn"))) == 2
"""


def clean(**more: str) -> dict[str, str]:
    """The environment of a user who has set nothing of OpenMP's."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    return ours | {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"} | more


def taken(words: list[str], folder: Path, **environment: str) -> list[str]:
    """How long threads spin, as each process that loads OpenMP's library on this way in has read it."""
    process = subprocess.Popen(
        words,
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
    found = TOOK.findall(said)
    assert found, said[-2000:]
    return ["short" if value == threads.SHORT_SPIN[name] else value for name, value in found]


@pytest.mark.parametrize("first", ["zoo, torch", "zoo.gan", "datamodules", "callbacks.samples"])
def test_whatever_is_imported_first_threads_wait_briefly(first, tmp_path):
    assert taken([*PYTHON, f"import {first}"], tmp_path) == ["short"]


def test_the_test_above_could_fail(tmp_path):
    assert taken([*PYTHON, "import torch, zoo"], tmp_path) != ["short"]


@pytest.mark.parametrize("name, value", [("GOMP_SPINCOUNT", "77"), ("OMP_WAIT_POLICY", "ACTIVE")])
def test_what_the_user_has_set_stays(name, value, tmp_path):
    own = taken([*PYTHON, "import torch"], tmp_path, **{name: value})
    assert taken([*PYTHON, "import zoo, torch"], tmp_path, **{name: value}) == own != ["short"]


@pytest.mark.slow
def test_processes_that_read_pictures_wait_briefly(tmp_path):
    assert taken([*PYTHON, SPAWN], tmp_path) == ["short", "short"]


@pytest.mark.slow
def test_commands_wait_briefly(tmp_path):
    script = Path(sysconfig.get_path("scripts")) / "zoo"
    assert taken([str(script), "sample", "nothing"], tmp_path) == ["short"]


@pytest.mark.slow
def test_processes_of_the_trainer_wait_briefly(tmp_path):
    words = ["-m", "zoo", "fit", "-c", write_config(tmp_path), "--trainer.max_steps", "1"]
    assert taken([sys.executable, *words, "--trainer.devices", "2"], tmp_path) == ["short", "short"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    of_torchrun, ours = taken([sys.executable, *torchrun, *words, "--print_config"], tmp_path)
    assert of_torchrun != "short" and ours == "short"


@pytest.fixture
def environment(monkeypatch) -> dict[str, str]:
    """``os.environ`` of a user who has set nothing of OpenMP's, on a machine of eight CPUs."""
    monkeypatch.setattr(os, "environ", clean())
    monkeypatch.setattr(threads, "affinity", lambda: 8)
    monkeypatch.setattr(threads, "cpu_quota", lambda root: 8.0)
    monkeypatch.setattr(threads, "THREADS_GIVEN", False)
    return os.environ


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY", "KMP_LIBRARY"])
def test_one_variable_of_the_users_is_enough(name, environment):
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
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import zoo.threads, torch\n"
    code += "print(zoo.threads.available_cpus(), torch.get_num_threads())"
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
def test_no_more_processes_read_pictures_than_there_are_cpus(asked, processes, started, monkeypatch, caplog):
    monkeypatch.setattr(threads, "affinity", lambda: 4)
    data = Cars(16, 4, num_workers=asked)
    if processes > 1:
        data.trainer = type("Trainer", (), {"num_devices": processes, "global_rank": 0, "world_size": processes})
    assert data.train_dataloader().num_workers == data.val_dataloader().num_workers == started
    assert ("num_workers" in caplog.text) == (started < asked)


def test_options_may_have_dashes():
    words = ["x", "--beside-load", "--a-b=c-d", "--other-one", "--from"]
    assert with_underscores(words, ["beside_load", "a_b"]) == [
        *["x", "--beside_load", "--a_b=c-d", "--other-one", "--from_file"]
    ]


def is_running(process: int) -> bool:
    """Whether it is there and no zombie."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def ends(process: int, seconds: float = 20) -> bool:
    """Whether it ends soon."""
    deadline = time.monotonic() + seconds
    while is_running(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(process)


def test_the_busy_process_is_of_another_session_and_ends_with_its_context():
    with suppress(KeyError), busy_process() as busy:
        assert is_running(busy) and os.getsid(busy) == busy != os.getsid(0)
        raise KeyError
    assert not is_running(busy)


def test_the_busy_process_ends_with_the_one_that_started_it():
    code = "from zoo.benchmark import busy_process; import time\n"
    code += "with busy_process() as busy: print(busy, flush=True); time.sleep(100)"
    with subprocess.Popen([*PYTHON, code], env=clean(), stdout=subprocess.PIPE, text=True) as starter:
        busy = int(starter.stdout.readline())
        assert is_running(busy)
        starter.kill()
    assert ends(busy)


def test_the_busy_process_ends_by_itself_and_its_times_do_not_count():
    with pytest.raises(RuntimeError, match="fewer steps"), busy_process(seconds=0.1) as busy:
        assert ends(busy)
    done = subprocess.run([*PYTHON, BUSY, "1", "100"], timeout=20, capture_output=True)  # not its parent
    assert done.returncode == 0


@pytest.mark.slow
def test_training_beside_another_program(tmp_path):
    """Beside another program; spinning as long as OpenMP's libraries do by themselves makes it 15 times slower."""
    words = ["-m", "zoo", "benchmark", "pigan/cars32", "--work", "train", "--batch", "8", "--threads", "2"]
    words += ["--steps", "8", "--json", "--beside-load"]
    done = subprocess.run(
        [sys.executable, *words], env=clean(), capture_output=True, text=True, timeout=250, check=True
    )
    facts = json.loads(done.stdout)
    quiet, busy = facts["seconds_per_step"], facts["seconds_per_step_beside_load"]
    assert facts["threads"] == 2 and facts["beside_load_ratio"] == pytest.approx(busy / quiet, rel=0.01)
    assert facts["beside_load_ratio"] < 8
