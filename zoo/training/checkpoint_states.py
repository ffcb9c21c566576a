"""What a checkpoint holds of a trainer's loops and optimizers, looked at before it is restored."""

from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.utils.ranges import numbers_in
from zoo.utils.states import check_state, damaged, is_number, shown

SIDES = (2, 3, 5, 7, 11)  # of a parameter with so many axes, each of which can be told from the others


def check_loops(state: Any, own: dict[str, Any]) -> None:
    """Refuse progress of the trainer's loops that is none; what another version of Lightning does not note may miss.

    Args:
        state: under ``loops`` in a checkpoint.
        own: of this trainer's fit loop.

    Raises:
        UserError: names what is wrong.
    """
    check_state(state, {"fit_loop": dict}, "loops")
    for name in own.keys() & state["fit_loop"].keys():
        value, like = state["fit_loop"][name], own[name]
        if name.endswith("state_dict") and isinstance(value, dict):
            like = {key: like[key] for key in like if key in value}
        check_state(value, like, name)


def check_optimizers(states: Any) -> None:
    """Refuse states of optimizers that have not the form of any; ``check_moments`` looks at their values.

    Raises:
        UserError: names what is wrong.
    """
    check_state(states, [dict, dict], "optimizer_states")
    for state in states:
        check_state(state, {"state": dict, "param_groups": list}, "optimizer_states")
        for group in state["param_groups"]:
            check_state(group, {"params": list}, "param_groups")
            if not all(type(place) is int for place in group["params"]):
                raise damaged("param_groups.params holds other values than counts")
            names = group.get("param_names", group["params"])
            is_named = isinstance(names, list) and all(isinstance(name, int | str) for name in names)
            if not is_named or len({*names}) != len(group["params"]):
                raise damaged("param_groups.param_names are not those of its params")


def check_settings(group: dict[str, Any], own: dict[str, Any]) -> None:
    """Refuse settings of a group of parameters, such as ``lr``, that are of another kind than those of this run.

    Raises:
        UserError: names the setting.
    """
    for name, like in own.items():
        value = group.get(name, like)
        if name.startswith("param") or like is None or (value is None and isinstance(like, bool)):
            continue
        numbers, wanted = ([*numbers_in(of)] for of in (value, like))
        of_numbers = all(is_number(number) for number in wanted)
        is_like = all(is_number(number) for number in numbers) and len(numbers) == len(wanted)
        if not (is_like if of_numbers else isinstance(value, type(like))):
            raise damaged(f"the optimizer's {name} is {shown(value)} instead of {'a number' if of_numbers else like}")


def check_moments(
    states: dict[Any, Any], parameters: Iterable[tuple[Any, str, Tensor]], make: Callable[[Iterable], Optimizer]
) -> None:
    """Refuse what an optimizer kept of each parameter where that cannot be of the parameter.

    What it should be like is seen at an optimizer of small parameters, after one step.

    Args:
        states: by place.
        parameters: place, name and value of each.
        make: makes the optimizer.

    Raises:
        UserError: names the parameter.
    """
    samples: dict[int, dict[str, Any]] = {}
    for place, name, parameter in parameters:
        kept = states.get(place) or {}
        if parameter.dim() not in samples:
            samples[parameter.dim()] = sample_state(make, parameter.dim())
        if not isinstance(kept, dict):
            raise damaged(f"the optimizer's state of {name} is {shown(kept)}")
        kept = {key: value for key, value in kept.items() if value is not None}
        for key, like in samples[parameter.dim()].items() if kept else ():  # one without gradients has none
            if key not in kept:
                raise damaged(f"the optimizer's state of {name} has no '{key}'")
            if problem := moment_problem(kept[key], like, parameter):
                raise damaged(f"the optimizer's '{key}' of {name} is {problem}")
            if key == "step" and not 0 <= float(kept[key]) < 2**62:
                raise damaged(f"the optimizer's 'step' of {name} is {shown(kept[key])}")


def sample_state(make: Callable[[Iterable], Optimizer], axes: int) -> dict[str, Any]:
    """What an optimizer keeps of a parameter of so many axes with the first of ``SIDES``."""
    if axes > len(SIDES):
        return {}
    parameter = nn.Parameter(torch.zeros(SIDES[:axes], device="cpu"))
    parameter.grad = torch.zeros_like(parameter)
    try:
        optimizer = make([("weight", parameter)])
        optimizer.step()
    except (RuntimeError, AssertionError):  # one that steps on GPUs alone
        return {}
    return {key: value for key, value in optimizer.state[parameter].items() if value is not None}


def moment_problem(value: Any, like: Any, parameter: Tensor) -> str:
    """Why a value cannot be what an optimizer keeps of a parameter, where it keeps ``like`` of the small one."""
    if not isinstance(like, Tensor) or like.dim() == 0:
        return "" if not isinstance(like, Tensor | Real) or is_number(value) else f"{shown(value)}, no number"
    its, whole = SIDES[: parameter.dim()], list(parameter.shape)
    sides = {1: [1] * len(whole), **dict.fromkeys(its, whole)}
    if like.dim() != len(whole) or any(side not in (1, own) for side, own in zip(like.shape, its, strict=True)):
        return ""  # such as a matrix of its own for each axis
    wanted = [sides[side][axis] for axis, side in enumerate(like.shape)]
    if not isinstance(value, Tensor) or list(value.shape) != wanted:
        return f"{shown(value)} instead of {wanted}"
    return ""
