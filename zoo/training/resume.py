"""Resuming from a checkpoint: what must agree with it, and what the user may change.

What the user typed wins over what a checkpoint holds. Each difference is logged; one that cannot work is refused.
"""

import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.training.checkpoint_states import check_loops, check_moments, check_optimizers, check_settings
from zoo.training.lightning_private import trainer_of
from zoo.training.optimizers import OptimizerFactory
from zoo.utils.errors import UserError, printable
from zoo.utils.old_names import renamed_tensors
from zoo.utils.states import check_state, damaged

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule

ANEW = "or start a new run from its weights with --init_from"
OF_THE_DEVICE = ("fused",)  # settings of optimizers that are this run's, whatever a checkpoint was made with
HARMLESS = ("data.num_workers", "data.predict_count")  # change nothing that is learned


def state(gan: "LightningModule") -> dict[str, Any]:
    """What a checkpoint holds of a GAN beside its tensors and optimizers, in plain values."""
    if gan.started is not None:
        gan.seconds = time.monotonic() - gan.started
    clocks = {"iterations": gan.iterations, "images_seen": gan.images_seen, "seconds": round(gan.seconds, 1)}
    return {
        "clocks": clocks,
        "config": gan.config,
        "data_config": gan.data_config,
        "processes": gan.trainer.world_size,
        "settings": gan.settings,
        "scalers": {name: scaler.state_dict() for name, scaler in gan.half.scalers.items()},
        "skipped": dict(gan.guard.skipped),
        "plan": gan.plan.state(gan.device),
    }


def load(gan: "LightningModule", checkpoint: dict[str, Any]) -> None:
    """Take over all of a checkpoint, whose tensors get the names of today, but these and the optimizers' states.

    Raises:
        UserError: this model, or this number of processes, cannot resume from it; the message names the differences.
    """
    check_form(gan, checkpoint)
    checkpoint["state_dict"] = renamed_tensors(checkpoint["state_dict"], gan)
    is_fit = is_training(gan)  # scores do not depend on processes
    if problems := mismatches(gan.state_dict(), checkpoint["state_dict"]):
        raise UserError(
            f"The checkpoint does not fit the model{another(system_of(checkpoint), gan)}: {shortened(problems)}. Give "
            f"the options of its run (in its config.yaml){', ' + ANEW if is_fit else ''}."
        )
    wrote, has = checkpoint.get("processes"), gan.trainer.world_size if is_fit else None
    if None not in (wrote, has) and wrote != has:
        raise UserError(
            f"The checkpoint was written by {count(wrote)}, and this run has {count(has)}: each draws its own "
            f"images, so it could not resume exactly. Give it as many again (--trainer.devices, --trainer.num_nodes), "
            f"{ANEW}."
        )
    done, wanted = checkpoint["clocks"]["iterations"], gan.trainer.max_steps if is_fit else -1
    if 0 <= wanted < done:
        raise UserError(
            f"--trainer.max_steps is {wanted}, but {done} iterations are done in the checkpoint: give more than {done}."
        )
    log(gan, [f"all {done} iterations of --trainer.max_steps are done"] if wanted == done else [])
    log(gan, config_changes(checkpoint.get("config"), gan.config, "model"))
    log(gan, config_changes(checkpoint.get("data_config"), gan.data_config, "data"))
    clocks = checkpoint["clocks"]
    gan.iterations, gan.images_seen = clocks["iterations"], clocks["images_seen"]
    gan.seconds, gan.guard.skipped = clocks.get("seconds", 0.0), dict(checkpoint.get("skipped", {}))
    gan.resumed = {name: checkpoint[name] for name in ("settings", "scalers", "config", "plan") if name in checkpoint}
    gan.resumed["tensors"] = list(checkpoint["state_dict"])


def is_training(gan: "LightningModule") -> bool:
    """Whether a trainer trains it, rather than scores it or has it draw."""
    return (trainer := trainer_of(gan)) is not None and trainer.state.fn == "fit"


def system_of(checkpoint: dict[str, Any]) -> str | None:
    """The class of the model that has left a checkpoint, without its module."""
    return str((checkpoint.get("config") or {}).get("class_path", "")).rpartition(".")[2] or None


def another(system: str | None, gan: nn.Module) -> str:
    """Words for weights of another system than the model is; none where it is the same, or not known."""
    ours = type(gan).__name__
    return "" if system in (None, ours) else f", which is {ours} and not {system}"


def check_form(gan: "LightningModule", checkpoint: dict[str, Any]) -> None:
    """Refuse a checkpoint that no run has left.

    Raises:
        UserError: names what is wrong.
    """
    like = {"processes": int | None, "settings": list, "scalers": dict, "skipped": dict, "plan": dict}
    check_state(checkpoint, {name: like[name] for name in like if name in checkpoint}, "what it holds")
    check_state(checkpoint.get("processes") or 0, 0, "processes")
    check_state(checkpoint.get("skipped", {}), dict.fromkeys(checkpoint.get("skipped", {}), 0), "skipped")
    if checkpoint.get("settings"):
        check_state(checkpoint["settings"], [{"class": str, "groups": list}] * 2, "settings")
    if any(not isinstance(group, dict) for settings in checkpoint.get("settings", []) for group in settings["groups"]):
        raise damaged("settings.groups holds what is none")
    if is_training(gan):
        check_loops(checkpoint.get("loops"), gan.trainer.fit_loop.state_dict())
        check_optimizers(checkpoint.get("optimizer_states"))


def start(gan: "LightningModule") -> None:
    """Once the optimizers are made and before their states are restored.

    Raises:
        UserError: the states belong to other optimizers; the message names them.
    """
    log(gan, gan.plan.restore(gan.resumed.get("plan", {}), gan.device))
    optimizers = gan.optimizers(use_pl_optimizer=False)
    gan.settings, before = settings(optimizers), gan.resumed.get("settings", [])
    for old, new, name in zip(before, gan.settings, ("optimizer_g", "optimizer_d"), strict=bool(before)):
        if old["class"] != new["class"] or len(old["groups"]) != len(new["groups"]):
            raise UserError(
                f"The checkpoint holds the state of {old['class']} for {name}, which {new['class']} cannot "
                f"resume from. Keep {old['class']}, {ANEW}."
            )
    for optimizer, make in zip(optimizers, (gan.make_optimizer_g, gan.make_optimizer_d), strict=True):
        if gan.resumed:
            hook = partial(by_name, order=gan.resumed["tensors"], model=gan, make=make)
            optimizer.register_load_state_dict_pre_hook(hook)


def finish(gan: "LightningModule") -> None:
    """Once the optimizers' states are restored."""
    if gan.resumed.get("settings"):
        changes = apply_changes(gan.resumed["settings"], gan.settings, gan.optimizers(use_pl_optimizer=False))
        log(gan, changes if not (gan.config and gan.resumed["config"]) else [])  # logged with the config's
    gan.resumed, gan.started = {}, time.monotonic() - gan.seconds


def log(gan: "LightningModule", changes: list[str]) -> None:
    """Print what differs from when the checkpoint was written, on the first process only."""
    title = "resume" if is_training(gan) else "checkpoint"
    for line in changes if gan.global_rank == 0 else []:
        print(f"{title}: {line}", file=sys.stderr)


def flat(config: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Dotted names, as they are typed, and values of a config of plain values."""
    if not isinstance(config, dict) or not config:
        yield name, config
        return
    for key, value in config.items():
        if key != "init_args":
            yield from flat(value, f"{name}.{key}")
        elif value:
            yield from flat(value, name)


def config_changes(before: dict[str, Any] | None, now: dict[str, Any] | None, name: str) -> list[str]:
    """``name: before -> now`` for each value that differs; nothing where one of the configs is unknown."""
    if not before or not now:
        return []
    old, new = dict(flat(before, name)), dict(flat(now, name))
    names = [key for key in old | new if old.get(key) != new.get(key) and key not in HARMLESS]
    return [f"{key}: {old.get(key, 'unset')} -> {new.get(key, 'unset')}" for key in names]


def mismatches(own: dict[str, Any], others: dict[str, Any]) -> list[str]:
    """Each tensor that is missing, left over or of another shape in a state; ``own`` is what it must be.

    Where it has no rows, it may have any number of them, as the cameras of a data set.
    """
    problems = [f"{name} is missing" for name in own if name not in others]
    problems += [f"{name} is unexpected" for name in others if name not in own]
    shapes = [(name, shape(others[name]), shape(own[name])) for name in own if name in others]
    return problems + [
        f"{name} is {theirs} instead of {ours}" for name, theirs, ours in shapes if not fits(theirs, ours)
    ]


def fits(theirs: list[int] | None, ours: list[int] | None) -> bool:
    """Whether a tensor of their shape can take the place of one of ours."""
    return theirs == ours or bool(theirs and ours and ours[0] == 0 and theirs[1:] == ours[1:])


def shape(value: Any) -> list[int] | str:
    """Of a tensor; what else it is."""
    return list(value.shape) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def shortened(problems: list[str], longest: int = 150) -> str:
    """The first three, or as many as fit into so many characters, and how many more there are."""
    shown = [printable(problems[0], longest - 15)]
    for problem in problems[1:3]:
        if len("; ".join([*shown, problem])) <= longest - 15:
            shown.append(problem)
    more = len(problems) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def count(processes: int) -> str:
    return f"{processes} process" if processes == 1 else f"{processes} processes"


def settings(optimizers: list[Optimizer]) -> list[dict[str, Any]]:
    """Class of each optimizer and settings of its parameter groups, in plain values."""

    def plain(group: dict[str, Any]) -> dict[str, Any]:
        return {n: value for n, value in group.items() if not n.startswith("param") and n not in OF_THE_DEVICE}

    return [{"class": type(o).__name__, "groups": [plain(group) for group in o.param_groups]} for o in optimizers]


def by_name(
    optimizer: Optimizer, saved: dict[str, Any], order: list[str], model: nn.Module, make: OptimizerFactory
) -> dict[str, Any]:
    """An optimizer's saved state in which parameters stand where they do now; a hook before such a state is loaded.

    Args:
        order: names of the model's saved tensors, in which its parameters stood where the state does not name them.
        model: that both are of.
        make: makes such an optimizer.

    Raises:
        UserError: the state cannot be of these parameters.
    """
    known, places = {id(p): name for name, p in model.named_parameters()}, {}
    names = [[known[id(p)] for p in group["params"]] for group in optimizer.param_groups]
    if len(saved["param_groups"]) != len(names):
        raise damaged(f"an optimizer has {len(saved['param_groups'])} groups of parameters instead of {len(names)}")
    for own, group, now in zip(names, saved["param_groups"], optimizer.param_groups, strict=True):
        check_settings(group, now)
        then = renamed_tensors(dict.fromkeys(group.get("param_names", ())), model)
        places |= zip(then or [name for name in order if name in own], group["params"], strict=False)
    if missing := next((name for own in names for name in own if name not in places), None):
        raise damaged(f"the optimizer's state does not know {missing}")
    moved = [{"params": [places[name] for name in own], "param_names": own} for own in names]
    for group, now in zip(moved, optimizer.param_groups, strict=True):
        group |= {name: now[name] for name in OF_THE_DEVICE if name in now}
    check_moments(
        saved["state"], [(places[name], name, model.get_parameter(name)) for own in names for name in own], make
    )
    groups = zip(optimizer.param_groups, saved["param_groups"], moved, strict=True)
    return saved | {"param_groups": [now | old | new for now, old, new in groups]}


def apply_changes(before: list[dict[str, Any]], now: list[dict[str, Any]], optimizers: list[Optimizer]) -> list[str]:
    """Give optimizers, restored from a checkpoint, the settings that differ between the starts of its run and this one.

    All others stay as they were restored: a schedule may have moved them.

    Returns:
        ``name: before -> now`` for each change.
    """
    lines = []
    for old, new, optimizer, name in zip(before, now, optimizers, ("optimizer_g", "optimizer_d"), strict=True):
        for was, wanted, group in zip(old["groups"], new["groups"], optimizer.param_groups, strict=True):
            for key in wanted:
                if key in was and was[key] != wanted[key]:
                    group[key] = wanted[key]
                    lines.append(f"{name}.{key}: {was[key]} -> {wanted[key]}")
    return lines
