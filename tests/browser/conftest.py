"""A browser for tests of pages: the distribution's Chromium, driven by Playwright, which downloads none of its own.

A file of such tests begins with ``pytestmark = pytest.mark.xdist_group("browser")``: one process starts one browser.
"""

import os
from collections.abc import Iterator
from shutil import which
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = which("chromium") or which("chromium-browser")
ONLY_HERE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
TIMEOUT = 30_000  # milliseconds, of a busy machine


def is_here(url: str) -> bool:
    """Whether a request stays on this machine."""
    parts = urlsplit(url)
    return parts.scheme in ("file", "data", "blob", "about") or parts.hostname in ("127.0.0.1", "localhost")


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Chromium without a window; without one, tests are skipped, but fail under .ci/run, which installs it."""
    if CHROMIUM is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("no Chromium to open pages with: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=[ONLY_HERE], timeout=2 * TIMEOUT)
        yield opened
        opened.close()


@pytest.fixture
def complaints() -> list[str]:
    """What ``page`` has met that no page should have; a test that provokes some clears it."""
    return []


@pytest.fixture
def page(browser: "Browser", complaints: list[str]) -> "Iterator[Page]":
    """A page that fails its test at the end for an error in the console, an exception, a request that failed, or one
    that left this machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, service_workers="block")
    context.set_default_timeout(TIMEOUT)
    context.route(lambda url: not is_here(url), lambda route: route.abort())
    page = context.new_page()
    page.on("console", lambda said: complaints.append(f"console: {said.text}") if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(f"exception: {error}"))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url} {request.failure}"))
    page.on("request", lambda request: complaints.append(f"outside: {request.url}") if not is_here(request.url) else 0)
    page.on("websocket", lambda socket: complaints.append(f"outside: {socket.url}") if not is_here(socket.url) else 0)
    yield page
    context.close()
    assert complaints == []
