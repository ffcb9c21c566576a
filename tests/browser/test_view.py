"""The viewer in a browser, on weights that come with the package."""

import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from PIL import Image

from zoo.view import Checkpoints, Shelf, server
from zoo.weights import load_bundle

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.xdist_group("browser")
SIZE = {"width": 900, "height": 600}  # of windows [pixels]: a CPU draws them
CANVAS = {"x": 0, "y": 200, "width": 500, "height": 390}  # below viser's note that it does, and beside the controls


class Served(NamedTuple):
    """A viewer that is being served, what it has said, and the folder of its files."""

    viewer: server.Viewer
    said: list[str]
    folder: Path

    @property
    def address(self) -> str:
        return self.said[0].split()[0]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The viewer of a small pi-GAN, on a port of its own."""
    pytest.importorskip("viser")
    made, said, stop, ready = [], [], threading.Event(), threading.Event()

    class Watched(server.Viewer):
        def __init__(self, *args) -> None:
            super().__init__(*args)
            made.append(self)

    def say(line: str) -> None:
        said.append(line)
        ready.set()

    monkeypatch.setattr(server, "Viewer", Watched)
    checkpoints, shelf = Checkpoints("pigan-cars32", load_bundle), Shelf(tmp_path / "views", "cars")
    options = {"port": 0, "say": say, "stop": stop}
    thread = threading.Thread(target=server.serve, args=(checkpoints, shelf), kwargs=options, daemon=True)
    thread.start()
    try:
        assert ready.wait(30)
        yield Served(made[0], said, shelf.folder)
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def seen(page: "Page") -> np.ndarray:
    """The middle of what is shown, [H, W, 3]."""
    return np.asarray(Image.open(BytesIO(page.screenshot(clip=CANVAS))).convert("RGB"), dtype=int)


def wait_until(happens: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Until something is so.

    Raises:
        AssertionError: it never is.
    """
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def at_rest(page: "Page") -> np.ndarray:
    """What is shown when it has stopped changing."""
    shots = [seen(page)]

    def rests() -> bool:
        time.sleep(0.4)
        shots.append(seen(page))
        return np.array_equal(*shots[-2:]) and bool((shots[-1].min(-1) < 128).any())

    wait_until(rests, "the image never comes to rest, or there is nothing in it")
    return shots[-1]


def opened(page: "Page", served: Served) -> np.ndarray:
    """What is shown once the page is there."""
    page.set_viewport_size(SIZE)
    page.goto(served.address)
    page.get_by_text("truncation").wait_for()
    return at_rest(page)


def drag(page: "Page", across: int, down: int) -> None:
    """Move the mouse with its button down [pixels]."""
    page.mouse.move(250, 300)
    page.mouse.down()
    page.mouse.move(250 + across, 300 + down, steps=2)
    page.mouse.up()


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of colours, from 0 to 255."""
    return float(np.abs(one - other).mean())


def test_a_mouse_turns_it_and_controls_change_it(served: Served, page: "Page") -> None:
    first = opened(page, served)
    drag(page, 150, 0)
    turned = at_rest(page)
    assert difference(first, turned) > 5
    (browser,) = served.viewer.browsers.values()
    assert browser.viewpoint().yaw != pytest.approx(browser.scene.stand.front.yaw, abs=0.1)
    page.get_by_text("Front view").click()
    assert difference(first, at_rest(page)) < 1
    page.locator("input[type=text]").first.fill("7")
    other = at_rest(page)
    assert browser.choice().index == 7 and difference(first, other) > 5

    page.get_by_text("Save image").click()
    wait_until(lambda: len(served.said) > 1, "no image was saved")
    path = served.folder / "cars-7-001.png"
    assert served.said[1:] == [str(path)] and Image.open(path).size == (32, 32)
    page.get_by_text(str(path)).wait_for()

    checkpoints, newer = served.viewer.checkpoints, [load_bundle("graf-cars64")]

    def look(say: Callable[[str], None]) -> bool:
        if newer:
            checkpoints.loaded = newer.pop()
            say("Now from elsewhere.")
            return True
        return False

    checkpoints.look = look
    page.get_by_text("Now from elsewhere.").wait_for()
    page.get_by_text("GRAF").wait_for()
    assert difference(other, at_rest(page)) > 5


def test_a_reload_and_two_clients(served: Served, page: "Page", browser: "Browser") -> None:
    first = opened(page, served)
    drag(page, 100, 60)
    assert difference(first, at_rest(page)) > 5
    page.reload()
    page.get_by_text("truncation").wait_for()
    assert difference(first, at_rest(page)) < 1  # from where everybody begins
    wait_until(lambda: len(served.viewer.browsers) == 1, "the state of a page that is gone is kept")

    context = browser.new_context()
    other = context.new_page()
    assert difference(first, opened(other, served)) < 1
    drag(other, 150, 0)
    assert difference(first, at_rest(other)) > 5 and difference(first, at_rest(page)) < 1
    assert len(served.viewer.browsers) == 2
    gone = next(b for b in served.viewer.browsers.values() if b.viewpoint() != b.scene.stand.front)
    context.close()
    wait_until(lambda: len(served.viewer.browsers) == 1, "the state of a page that is gone is kept")
    gone.touch()
    gone.draw()  # as when it goes while its image is rendered
    gone.save_image()
    drag(page, 100, 0)
    assert difference(first, at_rest(page)) > 5
