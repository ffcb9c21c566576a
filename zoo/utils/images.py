"""One image: an upright 8-bit RGB image from the bytes of a file in any format that Pillow reads by itself, and back.

Everything here that reads images does so with ``decode``: they are turned as their EXIF tag says, transparent parts
show white, 16 bits become 8, and of an animation the first frame is taken. Colour profiles are ignored.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from zoo.utils.errors import UserError, missing_file, printable
from zoo.utils.files import replacing

# Larger files are mistakes or decompression bombs. Pillow warns at this number of pixels, and refuses twice as many.
MAX_PIXELS, MAX_BYTES = 89_478_485, 500_000_000
# Those that Pillow hands to other programs or libraries (EPS, WMF, HDF5 ...), and its lists of metadata, are missing.
NAMES = """
    PNG JPEG WEBP BMP GIF TIFF AVIF JPEG2000 PPM BLP CUR DCX DDS DIB FITS FLI FTEX GBR ICNS ICO MSP PCX PIXAR PSD QOI
    SGI SUN XBM XPM
"""
FORMATS = NAMES.split()
# Files of these formats do not begin with anything of their own, so that much else would be taken for one.
BY_SUFFIX = {".tga": "TGA", ".icb": "TGA", ".vda": "TGA", ".vst": "TGA", ".im": "IM", ".pcd": "PCD"}
ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


class BadImage(ValueError):
    """A file that is no usable image; the message says why, without the file's name."""


@contextmanager
def pillow_silenced() -> Iterator[None]:
    """Inside, Pillow does not warn, such as of metadata that it cannot read beside a good image; for one thread."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def read_image(path: Path) -> Image.Image:
    """An image file, as RGB.

    Raises:
        FileNotFoundError, UserError: it is not there, or no usable image.
    """
    if not path.is_file():
        raise FileNotFoundError(missing_file(path))
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadImage(f"{path.stat().st_size:,} bytes are more than the {MAX_BYTES:,} allowed")
        with pillow_silenced():
            return decode(path.read_bytes(), path.name)
    except BadImage as error:
        raise UserError(f"'{path}' is no usable image: {error}.") from None


def opened(file: Path | io.BytesIO, name: str) -> Image.Image:
    """An image whose size is known and whose pixels are not read yet; errors are Pillow's."""
    own = BY_SUFFIX.get(PurePosixPath(name).suffix.lower())
    return Image.open(file, formats=[*FORMATS, own] if own else FORMATS)


def decode(data: bytes, name: str = "") -> Image.Image:
    """An upright 8-bit RGB image from the bytes of a file.

    Args:
        data: the bytes, which say themselves what they are, whatever the file's name ends in ...
        name: ... with few exceptions.

    Raises:
        BadImage: the bytes are empty, broken or too large.
    """
    if not data:
        raise BadImage("the file is empty")
    try:
        with opened(io.BytesIO(data), name) as image:
            if image.width * image.height > MAX_PIXELS:  # known before anything is decoded
                raise BadImage(f"{image.width}x{image.height} pixels are more than the {MAX_PIXELS:,} allowed")
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except (BadImage, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise BadImage(f"it has too many pixels ({error})") from error
    except UnidentifiedImageError as error:
        if data[4:10] == b"ftyphe":  # as telephones write them, often under another name
            raise BadImage("it is in HEIC, which is not read here: convert it to PNG or JPEG") from error
        raise BadImage("it is in no format that is read here (PNG, JPEG, WebP, TIFF ...)") from error
    except Exception as error:  # decoders raise many kinds of errors on broken files
        raise BadImage(f"it cannot be decoded ({type(error).__name__}: {str(error)[:80]})") from error


def kind_of(data: bytes, name: str = "") -> tuple[str, str]:
    """Format and mode of the image in the bytes of a usable file, or in the beginning of one, as Pillow calls them."""
    own = BY_SUFFIX.get(PurePosixPath(name).suffix.lower())
    with pillow_silenced(), Image.open(io.BytesIO(data), formats=[*FORMATS, own] if own else FORMATS) as image:
        return image.format or "?", image.mode


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of any mode; transparency shows white.

    Integers of more than 8 bits go up to 65535. Floating-point numbers go up to 1 or, where one is larger, to 255.
    """
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), posinf=255.0)
        image = Image.fromarray(np.clip(values * (255 if values.max() <= 1 else 1) + 0.5, 0, 255).astype(np.uint8))
    if image.mode.startswith("I"):
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        hole = values == image.info["transparency"] if "transparency" in image.info else np.zeros_like(values, bool)
        image = Image.fromarray(np.where(hole, 255, (values * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def save_image(path: Path | str, image: Image.Image, durable: bool = True) -> None:
    """Write an image, in the format that its name ends in, whole or not at all.

    Args:
        path: ends in .png, .jpg, .webp, or what else Pillow writes.
        image: RGB.
        durable: as in ``replacing``.

    Raises:
        UserError: there is no such format, or it does not take this image.
    """
    path, buffer = Path(path), io.BytesIO()
    if not is_format(path.suffix):
        raise UserError(f"There is no format for images that '{path.name}' could stand for: end it in .png or .jpg.")
    try:
        image.save(buffer, Image.registered_extensions()[path.suffix.lower()])
    except (OSError, ValueError) as error:  # in memory, so it is the image: too wide for JPEG or WebP
        what = f"of {image.width}x{image.height} pixels cannot be written as {path.suffix} ({printable(error, 80)})"
        raise UserError(f"An image {what}: give a name that ends in .png, or draw less.") from None
    with replacing(path, durable) as part:
        part.write_bytes(buffer.getvalue())  # Pillow does not look at how much of it the disk has taken


def is_format(suffix: str) -> bool:
    """Whether images can be written here under names with this ending; some need libraries, others take no colours."""
    with suppress(Exception):
        Image.new("RGB", (1, 1)).save(io.BytesIO(), Image.registered_extensions()[suffix.lower()])
        return True
    return False
