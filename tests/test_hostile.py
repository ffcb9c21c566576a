"""zoo convert against hostile and broken files: one line, exit code 2, nothing run, little time and memory.

All go through one process of their own, whose interpreter reports whatever would run code or a command.
"""

import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.test_official import CASES, CIPS, graf_experiment
from tests.test_read import RUNNING, STILL, WRONG, packed, pretend, zipped
from zoo.cli.command import main
from zoo.utils.records import MAX_STEPS
from zoo.weights.read import read

pytestmark = pytest.mark.xdist_group("processes")

ROOT = Path(__file__).parent.parent
STYLENERF = Path(__file__).parent / "parity" / "cases" / "stylenerf" / "checkpoint" / "network-snapshot-000000.pkl"
PUBLISHED = {
    "pigan": CASES / "pigan/checkpoint/generator.pth",
    "graf": CASES / "graf/checkpoint/model.pt",
    "giraffe": CASES / "giraffe/checkpoint/model_best.pt",
    "cips3d": CIPS / "G_ema.pth",
    "cips3d module": CIPS / "G_ema_model.pth",
    "volumegan": CASES / "volumegan/checkpoint/checkpoint-000002.pth",
}
CHILD = """
import json, resource, sys, time
from zoo.cli import main

WATCHED = {"os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "subprocess.Popen",
    "pty.spawn", "compile", "pickle.find_class", "socket.connect", "urllib.Request"}
seen = []


def watch(event, args):
    imported = event == "exec" and args[0].co_filename.endswith(".py")  # a module of Python, loaded when needed
    if event in WATCHED or (event == "exec" and not imported):
        seen.append(event)


for i, words in enumerate([json.loads(line) for line in open("jobs")]):
    if i == 1:  # the first one has imported everything
        sys.addaudithook(watch)
    seen.clear()
    before = time.process_time()
    code = main(["convert", *words])
    sys.stderr.flush()
    print("DONE", json.dumps([code, time.process_time() - before, seen]), file=sys.stderr, flush=True)
print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def poisoned(data: bytes, command: str) -> bytes:
    """A checkpoint that runs a command first, and is the same otherwise."""
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = next(name for name in members if name.endswith("data.pkl"))
        return packed(members | {name: poisoned(members[name], command)})
    return data[:2] + b"cposix\nsystem\n(S'" + command.encode() + b"'\ntR0" + data[2:]


def changed(change) -> bytes:
    """The published GRAF's file with other tensors."""
    held = read(PUBLISHED["graf"]).value
    held["generator_test"] = OrderedDict(held["generator_test"])
    change(held)
    return zipped(held)


def of_tensor(make):
    """A change of one tensor of the averaged generator."""

    def change(held) -> None:
        state, name = held["generator_test"], "pts_linears.1.weight"
        state[name] = make(state[name])

    return change


def in_discriminator(held) -> None:
    held["discriminator"]["main.0.weight_orig"][0, 0, 0, 0] = torch.inf


def hostile(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Files by name, and what must be said of them."""
    command = f"touch {folder / 'made'}"
    files = {name: (make(command), "") for name, make in (RUNNING | STILL).items()}
    files |= {
        name: (poisoned(path.read_bytes(), command), "posix.system, which no") for name, path in PUBLISHED.items()
    }
    files |= {f"wrong {name}": (data, message) for name, (data, message) in WRONG.items()}
    slip = {"x/generator.pth": PUBLISHED["pigan"].read_bytes(), "../../made": b"x"}
    bomb = {"x/generator.pth": zipped({"x": torch.zeros(2**24)})}
    truncated = PUBLISHED["volumegan"].read_bytes()
    return files | {
        "zip slip": (packed(slip), "would be unpacked outside"),
        "bomb in a zip": (packed(bomb, zipfile.ZIP_DEFLATED), "would unpack to"),
        "truncated": (truncated[: len(truncated) // 2], "cannot be read"),
        "no end of steps": (b"\x80\x04" + b"\x8f" * (MAX_STEPS + 9) + b".", "steps to read"),
        "deep": (b"]" * 10**5 + b"a" * (10**5 - 1) + b".", "of no known system"),
        "deep keys": (b"}" * 10**5 + b"s.", "cannot be read"),
        "shape": (changed(of_tensor(lambda x: x[:-1])), "does not fit|do not fit"),
        "axes": (changed(of_tensor(lambda x: x[0])), "do not fit"),
        "absurd shape": (changed(of_tensor(lambda x: x[:1, :1].expand(2**12, 2**12))), "do not fit"),
        "nan": (changed(of_tensor(lambda x: x * torch.nan)), "not all finite numbers"),
        "infinite": (changed(in_discriminator), "'convolutions.0.weight_orig' are not all finite"),
        "words": (changed(of_tensor(lambda x: "weights")), "is not a tensor"),
        "objects": (changed(of_tensor(lambda x: slice(1, 2))), "is not a tensor"),
        "missing": (
            changed(lambda held: held["generator_test"].pop("rgb_linear.bias")),
            "has no 'generator.rgb_linear",
        ),
        "several": (changed(lambda held: held["generator_test"].update(more=torch.ones(1))), "more is unexpected"),
    }


def answers(folder: Path, jobs: list[list[str]]) -> tuple[list[tuple[int, float, list, list[str]]], float]:
    """Exit code, seconds, events and error lines of each conversion, and the peak of memory [GiB]."""
    (folder / "jobs").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD], cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )
    *said, peak = done.stderr.split("PEAK ")
    results, lines = [], []
    for line in "".join(said).splitlines():
        if line.startswith("DONE "):
            results.append((*json.loads(line[5:]), lines))
            lines = []
        else:
            lines.append(line)
    assert len(results) == len(jobs), done.stderr[-2000:]
    return results, int(peak) / 2**20


def test_hostile_and_broken_files(tmp_path):
    files = hostile(tmp_path)
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(graf_experiment()))
    options = ["--experiment", "experiment.yaml"]
    jobs = [["graf.pt", "out", *options]]
    (tmp_path / "graf.pt").write_bytes(PUBLISHED["graf"].read_bytes())
    for i, (data, _) in enumerate(files.values()):
        (tmp_path / f"{i}.pth").write_bytes(data)
        jobs.append([f"{i}.pth", f"out{i}", *options])
    (first, *rest), peak = answers(tmp_path, jobs)
    assert first[0] == 0, first  # what is whole still converts
    wrong = []
    for (name, (_, message)), (code, seconds, events, lines) in zip(files.items(), rest, strict=True):
        is_one_line = code == 2 and len(lines) == 1 and lines[0].startswith("zoo: error: ")
        if not is_one_line or not re.search(message, lines[0]) or events or seconds > 30:
            wrong.append((name, code, lines, events, seconds))
    assert not wrong
    assert peak < 2 and not (tmp_path / "made").exists()
    assert not list(tmp_path.glob("out[0-9]*")) and not list(tmp_path.glob(".making*"))


def test_the_poison_works(tmp_path):
    """Where a file is loaded as pickles are meant to be."""
    data = poisoned(PUBLISHED["graf"].read_bytes(), f"touch {tmp_path / 'made'}")
    torch.load(io.BytesIO(data), "cpu", weights_only=False)
    assert (tmp_path / "made").exists()


def test_tensors_and_settings_of_eg3d_come_without_its_source_being_run(tmp_path, monkeypatch):
    class EasyDict(dict):
        pass

    def rebuild(meta: dict):
        exec(meta["module_src"])

    class Stored:
        """An object whose class comes as text, as StyleGAN's programs pickle all of theirs."""

        def __init__(self, name: str, **state) -> None:
            self.meta = {"type": "class", "version": 6, "module_src": source, "class_name": name, "state": state}

        def __reduce__(self):
            return rebuild, (self.meta,)

    def layer(**tensors) -> Stored:
        return Stored("FullyConnectedLayer", _parameters=OrderedDict(tensors), _buffers={}, _modules={})

    pretend(monkeypatch, "dnnlib.util", EasyDict=EasyDict)
    pretend(monkeypatch, "torch_utils.persistence", rebuild=rebuild)
    source = f"open({str(tmp_path / 'made')!r}, 'w')"
    weight, average = torch.nn.Parameter(torch.randn(2, 3)), torch.randn(3)
    inner = Stored("Mapping", _parameters={}, _buffers={"w_avg": average}, _modules={"fc0": layer(weight=weight)})
    generator = Stored(
        "TriPlaneGenerator",
        _parameters={},
        _buffers={"dataset_label_std": torch.ones(25)},
        _modules=OrderedDict(mapping=inner),
        neural_rendering_resolution=64,
        rendering_kwargs=EasyDict(box_warp=1, ray_start=2.25, gain=np.float64(0.5)),
        _init_args=(),
        _init_kwargs=EasyDict(z_dim=512, sr_kwargs=EasyDict(channel_base=32768)),
    )
    data = pickle.dumps({"G_ema": generator, "D": layer(bias=average), "training_set_kwargs": EasyDict(a=1)})
    pickle.loads(data)
    assert (tmp_path / "made").exists()  # so it does with pickle
    (tmp_path / "made").unlink()
    monkeypatch.undo()
    (tmp_path / "eg3d.pkl").write_bytes(data)
    assert main(["convert", str(tmp_path / "eg3d.pkl"), str(tmp_path / "x")]) == 2
    assert main(["convert", str(tmp_path / "eg3d.pkl"), str(tmp_path / "out"), "--system", "tensors"]) == 0
    assert not (tmp_path / "made").exists()
    tensors = load_file(tmp_path / "out" / "G_ema.safetensors")
    assert list(tensors) == ["dataset_label_std", "mapping.fc0.weight", "mapping.w_avg"]
    assert torch.equal(tensors["mapping.fc0.weight"], weight) and torch.equal(tensors["mapping.w_avg"], average)
    settings = yaml.safe_load((tmp_path / "out" / "G_ema.yaml").read_text())
    assert settings["arguments"] == {"z_dim": 512, "sr_kwargs": {"channel_base": 32768}}
    assert settings["attributes"]["rendering_kwargs"] == {"box_warp": 1, "ray_start": 2.25, "gain": 0.5}
    assert settings["attributes"]["neural_rendering_resolution"] == 64
    assert torch.equal(load_file(tmp_path / "out" / "D.safetensors")["bias"], average)
