"""What a GPU has to show, in one run: ``make test-gpu``, or ``python -m pytest -m gpu``.

Everything that is found goes into one JSON, which is printed at the end and written to ``runs/test-gpu.json``.
``GAN3D_TEST_DEVICE=cpu`` runs the same on the CPU, to try these tests where there is no GPU.
"""

import copy
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parity import harness
from tests.processes import scores
from tests.same_runs import check_exact_resume, differences, losses, write
from tests.systems import SYSTEMS, NoiseData, last_stage
from tests.test_compiling import assert_alike
from tests.test_gan import fit
from tests.test_processes import log, zoo
from zoo.cli import speed
from zoo.cli.command import main
from zoo.evaluate.protocol import commit
from zoo.generator import Generator, render_samples
from zoo.leaderboard import speeds
from zoo.training.compiling import compiling_failed
from zoo.training.gan import GAN
from zoo.utils.devices import describe
from zoo.utils.paths import read_experiment
from zoo.weights.bundle import build

ROOT = Path(__file__).parent.parent
DEVICE = torch.device(os.environ.get("GAN3D_TEST_DEVICE", "cuda:0"))
ON_GPU = DEVICE.type == "cuda"
HERE = ["--trainer.accelerator", "gpu" if ON_GPU else DEVICE.type]
OVERLAYS = [name for name in ("v100", "rtx", "tf32") if (ROOT / f"configs/overlays/{name}.yaml").is_file()]
CASES = sorted(path.parent for path in harness.CASES.glob("*/*/case.json"))
REPORT: dict[str, Any] = {}

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        ON_GPU and not torch.cuda.is_available(),
        reason="torch sees no CUDA GPU; GAN3D_TEST_DEVICE=cpu tries these tests on the CPU",
    ),
]


class Reporter:
    """Notes how each test ended, and prints and writes the report when all have."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            name = report.nodeid.partition("::")[2]
            REPORT.setdefault("tests", {})[name] = {"outcome": report.outcome, "seconds": round(report.duration, 2)}
            if report.failed:
                REPORT["tests"][name]["error"] = report.longreprtext.splitlines()[-8:]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        outcomes = [test["outcome"] for test in REPORT["tests"].values()]
        facts = {"device": describe(DEVICE), "torch": torch.__version__, "cuda": torch.version.cuda, "commit": commit()}
        facts |= {f"tests_{outcome}": outcomes.count(outcome) for outcome in ("passed", "failed", "skipped")}
        path = ROOT / "runs" / "test-gpu.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(facts | REPORT, indent=1) + "\n")
        terminalreporter.write_line(json.dumps(facts | REPORT))
        terminalreporter.write_line(f"Written to {path}.")


@pytest.fixture(scope="module", autouse=True)
def reporter(request: pytest.FixtureRequest) -> None:
    request.config.pluginmanager.register(Reporter())


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Whatever an overlay or a trainer has set: float32 is float32 again."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def note(kind: str, name: str, value: Any) -> None:
    """Put it into the report."""
    REPORT.setdefault(kind, {})[name] = value


def built(system: str, **options: Any) -> GAN:
    """A tiny system with the same weights each time, in the last stage of its training."""
    model = last_stage(SYSTEMS[system]()["model"])
    torch.manual_seed(0)
    return build(model | {"init_args": model["init_args"] | options}, GAN)


def train(gan: GAN, steps: int, folder: Path) -> GAN:
    data = NoiseData(resolution=gan.generator.resolution, posed=True)
    fit(gan, steps, folder, loader=data, accelerator=HERE[1], devices=1)
    return gan


# Numbers


@pytest.mark.parametrize("folder", CASES, ids=[f"{folder.parent.name}/{folder.name}" for folder in CASES])
def test_parity(folder: Path) -> None:
    """In float64 as recorded, and in float32 as near to that as rounding allows, all on the device."""
    exact = harness.run(folder, device=DEVICE)
    limits = harness.tolerances(exact)
    lines = [harness.check(exact, exact.outputs, limits)]
    rounded = harness.run(folder, torch.float32, device=DEVICE)
    lines.append(harness.check(rounded, {n: c.ours for n, c in exact.compared.items()}, limits))
    note("parity", exact.name, lines)


def shaken(generator: Generator, seed: int) -> Generator:
    """The generator with all weights changed by 2^-24 of themselves, up or down."""
    changed = copy.deepcopy(generator)
    for i, parameter in enumerate(changed.parameters()):
        parameter.data = harness.shaken(parameter.data, 1000 * seed + i)
    return changed


def shown(generator: Generator) -> dict[str, Tensor]:
    """Some samples, with jitter, on the CPU."""
    rendered = render_samples(generator, range(3))
    return {name: getattr(rendered, name).cpu() for name in ("image", "raw", "opacity")}


@pytest.mark.parametrize("system", SYSTEMS)
def test_samples_are_those_of_the_cpu(system: str) -> None:
    """As near as samples of weights that are changed by their rounding."""
    generator = built(system).generator
    expected, found = shown(generator), shown(copy.deepcopy(generator).to(DEVICE))
    others = [shown(shaken(generator, seed)) for seed in range(1, 5)]
    for name, image in expected.items():
        sensitivity = max((other[name] - image).abs().max().item() for other in others)
        difference = (found[name] - image).abs().max().item()
        note("samples", f"{system}.{name}", {"difference": difference, "sensitivity": sensitivity})
        assert difference <= max(4 * sensitivity, 1e-5), name


@pytest.mark.parametrize("system", SYSTEMS)
def test_scores_are_those_of_the_cpu(system: str) -> None:
    generator = built(system).generator
    data = NoiseData(resolution=generator.resolution, posed=True)
    expected = scores(generator, data)
    found = scores(generator.to(DEVICE), data)
    note("scores", system, {"cpu": expected, "device": found})
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)


# Training


@pytest.mark.parametrize("system", SYSTEMS)
def test_resume_is_exact(system: str, tmp_path: Path) -> None:
    words = [*HERE, "--trainer.devices", "1", "--trainer.deterministic", "warn"]
    check_exact_resume(SYSTEMS[system](), tmp_path, words, steps=6, stop=4)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_trains(overlay: str, system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten iterations; a loss scale that is to grow after each of them moves."""
    if overlay == "rtx" and ON_GPU and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU has no bfloat16")
    start = {"init_scale": 2.0**8, "growth_interval": 1}
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, **start))
    config = SYSTEMS[system]()
    config["model"] = last_stage(config["model"])
    words = ["-c", write(config, tmp_path), "-c", f"overlays/{overlay}", *HERE, "--trainer.max_steps", "10"]
    assert main(["fit", *words]) == 0
    rows = losses(tmp_path)
    found = {name: [float(row[name]) for row in rows if row.get(name)] for name in ("loss_g", "loss_d")}
    scales = {name: [float(row[name]) for row in rows] for name in ("loss_g/scale", "loss_d/scale") if name in rows[0]}
    note("overlays", f"{overlay}.{system}", found | scales)
    assert len(rows) == 10 and all(math.isfinite(loss) for name in found for loss in found[name])
    assert (overlay == "v100") == bool(scales)
    assert all(scale[0] == 2.0**8 and len({*scale}) > 1 for scale in scales.values())


@pytest.mark.parametrize("system", ["pigan", "volumegan"])
def test_two_processes_stay_alike(system: str, tmp_path: Path) -> None:
    if ON_GPU and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    more = ["--trainer.devices", "2", "--trainer.max_steps", "4", "--trainer.callbacks+=tests.processes.Keep"]
    assert zoo(["fit", "-c", write(SYSTEMS[system](), tmp_path), *HERE, *more], tmp_path) == 0, log(tmp_path)
    one, two = (torch.load(tmp_path / f"kept-{rank}.pt", map_location="cpu", weights_only=True) for rank in (0, 1))
    assert differences(one["gradients"], two["gradients"]) == differences(one["state"], two["state"]) == []
    assert one["losses"] != two["losses"]
    note("two_processes", system, one["losses"][-1])


# Speed


class Passes:
    """Watches forward and backward passes of a model for what makes the host wait for the device.

    Args:
        gan: the model.

    begins: called when a pass begins that is inside of no other; ``ends`` when it ends.
    """

    def __init__(self, gan: GAN, begins: Callable[[], None], ends: Callable[[], None]) -> None:
        self.begins, self.ends, self.depth, self.gan = begins, ends, 0, gan
        gan.manual_backward = self.watched(gan.manual_backward)
        for name in ("map", "render", "synthesise", "integrate", "together"):
            if hasattr(gan.generator, name):
                setattr(gan.generator, name, self.watched(getattr(gan.generator, name)))
        gan.discriminator.forward = self.watched(gan.discriminator.forward)

    def watched(self, function: Callable) -> Callable:
        def inside(*args: Any, **kwargs: Any) -> Any:
            with self.inside():
                return function(*args, **kwargs)

        return inside

    @contextmanager
    def inside(self) -> Iterator[None]:
        self.depth += 1
        if self.depth == 1 and self.gan.iterations:  # the first iteration sets libraries up
            self.begins()
        try:
            yield
        finally:
            self.depth -= 1
            if self.depth == 0 and self.gan.iterations:
                self.ends()


@pytest.mark.parametrize("system", SYSTEMS)
def test_no_pass_waits_for_the_device(system: str, tmp_path: Path) -> None:
    """Each place in the code that does is in the report."""
    gan, passes = built(system), []
    kinds = ("warn", "default") if ON_GPU else ("", "")

    def switch(kind: str) -> None:
        passes.append(kind)
        if ON_GPU:
            torch.cuda.set_sync_debug_mode(kind)

    Passes(gan, *(partial(switch, kind) for kind in kinds))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(gan, 4, tmp_path)
    waits = sorted({f"{w.filename}:{w.lineno}" for w in caught if "synchronizing CUDA" in str(w.message)})
    note("waits", system, waits)
    assert len(passes) >= 2 * 3 * 4 and waits == []  # three iterations, two networks forward and backward


@pytest.mark.timeout(900)  # a C++ compiler on a busy CPU
@pytest.mark.parametrize("system", ["pigan", "volumegan"])
def test_compiled_networks_learn_the_same(system: str, tmp_path: Path) -> None:
    sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}  # Adam steps far by the rounding of no gradient
    how = {"optimizer_g": sgd, "optimizer_d": sgd}
    eager, compiled = (train(built(system, compile=on, **how), 3, tmp_path) for on in (False, True))
    assert not compiling_failed(compiled)
    assert_alike(compiled, eager, 1e-3)
    with pytest.raises(AssertionError):  # they have learned
        assert_alike(compiled, built(system, **how), 0.01)


@pytest.mark.parametrize("work", ["render", "train"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_benchmark(system: str, work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of the documentation's columns, of small published recipes; on a CPU only that it can be made."""
    name, batch, steps = f"{system}/cars{64 if system == 'graf' else 32}", 8, 3
    if not ON_GPU:
        name, batch, steps = write(SYSTEMS[system](), tmp_path), 2, 1
        monkeypatch.setattr(speed, "matrix_rate", partial(speed.matrix_rate, side=256))
    else:
        torch.cuda.reset_peak_memory_stats(DEVICE)
    facts = {"experiment": name}
    facts |= speed.measure(read_experiment(name), work, None, batch, None, steps, device=DEVICE)
    row = speeds.append_row(facts, tmp_path / "table.csv")
    note("benchmark", f"{system}.{work}", facts)
    assert row["images_per_second"] > 0 and (row["peak_gpu_mib"] != "") == ON_GPU
