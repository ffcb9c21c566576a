"""Silences what Lightning tells everyone and what does not hold for a GAN here."""

import logging
import warnings

WARNINGS = [
    "does not have many workers",
    "LightningCLI.s args parameter",
    "manual optimization.*ModelCheckpoint",
    r"isinstance\(treespec, LeafSpec\)",
    r"module\(s\) in eval mode at the start of training",
    "Checkpoint directory .* exists and is not empty",
    "Experiment logs directory .* exists and is not empty",
    "number of training batches .* is smaller than the logging interval",
    "but have no `val_dataloader`",
    "`max_epochs` was not set",
]
LOGGERS = [
    "pytorch_lightning.utilities.rank_zero",
    "lightning_fabric.utilities.rank_zero",
    "pytorch_lightning.trainer.connectors.checkpoint_connector",
]
LINES = ["Tip:", "`weights_only` was not set", "TPU available", "GPU available"]


def quieten() -> None:
    """From now on."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", f".*{message}")
    for name in LOGGERS:
        logging.getLogger(name).addFilter(without_noise)


def without_noise(record: logging.LogRecord) -> bool:
    """Whether a line of a log is worth reading."""
    return not any(line in record.getMessage() for line in LINES)
