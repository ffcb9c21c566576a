"""Images from a folder or a zip file.

Every image is rotated according to its EXIF tag, composited on white where it is transparent, converted to 8-bit RGB,
cropped to a square, by default the largest in the middle, and then resized, by default with Pillow's Lanczos filter.
Colour profiles are ignored; of an animation the first frame is taken. Nothing of a zip is ever written to disk.
"""

import hashlib
import io
import json
import logging
import os
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from datamodules.base import ImageData
from zoo.utils.containers import unpacked
from zoo.utils.errors import Stopped, UserError
from zoo.utils.files import replacing
from zoo.utils.paths import IMAGE_SUFFIXES, is_image

log = logging.getLogger(__name__)

FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}
Filter = Literal["lanczos", "bicubic", "bilinear", "box", "nearest", "subsample"]
# Larger files are mistakes or decompression bombs. Pillow warns at this number of pixels, and refuses twice as many.
MAX_PIXELS, MAX_BYTES = 89_478_485, 500_000_000
MANIFEST_VERSION = 1  # raise it when other files become usable


class BadImage(ValueError):
    """A file that is no usable image; the message says why, without the file's name."""


# ---------------------------------------------------------------------------------------------------------- one image


def decode(data: bytes) -> Image.Image:
    """An upright 8-bit RGB image from the bytes of a png, jpeg or webp file.

    Raises:
        BadImage: the bytes are empty, broken or too large.
    """
    if not data:
        raise BadImage("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "BMP")) as image:
            if image.width * image.height > MAX_PIXELS:  # known before anything is decoded
                raise BadImage(f"{image.width}x{image.height} pixels are more than the {MAX_PIXELS:,} allowed")
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except BadImage:
        raise
    except Image.DecompressionBombError as error:
        raise BadImage(f"it has too many pixels ({error})") from error
    except UnidentifiedImageError as error:
        raise BadImage("it is no PNG, JPEG, WebP or BMP") from error
    except Exception as error:  # decoders raise many kinds of errors on broken files
        raise BadImage(f"it cannot be decoded ({type(error).__name__}: {str(error)[:80]})") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of any mode; 16 bits become 8, transparency shows white."""
    if image.mode.startswith("I"):
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


@dataclass(frozen=True)
class Crop:
    """Which square of an image is used.

    Args:
        side: of the square [pixels]; None for the shorter side of the image.
        shorter: the image is resized (bilinear) to this length of its shorter side before; None leaves it.
        right, down: where the square's middle is, from the middle of the image [pixels].
    """

    side: int | None = None
    shorter: int | None = None
    right: int = 0
    down: int = 0

    def __call__(self, image: Image.Image) -> Image.Image:
        """The square; black where it leaves the image."""
        if self.shorter is not None:
            short = min(image.size)
            size = [self.shorter if length == short else self.shorter * length // short for length in image.size]
            image = image.resize(size, Image.Resampling.BILINEAR)
        side = self.side or min(image.size)
        left = round((image.width - side) / 2) + self.right
        top = round((image.height - side) / 2) + self.down
        return image.crop((left, top, left + side, top + side))


def fit(image: Image.Image, resolution: int, filter: Filter = "lanczos", crop: Crop = Crop()) -> Tensor:
    """A square of an image, resized; uint8 [3, resolution, resolution].

    The filter ``nearest`` takes the pixel in the middle of each cell; ``subsample`` takes the first one, as
    ``torch.nn.functional.interpolate`` does and with it several published programs.
    """
    image = crop(image)
    if image.size != (resolution, resolution) and filter in FILTERS:
        image = image.resize((resolution, resolution), FILTERS[filter])
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if pixels.shape[-1] != resolution:
        kept = torch.arange(resolution) * pixels.shape[-1] // resolution
        pixels = pixels[:, kept][:, :, kept]
    return pixels.contiguous()


# ----------------------------------------------------------------------------------------------------- folders and zips


class File(NamedTuple):
    """A file of a folder or zip, before it is opened.

    name: its path within, with forward slashes.
    size: [bytes].
    stamp: changes when the content does, as far as one can tell without reading it.
    problem: why it must not be opened, if so.
    """

    name: str
    size: int
    stamp: str
    problem: str | None = None


class Folder:
    """The files below a folder, hidden ones left out."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def files(self) -> Iterator[File]:
        def stop(error: OSError) -> None:
            raise UserError(f"The folder '{error.filename}' cannot be read ({error.strerror}).") from error

        for folder, folders, names in os.walk(self.path, onerror=stop):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(folder, name)
                if not name.startswith(".") and path.is_file():
                    about = path.stat()
                    stamp = f"{about.st_size}-{about.st_mtime_ns}"
                    yield File(path.relative_to(self.path).as_posix(), about.st_size, stamp)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


class Zip:
    """The members of a zip, hidden ones left out. Each process opens the file for itself, at its first use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened: tuple[int, zipfile.ZipFile] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": None}

    @property
    def zip(self) -> zipfile.ZipFile:
        if self.opened is None or self.opened[0] != os.getpid():  # a forked worker must not share a file position
            try:
                self.opened = os.getpid(), zipfile.ZipFile(self.path)
            except zipfile.BadZipFile as error:
                raise UserError(f"'{self.path}' is not a zip file, or a broken one ({error}).") from error
        return self.opened[1]

    def files(self) -> Iterator[File]:
        for member in self.zip.infolist():
            parts = PurePosixPath(member.filename.replace("\\", "/")).parts
            if member.is_dir() or any(part.startswith((".", "__MACOSX")) and part != ".." for part in parts):
                continue
            leaves = ".." in parts or member.filename.startswith("/") or PureWindowsPath(member.filename).anchor
            problem = "its path leads out of the zip" if leaves else None
            problem = "it is encrypted" if member.flag_bits & 1 else problem
            yield File(member.filename, member.file_size, f"{member.file_size}-{member.CRC}", problem)

    def read(self, name: str) -> bytes:
        return bytes(unpacked(self.zip, name))  # no more than the size in files(), or an error


class ImageFiles:
    """The images of a folder or zip, sorted by name; a ``datamodules.base.Source``.

    All files are decoded once, at first use, so that broken ones are known before training; the result is kept in
    a manifest, and files that have not changed are not read again.

    Args:
        path: folder or zip file.
        filter: for resizing.
        on_bad: skip files that are no usable images with a warning that names them, or refuse to start.
        manifests: folder for manifests.
        crop: the square that is used.
    """

    def __init__(
        self,
        path: str | Path,
        filter: Filter = "lanczos",
        on_bad: Literal["skip", "refuse"] = "skip",
        manifests: str | Path = "data/manifests",
        crop: Crop = Crop(),
    ) -> None:
        if filter not in get_args(Filter):
            raise UserError(f"There is no filter '{filter}'; take one of {', '.join(get_args(Filter))}.")
        self.crop = crop
        if on_bad not in ("skip", "refuse"):
            raise UserError(f"on_bad is '{on_bad}', but must be skip or refuse.")
        self.path, self.filter, self.on_bad, self.manifests = Path(path).expanduser(), filter, on_bad, Path(manifests)
        self.container: Folder | Zip | None = None
        self.names: list[str] | None = None
        self.bad: dict[str, str] = {}  # the problem, by name

    def open(self) -> list[str]:
        """Names of the usable images, in order.

        Raises:
            UserError: there is no such folder or zip, no image in it, or a bad one that must not be skipped.
        """
        if self.names is not None:
            return self.names
        if not self.path.exists():
            raise UserError(f"There is no folder or zip file '{self.path}'.")
        if not self.path.is_dir() and self.path.suffix.lower() != ".zip":
            raise UserError(f"'{self.path}' is neither a folder nor a .zip file.")
        self.container = Folder(self.path) if self.path.is_dir() else Zip(self.path)
        everything = {file.name: file for file in self.container.files()}
        files = [file for name, file in sorted(everything.items()) if is_image(name)]
        if not files:
            raise UserError(
                f"'{self.path}' holds no images: none of its {len(everything)} files ends in "
                f"{', '.join(IMAGE_SUFFIXES)}."
            )
        self.hashes, self.bad = self.check(files)
        if self.bad:
            shown = "; ".join(f"{name}: {problem}" for name, problem in list(self.bad.items())[:20])
            more = f"; and {len(self.bad) - 20} more" if len(self.bad) > 20 else ""  # the manifest has them all
            message = f"{len(self.bad)} of {len(files)} files of '{self.path}' are no usable images: {shown}{more}."
            if self.on_bad == "refuse":
                raise UserError(f"{message} Repair or remove them, or set on_bad to skip.")
            log.warning("%s They are skipped; all are listed in %s.", message, self.manifest_path())
        if not self.hashes:
            raise UserError(f"None of the {len(files)} images of '{self.path}' can be used.")
        self.names = list(self.hashes)
        return self.names

    def manifest_path(self) -> Path:
        key = hashlib.sha256(str(self.path.resolve()).encode()).hexdigest()[:8]
        return self.manifests / f"{self.path.name}-{key}.json"

    def check(self, files: list[File]) -> tuple[dict[str, str], dict[str, str]]:
        """sha256 of each usable image, and the problem of each of the others, by name."""
        path = self.manifest_path()
        try:
            manifest = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            manifest = {}
        known = manifest.get("files", {}) if manifest.get("version") == MANIFEST_VERSION else {}
        todo = [file for file in files if known.get(file.name, {}).get("stamp") != file.stamp]
        if todo:
            title = f"checking {self.path.name}"
            threads = 1 if isinstance(self.container, Zip) else torch.get_num_threads()  # a zip has one file position
            with ThreadPoolExecutor(threads) as pool:
                results = tqdm(pool.map(self.check_file, todo), title, len(todo), unit="file", dynamic_ncols=True)
                known = known | {file.name: result for file, result in zip(todo, results, strict=True)}
        checked = {file.name: known[file.name] for file in files}
        usable = {name: about["sha256"] for name, about in checked.items() if about["problem"] is None}
        bad = {name: about["problem"] for name, about in checked.items() if about["problem"] is not None}
        if todo:
            about = {
                "version": MANIFEST_VERSION,
                "path": str(self.path),
                "usable": len(usable),
                "bad": bad,
                "files": checked,
            }
            with replacing(path) as part:
                part.write_text(json.dumps(about, indent=1))
        return usable, bad

    def check_file(self, file: File) -> dict[str, str | None]:
        """Its line of the manifest."""
        problem, digest = file.problem, None
        if problem is None and file.size > MAX_BYTES:
            problem = f"{file.size} bytes are more than the {MAX_BYTES:,} allowed"
        if problem is None:
            try:
                data = self.container.read(file.name)
                digest = hashlib.sha256(data).hexdigest()
                decode(data)
            except Exception as error:  # also what zip and file system raise for a single broken member
                problem = str(error) if isinstance(error, BadImage) else f"it cannot be read ({error})"
        return {"stamp": file.stamp, "sha256": digest, "problem": problem}

    def __len__(self) -> int:
        return len(self.open())

    def image(self, index: int) -> Image.Image:
        """The whole image.

        Raises:
            zoo.utils.errors.Stopped: it could be read at the start, but now cannot.
        """
        name = self.open()[index]
        try:
            return decode(self.container.read(name))
        except (ValueError, OSError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise Stopped(
                f"'{name}' of '{self.path}' could be read at the start, but now: {why}. Restore or remove it, "
                "and resume from the last checkpoint (--ckpt_path)."
            ) from error

    def item(self, index: int, resolution: int) -> dict[str, Any]:
        return {"image": fit(self.image(index), resolution, self.filter, self.crop)}

    def digest(self, resolution: int) -> str:
        self.open()
        square = "centre square" if self.crop == Crop() else str(self.crop)
        about = ["images/1", f"{square}, {self.filter}, {resolution}", *map(":".join, self.hashes.items())]
        return hashlib.sha256("\n".join(about).encode()).hexdigest()


class ImageFolder(ImageData):
    """Images (png, jpg, jpeg, webp) of a folder with all its subfolders, or of a zip file.

    Scores compare with the same images, unmirrored.

    Args:
        path: folder or zip file.
        resolution: pixels each way; a square of each image is resized to it.
        batch_size: images of a batch on each process.
        crop: that square; by default the largest one in the middle.
        filter: for resizing.
        on_bad: skip files that are broken, empty or too large with a warning that names them, or refuse to start.
        manifests: folder for the list of checked files.
        options: as of ``ImageData``.
    """

    def __init__(
        self,
        path: str,
        resolution: int = 64,
        batch_size: int = 8,
        crop: Crop = Crop(),
        filter: Filter = "lanczos",
        on_bad: Literal["skip", "refuse"] = "skip",
        manifests: str = "data/manifests",
        **options: Any,
    ) -> None:
        super().__init__(resolution, batch_size, **options)
        self.files = ImageFiles(path, filter, on_bad, manifests, crop)
        self.name = self.files.path.resolve().stem

    def prepare_data(self) -> None:
        """Check the files that are new."""
        self.files.open()

    def train_source(self) -> ImageFiles:
        return self.files
