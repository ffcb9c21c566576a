"""Weights bundles: a folder with ``model.safetensors``, ``config.yaml`` (how to build the generator) and ``README.md``.

A generator is found by the name of a bundle that comes with the package, by the folder of a bundle, or by a Lightning
checkpoint of one of our own runs. Nothing in these files can run code: tensors are read as tensors, and a config may
only name classes of the packages in ``ALLOWED``.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings
from jsonargparse import _common as jsonargparse_settings
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.paths import BUNDLED, bundled_names
from zoo.resume import mismatches

ALLOWED = ["zoo", "datamodules", "callbacks", "torch.optim", "torch.nn"]
TENSORS, CONFIG, CARD = "model.safetensors", "config.yaml", "README.md"
UNUSED = "unused."  # before the names of tensors that came with published weights and that the network never reads


@dataclass(frozen=True)
class BundleInfo:
    """Where a generator came from.

    name: of the bundle's folder or of the checkpoint's file.
    path: the folder or file.
    sha256: of the file that holds the tensors.
    config: ``class_path`` and ``init_args`` of the generator.
    card: what was noted when it was written (system, images_seen, ...), as text.
    """

    name: str
    path: Path
    sha256: str
    config: dict[str, Any]
    card: dict[str, str] = field(default_factory=dict)


def save_bundle(
    folder: Path | str,
    generator: nn.Module,
    config: dict[str, Any],
    unused: dict[str, Tensor] | None = None,
    **card: Any,
) -> None:
    """Write a bundle; the generator is not changed.

    Args:
        folder: made where it does not exist.
        generator: whose weights are written, together with what ``generator.prepare`` computes; or another network,
            such as a discriminator.
        config: ``class_path`` and ``init_args`` that build it.
        unused: tensors to keep beside, whose names begin with ``unused.``; loading leaves them out.
        card: facts for the model card, e.g. system="PiGAN", images_seen=12000, data="cars", license="MIT".
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    finished = deepcopy(generator).eval()
    draws = hasattr(finished, "prepare")
    if draws:
        finished.prepare()
    state = finished.state_dict() | (unused or {})
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    facts = {name: str(value) for name, value in card.items() if value is not None}
    save_file(tensors, folder / TENSORS, metadata=facts)
    (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / CARD).write_text(model_card(folder.name, facts, sum(t.numel() for t in tensors.values()), draws))


def model_card(name: str, facts: dict[str, str], numbers: int, draws: bool = True) -> str:
    """The README.md of a bundle; one that draws says how."""
    rows = [f"| {key.replace('_', ' ')} | {value} |" for key, value in facts.items()]
    table = "\n".join(["| | |", "|---|---|", f"| numbers | {numbers:,} |", *rows])
    head = f"---\nlibrary_name: gan3d-zoo\ntags: [3d-aware-gan]\n---\n\n# {name}\n\n{table}\n"
    if not draws:
        return head
    return (
        f"{head}\n```\nzoo sample {name} --out grid.png\nzoo orbit {name} --out orbit.gif\n```\n\n"
        "Inside this folder, replace the name by the path of the folder.\n"
    )


def load_bundle(source: Path | str) -> tuple[nn.Module, BundleInfo]:
    """The generator of a bundle or checkpoint, in evaluation mode on the CPU.

    Args:
        source: name of a bundle that comes with the package, folder of a bundle, or a ``.ckpt`` of a run.

    Raises:
        ValueError: there is none (near matches are named), or its tensors don't fit its config (each one is named).
    """
    path = find(source)
    config, tensors, card, file = read_checkpoint(path) if path.is_file() else read_folder(path)
    generator = build(config, nn.Module, allowed_only=True)
    load_exactly(generator, tensors, path)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return generator.eval(), BundleInfo(
        path.stem if path.is_file() else path.resolve().name, path, sha256, config, card
    )


def find(source: Path | str) -> Path:
    """The folder or checkpoint that is meant."""
    path = Path(source)
    if (BUNDLED / str(source) / TENSORS).is_file():
        return BUNDLED / str(source)
    if (path / TENSORS).is_file() or (path.is_file() and path.suffix == ".ckpt"):
        return path
    if path.is_dir():
        raise ValueError(f"{path} is not a weights bundle: it has no {TENSORS}.")
    if path.is_file():
        raise ValueError(f"{path} is neither the folder of a weights bundle nor a .ckpt checkpoint.")
    siblings = path.parent.iterdir() if path.parent.is_dir() else []
    near = get_close_matches(str(source), [*bundled_names(), *map(str, siblings)], n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else "'zoo list' shows the names that come with the package."
    raise ValueError(f"There are no weights named '{source}', and no such folder or checkpoint. {hint}")


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, str], Path]:
    """Config, tensors, card and tensor file of a bundle."""
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} has no {CONFIG}, so it is not known which generator its weights belong to.")
    file = folder / TENSORS
    try:
        with safe_open(file, "pt") as opened:
            names = [name for name in opened.keys() if not name.startswith(UNUSED)]  # noqa: SIM118
            tensors = {name: opened.get_tensor(name) for name in names}
            card = opened.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged or not a safetensors file: {error}.") from None
    return yaml.safe_load((folder / CONFIG).read_text()), tensors, card, file


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, str], Path]:
    """Config and tensors of the generator to sample from, in a checkpoint of a run: the first average, if any."""
    checkpoint = open_checkpoint(path)
    config = checkpoint.get("config")
    if not config:
        raise ValueError(f"{path} does not say how its model is built; only checkpoints that 'zoo fit' wrote do.")
    averages = list(config["init_args"].get("averages") or {})
    prefix = f"averages.{averages[0]}.module." if averages else "generator."
    state = checkpoint["state_dict"]
    tensors = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    card = {"system": config["class_path"].rsplit(".", 1)[-1]}
    card |= {name: str(value) for name, value in checkpoint["clocks"].items()}
    return config["init_args"]["generator"], tensors, card, path


def open_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint of a run holds: tensors and plain values.

    Raises:
        ValueError: it is none.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or foreign file fails in many ways, none of which is a bug of ours
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is damaged or not a checkpoint of a run: {reason}") from None
    if not isinstance(checkpoint, dict) or not {"state_dict", "clocks"} <= checkpoint.keys():
        raise ValueError(f"{path} is not a checkpoint of a run here: it does not say how long it was trained.")
    return checkpoint


def load_exactly(module: nn.Module, tensors: dict[str, Tensor], source: Path | str) -> None:
    """Load a state in which nothing is missing, left over or of another shape.

    Raises:
        ValueError: naming every such tensor.
    """
    check_fit(module, tensors, source)
    module.load_state_dict(tensors)


def check_fit(module: nn.Module, tensors: dict[str, Tensor], source: Path | str) -> None:
    """As ``load_exactly``, for a module on any device, without loading."""
    problems = mismatches(module.state_dict(), tensors)
    if problems:
        raise ValueError(f"The weights of {source} do not fit its config: {'; '.join(problems)}.")


def build(config: dict[str, Any], base: type, *, allowed_only: bool = False) -> Any:
    """The object that ``class_path`` and ``init_args`` describe.

    Args:
        config: plain values, as read from yaml.
        base: what it must be an instance of.
        allowed_only: refuse classes outside ``ALLOWED``: for configs that came with weights.

    Raises:
        ValueError: the config is wrong; says where.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "object", required=True)
    try:
        with only_allowed_imports() if allowed_only else unrestricted():
            return parser.instantiate(parser.parse_object({"object": config})).object
    except ArgumentError as error:
        from zoo.errors import explain

        raise ValueError(explain(str(error), parser)) from None


@contextmanager
def unrestricted() -> Iterator[None]:
    yield


@contextmanager
def only_allowed_imports() -> Iterator[None]:
    """Inside, a parsed value that names something outside ``ALLOWED`` is an error."""
    settings = jsonargparse_settings.parsing_settings
    before = dict(settings)
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=ALLOWED)
    try:
        yield
    finally:
        settings.update(before)
