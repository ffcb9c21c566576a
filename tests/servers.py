"""A loopback server that gives files, and misbehaves on purpose."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Request(BaseHTTPRequestHandler):
    """Answers as the server's script says."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        self.close_connection = True
        self.server.script(self)

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *args) -> None:
        pass

    def say(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        """One answer; ``length`` is what it says it has, -1 for not saying it. Names of headers with - for _."""
        self.send_response(status)
        if length != -1:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def give(self, body: bytes, tag: str = '"v1"', stop: int | None = None) -> None:
        """A file, or the rest of it where that is asked for; ``stop`` cuts the connection before that byte of it."""
        start = self.headers.get("Range", "").removeprefix("bytes=").rstrip("-")
        tags = {"ETag": tag} if tag else {}
        if start and self.headers.get("If-Range", tag) == tag:
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.say(206, body[int(start) : stop], len(body) - int(start), Content_Range=span, **tags)
        else:
            self.say(200, body[:stop], len(body), **tags)

    def raw(self, head: bytes, body: bytes = b"") -> None:
        """These bytes, and the end of the connection."""
        with suppress(OSError):  # the other side may have had enough
            self.wfile.write(head + body)
        self.close_connection = True

    def drip(self, body: bytes, seconds: float) -> None:
        """A file, byte by byte."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            for i in range(len(body)):
                self.wfile.write(body[i : i + 1])
                time.sleep(seconds)
        except OSError:
            pass  # the other side has had enough


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, script: Callable[[Request], None]) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.script, self.asked = script, []
        self.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        pass  # a client that hangs up


@contextmanager
def serving(script: Callable[[Request], None]) -> Iterator[Server]:
    """A server on loopback that answers as ``script(request)`` says; ``asked`` is what it was asked."""
    with Server(script) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(timeout=10)
