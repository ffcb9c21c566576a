"""Initialises training from weights, part by part; what does not fit is an error that names the first of it."""

import sys
from pathlib import Path

from torch import Tensor, nn

from zoo.training.checkpoint_files import read_checkpoint
from zoo.training.resume import another, mismatches, shortened, system_of
from zoo.utils.errors import UserError, printable
from zoo.utils.old_names import renamed_tensors
from zoo.weights.bundle import networks_in, read_folder
from zoo.weights.find import find


def start_from(gan: nn.Module, source: str | Path, fresh: list[str] | None = None, is_first: bool = True) -> None:
    """Give a model the weights of a bundle, or of a checkpoint of another run; clocks and optimizers start afresh.

    A bundle holds one generator: the trained one and all EMAs start from it, the discriminator as it is. A
    checkpoint holds both networks and EMAs: one that it does not have starts from its first one.

    Args:
        gan: changed in place.
        source: name or folder of a bundle, or a ``.ckpt``.
        fresh: names of parts, ``generator.mapping`` or ``discriminator.final``, that keep their initial values.
        is_first: whether this process reports what was loaded.

    Raises:
        UserError: there are no such weights or parts, or tensors don't fit; the first ones are named.
    """
    fresh = fresh or []
    keys = [f"{role}.{key}" for role in ("generator", "discriminator") for key in getattr(gan, role).state_dict()]
    if unknown := [part for part in fresh if not any(is_under(key, [part]) for key in keys)]:
        raise UserError(f"--init_fresh names parts that the model does not have: {', '.join(unknown)}.")
    path = find(source)
    if path.is_file():
        checkpoint = read_checkpoint(path)
        parts, system = networks_in(checkpoint["state_dict"]), system_of(checkpoint)
    else:
        tensors, card, _ = read_folder(path)
        parts, system = {"generator": tensors}, card.get("system")
    emas = [name for name in parts if name.startswith("emas.")]
    wanted = {"generator": (gan.generator, "generator")}
    for name, ema in gan.emas.items():
        default = emas[0] if emas else "generator"
        wanted[f"emas.{name}"] = (ema.module, f"emas.{name}" if f"emas.{name}" in parts else default)
    if "discriminator" in parts:
        wanted["discriminator"] = (gan.discriminator, "discriminator")

    problems, states, lines = [], [], []
    for name, (module, part) in wanted.items():
        role = "discriminator" if name == "discriminator" else "generator"  # an EMA has a generator's parts
        own, theirs = module.state_dict(), renamed_tensors(parts[part], module)
        new = {key for key in own.keys() | theirs.keys() if is_under(f"{role}.{key}", fresh)}
        unchanged = {key: own[key] for key in own if key in new or is_not_computed(own[key])}
        loaded = {key: tensor for key, tensor in theirs.items() if key not in unchanged and key not in new}
        needed = {key: tensor for key, tensor in own.items() if key not in unchanged}
        problems += [f"{name}.{problem}" for problem in mismatches(needed, loaded)]
        states.append((module, unchanged | loaded))
        lines.append(f"{name}: {len(loaded)} tensors of {part}" + (f", fresh: {', '.join(sorted(new))}" if new else ""))
    if problems:
        raise UserError(
            f"The weights of {printable(source, 60)} do not fit the model{another(system, gan)}: "
            f"{shortened(problems, 100)}. Give the options that they were trained with, or name parts that shall start "
            "afresh with --init_fresh."
        )
    for module, state in states:
        module.load_state_dict(state)
    used = {part for _, part in wanted.values()}
    lines += [f"{part} of the weights is not used" for part in parts if part not in used]
    lines += ["discriminator: fresh, the weights have none"] if "discriminator" not in parts else []
    for line in lines if is_first else []:
        print(f"init_from {source}: {line}", file=sys.stderr)


def is_under(key: str, parts: list[str]) -> bool:
    """Whether a tensor belongs to one of the parts."""
    return any(f"{key}.".startswith(f"{part}.") for part in parts)


def is_not_computed(tensor: Tensor) -> bool:
    """Whether it is computed only for finished weights, and NaN before: those of other weights would be wrong here."""
    return tensor.is_floating_point() and bool(tensor.isnan().all())
