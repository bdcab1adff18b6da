"""What is done less often under overload, in which order, and when it comes back. Pure: measurements and times go in.

What is published stays fresh; only how often something is looked at falls: first the scene, which is context and
changes slowly, then the words, which are behind anyway, last the face.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

log = logging.getLogger("ecmf.load")


@dataclass(frozen=True)
class Effort:
    """How often each stage works."""

    scene_period_s: float = 0.5
    words_hop_s: float = 0.5
    """New sound before the words are read again."""
    face_period_s: float = 0.0
    """0: every frame."""
    reduced: tuple[str, ...] = ()
    """What is less than it should be, for people."""


LEVELS: tuple[Effort, ...] = (
    Effort(),
    Effort(1.0, 0.5, 0.0, ("scene once a second",)),
    Effort(2.0, 0.5, 0.0, ("scene every 2 s",)),
    Effort(2.0, 1.0, 0.0, ("scene every 2 s", "words read every second")),
    Effort(2.0, 2.0, 0.0, ("scene every 2 s", "words read every 2 s")),
    Effort(2.0, 2.0, 0.1, ("scene every 2 s", "words read every 2 s", "face at most 10 times a second")),
    Effort(2.0, 2.0, 0.2, ("scene every 2 s", "words read every 2 s", "face at most 5 times a second")),
)
"""From everything to the least; each differs from the one before in one thing."""

QUEUE_MS: Mapping[str, float] = {"face": 150.0, "scene": 1000.0, "speech": 1000.0, "text": 4000.0}
"""A sample that waits longer than this for its worker is overload. Alone on one core, frames wait 40 ms at most (a
turn of the face worker) and sound 400 ms (a hop, and a decoding)."""
LATE_SHARE = 0.3
"""Share of frames that nobody looked at, where there are fewer looks than estimates are wanted."""
ROOM = 0.85
"""Nothing comes back while more than this share of the cores is in use."""
WORSE_NS, BETTER_NS = 2_000_000_000, 10_000_000_000
"""Overload that long takes a step down; calm that long a step up."""
PATIENCE_NS = 160_000_000_000
"""Longest calm that is asked for, after steps up that had to be taken back."""
RELAPSE_NS = 30_000_000_000
"""Overload so soon after a step up takes it back, and the next one has to wait twice as long."""
BLIND_NS = 5_000_000_000
"""After so long without a measurement (the machine slept) what was counted before is void."""


@dataclass(frozen=True)
class Load:
    """What was measured over the last second or so."""

    cores: float
    """Processor seconds a second that this process used."""
    available: int
    """Cores it may use."""
    queue_ms: Mapping[str, float] = field(default_factory=dict)
    """Longest that a sample waited, per worker."""
    late_share: float = 0.0
    """Of the camera's frames, those that the face worker never took because it was busy."""
    face_hz: float = 0.0
    wanted_hz: float = 0.0
    """Estimates a second that are asked for, or the camera's rate where that is lower."""
    lost: int = 0
    """Sound samples and reports that were lost for want of time."""

    def overload(self) -> str | None:
        """Why this is too much, for people; None when it is not."""
        for worker, limit in QUEUE_MS.items():
            waited = self.queue_ms.get(worker, 0.0)
            if waited > limit:
                return f"{worker} is {waited:.0f} ms behind"
        if self.late_share > LATE_SHARE and self.face_hz < 0.9 * self.wanted_hz:
            return f"{self.late_share:.0%} of the frames come too late for the face"
        if self.lost:
            return "sound or reports were lost"
        return None


class Governor:
    """Decides on the effort, one level at a time."""

    def __init__(self) -> None:
        self.level = 0
        self._at_ns: int | None = None
        self._bad_ns = self._good_ns = 0
        """For how long it has been too much, less what was calm in between; and calm without a break."""
        self._patience_ns = BETTER_NS
        self._eased_ns: int | None = None
        """When something was last given back."""

    @property
    def effort(self) -> Effort:
        return LEVELS[self.level]

    def update(self, load: Load, now_ns: int) -> Effort:
        """Take a measurement, about once a second."""
        step_ns = 0 if self._at_ns is None else now_ns - self._at_ns
        self._at_ns = now_ns
        if step_ns > BLIND_NS:
            self._bad_ns = self._good_ns = step_ns = 0
            return self.effort
        trouble = load.overload()
        if trouble is not None:
            self._bad_ns, self._good_ns = self._bad_ns + step_ns, 0
            if self._bad_ns >= WORSE_NS and self.level < len(LEVELS) - 1:
                self._reduce(trouble, now_ns)
            return self.effort
        self._bad_ns = max(0, self._bad_ns - step_ns)
        if load.cores > ROOM * load.available:
            self._good_ns = 0
            return self.effort
        self._good_ns += step_ns
        if self.level and self._good_ns >= self._patience_ns:
            self._ease(now_ns)
        elif not self.level and self._good_ns >= PATIENCE_NS:
            self._patience_ns = BETTER_NS
        return self.effort

    def _reduce(self, trouble: str, now_ns: int) -> None:
        if self._eased_ns is not None and now_ns - self._eased_ns < RELAPSE_NS:
            self._patience_ns = min(2 * self._patience_ns, PATIENCE_NS)
        self._eased_ns = None
        self._bad_ns = 0
        self.level += 1
        log.warning("overload (%s): now %s", trouble, ", ".join(self.effort.reduced))

    def _ease(self, now_ns: int) -> None:
        self._good_ns = 0
        self._eased_ns = now_ns
        self.level -= 1
        log.warning(
            "there is room again: %s", ", ".join(self.effort.reduced) or "everything at its full rate"
        )
