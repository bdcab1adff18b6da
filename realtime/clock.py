"""Time, passed in: the machine's monotonic clock, and one that media drive."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock that can be waited on."""

    def monotonic_ns(self) -> int:
        """Now, in nanoseconds from an arbitrary fixed point; never goes backwards."""

    def sleep_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        """Return True once ``deadline_ns`` is reached (at once if past), False as soon as ``stop`` is set."""


class SystemClock:
    """CLOCK_MONOTONIC, the clock on which devices are stamped."""

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def sleep_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        while not stop.is_set():
            left_ns = deadline_ns - time.monotonic_ns()
            if left_ns <= 0:
                return True
            stop.wait(left_ns / 1e9)
        return False


class MediaClock:
    """Time that stands still until it is moved: the clock of ``--fast``, where media are the only time.

    Waiting moves it to the deadline, so whoever waits never blocks. Safe to share between threads.
    """

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns
        self._lock = threading.Lock()

    def monotonic_ns(self) -> int:
        return self._now_ns

    def advance_to(self, now_ns: int) -> None:
        """Move to ``now_ns``; an earlier time is ignored, the clock never goes backwards."""
        with self._lock:
            self._now_ns = max(self._now_ns, now_ns)

    def sleep_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        if stop.is_set():
            return False
        self.advance_to(deadline_ns)
        return True


class FakeClock(MediaClock):
    """For tests: like the machine's clock, but only the test and those who wait move it."""

    def advance(self, step_ns: int) -> None:
        """Let ``step_ns`` pass."""
        with self._lock:
            self._now_ns += step_ns
