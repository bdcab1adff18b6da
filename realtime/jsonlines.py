"""The wire's messages on stdout, one a line; whatever else wants to print is sent to stderr."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time

from ecmf.errors import EcmfError
from realtime.message import Message
from realtime.stopping import Stop

QUEUE = 512
"""Lines that wait for a reader, about half a minute; then they are dropped, so that the socket never waits."""

POLL_S = 0.1
"""How often whoever waits for the reader looks whether to go on waiting."""


class JsonLines:
    """Writes from a thread of its own: a reader that stops reading must not stop the estimates."""

    def __init__(self, fd: int, stop: Stop, *, lossless: bool = False) -> None:
        """``fd`` is owned from here on. ``lossless``: wait for the reader instead of dropping, when annotating, but
        not once ``stop`` is asked for. It is asked for here, when the reader has closed the pipe.
        """
        self.dropped = 0
        """Lines that the reader did not take in time."""
        self.failure: EcmfError | None = None
        """Why nothing can be written any more, such as a full disk; None while it can."""
        self._lossless = lossless
        self._stop = stop
        self._lines: queue.Queue[bytes | None] = queue.Queue(QUEUE)
        self._gone = threading.Event()
        self._fd = fd
        self._thread = threading.Thread(target=self._work, name="stdout", daemon=True)
        self._thread.start()

    def write(self, message: Message, topic: str, payload: bytes) -> None:
        """Raises EcmfError once a line could not be written though somebody wants it."""
        if self.failure is not None:
            raise self.failure
        if self._gone.is_set():
            return
        while True:
            try:
                self._lines.put(payload + b"\n", block=self._waits(), timeout=POLL_S)
                return
            except queue.Full:
                if not self._waits():
                    self.dropped += 1
                    return

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what waits, for as long as the reader takes it within ``timeout_s``; lossless, however long it takes
        until ``stop`` is asked for. What is left then counts as dropped.
        """
        told = False
        deadline: float | None = None
        while self._thread.is_alive():
            if not told:
                try:
                    self._lines.put_nowait(None)
                    told = True
                except queue.Full:
                    pass
            self._thread.join(POLL_S)
            if self._waits():
                continue
            deadline = deadline or time.monotonic() + timeout_s
            if time.monotonic() > deadline:
                self.dropped += self._lines.qsize() - told
                return

    def _waits(self) -> bool:
        return self._lossless and not self._stop.asked()

    def _work(self) -> None:
        try:
            while (line := self._lines.get()) is not None:
                while line:
                    line = line[os.write(self._fd, line) :]
        except BrokenPipeError:
            self._gone.set()
            self._stop.ask()
            self._discard()
        except OSError as error:
            self.failure = EcmfError(f"stdout cannot be written any more: {error.strerror}")
            self._discard()
        finally:
            os.close(self._fd)

    def _discard(self) -> None:
        """Whoever waits for a place in the queue must not wait for ever."""
        while self._lines.get() is not None:
            pass


def claim_stdout() -> int:
    """A descriptor of the real stdout; from now on descriptor 1, and so every library's chatter, is stderr."""
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    return real
