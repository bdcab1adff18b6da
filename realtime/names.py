"""What a source and its place on the wire may be called."""

from __future__ import annotations

import re
import unicodedata

_ADDRESS = re.compile(r"tcp://(\[[0-9a-fA-F:.%]+\]|[^:/\s]+):(?P<port>[0-9]{1,5}|\*)|ipc://\S+")

ADDRESS = "an address like tcp://127.0.0.1:5555 (port 1 to 65535, or * for a free one) or ipc:///tmp/ecmf"
"""What ``is_address`` accepts, in words."""

PLACE = "an address like tcp://127.0.0.1:5555 (port 1 to 65535) or ipc:///tmp/ecmf"
"""The same of a place that somebody else made."""

NAME = "letters and digits of any script, dot, dash and underscore, with a letter or digit first"
"""What ``is_name`` accepts, in words."""


def is_address(text: str) -> bool:
    """Whether ZeroMQ can take it; libzmq itself wraps a port above 65535 around without a word."""
    match = _ADDRESS.fullmatch(text)
    return match is not None and (match["port"] in (None, "*") or 1 <= int(match["port"]) <= 65535)


def is_ipv6(address: str) -> bool:
    """Whether an address names its host by an IPv6 number, which ZeroMQ takes only when told so.

    Always told so, it would look for names such as localhost at IPv6 numbers first, where nobody may listen.
    """
    return address.startswith("tcp://[")


def is_name(text: str) -> bool:
    """Whether a source may be called that: it is a part of a topic."""
    return text[:1].isalnum() and all(map(_fits, text))


def composed(name: str) -> str:
    """``name`` as it stands in a topic, which subscribers compare byte by byte: ü may be one character or two."""
    return unicodedata.normalize("NFC", name)


def told_of(place: str) -> str:
    """Of an address its path, or else its host, as a name may tell it: no user, no password, no query."""
    if "://" not in place:
        return place
    bare = place.partition("://")[2].partition("?")[0].partition("#")[0]
    host, _, path = bare.rpartition("@")[2].partition("/")
    return path.strip("/") or host


def as_name(text: str, otherwise: str) -> str:
    """``text`` as a source may be called; ``otherwise`` where nothing is left of it."""
    fitting = "".join(character if _fits(character) else " " for character in composed(text))
    name = re.sub(r"^[\W_]+|[\s._-]+$", "", fitting)
    return re.sub(r"\s+", "-", name) or otherwise


def _fits(character: str) -> bool:
    """Marks belong to letters: the vowels of Hindi, for example."""
    return character.isalnum() or character in "._-" or unicodedata.category(character).startswith("M")
