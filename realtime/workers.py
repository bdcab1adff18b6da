"""Worker threads under supervision: a heartbeat, counters, and a restart when one dies."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ecmf.errors import EcmfError
from realtime.clock import Clock

log = logging.getLogger("ecmf.workers")

RESTARTS = 5
"""Restarts allowed within RESTART_WINDOW_S; after that the worker stays off."""
RESTART_WINDOW_S = 60.0
RESTART_PAUSE_S = 0.2
HANG_S = 10.0
"""Without a heartbeat for this long a worker counts as hung."""
RATE_WINDOW = 64
"""Heartbeats over which the rate is measured."""


@dataclass(frozen=True)
class WorkerReport:
    """A worker's condition at one moment."""

    alive: bool
    rate_hz: float
    drops: Mapping[str, int]
    restarts: int
    reason: str | None


class Worker:
    """One supervised thread around ``body``, which loops until ``worker.stop`` is set and calls ``beat`` per turn.

    A body that returns has reached the end of its input. One that raises is called again, with fresh state if it
    builds its state itself, at most RESTARTS times in RESTART_WINDOW_S; an error of the user's making (EcmfError)
    before the first heartbeat is not retried.
    """

    def __init__(
        self,
        name: str,
        body: Callable[[Worker], None],
        *,
        clock: Clock,
        on_off: Callable[[Worker, Exception], None] | None = None,
        on_end: Callable[[], object] | None = None,
    ) -> None:
        """``on_off`` hears why the worker is off for good; ``on_end`` is called once nothing more comes from it,
        whatever the reason, so that those behind it can finish.
        """
        self.name = name
        self.stop = threading.Event()
        self.drops: Counter[str] = Counter()
        self.restarts = 0
        self.reason: str | None = None
        self.finished = False
        """Whether the body came to its end, by itself or for good."""
        self.worked = False
        """Whether it ever finished a turn."""
        self._body = body
        self._clock = clock
        self._on_off = on_off
        self._on_end = on_end
        self._sign_ns = clock.monotonic_ns()
        self._beats: deque[int] = deque(maxlen=RATE_WINDOW)
        self._failures: deque[int] = deque(maxlen=RESTARTS + 1)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._beats_reset()
        self._thread.start()

    def beat(self) -> None:
        """Call once per finished turn."""
        self.worked = True
        self._sign_ns = self._clock.monotonic_ns()
        self._beats.append(self._sign_ns)

    def idle(self) -> None:
        """Call when there was nothing to do: a sign of life that does not count as a turn."""
        self._sign_ns = self._clock.monotonic_ns()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; False when it still runs (it is a daemon and dies with the process)."""
        if self._thread.ident is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def report(self) -> WorkerReport:
        now_ns = self._clock.monotonic_ns()
        beats = [t for t in self._beats if now_ns - t <= 5_000_000_000]
        span_s = (now_ns - beats[0]) * 1e-9 if beats else 0.0
        silent_s = (now_ns - self._sign_ns) * 1e-9 if self._beats else 0.0
        alive = self._thread.is_alive() and not self.finished
        hung = alive and silent_s > HANG_S
        reason = f"no sign of life for {silent_s:.0f} s" if hung else self.reason
        rate = (len(beats) - 1) / span_s if len(beats) > 1 and span_s > 0 else 0.0
        return WorkerReport(alive and not hung, rate, dict(self.drops), self.restarts, reason)

    def _beats_reset(self) -> None:
        self._beats.clear()

    def _run(self) -> None:
        while not self.stop.is_set():
            try:
                self._body(self)
                break
            except Exception as error:  # the supervisor's catch: whatever killed the worker, the others go on
                if not self._may_restart(error):
                    self.reason = f"off: {error}"
                    log.error("%s is off: %s", self.name, error)
                    log.debug("%s failed here", self.name, exc_info=error)
                    if self._on_off is not None:
                        self._on_off(self, error)
                    break
                self.restarts += 1
                self.reason = f"restarted after: {error}"
                log.warning("%s failed (%s: %s); restarting it", self.name, type(error).__name__, error)
                log.debug("%s failed here", self.name, exc_info=error)
                self.stop.wait(RESTART_PAUSE_S)
        self.finished = True
        if self._on_end is not None:
            self._on_end()

    def _may_restart(self, error: Exception) -> bool:
        if isinstance(error, EcmfError) and not self.worked:
            return False
        now_ns = self._clock.monotonic_ns()
        self._failures.append(now_ns)
        recent = [t for t in self._failures if now_ns - t <= RESTART_WINDOW_S * 1e9]
        return len(recent) <= RESTARTS
