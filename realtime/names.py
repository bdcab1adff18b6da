"""What a source and its place on the wire may be called."""

from __future__ import annotations

import re

ADDRESS = "an address like tcp://127.0.0.1:5555 (port 1 to 65535, or * for a free one) or ipc:///tmp/ecmf"
"""What ``is_address`` accepts, in words."""

_ADDRESS = re.compile(r"tcp://(\[[0-9a-fA-F:.%]+\]|[^:/\s]+):(?P<port>[0-9]{1,5}|\*)|ipc://\S+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def is_address(text: str) -> bool:
    """Whether ZeroMQ can take it; libzmq itself wraps a port above 65535 around without a word."""
    match = _ADDRESS.fullmatch(text)
    return match is not None and (match["port"] in (None, "*") or 1 <= int(match["port"]) <= 65535)


def is_name(text: str) -> bool:
    """Whether a source may be called that: it is a part of a topic."""
    return _NAME.fullmatch(text) is not None


def told_of(place: str) -> str:
    """Of an address its path, or else its host, as a name may tell it: no user, no password, no query."""
    if "://" not in place:
        return place
    bare = place.partition("://")[2].partition("?")[0].partition("#")[0]
    host, _, path = bare.rpartition("@")[2].partition("/")
    return path.strip("/") or host


def as_name(text: str, otherwise: str) -> str:
    """``text`` as a source may be called; ``otherwise`` where nothing is left of it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or otherwise
