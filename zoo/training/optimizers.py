"""Small helpers of training steps: optimizers, learning rates, networks that are not trained."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from zoo.utils.errors import UserError
from zoo.utils.ranges import between

OptimizerFactory = Callable[[Iterable], Optimizer]
FUSED_ON = ("cuda", "cpu")  # kinds of devices whose steps of all parameters are one kernel, where an optimizer has it


def check_optimizer(name: str, make: OptimizerFactory) -> None:
    """Make an optimizer for one number, so that what it refuses is said before anything long.

    Raises:
        UserError: it refuses its options, or asks for more than gradients.
    """
    try:
        optimizer = make([("weight", nn.Parameter(torch.zeros(1, device="cpu")))])
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{name} cannot be made: {' '.join(str(error).split()).rstrip('.')}.") from error
    options = {f"{key} of {name}": value for key, value in optimizer.defaults.items() if isinstance(value, float)}
    between(-1e30, 1e30, **options)  # what float32 can hold, also after a few divisions
    closure = signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise UserError(
            f"{name} is {type(optimizer).__name__}, which evaluates the loss itself: take one such as Adam."
        )


def use_fused(optimizer: Optimizer) -> None:
    """Let an optimizer step in one kernel where it can and the device gains by it, unless its options say how."""
    for group in optimizer.param_groups:
        is_free = "fused" in group and not group.get("differentiable")
        is_free = is_free and group["fused"] is group.get("foreach") is None
        if is_free and all(p.device.type in FUSED_ON and p.is_floating_point() for p in group["params"]):
            group["fused"] = True


def set_learning_rates(optimizers: Iterable[Optimizer], rates: Iterable[float | None]) -> None:
    """Give each optimizer its learning rate, or each of its groups the ``share`` of it; None leaves it."""
    for optimizer, rate in zip(optimizers, rates, strict=True):
        for group in optimizer.param_groups if rate is not None else ():
            group["lr"] = rate * group.get("share", 1.0)


def share_learning_rates(optimizers: Iterable[Optimizer], made: list[dict[str, Any]], share: float) -> None:
    """Give every group this share of the learning rate that it was made with, as in ``GAN.settings``."""
    for optimizer, settings in zip(optimizers, made, strict=True):
        for group, first in zip(optimizer.param_groups, settings["groups"], strict=True):
            group["lr"] = share * first["lr"]


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Gradients pass through the network but none are kept for its parameters."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
