"""The house: packages that import nothing before it is needed, and that offer what they say."""

import subprocess
import sys
from importlib import import_module
from pkgutil import walk_packages

import pytest

import callbacks
import datamodules
import zoo

PACKAGES = ["zoo"] + [m.name for m in walk_packages(zoo.__path__, "zoo.") if m.ispkg]
HEAVY = ("torch", "pytorch_lightning", "torchvision", "torchmetrics", "jsonargparse")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_offers_what_it_says(package: str) -> None:
    module = import_module(package)
    for name in getattr(module, "__all__", []):
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"'{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_packages_are_lazy() -> None:
    code = f"import sys, {', '.join(PACKAGES)}; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []


def test_every_module_can_be_imported_first() -> None:
    """No circle, whichever module somebody begins with."""
    found = [m.name for p in (zoo, callbacks, datamodules) for m in walk_packages(p.__path__, f"{p.__name__}.")]
    names = [name for name in found if not name.endswith("__main__")]
    code = (
        "import sys, torch, pytorch_lightning, jsonargparse, torchvision\n"
        "from importlib import import_module\n"
        "before = set(sys.modules)\n"
        f"for name in {names}:\n"
        "    import_module(name)\n"
        "    for other in set(sys.modules) - before:\n"
        "        if other.split('.')[0] in ('zoo', 'callbacks', 'datamodules'): del sys.modules[other]\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=120, check=True)
