"""Numbers in buffers that the host decides by, such as how far networks have grown.

To read one, the host waits for all that the device has to do; so it remembers what it filled in or has read, until
something else changes the buffer.
"""

from ctypes import c_float

import torch
from torch import Tensor


def fill(buffer: Tensor, value: float) -> None:
    """Fill a buffer [] with a number."""
    buffer.fill_(value)
    if buffer.dtype in (torch.float32, torch.float64):
        remember(buffer, rounded(value, buffer.dtype))


def number(buffer: Tensor) -> float:
    """The number in a buffer []."""
    if torch.compiler.is_compiling() or buffer.is_inference():  # which know no versions
        return buffer.item()
    *state, value = vars(buffer).get("on_host", (None, None))
    if state != [id(buffer), buffer._version]:  # a copy has the attribute, too
        value = buffer.item()
        remember(buffer, value)
    return value


def rounded(value: float, dtype: torch.dtype) -> float:
    """A number as float32 or float64 holds it."""
    return c_float(value).value if dtype == torch.float32 else value


def remember(buffer: Tensor, value: float) -> None:
    if not buffer.is_inference():
        vars(buffer)["on_host"] = (id(buffer), buffer._version, value)
