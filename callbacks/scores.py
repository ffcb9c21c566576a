"""Scores during training, and in ``zoo validate`` and ``zoo test``."""

import logging
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torchmetrics import Metric

from zoo.evaluate.extractors import Extractor, check_suits, default_extractor, load_extractor
from zoo.evaluate.presets import chosen_metrics, preset
from zoo.evaluate.protocol import score
from zoo.generator import DrawsPolicy
from zoo.utils.ranges import at_least, finite, given
from zoo.utils.states import check_state

log = logging.getLogger(__name__)


class Scores(pl.Callback):
    """Logs the scores of the model's averaged generator under their full names, such as ``fid-cars-none-1k``.

    It has no effect on training: no random number of it is used, and the extractor stays out of checkpoints. Every
    process renders its share, and all log the same value. Callbacks with a method ``on_scores(trainer, model, values)``
    are called at once, while the weights are those that were scored: ``RegularCheckpoint`` keeps the best ones.
    (Lightning's ``ModelCheckpoint`` with ``monitor`` stores later weights under an old score when it saves in between.)

    Args:
        every: iterations between scores; 0 for none on the way.
        n_fake, n_real: numbers of images; by default those of a paper's protocol, else 1,000 and all real ones.
        extractor: ``cars``, ``dinov2``, ``efficientnetlite0``, ``inception2015`` or an ``Extractor``; by default that
            of a paper's protocol, else ``cars`` for procedural cars and ``efficientnetlite0`` for all other images.
        inception_weights, dinov2_weights: local files for the extractors of these names.
        metrics: what is measured: FID and KID, another preset, such as ``image``, ``3d`` or ``all``, a yaml that lists
            metrics, or metrics (``zoo.evaluate.presets``).
        n_objects: for metrics of single objects.
        at_start, at_end: score before the first and after the last iteration too.
        truncation, draws, seed, batch_size: as in ``zoo.evaluate.protocol.score``.
    """

    def __init__(
        self,
        every: int = 5000,
        n_fake: int | None = None,
        n_real: int | None = None,
        extractor: str | Extractor | None = None,
        inception_weights: str | None = None,
        at_start: bool = True,
        at_end: bool = True,
        truncation: float = 1.0,
        draws: DrawsPolicy = "per-sample",
        seed: int = 0,
        batch_size: int = 32,
        dinov2_weights: str | None = None,
        metrics: str | list[Metric] = "fid_kid",
        n_objects: int = 16,
    ) -> None:
        at_least(0, self, every=every)
        at_least(1, self, batch_size=batch_size, n_objects=n_objects)
        at_least(2, self, **given(n_fake=n_fake, n_real=n_real))  # scores compare sets of images
        finite(self, truncation=truncation)
        self.every, self.at_start, self.at_end = every, at_start, at_end
        if isinstance(metrics, str):  # one that there is not is refused before training
            extractor = extractor or preset(metrics).extractor
        self.extractor = extractor
        self.weights = {"inception2015": inception_weights, "dinov2": dinov2_weights}
        self.protocol: dict[str, Any] = {"n_fake": n_fake, "n_real": n_real, "batch_size": batch_size}
        self.protocol |= {"truncation": truncation, "draws": draws, "seed": seed, "n_objects": n_objects}
        self.metrics = metrics
        self.scored_at: int | None = None
        self.first: dict[str, float] = {}
        self.better: dict[str, str] = {}  # "less" or "more", of each value once it was measured

    def state_dict(self) -> dict[str, Any]:
        return {"scored_at": self.scored_at, "first": self.first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        check_state(state_dict, {"scored_at": int | None, "first": dict}, "the first scores")
        check_state(state_dict["first"], dict.fromkeys(state_dict["first"], 0.0), "the first scores")
        self.scored_at, self.first = state_dict["scored_at"], state_dict["first"]

    def choose_extractor(self, trainer: pl.Trainer) -> None:
        """The extractor of the data set where none is given, refused before training where there is none."""
        self.extractor = self.extractor or default_extractor(trainer.datamodule)
        check_suits(self.extractor, trainer.datamodule)

    def measure(self, trainer: pl.Trainer, model: pl.LightningModule) -> dict[str, float]:
        """Scores of the model as it is, on every process."""
        self.choose_extractor(trainer)
        if isinstance(self.extractor, str):
            self.extractor = load_extractor(self.extractor, self.weights.get(self.extractor))
        protocol = {"device": model.device, **self.protocol}
        scores = score(model.sampler, trainer.datamodule, self.extractor, self.metrics, **protocol)
        self.better = {name: result["better"] for name, result in scores.results.items()}
        before = {name: f" (first {value:.4g})" for name, value in self.first.items()}
        text = ", ".join(f"{name} {value:.4g}{before.get(name, '')}" for name, value in scores.values.items())
        self.first = self.first or scores.values
        log_message(trainer, f"iteration {model.iterations:,}, {model.images_seen:,} images seen: {text}")
        return scores.values

    def score_training(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        if self.scored_at == model.iterations:
            return
        self.scored_at = model.iterations
        values = self.measure(trainer, model)
        log_now(trainer, values)
        for callback in trainer.callbacks:
            if hasattr(callback, "on_scores"):
                callback.on_scores(trainer, model, values)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.choose_extractor(trainer)
        chosen_metrics(self.metrics, self.protocol["n_fake"] or 1000, trainer.datamodule)  # or refused, before training
        now = pl_module.iterations
        # A run that was interrupted right after an iteration whose score was due is scored when it resumes.
        missed = self.every and now and now % self.every == 0
        if missed or (self.at_start and now == 0):
            log_message(trainer, "scoring before training, which may take minutes ...")
            self.score_training(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if self.every and pl_module.iterations % self.every == 0:
            self.score_training(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.at_end:
            self.score_training(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "validate":
            pl_module.log_dict(self.measure(trainer, pl_module))

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log_dict(self.measure(trainer, pl_module))


def log_now(trainer: pl.Trainer, values: dict[str, float]) -> None:
    """Log values at once, regardless of ``log_every_n_steps``, also for ``ModelCheckpoint`` to monitor."""
    from torch import tensor

    for name, value in values.items():
        trainer.callback_metrics[name] = tensor(value)
    for logger in trainer.loggers:
        logger.log_metrics(values, step=trainer.global_step)


@rank_zero_only
def log_message(trainer: pl.Trainer, text: str) -> None:
    """A line that does not break the progress bar."""
    bar = trainer.progress_bar_callback
    if bar is not None:
        bar.print(text)
    else:
        log.info(text)
