"""Where the weights are that somebody names; loads no torch, so that a mistyped name is answered at once."""

from difflib import get_close_matches
from pathlib import Path

from zoo.utils.errors import UserError, last_checkpoint
from zoo.utils.paths import BUNDLED, bundled_names, config_names, downloaded_names
from zoo.weights.catalogue import released
from zoo.weights.store import CONFIG, TENSORS, downloaded


def find(source: Path | str) -> Path:
    """The folder of a bundle, or the checkpoint, that is meant.

    Args:
        source: name of a bundle that comes with the package or was downloaded, folder of a bundle, or a ``.ckpt``.

    Raises:
        UserError: there is none; names what may have been meant, or what to do.
    """
    path = Path(source)
    if (BUNDLED / str(source) / TENSORS).is_file():
        return BUNDLED / str(source)
    if (path / TENSORS).is_file() or (path.is_file() and path.suffix == ".ckpt"):
        return path
    if path.is_dir() and not any(path.iterdir()):
        raise UserError(f"'{path}' is an empty folder: there is nothing to read in it.")
    if path.is_dir() and (last := last_checkpoint(path)):
        raise UserError(f"'{path}' is no weights bundle, but a run's: name a checkpoint of it, such as '{last}'.")
    if path.is_dir():
        raise UserError(
            f"{path} is not a weights bundle: it has no {TENSORS}. If it holds a published checkpoint, 'zoo convert' "
            "makes a bundle of it."
        )
    if folder := downloaded(str(source)):
        return folder
    if str(source) in released() or str(source).startswith("hf:"):
        raise UserError(f"{source} is not here yet: 'zoo download {source}' fetches it.")
    if path.is_file():
        is_part = (path.parent / TENSORS).is_file() and (path.parent / CONFIG).is_file()
        what = (
            f"it is part of one, {path.parent}"
            if is_part
            else f"if it was published, 'zoo convert {path} OUT' makes one"
        )
        raise UserError(f"{path} is neither the folder of a weights bundle nor a .ckpt checkpoint: {what}.")
    if str(source) in config_names():
        raise UserError(f"'{source}' is an experiment: name weights, {trained_with(str(source))}.")
    meant = meant_by(str(source))
    hint = f"Did you mean {' or '.join(meant)}?" if meant else "'zoo list' shows all names."
    raise UserError(f"There are no weights named '{source}', and no such folder or checkpoint. {hint}")


def trained_with(experiment: str) -> str:
    """Which weights of an experiment there are, or how to get some."""
    names = [name for name in bundled_names() if name == experiment.replace("/", "-")]
    names += [entry.name for entry in released().values() if entry.config == experiment]
    return f"such as {' or '.join(names[:3])}" if names else f"which 'zoo fit -c {experiment}' trains"


def meant_by(source: str) -> list[str]:
    """Names that may have been meant: in other letters, a system's, nearly the same, or files beside."""
    names = [*dict.fromkeys([*bundled_names(), *downloaded_names(), *released()])]
    lower = source.lower()
    if same := [name for name in names if name.lower() == lower or name.startswith(f"{lower}-")]:
        return sorted(same, key=lambda name: "-seed" in name)[:3]  # those of the comparison last
    parent = Path(source).parent
    names += map(str, parent.iterdir() if parent.is_dir() else [])
    return get_close_matches(source, names, n=3, cutoff=0.8) or get_close_matches(source, names, n=1, cutoff=0.7)
