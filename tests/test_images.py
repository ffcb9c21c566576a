"""Images from folders and zips, and the loaders that all datamodules share."""

import io
import logging
import multiprocessing
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from datamodules import ImageFolder
from datamodules.base import EndlessBatches, ImageDataset, Key, read_stages
from datamodules.images import ImageFiles
from zoo.evaluate.images import ImagePathDataset


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def plain(colour=(200, 100, 50), size=(12, 8)) -> Image.Image:
    return Image.new("RGB", size, colour)


def folder_of(path, files: dict[str, bytes]):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def zip_of(path, files: dict[str, bytes]):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(side: int) -> bytes:
    """A great many pixels each way in a few bytes."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.fixture
def files(tmp_path):
    """Makes ImageFiles whose manifest lies in a folder of its own."""
    return lambda path, **options: ImageFiles(path, manifests=tmp_path / "manifests", **options)


@pytest.fixture
def folder(tmp_path):
    """Makes an ImageFolder of n images, each of one grey level of its own: 3 times its index."""

    def make(n: int = 7, **options):
        names = {f"{i:03d}.png": encoded(plain((3 * i,) * 3)) for i in range(n)}
        path = folder_of(tmp_path / f"images{n}", names)
        return ImageFolder(
            str(path), manifests=str(tmp_path / "manifests"), **{"resolution": 4, "batch_size": 2} | options
        )

    return make


def palette_with_hole() -> Image.Image:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 200, 30, 0, 0, 0])
    image.paste(1, (0, 0, 4, 8))
    return image


def sixteen_bit() -> Image.Image:
    return Image.fromarray(np.full((8, 8), 0x8000, np.uint16))


def turned() -> bytes:
    """Red above green, stored lying on its side with the EXIF tag that says so."""
    image = Image.new("RGB", (8, 8), (255, 0, 0))
    image.paste((0, 255, 0), (0, 4, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the viewer must turn it clockwise
    return encoded(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=100, subsampling=0, exif=exif)


TRAPS = {  # bytes, suffix, and the colours expected in its upper right and its lower left
    "rgb": (encoded(plain((200, 100, 50))), "png", (200, 100, 50), (200, 100, 50)),
    "jpeg": (encoded(plain((200, 100, 50)), "JPEG", quality=100), "JPG", (200, 100, 50), (200, 100, 50)),
    "webp": (encoded(plain((200, 100, 50)), "WEBP", lossless=True), "webp", (200, 100, 50), (200, 100, 50)),
    "bmp": (encoded(plain((200, 100, 50)), "BMP"), "bmp", (200, 100, 50), (200, 100, 50)),
    "grey": (encoded(Image.new("L", (8, 8), 90)), "png", (90,) * 3, (90,) * 3),
    "one bit": (encoded(Image.new("1", (8, 8), 1)), "png", (255,) * 3, (255,) * 3),
    "transparent": (encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0))), "png", (255,) * 3, (255,) * 3),
    "half": (encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 128))), "png", (255, 127, 127), (255, 127, 127)),
    "grey and alpha": (encoded(Image.new("LA", (8, 8), (0, 128))), "png", (127,) * 3, (127,) * 3),
    "palette": (encoded(palette_with_hole()), "png", (10, 200, 30), (0, 0, 0)),
    "palette with a hole": (encoded(palette_with_hole(), transparency=1), "png", (10, 200, 30), (255,) * 3),
    "rgb with a hole": (encoded(plain((9, 9, 9)), transparency=(9, 9, 9)), "png", (255,) * 3, (255,) * 3),
    "cmyk": (
        encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100),
        "jpg",
        (255, 0, 0),
        (255, 0, 0),
    ),
    "16 bit": (encoded(sixteen_bit()), "png", (128,) * 3, (128,) * 3),
    "turned": (turned(), "jpg", (255, 0, 0), (0, 255, 0)),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_every_kind_of_image_has_its_colours(trap, tmp_path, files):
    data, suffix, first, last = TRAPS[trap]
    source = files(folder_of(tmp_path / "in", {f"a.{suffix}": data}))
    image = source.item(0, 8)["image"].int()
    assert image.shape == (3, 8, 8)
    assert (image[:, 1, 6] - torch.tensor(first)).abs().max() <= 3
    assert (image[:, 6, 1] - torch.tensor(last)).abs().max() <= 3


def test_training_and_scores_take_the_same_files_for_images(tmp_path, files):
    good = ["a.png", "b.BMP", "c.jpeg", "d.webp", "f.gif"]
    data = encoded(plain((200, 100, 50)))
    folder = folder_of(tmp_path / "in", dict.fromkeys([*good, "._a.png", ".saving-1.png", "e.txt"], data))
    assert files(folder).open() == good == ImagePathDataset(folder, tmp_path / "manifests").images.open()


def test_the_middle_square_is_cut_before_resizing(tmp_path, files):
    """White outside the middle square must not bleed in, and the filter is the one asked for."""
    image = Image.new("RGB", (40, 16), "white")
    middle = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8))
    image.paste(middle, (12, 0))
    path = folder_of(tmp_path / "in", {"a.png": encoded(image)})
    for name in ("lanczos", "nearest"):
        wanted = middle.resize((8, 8), Image.Resampling[name.upper()])
        got = files(path, filter=name).item(0, 8)["image"].permute(1, 2, 0).numpy()
        assert (got == np.asarray(wanted)).all()
    assert files(path).digest(8) != files(path, filter="nearest").digest(8) != files(path, filter="nearest").digest(4)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bad_files_are_named_and_skipped_or_refused(tmp_path, files, caplog):
    good = encoded(plain())
    bombs = {"bomb.png": huge_png(50_000), "large.png": huge_png(10_000)}
    bad = {"empty.png": b"", "cut.png": good[:-30], "text.jpg": b"hello", **bombs}
    path = folder_of(tmp_path / "in", {"b/good.png": good, "notes.txt": b"", ".hidden.png": b"", **bad})
    source = files(path)
    with caplog.at_level(logging.WARNING):
        assert source.open() == ["b/good.png"]
    assert all(name in caplog.text for name in bad)
    assert set(source.bad) == set(bad)
    assert all("pixels" in source.bad[name] for name in bombs)
    assert "empty" in source.bad["empty.png"]
    with pytest.raises(ValueError, match=r"5 of 6 files.*bomb\.png.*on_bad"):
        files(path, on_bad="refuse").open()


def test_only_changed_files_are_checked_again(tmp_path, files, monkeypatch):
    path = folder_of(tmp_path / "in", {"a.png": encoded(plain()), "b.png": b"broken"})
    before = files(path).digest(8)
    checked = []
    check = ImageFiles.check_file
    monkeypatch.setattr(ImageFiles, "check_file", lambda self, file: checked.append(file.name) or check(self, file))
    again = files(path)
    assert again.digest(8) == before and set(again.bad) == {"b.png"} and checked == []
    folder_of(path, {"b.png": encoded(plain((1, 2, 3)))})
    assert files(path).open() == ["a.png", "b.png"] and checked == ["b.png"]


def test_members_that_leave_the_zip_are_reported_and_nothing_is_extracted(tmp_path, files):
    good = encoded(plain())
    evil = ["../evil.png", "/tmp/evil.png", "a/../../evil.png", "..\\evil.png", "C:\\evil.png"]
    inner = tmp_path / "inner"
    inner.mkdir()
    members = {name: good for name in ["d/ok.png", "__MACOSX/d/._ok.png", *evil]}
    source = files(zip_of(inner / "in.zip", members))
    assert source.open() == ["d/ok.png"]
    assert len(source.bad) == len(evil) and all("leads out" in problem for problem in source.bad.values())
    assert source.item(0, 8)["image"].shape == (3, 8, 8)
    assert [p.name for p in tmp_path.rglob("*.png")] == []


def test_a_zip_is_the_same_data_as_its_folder_in_the_same_order(tmp_path, files):
    images = {f"{d}/{i}.png": encoded(plain((i, 0, 0))) for d in ("z", "a/b", "a") for i in (10, 9, 1)}
    folder, archive = files(folder_of(tmp_path / "in", images)), files(zip_of(tmp_path / "in.zip", images))
    assert folder.open() == archive.open() == sorted(images)
    assert folder.digest(8) == archive.digest(8)


def test_a_broken_member_is_named(tmp_path, files):
    path = zip_of(tmp_path / "in.zip", {"a.png": encoded(plain()), "b.png": encoded(plain((1, 1, 1)))})
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 8] ^= 255  # of a.png, which is stored first
    path.write_bytes(data)
    source = files(path)
    assert source.open() == ["b.png"] and set(source.bad) == {"a.png"}


@pytest.mark.parametrize("name", ["nowhere", "empty", "notes.txt", "broken.zip"])
def test_what_is_no_source_gets_one_sentence(name, tmp_path, files):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=name) as error:
        files(tmp_path / name).open()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("packed", [False, True])
def test_workers_change_nothing(packed, tmp_path):
    images = {f"{i}.png": encoded(plain((20 * i, i, 0))) for i in range(9)}
    path = zip_of(tmp_path / "in.zip", images) if packed else folder_of(tmp_path / "in", images)
    batches = []
    for workers in (0, 2):
        data = ImageFolder(str(path), 4, 4, flip=True, num_workers=workers, manifests=str(tmp_path / "manifests"))
        loader = iter(data.train_dataloader())
        batches.append([next(loader) for _ in range(5)])
    for one, other in zip(*batches, strict=True):
        assert (one["image"] == other["image"]).all() and (one["index"] == other["index"]).all()


def test_an_open_zip_can_be_sent_to_another_process(tmp_path, files):
    source = files(zip_of(tmp_path / "in.zip", {"a.png": encoded(plain())}))
    image = source.item(0, 8)["image"]
    assert (pickle.loads(pickle.dumps(source)).item(0, 8)["image"] == image).all()


def test_a_forked_process_opens_the_zip_for_itself(tmp_path, files):
    """Two processes that share one file position read each other's bytes."""
    source = files(zip_of(tmp_path / "in.zip", {"a.png": encoded(plain())}))
    source.item(0, 8)
    mine = source.container.zip
    results, send = multiprocessing.Pipe(duplex=False)

    def child():
        source.item(0, 8)
        send.send(source.container.zip is mine)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    assert results.poll(20) and results.recv() is False
    process.join()


# -------------------------------------------------------------------------------- the loaders


def test_every_image_comes_once_a_pass_and_orders_differ():
    batches = EndlessBatches(10, read_stages(None, 8, 4), seed=0)
    indices = [key.index for k in range(5) for key in batches.batch(k)]
    assert sorted(indices[:10]) == sorted(indices[10:]) == list(range(10))
    assert indices[:10] != indices[10:]
    assert indices != [key.index for k in range(5) for key in EndlessBatches(10, batches.stages, seed=1).batch(k)]


def test_batches_do_not_depend_on_what_was_asked_before():
    def fresh(**options):
        return EndlessBatches(7, read_stages({0: {}, 4: {"batch_size": 6, "resolution": 16}}, 8, 2), 0, **options)

    forwards = fresh()
    expected = [forwards.batch(k) for k in range(12)]
    assert [key.draw for batch in expected for key in batch] == list(range(4 * 2 + 8 * 6))  # none is left out
    assert [fresh().batch(k) for k in reversed(range(12))] == expected[::-1]
    resumed = iter(fresh(start=lambda: 5))
    assert [next(resumed) for _ in range(7)] == expected[5:]


def test_processes_share_the_batches_of_one():
    stages = {0: {"batch_size": 4}, 3: {"batch_size": 8, "resolution": 16}}
    halves = {start: {**stage, "batch_size": stage["batch_size"] // 2} for start, stage in stages.items()}
    one = EndlessBatches(11, read_stages(stages, 8, 1), seed=0)
    two = [EndlessBatches(11, read_stages(halves, 8, 1), 0, rank, 2) for rank in range(2)]
    for k in range(8):
        assert sorted(two[0].batch(k) + two[1].batch(k)) == sorted(one.batch(k))


def test_stages_set_size_and_resolution(folder):
    data = folder(stages={0: {"resolution": 4, "batch_size": 3}, 2: {"resolution": 8, "batch_size": 1}})
    loader = iter(data.train_dataloader())
    assert [tuple(next(loader)["image"].shape) for _ in range(4)] == [(3, 3, 4, 4)] * 2 + [(1, 3, 8, 8)] * 2
    with pytest.raises(ValueError, match="start at 0"):
        read_stages({5: {}}, 8, 2)
    with pytest.raises(ValueError, match="resolutoin"):
        read_stages({0: {"resolutoin": 4}}, 8, 2)


def test_flips_follow_the_draw_and_spare_the_scores(tmp_path):
    image = plain((0, 0, 0), (4, 4))
    image.paste((255, 255, 255), (0, 0, 2, 4))
    path = folder_of(tmp_path / "in", {"a.png": encoded(image)})
    data = ImageFolder(str(path), 4, 8, flip=True, manifests=str(tmp_path / "manifests"))
    images = ImageDataset(data.train_source(), 4, flip_seed=0)
    left = [bool(images[Key(0, draw, 4)]["image"][0, 0, 0] > 0) for draw in range(200)]
    torch.manual_seed(5)
    assert left == [bool(images[Key(0, draw, 4)]["image"][0, 0, 0] > 0) for draw in range(200)]
    assert 60 < sum(left) < 140
    values = next(iter(data.val_dataloader()))["image"]
    assert values[0, 0, 0].tolist() == [1, 1, -1, -1]


class Recorder(pl.LightningModule):
    """Trains one weight and notes which images it saw."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch):
        self.seen.append((batch["index"].tolist(), batch["image"].sum().item()))
        return self.weight * batch["image"].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, steps, tmp_path, ckpt_path=None, **options):
    model = Recorder()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_steps=steps, use_distributed_sampler=False, enable_checkpointing=False, **quiet, **options)
    trainer.fit(model, data, ckpt_path=ckpt_path)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return model.seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_goes_on_with_the_next_batch(workers, folder, tmp_path):
    options = {"flip": True, "num_workers": workers}
    whole = fit(folder(**options), 9, tmp_path)
    first = fit(folder(**options), 5, tmp_path)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=False)["ImageFolder"]
    rest = fit(folder(**options), 9, tmp_path, ckpt_path=tmp_path / "last.ckpt")
    assert saved == {"done": 5}
    assert first + rest == whole


@pytest.mark.filterwarnings("ignore")
def test_cutting_training_into_epochs_repeats_nothing(folder, tmp_path):
    whole = fit(folder(), 9, tmp_path)
    assert fit(folder(), 9, tmp_path, limit_train_batches=2) == whole


def test_scores_see_every_image_once_over_all_processes(folder, monkeypatch):
    seen = []
    for rank in range(3):
        data = folder(n=8)
        monkeypatch.setattr(data, "_process", lambda rank=rank: (rank, 3))
        for batch in data.val_dataloader():
            seen += batch["index"].tolist()
            assert ((batch["image"][:, 0, 0, 0] + 1) * 127.5).round().tolist() == [
                3 * i for i in batch["index"].tolist()
            ]
    assert sorted(seen) == list(range(8))


def test_samples_to_predict_are_their_indices(folder):
    batches = list(folder(predict_count=5).predict_dataloader())
    assert [batch.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
