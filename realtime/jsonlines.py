"""The wire's messages on stdout, one a line; whatever else wants to print is sent to stderr."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable

from realtime.message import Message

QUEUE = 512
"""Lines that wait for a reader, about half a minute; then they are dropped, so that the socket never waits."""


class JsonLines:
    """Writes from a thread of its own: a reader that stops reading must not stop the estimates."""

    def __init__(self, fd: int, *, lossless: bool = False, on_gone: Callable[[], None]) -> None:
        """``fd`` is owned from here on. ``lossless``: wait for the reader instead of dropping, when annotating.
        ``on_gone`` is called once, when the reader has closed the pipe.
        """
        self.dropped = 0
        self._lossless = lossless
        self._on_gone = on_gone
        self._lines: queue.Queue[bytes | None] = queue.Queue(QUEUE)
        self._gone = threading.Event()
        self._fd = fd
        self._thread = threading.Thread(target=self._work, name="stdout", daemon=True)
        self._thread.start()

    def write(self, message: Message, topic: str, payload: bytes) -> None:
        if self._gone.is_set():
            return
        try:
            self._lines.put(payload + b"\n", block=self._lossless)
        except queue.Full:
            self.dropped += 1

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what waits, for as long as the reader takes it within ``timeout_s``."""
        try:
            self._lines.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)

    def _work(self) -> None:
        try:
            while (line := self._lines.get()) is not None:
                while line:
                    line = line[os.write(self._fd, line) :]
        except BrokenPipeError:
            self._gone.set()
            self._on_gone()
            # whoever waits for a place in the queue must not wait for ever
            while self._lines.get() is not None:
                pass
        finally:
            os.close(self._fd)


def claim_stdout() -> int:
    """A descriptor of the real stdout; from now on descriptor 1, and so every library's chatter, is stderr."""
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    return real
