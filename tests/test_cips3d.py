"""CIPS-3D: which rays learn and what that costs, stages, augmentation, exchange of layers, the interface."""

import copy
import math
import re
import shutil
import zipfile
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tests.tiny import NoiseImages
from zoo.cips3d.discriminator import Discriminator, Tower
from zoo.cips3d.extras import Heads, swap_layers
from zoo.cips3d.inr import Inr
from zoo.cips3d.model import FilmSiren, Generator, Mapping, MappingNetwork
from zoo.cips3d.training import CIPS3D, Stage
from zoo.cli.command import main
from zoo.draws import RayDraws, SampleDraws, TrainingDraws
from zoo.layers.diffaugment import cutout, cutout_side, diffaugment, largest_shift, translation
from zoo.render import GaussianPoses, Importance, JitteredUniform, VolumeRenderer
from zoo.training.ema import EMA
from zoo.utils.errors import UserError
from zoo.utils.paths import CONFIGS, read_experiment
from zoo.weights.bundle import UNUSED, build, load_bundle, save_bundle

PAGE = CONFIGS / "cips3d" / "README.md"
WHOSE = ("shape", "appearance")
RUN = Path(__file__).parent / "parity" / "cases" / "cips3d" / "checkpoint" / "ckptdir" / "best_fid"


def build_generator(features_from: str = "shape", resolution: int = 8, **inr) -> Generator:
    torch.manual_seed(0)
    return Generator(
        FilmSiren(hidden_dim=8, num_layers=2, feature_dim=6, style_dim=5),
        Inr(**({"feature_dim": 6, "style_dim": 7, "hidden_dim": 8, "num_blocks": 5} | inr)),
        Mapping(MappingNetwork(3, 5, 2), MappingNetwork(4, 7, 2, norm_hidden=True, norm_out=True), features_from),
        VolumeRenderer(JitteredUniform(0.88, 1.12, 4), fine=Importance(4)),
        GaussianPoses(yaw_spread=0.3, pitch_spread=0.15),
        resolution=resolution,
    )


def build_gan(cls: type[CIPS3D] = CIPS3D, **kwargs) -> CIPS3D:
    adam = partial(torch.optim.Adam, lr=1e-2, betas=(0.0, 0.99))
    towers = Tower([8, 6, 4]), Tower([6, 4, 4], shrink_first=True)
    kwargs = {"emas": {"slow": EMA(0.5)}} | kwargs
    return cls(build_generator(), Discriminator(*towers), adam, adam, **kwargs)


def train(gan: CIPS3D, steps: int, folder: Path, data: Dataset | None = None) -> CIPS3D:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    where = {"accelerator": "cpu", "default_root_dir": folder, "enable_model_summary": False}
    pl.Trainer(max_steps=steps, **where, **quiet).fit(gan, DataLoader(data or NoiseImages(8, 40, None), 4))
    return gan


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.named_parameters()}


# Rays that learn


def rendered_image(generator: Generator, gradient_rays: int | None, seed: int = 0) -> Tensor:
    draws = TrainingDraws(seed, 0)
    latent, camera = generator.latents(2, draws), generator.cameras(2, draws)
    return generator(latent, camera, draws=draws, gradient_rays=gradient_rays, density_noise=0.1).image


def test_gradients_pass_through_the_chosen_rays_only() -> None:
    generator = build_generator()
    image = rendered_image(generator, 10)
    with torch.no_grad():
        assert torch.allclose(image, rendered_image(generator, None), atol=1e-5)  # what is seen is the same
    touched = torch.zeros(64, dtype=torch.bool)
    for pixel in range(64):
        gradient = torch.autograd.grad(
            image.flatten(2)[:, :, pixel].sum(), generator.inr.blocks[3].to_rgb.bias, retain_graph=True
        )[0]
        touched[pixel] = bool(gradient.any())
    draws = TrainingDraws(0, 0)
    generator.latents(2, draws), generator.cameras(2, draws)
    chosen = draws.shared("gradient_rays", (64,)).argsort()[:10]
    assert touched.nonzero()[:, 0].tolist() == sorted(chosen.tolist())


def test_the_gradient_is_that_of_these_rays() -> None:
    generator = build_generator()
    whole, some = rendered_image(generator, None), rendered_image(generator, 10)
    chosen = torch.zeros(64, dtype=torch.bool)
    draws = TrainingDraws(0, 0)
    chosen[draws.shared("gradient_rays", (64,)).argsort()[:10]] = True
    parameters = [p for n, p in generator.named_parameters() if "auxiliary" not in n]
    weight = torch.randn(whole.shape, generator=torch.Generator().manual_seed(1))
    expected = torch.autograd.grad((whole * weight * chosen.view(8, 8)).sum(), parameters)
    found = torch.autograd.grad((some * weight).sum(), parameters)
    assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-3) for a, b in zip(expected, found, strict=True))


def saved_bytes(function) -> int:
    """What autograd keeps for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    del result
    return sum(kept.values())


def test_memory_falls_with_the_rays_that_learn() -> None:
    generator = build_generator(resolution=32, hidden_dim=64)
    whole = saved_bytes(lambda: rendered_image(generator, None))
    some = saved_bytes(lambda: rendered_image(generator, 64))  # of 1,024
    assert some < whole / 5


def test_chosen_rays_need_draws() -> None:
    generator = build_generator()
    draws = TrainingDraws(0, 0)
    with pytest.raises(ValueError, match="gradient_rays needs draws"):
        generator(generator.latents(1, draws), generator.cameras(1, None), gradient_rays=3)


def test_rays_keep_their_numbers_in_any_part() -> None:
    draws = SampleDraws(0, [3, 5])
    whole = draws.uniform("jitter", (2, 9, 4))
    index = torch.tensor([7, 2])
    by_ray = RayDraws(draws, 9)
    assert torch.equal(by_ray.take(index).uniform("jitter", (2, 2, 4)), whole[:, index])
    assert torch.equal(by_ray.take(slice(4, 6)).uniform("jitter", (2, 2, 4)), whole[:, 4:6])


@torch.no_grad()
def test_parts_of_an_image_are_the_image() -> None:
    generator = build_generator()
    image = rendered_image(generator, None)
    generator.chunk = 13
    assert torch.allclose(rendered_image(generator, None), image, atol=1e-5)


# Interface


@pytest.mark.parametrize("features_from", ["shape", "appearance"])
def test_the_interface(features_from: str) -> None:
    generator = build_generator(features_from)
    draws = SampleDraws(0, range(3))
    latent, camera = generator.latents(3, draws), generator.cameras(3, draws)
    styles = generator.map(latent, truncation=0.7)
    rendered = generator.render(styles, camera, resolution=5)
    assert rendered.image.shape == rendered.raw.shape == (3, 3, 5, 5) and rendered.depth.shape == (3, 1, 5, 5)
    assert rendered.image.abs().max() <= 1 and rendered.image.requires_grad
    assert torch.equal(rendered.image, generator.render(styles, camera, resolution=5).image)
    points = torch.zeros(3, 11, 3)
    assert generator.density(points, styles).shape == (3, 11, 1) and generator.density(points, styles).min() >= 0
    turned, cameras = generator.turntable(latent, 4)
    assert turned.z_shape.shape == (12, 3) and torch.equal(turned.z_appearance[4], latent.z_appearance[1])
    assert cameras.pose.shape == (12, 4, 4)


def test_features_follow_what_they_should() -> None:
    """The other latent does not reach the field's own colours; in the other variant it does."""
    for features_from in ("shape", "appearance"):
        generator = build_generator(features_from)
        draws = TrainingDraws(0, 0)
        latent, camera = generator.latents(1, draws), generator.cameras(1, None)
        other = latent._replace(z_appearance=latent.z_appearance + 1)
        a, b = generator(latent, camera), generator(other, camera)
        assert torch.equal(a.opacity, b.opacity) and not torch.equal(a.image, b.image)
        assert torch.equal(a.raw, b.raw) == (features_from == "shape")


@torch.no_grad()
def test_truncation_goes_to_stored_means() -> None:
    generator = build_generator()
    draws = TrainingDraws(0, 0)
    latent = generator.latents(2, draws)
    assert generator.mean_shape.isnan().all()
    before = generator.map(latent, truncation=0.0)
    generator.prepare()
    assert not generator.mean_shape.isnan().any()
    means = generator.mean_styles()
    for a, b, mean in zip(before, generator.map(latent, truncation=0.0), means, strict=True):
        assert torch.equal(a, b) and torch.allclose(b, mean.expand_as(b))
    half, whole = generator.map(latent, truncation=0.5), generator.map(latent)
    assert torch.allclose(half.appearance, (whole.appearance + means.appearance) / 2, atol=1e-6)


@torch.no_grad()
def test_layers_are_exchanged() -> None:
    source, target = build_generator(), build_generator()
    for parameter in target.parameters():
        parameter.add_(1)
    before = state(source)
    mixed = state(swap_layers(source, target, [1, 4], 0.25))
    for name, own in state(source).items():
        assert torch.equal(own, before[name])
        is_swapped = name.startswith(("inr.blocks.1.", "inr.blocks.4."))
        assert torch.allclose(mixed[name], own + 0.25 * is_swapped), name
    with pytest.raises(UserError, match=r"no block 99: these generators have blocks 0 to \d\."):
        swap_layers(source, target, [1, 99])


def test_the_page_tells_how_to_save_what_was_exchanged(tmp_path, monkeypatch) -> None:
    sizes = {"latent_dim": 3, "style_dim": 5, "num_layers": 1}
    parts = {
        "field": ("FilmSiren", {"hidden_dim": 8, "feature_dim": 6, "style_dim": 5}),
        "inr": ("Inr", {"feature_dim": 6, "hidden_dim": 8, "style_dim": 5}),
        "mapping": (
            "Mapping",
            {name: {"class_path": "zoo.cips3d.MappingNetwork", "init_args": sizes} for name in WHOSE},
        ),
    }
    args = {name: {"class_path": f"zoo.cips3d.{of}", "init_args": own} for name, (of, own) in parts.items()}
    depths = {"class_path": "zoo.render.JitteredUniform", "init_args": {"near": 0.88, "far": 1.12, "samples": 4}}
    args["renderer"] = {"class_path": "zoo.render.VolumeRenderer", "init_args": {"depths": depths}}
    args["poses"] = {"class_path": "zoo.render.GaussianPoses", "init_args": {"yaw_spread": 0.3, "pitch_spread": 0.1}}
    config = {"class_path": "zoo.cips3d.Generator", "init_args": args}
    monkeypatch.chdir(tmp_path)
    ffhq, cartoon = (build(config, Generator) for _ in range(2))
    save_bundle("ffhq", ffhq, config)
    save_bundle("cartoon", cartoon, config)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    exec(code, {})
    mixed, _ = load_bundle("mixed")
    for i, (a, b, c) in enumerate(zip(mixed.inr.blocks, ffhq.inr.blocks, cartoon.inr.blocks, strict=True)):
        half = 0.5 * b.second.weight + 0.5 * c.second.weight
        assert torch.allclose(a.second.weight, half if i >= 3 else b.second.weight)


@torch.no_grad()
@pytest.mark.parametrize("rgb_dim", [3, 5])
def test_what_hits_nothing_starts_with_the_colour_that_was_asked_for(rgb_dim: int) -> None:
    of = build_generator(rgb_dim=rgb_dim)
    generator = Generator(of.field, of.inr, of.mapping, of.renderer, of.poses, empty=0.9)
    nothing = torch.zeros(1, 2, 6)
    weights = generator.inr.modulate(torch.zeros(1, 7))
    if rgb_dim > 3:  # what comes before the last layer is summed up with random numbers
        nn.init.zeros_(generator.inr.final.weight)
    assert torch.allclose(generator.inr(nothing, weights), torch.tensor(0.9))
    assert torch.allclose(generator.auxiliary(nothing).tanh(), torch.tensor(0.9))


def test_layers_can_have_styles_of_their_own() -> None:
    plain = build_generator()
    torch.manual_seed(1)
    shape = Heads(MappingNetwork(3, 9, 2), 5, ["0", "1", "colour"], num_layers=2)
    appearance = Heads(MappingNetwork(4, 6, 1, True, True), 7, [str(i) for i in range(10)], norm_out=True)
    generator = Generator(plain.field, plain.inr, Mapping(shape, appearance), plain.renderer, plain.poses)
    draws = TrainingDraws(0, 0)
    latent, camera = generator.latents(2, draws), generator.cameras(2, None)
    styles = generator.prepare().map(latent, truncation=0.5)
    assert styles.shape.shape == styles.colour.shape == (2, 3, 5) and styles.appearance.shape == (2, 10, 7)
    assert torch.allclose(generator.map(latent, truncation=0.0).appearance[0], generator.mean_appearance[0])
    image = generator.render(styles, camera, resolution=4)
    for name, i, same in (("shape", 2, True), ("colour", 2, False), ("appearance", 9, False)):
        other = getattr(styles, name).clone()
        other[:, i] += 1
        changed = generator.render(styles._replace(**{name: other}), camera, resolution=4)
        assert torch.equal(changed.image, image.image) == same  # the last shape style is only the features'
        assert torch.equal(changed.opacity, image.opacity)


# Discriminator


def test_a_size_that_no_level_takes_is_named() -> None:
    tower = Tower([4, 4, 4])
    with pytest.raises(ValueError, match="side 4, 8, 16, not 12"):
        tower(torch.zeros(1, 3, 12, 12))
    with pytest.raises(ValueError, match="group of 2 or more"):
        Tower([4, 4], group=1)


def test_augmentation_is_not_clamped_and_can_be_differentiated_twice() -> None:
    images = (torch.rand(2, 3, 8, 8, dtype=torch.double) * 2 - 1).requires_grad_()
    function = lambda x: diffaugment(x, SampleDraws(0, [1, 2]))  # noqa: E731
    assert function(3 * images).abs().max() > 1
    assert torch.autograd.gradcheck(function, images) and torch.autograd.gradgradcheck(
        lambda x: function(x) ** 2, images
    )


def test_augmentation_moves_and_cuts_as_told() -> None:
    images = torch.arange(1.0, 65.0).view(1, 1, 8, 8)
    moved = translation(images, torch.tensor([1]), torch.tensor([-2]))
    assert torch.equal(moved[0, 0, :7, 2:], images[0, 0, 1:, :6])
    assert not moved[0, 0, 7].any() and not moved[0, 0, :, :2].any()
    assert (largest_shift(20), cutout_side(64)) == (3, 13)  # rounded, not cut off
    cut = cutout(images, torch.tensor([8]), torch.tensor([0]), 4)  # over a corner: a quarter remains in the image
    assert not cut[0, 0, 6:, :2].any() and int((cut == 0).sum()) == 4


# Training


class Recorded(CIPS3D):
    """Remembers what each iteration was like."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[dict] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        before = state(self.generator)
        averaged = state(self.sampler)
        optimizer = self.optimizers()[0].optimizer
        super().training_step(batch, batch_idx)
        moved = {
            name.split(".")[0] for name, p in self.generator.named_parameters() if not torch.equal(p, before[name])
        }
        follows = any(not torch.equal(p, averaged[name]) for name, p in self.sampler.named_parameters())
        steps = {int(entry["step"]) for entry in optimizer.state.values()}
        learning_rate = optimizer.param_groups[0]["lr"]
        self.seen.append({"moved": moved, "follows": follows, "steps": max(steps), "lr": learning_rate})


STAGES = [
    Stage(start=0, lr_g=1e-2, ema_start=1, noise_iterations=4),
    Stage(
        start=2,
        lr_g=1e-3,
        auxiliary_every=0,
        fade_iterations=4,
        noise_iterations=0,
        augment=diffaugment,
        frozen=("field", "mapping.shape", "auxiliary"),
        ema_start=2,
    ),
]


def test_stages(tmp_path) -> None:
    gan = train(build_gan(Recorded, stages=STAGES), 2, tmp_path)
    first = copy.deepcopy(gan.sampler)
    assert (gan.alpha, gan.density_noise, gan.auxiliary) == (0.0, 0.0, False)  # of iteration 2
    assert [seen["follows"] for seen in gan.seen] == [False, True] and [seen["steps"] for seen in gan.seen] == [1, 2]
    assert gan.seen[0]["moved"] == {"field", "mapping", "inr", "auxiliary"}

    torch.manual_seed(0)
    gan = train(build_gan(Recorded, stages=STAGES), 5, tmp_path)
    assert [seen["steps"] for seen in gan.seen] == [1, 2, 1, 2, 3]  # optimizers start anew
    assert [seen["lr"] for seen in gan.seen] == [1e-2, 1e-2, 1e-3, 1e-3, 1e-3]
    assert [seen["follows"] for seen in gan.seen] == [False, True, False, False, True]
    assert gan.seen[3]["moved"] == {"inr", "mapping"}
    for part in ("field", "mapping.shape", "auxiliary"):  # they froze as the EMA had them
        frozen, averaged = gan.generator.get_submodule(part), first.get_submodule(part)
        assert all(torch.equal(a, b) for a, b in zip(frozen.parameters(), averaged.parameters(), strict=True)), part
    assert gan.alpha == 0.75


def test_what_the_schedules_say() -> None:
    gan = build_gan(stages=[Stage(noise_iterations=10, auxiliary_every=2)])
    gan.iterations = 5
    assert math.isclose(gan.density_noise, 0.5) and not gan.auxiliary and gan.alpha == 1
    gan.iterations = 12
    assert gan.density_noise == 0 and gan.auxiliary


def test_slices_of_a_batch_add_up(tmp_path) -> None:
    gan = build_gan(stages=[Stage(batch_split=2)])
    real, asked = torch.zeros(4, 3, 8, 8), []
    gan.generator.field.register_forward_hook(lambda _, inputs, __: asked.append(len(inputs[0].t)))
    fake = gan.fakes(real, TrainingDraws(0, 0))
    assert fake.shape == (8, 3, 8, 8) and set(asked) == {2}
    draws = TrainingDraws(0, 0)
    pairs = [gan.generate(latent, real, draws) for latent in gan.slices(real, draws)]
    assert torch.equal(fake, torch.cat([pairs[0][0], pairs[1][0], pairs[0][1], pairs[1][1]]))  # towers take halves

    seen = []
    gan.loss_g = lambda fake, draws: seen.append(fake) or {"fake": fake.mean()}
    train(gan, 1, tmp_path)
    assert [len(fake) for fake in seen] == [4, 4]


def test_r1_is_paid_when_it_is_due() -> None:
    gan = build_gan(r1_every=3)
    real = torch.rand(2, 3, 8, 8)
    draws = TrainingDraws(0, 0)
    assert set(gan.loss_real(real, draws)) == {"real", "r1"}
    once = gan.loss_real(real, draws)["r1"]
    gan.r1_every = 1
    assert torch.allclose(once, 3 * gan.loss_real(real, draws)["r1"])
    gan.r1_every, gan.iterations = 3, 1
    assert set(gan.loss_real(real, draws)) == {"real"}


def test_r1_is_of_the_towers_that_take_part() -> None:
    gan = build_gan(stages=[Stage(auxiliary_every=2)])
    towers = gan.discriminator.main, gan.discriminator.auxiliary
    for iteration in (0, 1):
        gan.iterations = iteration
        found = torch.autograd.grad(
            gan.loss_real(torch.rand(2, 3, 8, 8), TrainingDraws(0, 0))["r1"],
            [tower.dense.weight for tower in towers],
            allow_unused=True,
        )
        assert [gradient is not None for gradient in found] == [True, iteration == 0]


@pytest.mark.parametrize(
    ("stages", "message"),
    [([Stage(start=3)], "must start at 0"), ([Stage(frozen=("feild",))], "no parts to freeze named feild")],
)
def test_bad_stages(stages, message) -> None:
    with pytest.raises(ValueError, match=message):
        build_gan(stages=stages)


# Samples by stage


def test_a_stage_has_samples_of_its_own() -> None:
    asked = []
    generator = build_generator()
    generator.field.register_forward_hook(lambda _, inputs, __: asked.append(inputs[0].t.shape[-1]))
    gan = build_gan(stages=[Stage(), Stage(start=1, samples=7)])
    gan.generator = generator
    for iteration, expected in ((0, {4}), (1, {7})):
        gan.iterations = iteration
        asked.clear()
        gan.fakes(torch.zeros(2, 3, 4, 4), TrainingDraws(0, iteration, 0))
        assert set(asked) == expected
    assert generator.renderer.depths.samples == generator.renderer.fine.samples == 4
    generator.renderer = nn.Identity()
    with pytest.raises(ValueError, match="leave samples out"):
        gan.fakes(torch.zeros(2, 3, 4, 4), TrainingDraws(0, 1, 0))


# Networks that do not fit each other


def test_widths_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"field.feature_dim \(6\) and inr.feature_dim \(5\) must be the same"):
        build_generator(feature_dim=5)
    with pytest.raises(ValueError, match=r"mapping.appearance.style_dim \(7\) and inr.style_dim \(6\)"):
        build_generator(style_dim=6)


@pytest.mark.parametrize("wrong", [{"rgb_dim": 2}, {"first_rgb": 5}])
def test_a_network_without_colour_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"No colour comes of|rgb_dim of Inr is 2"):
        build_generator(**wrong)


# Published files


@pytest.fixture
def experiment() -> str:
    return "cips3d/ffhq256"


@pytest.mark.parametrize("weights", [None, "raw"])
def test_a_published_zip_becomes_a_bundle(tmp_path, experiment, weights, capsys) -> None:
    with zipfile.ZipFile(tmp_path / "download.zip", "w") as archive:
        for file in RUN.iterdir():
            archive.write(file, f"run/resume_iter_4500/{file.name}")
    words = ["--experiment", experiment, "--license", "unknown", *(["--weights", weights] if weights else [])]
    assert main(["convert", str(tmp_path / "download.zip"), str(tmp_path / "out"), *words]) == 0
    used = "generator.pth" if weights else "G_ema.pth"
    generator, info = load_bundle(tmp_path / "out")
    assert info.card["converted_from"] == used and info.card["iterations"] == "4500"
    theirs = torch.load(RUN / used, weights_only=True)
    assert torch.equal(generator.field.layers[1].gain.weight, theirs["siren.network.1.gain_fc.weight"])
    assert UNUSED + "inr_net.to_rgbs.4.linear.weight" in load_file(tmp_path / "out" / "model.safetensors")


def test_weights_that_are_not_there(tmp_path, experiment, capsys) -> None:
    shutil.copy(RUN / "generator.pth", tmp_path)
    words = ["convert", str(tmp_path / "generator.pth"), str(tmp_path / "out"), "--experiment", experiment]
    assert main([*words, "--license", "unknown", "--weights", "ema"]) == 2
    assert "no weights 'ema': there is no G_ema.pth in or beside it; --weights can be raw" in capsys.readouterr().err


def test_styles_of_single_layers_are_not_lost_silently(tmp_path, experiment, capsys) -> None:
    state = torch.load(RUN / "G_ema.pth", weights_only=True)
    torch.save(state | {"mapping_network_nerf.nerf_w0.0.weight": torch.zeros(12, 12)}, tmp_path / "generator.pth")
    words = ["convert", str(tmp_path / "generator.pth"), str(tmp_path / "out"), "--experiment", experiment]
    assert main([*words, "--license", "unknown"]) == 2
    assert "styles of single layers (head_layers)" in capsys.readouterr().err


# 512 x 512


def test_a_step_at_512_with_gradients_for_few_rays(tmp_path) -> None:
    """The stage of cips3d/ffhq512, with narrow networks."""
    config = read_experiment("cips3d/ffhq512")["model"]["init_args"]
    (of,) = config["stages"]
    assert of["gradient_rays"] == 512 * 512 // 4 and config["generator"]["init_args"]["resolution"] == 512
    torch.manual_seed(0)
    plain = build_generator()
    renderer = VolumeRenderer(JitteredUniform(0.88, 1.12, 3))
    generator = Generator(plain.field, plain.inr, plain.mapping, renderer, plain.poses, resolution=512)
    stage = Stage(**{**of, "augment": diffaugment, "frozen": tuple(of["frozen"]), "gradient_rays": 4096})
    adam = partial(torch.optim.Adam, lr=1e-2, betas=(0.0, 0.99))
    discriminator = Discriminator(Tower([4] * 8), Tower([4] * 8, shrink_first=True))
    gan = Recorded(generator, discriminator, adam, adam, {"slow": EMA(0.5)}, stages=[stage])
    gan.loss_g = Kept(gan.loss_g)
    train(gan, 1, tmp_path, NoiseImages(512, 1, None))
    assert gan.loss_g.shapes == [(1, 3, 512, 512)]  # whole images are scored
    assert gan.seen[0]["moved"] == {"inr", "mapping"}


class Kept:
    """A loss that remembers the shapes of what it was given."""

    def __init__(self, loss) -> None:
        self.loss, self.shapes = loss, []

    def __call__(self, fake: Tensor, draws) -> dict[str, Tensor]:
        self.shapes.append(tuple(fake.shape))
        return self.loss(fake, draws)
