"""`ecmf-listen`: print what an `ecmf-live` publishes, for people or as JSON lines."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ecmf.errors import EcmfError, UsageError, need
from realtime import standard_streams
from realtime.cli import Parser
from realtime.stopping import Stop
from realtime.subscribe import DEFAULT, KINDS, Subscriber

if TYPE_CHECKING:
    from realtime.subscribe import Received

POLL_S = 0.1
"""How soon a signal is noticed."""
QUIET_S = 3.0
"""After this long without any message the person is told so."""
SCHEMA = Path(__file__).with_name("message.schema.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code. Ctrl-C ends it, quietly."""
    standard_streams.complete()
    stop = Stop()
    with stop.on_signals():
        try:
            _listen(_parser().parse_args(arguments), stop)
            sys.stdout.flush()
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
        "  ecmf-listen --connect tcp://desk:5555 --connect tcp://door:5555\n"
        "  ecmf-listen --only emotion --json | jq .label",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--connect",
        metavar="ADDR",
        action="append",
        help=f"where it publishes (default: {DEFAULT}); again for each further publisher",
    )
    made.add_argument("--source", metavar="NAME", help="only this source (default: all)")
    made.add_argument("--only", choices=KINDS, help="only messages of this kind (default: all)")
    made.add_argument("--json", action="store_true", help="the messages as they are, one a line")
    made.add_argument(
        "--count", metavar="N", help="end after N messages (with neither --json nor --only: N estimates)"
    )
    made.add_argument("--schema", action="store_true", help="print the JSON Schema of the messages, and end")
    return made


def _listen(said: argparse.Namespace, stop: Stop) -> None:
    if said.schema:
        sys.stdout.buffer.write(SCHEMA.read_bytes())
        return
    if said.count is not None and not (said.count.isdecimal() and int(said.count) > 0):
        raise UsageError(f"--count {said.count}: expected a whole number from 1")
    left = int(said.count) if said.count is not None else None
    addresses = said.connect or [DEFAULT]
    with Subscriber(*addresses, kinds=(said.only,) if said.only else KINDS, source=said.source) as subscriber:
        show = _Raw() if said.json else _Readable()
        quiet_since: float | None = time.monotonic()
        heard = False
        while left != 0 and not stop.asked():
            received = subscriber.receive(POLL_S)
            if received is None:
                if quiet_since is not None and time.monotonic() - quiet_since > QUIET_S:
                    quiet_since = None
                    _say(_silence(said, addresses, heard))
                continue
            heard = True
            # Words come when somebody speaks; all else comes at least once a second.
            quiet_since = None if said.only == "transcript" else time.monotonic()
            if received.missed:
                several = "s" * (received.missed > 1)
                _say(
                    f"missed {received.missed} message{several} of {received.topic} before seq {received.message.seq}"
                )
            show.take(received)
            if left is not None and (said.json or said.only or received.topic.startswith("emotion/")):
                left -= 1


def _silence(said: argparse.Namespace, addresses: Sequence[str], heard: bool) -> str:
    """That nothing comes, and what may be the matter."""
    places = ", ".join(addresses)
    if heard:
        return f"nothing from {places} for {QUIET_S:g} s; waiting for it to come back"
    asked = f"nothing from {places} yet; is ecmf-live running there?"
    if said.only == "transcript":
        return f"{asked} (with --transcript, or no word is published)"
    return f"{asked} (a source's name must match exactly)" if said.source else asked


class _Raw:
    """Payloads as they are."""

    def take(self, received: Received) -> None:
        sys.stdout.buffer.write(received.payload + b"\n")
        sys.stdout.buffer.flush()


class _Readable:
    """A line an estimate, words as they are said, and health where it changes."""

    def __init__(self) -> None:
        from realtime.troubles import Changes

        self._changes: defaultdict[str, Changes] = defaultdict(Changes)
        self._console = need("rich.console", "live").Console(highlight=False, soft_wrap=True)

    def take(self, received: Received) -> None:
        from realtime.latest import plain
        from realtime.message import Estimate, Health, Transcript
        from realtime.status_line import line

        message = received.message
        told: list[str] = []
        style = "yellow"
        match message:
            case Estimate():
                style = "bold" if message.label is not None else "dim"
                told = [line(message)]
            case Transcript(final=True):
                # the ended utterance comes again once the language model has read it
                style = "cyan"
                told = [f"“{message.text}”" if message.cues is None else f"  reads as {message.cues}"]
            case Health():
                told = [f"health: {change}" for change in self._changes[message.source].since(message)]
        for each in told:
            self._console.print(plain(f"{message.source:<8} {each}"), style=style, markup=False)


def _say(text: str) -> None:
    print(f"ecmf-listen: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
