"""A small hub on the loopback, with the faults that real ones have, and a registry that points to it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BYTES = bytes(range(256)) * 4096
"""1 MB that no source but the test's own has."""


@dataclass
class Hub:
    files: dict[str, bytes] = field(default_factory=dict)
    """By the path after /resolve/."""
    break_after: list[int] = field(default_factory=list)
    """How many bytes each of the next answers sends before the line drops."""
    resumes: bool = True
    ranges: list[str] = field(default_factory=list)
    """The Range header of every request so far."""
    release: threading.Event | None = None
    """When set: answers wait for it before they send anything."""
    asked: threading.Event = field(default_factory=threading.Event)
    stall_after: int | None = None
    """When set: how many bytes an answer sends before it says `stalled` and falls silent until released."""
    stalled: threading.Event = field(default_factory=threading.Event)
    address: str = ""


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.ranges.append(self.headers.get("Range", ""))
            hub.asked.set()
            if hub.release is not None and hub.stall_after is None:
                hub.release.wait(30)
            content = hub.files.get(self.path.partition("/resolve/")[2])
            if content is None:
                self.send_error(404)
                return
            start = int(hub.ranges[-1].removeprefix("bytes=").removesuffix("-") or 0) if hub.resumes else 0
            self.send_response(206 if hub.resumes else 200)
            if hub.resumes:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            stop = start + hub.break_after.pop(0) if hub.break_after else len(content)
            if hub.stall_after is not None and hub.release is not None:
                self.wfile.write(content[start : start + hub.stall_after])
                hub.stalled.set()
                hub.release.wait(30)
                return
            self.wfile.write(content[start:stop])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        if hub.release is not None:
            hub.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


def table(*files: dict[str, Any], name: str = "toy") -> dict[str, Any]:
    """weights.toml's table for one weight."""
    return {
        "weights": {name: {"role": "to test", "licence": "CC0", "groups": ["extra"], "files": list(files)}}
    }


def entry(name: str = "toy.bin", content: bytes = BYTES, **sources: Any) -> dict[str, Any]:
    """weights.toml's entry for one file, on the hub unless ``sources`` says otherwise."""
    digest = hashlib.sha256(content).hexdigest()
    return {
        "name": name,
        "sha256": digest,
        "size": len(content),
        **(sources or {"hub": f"owner/toy@main:{name}"}),
    }
