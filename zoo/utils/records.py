"""What the description in a pickle becomes: names and records that do nothing, plain values, tensors and arrays.

Whatever a file asks for is checked before there is memory for it: sizes, kinds of numbers, and how much one file may
take altogether. The functions that rebuild something take (reading, *arguments in the file).
"""

import math
import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAX_STEPS = 1_000_000  # opcodes and copied items of a file; those of published checkpoints have some 100,000
MAX_DEPTH, MAX_VALUES = 100, 500_000  # of plain values in a checkpoint of a run
MAX_OVERLAP = 2**24  # numbers of a tensor that shows the same memory several times


@dataclass(frozen=True)
class Name:
    """A class or function that the file named; ours is not touched, whether there is one or not."""

    name: str


@dataclass(eq=False)
class Record:
    """An object that the file described, noted down and not made.

    name: of the class or function that should have made it, such as ``siren.siren.FiLMLayer``.
    args, kwargs: what it should have been given.
    state: what its ``__setstate__`` should have been given, for most objects the attributes.
    items, entries: what should have been appended to it, and set in it by key.
    """

    name: str
    args: tuple = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    state: Any = None
    items: list = field(default_factory=list)
    entries: dict = field(default_factory=dict)

    def __repr__(self) -> str:  # the contents may be deep, wide and circular
        return f"Record({self.name})"


class Reading:
    """What reading one file has met so far, and how much it may still take.

    Args:
        size: of the file [bytes].
    """

    def __init__(self, size: int) -> None:
        self.names: set[str] = set()
        self.tools: set[str] = set()  # those that no checkpoint needs
        self.steps, self.bytes, self.nested = MAX_STEPS, 2 * size, False  # twice: as bytes and as numbers

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise ValueError(f"it takes more than {MAX_STEPS:,} steps to read")

    def take(self, size: int) -> None:
        """Note that numbers of so many bytes are made."""
        self.bytes -= size
        if self.bytes < 0:
            raise ValueError("it says that it holds more numbers than fit into its size")


@dataclass(frozen=True, eq=False)
class Storage:
    """Memory that tensors show: values [N]."""

    values: Tensor


ATOMS = (
    str,
    bytes,
    int,
    float,
    bool,
    type(None),
    torch.dtype,
    torch.device,
    Name,
    Record,
)  # what may be a key: their hash never runs deep


# Plain values


def check_size(value: Any) -> int:
    """The value, if it is a size."""
    if type(value) is not int or not 0 <= value < 2**48:
        raise ValueError(f"{value if type(value) is int else describe(value)} is not a size")
    return value


def describe(value: Any) -> str:
    """A short word for a value, whatever it is."""
    return repr(value.name) if isinstance(value, Name) else f"a {type(value).__name__}"


def check_key(value: Any) -> Any:
    """The value, if it may be a key."""
    flat = value if isinstance(value, tuple) else (value,)
    if len(flat) > 16 or not all(isinstance(part, (*ATOMS, np.generic)) for part in flat):
        raise ValueError(f"a {type(value).__name__} is no key")
    return value


def pairs_to_dict(values: list) -> dict:
    """[key, value, key, value, ...] as a dict."""
    return {check_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)}


def to_frozenset(values: list) -> frozenset:
    return frozenset(check_key(value) for value in values)


def spend_items(reading: Reading, values: Any) -> Any:
    """Values that are about to be copied."""
    if not isinstance(values, (list, tuple, set, frozenset)):
        raise ValueError(f"it makes a container of a {type(values).__name__}")
    reading.spend(len(values))
    return values


def ordered_dict(reading: Reading, pairs: Iterable = ()) -> OrderedDict:
    result: OrderedDict = OrderedDict()
    for key, value in spend_items(reading, pairs):
        result[check_key(key)] = value
    return result


def dictionary(reading: Reading, *ignored: Any) -> dict:
    """Of a class derived from dict, whose entries follow."""
    result: dict = {}
    for entries in ignored:
        if isinstance(entries, dict):
            reading.spend(len(entries))
            result.update(entries)
    return result


def encode_bytes(reading: Reading, text: str = "", encoding: str = "latin1") -> bytes:
    """Bytes as older protocols write them: as text."""
    if encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise ValueError("it has text of an unknown encoding")
    reading.take(len(text))
    return text.encode(encoding)


def make_bytearray(reading: Reading, data: bytes | str = b"", encoding: str = "latin1") -> bytearray:
    reading.take(len(data))
    return bytearray(data_bytes(data))


def data_bytes(data: Any) -> bytes:
    """Bytes, which Python 2 wrote as text."""
    if isinstance(data, str):
        return data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)):
        raise ValueError(f"a {type(data).__name__} holds no numbers")
    return bytes(data)


# Tensors

STORAGES = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
        "storage.Untyped": torch.uint8,
    }.items()
}
KINDS = [*STORAGES.values(), torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2]
DTYPES = {str(dtype): dtype for dtype in KINDS}


def as_numbers(data: bytearray, dtype: torch.dtype) -> Tensor:
    """Bytes as a tensor [N] that owns them."""
    return torch.frombuffer(data, dtype=dtype) if data else torch.zeros(0, dtype=dtype)


def check_plain(value: Any) -> None:
    """Fail where a value holds more than tensors and plain values, or so many or so deep that copying it would not end.

    Raises:
        ValueError: it does.
    """
    waiting, seen = [(value, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        seen += 1
        if isinstance(value, (Name, Record)):
            raise ValueError(f"it holds {value.name}, and a checkpoint of a run tensors and plain values alone")
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        if isinstance(inner, (list, tuple, set, frozenset)):
            waiting += [(part, depth + 1) for part in inner]
        if depth > MAX_DEPTH or seen + len(waiting) > MAX_VALUES:  # values that occur several times count each time
            raise ValueError("its values lie too deep in others, or are too many")


def storage_identity(identity: Any) -> tuple[torch.dtype, str, int, tuple | None]:
    """Kind of numbers, key, count, and part of a larger storage (or None), of a storage's id in a pickle."""
    if not isinstance(identity, tuple) or not 5 <= len(identity) <= 6 or identity[0] != "storage":
        raise ValueError("it refers to something outside itself that is not a storage")
    _, kind, key, _, count, *view = identity
    if not isinstance(kind, Name) or kind.name not in STORAGES or not isinstance(key, str):
        raise ValueError(f"it stores numbers as {describe(kind)}, a kind which is not known")
    return STORAGES[kind.name], key, check_size(count), view[0] if view else None


def view_storage(storage: Storage, view: tuple | None) -> Storage:
    """Part of a storage: key of the part, first number and count."""
    if view is None:
        return storage
    _, start, count = view
    if check_size(start) + check_size(count) > len(storage.values):
        raise ValueError("part of a storage lies outside of it")
    return Storage(storage.values[start : start + count])


def tensor(
    reading: Reading, storage: Any, offset: int, size: tuple, stride: tuple, *requires_grad_hooks_metadata: Any
) -> Tensor:
    """A tensor that shows part of a storage."""
    if not isinstance(storage, Storage) or len(size) != len(stride) or len(size) > 32:
        raise ValueError("it describes a tensor that is none")
    count = math.prod(check_size(length) for length in size)
    last = check_size(offset) + sum((length - 1) * check_size(step) for length, step in zip(size, stride, strict=True))
    if not count:
        return torch.zeros(size, dtype=storage.values.dtype)
    if last >= len(storage.values):
        raise ValueError(f"a tensor needs {last + 1:,} numbers of a storage with {len(storage.values):,}")
    if count > max(len(storage.values), MAX_OVERLAP):
        raise ValueError(f"a tensor shows {len(storage.values):,} numbers {count:,} times")
    return storage.values.as_strided(tuple(size), tuple(stride), offset)


def typed_tensor(
    reading: Reading, storage: Any, offset: int, size: tuple, stride: tuple, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Tensor:
    """A tensor of a kind that has no storage of its own: the storage is of bytes."""
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        raise ValueError(f"it has a tensor of {describe(dtype)}, a kind which is not known")
    return tensor(reading, Storage(storage.values.view(dtype)), offset, size, stride)


def parameter(reading: Reading, data: Any, *requires_grad_hooks_state: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise ValueError("a parameter is not a tensor")
    return data


def device(reading: Reading, kind: Any, index: Any = None) -> torch.device:
    if not isinstance(kind, str):
        raise ValueError(f"a device is called {describe(kind)}")
    return torch.device(kind) if index is None else torch.device(kind, check_size(index))


# Arrays and numbers of numpy


def number_kind(reading: Reading, code: Any, *align_copy: Any) -> np.dtype:
    """A kind of numpy numbers; objects, records and text are refused."""
    code = code if isinstance(code, str) else ""
    if not re.fullmatch(r"[<|=]?(b1|[iu][1248]|f[248]|c8|c16)", code):
        raise ValueError(f"it has numpy values of the kind {code[:20]!r}" if code else "it has unknown numpy values")
    return np.dtype(code)


def number(reading: Reading, kind: Any, data: Any) -> np.generic:
    if not isinstance(kind, np.dtype) or len(data) != kind.itemsize:
        raise ValueError("a number of numpy has another size than its kind")
    return np.frombuffer(data_bytes(data), kind)[0]


def empty_array(reading: Reading, *kind_shape_code: Any) -> np.ndarray:
    """An array that ``build_array`` fills."""
    return np.empty(0, np.int8)


def build_array(
    reading: Reading, target: np.ndarray, version: Any, shape: tuple, kind: Any, fortran: Any, data: Any
) -> None:
    count = math.prod(check_size(length) for length in shape)
    data = data_bytes(data)
    reading.take(len(data))
    if not isinstance(kind, np.dtype) or len(data) != count * kind.itemsize:
        raise ValueError("an array of numpy has another size than its numbers")
    target.__setstate__((1, tuple(shape), kind, bool(fortran), data))


def array_of_bytes(reading: Reading, data: Any, kind: Any, shape: tuple, order: str = "C") -> np.ndarray:
    result = empty_array(reading)
    build_array(reading, result, 1, shape, kind, order == "F", data)
    return result
