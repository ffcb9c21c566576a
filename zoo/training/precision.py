"""Networks that compute in 16 bits: which, when, and what keeps their small gradients from becoming zero.

Rendering, SIRENs and regularisers always compute in float32: in 16 bits a sine of a large phase is noise, and a
regulariser differentiates twice. Two-dimensional networks and discriminators may compute in ``bf16`` (RTX 30, A100 and
later) or ``fp16`` (V100, RTX 20). Weights, averages, optimizers, and what a network returns are float32 in either case.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.layers.stylegan2 import widened

Precision = Literal["float32", "bf16", "fp16"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class HalfPrecision:
    """Makes networks compute in 16 bits while they are trained; in evaluation mode they compute in float32.

    Args:
        networks: their ``forward`` runs under autocast from now on, and returns float32.
        precision: ``bf16`` or ``fp16``.
    """

    def __init__(self, networks: Iterable[nn.Module], precision: Precision) -> None:
        self.dtype = DTYPES[precision]
        self.is_paused = False
        self.entered: list = []
        for network in networks:
            network.register_forward_pre_hook(self.enter)
            network.register_forward_hook(self.leave, always_call=True)

    def enter(self, network: nn.Module, inputs: Any) -> None:
        wanted = network.training and not self.is_paused
        device = next(network.parameters()).device.type
        self.entered.append(torch.autocast(device, self.dtype) if wanted else nullcontext())
        self.entered[-1].__enter__()

    def leave(self, network: nn.Module, inputs: Any, output: Any) -> Any:
        self.entered.pop().__exit__(None, None, None)
        return in_float32(output)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, all compute in float32."""
        before, self.is_paused = self.is_paused, True
        try:
            yield
        finally:
            self.is_paused = before


def in_float32(value: Any) -> Any:
    """The same tensors, alone or in (named) tuples, with 16-bit floats widened."""
    if isinstance(value, Tensor):
        return widened(value)
    if isinstance(value, tuple):
        parts = [in_float32(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value
