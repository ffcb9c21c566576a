"""Checkpoint files that are whole or not there: what ``zoo fit`` writes and reads them with."""

from pathlib import Path
from typing import Any

import torch

from zoo.utils.containers import damage_explained, read_file
from zoo.utils.errors import UserError
from zoo.utils.files import replacing
from zoo.utils.old_names import renamed, renamed_own_tensors
from zoo.utils.records import check_plain
from zoo.utils.states import difference

LIGHTNINGS = {"pytorch-lightning_version", "optimizer_states", "lr_schedulers", "loops", "global_step", "epoch"}


def read_checkpoint(path: str | Path, to_resume: bool = False) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU, with the names of today; nothing in the file is executed.

    Args:
        path: of the file.
        to_resume: whether it must hold more than weights.

    Raises:
        OSError: there is no such file, or it cannot be read.
        UserError: it is damaged, not a checkpoint of a run here, or holds more than tensors and plain values.
    """
    damaged = "{} is damaged or not a checkpoint of a run: {}. Take another one."
    with damage_explained(path, damaged), open(path, "rb") as file:
        checkpoint = read_file(file).value
        if is_run(checkpoint):
            check_plain(checkpoint)
    if problem := what_is_missing(checkpoint):
        raise UserError(
            f"{path} is not a checkpoint of a run here: {problem}. If it is a published file, 'zoo convert' makes a "
            "bundle of it, whose folder --init_from takes."
        )
    if to_resume and not checkpoint.keys() >= LIGHTNINGS:
        raise UserError(f"{path} holds weights alone, so no run can resume from it: start from them with --init_from.")
    checkpoint["state_dict"] = renamed_own_tensors(checkpoint["state_dict"], "zoo.training.GAN")
    return checkpoint | {key: renamed(checkpoint.get(key)) for key in ("config", "data_config")}


def is_run(value: Any) -> bool:
    """Whether this is what a checkpoint of a run holds, as its names tell."""
    return isinstance(value, dict) and {"state_dict", "clocks"} <= value.keys()


def what_is_missing(checkpoint: Any) -> str:
    """What a checkpoint of a run has and this one lacks, in words; nothing where it is all there."""
    held = checkpoint if isinstance(checkpoint, dict) else {}
    state, clocks, config = (held.get(name) for name in ("state_dict", "clocks", "config"))
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        return "it has no tensors by name"
    if clocks is None:
        return "it does not say how long it was trained"
    if problem := difference(clocks, {"iterations": 0, "images_seen": 0}, "clocks"):
        return problem
    if problem := difference(clocks.get("seconds", 0.0), 0.0, "clocks.seconds"):
        return problem
    of_config = {"class_path": str, "init_args": dict}
    if config and not (
        isinstance(config, dict) and all(isinstance(config.get(key), kind) for key, kind in of_config.items())
    ):
        return "it does not say how its model is built"
    return ""


def write(checkpoint: dict[str, Any], path: Path) -> None:
    """Replace a file by a checkpoint, in one step."""
    with replacing(path) as part, open(part, "wb") as file:  # torch by itself does not say why it cannot write
        torch.save(checkpoint, file)
