"""`ecmf-listen`: print what an `ecmf-live` publishes, for people or as JSON lines."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ecmf.errors import EcmfError, UsageError, need
from realtime import standard_streams
from realtime.cli import Parser
from realtime.names import ADDRESS, is_address, is_name
from realtime.stopping import Stop

if TYPE_CHECKING:
    from realtime.message import Message

DEFAULT = "tcp://127.0.0.1:5555"
POLL_MS = 100
"""How soon a signal is noticed."""
QUIET_S = 3.0
"""After this long without any message the person is told so."""
KINDS = ("emotion", "transcript", "health")


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


def messages(
    socket: Any, stop: Stop, *, quiet_s: float = QUIET_S, address: str = ""
) -> Iterator[tuple[str, bytes]]:
    """Yield (topic, payload) from a SUB socket until ``stop``; says so once when nothing comes."""
    began: float | None = time.monotonic()
    while not stop.asked():
        if not socket.poll(POLL_MS):
            if began is not None and time.monotonic() - began > quiet_s:
                began = None
                _say(
                    f"nothing from {address} yet; is ecmf-live running there? (a source's name must match exactly)"
                )
            continue
        began = None
        parts = socket.recv_multipart()
        if len(parts) != 2:
            raise EcmfError(
                f"{address} sends {len(parts)} parts in a message, not a topic and JSON; is it ecmf-live?"
            )
        yield parts[0].decode("utf-8", "replace"), parts[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code. Ctrl-C ends it, quietly."""
    standard_streams.complete()
    stop = Stop()
    with stop.on_signals():
        try:
            _listen(_parser().parse_args(arguments), stop)
        except EcmfError as error:
            _say(" ".join(str(error).split()))
            return error.exit_code
        except OSError as error:
            # What is still buffered would fail once more when the program ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if not isinstance(error, BrokenPipeError):  # that is a reader who has gone, as `| head` does
                _say(f"stdout cannot be written any more: {error.strerror}")
                return EcmfError.exit_code
        return 0


def _parser() -> Parser:
    made = Parser(
        prog="ecmf-listen",
        description="Prints what ecmf-live publishes.",
        epilog="examples:\n"
        "  ecmf-listen                          everything from this machine\n"
        "  ecmf-listen --source demo --count 5\n"
        "  ecmf-listen --connect tcp://desk:5555 --json | jq .label",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--connect", metavar="ADDR", default=DEFAULT, help=f"where it publishes (default: {DEFAULT})"
    )
    made.add_argument("--source", metavar="NAME", help="only this source (default: all)")
    made.add_argument("--json", action="store_true", help="the messages as they are, one a line")
    made.add_argument("--count", metavar="N", help="end after N messages (without --json: after N estimates)")
    return made


def _listen(said: argparse.Namespace, stop: Stop) -> None:
    if not is_address(said.connect) or said.connect.endswith(":*"):
        raise UsageError(f"--connect {said.connect}: expected {ADDRESS.replace(', or * for a free one', '')}")
    if said.source is not None and not is_name(said.source):
        raise UsageError(f"--source {said.source}: expected letters, digits, dot, dash and underscore")
    if said.count is not None and not (said.count.isdecimal() and int(said.count) > 0):
        raise UsageError(f"--count {said.count}: expected a whole number from 1")
    left = int(said.count) if said.count is not None else None
    zmq = need("zmq", "live")
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        # Whoever listens to the network should not have to trust it.
        socket.setsockopt(zmq.MAXMSGSIZE, 1 << 20)
        for kind in KINDS:
            socket.setsockopt_string(zmq.SUBSCRIBE, f"{kind}/" + (f"{said.source}/" if said.source else ""))
        try:
            socket.connect(said.connect)
        except zmq.ZMQError as error:
            raise UsageError(f"--connect {said.connect} cannot be used: {error}") from None
        show = _Raw() if said.json else _Readable()
        for topic, payload in messages(socket, stop, address=said.connect):
            if not show.take(topic, payload) or left is None:
                continue
            left -= 1
            if left == 0:
                return


class _Raw:
    """Payloads as they are."""

    def __init__(self) -> None:
        self._seen = Seen()

    def take(self, topic: str, payload: bytes) -> bool:
        """Print; whether it counts."""
        if self._seen.decode(topic, payload) is None:
            return False
        sys.stdout.buffer.write(payload + b"\n")
        sys.stdout.buffer.flush()
        return True


class _Readable:
    """A line an estimate, words as they are said, and health where it changes."""

    def __init__(self) -> None:
        self._seen = Seen()
        from realtime.troubles import Changes

        self._changes: defaultdict[str, Changes] = defaultdict(Changes)
        self._console = need("rich.console", "live").Console(highlight=False, soft_wrap=True)

    def take(self, topic: str, payload: bytes) -> bool:
        """Print; whether it counts."""
        from realtime.latest import plain
        from realtime.message import Estimate, Transcript
        from realtime.status_line import line

        message = self._seen.decode(topic, payload)
        match message:
            case Estimate():
                style = "bold" if message.label is not None else "dim"
                self._print(plain(f"{message.source:<8} {line(message)}"), style)
                return True
            case Transcript(final=True):
                self._print(plain(f"{message.source:<8} “{message.text.strip()}”"), "cyan")
            case None | Transcript():
                pass
            case _:
                for change in self._changes[message.source].since(message):
                    self._print(plain(f"{message.source:<8} health: {change}"), "yellow")
        return False

    def _print(self, text: str, style: str) -> None:
        self._console.print(text, style=style, markup=False)


class Seen:
    """Decodes, and says what was missed."""

    def __init__(self) -> None:
        self._gaps = Gaps()

    def decode(self, topic: str, payload: bytes) -> Message | None:
        """The message, or None for one that was here before."""
        from realtime.message import decode

        message = decode(payload)
        missed = self._gaps.missed(topic, message.run, message.seq)
        if missed:
            _say(f"missed {missed} message{'s' * (missed > 1)} of {topic} before seq {message.seq}")
        return None if missed is None else message


def _say(text: str) -> None:
    print(f"ecmf-listen: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
