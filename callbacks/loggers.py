"""What loggers get beside numbers: images and films as they are written into the run's folder, and what the run is."""

from pathlib import Path
from typing import Any

from PIL import Image
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger


def log_image(trainer: Trainer, name: str, image: Image.Image) -> None:
    """Log an image with the loggers that can show it, as bytes: wandb does not scale floats."""
    import numpy as np

    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, np.asarray(image), trainer.global_step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            import wandb

            logger.log_metrics({name: wandb.Image(image)}, trainer.global_step)


def log_film(trainer: Trainer, name: str, path: Path) -> None:
    """Hand a GIF or WebP to the loggers that can show it: from frames, loggers would need moviepy."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            film = wandb.Video(str(path), format=path.suffix.removeprefix("."))
            logger.log_metrics({name: film}, trainer.global_step)


def log_run(trainer: Trainer, config: dict[str, Any], command: str) -> None:
    """Tell the loggers that keep such things what the run is: its config, its command line and its folder."""
    folder = Path(trainer.default_root_dir).resolve()
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and trainer.is_global_zero:
            about = config | {"command": command, "folder": str(folder), "folder_url": folder.as_uri()}
            logger.experiment.config.update(about, allow_val_change=True)
