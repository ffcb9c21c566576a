"""Which pages may talk to the viewer. A browser lets every page open a websocket to every address, and only says from
where the page came; viser's server does not look at that."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from zoo.utils.errors import UserError, printable

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.datastructures import Headers
    from websockets.http11 import Request, Response


@contextmanager
def own_page_only(host: str, say: Callable[[str], None]) -> Iterator[None]:
    """Servers of websockets that are started inside refuse other pages than those which they serve themselves.

    Args:
        host: where the server listens.
        say: what is called with a line for the user, once for each address of such a page.

    Raises:
        UserError: none was started in the way that is known.
    """
    from websockets.asyncio import server

    serve, started, refused = server.serve, [], set[str]()

    def guarded(*args: Any, process_request: Callable, **kwargs: Any) -> Any:
        def process(connection: "ServerConnection", request: "Request") -> "Response | None":
            origin = foreign_origin(request.headers, host)
            if origin is None:
                return process_request(connection, request)
            if origin not in refused:
                refused.add(origin)
                say(f"A page of '{printable(origin, 80)}' was refused: only the viewer's own page may connect to it.")
            return connection.respond(HTTPStatus.FORBIDDEN, "Only the viewer's own page may connect.\n")

        started.append(host)
        return serve(*args, process_request=process, **kwargs)

    server.serve = guarded  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        server.serve = serve  # type: ignore[misc]
    if not started:
        raise UserError("The viewer cannot keep other pages out of this version of viser: pip install 'viser==1.1.1'.")


def foreign_origin(headers: "Headers", host: str) -> str | None:
    """From where the page is that asks, if it is not the viewer's own; None also where no page asks.

    Where only this machine can reach the server, its own page has a name of this machine: another name that leads here
    is somebody's who wants the page to be taken for theirs.
    """
    origins, hosts = headers.get_all("Origin"), headers.get_all("Host")
    if not origins:
        return None
    page = urlsplit(origins[0]).netloc
    is_own = origins[1:] == [] and hosts == [page] and (not is_local(host) or is_local(without_port(page)))
    return None if is_own else ", ".join(origins)


def without_port(netloc: str) -> str:
    """The name or address before the port, an IPv6 address without its brackets."""
    return re.sub(r":\d*$", "", netloc).strip("[]")


def is_local(host: str) -> bool:
    """Whether only this machine can be meant."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
