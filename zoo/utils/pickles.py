"""Reads pickles without running, importing or calling anything that they name.

A pickle is a small program: loading it calls whatever it asks for. Here its opcodes are carried out by ``interpret``,
which knows plain values only. A class or function of the file becomes a ``Name``, its call a ``Record`` that notes the
arguments and state and does nothing. The few names in ``REBUILT`` are answered by functions of ``zoo.utils.records``,
which check every size before they make a tensor, an array or a container. No opcode looks up an attribute of anything.

Numbers of torch lie outside the pickle: in the members of a zip (see ``zoo.utils.containers``), or, in files from
before torch 1.6, behind it (``read_legacy``).
"""

import io
import pickletools
import re
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch

from zoo.utils.records import (
    DTYPES,
    Name,
    Reading,
    Record,
    Storage,
    array_of_bytes,
    as_numbers,
    build_array,
    check_key,
    device,
    dictionary,
    empty_array,
    encode_bytes,
    make_bytearray,
    number,
    number_kind,
    ordered_dict,
    pairs_to_dict,
    parameter,
    spend_items,
    storage_identity,
    tensor,
    to_frozenset,
    typed_tensor,
    view_storage,
)

Persistent = Callable[[Any], Any]  # what an object is that is stored outside the pickle, by its id there

# The pickle machine

VALUES = set(
    """INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
    BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT""".split()  # noqa: SIM905
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def interpret(file: BinaryIO, reading: Reading, persistent: Persistent | None = None) -> Any:
    """Carry out one pickle on plain values; the file is then just behind it.

    Raises:
        ValueError: it is damaged, or needs what no checkpoint needs.
    """
    try:
        return execute(file, reading, persistent or no_storage)
    except (IndexError, KeyError) as error:
        raise ValueError(f"its pickle takes what it never put ({error})") from None
    except (TypeError, RuntimeError) as error:  # of a function in REBUILT, given something else than it takes
        raise ValueError(f"its pickle asks for something that cannot be made: {error}") from None


def no_storage(identity: Any) -> Any:
    raise ValueError("it refers to something outside itself")


def execute(file: BinaryIO, reading: Reading, persistent: Persistent) -> Any:
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
                result = {"TUPLE": tuple, "LIST": list, "DICT": pairs_to_dict, "FROZENSET": to_frozenset}[kind](stack)
                stack = below.pop()
                stack.append(result)
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
                stack.append(make_name(reading, *argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name = stack.pop()
                stack.append(make_name(reading, stack.pop(), name))
            case "REDUCE" | "NEWOBJ":
                args = stack.pop()
                stack.append(call(reading, stack.pop(), args))
            case "NEWOBJ_EX":
                kwargs, args = stack.pop(), stack.pop()
                stack.append(call(reading, stack.pop(), args, kwargs))
            case "INST":
                args, stack = tuple(stack), below.pop()
                stack.append(call(reading, make_name(reading, *argument.split(" ", 1)), args))
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


def make_name(reading: Reading, module: Any, name: Any) -> Name:
    """A class or function of the file."""
    if not all(isinstance(part, str) and len(part) < 500 and part.isprintable() for part in (module, name)):
        raise ValueError("it asks for a name that is none")
    reading.names.add(f"{module}.{name}")
    if is_tool(module, name):
        reading.tools.add(f"{module}.{name}")
    return DTYPES.get(f"{module}.{name}") or Name(f"{MOVED.get(module, module)}.{name}")


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
    (target if isinstance(target, dict) else target.entries).update(pairs_to_dict(pairs))


def add(target: Any, values: list) -> None:
    if not isinstance(target, set):
        raise ValueError(f"it adds to a {type(target).__name__}")
    target.update(check_key(value) for value in values)


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


# What is rebuilt, by our own functions


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
        value = read_legacy(file := io.BytesIO(data), reading)
        at_its_end(file)
        return value
    finally:
        reading.nested = False


def instance(reading: Reading, kind: Any, base: Any = None, state: Any = None) -> Any:
    """An object as protocols 0 and 1 make it."""
    return call(reading, kind, ())


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
    "torch.device": device,
    "torch.Size": lambda reading, values=(): tuple(spend_items(reading, values)),
    "collections.OrderedDict": ordered_dict,
    "collections.defaultdict": dictionary,
    "easydict.EasyDict": dictionary,
    "dnnlib.EasyDict": dictionary,
    "dnnlib.util.EasyDict": dictionary,
    "builtins.dict": dictionary,
    "builtins.list": lambda reading, values=(): list(spend_items(reading, values)),
    "builtins.tuple": lambda reading, values=(): tuple(spend_items(reading, values)),
    "builtins.set": lambda reading, values=(): set(to_frozenset(spend_items(reading, values))),
    "builtins.frozenset": lambda reading, values=(): to_frozenset(spend_items(reading, values)),
    "builtins.bytearray": make_bytearray,
    "_codecs.encode": encode_bytes,
    "copyreg._reconstructor": instance,
    "numpy.dtype": number_kind,
    "numpy.core.multiarray.scalar": number,
    "numpy.core.multiarray._reconstruct": empty_array,
    "numpy.core.numeric._frombuffer": array_of_bytes,
}

# Classes of Python, torch and numpy that stand in published checkpoints; what else a file asks for there is a tool,
# such as os.system or torch.load, which is refused though it would only be noted. Those of other packages are noted.
# Classes are told by their capital: a module holds what it imports, too, as in torch.nn.modules.module.torch.load.
HARMLESS = re.compile(
    r"""(builtins|__builtin__)\.(dict|list|tuple|set|frozenset|bytearray|bytes|str|int|float|complex|bool|slice|object)
    | collections\.(OrderedDict|defaultdict|Counter|deque) | typing\.[A-Z]\w* | types\.SimpleNamespace
    | argparse\.Namespace | datetime\.(datetime|date|time|timedelta|timezone) | uuid\.UUID | decimal\.Decimal
    | pathlib\.(\w+\.)?(Pure)?(Posix|Windows)?Path | functools\.partial | enum\.[A-Z]\w* | _codecs\.encode
    | (copyreg|copy_reg)\._reconstructor
    | torch\.(Size|device|dtype|Tensor|Generator|\w+Storage|u?int\d+|float\d+\w*|bfloat16|complex\d+|bool|half|double)
    | torch\._utils\._rebuild_\w+ | torch\._tensor\._rebuild_from_type_v2
    | torch\.storage\.(_load_from_bytes|_?(Un)?[tT]ypedStorage)
    | torch\.nn\.((modules|utils|parallel)\.\w+\.|(qat|quantized|intrinsic)\.modules\.\w+\.|parameter\.)?[A-Z]\w*
    | torch\.nn\.functional\.(\w*relu6?|elu|selu|celu|gelu|silu|mish|sigmoid|logsigmoid|tanh|hard\w+|soft\w+|normalize)
    | torch\.(tanh|sigmoid|relu|sin|cos|exp)
    | torch\.optim\.(\w+\.)?[A-Z]\w*
    | torch\.(cuda\.)?amp\.(grad_scaler\.)?([A-Z]\w*|_refresh_per_optimizer_state)
    | numpy\.(dtype|ndarray|[a-z]+\d+|bool_?)
    | numpy\.(core|_core)\.(multiarray|numeric)\.(scalar|_reconstruct|_frombuffer)
    | numpy\.dtypes\.[A-Z]\w* | numpy\.random\.(_pickle\.__\w+_ctor|_?\w+\.[A-Z]\w*)""",
    re.VERBOSE,
)
TOOLBOXES = sys.stdlib_module_names | {"__builtin__", "copy_reg", "torch", "numpy", "scipy", "pip", "setuptools"}
WALKED = {"os", "posix", "nt", "sys", "subprocess", "builtins", "importlib", "ctypes", "shutil", "socket", "runpy"}


def is_tool(module: str, name: str) -> bool:
    """Whether a name is of Python or a large package and none that checkpoints need, or reached through another one."""
    first, *rest = f"{module}.{name}".split(".")
    if first in TOOLBOXES:
        return not HARMLESS.fullmatch(f"{module}.{name}")
    return not WALKED.isdisjoint(rest) or not re.fullmatch(r"([A-Z_]\w*\.)*\w+", name)  # classes may hold classes


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
        return view_storage(storages[key], view)

    value = interpret(file, reading, persistent)
    keys = interpret(file, reading)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise ValueError("the storages that follow the object are not those that it names")
    for key in keys:
        values = storages[key].values
        count = int.from_bytes(read_exactly(file, 8), "little")
        if count != len(values):
            raise ValueError(f"storage '{key}' has {count:,} numbers, not {len(values):,}")
        values.copy_(as_numbers(bytearray(read_exactly(file, values.nbytes)), values.dtype))
    return value


def at_its_end(file: BinaryIO) -> None:
    """Fail where something follows."""
    if left := len(file.read()):
        raise ValueError(f"{left:,} bytes follow its end; it is damaged: download it again")


def read_exactly(file: BinaryIO, count: int) -> bytes:
    """The next bytes, all of them."""
    data = file.read(count)
    if len(data) < count:
        raise ValueError("it is truncated; download it again")
    return data
