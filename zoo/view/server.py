"""The viewer in the browser: viser's server, and for each browser its own controls, camera and image.

Browsers say what changed in threads of viser's; all that renders or writes files happens in the thread of ``serve``, so
nothing here is locked. Viser's client comes with its package and asks for nothing else.
"""

import errno
import io
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from zoo.export.images import to_pil_image
from zoo.generator import Generator, HasDensity, HasRays, HasSurface
from zoo.utils.errors import Stopped, UserError, disk_problem, mendable, printable
from zoo.utils.memory import out_of_memory
from zoo.view.checkpoints import Checkpoints
from zoo.view.origins import own_page_only
from zoo.view.saving import Shelf
from zoo.view.scene import EDIT_FRAMES, Choice, Scene
from zoo.view.viewpoints import CameraPath, Viewpoint
from zoo.weights.bundle import BundleInfo

if TYPE_CHECKING:
    from viser import ClientHandle, ViserServer

REST = 0.2  # seconds without a change, after which the whole resolution is rendered
TICK = 0.05  # seconds between two looks at what browsers want
LOOK = 1.0  # seconds between two looks for a newer checkpoint
TRIES = 100  # ports after one that is taken
CANVAS = 512  # least side of an image that is sent [pixels]; smaller ones are enlarged
LARGEST_INDEX = 2**31 - 1  # of a sample
FIXED, VIEW, KEPT = "the system's choice", "the view", "this view, kept"


class Defaults(NamedTuple):
    """What controls say at first, and the seed of the set of samples."""

    seed: int = 0
    truncation: float = 1.0
    resolution: int | None = None


def serve(
    checkpoints: Checkpoints[tuple[Generator, BundleInfo]],
    shelf: Shelf,
    defaults: Defaults = Defaults(),
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    say: Callable[[str], None] = print,
    stop: threading.Event | None = None,
) -> None:
    """Show the weights to all browsers that come, until somebody stops it, by Ctrl-C or this event.

    Args:
        checkpoints: of the weights.
        shelf: where files go.
        defaults: of the controls.
        host, port: where to listen; the next free port where this one is taken.
        say: what is called with lines for the user, the address first.

    Raises:
        UserError: it is not possible to listen there.
    """
    from viser import ViserServer

    free = free_port(host, port)
    if free != port and port:
        say(f"Port {port} is taken.")
    with redirect_stdout(io.StringIO()), own_page_only(host, say):  # the former for viser's own words
        server = ViserServer(host, free, label="zoo view", verbose=False)
    viewer = Viewer(server, checkpoints, shelf, defaults, say)
    try:
        shown = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        say(f"http://{shown}:{server.get_port()} (Ctrl-C ends it)")
        with suppress(KeyboardInterrupt):
            while stop is None or not stop.is_set():
                viewer.changed.wait(TICK)
                viewer.changed.clear()
                viewer.step()
    finally:
        with redirect_stdout(io.StringIO()):
            server.stop()


def free_port(host: str, port: int) -> int:
    """This port, or the next one that is free; 0 stands for any.

    Raises:
        UserError: nobody can listen there.
    """
    for candidate in range(port, min(port + TRIES, 2**16)):
        try:
            family, *_, address = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0]
            with socket.create_server(address[:2], family=family) as found:
                return found.getsockname()[1]
        except OSError as error:
            if error.errno == errno.EACCES:
                raise UserError(f"This user may not listen on port {candidate}: give a --port from 1024 on.") from None
            if error.errno != errno.EADDRINUSE:
                shown = printable(host, 60)
                raise UserError(
                    f"'{shown}' is no address of this machine: leave out --host, or give 0.0.0.0 for all of them."
                ) from None
    raise UserError(f"Port {port} and those after it are taken: give another --port.")


class Viewer:
    """All browsers, and the weights that they look at."""

    def __init__(
        self,
        server: "ViserServer",
        checkpoints: Checkpoints[tuple[Generator, BundleInfo]],
        shelf: Shelf,
        defaults: Defaults,
        say: Callable[[str], None],
    ) -> None:
        self.checkpoints, self.shelf, self.defaults, self.say = checkpoints, shelf, defaults, say
        self.browsers: dict[int, Browser] = {}
        self.changed = threading.Event()
        self.looked = time.monotonic()
        scene = self.scene()
        server.scene.set_up_direction("+y")
        server.gui.configure_theme(show_logo=False, show_share_button=False, control_width="large")
        server.gui.main_panel.dock_right()
        server.request_share_url = lambda *_, **__: None  # would ask a server of viser's authors for a tunnel
        camera, stand = server.initial_camera, scene.stand
        camera.position, camera.look_at, camera.fov = stand.position(stand.front), stand.pivot, stand.fov
        server.on_client_connect(self.enter)
        server.on_client_disconnect(self.leave)

    def scene(self) -> Scene:
        """The weights of today, for one browser."""
        return Scene(self.checkpoints.loaded[0], self.defaults.seed)

    @property
    def title(self) -> str:
        """What is shown, as Markdown."""
        _, info = self.checkpoints.loaded
        seen = info.card.get("images_seen", "")
        trained = f"{int(seen):,} images seen" if seen.isdigit() else ""
        return f"**{self.shelf.name}**: " + ", ".join(filter(None, (info.card.get("system"), trained)))

    def enter(self, client: "ClientHandle") -> None:
        """A browser has opened the page."""
        self.browsers[client.client_id] = Browser(client, self)
        self.changed.set()

    def leave(self, client: "ClientHandle") -> None:
        """A browser has closed the page, or loads it again."""
        self.browsers.pop(client.client_id, None)

    def tell(self, line: str) -> None:
        """Say something here and in all browsers."""
        self.say(line)
        for browser in [*self.browsers.values()]:
            browser.client.add_notification("Weights", line, auto_close_seconds=10)

    def step(self) -> None:
        """Load what is newer, and do what browsers want."""
        if time.monotonic() - self.looked > LOOK:
            self.looked = time.monotonic()
            if self.checkpoints.look(self.tell):
                for browser in [*self.browsers.values()]:
                    browser.take(self.scene())
        for browser in [*self.browsers.values()]:
            browser.work()
            browser.draw()


class Browser:
    """What one browser shows, and its controls."""

    def __init__(self, client: "ClientHandle", viewer: Viewer) -> None:
        self.client, self.viewer, self.scene = client, viewer, viewer.scene()
        self.jobs: deque[Callable[[], None]] = deque()
        self.path, self.kept = CameraPath(), self.scene.stand.front
        self.waits, self.touched, self.drawn, self.refused = True, 0.0, None, ""
        self.controls: dict[str, Any] = {}
        self.parts: dict[str, Any] = {}
        stand, camera = self.scene.stand, client.camera
        camera.min_orbit_distance, camera.max_orbit_distance = stand.radius / 5, stand.radius * 5
        self.title = client.gui.add_markdown(viewer.title)
        with client.gui.add_folder("Object"):
            self.add_object()
        with client.gui.add_folder("View"):
            self.add_view()
        with client.gui.add_folder("Save"):
            self.add_files()
        for control in [*self.controls.values(), *self.parts.values()]:
            control.on_update(self.touch)
        camera.on_update(self.touch)

    def add_object(self) -> None:
        """Controls of what is looked at."""
        gui, controls, defaults = self.client.gui, self.controls, self.viewer.defaults
        whole = {"min": 0, "max": LARGEST_INDEX, "step": 1}
        controls["index"] = gui.add_number("seed", 0, **whole, hint="as of zoo sample --seeds")
        controls["other"] = gui.add_number("second seed", 1, **whole)
        controls["mix"] = gui.add_slider("interpolate", 0.0, 1.0, 0.01, 0.0, hint="from the first seed to the second")
        if parts := self.scene.parts():
            with gui.add_folder("parts that are interpolated", expand_by_default=False):
                self.parts = {name: gui.add_checkbox(name.replace("_", " "), True) for name in parts}
        controls["truncation"] = gui.add_slider(
            "truncation", min(0.0, defaults.truncation), max(1.5, defaults.truncation), 0.05, defaults.truncation
        )
        if edits := self.scene.edits():
            controls["edit"] = gui.add_dropdown("edit", ["none", *edits])
            controls["frame"] = gui.add_slider("frame of the edit", 0, EDIT_FRAMES - 1, 1, 0)
        if self.scene.generator.is_conditioned:
            controls["condition"] = gui.add_dropdown(
                "conditioned on", [FIXED, VIEW, KEPT], hint="the camera that the object is made for"
            )
            controls["condition"].on_update(self.keep)

    def add_view(self) -> None:
        """Controls of how it is looked at."""
        gui, controls = self.client.gui, self.controls
        controls["shown"] = gui.add_dropdown("show", self.scene.kinds())
        side = self.scene.generator.image_side(self.viewer.defaults.resolution)
        sides = [str(s) for s in sorted({*self.scene.sides(), side})]
        controls["resolution"] = gui.add_dropdown("resolution", sides, initial_value=str(side))
        gui.add_button("Front view", icon="home").on_click(lambda _: self.look_from(self.scene.stand.front))

    def add_files(self) -> None:
        """Buttons that save."""
        gui = self.client.gui
        gui.add_button("Save image", icon="photo").on_click(lambda _: self.later(self.save_image))
        if isinstance(self.scene.generator, HasRays) and isinstance(self.scene.generator, HasDensity | HasSurface):
            gui.add_button("Save mesh", icon="box").on_click(lambda _: self.later(self.save_mesh))
        gui.add_button("Add keyframe", icon="plus").on_click(lambda _: self.keyframes(self.path_on()))
        gui.add_button("Forget keyframes", icon="x").on_click(lambda _: self.keyframes(CameraPath()))
        self.video = gui.add_dropdown("video", [".gif", ".webp", ".mp4"])
        self.save = gui.add_button("Save camera path", icon="movie", disabled=True)
        self.save.on_click(lambda _: self.later(self.save_path))
        self.files = gui.add_markdown("")

    # What viser's threads call

    def touch(self, _: Any = None) -> None:
        """A control or the camera has changed."""
        self.touched, self.waits = time.monotonic(), True
        self.viewer.changed.set()

    def keep(self, _: Any) -> None:
        """Keep this view to be conditioned on."""
        self.kept = self.viewpoint()

    def later(self, job: Callable[[], None]) -> None:
        """Have the thread that renders do this."""
        self.jobs.append(job)
        self.viewer.changed.set()

    def look_from(self, viewpoint: Viewpoint) -> None:
        """Move the browser's camera."""
        camera, stand = self.client.camera, self.scene.stand
        with self.client.atomic():
            camera.position, camera.look_at = stand.position(viewpoint), stand.pivot
        self.touch()

    def path_on(self) -> CameraPath:
        """The camera path, with this view at its end."""
        return self.path.with_keyframe(self.viewpoint())

    def keyframes(self, path: CameraPath) -> None:
        """Another camera path."""
        self.path = path
        count = len(path.keyframes)
        self.save.label = f"Save camera path ({count} keyframe{'s' * (count > 1)})" if count else "Save camera path"
        self.save.disabled = count < 2

    # What the thread that renders calls

    def take(self, scene: Scene) -> None:
        """Show other weights."""
        self.scene, self.drawn, self.waits = scene, None, True
        self.title.content = self.viewer.title

    def viewpoint(self) -> Viewpoint:
        """Where the browser's camera looks from."""
        return self.scene.stand.seen_from(self.client.camera.position, self.client.camera.look_at)

    def choice(self) -> Choice:
        """What the controls say."""
        said = {name: control.value for name, control in self.controls.items()}
        edit = said.get("edit", "none")
        conditions = {VIEW: self.viewpoint, KEPT: lambda: self.kept}
        return Choice(
            index=int(said["index"]),
            other=int(said["other"]),
            mix=float(said["mix"]),
            parts=tuple(name for name, box in self.parts.items() if box.value) if self.parts else None,
            edit=None if edit == "none" else edit,
            frame=int(said.get("frame", 0)),
            truncation=float(said["truncation"]),
            condition=conditions.get(said.get("condition"), lambda: None)(),
        )

    @property
    def shown(self) -> str:
        """Which kind of image."""
        return self.controls["shown"].value

    @property
    def resolution(self) -> int:
        """Side of the image at rest [pixels]."""
        return int(self.controls["resolution"].value)

    def work(self) -> None:
        """Save what was asked for."""
        while self.jobs:
            self.attempt(self.jobs.popleft())

    def draw(self) -> None:
        """Show the image, if it is another one: a smaller one, where it takes long, until nothing moves."""
        if self.waits:
            moves = self.waits = time.monotonic() - self.touched < REST
            self.attempt(partial(self.render, moves))

    def render(self, moves: bool) -> None:
        """Send one image to the browser."""
        side = self.scene.moving_side(self.resolution) if moves else self.resolution
        camera = self.client.camera
        aspect = float(np.clip(camera.image_width / max(1, camera.image_height), 0.1, 10))
        wanted = (self.choice(), self.viewpoint(), self.shown, side, aspect)
        if wanted != self.drawn:
            picture = self.scene.picture(*wanted[:4])
            self.client.scene.set_background_image(on_canvas(picture, aspect), "jpeg", jpeg_quality=95)
            self.drawn = wanted

    def attempt(self, job: Callable[[], None]) -> None:
        """Do something; what a user can mend is shown, once, and the image stays as it is."""
        try:
            job()
        except Exception as error:
            if (sentence := sentence_of(error)) is None:
                raise
            if sentence != self.refused:
                self.client.add_notification("This did not work", sentence, color="red", auto_close_seconds=20)
            self.refused = sentence
        else:
            self.refused = ""

    def save_image(self) -> None:
        """Write what is seen."""
        shelf, choice = self.viewer.shelf, self.choice()
        self.announce(shelf.save_image(self.scene, choice, self.viewpoint(), self.shown, self.resolution))

    def save_mesh(self) -> None:
        """Write the object's surface."""
        self.announce_later("a mesh", lambda: self.viewer.shelf.save_mesh(self.scene, self.choice()))

    def save_path(self) -> None:
        """Write the camera path and its video."""
        shown = (self.shown, self.resolution, self.video.value)
        self.announce_later(
            "a video", lambda: self.viewer.shelf.save_path(self.scene, self.choice(), self.path, *shown)
        )

    def announce_later(self, what: str, save: Callable[[], list[Path]]) -> None:
        """Say that something is being written, which takes a while, and then where it is."""
        note = self.client.add_notification(f"Writing {what}", "This takes a while.", loading=True)
        self.client.flush()
        try:
            self.announce(save())
        finally:
            note.remove()

    def announce(self, paths: Sequence[Path]) -> None:
        """Say where files are."""
        for path in paths:
            self.viewer.say(str(path))
        self.files.content = "\n\n".join(["saved:", *(f"`{path.absolute()}`" for path in paths)])


def sentence_of(error: Exception) -> str | None:
    """What to say of an error that a user can mend; None of a bug."""
    if isinstance(error, Stopped):
        return str(error)
    if place := out_of_memory(error):
        return f"There is not enough memory on {place} for this: choose a lower resolution."
    if problem := disk_problem(error):
        return f"'{printable(error.filename, 120)}': {problem}."
    return mendable(error)


def on_canvas(picture: Tensor, aspect: float) -> np.ndarray:
    """An image uint8 [3, H, W], enlarged smoothly, with white beside it, as wide as a browser's, [h, w, 3]."""
    side = max(CANVAS, picture.shape[-1])
    pixels = np.asarray(to_pil_image(picture).resize((side, side), Image.Resampling.BICUBIC))
    across, down = (round(side * max(1.0, share)) - side for share in (aspect, 1 / aspect))
    edges = [(down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0)]
    return np.pad(pixels, edges, constant_values=255)
