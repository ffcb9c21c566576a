"""Weights bundles: a folder with ``model.safetensors``, ``config.yaml`` (how to build the generator) and ``README.md``.

Other networks of a checkpoint are in the same folder: ``raw.safetensors`` for the weights behind an EMA, other
EMAs, ``discriminator.safetensors`` with its own ``discriminator.yaml``.

A generator is found by the name of a bundle that comes with the package or was downloaded, by the folder of a bundle,
or by a Lightning checkpoint of one of our own runs. Nothing in these files can run code: tensors are read as tensors,
and a config may only name classes of the packages in ``ALLOWED`` and of modules in $ZOO_TRUST.
"""

from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zoo.generator import Generator
from zoo.training.checkpoint_files import read_checkpoint
from zoo.training.resume import mismatches, shortened
from zoo.utils.configs import read_yaml
from zoo.utils.errors import UserError, printable
from zoo.utils.files import replacing_files
from zoo.utils.old_names import renamed_tensors
from zoo.utils.parser import ParsedOnce, allowed_imports, explain, refuse_imports_that_do_harm
from zoo.utils.user_code import trusted
from zoo.weights.fetch import sha256_of
from zoo.weights.find import find
from zoo.weights.store import CONFIG, TENSORS, check_unchanged

ALLOWED = ["zoo"]
CARD = "README.md"  # beside ``TENSORS`` and ``CONFIG``
UNUSED = "unused."  # before the names of tensors that came with published weights and that the network never reads
LICENCES = {"MIT": "mit", "Apache-2.0": "apache-2.0", "CC BY 4.0": "cc-by-4.0", "CC BY-NC 4.0": "cc-by-nc-4.0"}

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)
Part = tuple[nn.Module, dict[str, Tensor], dict[str, str]]  # one network on the meta device, its tensors and card


@dataclass(frozen=True)
class BundleInfo:
    """The source of a generator.

    name: of the bundle's folder or of the checkpoint's file.
    path: the folder or file.
    sha256: of the file that holds the tensors.
    config: ``class_path`` and ``init_args`` of the generator.
    card: metadata (system, images_seen, ...), as text.
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

    Raises:
        UserError: numbers are not finite; names the tensor. Nothing is written then.
    """
    folder = Path(folder)
    tensors, facts = tensors_of(generator, unused), as_facts(card)
    draws, numbers = isinstance(generator, Generator), sum(t.numel() for t in tensors.values())
    with replacing_files(folder) as made:
        save_file(tensors, made / TENSORS, metadata=facts)
        (made / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
        (made / CARD).write_text(model_card(folder.name, facts, numbers, draws))


def save_part(
    folder: Path, name: str, network: nn.Module, config: dict[str, Any], unused: dict[str, Tensor], **card: Any
) -> None:
    """Write another network into a bundle, ``<name>.safetensors``, and how it is built where the model is another."""
    with replacing_files(folder) as made:
        save_file(tensors_of(network, unused), made / f"{name}.safetensors", metadata=as_facts(card))
        if config != yaml.safe_load((folder / CONFIG).read_text()):
            (made / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def tensors_of(network: nn.Module, unused: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """What a bundle keeps of a network, which is not changed.

    Raises:
        UserError: numbers are not finite.
    """
    network = deepcopy(network).eval()
    if isinstance(network, Generator):
        network.prepare()
    for name, tensor in network.state_dict().items():
        if not tensor.isfinite().all():
            raise UserError(f"The weights '{name}' are not all finite numbers, so nothing can be rendered with them.")
    state = network.state_dict() | (unused or {})
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}


def as_facts(card: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in card.items() if value is not None}


def model_card(name: str, facts: dict[str, str], numbers: int, draws: bool = True) -> str:
    """The README.md of a bundle; a generator's has commands to use it."""
    rows = [f"| {key.replace('_', ' ')} | {value} |" for key, value in facts.items()]
    table = "\n".join(["| | |", "|---|---|", f"| numbers | {numbers:,} |", *rows])
    licence = f"license: {LICENCES.get(facts['license'], 'other')}\n" if "license" in facts else ""
    head = f"---\nlibrary_name: gan3d-zoo\n{licence}tags: [3d-aware-gan]\n---\n\n# {name}\n\n{table}\n"
    if not draws:
        return head
    return (
        f"{head}\n```\nzoo sample {name} --out grid.png\nzoo orbit {name} --out orbit.gif\n```\n\n"
        "Inside this folder, replace the name by the path of the folder.\n"
    )


def load_bundle(source: Path | str, resolution: int | None = None) -> tuple[Generator, BundleInfo]:
    """The generator of a bundle or checkpoint, in evaluation mode on the CPU.

    Args:
        source: name of a bundle that comes with the package or was downloaded, folder of a bundle, or a ``.ckpt`` of a
            run.
        resolution: side of the images that will be rendered [pixels], refused before weights are read.

    Raises:
        UserError: there is none (near matches are named), its tensors don't fit its config (the first ones are named),
            it was downloaded and has changed since, it is of another network than a generator, or the generator has no
            images of that side.
    """
    return load_network(source, Generator, resolution)


def load_network(source: Path | str, kind: type[M], resolution: int | None = None) -> tuple[M, BundleInfo]:
    """As ``load_bundle``, for a network of any kind: bundles of discriminators exist, too."""
    path = find(source)
    run = read_run(path) if path.is_file() else None
    config = run[0] if run else folder_config(path)
    planned = plan(config, kind, allowed_only=True)
    if isinstance(planned, Generator):
        planned.image_side(resolution)
    tensors, card, file = run[1:] if run else read_folder(path)
    tensors = renamed_tensors(tensors, planned)
    check_fit(planned, tensors, path)
    network = build(config, kind, allowed_only=True)
    network.load_state_dict(tensors)
    sha256 = sha256_of(file)
    check_unchanged(path, sha256)
    name = path.stem if path.is_file() else path.resolve().name
    return network.eval(), BundleInfo(name, path, sha256, config, card)


def load(source: Path | str, device: torch.device | str = "cpu", resolution: int | None = None) -> Generator:
    """The generator of a bundle or checkpoint, in evaluation mode; see ``load_bundle``."""
    return load_bundle(source, resolution)[0].to(device)


def read_folder(folder: Path) -> tuple[dict[str, Tensor], dict[str, str], Path]:
    """Tensors, card and tensor file of a bundle."""
    tensors, card = read_tensors(folder / TENSORS)
    used = {name: tensor for name, tensor in tensors.items() if not name.startswith(UNUSED)}
    return used, card, folder / TENSORS


def folder_config(folder: Path) -> dict[str, Any]:
    """How the generator of a bundle is built."""
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} has no {CONFIG}, so it is not known which generator its weights belong to.")
    return read_config(folder / CONFIG)


def read_parts(folder: Path) -> dict[str, Part]:
    """Everything in a bundle, by name, ``unused.`` tensors included.

    The model itself goes by the name that its card gives it, such as "ema".
    """
    model = read_config(folder / CONFIG)
    parts = {}
    for file in sorted(folder.glob("*.safetensors"), key=lambda file: file.name != TENSORS):
        tensors, card = read_tensors(file)
        config = file.with_suffix(".yaml")
        name = card.get("weights", "ema") if file.name == TENSORS else file.stem
        planned = plan(read_config(config) if config.is_file() else model, nn.Module, allowed_only=True)
        parts[name] = (planned, renamed_tensors(tensors, planned), card)
    return parts


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and card in a file."""
    open(file, "rb").close()  # the library says of every file that it cannot open that there is none
    try:
        with safe_open(file, "pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{file} is damaged or not a safetensors file: {error}.") from None


def read_config(file: Path) -> dict[str, Any]:
    """``class_path`` and ``init_args`` in a file.

    Raises:
        UserError: it is something else, or impossibly large.
    """
    config = read_yaml(file)
    if not isinstance(config, dict) or not isinstance(config.get("class_path"), str):
        raise UserError(f"{file} does not say how a network is built: it has no class_path.")
    return config


def read_run(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, str], Path]:
    """Config and tensors of the generator to sample from, in a checkpoint of a run: the first EMA, if any."""
    checkpoint = read_checkpoint(path)
    config = checkpoint.get("config")
    if not config:
        raise UserError(f"{path} does not say how its model is built; only checkpoints that 'zoo fit' wrote do.")
    generator, emas = config["init_args"].get("generator"), list(config["init_args"].get("emas") or {})
    if not isinstance(generator, dict):
        raise UserError(f"{path} does not say how its generator is built: it has no class_path.")
    tensors = networks_in(checkpoint["state_dict"]).get(f"emas.{emas[0]}" if emas else "generator", {})
    card = {"system": config["class_path"].rsplit(".", 1)[-1]}
    card |= {name: str(value) for name, value in (checkpoint["clocks"] | step_seconds(checkpoint)).items()}
    return generator, tensors, card, path


def step_seconds(checkpoint: dict[str, Any]) -> dict[str, float]:
    """What training steps alone have taken, in a checkpoint of a run with a ``callbacks.budget.StepClock``."""
    callbacks = checkpoint.get("callbacks")
    states = callbacks.values() if isinstance(callbacks, dict) else ()
    found = next((state for state in states if isinstance(state, dict) and "processor_seconds" in state), {})
    seconds = {name: found.get(name) for name in ("processor_seconds", "wall_seconds")}
    return {name: round(value, 1) for name, value in seconds.items() if isinstance(value, float)}


def networks_in(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The networks of a run's checkpoint by name: ``generator``, ``discriminator``, ``emas.<name>``."""
    names = {".".join(key.split(".")[:2]) for key in state if key.startswith("emas.")}
    places = {"generator": "generator.", "discriminator": "discriminator."} | {n: f"{n}.module." for n in sorted(names)}
    return {
        name: {key.removeprefix(place): tensor for key, tensor in state.items() if key.startswith(place)}
        for name, place in places.items()
    }


def check_fit(module: nn.Module, tensors: dict[str, Tensor], source: Path | str) -> None:
    """Fail, naming the first ones, where tensors of a module's state are missing, left over or of another shape."""
    if problems := mismatches(module.state_dict(), tensors):
        raise UserError(f"The weights of {printable(source, 100)} do not fit its config: {shortened(problems)}.")


IN_PLACE = ("normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_", "div_", "exp2_")


class NotFilled(TorchFunctionMode):
    """Inside, tensors are neither filled with random numbers nor scaled in place: on the meta device they have no
    numbers, and torch would import its compiler for that, which takes seconds."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function.__name__ in IN_PLACE:  # of a tensor, or of torch.nn.init
            return args[0] if args else kwargs["tensor"]
        return (torch.empty if function in (torch.rand, torch.randn) else function)(*args, **kwargs)


def plan(config: dict[str, Any], base: type[T], *, allowed_only: bool = False) -> T:
    """As ``build``, on the meta device: a config of impossible sizes fails before memory is allocated."""
    with torch.device("meta"), NotFilled():
        return build(config, base, allowed_only=allowed_only)


class Parser(ParsedOnce, ArgumentParser):
    """Of configs that hold one object."""


def build(config: dict[str, Any], base: type[T], *, allowed_only: bool = False) -> T:
    """The object that ``class_path`` and ``init_args`` describe.

    Args:
        config: plain values, as read from yaml.
        base: what it must be an instance of.
        allowed_only: refuse classes outside ``ALLOWED`` and $ZOO_TRUST: for configs that came with weights.

    Raises:
        UserError: the config is wrong; says where.
    """
    refuse_imports_that_do_harm()
    parser = Parser(exit_on_error=False)
    parser.add_subclass_arguments(base, "config", required=True)
    try:
        with allowed_imports(ALLOWED + trusted()) if allowed_only else nullcontext():
            return parser.instantiate(parser.parse_object({"config": config})).config
    except ArgumentError as error:
        raise UserError(explain(str(error), error, parser)) from None
