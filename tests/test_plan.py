"""The plan: what it decides, that results are the same whatever it decides, and that a GPU is never waited for."""

import copy
import logging
from pathlib import Path
from unittest import mock

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from tests.counting import Operators
from tests.parity.harness import CASES, check, run, tolerances
from tests.parity.published import train
from tests.systems import SYSTEMS, NoiseData, last_stage
from tests.test_gan import fit, tiny_gan
from zoo.draws import SampleDraws, TrainingDraws, coin
from zoo.pigan.model import FilmSiren, Generator
from zoo.render import (
    Background,
    Camera,
    GaussianPoses,
    Importance,
    InsideSphere,
    JitteredUniform,
    Quadrature,
    Samples,
    VolumeRenderer,
    black,
    last_sample,
    orbit_cameras,
    pixel_corners,
    shifted_softplus,
    softplus,
    through,
    white,
    zero_last_interval,
)
from zoo.render.plan import KEPT, WORKED_ON, Footprint, Machine, Plan, Strategy, Work, decide, kept_bytes
from zoo.render.query import query
from zoo.training.ema import EMA
from zoo.training.gan import GAN
from zoo.utils.errors import UserError
from zoo.utils.host_numbers import fill, number
from zoo.weights.bundle import build

GPU = Machine("cuda", 24)


def plan_for(model: nn.Module, machine: Machine | None = GPU) -> Plan:
    """Make a model decide for this machine, None for where it computes, and return its plan."""
    plan = Plan(machine)
    for part in model.modules():
        if isinstance(getattr(part, "plan", None), Plan):
            part.plan = plan
        if hasattr(part, "chunk"):
            part.chunk = "auto"
    return plan


def some_quick(*names: str) -> list:
    """All systems, of which the others are slow."""
    return [s if s in names else pytest.param(s, marks=pytest.mark.slow) for s in SYSTEMS]


# What is decided


def test_a_cpu_computes_what_its_cache_holds() -> None:
    for points in (10, 10**9):
        assert decide(Machine("cpu"), Footprint(points)) == Strategy(4096, recomputes=False, selects=True)
        assert decide(Machine("cpu"), Footprint(points, gradients=1)) == Strategy(4096, recomputes=True, selects=True)
    assert decide(Machine("cpu"), Footprint(10**6, unit="rays")).at_once == 1024


@pytest.mark.parametrize("memory", [8, 16, 24, 80])
@pytest.mark.parametrize("points", [1, 10**5, 1_376_257, 10**8])
@pytest.mark.parametrize("size", [100, 18_432])
@pytest.mark.parametrize("gradients", [0, 1])
def test_a_gpu_computes_as_much_at_once_as_there_is_memory_for(memory, points, size, gradients) -> None:
    machine, work = Machine("cuda", memory), Footprint(points, size, gradients)
    how = decide(machine, work)
    assert not how.selects
    share = (KEPT if gradients else WORKED_ON) * memory * 2**30
    assert (how.at_once is None) == (points * size <= share)
    assert how.memory(work) <= share
    if how.at_once is not None:
        assert how.recomputes == bool(gradients)
        parts = -(-points // how.at_once)
        assert points - (parts - 1) * how.at_once > how.at_once - parts  # all but one of a size
        assert points * size / parts > 0.5 * min(WORKED_ON * memory * 2**30, points * size)  # no more than need be


def test_what_is_differentiated_twice_is_kept() -> None:
    for machine in (Machine("cpu"), GPU):
        assert decide(machine, Footprint(10**9, 10_000, gradients=2)).at_once is None
    rays, field = Samples(*torch.rand(2, 1, 9, 3), torch.rand(1, 9, 5)), nn.Linear(3, 4)
    points = rays.points.requires_grad_()
    seen = []

    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = field

        def forward(self, samples: Samples, condition: None) -> tuple[Tensor, Tensor]:
            seen.append(samples.t.numel())
            out = self.layer(samples.points).sin()
            return out[..., :1], out[..., 1:]

    many = Samples(*(x.repeat(1, 200, 1) for x in rays[:3]))
    for positions, wanted in ((None, 3), (many.points, 3), (many.points.detach().requires_grad_(), 1)):
        seen.clear()
        query(Field(), many._replace(positions=positions), None)
        assert len(seen) == wanted, positions
    assert points.requires_grad


def test_numbers_and_null_are_obeyed() -> None:
    work = Work(torch.device("cpu"), 10**9, 1, lambda: "", lambda _: None)
    for machine in (Machine("cpu"), GPU):
        assert Plan(machine).strategy(7, work) == Strategy(7, recomputes=True, selects=machine.is_cpu)
        assert Plan(machine).strategy(None, work) == Strategy(None, recomputes=False, selects=machine.is_cpu)


@pytest.mark.parametrize("chunk", [0, -1, "all"])
def test_other_chunks_are_refused(chunk) -> None:
    with pytest.raises(UserError, match="chunk of VolumeRenderer is"):
        VolumeRenderer(JitteredUniform(1.0, 2.0, 4), chunk=chunk)


# What a point takes


def test_bytes_of_a_point_are_what_autograd_keeps() -> None:
    first, second = nn.Linear(3, 100), nn.Linear(100, 7)
    x = torch.rand(2, 3)
    # The input, what goes into the sine and what comes out of it, and the result, of four bytes each.
    assert kept_bytes(lambda n: second(first(x[:n].clone()).sin())) == 4 * (3 + 100 + 100 + 7)


def test_bytes_grow_with_the_width_and_not_with_weights_or_points() -> None:
    sizes = {}
    for width in (32, 64):
        for side in (4, 8):
            generator = Generator(
                FilmSiren(width, 4),
                VolumeRenderer(JitteredUniform(0.88, 1.12, 4), fine=Importance(4)),
                GaussianPoses(yaw_spread=0.3),
                latent_dim=4,
                mapping_dim=8,
            )
            plan = plan_for(generator)
            with torch.inference_mode():  # as in Lightning's validation
                latents, cameras = generator.sample(2, SampleDraws(0, [0, 1]))
                generator.render(generator.map(latents), cameras, resolution=side)
            (work,) = {work.bytes_per_point for _, work in plan.decisions}
            sizes.setdefault(width, set()).add(work)
    (narrow,), (wide,) = sizes.values()
    assert 4 * 2 * 5 * 32 < narrow < wide < 2 * narrow  # five sines: what goes in, and what comes out
    assert wide < 1.3 * 4 * 2 * 5 * 64


# The same results


class Ball(nn.Module):
    """A field that is nowhere zero."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4, dtype=torch.float64)

    def forward(self, samples: Samples, scale: Tensor) -> tuple[Tensor, Tensor]:
        out = self.layer(samples.points).sin() * scale
        return 3 * out[..., :1], out[..., 1:]


def rendered(plan: Plan, background: Background, density, ends: str, spread: bool) -> list[Tensor]:
    """Results and gradients of two images, of which one has more rays that miss than the other."""
    torch.manual_seed(0)
    field, scale = Ball(), torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    angles = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    cameras = orbit_cameras(angles, angles, 2.5, 1.1)
    pose = cameras.pose.clone()
    if spread:
        pose[1, :3, 3] *= 1.3
    rays = through(cameras._replace(pose=pose), pixel_corners(9).double())
    quadrature = Quadrature(density, background=background, **({"intervals": zero_last_interval} if ends else {}))
    renderer = VolumeRenderer(InsideSphere(1.0, 6), quadrature, Importance(4))
    renderer.plan = plan
    result = renderer(field, rays, scale, TrainingDraws(0, 0, dtype=torch.float64), 0.3)
    (result.features.square().sum() + result.depth.sum()).backward()
    return [*result[:3], result.raw, field.layer.weight.grad, scale.grad]


@pytest.mark.parametrize("background", [black, white, last_sample])
@pytest.mark.parametrize("density", [softplus, shifted_softplus])
@pytest.mark.parametrize("ends", ["zero", ""])
@pytest.mark.parametrize("spread", [True, False])
def test_rays_that_miss_are_the_same_in_both_ways(background, density, ends, spread) -> None:
    """A CPU leaves them out, but for those that fill up the list of an image, and a GPU computes all."""
    cpu = rendered(Plan(Machine("cpu")), background, density, ends, spread)
    assert (cpu[3] == 0).all(2).any() and not (cpu[3] == 0).all(2).all()
    for machine in (GPU, Machine("cuda", 1)):
        torch.testing.assert_close(rendered(Plan(machine), background, density, ends, spread), cpu)


@pytest.mark.parametrize("system", some_quick("giraffe", "pigan"))
def test_systems_learn_the_same_by_any_plan(system, monkeypatch) -> None:
    """In float64, over all stages: on a CPU, on a GPU that keeps all, and on one that computes small parts again."""
    on_cpu, decided = learned(system, Machine("cpu"))
    assert any(how.selects for how in decided.values())
    kept, decided = learned(system, GPU)
    assert {how.at_once for how in decided.values()} == {None}
    monkeypatch.setattr("zoo.render.plan.KEPT", 1e-6)
    monkeypatch.setattr("zoo.render.plan.WORKED_ON", 1e-6)
    again, decided = learned(system, GPU)
    assert any(how.at_once is not None for how in decided.values())
    assert all(how.recomputes == (work.gradients == 1) for (_, work), how in decided.items())
    for name, value in on_cpu.items():
        for other in (kept, again):
            torch.testing.assert_close(other[name], value, rtol=0, atol=1e-8, equal_nan=True, msg=name)


def learned(system: str, machine: Machine) -> tuple[dict[str, Tensor], dict[tuple[Machine, Footprint], Strategy]]:
    """Weights after eight iterations, with an EMA's image, and what was decided."""
    torch.manual_seed(0)
    gan = build(SYSTEMS[system]()["model"], GAN).double()
    plan, side = plan_for(gan, machine), gan.generator.resolution
    data = NoiseData(resolution=side, posed=True).train_source()
    images = torch.stack([data.item(i, side)["image"] for i in range(16)]).repeat(2, 1, 1, 1)
    cameras = Camera(*(x[:16].repeat(2, 1, 1).double() for x in data.all_cameras()))
    train(gan, images.double() / 127.5 - 1, 4, cameras=cameras)
    drawn = gan.predict_step(torch.arange(2)).image
    return dict(gan.named_parameters()) | {"drawn": drawn}, plan.decisions


@pytest.mark.parametrize(
    "name", ["eg3d/sampling", "giraffe/render_one", "graf/render_orthographic", "pigan/render_tall"]
)
def test_published_results_are_those_of_the_plan_of_a_gpu(name, monkeypatch) -> None:
    monkeypatch.setattr("zoo.render.plan.machine_of", lambda device: GPU)
    case = run(CASES / name)
    check(case, case.outputs, tolerances(case))


# Nothing waits for a GPU


@pytest.mark.parametrize("system", some_quick("giraffe", "eg3d"))
def test_a_step_reads_the_device_once_for_each_optimizer(system, tmp_path) -> None:
    count_reads(system, "float32", tmp_path)


def test_the_scale_of_a_loss_is_read_with_the_rest(tmp_path) -> None:
    count_reads("pigan", "fp16", tmp_path)


def count_reads(system: str, precision: str, folder: Path) -> None:
    model = last_stage(SYSTEMS[system]()["model"])
    gan = build(model | {"init_args": model["init_args"] | {"precision": precision}}, GAN)
    plan_for(gan)
    steps, counted = [], Counted()
    gan.step, step = lambda *of, **how: (steps.append(gan.iterations), step(*of, **how)), gan.step
    fit(gan, 2, folder, [counted], loader=NoiseData(resolution=gan.generator.resolution, posed=True))
    waits = counted.iterations[1].waits  # constants are copied in the first
    once = sum(n for place, n in waits.items() if "nonfinite.py" in place)
    assert once == steps.count(1) >= 2
    # Optimizers count steps on the host, and coins are drawn there; how far augmented images reach, the host asks.
    allowed = ("training/nonfinite.py", "an optimizer", "zoo/draws.py", "layers/ada.py: (left, top)")
    assert [place for place in waits if not place.startswith(allowed)] == []


def test_what_the_host_decides_by_is_drawn_there() -> None:
    draws = TrainingDraws(3, 4, rank=5)
    assert draws.host is draws  # and on the meta device, as on a GPU, it is another one
    streams = mock.patch.object(torch, "Generator", lambda device="cpu": mock.Mock(device=torch.device(device)))
    with streams:
        elsewhere = TrainingDraws(3, 4, rank=5, device="cuda")
    assert elsewhere.device.type == "cuda" and elsewhere.host.device.type == "cpu"
    assert coin(TrainingDraws(3, 4), "x") == TrainingDraws(3, 4, rank=1).shared("x", ()).item()


def test_the_host_remembers_what_it_filled_in() -> None:
    module = nn.Module()
    module.register_buffer("grown", torch.zeros(()))
    fill(module.grown, 0.1)
    with Operators() as operators:
        known = number(module.grown)
    assert operators.count == 0 and known == torch.tensor(0.1).item() != 0.1
    copied = copy.deepcopy(module)
    for change in (
        lambda: copied.grown.mul_(2),
        lambda: copied.load_state_dict({"grown": torch.tensor(7.0)}),
        lambda: torch._foreach_copy_([copied.grown], [torch.tensor(8.0)]),
        lambda: copied.double(),
        lambda: fill(copied.grown, 0.3),
    ):
        change()
        assert number(copied.grown) == copied.grown.item()
    assert number(module.grown) == module.grown.item()


class Counted(pl.Callback):
    """Operators of each iteration."""

    def __init__(self) -> None:
        self.iterations: list[Operators] = []

    def on_train_batch_start(self, *_) -> None:
        self.iterations.append(Operators().__enter__())

    def on_train_batch_end(self, *_) -> None:
        self.iterations[-1].__exit__(None, None, None)


def test_a_cpu_is_read_where_rays_miss(tmp_path) -> None:
    """The counter counts: the plan for CPUs selects."""
    gan, counted = build(SYSTEMS["giraffe"]()["model"], GAN), Counted()
    fit(gan, 2, tmp_path, [counted], loader=NoiseData(resolution=gan.generator.resolution))
    assert any("nonzero" in place for place in counted.iterations[-1].waits)


def test_a_pigan_takes_few_large_launches() -> None:
    """Four images of 32x32 and their gradients, with the samples of CelebA, in a narrow field of as many layers."""
    renderer = VolumeRenderer(JitteredUniform(0.88, 1.12, 12), fine=Importance(12))
    poses = GaussianPoses(yaw_spread=0.3, pitch_spread=0.155)
    generator = Generator(FilmSiren(8, 8, 8.3), renderer, poses, 8, 8, resolution=32)

    def count(machine: Machine) -> int:
        renderer.plan = Plan(machine)
        for _ in range(2):  # bytes are measured in the first
            draws = TrainingDraws(0, 0)
            with Operators() as operators:
                latents, cameras = generator.sample(4, draws)
                image = generator.render(generator.map(latents), cameras, draws=draws, density_noise=1.0).image
                image.mean().backward()
        return operators.count

    assert count(GPU) <= 1200
    assert count(Machine("cpu")) > 3500


def test_moving_an_ema_is_one_operator_for_all_parameters() -> None:
    generator = tiny_gan().generator
    ema = EMA(0.9)
    ema.init_from(generator)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(1.0)
    before = [p.clone() for p in ema.module.parameters()]
    with Operators() as operators:
        ema.update(generator)
    assert operators.count <= 2  # parameters, buffers
    for old, mine, new in zip(before, ema.module.parameters(), generator.parameters(), strict=True):
        assert mine.equal(old.lerp(new, 1 - 0.9))


# Checkpoints


def test_a_plan_is_stored_and_taken_up_again(tmp_path) -> None:
    gan = tiny_gan()
    plan = plan_for(gan)
    checkpoint = pl.callbacks.ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1)
    fit(gan, 1, tmp_path, [checkpoint])
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["plan"]
    learned_by = {key for key in plan.decisions if key[1].gradients}
    assert state["machine"] == {"kind": "cuda", "memory": 24}
    assert 0 < len(state["decisions"]) == len(learned_by) < len(plan.decisions)  # not those of samples and scores
    state["decisions"][0]["at_once"] = 17
    again = Plan(GPU)
    assert again.restore(copy.deepcopy(state), torch.device("cpu")) == []
    assert again.decisions.keys() == learned_by
    changed = [how for key, how in again.decisions.items() if how != plan.decisions[key]]
    assert changed == [Strategy(17, recomputes=False, selects=False)]


def test_another_machine_plans_anew_and_says_so(tmp_path, capsys) -> None:
    gan = tiny_gan()
    plan_for(gan)
    checkpoint = pl.callbacks.ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1)
    fit(gan, 1, tmp_path, [checkpoint])
    capsys.readouterr()
    resumed = tiny_gan()
    plan = plan_for(resumed, None)
    fit(resumed, 2, tmp_path, ckpt_path=tmp_path / "last.ckpt")
    told = "the checkpoint's plan is for cuda with 24 GiB, this is cpu: how fields are evaluated is planned anew"
    assert f"resume: {told}" in capsys.readouterr().err
    assert {machine.kind for machine, _ in plan.decisions} == {"cpu"}


@pytest.mark.parametrize(
    "damage", [{"machine": 3}, {"decisions": None}, {"decisions": [{}]}, {"machine": {"kind": 1, "memory": 3}}]
)
def test_a_damaged_plan_is_refused(damage) -> None:
    state = {"machine": {"kind": "cuda", "memory": 24}, "decisions": []} | damage
    with pytest.raises(UserError, match="damaged"):
        Plan(GPU).restore(state, torch.device("cpu"))


def test_all_parts_of_a_model_have_one_plan() -> None:
    gan = build(SYSTEMS["stylenerf"]()["model"], GAN)
    plans = [part.plan for part in gan.modules() if hasattr(part, "plan")]
    assert len(plans) == 5  # its own, and those of two renderers of the generator and of its EMA
    assert all(plan is gan.plan for plan in plans)


def test_a_decision_is_logged_once(caplog) -> None:
    plan, field = Plan(GPU), Ball().float()
    samples = Samples(*torch.rand(2, 1, 5, 3), torch.rand(1, 5, 2))
    with caplog.at_level(logging.INFO, "zoo.render.plan"):
        for _ in range(2):
            query(field, samples, torch.ones(()), "auto", plan)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("plan: 10 points of ") and line.endswith(
        "with gradients on cuda with 24 GiB: all at once, everywhere"
    )
