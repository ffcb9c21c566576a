"""What a computation gives a device to do, and where it waits for it: counted on a CPU, which needs no such care."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from traceback import extract_stack
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

SIZES = {"nonzero", "masked_select", "unique_consecutive", "_unique2"}  # whose results are as long as values say
COPIES = {"tensor", "as_tensor", "from_numpy"}  # of numbers of the host
METHODS = {"tolist", "numpy", "new_tensor"}


class Operators(TorchDispatchMode):
    """Counts operators, and by file and line those that have to know values: ``waits``."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.waits, self.functions = 0, Counter[str](), Functions()
        self.functions.waits = self.waits

    def __enter__(self) -> "Operators":
        super().__enter__()
        self.functions.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self.functions.__exit__(*raised)
        super().__exit__(*raised)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        self.count += 1
        masked = name.startswith("index") and len(args) > 1 and isinstance(args[1], list | tuple)
        masked = masked and any(isinstance(x, Tensor) and x.dtype == torch.bool for x in args[1])
        lengths = name == "repeat_interleave" and kwargs is not None and kwargs.get("output_size") is None
        if name == "_local_scalar_dense" or name in SIZES or masked or lengths:
            self.waits[caller()] += 1
        return func(*args, **(kwargs or {}))


class Functions(TorchFunctionMode):
    """Counts what dispatches no operator, or one that does not tell: copies from the host, and of tensors to it."""

    waits: Counter[str]

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in METHODS or (name in COPIES and not (args and isinstance(args[0], Tensor))):
            self.waits[caller()] += 1
        return func(*args, **(kwargs or {}))


def caller() -> str:
    """File and line of the zoo that this comes from."""
    for frame in reversed(extract_stack()):
        if "/torch/optim/" in frame.filename:
            return "an optimizer, whose count of steps is on the host"
        if "/zoo/" in frame.filename:
            return f"{Path(frame.filename).parent.name}/{Path(frame.filename).name}: {frame.line}"
    return "elsewhere"
