"""The private parts of Lightning that this project touches, and nothing else does.

Lightning may move them in any release; ``tests/test_private_parts.py`` says so, and what to do.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer
    from pytorch_lightning.plugins.environments import ClusterEnvironment


class TypedWins:
    """For ``LightningCLI``: what was typed wins over what a checkpoint holds."""

    def _parse_ckpt_path(self) -> None:
        """Nothing. Lightning would read the checkpoint with torch and let its parameters override what was typed."""


def trainer_of(module: "LightningModule") -> "Trainer | None":
    """The trainer of a module; None where it has none yet, for which ``module.trainer`` raises an error."""
    return module._trainer


def requeued_checkpoint(trainer: "Trainer") -> Path:
    """Where Lightning looks for a checkpoint when a job of SLURM is started again."""
    return Path(trainer._checkpoint_connector.hpc_save_path(trainer.default_root_dir))


def cluster_environment(trainer: "Trainer") -> "ClusterEnvironment | None":
    """What started the processes of a run."""
    return trainer._accelerator_connector.cluster_environment
