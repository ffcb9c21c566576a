"""Small helpers of training steps: optimizers, learning rates, networks that are not trained."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.optim import Optimizer

OptimizerFactory = Callable[[Iterable], Optimizer]


def set_learning_rate(optimizer: Optimizer, learning_rate: float | None) -> None:
    """Give all of an optimizer this learning rate, or each group its ``share`` of it; None leaves them."""
    if learning_rate is not None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group.get("share", 1.0)


def share_learning_rates(optimizers: list[Optimizer], made: list[dict[str, Any]], share: float) -> None:
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
