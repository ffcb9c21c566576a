"""``zoo view``: an interactive viewer in the browser."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.options import SampleOptions
from zoo.utils.devices import use_device
from zoo.utils.errors import UserError
from zoo.utils.ranges import between
from zoo.utils.targets import folder_target
from zoo.weights.find import find

if TYPE_CHECKING:
    from zoo.generator import Generator
    from zoo.weights.bundle import BundleInfo


def run(out: Path = Path("views"), host: str = "127.0.0.1", port: int = 8080, **drawn: Any) -> None:
    """Show objects in the browser, to turn with the mouse, and save images, camera paths and meshes of them. The source
    may also be the folder of a run, whose newest checkpoint is shown, and later ones as they are written.

    Args:
        out: the folder that everything saved goes into, made when it is needed.
        host: address to listen at; by default browsers of this machine alone can look.
        port: to listen at; where it is taken, the next free one.
    """
    options = SampleOptions(**drawn)
    between(0, 2**16 - 1, port=port)
    out = folder_target(out)
    if not Path(options.source).is_dir():  # of a run, too
        find(options.source)
    if find_spec("viser") is None:
        raise UserError("The viewer needs viser: pip install 'gan3d-zoo[view]'.")
    from zoo.view import Checkpoints, Shelf, serve
    from zoo.view.server import Defaults
    from zoo.weights import load_bundle

    device = use_device(options.device)

    def load(source: str) -> "tuple[Generator, BundleInfo]":
        generator, info = load_bundle(source, options.resolution)
        return generator.to(device), info

    checkpoints = Checkpoints(options.source, load)
    path = Path(options.source)
    name = path.resolve().name if path.is_dir() else checkpoints.loaded[1].name
    serve(checkpoints, Shelf(out, name), Defaults(**options.drawn), host=host, port=port)
