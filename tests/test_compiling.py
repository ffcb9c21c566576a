"""Compiled networks: the same numbers, under the same names, and what happens where nothing can be compiled."""

import copy
import json
import logging
import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from tests.parity import harness
from tests.systems import SYSTEMS, NoiseData
from tests.test_gan import fit, tiny_gan, tiny_generator
from tests.tiny import write_config
from zoo.cli import speed
from zoo.cli.command import main
from zoo.pigan.training import PiGAN
from zoo.training.compiling import Compiled, CompiledForward, compile_generator, compile_networks, compiling_failed
from zoo.training.gan import GAN
from zoo.weights.bundle import build

COMPILE = torch.compile
OPTIONAL = {"generator.renderer.field"}  # no tiny system has it


@pytest.fixture(autouse=True)
def anew():
    """What other tests compiled, and how often, is forgotten."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def traced(monkeypatch) -> None:
    """Networks are compiled as far as that needs no C++ compiler, and can be differentiated once."""
    monkeypatch.setattr(torch, "compile", partial(COMPILE, backend="aot_eager"))


def trained(system: str, steps: int, folder: Path, **options: object) -> GAN:
    model = SYSTEMS[system]()["model"]
    torch.manual_seed(0)
    gan = build(model | {"init_args": model["init_args"] | options}, GAN)
    fit(gan, steps, folder, loader=NoiseData(resolution=gan.generator.resolution, posed=True))
    return gan


def assert_alike(one: GAN, two: GAN, share: float) -> None:
    """Both have the same names of tensors, and these differ by a share of their largest numbers at most."""
    ours, theirs = one.state_dict(), two.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.numel():
            largest = theirs[name].nan_to_num().abs().max().item()
            torch.testing.assert_close(
                tensor, theirs[name], rtol=0, atol=share * largest + 1e-7, equal_nan=True, msg=lambda m, n=name: n + m
            )


def test_compiled_networks_learn_the_same(traced, tmp_path) -> None:
    eager, compiled = (trained("pigan", 3, tmp_path, compile=on) for on in (False, True))
    assert counters["stats"]["unique_graphs"] > 2 and not compiling_failed(compiled)
    assert isinstance(compiled.discriminator.forward, CompiledForward)
    assert not any(isinstance(vars(part).get("forward"), CompiledForward) for part in compiled.emas.modules())
    assert_alike(compiled, eager, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_learns_the_same(system, traced, tmp_path) -> None:
    eager, compiled = (trained(system, 3, tmp_path, compile=on) for on in (False, True))
    assert counters["stats"]["unique_graphs"] > 2 and not compiling_failed(compiled)
    assert_alike(compiled, eager, 1e-3)  # Adam makes the rounding of tiny gradients as long as any step


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pigan/step", "graf/step"])
def test_published_steps_from_machine_code(name, monkeypatch) -> None:
    """In float32, as near to float64 as without compiled code; a case that the published program has recorded."""
    exact = harness.run(harness.CASES / name)
    limits, start = harness.tolerances(exact), GAN.on_fit_start

    def start_compiled(gan: GAN) -> None:
        gan.compiles = True
        start(gan)

    monkeypatch.setattr(GAN, "on_fit_start", start_compiled)
    compiled = harness.run(harness.CASES / name, torch.float32)
    assert counters["stats"]["unique_graphs"] > 2
    harness.check(compiled, {output: of.ours for output, of in exact.compared.items()}, limits)


def test_what_is_compiled_is_there() -> None:
    for config in SYSTEMS.values():
        with torch.device("meta"):
            gan = build(config()["model"], GAN)
        names = {*gan.compiled_fields, *gan.compiled_networks}
        assert names - OPTIONAL <= dict(gan.named_modules()).keys()


def test_without_a_compiler_networks_run_without_it_and_say_so_once(monkeypatch, tmp_path, caplog) -> None:
    def broken(graph: object, inputs: object) -> None:
        raise RuntimeError("g++ is not here.\nAnd more that nobody reads.")

    monkeypatch.setattr(torch, "compile", partial(COMPILE, backend=broken))
    with caplog.at_level(logging.WARNING, "zoo"):
        eager, compiled = (trained("pigan", 2, tmp_path, compile=on) for on in (False, True))
    (said,) = [record.getMessage() for record in caplog.records if record.name == "zoo.training.compiling"]
    assert "RuntimeError: g++ is not here. Training goes on" in said and "leave out --model.compile" in said
    assert "nobody reads" not in said and compiling_failed(compiled)
    assert_alike(compiled, eager, 0.0)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_run_as_they_are(duplicate, traced) -> None:
    network, images = tiny_gan().discriminator, torch.rand(2, 3, 8, 8)
    Compiled([], [network], lambda part: True)
    copied = duplicate(network)
    copied.final.bias.data += 1
    torch.testing.assert_close(copied(images).scores, network(images).scores + 1)
    assert not isinstance(copied.forward, CompiledForward) and copied.forward.__self__ is copied


def test_where_torch_cannot_compile_networks_run_without_it(monkeypatch, caplog) -> None:
    def missing(function: object) -> None:
        raise RuntimeError("torch.compile is not supported on Python 3.99+")

    monkeypatch.setattr(torch, "compile", missing)
    gan, images = tiny_gan(), torch.rand(2, 3, 8, 8)
    with caplog.at_level(logging.WARNING, "zoo"):
        compile_networks(gan)
    assert [record.getMessage().count("not supported on Python 3.99+.") for record in caplog.records] == [1]
    assert gan.discriminator(images).scores.shape == (2, 1) and compiling_failed(gan)


def test_errors_of_a_network_are_its_own(traced) -> None:
    generator, network = tiny_generator(), tiny_gan().discriminator
    Compiled([], [network], lambda part: True)
    with pytest.raises(ValueError, match="takes images of side"):
        network(torch.rand(1, 3, 12, 12))
    assert not compiling_failed(network)
    compile_generator(generator, PiGAN)
    assert isinstance(generator.field.forward, CompiledForward) and "forward" not in vars(generator.mapping)


def test_a_network_is_compiled_for_its_sizes_and_a_field_for_all(traced) -> None:
    """Of sizes along one axis, the second makes a field's code one for all of them."""

    class Doubled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    class Tripled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 3 * x

    field, network = Doubled(), Tripled()
    Compiled([field], [network], lambda part: True)
    graphs = {}
    for part in (field, network):
        for size in range(4, 10):
            part(torch.ones(2, size))
        graphs[part], _ = counters["stats"].pop("unique_graphs"), counters.clear()
    assert graphs == {field: 2, network: 6}


def test_regularisers_and_evaluation_are_not_compiled(traced) -> None:
    gan, images = tiny_gan(), torch.rand(2, 3, 8, 8)
    compile_networks(gan)
    with gan.full_precision():
        gan.discriminator.train()(images)
    gan.discriminator.eval()(images)
    assert not counters["stats"]
    gan.discriminator.train()(images)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("work", ["render", "train"])
def test_benchmark_measures_compiled_networks(work, traced, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(speed, "matrix_rate", lambda *_: 100.0)
    words = ["benchmark", write_config(tmp_path), "--work", work, "--steps", "1", "--json", "--batch", "2"]
    assert main([*words, "--compile"]) == 0
    compiled = json.loads(capsys.readouterr().out)
    assert compiled["mode"] == "compiled" and counters["stats"]["unique_graphs"] > 0
    assert main(words) == 0
    eager = json.loads(capsys.readouterr().out)
    assert eager["mode"] == "eager" and eager["gflop"] == compiled["gflop"]
