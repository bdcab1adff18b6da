"""How far picture and sound that are fused together lie apart in capture time."""

from __future__ import annotations

import statistics
import threading
from collections import deque

WINDOW_NS = 5_000_000_000
STALE_NS = 1_000_000_000
"""A picture or a sound that is that much older than the other has stopped; there is nothing to compare."""


class Skew:
    """Fed by whoever takes pictures and sound from their sources; safe between threads.

    Whenever a picture is handed on, the end of the newest sound's capture is compared with the picture's. That is the
    difference of the two ways from the world to here (a camera's exposure and transfer, a sound card's buffers) as the
    stamps tell it, where the newest of both are looked at together.
    """

    def __init__(self) -> None:
        self._sound_ns: int | None = None
        self._seen: deque[tuple[int, int]] = deque()
        """End of a picture's capture, and of the newest sound's less that."""
        self._lock = threading.Lock()

    def picture(self, end_ns: int) -> None:
        """A picture whose capture ended then was handed on."""
        with self._lock:
            if self._sound_ns is not None:
                self._seen.append((end_ns, self._sound_ns - end_ns))
            while self._seen and self._seen[0][0] < end_ns - WINDOW_NS:
                self._seen.popleft()

    def sound(self, end_ns: int) -> None:
        """A piece of sound whose capture ended then was handed on."""
        self._sound_ns = end_ns

    @property
    def ms(self) -> float | None:
        """Newest sound minus newest picture, median of the last 5 s; None while one of them is missing."""
        with self._lock:
            if not self._seen or self._sound_ns is None or self._sound_ns - self._seen[-1][0] > STALE_NS:
                return None
            median_ns = statistics.median(apart for _, apart in self._seen)
        return None if median_ns < -STALE_NS else median_ns * 1e-6
