"""Memory follows what is asked for, and where it ends there is one sentence."""

import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zoo.utils import memory
from zoo.utils.memory import available_memory, images_at_once, out_of_memory

CPU = torch.device("cpu")


def test_fewer_images_at_once_where_they_are_large_or_memory_is_short(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 2**40)
    assert [images_at_once(side, CPU) for side in (16, 128, 256, 512, 1024)] == [8, 8, 2, 1, 1]
    assert images_at_once(32, CPU, most=32) == 32 and images_at_once(128, CPU, most=32) == 8
    monkeypatch.setattr(memory, "available_memory", lambda device: 2**30)
    assert [images_at_once(side, CPU) for side in (16, 128, 256, 512)] == [8, 5, 1, 1]
    with pytest.raises(MemoryError, match=r"more than the 1.0 GiB that are left"):
        images_at_once(4096, CPU)
    monkeypatch.setattr(memory, "available_memory", lambda device: None)
    assert images_at_once(256, CPU) == 2


def test_a_container_has_what_it_may_still_take(tmp_path):
    assert available_memory(CPU, tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:     4096 kB\n")
    assert available_memory(CPU, tmp_path) == 2**22
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text("1000\n")
    for limit, left in (("max\n", 2**22), ("3000\n", 2000), ("900\n", 0)):
        (group / "memory.max").write_text(limit)
        assert available_memory(CPU, tmp_path) == left
    (group / "memory.stat").write_text("anon 500\nactive_file 100\ninactive_file 300\n")  # files in memory make room
    assert available_memory(CPU, tmp_path) == 300


def test_memory_that_ran_out_is_told_from_other_errors():
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory.")) == "the GPU"
    assert out_of_memory(MemoryError()) == out_of_memory(OSError(12, "x")) == "this machine"
    for sizes, device in (((2**60,), "cpu"), ((2**62, 2**62), "cpu"), ((2**62, 4), "meta"), ((10**20,), "cpu")):
        with pytest.raises((RuntimeError, TypeError)) as error:
            torch.empty(sizes, device=device)
        assert out_of_memory(error.value) == "this machine"
    wrapped = ValueError("of another library")
    wrapped.__cause__ = error.value
    assert out_of_memory(wrapped) == "this machine"
    assert out_of_memory(RuntimeError("mat1 and mat2")) is out_of_memory(ValueError()) is out_of_memory(None) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process to an amount of memory")
def test_a_verb_says_what_to_lower(tmp_path):
    lines = [
        "sample pigan-cars32 --seeds 0 --views 1 --resolution 100000 --out x.png --device cpu",
        "mesh pigan-cars32 --cells 100000 --device cpu",
        "orbit pigan-cars32 --seeds 0 --resolution 3000 --frames 1 --device cpu",
    ]
    limit = "import resource, torch; pages = int(open('/proc/self/statm').read().split()[0]); "
    limit += "most = pages * resource.getpagesize() + 2**30; resource.setrlimit(resource.RLIMIT_AS, (most, most)); "
    code = "import shlex, sys; from zoo.cli.command import main; print([main(shlex.split(x)) for x in sys.argv[1:]])"
    words = [sys.executable, "-c", limit + code, *lines]
    paths = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=200, env=paths)
    said = [line for line in done.stderr.splitlines() if line.startswith("zoo: error: ")]
    assert done.stdout.strip() == "[2, 2, 2]" and not [*tmp_path.iterdir()], shlex.join(words)
    for line, options in zip(said, ("--views or --seeds", "--cells or --views or --seeds", "--frames"), strict=True):
        assert "There is not enough memory on this machine for this: lower --resolution or " in line
        assert options in line and len(line) < 300


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep freed memory")
def test_freed_memory_is_kept_for_the_next_tensor():
    code = """
import resource, torch
from zoo.utils.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(12 * 2**20)  # 48 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
print(*(faults() for _ in range(30)))
"""
    faults = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert int(faults[-1]) < 100  # pages that the system had to give; the first few leave unused pieces
