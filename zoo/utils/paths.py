"""Paths of the files that come with the package, in a checkout and in an installed wheel."""

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent.parent
CONFIGS = next((d for d in (PACKAGE.parent / "configs", PACKAGE / "configs") if d.is_dir()), PACKAGE / "configs")
BUNDLED = PACKAGE / "weights" / "bundled"
# Of all formats that ``zoo.utils.images`` reads.
SUFFIXES = """
    .png .apng .jpg .jpeg .jpe .jfif .webp .bmp .dib .gif .tif .tiff .avif .avifs .jp2 .j2k .j2c .jpc .jpf .jpx
    .pbm .pgm .ppm .pnm .pfm .tga .icb .vda .vst .psd .qoi .ico .icns .cur .dds .pcx .dcx .sgi .rgb .rgba .bw .ras
    .im .msp .xbm .xpm .fit .fits .fli .flc .ftc .ftu .gbr .blp .pcd .pxr .mpo
"""
IMAGE_SUFFIXES = frozenset(SUFFIXES.split())


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image; hidden ones are other programs' notes or half-written."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return not last.startswith(".") and f".{last.rpartition('.')[2]}".lower() in IMAGE_SUFFIXES and "." in last


def config_names() -> list[str]:
    """Names of the experiments, such as ``pigan/cars32``: files of the configs folder without their suffix."""
    files = CONFIGS.glob("*/*.yaml")
    return sorted(f"{f.parent.name}/{f.stem}" for f in files if f.parent.name != "overlays")


def overlay_names() -> list[str]:
    """Names of the overlays, such as ``overlays/debug``."""
    return sorted(f"overlays/{f.stem}" for f in (CONFIGS / "overlays").glob("*.yaml"))


def system_names() -> list[str]:
    """Names of the systems, such as ``pigan``: the packages inside that hold a model."""
    return sorted(f.parent.name for f in PACKAGE.glob("*/model.py"))


def bundled_names() -> list[str]:
    """Names of the weights that come with the package."""
    return sorted(f.parent.name for f in BUNDLED.glob("*/model.safetensors"))


def cache_name() -> str:
    """$ZOO_CACHE, or its default; with a ~ where this user has no home."""
    return os.path.expanduser(os.environ.get("ZOO_CACHE") or "~/.cache/gan3d-zoo")


def cache_folder() -> Path:
    """Where things that can be made or fetched again are kept: $ZOO_CACHE, or ~/.cache/gan3d-zoo.

    Raises:
        UserError: nothing says where, or it is no folder.
    """
    from zoo.utils.errors import UserError

    folder = cache_name()
    if folder.startswith("~"):
        raise UserError(
            "There is no home folder for this user to keep files in: set $ZOO_CACHE to a folder that can be written to."
        )
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise UserError(f"'{folder}', where downloads are kept, is not a folder: set $ZOO_CACHE to one.")
    return Path(folder)


def is_cached() -> bool:
    """Whether there can be anything in the cache: it is known where that is, and there is such a folder."""
    return os.path.isdir(cache_name())


def downloaded_names() -> list[str]:
    """Names of the weights that ``zoo download`` has fetched and converted."""
    if not is_cached():
        return []
    names = sorted(f.parent.name for f in (cache_folder() / "weights").glob("*/model.safetensors"))
    return [name.replace("hf--", "hf:", 1).replace("--", "/") if name.startswith("hf--") else name for name in names]


def config_path(name: str) -> Path | None:
    """The file of an experiment (``pigan/cars32``) or overlay (``overlays/debug``); None where there is none."""
    path = CONFIGS / f"{name.removesuffix('.yaml').removeprefix('configs/')}.yaml"
    return path if path.is_file() else None


def read_experiment(name: str) -> dict[str, Any]:
    """The yaml of an experiment, given as a file or by name.

    Raises:
        FileNotFoundError: there is none.
        UserError: it is no yaml of names and values.
    """
    from zoo.utils.configs import read_mapping

    path = Path(name) if Path(name).is_file() else config_path(name)
    if path is None:
        found = get_close_matches(name, config_names(), n=1)
        hint = f" Did you mean '{found[0]}'?" if found else " 'zoo list' shows the names of experiments."
        raise FileNotFoundError(f"There is no experiment '{name}' and no such file.{hint}")
    return read_mapping(path)
