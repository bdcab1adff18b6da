"""What a run looks like where there is no terminal to draw in: a line a second."""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO

from realtime.latest import Latest
from realtime.message import Estimate, Message
from realtime.reader import takes_more


class StatusLine:
    """One line a second on stderr, where there is no terminal to draw in; none while nobody reads them."""

    def __init__(self, stream: TextIO | None = None, every_ns: int = 1_000_000_000) -> None:
        self._stream = stream or sys.stderr
        self._every_ns = every_ns
        self._due_ns: int | None = None
        self._latest = Latest()

    def write(self, message: Message, topic: str, payload: bytes) -> None:
        self._latest.take(message)
        if not isinstance(message, Estimate):
            return
        if self._due_ns is None or message.t_publish_ns >= self._due_ns:
            self._due_ns = message.t_publish_ns + self._every_ns
            with contextlib.suppress(BrokenPipeError):  # who read it has left; the stream goes on
                if takes_more(self._stream):
                    print(line(message, self._latest.latency_ms()), file=self._stream, flush=True)

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stream.flush()


def line(estimate: Estimate, latency_ms: tuple[float, float] | None = None) -> str:
    """One estimate in one line, in columns that stay where they are.

    ``latency_ms``: p50 and p95 over the last estimates.
    """
    when = estimate.wall[11:19] if estimate.t_media_s is None else f"{estimate.t_media_s:7.2f}s"
    label = f"{estimate.label or '–':<10}"
    sure = f"{estimate.confidence:4.0%}" if estimate.confidence is not None else f"({estimate.reason})"
    who = "" if estimate.person is None else f" person {estimate.person}"
    weights = "  ".join(
        f"{name} {state.weight:3.0%}" if state.present else f"{name}  – "
        for name, state in estimate.modalities.items()
    )
    speed = ""
    if latency_ms is not None:
        speed = f"  p50 {latency_ms[0]:.0f} p95 {latency_ms[1]:.0f} ms"
    return f"{when}{who}  {label} {sure:<6} {weights}{speed}"
