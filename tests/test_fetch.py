"""Files come whole and checked or not at all, whatever the server does."""

import hashlib
import io
import json
import multiprocessing
import re
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.servers import serving
from zoo.weights import fetch as module
from zoo.weights.catalogue import Address
from zoo.weights.fetch import NotFetched, RetryPolicy, fetch

pytestmark = pytest.mark.xdist_group("processes")

BODY = bytes(range(256)) * 4096 * 3  # 3 MiB
SHA256 = hashlib.sha256(BODY).hexdigest()
QUICK = RetryPolicy(timeout=5, attempts=3, wait=0.01, max_wait=0.2, min_speed=1000)
PAGE = b"<!DOCTYPE html><html><head><title>Sign in - \x07 Accounts</title></head>hello</html>"


def get(folder: Path, *urls: str, sha256: str = SHA256[:8], kind: str = "web", retry: RetryPolicy = QUICK) -> Path:
    fetch([Address(kind, url) for url in urls], folder / "file.pth", sha256, retry)
    return folder / "file.pth"


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "file.pth")


def in_turn(*answers):
    """A script that answers one way after the other; the last one stays."""
    left = list(answers)
    return lambda request: (left.pop(0) if len(left) > 1 else left[0])(request)


def test_a_file_is_fetched_once(tmp_path):
    with serving(lambda request: request.give(BODY)) as server:
        path = get(tmp_path, server.address)
        assert path.read_bytes() == BODY and not leftovers(tmp_path)
        get(tmp_path, server.address)
        assert len(server.asked) == 1
    path.write_bytes(BODY[:-1])
    with pytest.raises(ValueError, match=f"sha256 .*, but the published one begins with {SHA256[:8]}: delete it"):
        get(tmp_path, "http://127.0.0.1:1")


def test_a_cut_connection_goes_on_where_it_was(tmp_path):
    cut, whole = (lambda r: r.give(BODY, stop=2**20 + 5)), (lambda r: r.give(BODY))
    with serving(in_turn(cut, whole)) as server:
        assert get(tmp_path, server.address).read_bytes() == BODY
    assert [headers.get("Range") for _, headers in server.asked] == [None, f"bytes={2**20 + 5}-"]
    assert server.asked[1][1]["If-Range"] == '"v1"' and not leftovers(tmp_path)


def test_a_connection_that_is_cut_again_and_again_gets_there_while_it_brings_something(tmp_path):
    pieces = [lambda r, n=n: r.give(BODY, stop=n * 2**20 // 2 + 1) for n in range(2, 6, 2)]
    none = [lambda r: r.say(503)] * 2
    with serving(in_turn(*none, *pieces, *none, lambda r: r.give(BODY))) as server:
        assert get(tmp_path, server.address).read_bytes() == BODY
    assert len(server.asked) == 7


def test_what_another_process_left_is_continued_only_if_it_is_of_the_same_file(tmp_path):
    for tag, ranges in (('"v1"', [f"bytes={2**20}-"]), ('"v2"', [f"bytes={2**20}-"]), ("", [None])):
        (tmp_path / "file.pth").unlink(missing_ok=True)
        with serving(lambda r, tag=tag: r.give(BODY, tag)) as server:
            url = f"{server.address}/x"
            (tmp_path / "file.pth.part").write_bytes((BODY if tag == '"v1"' else b"x" * 2**20)[: 2**20])
            note = {"url": url, "tag": '"v1"'} if tag else {"url": "http://elsewhere", "tag": '"v1"'}
            (tmp_path / "file.pth.part.json").write_text(json.dumps(note))
            assert get(tmp_path, url).read_bytes() == BODY and not leftovers(tmp_path)
            assert [headers.get("Range") for _, headers in server.asked] == ranges


def test_without_a_version_a_part_is_continued_only_where_a_hash_can_tell(tmp_path):
    for sha256, ranges in (("", [None, None]), (SHA256, [None, f"bytes={2**20}-"])):
        (tmp_path / "file.pth").unlink(missing_ok=True)
        with serving(in_turn(lambda r: r.give(BODY, "", 2**20), lambda r: r.give(BODY, ""))) as server:
            assert get(tmp_path, server.address, sha256=sha256).read_bytes() == BODY
            assert [headers.get("Range") for _, headers in server.asked] == ranges


def test_a_server_that_continues_elsewhere_is_asked_from_the_beginning(tmp_path):
    wrong = lambda r: r.say(206, BODY[7:], Content_Range=f"bytes 7-{len(BODY) - 1}/{len(BODY)}")  # noqa: E731
    with serving(in_turn(lambda r: r.give(BODY, stop=2**20), wrong, lambda r: r.give(BODY))) as server:
        assert get(tmp_path, server.address).read_bytes() == BODY and len(server.asked) == 3


def redirect(request) -> None:
    request.say(302, Location=request.path + "x" if request.path.startswith("/on") else "/there")


def in_seconds(seconds: float) -> str:
    """A date as servers write it."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


def more(request) -> None:
    """A part that is longer than the file, as the server itself says."""
    request.say(206, BODY + b"more", Content_Range=f"bytes 0-{len(BODY) - 1}/{len(BODY)}")


FAILURES = {
    "cut": (lambda r: r.give(BODY, "", 1000), "was truncated after 1,000 of 3,145,728 bytes .3 attempts", 3),
    "cut in chunks": (lambda r: chunked(r), "was truncated after", 3),
    "corrupt": (lambda r: r.give(b"x" + BODY[1:]), "which does not begin with", 2),
    "short": (lambda r: r.give(BODY[:-9]), "which does not begin with", 2),
    "long": (lambda r: r.give(BODY + b"more"), "which does not begin with", 2),
    "longer than it says": (lambda r: r.say(200, BODY + b"more", len(BODY) - 5), "which does not begin with", 2),
    "endless": (lambda r: r.say(200, BODY, length=2**40), "claims 1,099,511,627,776 bytes", 1),
    "empty": (lambda r: r.say(200), "sent an empty file", 1),
    "silent": (lambda r: time.sleep(0.8), "cannot be reached .timed out", 2),
    "slow": (lambda r: r.drip(BODY[:400], 0.02), "bytes per second, which is too slow", 2),
    "403": (lambda r: r.say(403, b"no"), "denies access .403", 1),
    "404": (lambda r: r.say(404, PAGE), "has no such file .404", 1),
    "418": (lambda r: r.say(418), "answers with error 418", 1),
    "429": (lambda r: r.say(429), "rejects too many requests .429. .3 attempts", 3),
    "429 for an hour": (lambda r: r.say(429, Retry_After="3600"), "a retry after 3600 seconds .429", 1),
    "429 until tomorrow": (lambda r: r.say(429, Retry_After=in_seconds(86400)), "retry after 86[34].. seconds", 1),
    "500": (lambda r: r.say(500), "is not available .500. .3 attempts", 3),
    "nowhere": (lambda r: r.say(302, Location="http://[::1"), "redirects to an invalid address .Invalid IPv6", 1),
    "no name": (lambda r: r.say(302, Location="http://a..b/"), "redirects to an invalid address", 1),
    "200 with odd length": (lambda r: r.say(200, BODY[:-9], "\xb2"), "does not begin with", 2),
    "in escape codes": (lambda r: r.raw(b"HTTP/1.1 \x1b[31mred\x07\r\n\r\n"), r"be reached \(HTTP/1.1 \[31mred", 3),
    "titled": (lambda r: r.say(200, b"<html><title>\x1b[2J\nlost"), r"a web page .'\[2J lost'", 1),
    "page without end": (lambda r: r.say(200, b"<html>" + b"<title" * 2**20), "a web page .'no title'", 1),
    "gated": (lambda r: r.say(403, X_Error_Code="GatedRepo"), "is gated .403.: accept its terms there", 1),
    "more than announced": (lambda r: more(r), "sends more than the 3,145,728 bytes that it announces", 3),
    "circle": (redirect, "has a redirect that cannot be followed .302", 5),
    "on and on": (lambda r: r.say(302, Location=f"{r.path}x"), "has a redirect that cannot be followed .302", 11),
    "to a file": (
        lambda r: r.say(302, Location="file:///etc/passwd"),
        "has a redirect that cannot be followed .302",
        1,
    ),
    "page": (lambda r: r.say(200, PAGE), r"a web page .'Sign in - Accounts'. instead of the file", 1),
    "quota": (lambda r: r.say(200, b"<html>Quota exceeded"), "its download quota is exceeded; try again in a day", 1),
    "LFS": (
        lambda r: r.say(200, b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
        "pointer of Git LFS",
        1,
    ),
    "gzip": (lambda r: r.say(200, b"\x1f\x8b\x08 and more"), "sent a gzip archive", 1),
    "compressed": (lambda r: r.say(200, BODY, Content_Encoding="gzip"), "sends a compressed file", 1),
}


def chunked(request) -> None:
    """A chunk, and then nothing."""
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"5\r\nhello\r\n10\r\nhal")


@pytest.mark.parametrize(("script", "message", "requests"), FAILURES.values(), ids=FAILURES)
def test_what_a_server_does_is_said_and_the_next_address_is_tried(tmp_path, script, message, requests):
    hasty = "timed out" in message or "too slow" in message
    retry = RetryPolicy(0.2, 2, 0.01, 0.2, 1000) if hasty else QUICK
    with serving(script) as bad, serving(lambda r: r.give(BODY)) as good:
        with pytest.raises(NotFetched, match=message) as error:
            get(tmp_path, f"{bad.address}/file", retry=retry)
        assert len(bad.asked) == requests
        assert f"{bad.address}/file" in str(error.value) and str(error.value).isprintable() and error.value.code == 1
        assert not (tmp_path / "file.pth").exists()
        assert get(tmp_path, bad.address, good.address, retry=retry).read_bytes() == BODY


def test_a_server_that_is_not_there(tmp_path):
    with pytest.raises(NotFetched, match=r"file\.pth could not be fetched: http://127\.0\.0\.1:1 cannot be reached"):
        get(tmp_path, "http://127.0.0.1:1")
    assert not leftovers(tmp_path)


def test_a_server_that_says_when_to_come_back(tmp_path):
    with serving(in_turn(lambda r: r.say(429, Retry_After="0.15"), lambda r: r.give(BODY))) as server:
        before = time.monotonic()
        get(tmp_path, server.address)
        assert time.monotonic() - before > 0.15


def test_a_server_that_says_so_with_a_date(tmp_path):
    assert module.seconds(in_seconds(100)) == pytest.approx(100, abs=2)
    assert module.seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert module.seconds("soon") is None and module.seconds("Mon, 99 Foo 2015 07:28:00") is None
    with serving(in_turn(lambda r: r.say(503, Retry_After=in_seconds(-5)), lambda r: r.give(BODY))) as server:
        assert get(tmp_path, server.address, retry=RetryPolicy(5, 2, 999, 999)).read_bytes() == BODY


def test_slow_but_steady_progress_counts(tmp_path):
    pieces = [lambda r, n=n: r.give(BODY, stop=n * 2**18 + 1) for n in range(1, 12)]  # each less than a MiB
    with serving(in_turn(*pieces, lambda r: r.give(BODY))) as server:
        assert get(tmp_path, server.address).read_bytes() == BODY and len(server.asked) == 12


@pytest.mark.parametrize("announced", [True, False])
def test_nothing_stays_of_an_endless_body(tmp_path, monkeypatch, announced):
    monkeypatch.setattr(module, "LARGEST", 2**20)

    def endless(request) -> None:
        head = b"Content-Range: bytes 0-9/1000\r\n" if announced else b""
        request.raw(b"HTTP/1.1 206 OK\r\n" + head + b"\r\n" if announced else b"HTTP/1.1 200 OK\r\n\r\n", BODY)

    said = "announces" if announced else "sends more than 1,048,576 bytes"
    with serving(endless) as server, pytest.raises(NotFetched, match=said):
        get(tmp_path, server.address, sha256="")
    assert not leftovers(tmp_path) and not (tmp_path / "file.pth").exists()


def test_nothing_stays_of_a_body_without_end_that_fills_the_disk(tmp_path, monkeypatch):
    copy = module.copy

    def full(*args) -> None:
        copy(*args)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "copy", full)
    script = lambda r: r.raw(b"HTTP/1.1 200 OK\r\n\r\n", BODY)  # noqa: E731
    with serving(script) as server, pytest.raises(OSError, match="No space left"):
        get(tmp_path, server.address)
    assert not leftovers(tmp_path)


def test_offline(tmp_path, monkeypatch):
    with serving(lambda r: r.give(BODY)) as server:
        monkeypatch.setenv("ZOO_OFFLINE", "1")
        with pytest.raises(NotFetched, match=r"ZOO_OFFLINE.*put it at .*file\.pth"):
            get(tmp_path, server.address)
        assert not server.asked and not leftovers(tmp_path)
        (tmp_path / "file.pth").write_bytes(BODY)
        get(tmp_path, server.address)


def test_no_space_left(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=9))
    with serving(lambda r: r.give(BODY)) as server, pytest.raises(OSError, match="No space left") as error:
        get(tmp_path, server.address)
    assert error.value.filename.endswith("file.pth.part") and not leftovers(tmp_path)


def test_a_disk_that_runs_full_is_named(tmp_path, monkeypatch):
    def full(*args) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "copy", full)
    with serving(lambda r: r.give(BODY)) as server, pytest.raises(OSError, match="No space left") as error:
        get(tmp_path, server.address)
    assert error.value.filename == str(tmp_path / "file.pth")


def test_a_long_wait_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    with serving(in_turn(lambda r: r.say(503, Retry_After="7"), lambda r: r.give(BODY))) as server:
        get(tmp_path, server.address, retry=replace(QUICK, max_wait=60))
    assert re.fullmatch(r"127\.0\.0\.1 .*503.*: trying again in 7 s\.\n", capsys.readouterr().err)


def test_a_bar_shows_on_terminals_how_far_it_is(tmp_path, monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    with serving(in_turn(lambda r: r.give(BODY, stop=2**20), lambda r: r.give(BODY))) as server:
        get(tmp_path, server.address)
    assert "file.pth:" in screen.getvalue() and "3.15M/3.15M" in screen.getvalue()


def fetched(folder: str, url: str, results) -> None:
    results.put(fetch([Address("web", url)], Path(folder) / "file.pth", SHA256))


def test_two_processes_at_once_fetch_once(tmp_path):
    def slowly(request) -> None:
        time.sleep(0.3)
        request.give(BODY)

    context = multiprocessing.get_context("fork")
    results = context.Queue()
    with serving(slowly) as server:
        both = [context.Process(target=fetched, args=(str(tmp_path), server.address, results)) for _ in range(2)]
        for process in both:
            process.start()
        assert [results.get(timeout=20) for _ in both] == [SHA256] * 2
        for process in both:
            process.join(timeout=20)
        assert [process.exitcode for process in both] == [0, 0] and len(server.asked) == 1
    assert not leftovers(tmp_path) and (tmp_path / "file.pth").read_bytes() == BODY


def test_a_killed_process_leaves_a_part_that_the_next_one_continues(tmp_path):
    arrived = threading.Event()

    def slowly(request) -> None:
        if "Range" in request.headers:
            request.give(BODY)
        else:
            request.give(BODY, stop=2**20)
            arrived.wait(10)

    context = multiprocessing.get_context("fork")
    with serving(slowly) as server:
        process = context.Process(target=fetched, args=(str(tmp_path), server.address, context.Queue()))
        process.start()
        end = time.monotonic() + 10
        part = tmp_path / "file.pth.part"
        while not (part.exists() and part.stat().st_size >= 2**19) and time.monotonic() < end:
            time.sleep(0.01)
        process.kill()
        process.join(timeout=10)
        arrived.set()
        assert part.stat().st_size >= 2**19 and not (tmp_path / "file.pth").exists()
        get(tmp_path, server.address)
        assert int(server.asked[-1][1]["Range"].removeprefix("bytes=").rstrip("-")) >= 2**19
    assert (tmp_path / "file.pth").read_bytes() == BODY and not leftovers(tmp_path)


# Hosts


def drive(request) -> None:
    """As Google Drive: large files want a confirmation, with a number of the moment."""
    if "uuid=7" in request.path and "confirm=t" in request.path and "id=abc" in request.path:
        request.give(BODY)
    else:
        fields = {"id": "abc", "export": "download", "confirm": "t", "uuid": "7"}
        inputs = "".join(f'<input type="hidden" name="{name}" value="{value}">' for name, value in fields.items())
        page = '<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title><form id="download-form" '
        request.say(200, (page + f'action="/download" method="get">{inputs}</form></html>').encode())


def test_google_drive_is_confirmed(tmp_path, monkeypatch):
    with serving(drive) as server:
        monkeypatch.setattr(module, "DRIVE", f"{server.address}/download")
        get(tmp_path, "https://drive.google.com/file/d/abc/view", kind="drive")
        assert [path.split("&")[0] for path, _ in server.asked] == ["/download?id=abc"] * 2
    assert (tmp_path / "file.pth").read_bytes() == BODY


@pytest.mark.parametrize("page", [b"<html><title>Quota exceeded</title>", None])
def test_google_drive_refuses_or_asks_for_ever(tmp_path, monkeypatch, page):
    script = (lambda r: r.say(200, page)) if page else (lambda r: (setattr(r, "path", "/"), drive(r)))
    with serving(script) as server:
        monkeypatch.setattr(module, "DRIVE", f"{server.address}/download")
        with pytest.raises(NotFetched, match="download quota is exceeded" if page else "Virus scan warning"):
            get(tmp_path, "https://drive.google.com/uc?id=abc", kind="drive")
        assert len(server.asked) == (1 if page else 2)


def test_a_confirmation_does_not_lead_elsewhere():
    page = '<form action="https://evil.example/"><input type=hidden name=id value=1><input type=hidden name=confirm>'
    assert module.confirmation(page, "https://drive.usercontent.google.com/download") is None
    near = page.replace("evil.example", "drive.usercontent.google.com/download")
    assert module.confirmation(near, "https://drive.google.com/x").endswith("/download/?id=1&confirm=")


def test_where_files_lie(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/")
    for kind, url, lies in [
        ("dropbox", "https://www.dropbox.com/s/abc/x.pth?dl=0", "https://www.dropbox.com/s/abc/x.pth?dl=1"),
        ("dropbox", "https://www.dropbox.com/s/abc/x.pth?rlkey=k", "https://www.dropbox.com/s/abc/x.pth?rlkey=k&dl=1"),
        ("hub", "https://huggingface.co/a/b/resolve/main/c.pkl", "http://127.0.0.1:9/a/b/resolve/main/c.pkl"),
        ("github", "https://github.com/a/b/c.zip", "https://github.com/a/b/c.zip"),
        ("drive", "https://drive.google.com/file/d/a-b_c/view", f"{module.DRIVE}?id=a-b_c&export=download&confirm=t"),
    ]:
        assert module.direct(Address(kind, url)) == lies


def test_redirects_are_followed_but_not_away_from_https(tmp_path):
    with serving(lambda r: r.give(BODY) if r.path == "/there" else redirect(r)) as server:
        get(tmp_path, server.address)
        assert [path for path, _ in server.asked] == ["/", "/there"]
    request = module.urllib.request.Request("https://a.example/")
    with pytest.raises(module.HTTPError, match="away from https"):
        module.SafeRedirects().redirect_request(request, None, 302, "", {}, "http://a.example/")
