"""One time line for everything that is played together."""

from __future__ import annotations

import threading

from realtime.clock import Clock

LEAD_NS = 100_000_000
"""Between the first request and media time 0, so that the first picture and sound are decoded by then."""


class Playback:
    """Media time on the live clock (``pace``), or media time itself when there is none to keep (--fast)."""

    def __init__(self, pace: Clock | None) -> None:
        self._pace = pace
        self._start_ns: int | None = None if pace is not None else 0
        self._lock = threading.Lock()

    @property
    def paced(self) -> bool:
        return self._pace is not None

    def stamp_ns(self, media_ns: int) -> int:
        """When media time ``media_ns`` (loops added) is; whichever track asks first starts the playback."""
        with self._lock:
            if self._start_ns is None:
                assert self._pace is not None
                self._start_ns = self._pace.monotonic_ns() + LEAD_NS
            return self._start_ns + media_ns

    def behind_ns(self, stamp_ns: int) -> int:
        """How late something due at ``stamp_ns`` is now; 0 when it is in time, or nothing is paced."""
        return 0 if self._pace is None else max(0, self._pace.monotonic_ns() - stamp_ns)

    def wait(self, stamp_ns: int, stop: threading.Event) -> bool:
        """Hold until ``stamp_ns``, like a device that has nothing yet; False when ``stop`` is set."""
        if self._pace is None:
            return not stop.is_set()
        return self._pace.sleep_until(stamp_ns, stop)
