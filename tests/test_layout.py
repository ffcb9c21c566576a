"""The house: packages that import nothing before it is needed, offer what they say, and know only those below them."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import zoo

ROOT = Path(__file__).parent.parent
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


# ------------------------------------------------------------------------------------------------ who imports whom

# From top to bottom: a module imports its own room and those below, never another one of the same line.
ROOMS = [
    "cli",
    "callbacks datamodules leaderboard view",
    "evaluate export",
    "inversion",
    "weights",
    "systems",
    "training",
    "generator",
    "layers render",
    "draws losses utils",
]
RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms.split()}
SYSTEMS = {path.parent.name for path in ROOT.glob("zoo/*/model.py")}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("zoo", "callbacks", "datamodules")
    for path in (ROOT / folder).rglob("*.py")
    if path.parent.name != "first"  # the folder of modules that become packages
}
CARS_SCRIPT = "zoo.evaluate.train_cars_features"  # trains the cars' extractor


def room(module: str) -> str:
    """The room that a module is in; what converts a system's weights belongs to those."""
    first, *inner = module.split(".")
    if first != "zoo":
        return first
    if not inner or inner[0] == "__main__":
        return "cli"
    converts = inner[0] in SYSTEMS and inner[-1] in ("convert", "released")
    return "weights" if converts else "systems" if inner[0] in SYSTEMS else inner[0]


def imports(node: ast.AST, late: bool = False) -> Iterator[tuple[str, bool]]:
    """(module, whether it is imported later than the one that imports it), as the code has it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, late) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            inside = (f"{child.module}.{alias.name}" for alias in child.names)
            yield from ((name if name in FILES else child.module, late) for name in inside)
        typing = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        yield from imports(child, late or typing or isinstance(child, ast.FunctionDef))


EDGES = {module: set(imports(ast.parse(path.read_text()))) for module, path in FILES.items()}
IMPORTS = [(a, b) for a, found in EDGES.items() for b in sorted({name for name, _ in found} & FILES.keys() - {"zoo"})]


def test_no_circle_of_modules() -> None:
    """Whichever module somebody begins with, it can be imported."""
    TopologicalSorter({a: {b for b, late in found if not late} for a, found in EDGES.items()}).prepare()
    for module in FILES:
        if not module.endswith("__main__"):
            import_module(module)


def test_nothing_imports_upward_or_aside() -> None:
    wrong = [(a, b) for a, b in IMPORTS if room(a) != room(b) and RANK[room(a)] >= RANK[room(b)]]
    assert [pair for pair in wrong if pair[0] != CARS_SCRIPT or room(pair[1]) != "datamodules"] == []


def test_no_system_imports_another() -> None:
    systems = [(a, b) for a, b in IMPORTS if {f"{a}.".split(".")[1], f"{b}.".split(".")[1]} <= SYSTEMS]
    assert systems and [(a, b) for a, b in systems if a.split(".")[1] != b.split(".")[1]] == []


@pytest.mark.parametrize("system", sorted(SYSTEMS))
def test_a_model_is_the_paper_alone(system: str) -> None:
    """No Lightning, training or conversion, not even through what it imports."""
    reached, left = set(), [f"zoo.{system}.model"]
    while left:
        module = left.pop()
        reached.add(module)
        left += {name for name, _ in EDGES.get(module, ())} - reached
    ours = {name for name in reached if name in FILES and name != "zoo"}
    assert {room(name) for name in ours} <= {"systems", "generator", "layers", "render", "draws", "losses", "utils"}
    assert {name.split(".")[0] for name in reached} & {"pytorch_lightning", "lightning"} == set()
    assert f"zoo.{system}.training" not in ours


def test_datamodules_know_cameras_and_draws_alone() -> None:
    known = {"zoo.render.cameras", "zoo.render.dataset_poses", "zoo.render.rays", "zoo.draws"}
    of = [(a, b) for a, b in IMPORTS if room(a) == "datamodules" and room(b) not in ("datamodules", "utils")]
    assert of and [(a, b) for a, b in of if b not in known] == []
    users = {a for a, b in IMPORTS if room(b) == "datamodules" and room(a) not in ("datamodules", "cli")}
    assert users == {CARS_SCRIPT}


def test_files_are_short_and_where_they_belong() -> None:
    lines = {module: len(path.read_text().splitlines()) for module, path in FILES.items() if module[:3] == "zoo"}
    assert {module: count for module, count in lines.items() if count > 450} == {}
    top = {path.name for path in (ROOT / "zoo").glob("*.py")}
    assert top == {"__init__.py", "__main__.py", "draws.py", "generator.py", "losses.py"}
