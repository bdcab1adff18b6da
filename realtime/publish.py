"""The way out: stamp a message, encode it once, and give the same bytes to the socket and every other sink."""

from __future__ import annotations

import copy
import errno
import logging
import secrets
import socket
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ecmf.errors import UsageError, need
from realtime.message import Estimate, Message, Transcript, encode, rfc3339, topic
from realtime.names import is_ipv6

need("msgspec", "live")

from msgspec.structs import force_setattr  # noqa: E402  (its absence has been said in one clear line)

log = logging.getLogger("realtime.publish")

LINGER_MS = 200
"""How long closing waits for subscribers to take what is already queued for them."""


def new_run() -> str:
    """Id of a run: 8 random hex digits, no trace of person or machine.

    The first is a letter: table programs read 00012345 and 12e45678 as numbers, and no longer tell such runs apart.
    """
    return secrets.choice("abcdef") + secrets.token_hex(4)[1:]


class Sink(Protocol):
    """Takes published messages, one at a time, in order."""

    def write(self, message: Message, topic: str, payload: bytes) -> None:
        """``payload`` is ``message`` as encoded for the wire. Must not wait for whoever reads."""

    def close(self) -> None:
        """Finish what is begun. Called once, after the last write."""


class Sinks:
    """Everything that takes messages; numbers them per topic and stamps them as late as possible.

    Safe to call from several threads.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        now_ns: Callable[[], int],
        wall_ns: Callable[[], int] = time.time_ns,
        local: Sequence[Sink] = (),
        transcript: bool = False,
    ) -> None:
        """``sinks`` get what is on the wire, in order, so put the socket first; ``local`` ones (on the user's own
        screen) get transcripts too when ``transcript`` does not allow them on the wire.
        """
        self._sinks = tuple(sinks)
        self._local = tuple(local)
        self._now_ns = now_ns
        self._wall_ns = wall_ns
        self._transcript = transcript
        self._next: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._closed = False
        self._before: dict[str, float] = {}
        """What encoding the last estimate and handing it to the socket took: known too late to stand in itself."""

    def publish(self, message: Message) -> Message:
        """Stamp, encode once, and pass on; returns the message as published. After ``close`` nothing is sent."""
        name = topic(message)
        stamped = copy.copy(message)  # checked when it was made; what is added here needs no checking
        with self._lock:
            if self._closed:
                return message
            force_setattr(stamped, "seq", self._next[name])
            force_setattr(stamped, "wall", rfc3339(self._wall_ns()))
            now_ns = self._now_ns()
            force_setattr(stamped, "t_publish_ns", now_ns)
            if isinstance(stamped, Estimate) and stamped.latency_ms is not None:
                total = round((now_ns - stamped.t_capture_ns) * 1e-6, 3)
                force_setattr(stamped, "latency_ms", {**stamped.latency_ms, **self._before, "total": total})
            payload = encode(stamped)
            if self._transcript or not isinstance(stamped, Transcript):
                self._next[name] += 1
                for sink in self._sinks:
                    sink.write(stamped, name, payload)
                    if sink is self._sinks[0] and isinstance(stamped, Estimate):
                        self._before = {"publish": round((self._now_ns() - now_ns) * 1e-6, 3)}
            for sink in self._local:
                sink.write(stamped, name, payload)
            return stamped

    def close(self) -> None:
        """Close every sink once."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for sink in (*self._sinks, *self._local):
                sink.close()


class Publisher:
    """A ZeroMQ PUB socket. Never waits: what a subscriber does not take in time is dropped for that subscriber.

    With ``replay`` a subscriber that comes late gets the last message of each topic it asks for, along with the
    next message; whoever subscribes to the same topic sees that one twice, with the same ``seq``.
    """

    def __init__(self, bind: str, *, high_water_mark: int = 1000, replay: bool = False) -> None:
        """``bind``: e.g. tcp://127.0.0.1:5555, port * for any free one, or ipc:///run/user/1000/ecmf.
        ``high_water_mark``: messages kept per subscriber. Raises UsageError when the address cannot be bound.
        """
        zmq = need("zmq", "live")
        _spare(bind)
        self._zmq = zmq
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.XPUB if replay else zmq.PUB)
        self._socket.setsockopt(zmq.IPV6, is_ipv6(bind))
        self._socket.setsockopt(zmq.SNDHWM, high_water_mark)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        if replay:
            self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        # Plain numbers: to combine zmq's enumerations takes as long as to send a message.
        self._more, self._end = int(zmq.SNDMORE | zmq.NOBLOCK), int(zmq.NOBLOCK)
        self._last: dict[bytes, bytes] | None = {} if replay else None
        try:
            self._socket.bind(bind)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise UsageError(_refusal(bind, error.errno, str(error))) from None
        self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        """The address really bound."""
        if bind.startswith("tcp://") and not self.endpoint.startswith(("tcp://127.", "tcp://[::1]")):
            log.warning("%s can be read by everyone who reaches this machine, unencrypted", self.endpoint)

    def write(self, message: Message, topic: str, payload: bytes) -> None:
        key = topic.encode()
        if self._last is not None:
            self._greet(except_for=key)
            self._last[key] = payload
        # As send_multipart does, without its checks.
        self._socket.send(key, self._more)
        self._socket.send(payload, self._end)

    def close(self) -> None:
        self._context.destroy(linger=LINGER_MS)

    def _greet(self, except_for: bytes) -> None:
        """Repeat the last messages for those who have subscribed since the last call."""
        assert self._last is not None
        while self._socket.getsockopt(self._zmq.EVENTS) & self._zmq.POLLIN:
            event = self._socket.recv(self._zmq.NOBLOCK)
            if not event.startswith(b"\x01"):
                continue
            for key, payload in self._last.items():
                if key.startswith(event[1:]) and key != except_for:
                    self._socket.send_multipart((key, payload), flags=self._zmq.NOBLOCK)


def _spare(bind: str) -> None:
    """Raises UsageError where something is at an ipc path: libzmq would remove it without a word, be it a file or the
    socket of a publisher that runs. What a killed one left may go.
    """
    path = bind.removeprefix("ipc://")
    if path == bind or path.startswith(("@", "*")):
        return
    try:
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise UsageError(
                f"--bind {bind} would replace what is there and no socket; take a path of its own"
            )
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
    except OSError:  # nothing there, or nobody listens; if it cannot be bound either, binding says why
        return
    raise UsageError(_refusal(bind, errno.EADDRINUSE, ""))


def _refusal(bind: str, number: int, text: str) -> str:
    """One line naming the address and what to do."""
    port = bind.rpartition(":")[2]
    local = bind.startswith("ipc://")
    match number:
        case errno.EADDRINUSE:
            holder = "ss -lxp" if local else f"ss -ltnp 'sport = :{port}'"
            other = "" if local else ", as tcp://127.0.0.1:* for any free port"
            remedy = f"is already in use; stop who holds it ({holder}) or take another --bind{other}"
        case errno.EADDRNOTAVAIL | errno.ENODEV:
            remedy = (
                "is not an address of this machine; use tcp://127.0.0.1:PORT, or tcp://*:PORT for all of them"
            )
        case errno.EACCES | errno.EPERM:
            remedy = "is not allowed to this user; take a port above 1023, or a folder you may write to"
        case errno.ENOENT:
            remedy = "names a folder that does not exist; make it or take another --bind"
        case errno.ENAMETOOLONG:
            remedy = "is too long for a socket's path; take one of at most 107 characters"
        case _:
            remedy = f"is not an address ({text.lower()}); write it like tcp://127.0.0.1:5555"
    return f"--bind {bind} {remedy}"
