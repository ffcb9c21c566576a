"""How many images a datamodule reads in a second, by what they lie in, their resolution and the number of readers."""

import io
import os
import platform
import tempfile
import time
import zipfile
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from datamodules.images import ImageFolder
from datamodules.pack import pack
from zoo.cli.data import unsaid
from zoo.cli.help import version
from zoo.utils.image_folders import CheckedImages, Layout, images_of
from zoo.utils.listed_files import Container
from zoo.utils.threads import available_cpus

RESOLUTIONS, WORKERS = (64, 128, 256), (0, 1, 2)
COUNT = 128  # images that are read, again and again: all of them stay in memory
MADE = 32  # different ones of those that are made
SIDE, QUALITY = 512, 90  # of made images [pixels], and of their JPEG
BATCH = 32
SECONDS = 2.0  # of reading, for each number


def measure(path: str | None = None, resolution: int | None = None) -> dict[str, Any]:
    """Facts about reading on this machine.

    Args:
        path: folder or zip whose images are read, up to ``COUNT`` from all over it; by default some are made.
        resolution: side of the images [pixels]; by default each of ``RESOLUTIONS``.

    Returns:
        "images_per_second": {container: {resolution: {workers: number}}}, and what they depend on. Containers are a
        folder and a zip of the files as they are, and a zip of PNGs that have the resolution already.

    Raises:
        UserError: there are no images at the path.
    """
    resolutions = RESOLUTIONS if resolution is None else (resolution,)
    cpus = available_cpus()
    workers = [number for number in WORKERS if number <= cpus]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        temporary = Path(name)
        files = made_files() if path is None else taken_files(path, temporary)
        stack.enter_context(unsaid())  # of the copies that are read
        folder = temporary / "folder"
        for file, data in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(data)
        stored(temporary / "plain.zip", files.items())
        speeds: dict[str, dict[str, dict[str, float]]] = {"folder": {}, "zip": {}, "packed zip": {}}
        for side in resolutions:
            made = partial(
                ImageFolder, resolution=side, batch_size=BATCH, flip=True, manifests=str(temporary / "manifests")
            )
            packed = temporary / f"packed{side}.zip"
            pack(made(str(folder)), packed, version())
            for kind, where in zip(speeds, (folder, temporary / "plain.zip", packed), strict=True):
                images = made(str(where))
                images.prepare_data()
                speeds[kind][str(side)] = {str(number): speed(images, number) for number in workers}
    return {
        "work": "data",
        "images_per_second": speeds,
        "images": f"{len(files)} of {path}" if path else f"{MADE} made ones, JPEG of {SIDE}x{SIDE}",
        "bytes_of_a_file": round(sum(map(len, files.values())) / len(files)),
        "batch": BATCH,
        "cpus": cpus,
        "machine": platform.machine(),
        "pillow": PIL.__version__,
        "torch": torch.__version__,
    }


def speed(images: ImageFolder, workers: int) -> float:
    """Images in a second, as training gets them: read, decoded, resized, mirrored and put into batches."""
    images.max_workers = workers
    batches = iter(images.train_dataloader())
    for _ in range(1 + 4 * workers):  # readers have started, and what they had read before anything was asked for
        next(batches)
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < SECONDS:
        count += len(next(batches)["index"])
    return float(f"{count / spent:.4g}")


def made_files() -> dict[str, bytes]:
    """JPEGs that decode as photos do, by name."""
    made = [encoded(made_photo(seed, SIDE), "JPEG", quality=QUALITY) for seed in range(MADE)]
    return {f"{number:03}.jpg": made[number % MADE] for number in range(COUNT)}


def made_photo(seed: int, side: int) -> Image.Image:
    """Noise whose spectrum falls as that of photos does, so that a file of it is about as large."""
    generator = np.random.default_rng(seed)
    values, cells = np.zeros((side, side, 3)), 4
    while cells <= side:
        noise = Image.fromarray(generator.integers(0, 256, (cells, cells, 3), np.uint8))
        values += (np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC), float) - 127.5) / cells**0.8
        cells *= 2
    return Image.fromarray(np.clip(values * (50 / values.std()) + 127.5, 0, 255).astype(np.uint8))


def taken_files(path: str, temporary: Path) -> dict[str, bytes]:
    """Some of the images of a folder or zip as they are, from all over it, by name."""

    def some(container: Container, names: list[str]) -> list[str]:
        images = images_of(container, names)
        return images[:: -(-len(images) // COUNT) or 1]

    images = CheckedImages(path, manifests=temporary / "manifests", layout=Layout(keep=some))
    names = images.open()
    return {f"{number:03}{os.path.splitext(name)[1]}": images.container.read(name) for number, name in enumerate(names)}


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def stored(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write a zip without compression."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files:
            archive.writestr(name, data)


def table(facts: dict[str, Any]) -> str:
    """The facts as lines: a table of images in a second, and what they depend on."""
    speeds = facts["images_per_second"]
    numbers = list(next(iter(speeds["folder"].values())))
    lines = ["images/s".ljust(20) + "".join(f"{number:>9}" for number in numbers) + "  (processes that read)"]
    for kind, sides in speeds.items():
        for side, row in sides.items():
            lines.append(f"{kind + ' ' + side + ' px':<20}" + "".join(f"{row[number]:>9,.0f}" for number in numbers))
    about = {name: value for name, value in facts.items() if name != "images_per_second"}
    width = max(map(len, about))
    return "\n".join([*lines, "", *(f"{name:<{width}} {value}" for name, value in about.items())])
