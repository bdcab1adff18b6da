"""What the workers share: where their results go, what each of them runs, and how much they are to do."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping

from realtime.degrade import Effort
from realtime.estimator import Report
from realtime.hearing import Said
from realtime.message import EngineUse
from realtime.sources.base import CaptureClock
from realtime.watch_skew import Skew
from realtime.workers import Shift

BACKLOG = 64
"""Reports that may wait for the fusion loop, which needs well under a millisecond for one."""

Outcome = Report | Said


class Exchange:
    """Safe to use from every worker's thread."""

    def __init__(self) -> None:
        self.effort = Effort()
        """Set by the pipeline, read by each worker at its next turn."""
        self.clocks: dict[str, CaptureClock] = {}
        """What stamps the picture and the sound."""
        self.skew = Skew()
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        """Whoever waits for a result is awake a little sooner than with a Queue; BACKLOG is kept by ``hand_over``."""
        self._engines: dict[str, Mapping[str, EngineUse]] = {}
        self._lock = threading.Lock()
        self._running: Mapping[str, EngineUse] = {}

    @property
    def engines(self) -> Mapping[str, EngineUse]:
        """What runs now, per branch."""
        return self._running

    def hand_over(self, shift: Shift, outcome: Outcome) -> None:
        """To the fusion; never waits. Raises Relieved in a thread that was given up: what it brings is void."""
        shift.idle()
        if self._outcomes.qsize() >= BACKLOG:  # by one for each worker at most, if all of them ask at once
            shift.drops["backlog"] += 1
        else:
            self._outcomes.put(outcome)

    def take(self, timeout_s: float) -> Outcome | None:
        """The oldest result, None when none came in time."""
        try:
            return self._outcomes.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def use(self, shift: Shift, engines: Mapping[str, EngineUse]) -> None:
        """A worker's stage is loaded and runs these."""
        shift.idle()
        self.runs(shift.name, engines)

    def runs(self, name: str, engines: Mapping[str, EngineUse] | None) -> None:
        """What ``name`` runs; None: nothing, for its thread died."""
        with self._lock:
            if engines is None:
                self._engines.pop(name, None)
            else:
                self._engines[name] = dict(engines)
            self._running = {branch: use for each in self._engines.values() for branch, use in each.items()}

    def loaded(self, name: str) -> bool:
        """Whether the stage of that worker is there."""
        return name in self._engines
