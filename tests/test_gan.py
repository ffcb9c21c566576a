"""The GAN base and pi-GAN's training: clocks, EMAs, draws, and what stops a run."""

from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.utils.data import DataLoader

from zoo.draws import SampleDraws, TrainingDraws
from zoo.pigan.model import Discriminator, FilmSiren, Generator
from zoo.pigan.training import PiGAN, Stage
from zoo.render import GaussianPoses, Importance, Integrated, JitteredUniform, Rays, Samples, VolumeRenderer
from zoo.training.ema import EMA, WarmUpDecay
from zoo.training.gan import GAN
from zoo.training.nonfinite import NonFiniteLoss

OPTIMIZER = partial(Adam, lr=1e-3, betas=(0.0, 0.9))


def tiny_generator() -> Generator:
    renderer = VolumeRenderer(JitteredUniform(0.88, 1.12, 4), fine=Importance(4), chunk=64)
    return Generator(
        FilmSiren(8, 2, 8.0), renderer, GaussianPoses(yaw_spread=0.3, pitch_spread=0.15), 4, 8, resolution=8
    )


def tiny_gan(optimizer_g=OPTIMIZER, **kwargs) -> PiGAN:
    torch.manual_seed(0)
    kwargs = {"emas": {"slow": EMA(WarmUpDecay(0.999)), "fast": EMA(0.5)}} | kwargs
    return PiGAN(tiny_generator(), Discriminator([4, 8, 8], latent_dim=4), optimizer_g, OPTIMIZER, **kwargs)


class Log(pl.Callback):
    """Keeps every loss."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *args) -> None:
        self.losses.append({name: value.item() for name, value in trainer.callback_metrics.items()})


def reals(count: int = 64) -> DataLoader:
    images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return DataLoader([{"image": image, "index": i} for i, image in enumerate(images)], batch_size=4)


def fit(gan: GAN, steps: int, tmp_path, callbacks=(), loader=None, ckpt_path=None, **kwargs) -> pl.Trainer:
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator=kwargs.pop("accelerator", "cpu"),
        logger=kwargs.pop("logger", False),
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(c, pl.callbacks.ModelCheckpoint) for c in callbacks),
        **kwargs,
    )
    trainer.fit(gan, loader or reals(), ckpt_path=ckpt_path)
    return trainer


def test_everything_counts_iterations(tmp_path) -> None:
    gan, log = tiny_gan(stages=[Stage(batch_split=2)]), Log()
    checkpoint = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1)
    logger = pl.loggers.CSVLogger(tmp_path)
    trainer = fit(gan, 7, tmp_path, [log, checkpoint], logger=logger, log_every_n_steps=1)
    assert trainer.global_step == gan.iterations == len(log.losses) == 7
    assert gan.images_seen == 28
    assert sorted(path.stem.split("step=")[1] for path in tmp_path.glob("*.ckpt")) == ["3", "6"]
    rows = Path(logger.log_dir, "metrics.csv").read_text().splitlines()
    steps = [int(row.split(",")[rows[0].split(",").index("step")]) for row in rows[1:]]
    assert steps == list(range(7))
    assert {"loss_d/real", "loss_d/fake", "loss_d/r1", "loss_g/fake", "loss_d", "loss_g"} <= log.losses[0].keys()


def test_removing_every_callback_leaves_the_losses(tmp_path) -> None:
    from callbacks.diagnostics import Diagnostics
    from callbacks.samples import SampleGrid

    class Keep(PiGAN):
        def accumulate(self, prefix, terms) -> None:
            kept.append((prefix, {name: term.item() for name, term in terms.items()}))
            super().accumulate(prefix, terms)

    runs = []
    for callbacks in ([], [SampleGrid(every=2, latents=2, views=2), Diagnostics(every=2)]):
        kept: list = []
        torch.manual_seed(0)
        gan = Keep(tiny_generator(), Discriminator([4, 8, 8], latent_dim=4), OPTIMIZER, OPTIMIZER)
        fit(gan, 5, tmp_path, callbacks)
        runs.append(kept)
    assert runs[0] == runs[1]


def test_learning_rates_decay_with_the_clock_and_go_on_after_a_checkpoint(tmp_path) -> None:
    from callbacks.decay import LearningRateDecay

    class Rates(pl.Callback):
        def on_train_batch_end(self, trainer, *_) -> None:
            seen.append([group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups])

    runs = []
    for stops in ([5], [4, 5]):  # straight through, and stopped on the way
        seen: list = []
        for steps, resumed in zip(stops, (None, "last.ckpt"), strict=False):
            gan, callbacks = tiny_gan(), [LearningRateDecay([2, 3], 0.1), Rates()]
            path = tmp_path / resumed if resumed else None
            trainer = fit(gan, steps, tmp_path, callbacks, ckpt_path=path)
            trainer.save_checkpoint(tmp_path / "last.ckpt")
        runs.append(seen)
    assert runs[0] == runs[1]
    first = runs[0][0][0]
    assert [rates[0] for rates in runs[0]] == pytest.approx([first, first, first / 10, first / 100, first / 100])
    seen = []
    faster = tiny_gan(partial(Adam, lr=1.0, betas=(0.0, 0.9)))
    fit(faster, 6, tmp_path, [LearningRateDecay([2, 3], 0.1), Rates()], ckpt_path=tmp_path / "last.ckpt")
    assert seen[0][0] == pytest.approx(0.01)  # what is asked for now wins over what the checkpoint was made with
    with pytest.raises(ValueError, match="factor of LearningRateDecay is 0: give a number above 0"):
        LearningRateDecay([1], 0)


def test_clocks_and_emas_survive_a_checkpoint(tmp_path) -> None:
    gan = tiny_gan()
    trainer = fit(gan, 3, tmp_path)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    again = tiny_gan()
    loaded = torch.load(tmp_path / "x.ckpt", weights_only=True)  # nothing but tensors and plain values
    again.load_state_dict(loaded["state_dict"])
    again.on_load_checkpoint(loaded)
    assert (again.iterations, again.images_seen) == (3, 12)
    assert [ema.updates for ema in again.emas.values()] == [3, 3]
    for one, two in zip(gan.state_dict().values(), again.state_dict().values(), strict=True):
        assert not isinstance(one, Tensor) or torch.equal(one.nan_to_num(), two.nan_to_num())


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(tmp_path) -> None:
    class Broken(PiGAN):
        def loss_g(self, fake, z, angles) -> dict[str, Tensor]:
            terms = super().loss_g(fake, z, angles)
            bad = self.iterations == 2
            return terms | {"extra": fake.sum() * (float("nan") if bad else 0.0)}

    torch.manual_seed(0)
    gan = Broken(tiny_generator(), Discriminator([4, 8, 8], latent_dim=4), OPTIMIZER, OPTIMIZER)
    saved = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=2, save_last=True)
    with pytest.raises(NonFiniteLoss, match=r"iteration 2: .*loss_g/extra is nan"):
        fit(gan, 9, tmp_path, [saved])
    good = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert good["clocks"]["iterations"] == 2
    assert all(t.isfinite().all() for n, t in good["state_dict"].items() if isinstance(t, Tensor) and "mean_" not in n)
    for name, parameter in gan.generator.named_parameters():
        assert torch.equal(parameter, good["state_dict"][f"generator.{name}"]), name


def test_every_iteration_draws_anew() -> None:
    gan, drawn = tiny_gan(), []
    for gan.iterations in (0, 1, 0):
        drawn.append(gan.draws().normal("z", (4,)))
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])


def test_warm_up_and_buffer_rules() -> None:
    assert [WarmUpDecay(0.5)(n) for n in (1, 2, 30)] == [2 / 11, 3 / 12, 0.5]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            self.register_buffer("seen", torch.zeros(1))

    for rule, expected in (("copy", 8.0), ("lerp", 2.0), ("keep", 0.0)):
        net, ema = Net(), EMA(0.75, rule)
        ema.init_from(net)
        net.weight.data.fill_(4.0), net.seen.fill_(8.0)
        ema.update(net)
        assert ema.module.weight.item() == 1.0 and ema.module.seen.item() == expected


def test_truncation_moves_towards_the_mean_which_is_stored_with_finished_weights() -> None:
    generator = tiny_generator()
    latent = generator.latents(3, SampleDraws(0, [0, 1, 2]))
    full, none, half = (generator.map(latent, truncation=psi) for psi in (1.0, 0.0, 0.5))
    mean = generator.mean_styles()
    torch.testing.assert_close(none.phases, mean.phases.expand_as(none.phases))
    torch.testing.assert_close(half.frequencies, (full.frequencies + none.frequencies) / 2)
    generator.prepare()
    with torch.no_grad():
        generator.mapping.layers[-1].weight.zero_()  # what is stored stays
    assert torch.equal(generator.mean_styles().phases, mean.phases)


def test_samples_are_the_same_in_every_batch() -> None:
    generator = tiny_generator()

    def sample(indices: list[int]) -> Tensor:
        draws = SampleDraws(3, indices)
        styles = generator.map(generator.latents(len(indices), draws))
        return generator.render(styles, generator.cameras(len(indices), draws), draws=draws).image

    with torch.no_grad():
        torch.testing.assert_close(sample([4]), sample([1, 4, 2])[1:2], atol=1e-5, rtol=0)


def test_what_a_generator_returns() -> None:
    generator = tiny_generator()
    latent, camera = generator.turntable(generator.latents(2, TrainingDraws(0, 0)), 3)
    with torch.no_grad():
        styles = generator.map(latent)
        rendered = generator.render(styles, camera, resolution=5)
        density = generator.density(torch.zeros(6, 7, 3), styles)
    assert [tuple(x.shape) for x in rendered] == [(6, 3, 5, 5), (6, 3, 5, 5), (6, 1, 5, 5), (6, 1, 5, 5)]
    assert density.shape == (6, 7, 1) and (density >= 0).all()
    assert torch.equal(rendered.depth.isnan(), rendered.opacity < 1e-3)
    shown = rendered.depth[~rendered.depth.isnan()]
    assert ((shown > 0.8) & (shown < 1.2)).all()
    rays = generator.rays(camera, 5)
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(6, 25))


class FlatDisc(nn.Module):
    """A third-party renderer: one flat disc that faces the camera, no marching at all."""

    def forward(self, field, rays: Rays, condition, draws=None, density_noise: float = 0.0) -> Integrated:
        nearest = -(rays.origins * rays.directions).sum(-1, keepdim=True)
        inside = ((rays.origins + nearest * rays.directions).norm(dim=-1, keepdim=True) < 0.05).float()
        colour = inside.expand(-1, -1, 3)
        samples = Samples(rays.origins, rays.directions, nearest)
        return Integrated(colour, nearest * inside, inside, samples, inside, inside[..., None])

    def density(self, points, field, condition):
        raise NotImplementedError("A disc without thickness has no density.")


def test_a_third_party_renderer_from_yaml() -> None:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_argument("--generator", type=Generator)
    config = {
        "class_path": "zoo.pigan.Generator",
        "init_args": {
            "field": {"class_path": "zoo.pigan.FilmSiren", "init_args": {"hidden_dim": 8, "num_layers": 2}},
            "renderer": {"class_path": "tests.test_gan.FlatDisc"},
            "poses": {"class_path": "zoo.render.GaussianPoses"},
            "latent_dim": 4,
            "resolution": 32,
        },
    }
    generator = parser.instantiate(parser.parse_object({"generator": config})).generator
    draws = TrainingDraws(0, 0)
    rendered = generator(generator.latents(1, draws), generator.cameras(1, draws))
    area = rendered.opacity.mean().item() * (2 * torch.tan(torch.tensor(6.0).deg2rad()).item()) ** 2
    assert area == pytest.approx(torch.pi * 0.05**2, rel=0.1)


def test_images_the_discriminator_cannot_take() -> None:
    with pytest.raises(ValueError, match="takes images of side 2, 4, 8, not 12"):
        Discriminator([4, 8, 8])(torch.zeros(1, 3, 12, 12))


def test_published_sizes() -> None:
    with torch.device("meta"):
        generator = Generator(FilmSiren(), VolumeRenderer(JitteredUniform(0.88, 1.12, 12)), GaussianPoses())
        celeba = Discriminator([32, 64, 128, 256, 400, 400, 400, 400])
        carla = Discriminator([16, 32, 64, 128, 256, 400, 400, 400, 400], downsample="pool")
    count = [sum(p.numel() for p in network.parameters()) for network in (generator, celeba, carla)]
    assert count == [1_910_788, 13_291_075, 12_825_523]
