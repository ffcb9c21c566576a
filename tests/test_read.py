"""Reading foreign checkpoints: exact tensors from every container, and nothing ever runs."""

import contextlib
import io
import os
import pickle
import random
import struct
import sys
import types
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from zoo.utils.containers import TORCH_MAGIC
from zoo.utils.records import Name, Record
from zoo.weights.read import attributes, class_name, module_parameters, module_state, places, plain, read

OLD = Path(__file__).parent / "parity" / "cases" / "pigan" / "checkpoint"  # written by torch 1.8.1
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
DTYPES += [torch.int8, torch.uint8, torch.bool, torch.complex64]


class Net(nn.Module):
    """Tied layers, buffers of both sorts, a missing module, and attributes of all sorts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.blocks = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.LeakyReLU())
        self.tied = self.first
        self.gone = None
        self.register_module("absent", None)
        self.register_buffer("kept", torch.arange(5.0))
        self.register_buffer("passing", torch.ones(2), persistent=False)
        self.shared = nn.Parameter(self.first.weight.data)
        self.levels, self.step, self.gain = {2: 7, 4: 6}, 12345, np.float64(0.5)


def zipped(value) -> bytes:
    torch.save(value, file := io.BytesIO())
    return file.getvalue()


def legacy(value) -> bytes:
    torch.save(value, file := io.BytesIO(), _use_new_zipfile_serialization=False)
    return file.getvalue()


WRITERS = {"zip": zipped, "legacy": legacy}
WRITERS |= {f"protocol-{p}": lambda value, p=p: pickle.dumps(value, protocol=p) for p in range(6)}


@pytest.fixture
def reads(tmp_path):
    """Bytes, read as a file."""

    def written(data: bytes):
        (tmp_path / "file.pth").write_bytes(data)
        return read(tmp_path / "file.pth")

    return written


def same(mine: dict, theirs: dict) -> bool:
    return list(mine) == list(theirs) and all(
        mine[n].dtype == theirs[n].dtype and torch.equal(mine[n], theirs[n]) for n in theirs
    )


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_modules_and_state_dicts_come_back_bit_for_bit(reads, write):
    net = Net()
    found = reads(write(net))
    assert isinstance(found.value, Record) and class_name(found.value) == "Net"
    assert same(module_state(found.value), net.state_dict()) and "tied.weight" in net.state_dict()
    assert same(module_parameters(found.value), dict(net.named_parameters()))
    assert attributes(found.value)["levels"] == {2: 7, 4: 6} and attributes(found.value)["gain"] == 0.5
    assert "tests.test_read.Net" in found.names
    assert same(reads(write(net.state_dict())).value, net.state_dict())


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_optimizer_states_come_back(reads, write):
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters(), betas=(0.0, 0.9))
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    before, after = optimizer.state_dict(), reads(write(optimizer.state_dict())).value
    assert after["param_groups"] == before["param_groups"]
    assert all(same(after["state"][i], before["state"][i]) for i in (0, 1))


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_every_kind_of_number_and_every_layout(reads, write):
    whole = torch.arange(24.0).reshape(4, 6)
    tensors = {str(dtype): torch.tensor([0, 1, 3]).to(dtype) for dtype in DTYPES}
    tensors |= {"turned": whole.T, "part": whole[1:3, ::2], "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3)}
    tensors |= {"repeated": whole[:1].expand(9, 6)}
    found = reads(write(tensors)).value
    assert same(found, tensors)
    if write in (zipped, legacy):  # plain pickles store it once for each
        assert found["turned"].data_ptr() + 6 * 4 == found["part"].data_ptr()


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_numpy_and_plain_values(reads, write):
    values = {
        "scalars": [np.float64(1.5), np.float32(-2), np.int64(3), np.bool_(True)],
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "plain": (1, 2**70, -0.5, "é", b"\xff\x00", None, True, [{1, 2}, frozenset({3})], bytearray(b"ab")),
        "grouped": defaultdict(list, {"a": [1]}),
        "size": torch.Size([2, 3]),
        ("a", 1): OrderedDict(b=2),
    }
    found = reads(write(values)).value
    for name in ("array", "fortran"):
        assert found[name].dtype == values[name].dtype and np.array_equal(found.pop(name), values.pop(name))
    assert found == values and [type(x) for x in found["scalars"]] == [type(x) for x in values["scalars"]]


def test_a_newer_kind_of_number(reads):
    for dtype in (torch.uint16, torch.float8_e4m3fn):
        tensor = torch.tensor([1.0, 2.0]).to(dtype)
        found = reads(zipped({"x": tensor})).value["x"]
        assert found.dtype == dtype and torch.equal(found.view(torch.uint8), tensor.view(torch.uint8))


def pretend(monkeypatch, name: str, **things) -> None:
    """As if the things were defined in a module of this name."""
    for module in (name.split(".")[0], name):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    for key, thing in things.items():
        thing.__module__, thing.__qualname__ = name, key
        setattr(sys.modules[name], key, thing)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_modules_that_carry_their_source_text(tmp_path, monkeypatch, reads, protocol):
    class EasyDict(dict):
        pass

    def rebuild(meta):
        exec(meta["module_src"])

    class Stored:
        def __init__(self, name: str, state: dict) -> None:
            self.meta = {"type": "class", "module_src": source, "class_name": name, "state": state}

        def __reduce__(self):
            return rebuild, (self.meta,)

    marker = tmp_path / "made"
    source = f"open({str(marker)!r}, 'w')"
    pretend(monkeypatch, "dnnlib.util", EasyDict=EasyDict)
    pretend(monkeypatch, "torch_utils.persistence", _reconstruct_persistent_obj=rebuild)
    net = Net()
    inner = OrderedDict(fc=Stored("Linear", vars(net.first)), b=Stored("Sequential", vars(net.blocks)))
    outer = vars(nn.Module()) | {"_modules": inner, "kwargs": EasyDict(z_dim=EasyDict(a=1))}
    data = pickle.dumps({"G_ema": Stored("Generator", outer)}, protocol=protocol)
    pickle.loads(data)
    assert marker.exists()  # so it does with pickle
    marker.unlink()
    monkeypatch.undo()
    found = reads(data).value["G_ema"]
    assert class_name(found) == "Generator" and attributes(found)["kwargs"] == {"z_dim": {"a": 1}}
    state = module_state(found)
    assert torch.equal(state["fc.weight"], net.first.weight) and "b.1.running_var" in state
    assert not marker.exists()


# Hostile files. Each is handed a command that makes a file.


class Call:
    def __init__(self, function, *args) -> None:
        self.made = function, args

    def __reduce__(self):
        return self.made


def chain(command: str) -> bytes:
    """getattr(__import__('os'), 'system')(command), by hand."""
    start = b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR"
    return start + b"(S'" + command.encode() + b"'\ntR."


def state_setter(command: str) -> bytes:
    """BUILD of a class with a __setstate__ and of a function with new attributes."""
    return b"cposix\nsystem\n}S'__setstate__'\ncposix\nsystem\nsbS'" + command.encode() + b"'\nb."


def instances(command: str) -> bytes:
    """INST and OBJ, which call classes, too."""
    text = b"S'" + command.encode() + b"'\n"
    return b"(" + text + b"iposix\nsystem\n0(cposix\nsystem\n" + text + b"o."


def shadowed(command: str) -> bytes:
    """Functions that the reader answers itself, given commands in place of data."""
    text = b"S'" + command.encode() + b"'\n"
    return b"(ctorch._utils\n_rebuild_parameter\n(cposix\nsystem\n(" + text + b"tRtR."


def dotted(command: str) -> bytes:
    """A name with dots, protocol 4."""
    text = b"\x8c" + bytes([len(command)]) + command.encode()
    return b"\x80\x04\x8c\x05posix\x8c\x0fsystem.__call__\x93" + text + b"\x85R."


def in_bytes(command: str) -> bytes:
    """A hostile file as a storage in a pickle."""
    return pickle.dumps(Call(torch.storage._load_from_bytes, legacy(Call(os.system, command))))


def evaluated(command: str) -> bytes:
    return legacy(Call(eval, f"__import__('os').system({command!r})"))


def of_system(write):
    return lambda command: write({"state": Call(os.system, command), "x": torch.ones(2)})


RUNNING = {f"os.system, {name}": of_system(write) for name, write in WRITERS.items()}
RUNNING |= {"builtins.eval, legacy": evaluated, "getattr of __import__": chain, "inst": instances}
STILL = {"setstate": state_setter, "nested": in_bytes, "parameter": shadowed, "dotted": dotted}


@pytest.mark.parametrize("make", (RUNNING | STILL).values(), ids=RUNNING | STILL)
def test_nothing_runs(tmp_path, reads, make):
    marker = tmp_path / "made"
    try:
        found = reads(make(f"touch {marker}"))
    except ValueError:
        found = None
    assert not marker.exists()
    assert found is None or any("system" in name or "eval" in name or "getattr" in name for name in found.names)


@pytest.mark.parametrize("make", RUNNING.values(), ids=RUNNING)
def test_they_would_run(tmp_path, make):
    marker = tmp_path / "made"
    data = make(f"touch {marker}")
    plain = not data.startswith(b"PK") and TORCH_MAGIC not in data[:32]
    with contextlib.suppress(TypeError):
        pickle.loads(data) if plain else torch.load(io.BytesIO(data), weights_only=False)
    assert marker.exists()


def pickled_tensor(offset: int, size: tuple, stride: tuple, stored: int = 4, claimed: int = 4, kind: str = "Float"):
    """A zip of torch with one hand-made tensor."""
    storage = f"(S'storage'\nctorch\n{kind}Storage\nS'0'\nS'cpu'\nI{claimed}\ntQ"
    numbers = ["(" + "".join(f"I{n}\n" for n in axis) + "t" for axis in (size, stride)]
    data = f"ctorch._utils\n_rebuild_tensor_v2\n({storage}I{offset}\n{''.join(numbers)}I00\nNtR."
    return packed({"a/data.pkl": data.encode(), "a/data/0": bytes(4 * stored), "a/version": b"3"})


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def twice() -> bytes:
    data = packed({"a/data.pkl": b"N.", "a/data/0": b"1234", "a/data/1": b"5678"})
    return data.replace(b"a/data/1", b"a/data/0")


def protocol_0(dtype: str, count: int, size: int) -> bytes:
    text = f"cnumpy\ndtype\n(S'{dtype}'\nI0\nI1\ntR"
    empty = "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    return f"{empty}(I1\n(I{count}\nt{text}I00\nS'{'x' * size}'\ntb.".encode()


def claims(data: bytes, numbers: int) -> bytes:
    """A file of torch's older format whose storage is said to be so long."""
    data = data.replace(struct.pack("<q", 40), struct.pack("<q", numbers))
    return data.replace(b"K(", b"J" + struct.pack("<i", numbers))


WRONG = {
    "offset": (pickled_tensor(1, (4,), (1,)), "needs 5 numbers of a storage with 4"),
    "strides": (pickled_tensor(0, (2, 2), (3, 1)), "needs 5 numbers"),
    "huge stride": (pickled_tensor(0, (2,), (2**62,)), "is not a size"),
    "negative": (pickled_tensor(-1, (2,), (1,)), "-1 is not a size"),
    "overlapping": (pickled_tensor(0, (2**20, 2**20), (0, 0)), "times"),
    "many empty axes": (pickled_tensor(0, (0,) * 40, (1,) * 40), "describes a tensor that is none"),
    "short storage": (pickled_tensor(0, (4,), (1,), stored=3), "12 bytes, not 4 x 4"),
    "huge storage": (pickled_tensor(0, (4,), (1,), claimed=2**40), "not 1,099,511,627,776 x 4"),
    "unknown kind": (pickled_tensor(0, (4,), (1,), kind="QInt8"), "'torch.QInt8Storage', a kind which is not known"),
    "huge legacy": (claims(legacy(torch.arange(40.0)), 2**30), "more numbers than fit"),
    "no storage": (packed({"a/data.pkl": b"(S'storage'\nctorch\nFloatStorage\nS'9'\nS'cpu'\nI1\ntQ."}), "missing"),
    "bomb": (packed({"a/data.pkl": b"N.", "a/x": bytes(10**8)}, zipfile.ZIP_DEFLATED), "would unpack to 100,000,002"),
    "twice": (twice(), "the same name"),
    "cut at the start": (
        (lambda d: d[:4] + d[40:])(packed({"a/data.pkl": b"N.", "a/byteorder": b"little"})),
        "lies out",
    ),
    "zip in a truncated zip": (
        packed({"x/a.pth": zipped(torch.ones(9)), "b": b""})[:-90],
        "begins later than the file",
    ),
    "slip": (packed({"a/data.pkl": b"N.", "a/../../x": b""}), "unpacked outside of its folder"),
    "absolute": (packed({"a/data.pkl": b"N.", "/etc/x": b""}), "'/etc/x' would be unpacked outside"),
    "drive": (packed({"a/data.pkl": b"N.", "C:x": b""}), "unpacked outside"),
    "tool of torch": (b"ctorch.hub\nload\n(S'x'\ntR.", "asks for torch.hub.load, which no checkpoint needs; nothing"),
    "tool beside tensors": (zipped({"x": torch.ones(2), "y": Call(os.getenv, "x")}), "asks for os.getenv"),
    "two pickles": (packed({"a/data.pkl": b"N.", "b/data.pkl": b"N."}), "has 2"),
    "big-endian": (packed({"a/data.pkl": b"N.", "a/byteorder": b"big"}), "highest byte first"),
    "huge bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"abc.", "expected"),
    "huge numpy": (protocol_0("f8", 10**9, 8), "another size than its numbers"),
    "numpy objects": (protocol_0("O", 1, 8), "numpy values of the kind 'O'"),
    "numpy big-endian": (protocol_0(">f8", 1, 8), "numpy values"),
    "extension": (b"\x80\x02\x82\x01.", "uses EXT1"),
    "out-of-band": (b"\x80\x05\x97.", "uses NEXT_BUFFER"),
    "calls a list": (b"])R.", "not a function"),
    "builds a number": (b"I1\n}b.", "it changes a int"),
    "list as key": (b"(]I1\nd.", "a list is no key"),
    "memo": (b"h\x07.", "takes what it never put"),
    "huge memo": (b"Nr\xff\xff\xff\xff00h\x01.", "takes what it never put"),
    "empty stack": (b"0.", "takes what it never put"),
    "long name": (b"cx\n" + b"a" * 600 + b"\n.", "a name that is none"),
    "id without storages": (b"NQ.", "outside itself"),
    "empty": (b"", "it is empty; download it again"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    "HTML": (b"\n<!DOCTYPE html><html>Quota exceeded</html>", "a web page, not a checkpoint"),
    "text": (b"Hello world", "cannot be read"),
    "gzip": (b"\x1f\x8b\x08 and more", "unpack it first"),
    "PNG": (b"\x89PNG\r\n\x1a\n and more", "an image, not a checkpoint"),
    "safetensors": (struct.pack("<Q", 40) + b'{"x": {}}', "a damaged safetensors file"),
    "truncated zip": (zipped(torch.ones(9))[:-30], "damaged or truncated zip"),
    "truncated legacy": (legacy(torch.ones(9))[:-5], "it is truncated; download it again"),
    "truncated pickle": (pickle.dumps(list(range(99)))[:-5], "cannot be read"),
}


@pytest.mark.parametrize(("data", "message"), WRONG.values(), ids=WRONG)
def test_wrong_files_are_one_sentence(tmp_path, reads, data, message):
    with pytest.raises(ValueError, match=message) as raised:
        reads(data)
    assert str(tmp_path / "file.pth") in str(raised.value) and "\n" not in str(raised.value)


def test_deep_and_circular_contents_are_inert(reads):
    depth = 100_000
    assert isinstance(reads(b"]" * depth + b"a" * (depth - 1) + b".").value, list)
    assert isinstance(reads(b")" + b"\x85" * depth + b".").value, tuple)
    with pytest.raises(ValueError, match="tuple is no key"):
        reads(b"})" + b"\x85" * depth + b"Ns.")
    module = b"capp\nNet\n)\x81q\x01}(X\x0b\x00\x00\x00_parameters}X\x08\x00\x00\x00_modules}"
    with pytest.raises(ValueError, match="too deep"):
        module_state(reads(b"\x80\x02" + module + b"X\x01\x00\x00\x00ah\x01sub.").value)


def test_modules_in_modules_do_not_multiply():
    module = Record("app.Net", state={"_parameters": {}, "_modules": {}})
    for _ in range(40):
        module = Record("app.Net", state={"_parameters": {}, "_modules": {"a": module, "b": module}})
    with pytest.raises(ValueError, match="more than 100,000 modules"):
        module_state(module)


def test_repeated_copies_are_counted(reads, monkeypatch):
    monkeypatch.setattr("zoo.utils.records.MAX_STEPS", 100_000)
    copies = b"cbuiltins\nlist\nq\x01(" + b"I1\n" * 2000 + b"tq\x02" + b"0" + b"h\x01h\x02\x85R" * 60 + b"."
    with pytest.raises(ValueError, match="more than 100,000 steps"):
        reads(b"\x80\x02" + copies)


def test_damaged_files_never_end_otherwise(tmp_path, reads):
    """Random damage: a value or a ValueError that names the file, nothing else."""
    net, randomly = Net(), random.Random(0)
    good = [write({"net": net, "n": np.ones(3), "s": {1, 2}}) for write in WRITERS.values()]
    ended = 0
    for i in range(300):
        data = bytearray(good[i % len(good)])
        for _ in range(randomly.choice([1, 2, 8])):
            data[randomly.randrange(len(data))] = randomly.randrange(256)
        cut = randomly.randrange(len(data)) if randomly.random() < 0.2 else len(data)
        try:
            found = reads(bytes(data[:cut]))
            module_state(found.value["net"]) if isinstance(found.value, dict) and "net" in found.value else None
        except ValueError as error:
            ended += "cannot be read" in str(error) or "The file" in str(error)
    assert ended > 60


def node(value, parent=None, leaf: bool = False) -> Record:
    """A recorded node of OmegaConf."""
    name = "omegaconf.nodes.AnyNode" if leaf else "omegaconf.dictconfig.DictConfig"
    return Record(name, state={"_val" if leaf else "_content": value, "_parent": parent, "_metadata": Record("x.Y")})


def test_settings_are_plain_values():
    whole = node({})
    model, layers = node({}, whole), node({}, whole)
    whole.state["_content"] = {"model": model, "layers": layers, "size": node(8, whole, True)}
    layers.state["_content"] = {"count": node("${size}", layers, True)}
    model.state["_content"] |= {"a": node("${layers.count}", model, True), "b": node("${layers}", model, True)}
    model.state["_content"]["gone"] = node("${layers.none}", model, True)
    model.state["_content"]["self"] = node("${model.self}", model, True)
    assert plain(model) == {"a": 8, "b": {"count": 8}, "gone": "${layers.none}", "self": None}
    assert plain({"x": np.float64(0.5), "y": (np.arange(2), Record("app.Net")), 1: None}) == {
        "x": 0.5,
        "y": [[0, 1], None],
        "1": None,
    }


def test_settings_do_not_multiply():
    value: dict = {}
    for _ in range(50):
        value = {"a": value, "b": value}
    circle: list = []
    circle.append(circle)
    for endless in (value, circle):
        with pytest.raises(ValueError, match="too deep in others, or are too many"):
            plain(endless)


def test_files_of_an_old_torch():
    state = read(OLD / "optimizer_G.pth").value
    assert set(state) == {"state", "param_groups"} and len(state["state"]) == 30
    assert state["state"][0]["exp_avg"].shape == (16, 3)
    assert read(OLD / "scaler.pth").value["growth_interval"] == 2000
    assert read(OLD / "generator.losses").value == [0.7, 0.8]
    assert attributes(read(OLD / "generator.pth").value)["device"] == torch.device("cuda", 0)


def test_members_of_a_zip_of_folders(tmp_path):
    path = tmp_path / "download.zip"
    path.write_bytes(packed({"x/a.pth": zipped({"a": 1}), "x/b.pkl": pickle.dumps(Name), "x/": b""}))
    found = places(path)
    assert [place.name for place in found] == ["a.pth", "b.pkl"]
    assert read(found[0]).value == {"a": 1} and read(found[0].beside("b.pkl")).value == Name("zoo.utils.records.Name")
    assert found[0].beside("c.pth") is None and read(f"{path}/x/a.pth").value == {"a": 1}
    with pytest.raises(ValueError, match=r"holds 2 files.*x/a\.pth"):
        read(path)
    with pytest.raises(ValueError, match=r"Did you mean 'x/a\.pth'"):
        read(path / "x" / "aa.pth")
    with pytest.raises(FileNotFoundError, match="Did you mean"):
        read(tmp_path / "downloads.zip")
