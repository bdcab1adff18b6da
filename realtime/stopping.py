"""Ending in order: SIGINT and SIGTERM ask once; whoever asks a second time, or waits in vain, ends it at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """The wish to end. Set by a signal, by a closed pipe or window; watched by the main thread."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._signalled = 0

    def ask(self) -> None:
        self._asked.set()

    def asked(self) -> bool:
        return self._asked.is_set()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Ask on SIGINT and SIGTERM while inside; only the main thread can do this, elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled += 1
        if self._signalled > 1 and number == signal.SIGINT:
            os._exit(128 + number)  # an impatient second Ctrl-C
        self._asked.set()


def leave(code: int) -> int:
    """``code``, unless a thread still runs: native code in it could crash an interpreter that shuts down."""
    if threading.active_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
