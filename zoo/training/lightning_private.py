"""The private parts of Lightning that this project touches, and nothing else does.

Lightning may move them in any release; ``tests/test_private_parts.py`` says so, and what to do.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.utils.errors import Stopped, UserError
from zoo.utils.memory import out_of_memory
from zoo.utils.states import damaged

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer
    from pytorch_lightning.plugins.environments import ClusterEnvironment

HANDED_OVER = ".temp.ckpt"  # the file of weights that the first process of ddp_spawn leaves for the one before it


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
    connector = trainer._checkpoint_connector
    for name in RESTORED:
        setattr(connector, name, partial(restore, name, connector))


def restore(name: str, connector: Any, *args: Any, **kwargs: Any) -> Any:
    """What the method of this name does.

    Raises:
        UserError: it meets values that are none of a part's own, whatever the part makes of them.
    """
    try:
        return getattr(type(connector), name)(connector, *args, **kwargs)
    except (UserError, Stopped, OSError):
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        problem = f"{RESTORED[name]} cannot be restored ({type(error).__name__}: {error})"
        raise damaged(problem) from error
