"""The private parts of Lightning that this project touches, and nothing else does.

Lightning may move them in any release; ``tests/test_private_parts.py`` says so, and what to do.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.utils.errors import Stopped, UserError
from zoo.utils.memory import out_of_memory
from zoo.utils.states import damaged

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


RESTORED = {
    "resume_start": "its version",
    "restore_datamodule": "its state of the data",
    "restore_callbacks": "its states of callbacks",
    "restore_loops": "its progress of loops",
    "restore_optimizers_and_schedulers": "its states of optimizers",
}


def explain_restoring(trainer: "Trainer") -> None:
    """From now on, what a checkpoint holds for parts of others, and they cannot take, ends in one sentence."""

    def explained(restore: Callable, what: str) -> Callable:
        @wraps(restore)
        def restored(*args: Any, **kwargs: Any) -> Any:
            try:
                return restore(*args, **kwargs)
            except (UserError, Stopped, OSError):
                raise
            except Exception as error:  # whatever a callback or an optimizer makes of values that are none of its own
                if out_of_memory(error):
                    raise
                raise damaged(f"{what} cannot be restored ({type(error).__name__}: {error})") from error

        return restored

    connector = trainer._checkpoint_connector
    for name, what in RESTORED.items():
        setattr(connector, name, explained(getattr(connector, name), what))
