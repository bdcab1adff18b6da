"""Worker threads under supervision: signs of life, counters, and a new thread when one dies or hangs."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ecmf.errors import EcmfError, EngineError
from realtime.clock import Clock

log = logging.getLogger("ecmf.workers")

RESTARTS = 5
"""Restarts allowed within RESTART_WINDOW_S; after that the worker stays off."""
RESTART_WINDOW_S = 60.0
PAUSE_S = 0.2
"""Before a restart."""
HANG_S = 10.0
"""Without a sign of life for this long a worker counts as hung."""
LOADING_S = 180.0
"""The same before its first sign: an engine may have to be built."""
HUNG = 3
"""Threads of one worker that may hang at a time; each keeps its models in memory until it comes back."""
STEP_NS = 1_000_000_000
"""What one look at a worker adds to its silence at most: a machine or process that slept does not make it hang."""
RATE_WINDOW = 64
"""Turns over which the rate is measured."""


@dataclass(frozen=True)
class WorkerReport:
    """A worker's condition at one moment."""

    alive: bool
    rate_hz: float
    drops: Mapping[str, int]
    restarts: int
    reason: str | None


class Relieved(Exception):
    """Raised in a thread that was given up as hung and comes back: another one has taken over, its results are void."""


class Hung(Exception):
    """What is said of a worker whose threads hang again and again."""


class Restarts:
    """How often something may start again: RESTARTS times in RESTART_WINDOW_S."""

    def __init__(self) -> None:
        self._failures: deque[int] = deque(maxlen=RESTARTS + 1)

    def admit(self, now_ns: int) -> bool:
        """Count one more failure; whether it may be followed by a restart."""
        self._failures.append(now_ns)
        return sum(now_ns - t <= RESTART_WINDOW_S * 1e9 for t in self._failures) <= RESTARTS


class Shift:
    """One thread's time at a worker's post: what the body is given.

    A thread that was replaced while it hung gets Relieved from every call here, so that nothing of what it still
    finishes goes any further; what it held is released as it unwinds.
    """

    def __init__(self, worker: Worker) -> None:
        self.name = worker.name
        self.stop = worker.stop
        self.drops = worker.drops
        self._worker = worker

    def beat(self) -> None:
        """Call once per finished turn."""
        self._worker._sign(self, turn=True)

    def idle(self) -> None:
        """Call when there was nothing to do, or amid a long turn: a sign of life that does not count as a turn."""
        self._worker._sign(self, turn=False)


class Worker:
    """One post with a thread at it that runs ``body``, which loops until ``shift.stop`` is set.

    A body that returns has reached the end of its input. One that raises, or gives no sign of life for HANG_S, is
    called again in a new shift (a hung one in a new thread: the old cannot be killed, but is kept from having any
    effect), at most RESTARTS times in RESTART_WINDOW_S; then the worker is off. An error of the user's making
    (EcmfError) before the first sign of life ever is not retried.
    """

    def __init__(
        self,
        name: str,
        body: Callable[[Shift], None],
        *,
        clock: Clock,
        stop: threading.Event | None = None,
        expected: Callable[[], bool] = lambda: True,
        pause_s: float = PAUSE_S,
        hang_s: float | None = None,
        on_down: Callable[[Worker], object] | None = None,
        on_off: Callable[[Worker, Exception], object] | None = None,
        on_end: Callable[[], object] | None = None,
    ) -> None:
        """``expected``: whether a sign of life can be expected now; not of who waits for a device that is away.
        ``hang_s``: HANG_S, unless given.

        ``on_down`` is called when a thread died or was given up, ``on_off`` hears why the worker is off for good;
        ``on_end`` is called once nothing more comes from it, whatever the reason, so that those behind it can finish.
        """
        self.name = name
        self.stop = stop or threading.Event()
        self.drops: Counter[str] = Counter()
        self.restarts = 0
        self.reason: str | None = None
        self.finished = False
        """Whether the body came to its end, by itself or for good."""
        self.off = False
        """Whether it ended because it failed."""
        self.worked = False
        """Whether it ever gave a sign of life: what it needs is loaded."""
        self._body = body
        self._clock = clock
        self._expected = expected
        self._pause_s = pause_s
        self._hang_s = hang_s
        self._on_down, self._on_off, self._on_end = on_down, on_off, on_end
        self._turns: deque[int] = deque(maxlen=RATE_WINDOW)
        self._budget = Restarts()
        self._lock = threading.Lock()
        self._shift: Shift | None = None
        self._thread: threading.Thread | None = None
        self._hung: list[threading.Thread] = []
        self._signs = 0
        self._seen = 0
        self._silent_ns = 0

    def start(self) -> None:
        """Begin the first shift. Raises EngineError where the system has no thread left."""
        with self._lock:
            try:
                self._begin(pause_s=0.0)
            except RuntimeError as error:
                raise EngineError(
                    f"{self.name} cannot start ({error}); free some memory, or leave parts out"
                ) from None

    @property
    def native_id(self) -> int | None:
        """The system's number of its thread; None where none runs."""
        return None if self._thread is None else self._thread.native_id

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; False when it still runs (it is a daemon and dies with the process)."""
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def watch(self, step_ns: int) -> None:
        """Look for signs of life since the last look, ``step_ns`` ago, and replace the thread after too many without.

        To be called by one thread, about once a second or more often.
        """
        with self._lock:
            signs, self._seen = self._seen, self._signs
            if self.finished or self.stop.is_set() or signs != self._signs or not self._expected():
                self._silent_ns = 0
                return
            self._silent_ns += min(step_ns, STEP_NS)
            silent_s = self._silent_ns * 1e-9
            if silent_s < ((self._hang_s or HANG_S) if self._signs else LOADING_S):
                return
            assert self._thread is not None
            self._hung = [*(thread for thread in self._hung if thread.is_alive()), self._thread]
            error = Hung(f"no sign of life for {silent_s:.0f} s")
            again = self._budget.admit(self._clock.monotonic_ns()) and len(self._hung) <= HUNG
            self._shift = None
            again = self._go_down(error, again)
        if not again:
            self._end(error)

    def report(self) -> WorkerReport:
        now_ns = self._clock.monotonic_ns()
        turns = [t for t in tuple(self._turns) if now_ns - t <= 5_000_000_000]
        span_s = (now_ns - turns[0]) * 1e-9 if turns else 0.0
        rate = (len(turns) - 1) / span_s if len(turns) > 1 and span_s > 0 else 0.0
        thread = self._thread
        alive = thread is not None and thread.is_alive() and not self.finished
        return WorkerReport(alive, rate, dict(self.drops), self.restarts, self.reason)

    def _sign(self, shift: Shift, *, turn: bool) -> None:
        if self._shift is not shift:
            raise Relieved
        self._signs += 1
        self.worked = True
        if turn:
            self._turns.append(self._clock.monotonic_ns())

    def _begin(self, pause_s: float) -> None:
        """A new shift in a new thread. With the lock held."""
        self._shift = Shift(self)
        self._signs = self._seen = self._silent_ns = 0
        thread = threading.Thread(target=self._run, args=(self._shift, pause_s), name=self.name, daemon=True)
        before, self._thread = self._thread, thread
        try:
            thread.start()
        except RuntimeError:  # one that never started cannot be waited for
            self._thread = before
            raise

    def _run(self, shift: Shift, pause_s: float) -> None:
        if pause_s and shift.stop.wait(pause_s):
            self._finish(shift)
            return
        try:
            if not shift.stop.is_set():
                self._body(shift)
        except Relieved:
            log.info("a thread of %s that hung has come back and ended", self.name)
        except Exception as error:  # the supervisor's catch: whatever killed the worker, the others go on
            self._died(shift, error)
        else:
            self._finish(shift)

    def _finish(self, shift: Shift) -> None:
        """The body came to its end; that of a thread which was replaced means nothing."""
        with self._lock:
            if self._shift is not shift:
                return
        self._end(None)

    def _died(self, shift: Shift, error: Exception) -> None:
        with self._lock:
            if self._shift is not shift:
                log.info("a thread of %s that hung has come back and failed: %s", self.name, error)
                return
            log.debug("%s failed here", self.name, exc_info=error)
            stopping = self.stop.is_set()
            mine = isinstance(error, EcmfError) and not self.worked
            again = not mine and not stopping and self._budget.admit(self._clock.monotonic_ns())
            error.__traceback__ = None  # its frames hold the models, which are about to be loaded again
            again = self._go_down(error, again)
        if stopping and not mine:
            log.info("%s failed while stopping: %s", self.name, error)
            self._end(None)
        elif not again:
            self._end(error)

    def _go_down(self, error: Exception, again: bool) -> bool:
        """A thread died or was given up; whether another has begun.

        With the lock held; ``on_down`` must not call back.
        """
        if self._on_down is not None:
            self._on_down(self)
        if again:
            self.restarts += 1
            self.reason = f"restarted after: {_line(error)}"
            log.warning("%s failed (%s: %s); restarting it", self.name, type(error).__name__, _line(error))
            try:
                self._begin(self._pause_s)
            except RuntimeError as refused:  # no memory is left for another thread
                log.warning("%s cannot be restarted: %s", self.name, refused)
                return False
        return again

    def _end(self, error: Exception | None) -> None:
        if error is not None:
            self.off = True
            self.reason = f"off: {_line(error)}"
            log.error("%s is %s", self.name, self.reason)
            if self._on_off is not None:
                self._on_off(self, error)
        self.finished = True
        if self._on_end is not None:
            self._on_end()


def _line(error: Exception) -> str:
    """What it says, in one line; its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
