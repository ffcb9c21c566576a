"""Silences messages of Lightning that are of no use here or wrong for a GAN."""

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
LINES = [
    "Tip:",
    "`weights_only` was not set",
    "Restoring states from",
    "Detected KeyboardInterrupt",
    "`Trainer.fit` stopped",
    "TPU available",
    "GPU available",
]


def silence_warnings() -> None:
    """Silence them from now on."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", f".*{message}")
    for name in LOGGERS:
        logging.getLogger(name).addFilter(is_worth_logging)


def is_worth_logging(record: logging.LogRecord) -> bool:
    """Whether a record is none of ``LINES``."""
    return not any(line in record.getMessage() for line in LINES)
