"""16 bits: where they are used, where never, and what happens when gradients overflow."""

import csv
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import SGD

from tests.systems import SYSTEMS, NoiseData, train, write
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


# The generators of VolumeGAN and StyleNeRF have a 16-bit part, and their regularisers follow steps that 16 bits
# have changed; see below.
@pytest.mark.parametrize("system", [name for name in SYSTEMS if name not in ("stylenerf", "volumegan")])
def test_rendering_and_regularisers_stay_in_float32(system, tmp_path) -> None:
    """In the first iteration all that does not come from a 16-bit judgement of fakes is the same bit for bit."""
    rows = {}
    for precision in ("float32", "bf16"):
        config = SYSTEMS[system]()
        words = ["--model.precision", precision, "--trainer.max_steps", "3"]
        watch = ["--trainer.callbacks+=tests.test_precision.Types"]
        train(["fit", "-c", write(config, tmp_path / precision), *words, *watch])
        rows[precision] = next(csv.DictReader((tmp_path / precision / "metrics.csv").read_text().splitlines()))
        types = torch.load(tmp_path / precision / "types.pt", weights_only=False)
        assert types["generator"] == types["averages"] == {torch.float32}
        assert types["discriminator"] == {torch.float32} | ({torch.bfloat16} if precision == "bf16" else set())
    exact, half = rows["float32"], rows["bf16"]
    assert {n for n in exact if n.startswith("loss_d/") and exact[n] == half[n]} >= {"loss_d/real", "loss_d/r1"}
    assert exact["loss_d/fake"] != half["loss_d/fake"]
    for name in exact:
        assert float(half[name]) == pytest.approx(float(exact[name]), rel=0.05, abs=0.01)


def test_only_volumegans_2d_networks_compute_in_16_bits(tmp_path) -> None:
    """With steps of no length, its regularisers are the same bit for bit, and what 16 bits judged is not."""
    parts = ("mapping", "structure", "field", "painter")
    terms, seen = {}, {}
    for precision in ("float32", "bf16"):
        config = SYSTEMS["volumegan"]()["model"]
        for optimizer in ("optimizer_g", "optimizer_d"):
            config["init_args"][optimizer]["init_args"]["lr"] = 0.0
        torch.manual_seed(0)
        gan = build(config | {"init_args": config["init_args"] | {"precision": precision, "growth": None}}, GAN)
        watched = {name: gan.generator.get_submodule(name) for name in parts}
        watched |= {"judge": gan.discriminator, "averages": gan.averages}
        seen[precision] = {name: set() for name in watched}
        for name, network in watched.items():
            dtypes(nn.ModuleList([network]), seen[precision][name])
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = pl.Trainer(
            max_steps=1, accelerator="cpu", default_root_dir=tmp_path, enable_model_summary=False, **quiet
        )
        trainer.fit(gan, NoiseData())
        gan.predict_step(torch.arange(2))
        terms[precision] = {name: float(v) for name, v in trainer.callback_metrics.items() if "/" in name}
    wide, both = {torch.float32}, {torch.float32, torch.bfloat16}
    assert seen["float32"] == dict.fromkeys(seen["float32"], wide)
    assert seen["bf16"] == dict.fromkeys(seen["bf16"], wide) | {"painter": both, "judge": both}
    exact, half = terms["float32"], terms["bf16"]
    assert {name for name in exact if exact[name] == half[name]} == {"loss_g/path", "loss_d/r1"}
    assert {name for name in exact if exact[name] != half[name]} == {"loss_g/fake", "loss_d/fake", "loss_d/real"}
    assert half == pytest.approx(exact, rel=0.05)


class Types(pl.Callback):
    """Writes the types of what each network's layers returned in a run."""

    def on_fit_start(self, trainer, pl_module) -> None:
        self.seen = {name: set() for name in ("generator", "averages", "discriminator")}
        for name, seen in self.seen.items():
            dtypes(pl_module.get_submodule(name), seen)

    def on_train_end(self, trainer, pl_module) -> None:
        with torch.no_grad():
            pl_module.predict_step(torch.arange(2))
        torch.save(self.seen, f"{trainer.default_root_dir}/types.pt")


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
