"""What verbs import before they work, and for how long; devices and resolutions that are refused first."""

import importlib
import json
import resource
import subprocess
import sys
from pathlib import Path
from shlex import quote
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import zoo
from zoo.cli.command import main
from zoo.utils.devices import use_device
from zoo.utils.paths import BUNDLED
from zoo.weights import bundle

ROOT = Path(__file__).parent.parent
CASES = ROOT / "tests" / "parity" / "cases"
NEVER = ["pytorch_lightning", "lightning_fabric", "torchmetrics", "torchvision", "torch_fidelity", "kornia", "wandb"]
NEVER += ["matplotlib", "pandas", "transformers", "torch._dynamo", "scipy"]  # scipy: but for meshes, see below
LINES = [
    "list",
    "leaderboard",
    f"convert {quote(str(CASES))}/pigan/checkpoint/generator.pth converted --experiment pigan/celeba64",
    f"bundle {quote(str(ROOT))}/tests/fixtures/pigan/last.ckpt bundle",
    "download pigan-celeba.official --from nothing.zip",
    *(f"sample {folder.name} --out grid.png --seeds 0 --views 1" for folder in sorted(BUNDLED.glob("*-cars*"))),
    "orbit pigan-cars32 --seeds 0 --frames 2 --out film.gif",
    "mesh pigan-cars32 --cells 8 --views 1 --out car.ply",
]
SCRIPT = f"""
import contextlib, io, json, shlex, sys
import zoo
from zoo.cli.command import main
codes, found = {{}}, {{}}
for line in {LINES}:
    with contextlib.redirect_stdout(io.StringIO()):
        codes[line] = main(shlex.split(line))
    found[line] = [name for name in {NEVER} if name in sys.modules]
zoo.load("graf-cars64")
found["load"] = [name for name in {NEVER} if name in sys.modules]
print(json.dumps([codes, found]))
"""


def python(*words: str, folder: Path) -> tuple[str, float]:
    """What a new Python prints, and the processor seconds that it takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = ENVIRONMENT | {"HOME": str(folder / "no-home"), "ZOO_CACHE": str(folder / "cache")}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


ENVIRONMENT = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_verbs_that_draw_import_neither_lightning_nor_torchvision(tmp_path) -> None:
    codes, found = json.loads(python("-c", SCRIPT, folder=tmp_path)[0])
    assert {line: code for line, code in codes.items() if code} == {LINES[4]: 2}  # there is no such file
    mesh = LINES[-1]  # what finds the nearest vertex that is seen, and marching cubes, are scipy's and scikit-image's
    assert set(found.pop("load")) | set(found.pop(mesh)) <= {"scipy"}
    assert {line: modules for line, modules in found.items() if modules} == {}


@pytest.mark.slow
def test_a_grid_takes_at_most_1_8_times_what_importing_torch_takes(tmp_path) -> None:
    """Processor time, of which a busy machine takes hardly more; the best of three, in turn."""
    sample = ("-m", "zoo", "sample", "pigan-cars32", "--out", "grid.png")
    bare, drawn = zip(
        *((python("-c", "import torch", folder=tmp_path)[1], python(*sample, folder=tmp_path)[1]) for _ in range(3)),
        strict=True,
    )
    assert min(drawn) <= 1.8 * min(bare)


@pytest.fixture
def photo(tmp_path) -> str:
    Image.new("RGB", (16, 16)).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


# Devices


@pytest.fixture
def two_gpus(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Made-up {device.index}")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90"])
    cards = [SimpleNamespace(name="Made-up 0", major=9, minor=0), SimpleNamespace(name="Made-up 1", major=7, minor=0)]
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: cards[index])


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0", "cpu"])
def test_a_gpu_is_taken_where_there_is_one(name, two_gpus, capsys) -> None:
    device = use_device(name)
    assert device == torch.device("cpu" if name == "cpu" else "cuda:0")
    assert capsys.readouterr().err == ("Running on cpu.\n" if name == "cpu" else "Running on cuda:0 (Made-up 0).\n")


def test_gpus_that_are_not_there_or_cannot_be_served(two_gpus) -> None:
    with pytest.raises(ValueError, match="no device 'cuda:9' here: torch sees 2 CUDA GPUs, numbered from 0"):
        use_device("cuda:9")
    with pytest.raises(ValueError, match=r"no code for Made-up 1 \(sm_70\).*--device cpu"):
        use_device("cuda:1")


@pytest.mark.parametrize("verb", ["sample", "orbit", "mesh", "invert", "evaluate", "benchmark"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((name, f"'{name}' is no device: take auto, cpu, cuda") for name in ("gpu", "tpu", "cuda:", "meta")),
        ("", "--device is empty: give a value, or leave it out."),
        ("cuda", "no device 'cuda' here: torch sees no CUDA GPU"),
        ("mps", "no device 'mps' here: it is Apple's"),
    ],
)
def test_every_verb_that_computes_refuses_such_a_device_first(verb, name, message, photo, monkeypatch, capsys) -> None:
    importlib.import_module("zoo.evaluate.presets")  # which would keep what is replaced here
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(bundle, "load_bundle", None)  # is not called
    monkeypatch.setattr(bundle, "build", None)
    words = {"sample": ["--out", "x.png"], "invert": ["--image", photo]}.get(verb, [])
    source = "pigan/cars32" if verb == "benchmark" else "pigan-cars32"
    assert main([verb, source, *words, f"--device={name}"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("zoo: error: ") and said.count("\n") == 1 and len(said) < 300


def test_what_is_no_device_costs_no_import_of_torch(tmp_path) -> None:
    lines = [f"{verb} a --device tpu" for verb in ("sample --out b", "orbit", "mesh", "evaluate", "benchmark")]
    lines += ["invert a --image b --device tpu"]
    code = f"print([main(line.split()) for line in {lines}], 'torch' in sys.modules)"
    printed, _ = python("-c", f"import sys; from zoo.cli.command import main; {code}", folder=tmp_path)
    assert printed == "[2, 2, 2, 2, 2, 2] False\n"


def test_verbs_say_where_they_run(tmp_path, capsys) -> None:
    words = ["--out", str(tmp_path / "grid.png"), "--seeds", "0", "--views", "1"]
    assert main(["sample", "pigan-cars32", *words]) == 0
    assert capsys.readouterr().err == f"Running on {'cuda:0' if torch.cuda.is_available() else 'cpu'}.\n"


# Resolutions


@pytest.mark.parametrize(
    ("name", "resolution", "message"),
    [
        ("stylenerf-cars32", 48, "StyleNeRF renders images of side 16, 32, not 48."),
        ("volumegan-cars32", 64, "VolumeGAN renders images of side 16, 32, not 64."),
        ("giraffe-cars32", 30, "a multiple of 4 from 8 on, such as 32, not 30."),
    ],
)
def test_a_resolution_is_refused_before_weights_are_read(name, resolution, message, photo, monkeypatch, capsys) -> None:
    monkeypatch.setattr(bundle, "read_tensors", None)  # is not called
    for words in (["sample", "--out", "x.png"], ["orbit"], ["mesh"], ["invert", "--image", photo]):
        assert main([words[0], name, *words[1:], "--resolution", str(resolution)]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match=message):
        zoo.load(name, resolution=resolution)
