"""16 bits: where they are used, where never, and what happens when gradients overflow."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD

from tests.systems import SYSTEMS, NoiseData
from tests.test_gan import fit, tiny_gan, tiny_generator
from zoo.cards import unserved
from zoo.faults import NonFiniteLoss
from zoo.gan import GAN
from zoo.pigan import Discriminator, PiGAN
from zoo.precision import HalfPrecision, in_float32
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
    judged = network(images)
    assert {x.dtype for x in judged} == {torch.float32} and type(judged).__name__ == "Judgement"
    assert seen == {half.dtype}
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
    """With steps of no length, regularisers are the same bit for bit, and what 16 bits judged of fakes is not."""
    terms, seen, buffers = {}, {}, {}
    for precision in ("float32", "bf16"):
        model = one_still_step(SYSTEMS[system]()["model"], precision)
        torch.manual_seed(0)
        gan = build(model, GAN)
        watched = {f"generator.{name}": part for name, part in gan.generator.named_children()}
        watched |= {"discriminator": gan.discriminator, "averages": gan.averages}
        seen[precision] = {name: set() for name in watched}
        for name, network in watched.items():
            dtypes(nn.ModuleList([network]), seen[precision][name])
        fit(gan, 1, tmp_path, loader=NoiseData(resolution=gan.generator.resolution))
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
    options = model["init_args"] | {"precision": precision}
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


def test_gradients_that_overflow_are_left_out_and_counted(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**60))
    model, start = gan(precision="fp16"), weights(gan())
    trainer = fit(model, 3, tmp_path)
    assert trainer.global_step == model.iterations == 3 and model.images_seen == 12
    assert weights(model).equal(start)
    assert [scaler.get_scale() for scaler in model.scalers.values()] == [2.0**57] * 2
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    state = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert {name: scaler["scale"] for name, scaler in state["scalers"].items()} == dict(loss_g=2.0**57, loss_d=2.0**57)


def test_gradients_that_overflow_however_they_are_scaled_stop_the_run(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=4.0))

    class Steep(PiGAN):
        def loss_g(self, fake, z, angles):
            return super().loss_g(fake, z, angles) | {"steep": (fake * 0).abs().sum().sqrt()}

    optimizer = partial(SGD, lr=0.1)
    model = Steep(tiny_generator(), Discriminator([4, 8, 8]), optimizer, optimizer, precision="fp16")
    with pytest.raises(NonFiniteLoss, match=r"fp16 are not finite at iteration 2, even with a loss scale of 1\.0"):
        fit(model, 9, tmp_path)


def test_fp16_runs_with_averages_and_slices(tmp_path) -> None:
    from zoo.pigan import Stage

    model = tiny_gan(precision="fp16", stages=[Stage(batch_split=2)])
    fit(model, 2, tmp_path)
    assert weights(model).isfinite().all() and all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize(
    ("capability", "built", "served"),
    [
        ((7, 0), ["sm_75", "sm_80", "sm_90", "compute_90"], False),
        ((7, 0), ["sm_50", "sm_70", "sm_80"], True),
        ((8, 6), ["sm_80", "sm_90"], True),  # code for 8.0 runs on all of 8.x
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80"], False),
        ((12, 0), ["sm_90", "compute_90"], True),  # compiled when it is loaded
        ((9, 0), ["sm_90a"], True),
        ((9, 1), ["sm_90a"], False),  # for that very card only
        ((10, 0), ["sm_100"], True),
    ],
)
def test_cards_that_torch_cannot_serve(capability, built, served) -> None:
    reason = unserved("Made-up 100", capability, built, "2.99")
    assert (reason is None) == served
    if not served:
        assert "Made-up 100 (sm_" in reason and ", ".join(built) in reason
        assert ("pip install torch==2.7.1" in reason) == (capability == (7, 0))
