"""Scores and diagnostics during training, from callbacks that only watch."""

import functools

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from callbacks.checkpoint import RegularCheckpoint
from callbacks.diagnostics import Diagnostics
from callbacks.scores import Scores
from tests.analytic import Sphere
from tests.test_scores import Data, colours
from zoo.evaluate.metrics.density import density_metric
from zoo.evaluate.metrics.surface import surface_metric
from zoo.evaluate.protocol import score
from zoo.training.gan import GAN

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.usefixtures("cache")]


class Toy(GAN):
    """Learns a tint, with dropout so that every step draws from the global stream."""

    def __init__(self) -> None:
        sgd = functools.partial(torch.optim.SGD, lr=0.1)
        discriminator = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 32 * 32, 1))
        super().__init__(Sphere(), discriminator, sgd, sgd)
        self.losses = []

    def training_step(self, batch, batch_idx):
        optimizer_g, optimizer_d = self.optimizers()
        draws = self.draws()
        fake = self.generator.render(
            self.generator.map(self.generator.latents(8, draws)), self.generator.cameras(8, draws)
        )
        loss = self.discriminator(fake.image.detach()).mean() - self.discriminator(batch[0]).mean()
        self.minimise(optimizer_d, "loss_d", {"all": loss})
        self.losses.append(loss.item())
        self.minimise(optimizer_g, "loss_g", {"all": -self.discriminator(fake.image).mean()})
        self.count(8)


def fit(callbacks, folder, **settings):
    torch.manual_seed(3)
    model = Toy()
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options |= {"enable_model_summary": False, "default_root_dir": folder, "max_steps": 6, "limit_val_batches": 0}
    trainer = pl.Trainer(callbacks=callbacks, **(options | settings))
    trainer.fit(model, datamodule=Data())
    return model, trainer


def test_callbacks_log_and_change_nothing(tmp_path, caplog):
    caplog.set_level("INFO")
    from pytorch_lightning.loggers import CSVLogger

    plain, _ = fit([], tmp_path)
    watchers = [Scores(every=2, n_fake=6, extractor=colours()), Diagnostics(every=3, n=1)]
    logger = CSVLogger(tmp_path)
    watched, trainer = fit(watchers, tmp_path, logger=logger, log_every_n_steps=100)
    assert plain.losses == watched.losses and len(plain.losses) == 6
    assert caplog.text.count("scoring before training, which may take minutes ...") == 1
    assert torch.equal(plain.generator.tint, watched.generator.tint)
    lines = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()
    head = lines[0].split(",")
    place, step = head.index("fid-colours-none-6"), head.index("step")
    scored = [row[step] for row in (line.split(",") for line in lines[1:]) if row[place]]
    assert scored == ["0", "2", "4", "6"]
    assert {"kid-colours-none-6", "diagnostics/opacity", "diagnostics/flatness", "diagnostics/nonfinite"} <= set(head)
    assert trainer.callback_metrics["fid-colours-none-6"] > 0

    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == set(plain.state_dict())
    state = checkpoint["callbacks"].pop("Scores")  # and neither the extractor nor anything large
    assert state["scored_at"] == 6 and state["first"]["fid-colours-none-6"] > 0 and set(state) == {"scored_at", "first"}
    assert not checkpoint["callbacks"]


def test_validate_and_test_report_scores(tmp_path):
    model, trainer = fit([Scores(every=0, n_fake=6, extractor=colours(), at_start=False, at_end=False)], tmp_path)
    assert "fid-colours-none-6" not in trainer.callback_metrics
    data = Data()
    data.test_dataloader = data.val_dataloader
    trainer.limit_val_batches = 1.0
    expected = score(model.sampler, data, colours(), n_fake=6).values["fid-colours-none-6"]
    for verb in (trainer.validate, trainer.test):
        assert verb(model, datamodule=data, verbose=False)[0]["fid-colours-none-6"] == pytest.approx(expected)


def test_any_metrics_are_logged_and_the_best_is_of_those_of_which_less_is_better(tmp_path):
    def watcher() -> Scores:
        metrics = [surface_metric(), density_metric(8)]
        return Scores(every=0, n_fake=6, extractor=colours(), metrics=metrics, n_objects=1, at_end=False)

    _, trainer = fit([watcher()], tmp_path, max_steps=1)
    logged = {name for name in trainer.callback_metrics if "objects" in name}
    assert len(logged) == 5 and "outside-1objects" in logged and "fid-colours-none-6" not in trainer.callback_metrics
    with pytest.raises(ValueError, match="more is better of surface-1objects-8views: name another score"):
        fit([watcher(), RegularCheckpoint(best="surface")], tmp_path, max_steps=1, enable_checkpointing=True)
    with pytest.raises(ValueError, match="no metrics 'fidd'"):
        Scores(metrics="fidd")
