"""What a file is that is no checkpoint, by its first bytes."""

import re
from collections.abc import Callable
from typing import Any


def _starts(*beginnings: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.lstrip().lower().startswith(beginnings)


is_page = _starts(b"<!doctype", b"<html", b"<?xml", b"<head")

FOREIGN: list[tuple[Callable[[bytes], Any], str]] = [
    (lambda head: not head, "empty; download it again"),
    (_starts(b"version https://git-lfs"), "a pointer of Git LFS, not the file itself; fetch it with 'git lfs pull'"),
    (
        is_page,
        "a web page, not a checkpoint; a site answers so when a file is gone, needs a log-in or is asked for too "
        "often; download it again",
    ),
    (lambda head: head[:4] in (b"\x89PNG", b"GIF8") or head[:3] == b"\xff\xd8\xff", "an image, not a checkpoint"),
    (lambda head: head[:2] == b"\x1f\x8b", "a gzip archive; unpack it first"),
    (lambda head: head[:4] in (b"Rar!", b"7z\xbc\xaf"), "an archive; unpack it first"),
    (lambda head: head[257:262] == b"ustar", "a tar archive; unpack it first"),
]


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins so is one of safetensors."""
    return bool(re.match(rb".{8}\{\s*\"", head, re.S))


def foreign(head: bytes) -> str | None:
    """What a file is, in words, that begins so and is no checkpoint; None for anything that may be one."""
    return next((what for matches, what in FOREIGN if matches(head)), None)
