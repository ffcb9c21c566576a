"""Constant tensors that are copied to a device once: each such copy waits for all that the device has to do."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def constant(values: Any, like: Tensor) -> Tensor:
    """These numbers, nested as in ``torch.tensor``, of the dtype and on the device of another tensor.

    It is the same tensor each time: not to be changed in place.
    """
    if torch.compiler.is_compiling():  # which makes them part of what it compiles
        return torch.tensor(values, dtype=like.dtype, device=like.device)
    return _made(_hashable(values), like.dtype, like.device)


@lru_cache(maxsize=1024)
def _made(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # else it could not be used where gradients are
        return torch.tensor(values, dtype=dtype, device=device)


def _hashable(values: Any) -> Any:
    return tuple(_hashable(value) for value in values) if isinstance(values, Sequence) else values


def forget() -> None:
    """Make them anew when they are needed."""
    _made.cache_clear()
