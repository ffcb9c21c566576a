"""Checkpoint files that are whole or not there: what ``zoo fit`` writes and reads them with."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from zoo.utils.errors import Stopped, disk_problem
from zoo.utils.files import replacing
from zoo.utils.old_names import renamed


class NotSaved(Stopped):
    """A checkpoint could not be written; what was there before still is."""


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes checkpoints in one step (see above) and reads nothing but tensors and plain values."""

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

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable | torch.device | str | None = "cpu",
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """As ``read_checkpoint``: always with ``weights_only``, whatever is asked for."""
        return read_checkpoint(path, map_location)


def read_checkpoint(path: str | Path, map_location: Callable | torch.device | str | None = "cpu") -> dict[str, Any]:
    """What a checkpoint holds, with the names of today; nothing in the file is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, of a run of something else, or holds more than tensors and plain values.
    """
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged or foreign file fails in many ways, none of which is a bug of ours
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(f"{path} is damaged or not a checkpoint of a run: {reason}. Take another one.") from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "clocks"} <= checkpoint.keys():
        raise ValueError(f"{path} is not a checkpoint of a run here: it does not say how long it was trained.")
    return checkpoint | {key: renamed(checkpoint.get(key)) for key in ("config", "data_config")}


def write(checkpoint: dict[str, Any], path: Path) -> None:
    """Replace a file by a checkpoint, in one step."""
    with replacing(path) as part, open(part, "wb") as file:  # torch by itself does not say why it cannot write
        torch.save(checkpoint, file)


def disk_error(error: BaseException | None) -> OSError | None:
    """What the file system said, underneath what was made of it."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def not_saved(path: Path, error: OSError) -> str:
    """Why a checkpoint was not written and what to do, in one sentence."""
    problem = disk_problem(error) or f"{error.strerror or error}; mend that"
    kept = f" (the one from before is still whole: '{path}')" if os.path.exists(path) else ""
    return f"The checkpoint '{path}' was not saved: {problem}, then go on from the last checkpoint{kept}."
