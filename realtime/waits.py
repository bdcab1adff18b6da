"""How long samples wait for their worker, and how long a worker waits for samples."""

from __future__ import annotations

import threading
from collections.abc import Callable

WAIT_S = 0.25
"""Longest wait for work; then a sign of life."""


class Waits:
    """The longest that a sample waited for its worker since it was last asked, or has been waiting."""

    def __init__(self, waiting_ms: Callable[[], float]) -> None:
        """``waiting_ms``: of the sample that waits now, while the worker is busy with another."""
        self._waiting_ms = waiting_ms
        self._longest_ms = 0.0
        self._lock = threading.Lock()

    def note(self, waited_ms: float) -> None:
        with self._lock:
            self._longest_ms = max(self._longest_ms, waited_ms)

    def longest_ms(self) -> float:
        """And begin anew."""
        with self._lock:
            longest, self._longest_ms = self._longest_ms, 0.0
        return max(longest, self._waiting_ms())
