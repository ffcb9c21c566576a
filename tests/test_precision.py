"""16 bits: where they are used, where never, and what happens when gradients overflow."""

import itertools
import math
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import SGD

from tests import tf32_table
from tests.systems import SYSTEMS, NoiseData, last_stage
from tests.test_gan import fit, tiny_generator
from zoo.layers.discriminator import DiscriminatorOutput
from zoo.pigan.model import Discriminator
from zoo.pigan.training import PiGAN
from zoo.training.gan import GAN
from zoo.training.nonfinite import NonFiniteLoss, parameters
from zoo.training.precision import DTYPES, MAX_LOSS_SCALE, HalfPrecision, in_float32
from zoo.utils.devices import unsupported
from zoo.weights.bundle import build


def dtypes(network: nn.Module, seen: set) -> None:
    """Add the types of the floats that the network's layers return, each time they do."""

    def note(module: nn.Module, inputs: tuple, output: object) -> None:
        for value in output if isinstance(output, tuple) else (output,):
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                seen.add(value.dtype)

    for module in network.modules():
        if module is not network:
            module.register_forward_hook(note)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_network_computes_in_16_bits_while_it_is_trained(precision) -> None:
    seen: set = set()
    network = Discriminator([4, 8, 8], latent_dim=4)
    half = HalfPrecision([network], precision)
    dtypes(network, seen)
    images = torch.rand(2, 3, 8, 8)
    output = network(images)
    assert {x.dtype for x in output} == {torch.float32} and isinstance(output, DiscriminatorOutput)
    assert seen == {DTYPES[precision]}
    seen.clear()
    with half.paused():
        exact = network(images)
    assert seen == {torch.float32} and network(images).scores.ne(exact.scores).any()
    seen.clear()
    assert network.eval()(images).scores.equal(exact.scores) and seen == {torch.float32}


def test_an_error_inside_leaves_no_autocast_behind() -> None:
    network = Discriminator([4, 8, 8])
    HalfPrecision([network], "bf16")
    with pytest.raises(ValueError, match="takes images of side"):
        network(torch.rand(1, 3, 12, 12))
    assert not torch.is_autocast_enabled("cpu")
    assert nn.Linear(2, 2)(torch.rand(1, 2)).dtype == torch.float32


def test_only_16_bit_floats_are_widened() -> None:
    values = (torch.ones(1, dtype=torch.float16), torch.ones(1, dtype=torch.float64), torch.ones(1).int(), None)
    kinds = [x.dtype if x is not None else None for x in in_float32(values)]
    assert kinds == [torch.float32, torch.float64, torch.int32, None]


@pytest.mark.parametrize("system", SYSTEMS)
def test_only_2d_networks_compute_in_16_bits(system, tmp_path) -> None:
    """With steps of no length, regularisers are the same bit for bit; scores of fakes, in 16 bits, are not."""
    terms, seen, buffers = {}, {}, {}
    for precision in ("float32", "bf16"):
        model = one_still_step(SYSTEMS[system]()["model"], precision)
        torch.manual_seed(0)
        gan = build(model, GAN)
        watched = {f"generator.{name}": part for name, part in gan.generator.named_children()}
        watched |= {"discriminator": gan.discriminator, "emas": gan.emas}
        seen[precision] = {name: set() for name in watched}
        for name, network in watched.items():
            dtypes(nn.ModuleList([network]), seen[precision][name])
        fit(gan, 1, tmp_path, loader=NoiseData(resolution=gan.generator.resolution, posed=True))
        gan.predict_step(torch.arange(2))
        terms[precision] = {name: float(v) for name, v in gan.trainer.callback_metrics.items() if "/" in name}
        buffers[precision] = [x for name in gan.networks_2d for x in gan.get_submodule(name).buffers()]
    assert all(types <= {torch.float32} for types in seen["float32"].values())
    expected = {n: {torch.float32, torch.bfloat16} if n in gan.networks_2d else t for n, t in seen["float32"].items()}
    assert seen["bf16"] == expected
    exact, half = terms["float32"], terms["bf16"]
    same = {name for name in exact if exact[name] == half[name]}
    assert "loss_d/r1" in same and "loss_d/fake" not in same
    if all(map(torch.equal, *buffers.values())):  # else it depends on running means of what 16 bits have computed
        assert "loss_g/path" in same or "loss_g/path" not in exact
    assert half == pytest.approx(exact, rel=0.05, abs=0.01)


def one_still_step(model: dict, precision: str) -> dict:
    """A model's config for a step that moves no weight, at its full resolution."""
    options = last_stage(model)["init_args"] | {"precision": precision}
    for optimizer in ("optimizer_g", "optimizer_d"):
        factory = options[optimizer]
        options[optimizer] = factory | {"init_args": factory["init_args"] | {"lr": 0.0}}
    if "growth" in options:
        options["growth"] = None
    return model | {"init_args": options}


def gan(**kwargs) -> PiGAN:
    torch.manual_seed(0)
    optimizer = partial(SGD, lr=0.1)
    return PiGAN(tiny_generator(), Discriminator([4, 8, 8], latent_dim=0), optimizer, optimizer, **kwargs)


def weights(gan: PiGAN) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in gan.parameters()])


def test_scaled_losses_move_the_weights_as_unscaled_ones(tmp_path) -> None:
    start, exact, scaled = gan(), gan(), gan(precision="fp16")
    for model in (exact, scaled):
        fit(model, 2, tmp_path)
    moved = weights(exact) - weights(start)
    assert moved.abs().max() > 1e-3
    torch.testing.assert_close(weights(scaled) - weights(start), moved, rtol=0.05, atol=1e-4)


def test_gradients_that_overflow_however_they_are_scaled_stop_the_run(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=4.0))

    class Steep(PiGAN):
        def loss_g(self, fake, z, angles):
            return super().loss_g(fake, z, angles) | {"steep": (fake * 0).abs().sum().sqrt()}

    optimizer = partial(SGD, lr=0.1)
    model = Steep(tiny_generator(), Discriminator([4, 8, 8]), optimizer, optimizer, precision="fp16")
    with pytest.raises(NonFiniteLoss, match=r"fp16 are not finite at iteration 2, even with a loss scale of 1\.0"):
        fit(model, 9, tmp_path)


class Watched(pl.Callback):
    """Trains a tiny system with fp16, and notes scales and weights before each iteration, and what gradients arrive.

    Args:
        system: name of the config.
        planted: these replace the first numbers of a gradient of both networks, times the scale of the loss.
        at: the iteration. The lazy regularisers of all systems have a step of their own in iteration 0, none in 1.
        alone: in a regulariser's own step.
        scaler: options of the scalers; at the scale of 2^8 no system here overflows by itself, on any processor.
    """

    def __init__(
        self, system: str, planted: tuple[float, ...] = (), at: int = 1, alone: bool = False, **scaler: float
    ) -> None:
        model = last_stage(SYSTEMS[system]()["model"])
        torch.manual_seed(0)
        self.gan = build(model | {"init_args": model["init_args"] | {"precision": "fp16"}}, GAN)
        self.planted, self.at, self.alone = torch.tensor(planted), at, alone
        self.scaler = {"init_scale": 2.0**8} | scaler
        self.scales: list[list[float]] = []
        self.weights: list[list[torch.Tensor]] = []
        self.arrived: list[tuple[int, str, torch.Tensor, float]] = []  # iteration, loss, first numbers, length
        self.step, self.gan.step = self.gan.step, self.plant

    def fit(self, steps: int, folder: Path) -> None:
        trainer = fit(
            self.gan, steps, folder, [self], loader=NoiseData(resolution=self.gan.generator.resolution, posed=True)
        )
        assert trainer.global_step == self.gan.iterations == steps
        self.note()

    def note(self) -> None:
        networks = (self.gan.generator, self.gan.discriminator)
        self.weights.append([torch.cat([p.detach().flatten() for p in network.parameters()]) for network in networks])
        self.scales.append([self.gan.half.scalers[name].get_scale() for name in ("loss_g", "loss_d")])

    def on_train_start(self, *args) -> None:
        self.gan.half.scalers = {name: torch.amp.GradScaler("cpu", **self.scaler) for name in self.gan.half.scalers}

    def on_train_batch_start(self, *args) -> None:
        self.note()

    def loss(self, optimizer) -> str:
        return "loss_g" if optimizer is self.gan.trainer.optimizers[0] else "loss_d"

    def first(self, optimizer) -> torch.Tensor:
        """Of the first gradient that is large enough, as many numbers as are planted."""
        gradients = (p.grad for p in parameters(optimizer) if p.grad is not None)
        return next(x for x in gradients if x.numel() >= len(self.planted)).view(-1)[: len(self.planted)]

    def plant(self, optimizer, **how) -> None:
        if self.gan.iterations == self.at and self.gan.half.is_paused == self.alone:
            scale = 1.0 if self.alone else self.gan.half.scalers[self.loss(optimizer.optimizer)].get_scale()
            self.first(optimizer).copy_(self.planted * scale)
        self.step(optimizer, **how)

    def on_before_optimizer_step(self, trainer, gan, optimizer) -> None:
        norms = [p.grad.norm() for p in parameters(optimizer) if p.grad is not None]
        if norms and not gan.half.is_paused:
            norm = torch.stack(norms).norm().item()
            self.arrived.append((gan.iterations, self.loss(optimizer), self.first(optimizer).clone(), norm))


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_gradient_that_overflows_is_skipped_and_the_next_loss_is_scaled_less(system, tmp_path) -> None:
    run = Watched(system, (math.inf,))
    run.fit(3, tmp_path)
    assert run.scales == [[2.0**8] * 2, [2.0**8] * 2, [2.0**7] * 2, [2.0**7] * 2]
    for before, start, end, after in zip(*run.weights, strict=True):
        assert start.equal(end) and not before.equal(start) and not end.equal(after) and after.isfinite().all()
    assert run.gan.guard.skipped == {}  # that is how a scale is found, not a fault


@pytest.mark.parametrize("system", SYSTEMS)
def test_large_gradients_arrive_as_they_are(system, tmp_path) -> None:
    """Scaled, they are above VolumeGAN's bound and far above the largest number of fp16."""
    run = Watched(system, (5e4, -2e5))
    run.fit(2, tmp_path)
    expected = run.planted.clamp(-1e5, 1e5) if system == "volumegan" else run.planted  # its published bound
    if hasattr(run.gan, "clip_norm"):
        expected = run.planted * run.gan.clip_norm / run.planted.norm()
    arrived = {loss: first for iteration, loss, first, _ in run.arrived if iteration == 1}
    for loss in ("loss_g", "loss_d"):
        torch.testing.assert_close(arrived[loss], expected, rtol=1e-3, atol=0)
    assert run.scales[-1] == [2.0**8] * 2


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_scale_that_grows_comes_down_by_itself(system, tmp_path) -> None:
    run = Watched(system, init_scale=2.0**14, growth_interval=1)
    run.fit(20, tmp_path)  # from the seventh on it comes down every other time
    for loss, scales in zip(("loss_g", "loss_d"), zip(*run.scales, strict=True), strict=True):
        ratios = [after / before for before, after in itertools.pairwise(scales)]
        assert set(ratios) == {0.5, 2.0} and max(scales) < MAX_LOSS_SCALE  # regularisers' own steps leave it
        norms = {iteration: norm for iteration, name, _, norm in run.arrived if name == loss}
        assert set(norms) == {i for i, ratio in enumerate(ratios) if ratio == 2} and min(norms.values()) > 0
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in run.gan.parameters())


def test_a_scale_does_not_grow_without_end_where_gradients_are_zero(tmp_path, monkeypatch) -> None:
    start = partial(torch.amp.GradScaler, init_scale=MAX_LOSS_SCALE / 2, growth_interval=1)
    monkeypatch.setattr(torch.amp, "GradScaler", start)

    class Flat(PiGAN):
        def loss_g(self, fake, z, angles):
            return {"flat": 0 * fake.sum()}

    model = Flat(tiny_generator(), Discriminator([4, 8, 8]), *[partial(SGD, lr=0.1)] * 2, precision="fp16")
    fit(model, 3, tmp_path)
    assert model.half.scalers["loss_g"].get_scale() == MAX_LOSS_SCALE


@pytest.mark.parametrize("system", ["stylenerf", "volumegan"])
def test_regularisers_that_are_computed_in_float32_leave_the_scale(system, tmp_path) -> None:
    """As published, their gradients are made finite; a number that is none is no overflow."""
    run = Watched(system, (math.nan,), at=0, alone=True)
    run.fit(1, tmp_path)
    assert run.scales == [[2.0**8] * 2] * 2
    for before, after in zip(*run.weights, strict=True):
        assert not before.equal(after) and after.isfinite().all()


def test_gradients_too_long_to_be_measured_are_no_overflow(tmp_path) -> None:
    """However little they were scaled: they are told and counted as in float32."""
    run = Watched("pigan", (1e20,))
    run.fit(2, tmp_path)
    assert run.scales[-1] == [2.0**8] * 2 and run.gan.guard.skipped == {"loss_g": 1, "loss_d": 1}
    assert run.weights[1][0].equal(run.weights[2][0])


@pytest.mark.parametrize(
    ("capability", "built", "supported"),
    [
        ((7, 0), ["sm_75", "sm_80", "sm_90", "compute_90"], False),
        ((7, 0), ["sm_50", "sm_70", "sm_80"], True),
        ((8, 6), ["sm_80", "sm_90"], True),  # code for 8.0 runs on all of 8.x
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80"], False),
        ((12, 0), ["sm_90", "compute_90"], True),  # compiled when it is loaded
        ((9, 0), ["sm_90a"], True),
        ((9, 1), ["sm_90a"], False),  # for that very GPU only
        ((10, 0), ["sm_100"], True),
    ],
)
def test_gpus_that_torch_does_not_support(capability, built, supported) -> None:
    reason = unsupported("Made-up 100", capability, built, "2.99")
    assert (reason is None) == supported
    if not supported:
        assert "Made-up 100 (sm_" in reason and ", ".join(built) in reason
        assert ("pip install torch==2.7.1" in reason) == (capability == (7, 0))


def test_tf32_is_off_unless_it_is_allowed(tmp_path) -> None:
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    try:
        for allowed in (True, False):
            fit(gan(tf32=allowed), 1, tmp_path)
            assert [backend.allow_tf32 for backend in backends] == [allowed] * 2
    finally:
        for backend, allowed in zip(backends, (False, True), strict=True):  # torch's own
            backend.allow_tf32 = allowed


def test_tf32_is_emulated_as_tensor_cores_round() -> None:
    steps = torch.tensor([1.0, -1.0])
    for bits, left in (10, 2**-10), (11, 2**-10), (12, 0):  # half a step goes up
        assert torch.equal(tf32_table.rounded(steps * (1 + 2**-bits)), steps * (1 + left))
    a, b = torch.randn(5, 7), torch.randn(7, 3)
    with tf32_table.TF32():
        product = a @ b
    exact = a.double() @ b.double()
    assert 1e-5 < (product - exact).abs().max() < 1e-2
    assert torch.equal(product, tf32_table.rounded(a) @ tf32_table.rounded(b))


def test_the_table_of_tf32_is_the_generated_one() -> None:
    lines = [line.strip("|").split("|") for line in tf32_table.PAGE.read_text().splitlines()]
    rows = {line[0].strip(): line[1:] for line in lines if line[0].strip() in tf32_table.SYSTEMS and len(line) == 5}
    assert list(rows) == tf32_table.SYSTEMS
    found = [tf32_table.of_cases("giraffe"), *tf32_table.of_weights("giraffe-25min-seed0")]
    assert found == pytest.approx([float(cell) for cell in rows["giraffe"][:3]], rel=0.1)
