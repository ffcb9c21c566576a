"""Where the files that come with the package lie, from a checkout as well as from an installed wheel."""

from pathlib import Path

PACKAGE = Path(__file__).parent
CONFIGS = next((d for d in (PACKAGE.parent / "configs", PACKAGE / "configs") if d.is_dir()), PACKAGE / "configs")
BUNDLED = PACKAGE / "weights" / "bundled"


def config_names() -> list[str]:
    """Names of the experiments, such as ``pigan/cars32``: files of the configs folder without their suffix."""
    files = CONFIGS.glob("*/*.yaml")
    return sorted(f"{f.parent.name}/{f.stem}" for f in files if f.parent.name != "overlays")


def bundled_names() -> list[str]:
    """Names of the weights that come with the package."""
    return sorted(f.parent.name for f in BUNDLED.glob("*/model.safetensors"))


def config_path(name: str) -> Path | None:
    """The file of an experiment (``pigan/cars32``) or overlay (``overlays/debug``); None where there is none."""
    path = CONFIGS / f"{name.removesuffix('.yaml').removeprefix('configs/')}.yaml"
    return path if path.is_file() else None
