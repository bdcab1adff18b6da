"""Messages as they arrive, for a Python program: ``for message in subscribe(): print(message.label)``."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from ecmf.errors import EcmfError, UsageError, need
from realtime.names import NAME, PLACE, composed, is_address, is_ipv6, is_name

if TYPE_CHECKING:
    from realtime.message import Message

DEFAULT = "tcp://127.0.0.1:5555"
KINDS = ("emotion", "transcript", "health")
LARGEST = 1 << 20
"""Bytes of a message: whoever listens to the network should not have to trust it."""


class Received(NamedTuple):
    """One message, read and as it came."""

    topic: str
    message: Message
    payload: bytes
    """The JSON itself; it may hold fields of a later version."""
    missed: int
    """Messages of this topic that were lost between the one before and this one."""


class Subscriber:
    """Connected to one publisher or several, and again whenever one comes back. Not thread-safe."""

    def __init__(self, *addresses: str, kinds: Collection[str] = KINDS, source: str | None = None) -> None:
        """``kinds``: of KINDS; ``source``: only that one.

        Raises UsageError for an address that cannot be used, and for a kind or source that nobody publishes.
        """
        if isinstance(kinds, str) or not kinds or not set(kinds) <= set(KINDS):
            raise UsageError(f"kinds {kinds!r}: expected a list of some of {', '.join(KINDS)}")
        if source is not None and not is_name(source):
            raise UsageError(f"source {source}: expected {NAME}")
        zmq = need("zmq", "live")
        self._gaps = Gaps()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, LARGEST)
        for kind in kinds:
            name = "" if source is None else f"{composed(source)}/"
            self._socket.setsockopt_string(zmq.SUBSCRIBE, f"{kind}/{name}")
        try:
            for address in addresses or (DEFAULT,):
                self._connect(address)
        except BaseException:
            self.close()
            raise

    def receive(self, timeout_s: float | None = None) -> Received | None:
        """The next message; None when none came for ``timeout_s``. One that was here before is passed over.

        Raises WireError, and EcmfError, for what no ecmf-live of this version sends.
        """
        from realtime.message import decode

        while self._socket.poll(None if timeout_s is None else round(timeout_s * 1e3)):
            parts = self._socket.recv_multipart()
            if len(parts) != 2:
                raise EcmfError(
                    f"a message of {len(parts)} parts came, not a topic and JSON; is that ecmf-live there?"
                )
            message, topic = decode(parts[1]), parts[0].decode("utf-8", "replace")
            missed = self._gaps.missed(topic, message.run, message.seq)
            if missed is not None:
                return Received(topic, message, parts[1], missed)
        return None

    def close(self) -> None:
        """Hang up."""
        self._context.destroy(linger=0)

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self, address: str) -> None:
        zmq = need("zmq", "live")
        if not is_address(address) or address.endswith(":*") or address.startswith("tcp://*"):
            raise UsageError(f"cannot connect to {address}: expected {PLACE}")
        self._socket.setsockopt(zmq.IPV6, is_ipv6(address))
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            raise UsageError(f"cannot connect to {address}: {error}") from None


class Gaps:
    """Follows ``seq`` per topic and run: what was lost between the publisher and here, and what came twice."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], int] = {}

    def missed(self, topic: str, run: str, seq: int) -> int | None:
        """How many messages are missing before this one; None for one that was here before (a replay)."""
        last = self._last.get((topic, run))
        if last is not None and seq <= last:
            return None
        self._last[topic, run] = seq
        return 0 if last is None else seq - last - 1


def subscribe(
    *addresses: str, kinds: Collection[str] = ("emotion",), source: str | None = None, newest: bool = False
) -> Iterator[Message]:
    """Yield messages for ever; their fields are described in ``realtime.message``.

    ``addresses``: of publishers (none: DEFAULT); ``kinds``: of KINDS. ``newest``: to whoever takes longer over a
    message than they come, only the newest of each source and person, instead of all of them later and later.
    Raises UsageError for what makes no sense, WireError for what no ecmf-live of this version sends.
    """
    with Subscriber(*addresses, kinds=kinds, source=source) as subscriber:
        while True:
            received = subscriber.receive()
            waiting: dict[tuple[str, int | None], Message] = {}
            while received is not None:
                person = getattr(received.message, "person", None)
                waiting.pop((received.topic, person), None)
                waiting[received.topic, person] = received.message
                received = subscriber.receive(0) if newest else None
            yield from waiting.values()
