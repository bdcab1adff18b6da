"""One time line for everything that is played together."""

from __future__ import annotations

import threading

from realtime.clock import Clock

LEAD_NS = 100_000_000
"""Between the first request and media time 0, so that the first picture and sound are decoded by then."""
HALTED_NS = 5_000_000_000
"""No picture takes that long to decode: the process was halted (Ctrl-Z, a machine that was paused) for that time."""


class Playback:
    """Media time on the live clock (``pace``), or media time itself when there is none to keep (--fast).

    After a halt it goes on where it was: what is due hours ago need not be hurried through.
    """

    def __init__(self, pace: Clock | None) -> None:
        self._pace = pace
        self._start_ns: int | None = None if pace is not None else 0
        self._lock = threading.Lock()
        self._track = threading.local()
        """When each track, in its own thread, was last seen at work."""
        self._resumed_ns = 0
        """End of the last halt."""

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
        began_ns = self._pace.monotonic_ns()
        self._watch(getattr(self._track, "seen_ns", began_ns), began_ns)
        if not self._pace.sleep_until(stamp_ns, stop):
            return False
        self._track.seen_ns = now_ns = self._pace.monotonic_ns()
        self._watch(max(began_ns, stamp_ns), now_ns)
        return True

    def _watch(self, awake_ns: int, now_ns: int) -> None:
        """Move the time line on if all stood still in between; the first track that notices does it for all."""
        if now_ns - awake_ns <= HALTED_NS:
            return
        with self._lock:
            if self._start_ns is not None and awake_ns >= self._resumed_ns:
                self._start_ns += now_ns - awake_ns
                self._resumed_ns = now_ns
