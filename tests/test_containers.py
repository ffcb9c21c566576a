"""Archives are unpacked as far as they declare; files whose container tells that they are damaged are refused."""

import io
import json
import os
import pickle
import resource
import struct
import time
import zipfile
import zlib
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from tests.test_read import Call, legacy, packed, pickled_tensor, zipped
from zoo.training.checkpoint_files import read_checkpoint
from zoo.utils.containers import check_whole, read_array
from zoo.utils.listed_files import Zip
from zoo.utils.pickles import is_tool
from zoo.weights.read import read

MEGABYTES, DECLARED = 100, 200_000  # more than it is packed


def lying(name: str, method: int = zipfile.ZIP_DEFLATED, others: dict[str, bytes] | None = None) -> bytes:
    """A zip with a member that unpacks to far more than the sizes in its headers say."""
    with zipfile.ZipFile(file := io.BytesIO(), "w", method, compresslevel=1) as archive:
        with archive.open(name, "w") as member:
            for _ in range(MEGABYTES):
                member.write(bytes(2**20))
        for other, content in (others or {}).items():
            archive.writestr(other, content)
    data, start = bytearray(file.getvalue()), file.getvalue().index(b"PK\1\2")
    for crc, size in ((14, 22), (start + 16, start + 24)):
        struct.pack_into("<I", data, crc, zlib.crc32(bytes(DECLARED)))
        struct.pack_into("<I", data, size, DECLARED)
    return bytes(data)


def nested(depth: int = 300_000) -> bytes:
    """A pickle whose dictionary has a key that lies so deep that hashing it overflows the stack."""
    return b"\x80\x02}" + b")" + b"\x85" * depth + b"K\x01s."


def laughing() -> bytes:
    """A checkpoint of a run whose config stands for 2^64 values."""
    config: list = []
    for _ in range(64):
        config = [config, config]
    return zipped({"state_dict": {}, "clocks": {}, "config": config})


def of_storage() -> bytes:
    """A checkpoint with a tensor whose storage unpacks to more than it declares."""
    count = DECLARED // 4
    with zipfile.ZipFile(io.BytesIO(pickled_tensor(0, (count,), (1,), claimed=count))) as archive:
        return lying("a/data/0", others={"a/data.pkl": archive.read("a/data.pkl")})


FILES = {
    "lying.pth": lambda: lying("archive/data.pkl"),
    "lying.ckpt": lambda: lying("archive/data.pkl"),
    "storage.ckpt": of_storage,
    "folders.zip": lambda: lying("x/generator.pth", others={"x/ema.pth": b""}),
    "images.zip": lambda: lying("a.png"),
    "lzma.zip": lambda: lying("a.png", zipfile.ZIP_LZMA),
    "arrays.npz": lambda: lying("coordinates.npy"),
    "bomb.ckpt": lambda: packed({"a/data.pkl": b"N.", "a/data/0": bytes(2**26)}, zipfile.ZIP_DEFLATED),
    "nested.ckpt": nested,
    "laughing.ckpt": laughing,
    "objects.ckpt": lambda: zipped({"state_dict": {}, "clocks": {"x": Call(os.getenv, "x")}}),
}
MORE = f"holds more than the {DECLARED:,} bytes it declares"
MESSAGES = dict.fromkeys(FILES, MORE) | {
    "bomb.ckpt": "would unpack to 67,108,866",
    "nested.ckpt": "a tuple is no key",
    "laughing.ckpt": "lie too deep in others, or are too many",
    "objects.ckpt": "asks for os.getenv",
    "lzma.zip": "no error",  # of what is declared, the next reader makes no image
}
READERS = {
    ".pth": [read],
    ".ckpt": [read_checkpoint],
    ".npz": [lambda path: read_array(path, "coordinates")],
    ".zip": [check_whole, lambda path: Zip(path).read("a.png"), lambda path: read(path / "x" / "generator.pth")],
}


def peak() -> float:
    """The most memory that this process has had at once [MiB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_all(folder: Path, results: Path) -> None:
    """Write what each reader says of each file, its seconds, and by how much the process has grown."""
    before = peak()
    with open(results, "w") as lines:
        for path in sorted(folder.iterdir()):
            for reader in READERS[path.suffix]:
                start = time.process_time()
                try:
                    reader(path)
                    said = "no error"
                except (ValueError, KeyError) as error:
                    said = str(error)
                print(json.dumps([path.name, said, time.process_time() - start, peak() - before]), file=lines)


def test_no_more_is_unpacked_than_is_declared(tmp_path):
    (tmp_path / "files").mkdir()
    for name, make in FILES.items():
        (tmp_path / "files" / name).write_bytes(make())
    # A process of its own, as a stack that overflows ends it; forked, as starting one takes longer than all the rest.
    child = get_context("fork").Process(target=read_all, args=(tmp_path / "files", tmp_path / "results"))
    child.start()
    child.join(timeout=120)
    child.kill()
    assert child.exitcode == 0
    results = [json.loads(line) for line in (tmp_path / "results").read_text().splitlines()]
    assert {name for name, *_ in results} == FILES.keys()
    for name, said, seconds, megabytes in results:
        assert megabytes < 90 and seconds < 10, (name, said, seconds, megabytes)
        assert "\n" not in said and "weights_only" not in said and "torch.load" not in said
    for name, message in MESSAGES.items():
        assert any(message in said for file, said, *_ in results if file == name), name


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


WHOLE = {"zip": zipped, "legacy": legacy, "pickle": pickle.dumps, "safetensors": save}


@pytest.mark.parametrize("write", WHOLE.values(), ids=WHOLE)
def test_what_follows_the_end_is_refused(tmp_path, write):
    tensors = {"x": torch.arange(100.0)}
    (tmp_path / "x.pth").write_bytes(write(tensors))
    assert torch.equal(read(tmp_path / "x.pth").value["x"], tensors["x"])
    for more in (b"\0", b"junk", bytes(70_000)):
        (tmp_path / "x.pth").write_bytes(write(tensors) + more)
        with pytest.raises(ValueError, match=r"x\.pth cannot be read: .*; (it is damaged: )?download it again"):
            read(tmp_path / "x.pth")


def test_a_flipped_bit_of_any_member_is_refused(tmp_path):
    data = zipped({"x": torch.arange(100.0)})
    for name in ("data.pkl", "data/0", "version"):  # the last is none that anybody needs
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            info = next(info for info in archive.infolist() if info.filename.endswith(name))
            content = archive.read(info)
        place = data.index(content, info.header_offset)
        (tmp_path / "x.pth").write_bytes(flipped(data, place))
        with pytest.raises(ValueError, match="damaged or truncated zip; download it again"):
            read(tmp_path / "x.pth")
    folders = packed({"a/x.pth": b"1234", "b/notes.txt": b"important"})
    (tmp_path / "x.zip").write_bytes(folders)
    check_whole(tmp_path / "x.zip")
    (tmp_path / "x.zip").write_bytes(flipped(folders, folders.index(b"important")))
    with pytest.raises(ValueError, match="damaged or truncated zip; download it again"):
        check_whole(tmp_path / "x.zip")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch.nn.modules.module", "torch.os.system"),
        ("torch.nn.modules.module", "os"),
        ("torch.nn.modules", "module.torch.load"),
        ("torch.nn.functional", "importlib.import_module"),
        ("torch.optim.adam", "math.os.system"),
        ("torch.cuda.amp", "common.importlib.import_module"),
        ("torch.storage", "os.system"),
        ("torch._utils", "sys.modules"),
        ("numpy.random", "mtrand.os.system"),
        ("datetime", "sys.modules"),
        ("typing", "sys"),
        ("pathlib", "os.system"),
        ("enum", "sys"),
        ("siren.siren", "os.system"),
        ("siren.siren.os", "system"),
        ("siren.siren", "torch.load"),
    ],
)
def test_names_that_are_reached_through_others_are_tools(module, name, tmp_path):
    assert is_tool(module, name)
    text = [b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name)]
    (tmp_path / "x.pth").write_bytes(b"\x80\x04" + text[0] + text[1] + b"\x93)R.")
    with pytest.raises(ValueError, match="which no checkpoint needs; nothing was run"):
        read(tmp_path / "x.pth")


NAMES = """
    torch.nn.modules.conv.Conv2d torch.nn.utils.spectral_norm.SpectralNorm torch.nn.parameter.Parameter torch.nn.Linear
    torch.nn.parallel.distributed.DistributedDataParallel torch.nn.functional.leaky_relu torch.optim.adam.Adam
    torch.optim.lr_scheduler.StepLR torch.cuda.amp.grad_scaler.GradScaler torch.device pathlib.PosixPath
    numpy.random._pickle.__randomstate_ctor datetime.timedelta training.networks.Generator utils.types.Config
    torch_utils.persistence._reconstruct_persistent_obj
"""


def test_names_of_checkpoints_are_none():
    assert [name for name in NAMES.split() if is_tool(*name.rsplit(".", 1))] == []
    assert not is_tool("app", "Outer.Inner")


def test_arrays_of_numpy(tmp_path):
    known = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    np.savez_compressed(tmp_path / "x.npz", known=known, more=[1])
    assert (
        np.array_equal(read_array(tmp_path / "x.npz", "known"), known) and read_array(tmp_path / "x.npz", "y") is None
    )
    np.savez(tmp_path / "x.npz", known=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="does not hold the numbers that it declares"):
        read_array(tmp_path / "x.npz", "known")
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    (tmp_path / "x.npz").write_bytes(packed({"known.npy": huge.getvalue()}))
    with pytest.raises(ValueError, match="does not hold the numbers that it declares"):
        read_array(tmp_path / "x.npz", "known")
