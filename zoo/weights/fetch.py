"""Fetches files: whole and checked, or not there.

Until a file is complete and checked it is called ``NAME.part``. Who writes it holds a lock beside it, which ends with
the process, so that two processes can want the same file at once. A part that was left is continued where the server
can say that the file is still the same, or where the published hash will tell. (huggingface_hub does not check what
came, torch.hub leaves cut files under their final names, pooch cannot continue: so this is our own.)
"""

import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qs, urlencode, urlsplit

from tqdm import tqdm

from zoo.utils.errors import Stopped
from zoo.utils.file_signatures import foreign, is_page
from zoo.utils.files import locked, take_place
from zoo.weights.catalogue import Address
from zoo.weights.pages import about_page, confirmation

DRIVE = "https://drive.usercontent.google.com/download"
HUB = "https://huggingface.co"
LARGEST = 2**34  # bytes of a file; no checkpoint is as large
GROWTH = 2**20  # bytes that must have come before a connection's failures are forgiven


class NotFetched(Stopped):
    """A file could not be fetched; the message says why and what to do."""


class Temporary(Exception):
    """Worth another try, after so many seconds (None: as long as usual)."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Permanent(Exception):
    """Not worth another try at the same address."""


class Page(Exception):
    """A web page came instead of a file."""


@dataclass(frozen=True)
class Patience:
    """How long to go on.

    timeout: seconds without a byte.
    attempts: in a row that bring nothing, at each address.
    wait: seconds before the second attempt; doubles each time.
    longest_wait: that a server may ask for [s].
    slowest: bytes per second, over ``timeout``.
    """

    timeout: float = 30.0
    attempts: int = 5
    wait: float = 1.0
    longest_wait: float = 60.0
    slowest: float = 1024.0


def sha256_of(path: Path) -> str:
    """sha256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_offline() -> bool:
    """Whether the environment forbids the network: $ZOO_OFFLINE or $HF_HUB_OFFLINE."""
    given = [os.environ.get(name, "").lower() for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE")]
    return any(value in ("1", "true", "yes", "on") for value in given)


def fetch(addresses: Sequence[Address], path: Path, sha256: str = "", patience: Patience | None = None) -> str:
    """Make sure that a file is there: fetched from the first address that has it, and checked.

    Args:
        addresses: mirrors, tried in order.
        path: where to; a file that is there already is checked and left as it is.
        sha256: its beginning; empty where none is known.
        patience: with servers.

    Returns:
        the whole sha256.

    Raises:
        NotFetched: no address gave it; says what each one did.
        ValueError: a file is there already and is another one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        if is_offline():
            raise NotFetched(
                f"{path.name} is not here, and $ZOO_OFFLINE or $HF_HUB_OFFLINE forbids to fetch it. Unset it, or fetch "
                f"{' or '.join(address.url for address in addresses)} elsewhere and put it at {path}."
            )
        with locked(path.with_name(f".{path.name}.lock"), f"Waiting for another process that fetches {path.name}."):
            if not path.exists():  # another process may have fetched it meanwhile
                with errors_about(path):
                    fetch_into(path.with_name(path.name + ".part"), addresses, path, sha256, patience or Patience())
    found = sha256_of(path)
    if not found.startswith(sha256):
        raise ValueError(f"{path} has sha256 {found}, but the published one begins with {sha256}: delete it.")
    return found


@contextmanager
def errors_about(path: Path) -> Iterator[None]:
    """Inside, what the disk says comes with the name of the file that it is about."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def note_of(part: Path) -> Path:
    """What is known about a part: its address, and what the server called this version of the file."""
    return part.with_name(part.name + ".json")


def fetch_into(part: Path, addresses: Sequence[Address], path: Path, sha256: str, patience: Patience) -> None:
    """See ``fetch``; the part is what an earlier process has left, if any."""
    reasons = []
    try:
        for address in addresses:
            try:
                with open(part, "a+b") as file:
                    fetch_from(direct(address), file, sha256, patience)
            except Permanent as error:
                reasons.append(f"{address.url} {error}")
                continue
            take_place(part, path)
            return
    finally:
        if not (part.exists() and part.stat().st_size):  # nothing to continue
            part.unlink(missing_ok=True)
            note_of(part).unlink(missing_ok=True)
    raise NotFetched(
        f"{path.name} could not be fetched: {'; '.join(reasons)}. Try again later, or fetch it with a browser."
    )


def direct(address: Address) -> str:
    """Where the file itself lies, rather than a page about it."""
    parts = urlsplit(address.url)
    match address.kind:
        case "drive":
            identity = re.search(r"/d/([\w-]+)", parts.path)
            found = identity[1] if identity else parse_qs(parts.query).get("id", [""])[0]
            return f"{DRIVE}?{urlencode({'id': found, 'export': 'download', 'confirm': 't'})}"
        case "dropbox":
            query = parse_qs(parts.query) | {"dl": ["1"]}
            return parts._replace(query=urlencode(query, doseq=True)).geturl()
        case "hub":
            return os.environ.get("HF_ENDPOINT", HUB).rstrip("/") + address.url.removeprefix(HUB)
        case _:
            return address.url


def fetch_from(url: str, part: BinaryIO, sha256: str, patience: Patience) -> None:
    """Fill the part from one address, in as many attempts as it takes.

    Raises:
        Permanent: it does not give the file.
    """
    left, wait, confirmed, wrong = patience.attempts, patience.wait, False, ""
    while True:
        before = size(part)
        try:
            transfer(url, part, sha256, patience)
            part.flush()
            found = sha256_of(Path(part.name))
            if found.startswith(sha256):
                return
            empty(part)
            reason = f"gave a file with sha256 {found}, which does not begin with {sha256}"
            if found == wrong:
                raise Permanent(reason)
            wrong = found
            raise Temporary(reason, 0)
        except Page as page:
            form = confirmation(str(page), url)
            if form is None or confirmed:
                raise Permanent(about_page(str(page))) from None
            url, confirmed = form, True
        except Temporary as error:
            left = patience.attempts if size(part) >= before + GROWTH else left - 1
            if left <= 0:
                raise Permanent(f"{error} ({patience.attempts} attempts)") from None
            time.sleep(wait if error.wait is None else error.wait)
            wait = min(2 * wait, patience.longest_wait)


def size(part: BinaryIO) -> int:
    part.flush()
    return os.fstat(part.fileno()).st_size


def empty(part: BinaryIO) -> None:
    part.truncate(0)
    note_of(Path(part.name)).unlink(missing_ok=True)


class SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from https to http."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise HTTPError(req.full_url, code, "leads away from https", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def transfer(url: str, part: BinaryIO, sha256: str, patience: Patience) -> None:
    """One request: the rest of the file, or all of it.

    Raises:
        Temporary, Permanent, Page: what went wrong.
        OSError: the disk is full.
    """
    start = size(part)
    tag = known_tag(part, url)
    if start and not (tag or (tag is not None and sha256)):
        empty(part)
        start = 0
    headers = {"User-Agent": "gan3d-zoo", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": tag} if tag else {})
    opener = urllib.request.build_opener(SafeRedirects)
    try:
        answer = opener.open(urllib.request.Request(url, headers=headers), timeout=patience.timeout)
    except HTTPError as error:
        with error:
            if error.code == 416:  # the part is longer than the file
                empty(part)
            raise explained(error, patience) from None
    except (URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise Temporary(f"cannot be reached ({reason or type(error).__name__})") from None
    with answer:
        receive(answer, url, part, start, patience)


def explained(error: HTTPError, patience: Patience) -> Temporary | Permanent:
    """What an error of a server means."""
    after = error.headers.get("Retry-After", "") if error.headers else ""
    wait = float(after) if re.fullmatch(r"\d+(\.\d+)?", after) else None
    match error.code:
        case 416:
            return Temporary("does not continue a part (416)", 0)
        case 408 | 425 | 429 | 500 | 502 | 503 | 504 if (wait or 0) <= patience.longest_wait:
            what = "is asked for too often" if error.code == 429 else "is out of order"
            return Temporary(f"{what} ({error.code})", wait)
        case 429 | 503:
            return Permanent(f"asks to come back in {wait:.0f} seconds ({error.code})")
        case 301 | 302 | 303 | 307 | 308:
            return Permanent(f"leads on and on ({error.code}: {' '.join(str(error.reason).split())[:90]})")
        case 401 | 403:
            return Permanent(f"does not give it to everybody ({error.code})")
        case 404 | 410:
            return Permanent(f"has no such file any more ({error.code})")
        case code:
            return Permanent(f"answers with error {code}")


def receive(answer: http.client.HTTPResponse, url: str, part: BinaryIO, start: int, patience: Patience) -> None:
    """Append what comes, or write it anew where the server begins at the beginning."""
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise Permanent("sends it compressed")
    length = answer.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None
    if answer.status == 206:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if not span or int(span[1]) != start:
            empty(part)
            raise Temporary("continues elsewhere than it was asked to", 0)
        total = int(span[2]) if span[2] != "*" else None if total is None else start + total
    else:
        empty(part)
        start = 0
        tag = answer.headers.get("ETag", "")
        tag = answer.headers.get("Last-Modified", "") if tag.startswith("W/") or not tag else tag
        note_of(Path(part.name)).write_text(json.dumps({"url": url, "tag": tag}))
    if (total or 0) > LARGEST:
        raise Permanent(f"says that it has {total:,} bytes")
    if total and total - start > shutil.disk_usage(Path(part.name).parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), part.name)
    name = Path(part.name).name.removesuffix(".part")
    quiet = not sys.stderr.isatty()
    with tqdm(total=total, initial=start, desc=name, unit="B", unit_scale=True, disable=quiet) as bar:
        come = copy(answer, part, start, total, patience, bar)
    if total is not None and come < total:
        raise Temporary(f"was cut after {come:,} of {total:,} bytes")
    if come == 0:
        raise Permanent("gives an empty file")


def copy(
    answer: http.client.HTTPResponse, part: BinaryIO, start: int, total: int | None, patience: Patience, bar: tqdm
) -> int:
    """Write what comes into the part; returns how long it is now."""
    come, since, counted = start, time.monotonic(), start
    head: bytes | None = None if start else b""  # until there is enough to tell what the file is
    while True:
        chunk = piece(answer, come)
        come += len(chunk)
        bar.update(len(chunk))
        if head is not None:
            head += chunk
            if chunk and len(head) < 512:
                data = b""
            else:
                check_head(head, answer)
                data, head = head, None
        else:
            data = chunk
        part.write(data)
        if not chunk:
            return come
        if come > LARGEST:
            raise Permanent(f"goes on after {LARGEST:,} bytes")
        if (now := time.monotonic()) > since + patience.timeout:
            if come - counted < patience.slowest * (now - since):
                raise Temporary(f"sends {(come - counted) / (now - since):.0f} bytes per second, too few")
            since, counted = now, come


def piece(answer: http.client.HTTPResponse, come: int) -> bytes:
    """What has come meanwhile; nothing at the end."""
    try:
        return answer.read1(2**18)
    except http.client.IncompleteRead:
        raise Temporary(f"was cut after {come:,} bytes") from None
    except (OSError, http.client.HTTPException) as error:
        raise Temporary(f"broke off after {come:,} bytes ({error or type(error).__name__})") from None


def check_head(head: bytes, answer: http.client.HTTPResponse) -> None:
    """Fail where a file is none."""
    if is_page(head):
        pieces = [head]
        while pieces[-1] and len(pieces) < 50:
            pieces.append(piece(answer, len(head)))
        raise Page(b"".join(pieces).decode("utf-8", "replace"))
    if head and (what := foreign(head[:512])):
        raise Permanent(f"gives {what}")


def known_tag(part: BinaryIO, url: str) -> str | None:
    """What the server called the version of the file that a part is of; empty where it has no name; None for no part
    of this address."""
    try:
        note = json.loads(note_of(Path(part.name)).read_text())
        return str(note["tag"]) if note["url"] == url else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
