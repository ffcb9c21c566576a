"""Where modules come from: this project's, whatever else is on the path, and the user's own.

``callbacks`` and ``datamodules`` are also what people call such folders of their own. Every class path of this project
means its own files, and modules that only the user's folders have are found behind them.
"""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

from zoo.utils.errors import UserError
from zoo.utils.paths import PACKAGE

ROOT = PACKAGE.resolve().parent  # of the checkout, or the site-packages that a wheel is in
FIRST = PACKAGE.resolve() / "first"  # holds modules of these names, which become the packages
PACKAGES = ("callbacks", "datamodules")


def own_packages_first() -> None:
    """From now on these packages are this project's: for programs, not for who imports a library.

    A folder on the path reaches processes that multiprocessing spawns, which a finder of modules does not; and the
    packages' own may be site-packages, which comes after much else for good reasons.
    """
    if str(FIRST) not in sys.path:
        sys.path.insert(0, str(FIRST))


def become(name: str) -> None:
    """While a module is imported: put this project's package in its place, with the user's folders behind it."""
    found = PathFinder.find_spec(name, [str(ROOT)])
    found.submodule_search_locations += [str(place) for place in namesakes(name) if place.is_dir()]
    sys.modules[name] = module_from_spec(found)
    found.loader.exec_module(sys.modules[name])


def namesakes(name: str) -> list[Path]:
    """Other people's package or module of this name on the path; not those of another copy of this project."""
    folders = dict.fromkeys(Path(entry).resolve() for entry in sys.path)
    theirs = [folder for folder in folders if folder not in (ROOT, FIRST) and not (folder / "zoo" / "cli").is_dir()]
    package = [folder / name for folder in theirs if any((folder / name).glob("*.py"))]
    return package + [folder / f"{name}.py" for folder in theirs if (folder / f"{name}.py").is_file()]


def whose(name: str) -> str:
    """Which package of this name is meant, where there are several; nothing where there is one."""
    if name not in PACKAGES or not (others := namesakes(name)):
        return ""
    theirs = others[0]
    if theirs.is_dir():
        return f"'{name}' is the package in {ROOT}; a module that only {theirs} has is found as {name}.NAME."
    return f"'{name}' is the package in {ROOT}, not {theirs}: give that another name."


def working_folder_last() -> None:
    """Let modules in the working folder be imported, behind all others; Python does that for ``python -m`` only."""
    if (folder := os.getcwd()) not in sys.path and "" not in sys.path:
        sys.path.append(folder)


def trusted() -> list[str]:
    """Modules in $ZOO_TRUST, with commas between, which a config that comes with weights may name beside zoo's.

    Raises:
        UserError: it is something else.
    """
    names = [name.strip() for name in os.environ.get("ZOO_TRUST", "").split(",") if name.strip()]
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")) or name.split(".")[0] == "jsonargparse":
            raise UserError(f"$ZOO_TRUST has '{name}': it takes names of your own modules, such as mine or mine.parts.")
    return names
