"""How Lightning's trainer writes and reads checkpoints here, see ``checkpoint_files``."""

import os
from pathlib import Path
from typing import Any

from pytorch_lightning.plugins.io import TorchCheckpointIO

from zoo.training.checkpoint_files import read_checkpoint, write
from zoo.training.lightning_private import HANDED_OVER
from zoo.utils.containers import read_file
from zoo.utils.errors import Stopped, disk_problem


class NotSaved(Stopped):
    """A checkpoint could not be written; what was there before still is."""


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes checkpoints in one step (see ``zoo.utils.files``) and reads nothing but tensors and plain values."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint, and its folder where there is none.

        Raises:
            NotSaved: the disk is full, or the folder cannot be written to.
        """
        path = Path(path)
        try:
            write(checkpoint, path)
        except (OSError, RuntimeError) as error:  # torch wraps what the disk says into a RuntimeError
            cause = disk_error(error)
            if cause is None:
                raise
            raise NotSaved(not_saved(path, cause)) from error

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        """As ``read_checkpoint``, whatever is asked for; and the tensors that a process of ddp_spawn hands over."""
        if Path(path).name != HANDED_OVER:
            return read_checkpoint(path)
        with open(path, "rb") as file:
            return read_file(file).value


def disk_error(error: BaseException | None) -> OSError | None:
    """The file system's error that caused this one."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def not_saved(path: Path, error: OSError) -> str:
    """Why a checkpoint was not written and what to do, in one sentence."""
    problem = disk_problem(error) or f"{error.strerror or error}; mend that"
    kept = " (the one from before is still whole)" if os.path.exists(path) else ""
    return f"The checkpoint '{path}' was not saved: {problem}, then resume from the last checkpoint{kept}."
