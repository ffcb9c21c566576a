"""Reads pickles without running, importing or calling anything that they name.

A pickle is a small program: loading it calls whatever it asks for. Here its opcodes are carried out by ``interpret``,
which knows plain values only. A class or function of the file becomes a ``Name``, its call a ``Record`` that notes the
arguments and state and does nothing. The few names in ``REBUILT`` are answered by functions of this module, which check
every size before they make a tensor, an array or a container. No opcode looks up an attribute of anything.

Numbers of torch lie outside the pickle: in the members of a zip (see ``zoo.weights.read``), or, in files from before
torch 1.6, behind it (``read_legacy``).
"""

import io
import math
import pickletools
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

MAX_STEPS = 2_000_000  # opcodes and copied items of a file; those of published checkpoints have some 100,000
MAX_OVERLAP = 2**24  # numbers of a tensor that shows the same memory several times


# What is read


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


Persistent = Callable[[Any], Any]  # what an object is that is stored outside the pickle, by its id there


# The pickle machine

VALUES = set(
    """INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
    BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT""".split()  # noqa: SIM905
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
ATOMS = (str, bytes, int, float, bool, type(None), Name, Record)  # what may be a key: their hash never runs deep


def interpret(file: BinaryIO, reading: Reading, persistent: Persistent | None = None) -> Any:
    """Carry out one pickle on plain values; the file is then just behind it.

    Raises:
        ValueError: it is damaged, or needs what no checkpoint needs.
    """
    try:
        return carry_out(file, reading, persistent or no_storage)
    except (IndexError, KeyError) as error:
        raise ValueError(f"its pickle takes what it never put ({error})") from None
    except (TypeError, RuntimeError) as error:  # of a function in REBUILT, given something else than it takes
        raise ValueError(f"its pickle asks for something that cannot be made: {error}") from None


def no_storage(identity: Any) -> Any:
    raise ValueError("it refers to something outside itself")


def carry_out(file: BinaryIO, reading: Reading, persistent: Persistent) -> Any:
    """See ``interpret``."""
    stack: list = []
    below: list[list] = []  # the stacks under each mark
    memo: dict[int, Any] = {}
    for opcode, argument, _ in pickletools.genops(file):
        reading.spend(1)
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(memo[argument])
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case name if name in VALUES:
                stack.append(argument)
            case name if name in CONSTANTS:
                stack.append(CONSTANTS[name])
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_SET":
                stack.append(set())
            case "MARK":
                below.append(stack)
                stack = []
            case "TUPLE" | "LIST" | "DICT" | "FROZENSET" as kind:
                made = {"TUPLE": tuple, "LIST": list, "DICT": paired, "FROZENSET": frozen}[kind](stack)
                stack = below.pop()
                stack.append(made)
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as kind:
                count = int(kind[-1])
                if len(stack) < count:
                    raise IndexError(kind)
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                value = stack.pop()
                append(stack[-1], [value])
            case "SETITEM":
                pair = stack[-2:]
                del stack[-2:]
                put(stack[-1], pair)
            case "APPENDS" | "SETITEMS" | "ADDITEMS" as kind:
                items, stack = stack, below.pop()
                {"APPENDS": append, "SETITEMS": put, "ADDITEMS": add}[kind](stack[-1], items)
            case "GLOBAL":
                stack.append(named(reading, *argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name = stack.pop()
                stack.append(named(reading, stack.pop(), name))
            case "REDUCE" | "NEWOBJ":
                args = stack.pop()
                stack.append(call(reading, stack.pop(), args))
            case "NEWOBJ_EX":
                kwargs, args = stack.pop(), stack.pop()
                stack.append(call(reading, stack.pop(), args, kwargs))
            case "INST":
                args, stack = tuple(stack), below.pop()
                stack.append(call(reading, named(reading, *argument.split(" ", 1)), args))
            case "OBJ":
                (kind, *args), stack = stack, below.pop()
                stack.append(call(reading, kind, tuple(args)))
            case "BUILD":
                state = stack.pop()
                build(reading, stack[-1], state)
            case "BINPERSID":
                stack.append(persistent(stack.pop()))
            case "POP" if stack:
                stack.pop()
            case "POP" | "POP_MARK":
                stack = below.pop()
            case "DUP":
                stack.append(stack[-1])
            case "STOP":
                return stack[-1]
            case name:  # PERSID, EXT1, NEXT_BUFFER, ...
                raise ValueError(f"its pickle uses {name}, which no checkpoint does")
    raise ValueError("its pickle has no end")


def named(reading: Reading, module: Any, name: Any) -> Name:
    """A class or function of the file."""
    if not all(isinstance(part, str) and len(part) < 500 and part.isprintable() for part in (module, name)):
        raise ValueError("it asks for a name that is none")
    reading.names.add(f"{module}.{name}")
    return Name(f"{MOVED.get(module, module)}.{name}")


def call(reading: Reading, function: Any, args: Any, kwargs: Any = None) -> Any:
    """The result of one of our own functions, or the record of a call."""
    if not isinstance(function, (Name, Record)) or not isinstance(args, tuple) or not isinstance(kwargs or {}, dict):
        raise ValueError("it calls something that is not a function")
    if isinstance(function, Name) and function.name in REBUILT and not kwargs:
        return REBUILT[function.name](reading, *args)
    return Record(function.name, args, kwargs or {})


def append(target: Any, values: list) -> None:
    if not isinstance(target, (list, Record)):
        raise ValueError(f"it appends to a {type(target).__name__}")
    (target if isinstance(target, list) else target.items).extend(values)


def put(target: Any, pairs: list) -> None:
    if not isinstance(target, (dict, Record)):
        raise ValueError(f"it sets entries of a {type(target).__name__}")
    (target if isinstance(target, dict) else target.entries).update(paired(pairs))


def add(target: Any, values: list) -> None:
    if not isinstance(target, set):
        raise ValueError(f"it adds to a {type(target).__name__}")
    target.update(hashable(value) for value in values)


def build(reading: Reading, target: Any, state: Any) -> None:
    """Give an object its state."""
    match target:
        case Record():
            target.state = state
        case OrderedDict():  # the note that torch makes on state dicts
            if isinstance(state, dict) and "_metadata" in state:
                target._metadata = state["_metadata"]
        case dict():  # a dict with attributes: they are its entries once more
            target.update(dictionary(reading, state))
        case np.ndarray():
            build_array(reading, target, *state)
        case np.dtype():
            if state[1] not in ("<", "|", "="):
                raise ValueError("it stores numbers with the highest byte first")
        case _:
            raise ValueError(f"it changes a {type(target).__name__}")


def paired(values: list) -> dict:
    """[key, value, key, value, ...] as a dict."""
    return {hashable(key): value for key, value in zip(values[::2], values[1::2], strict=True)}


def frozen(values: list) -> frozenset:
    return frozenset(hashable(value) for value in values)


def hashable(value: Any) -> Any:
    """The value, if it may be a key."""
    flat = value if isinstance(value, tuple) else (value,)
    if len(flat) > 16 or not all(isinstance(part, (*ATOMS, np.generic)) for part in flat):
        raise ValueError(f"a {type(value).__name__} is no key")
    return value


def whole(value: Any) -> int:
    """The value, if it is a size."""
    if type(value) is not int or not 0 <= value < 2**48:
        raise ValueError(f"{value if type(value) is int else shown(value)} is not a size")
    return value


def shown(value: Any) -> str:
    """A short word for a value, whatever it is."""
    return repr(value.name) if isinstance(value, Name) else f"a {type(value).__name__}"


# What is rebuilt, by our own functions: (reading, *arguments in the file)


def tensor(
    reading: Reading, storage: Any, offset: int, size: tuple, stride: tuple, *requires_grad_hooks_metadata: Any
) -> Tensor:
    """A tensor that shows part of a storage."""
    if not isinstance(storage, Storage) or len(size) != len(stride) or len(size) > 32:
        raise ValueError("it describes a tensor that is none")
    count = math.prod(whole(length) for length in size)
    last = whole(offset) + sum((length - 1) * whole(step) for length, step in zip(size, stride, strict=True))
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
    if not isinstance(storage, Storage) or not isinstance(dtype, Name) or dtype.name not in DTYPES:
        raise ValueError(f"it has a tensor of {shown(dtype)}, a kind which is not known")
    return tensor(reading, Storage(storage.values.view(DTYPES[dtype.name])), offset, size, stride)


def parameter(reading: Reading, data: Any, *requires_grad_hooks_state: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise ValueError("a parameter is not a tensor")
    return data


def subclass_tensor(reading: Reading, function: Any, kind: Any, args: Any, state: Any = None) -> Any:
    return call(reading, function, args)


def storage_in_bytes(reading: Reading, data: Any) -> Any:
    """A storage in a plain pickle: a whole file of torch's older format inside a string of bytes."""
    if reading.nested or not isinstance(data, bytes):
        raise ValueError("it has a file in a file in a file")
    reading.nested = True
    try:
        if data.startswith(b"PK"):
            raise ValueError("it has a zip file in a pickle")
        return read_legacy(io.BytesIO(data), reading)
    finally:
        reading.nested = False


def ordered(reading: Reading, pairs: Iterable = ()) -> OrderedDict:
    made: OrderedDict = OrderedDict()
    for key, value in counted(reading, pairs):
        made[hashable(key)] = value
    return made


def dictionary(reading: Reading, *ignored: Any) -> dict:
    """Of a class derived from dict, whose entries follow."""
    made: dict = {}
    for given in ignored:
        if isinstance(given, dict):
            reading.spend(len(given))
            made.update(given)
    return made


def counted(reading: Reading, values: Any) -> Any:
    """Values that are about to be copied."""
    if not isinstance(values, (list, tuple, set, frozenset)):
        raise ValueError(f"it makes a container of a {type(values).__name__}")
    reading.spend(len(values))
    return values


def encoded(reading: Reading, text: str = "", encoding: str = "latin1") -> bytes:
    """Bytes as older protocols write them: as text."""
    if encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise ValueError("it has text of an unknown encoding")
    reading.take(len(text))
    return text.encode(encoding)


def mutable_bytes(reading: Reading, data: bytes | str = b"", encoding: str = "latin1") -> bytearray:
    reading.take(len(data))
    return bytearray(data_bytes(data))


def data_bytes(data: Any) -> bytes:
    """Bytes, which Python 2 wrote as text."""
    if isinstance(data, str):
        return data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)):
        raise ValueError(f"a {type(data).__name__} holds no numbers")
    return bytes(data)


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
    count = math.prod(whole(length) for length in shape)
    data = data_bytes(data)
    reading.take(len(data))
    if not isinstance(kind, np.dtype) or len(data) != count * kind.itemsize:
        raise ValueError("an array of numpy has another size than its numbers")
    target.__setstate__((1, tuple(shape), kind, bool(fortran), data))


def array_of_bytes(reading: Reading, data: Any, kind: Any, shape: tuple, order: str = "C") -> np.ndarray:
    made = empty_array(reading)
    build_array(reading, made, 1, shape, kind, order == "F", data)
    return made


def instance(reading: Reading, kind: Any, base: Any = None, state: Any = None) -> Any:
    """An object as protocols 0 and 1 make it."""
    return call(reading, kind, ())


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
MOVED = {"__builtin__": "builtins", "copy_reg": "copyreg"} | {
    f"numpy._core.{module}": f"numpy.core.{module}" for module in ("multiarray", "numeric")
}
REBUILT: dict[str, Callable] = {
    "torch._utils._rebuild_tensor": tensor,
    "torch._utils._rebuild_tensor_v2": tensor,
    "torch._utils._rebuild_tensor_v3": typed_tensor,
    "torch._utils._rebuild_parameter": parameter,
    "torch._utils._rebuild_parameter_with_state": parameter,
    "torch._tensor._rebuild_from_type_v2": subclass_tensor,
    "torch.storage._load_from_bytes": storage_in_bytes,
    "torch.Size": lambda reading, values=(): tuple(counted(reading, values)),
    "collections.OrderedDict": ordered,
    "collections.defaultdict": dictionary,
    "easydict.EasyDict": dictionary,
    "dnnlib.EasyDict": dictionary,
    "dnnlib.util.EasyDict": dictionary,
    "builtins.dict": dictionary,
    "builtins.list": lambda reading, values=(): list(counted(reading, values)),
    "builtins.tuple": lambda reading, values=(): tuple(counted(reading, values)),
    "builtins.set": lambda reading, values=(): set(frozen(counted(reading, values))),
    "builtins.frozenset": lambda reading, values=(): frozen(counted(reading, values)),
    "builtins.bytearray": mutable_bytes,
    "_codecs.encode": encoded,
    "copyreg._reconstructor": instance,
    "numpy.dtype": number_kind,
    "numpy.core.multiarray.scalar": number,
    "numpy.core.multiarray._reconstruct": empty_array,
    "numpy.core.numeric._frombuffer": array_of_bytes,
}


# Classes of Python, torch and numpy that stand in published checkpoints; what else a file asks for there is a tool,
# such as os.system or torch.load, which is refused though it would only be noted. Those of other packages are noted.
HARMLESS = re.compile(
    r"""(builtins|__builtin__)\.(dict|list|tuple|set|frozenset|bytearray|bytes|str|int|float|complex|bool|slice|object)
    | collections\.(OrderedDict|defaultdict|Counter|deque) | typing\.\w+ | types\.SimpleNamespace | argparse\.Namespace
    | datetime\.\w+ | uuid\.UUID | decimal\.Decimal | pathlib\.\w+ | functools\.partial | enum\.\w+ | _codecs\.encode
    | (copyreg|copy_reg)\._reconstructor
    | torch\.(Size|device|dtype|Tensor|Generator|\w+Storage|u?int\d+|float\d+\w*|bfloat16|complex\d+|bool|half|double)
    | torch\._utils\._rebuild_\w+ | torch\._tensor\._rebuild_from_type_v2 | torch\.storage\.\w+ | torch\.nn\.[\w.]+
    | torch\.(optim|cuda\.amp|amp)\.[\w.]+
    | numpy\.(dtype|ndarray|\w+\d+|bool_?)
    | numpy\.(core|_core)\.(multiarray|numeric)\.(scalar|_reconstruct|_frombuffer)
    | numpy\.dtypes\.\w+ | numpy\.random\.[\w.]+""",
    re.VERBOSE,
)
TOOLBOXES = sys.stdlib_module_names | {"__builtin__", "copy_reg", "torch", "numpy", "scipy", "pip", "setuptools"}


def is_tool(name: str) -> bool:
    """Whether a name in a file is of Python or a large package and none that checkpoints need."""
    return name.split(".")[0] in TOOLBOXES and not HARMLESS.fullmatch(name)


# Numbers outside the pickle


def read_legacy(file: BinaryIO, reading: Reading) -> Any:
    """The object in a file as torch wrote them before 1.6: magic number, version, machine, object, keys, numbers."""
    for _ in ("magic number", "version"):
        interpret(file, reading)
    machine = interpret(file, reading)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("its numbers are stored with the highest byte first, or it does not say how")
    storages: dict[str, Storage] = {}

    def persistent(identity: Any) -> Any:
        if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module":
            return identity[1]  # a class; the source text that follows is not looked at
        dtype, key, count, view = storage_identity(identity)
        if key not in storages:  # its numbers come after the object
            reading.take(count * dtype.itemsize)
            storages[key] = Storage(torch.zeros(count, dtype=dtype))
        if storages[key].values.dtype != dtype or len(storages[key].values) != count:
            raise ValueError(f"storage '{key}' is of two kinds")
        return viewed(storages[key], view)

    value = interpret(file, reading, persistent)
    keys = interpret(file, reading)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise ValueError("the storages that follow the object are not those that it names")
    for key in keys:
        values = storages[key].values
        count = int.from_bytes(exactly(file, 8), "little")
        if count != len(values):
            raise ValueError(f"storage '{key}' has {count:,} numbers, not {len(values):,}")
        values.copy_(as_numbers(exactly(file, values.nbytes), values.dtype))
    return value


def exactly(file: BinaryIO, count: int) -> bytes:
    """The next bytes, all of them."""
    data = file.read(count)
    if len(data) < count:
        raise ValueError("it is truncated; download it again")
    return data


def as_numbers(data: bytes, dtype: torch.dtype) -> Tensor:
    """Bytes as a tensor [N] that owns them."""
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.zeros(0, dtype=dtype)


def storage_identity(identity: Any) -> tuple[torch.dtype, str, int, tuple | None]:
    """Kind of numbers, key, count, and part of a larger storage (or None), of a storage's id in a pickle."""
    if not isinstance(identity, tuple) or not 5 <= len(identity) <= 6 or identity[0] != "storage":
        raise ValueError("it refers to something outside itself that is not a storage")
    _, kind, key, _, count, *view = identity
    if not isinstance(kind, Name) or kind.name not in STORAGES or not isinstance(key, str):
        raise ValueError(f"it stores numbers as {shown(kind)}, a kind which is not known")
    return STORAGES[kind.name], key, whole(count), view[0] if view else None


def viewed(storage: Storage, view: tuple | None) -> Storage:
    """Part of a storage: key of the part, first number and count."""
    if view is None:
        return storage
    _, start, count = view
    if whole(start) + whole(count) > len(storage.values):
        raise ValueError("part of a storage lies outside of it")
    return Storage(storage.values[start : start + count])
