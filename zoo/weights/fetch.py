"""Downloads files: complete and checked, or not at all.

Until a file is complete and checked it is called ``NAME.part``. Who writes it holds a lock beside it, which ends with
the process, so that two processes can want the same file at once. A part that was left is continued where the server
can say that the file is still the same, or where the published hash will tell. (huggingface_hub does not check
files, torch.hub leaves truncated files under their final names, pooch cannot resume: hence this module.)
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
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qs, urlencode, urlsplit

from tqdm import tqdm

from zoo.utils.errors import Stopped, UserError, printable
from zoo.utils.file_signatures import foreign, is_page
from zoo.utils.files import locked, take_place
from zoo.weights.catalogue import Address
from zoo.weights.pages import about_page, confirmation

DRIVE = "https://drive.usercontent.google.com/download"
HUB = "https://huggingface.co"
LARGEST = 2**34  # bytes of a file; no checkpoint is as large
PAGE = 2**17  # bytes of a web page that are looked at


class NotFetched(Stopped):
    """A file could not be downloaded; the message says why and what to do."""


class TemporaryError(Exception):
    """A failure after which to retry, after ``wait`` seconds (None: the default)."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class PermanentError(Exception):
    """A failure after which retrying the same address is of no use."""


class HtmlPage(Exception):
    """A web page came instead of a file."""


@dataclass(frozen=True)
class RetryPolicy:
    """Timeouts and retries.

    timeout: without a byte [s].
    attempts: in a row without progress, which is what comes in a second at the slowest, at each address.
    wait: before the second attempt [s]; doubles each time.
    max_wait: that a server may request [s].
    min_speed: over ``timeout`` [bytes/s].
    """

    timeout: float = 30.0
    attempts: int = 5
    wait: float = 1.0
    max_wait: float = 60.0
    min_speed: float = 1024.0


def sha256_of(path: Path) -> str:
    """sha256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5_of(path: Path) -> str:
    """MD5 of a file, in hex: for files of which nothing better is published."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def is_offline() -> bool:
    """Whether the environment forbids the network: $ZOO_OFFLINE or $HF_HUB_OFFLINE."""
    values = [os.environ.get(name, "").lower() for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE")]
    return any(value in ("1", "true", "yes", "on") for value in values)


def fetch(addresses: Sequence[Address], path: Path, sha256: str = "", retry: RetryPolicy | None = None) -> str:
    """Download a file, unless it is there, from the first address that has it, and check it.

    Args:
        addresses: mirrors, tried in order.
        path: where to; a file that is there already is checked and left as it is.
        sha256: its beginning; empty where none is known.
        retry: timeouts and retries.

    Returns:
        the whole sha256.

    Raises:
        NotFetched: no address provides it; the message has the reason of each.
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
                    fetch_into(path.with_name(path.name + ".part"), addresses, path, sha256, retry or RetryPolicy())
    found = sha256_of(path)
    if not found.startswith(sha256):
        raise UserError(f"{path} has sha256 {found}, but the published one begins with {sha256}: delete it.")
    return found


@contextmanager
def errors_about(path: Path) -> Iterator[None]:
    """Adds the name of the file to errors of the disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def note_of(part: Path) -> Path:
    """What is known about a part: its address, and what the server called this version of the file."""
    return part.with_name(part.name + ".json")


def fetch_into(part: Path, addresses: Sequence[Address], path: Path, sha256: str, retry: RetryPolicy) -> None:
    """See ``fetch``; the part is what an earlier process has left, if any."""
    reasons = []
    try:
        for address in addresses:
            try:
                with open(part, "a+b") as file:
                    fetch_from(direct(address), file, sha256, retry)
            except PermanentError as error:
                reasons.append(f"{address.url} {printable(error)}")
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
    """The address of the file itself, rather than of a page about it."""
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


def fetch_from(url: str, part: BinaryIO, sha256: str, retry: RetryPolicy) -> None:
    """Fill the part from one address, with retries.

    Raises:
        PermanentError: it does not provide the file.
    """
    left, wait, confirmed, wrong = retry.attempts, retry.wait, False, ""
    while True:
        before = size(part)
        try:
            transfer(url, part, sha256, retry)
            part.flush()
            found = sha256_of(Path(part.name))
            if found.startswith(sha256):
                return
            empty(part)
            reason = f"sent a file with sha256 {found[:12]}..., which does not begin with {sha256[:12]}"
            if found == wrong:
                raise PermanentError(reason)
            wrong = found
            raise TemporaryError(reason, 0)
        except HtmlPage as page:
            form = confirmation(str(page), url)
            if form is None or confirmed:
                raise PermanentError(about_page(str(page))) from None
            url, confirmed = form, True
        except TemporaryError as error:
            if size(part) > before + retry.min_speed:  # slow but steady
                left, wait = retry.attempts, retry.wait
            else:
                left -= 1
            if left <= 0:
                raise PermanentError(f"{error} ({retry.attempts} attempts)") from None
            pause = wait if error.wait is None else error.wait
            if pause >= 1:
                print(f"{urlsplit(url).hostname} {error}: trying again in {pause:.0f} s.", file=sys.stderr)
            time.sleep(pause)
            wait = min(2 * wait, retry.max_wait)


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
            raise HTTPError(req.full_url, code, "redirects away from https", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def transfer(url: str, part: BinaryIO, sha256: str, retry: RetryPolicy) -> None:
    """One request: the rest of the file, or all of it.

    Raises:
        TemporaryError, PermanentError, HtmlPage: what went wrong.
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
        answer = opener.open(urllib.request.Request(url, headers=headers), timeout=retry.timeout)
    except HTTPError as error:
        with error:
            if error.code == 416:  # the part is longer than the file
                empty(part)
            raise explained(error, retry) from None
    except (URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise TemporaryError(f"cannot be reached ({reason or type(error).__name__})") from None
    except ValueError as error:
        raise PermanentError(f"redirects to an invalid address ({error})") from None
    with answer:
        receive(answer, url, part, start, retry)


def explained(error: HTTPError, retry: RetryPolicy) -> TemporaryError | PermanentError:
    """Whether to retry after an HTTP error."""
    headers = error.headers or {}
    wait = seconds(headers.get("Retry-After", ""))
    match error.code:
        case 416:
            return TemporaryError("does not continue a part (416)", 0)
        case 408 | 425 | 429 | 500 | 502 | 503 | 504 if (wait or 0) <= retry.max_wait:
            what = "rejects too many requests" if error.code == 429 else "is not available"
            return TemporaryError(f"{what} ({error.code})", wait)
        case 429 | 503:
            return PermanentError(f"requests a retry after {wait:.0f} seconds ({error.code})")
        case 301 | 302 | 303 | 307 | 308:
            return PermanentError(
                f"has a redirect that cannot be followed ({error.code}: {' '.join(str(error.reason).split())[:90]})"
            )
        case 401 | 403 if headers.get("X-Error-Code") == "GatedRepo":
            return PermanentError(f"is gated ({error.code}): accept its terms there, logged in, and fetch it by hand")
        case 401 | 403:
            return PermanentError(f"denies access ({error.code})")
        case 404 | 410:
            return PermanentError(f"has no such file ({error.code})")
        case code:
            return PermanentError(f"answers with error {code}")


def seconds(retry_after: str) -> float | None:
    """The wait that a server requests as a number or a date [s]; None if it does not."""
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", retry_after):
        return float(retry_after)
    try:
        then = parsedate_to_datetime(retry_after)
    except (ValueError, TypeError, OverflowError):
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())


def receive(answer: http.client.HTTPResponse, url: str, part: BinaryIO, start: int, retry: RetryPolicy) -> None:
    """Append to the part, or rewrite it if the server starts at the beginning."""
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise PermanentError("sends a compressed file")
    length = answer.headers.get("Content-Length", "")
    total = int(length) if re.fullmatch("[0-9]{1,15}", length) else None
    if answer.status == 206:
        span = re.fullmatch(r"bytes ([0-9]{1,15})-[0-9]+/([0-9]{1,15}|\*)", answer.headers.get("Content-Range", ""))
        if not span or int(span[1]) != start:
            empty(part)
            raise TemporaryError("continues at another position", 0)
        total = int(span[2]) if span[2] != "*" else None if total is None else start + total
    else:
        empty(part)
        start = 0
        tag = answer.headers.get("ETag", "")
        tag = answer.headers.get("Last-Modified", "") if tag.startswith("W/") or not tag else tag
        note_of(Path(part.name)).write_text(json.dumps({"url": url, "tag": tag}))
    if (total or 0) > LARGEST:
        raise PermanentError(f"claims {total:,} bytes")
    if total and total - start > shutil.disk_usage(Path(part.name).parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), part.name)
    name = Path(part.name).name.removesuffix(".part")
    with tqdm(total=total, initial=start, desc=name, unit="B", unit_scale=True, disable=None) as bar:
        try:
            received = copy(answer, part, start, total, retry, bar)
        except OSError:
            if total is None:  # an endless body has filled the disk
                empty(part)
            raise
    if total is not None and received < total:
        raise TemporaryError(f"was truncated after {received:,} of {total:,} bytes")
    if received == 0:
        raise PermanentError("sent an empty file")


def copy(
    answer: http.client.HTTPResponse, part: BinaryIO, start: int, total: int | None, retry: RetryPolicy, bar: tqdm
) -> int:
    """Write the body into the part; returns its size."""
    received, since, counted = start, time.monotonic(), start
    head: bytes | None = None if start else b""  # until there is enough to tell what the file is
    while True:
        chunk = next_chunk(answer, received)
        received += len(chunk)
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
            return received
        if received > LARGEST:
            empty(part)
            raise PermanentError(f"sends more than {LARGEST:,} bytes")
        if total is not None and received > total:
            empty(part)
            raise TemporaryError(f"sends more than the {total:,} bytes that it announces", 0)
        if (now := time.monotonic()) > since + retry.timeout:
            if received - counted < retry.min_speed * (now - since):
                raise TemporaryError(
                    f"sends {(received - counted) / (now - since):.0f} bytes per second, which is too slow"
                )
            since, counted = now, received


def next_chunk(answer: http.client.HTTPResponse, received: int) -> bytes:
    """The next chunk; empty at the end."""
    try:
        return answer.read1(2**18)
    except http.client.IncompleteRead:
        raise TemporaryError(f"was truncated after {received:,} bytes") from None
    except (OSError, http.client.HTTPException) as error:
        raise TemporaryError(f"was interrupted after {received:,} bytes ({error or type(error).__name__})") from None


def check_head(head: bytes, answer: http.client.HTTPResponse) -> None:
    """Fail if it is a web page or another kind of file."""
    if is_page(head):
        page = head
        while len(page) < PAGE and (more := next_chunk(answer, len(page))):
            page += more
        raise HtmlPage(page[:PAGE].decode("utf-8", "replace"))
    if head and (what := foreign(head[:512])):
        raise PermanentError(f"sent {what}")


def known_tag(part: BinaryIO, url: str) -> str | None:
    """What the server called the version of the file that a part is of; empty where it has no name; None for no part
    of this address."""
    try:
        note = json.loads(note_of(Path(part.name)).read_text())
        return str(note["tag"]) if note["url"] == url else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
