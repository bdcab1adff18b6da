"""The loopback HTTP server behind the metrics; a web page in a browser here cannot read them through it.

A reverse proxy before it must send `Host: localhost` (nginx does not keep the public name unless told to, Caddy and
Traefik do): any other name is refused, for that is how a page in a browser would come here.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HOST = "127.0.0.1"
"""Loopback only: whoever is to read it from elsewhere puts a proxy with access control before it, which must send
`Host: localhost`."""
REFUSAL = (
    b"this answers to loopback names only: ask for localhost or 127.0.0.1; "
    b"a reverse proxy must send Host: localhost\n"
)


class MetricsServer:
    """Serves a WSGI application on HOST to whoever asks for it by a loopback name, in threads of its own."""

    def __init__(self, application: WSGIApplication, port: int) -> None:
        """Raises OSError when the port cannot be had."""
        self._server = make_server(HOST, port, _only_by_loopback_names(application), _Server, _Silent)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port really bound."""
        host, port = self._server.socket.getsockname()
        return host, port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(1.0)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Not a line on stderr for every scrape."""


def _only_by_loopback_names(application: WSGIApplication) -> WSGIApplication:
    """Refuse what a browser was led here for by a foreign name that now means this machine (DNS rebinding)."""

    def checked(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if is_loopback(environ.get("HTTP_HOST", HOST)):
            return application(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [REFUSAL]

    return checked


def is_loopback(host: str) -> bool:
    """Whether a Host header, with or without a port, names this machine itself."""
    name = host.strip().lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    if name.rstrip(".") == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
