"""Whether a camera's pictures still mean something: frozen, black, how many a second, how many were lost."""

from __future__ import annotations

import dataclasses
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from realtime.sources.base import CaptureClock, Frame

if TYPE_CHECKING:
    from realtime.health import CameraState

ROWS = 48
"""Rows of a frame that are looked at: under 50 microseconds for 1920 x 1080, whatever the frame holds."""
FROZEN_NS = 500_000_000
"""The same picture for that long, to the bit, is not what a camera sees: even a dark room has noise."""
BLACK_NS = 500_000_000
BLACK_LEVEL = 32
"""Of 255; a covered lens gives noise of up to 20."""
BLACK_SHARE = 0.01
"""A black picture has at most this share of brighter pixels: some are always hot."""
RATE_NS = 5_000_000_000
"""Frames of that long count for the rate."""
GONE_NS = 2_000_000_000
"""Nothing for that long: gone, even where the driver has not noticed yet."""

Seen = Literal["ok", "frozen", "black", "lost"]


class PictureWatch:
    """Looks at every frame that a source gives out; any thread may ask for the condition.

    A frame that equals the one before it tells nothing new. It is marked as ``repeated`` and keeps the capture time
    of the first of its kind, so that whatever is read from a frozen picture grows old.
    """

    def __init__(self, *, still: bool = False, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """``still``: the source may show one picture for long (a file), so it is never frozen, nor ever gone."""
        self.faults: Counter[str] = Counter()
        """How often the pictures became frozen or black, or the source was lost."""
        self.clock: CaptureClock = "file" if still else "read"
        self._still = still
        self._now_ns = now_ns
        self._lock = threading.Lock()
        self._sample: NDArray[np.uint8] | None = None
        self._first: Frame | None = None
        """The frame that has been repeated since."""
        self._black_since_ns: int | None = None
        self._last_ns: int | None = None
        self._arrivals: deque[int] = deque(maxlen=1024)
        self._exposures: deque[int] = deque(maxlen=31)
        self._missed = 0
        self._seen: Seen = "ok"

    def see(self, frame: Frame) -> Frame:
        """The frame as it is to be handed on."""
        image = frame.image
        step = max(1, image.shape[0] // ROWS)
        sample = image[step // 2 :: step].copy()
        same = self._sample is not None and np.array_equal(sample, self._sample)
        self._sample = sample
        if not same or self._still or self._first is None:
            self._first = frame
        else:
            frame = dataclasses.replace(
                frame, start_ns=self._first.start_ns, end_ns=self._first.end_ns, repeated=True
            )
        green = sample[::2, :: max(1, image.shape[1] // 64), 1]
        dark = np.count_nonzero(green > BLACK_LEVEL) <= BLACK_SHARE * green.size
        with self._lock:
            now_ns = self._now_ns()
            self.clock = frame.clock
            self._arrivals.append(now_ns)
            self._last_ns = now_ns
            if frame.clock == "exposure" and not frame.repeated:
                self._count_missed(frame.end_ns)
            if not dark:
                self._black_since_ns = None
            elif self._black_since_ns is None:
                self._black_since_ns = now_ns
            self._note(self._judge(now_ns, frame))
        return frame

    def condition(self, width: int, height: int, *, dropped: int = 0, away: str | None = None) -> CameraState:
        """``dropped``: what the source itself dropped; ``away``: lost or reconnecting, where it knows that it is."""
        from realtime.health import CameraState

        with self._lock:
            now_ns = self._now_ns()
            if not self._still and self._last_ns is not None and now_ns - self._last_ns > GONE_NS:
                away = away or "lost"
            return CameraState(
                state=away or self._seen,  # type: ignore[arg-type]
                fps=round(self._fps(now_ns), 2),
                drops=self._missed + dropped,
                width=width,
                height=height,
                clock=self.clock,
                faults=dict(self.faults),
            )

    def lose(self) -> None:
        """The source was lost: nothing that was seen before counts any more. For the thread that calls ``see``."""
        with self._lock:
            self.faults["lost"] += 1
            self._seen, self._black_since_ns, self._first, self._sample = "ok", None, None, None
            self._last_ns = None
            self._arrivals.clear()
            self._exposures.clear()

    def _judge(self, now_ns: int, frame: Frame) -> Seen:
        if self._black_since_ns is not None and now_ns - self._black_since_ns >= BLACK_NS:
            return "black"
        if frame.repeated and now_ns - frame.end_ns >= FROZEN_NS:
            return "frozen"
        return "ok"

    def _note(self, seen: Seen) -> None:
        if seen != self._seen and seen != "ok":
            self.faults[seen] += 1
        self._seen = seen

    def _fps(self, now_ns: int) -> float:
        while self._arrivals and now_ns - self._arrivals[0] > RATE_NS:
            self._arrivals.popleft()
        if len(self._arrivals) < 2:
            return 0.0
        # A source that has just stopped has no rate from before: the wait for the next frame counts, too.
        latest_ns = self._arrivals[-1]
        usual_ns = (latest_ns - self._arrivals[0]) / (len(self._arrivals) - 1)
        waiting_ns = max(0.0, now_ns - latest_ns - usual_ns)
        return (len(self._arrivals) - 1) * 1e9 / (latest_ns - self._arrivals[0] + waiting_ns or 1)

    def _count_missed(self, exposed_ns: int) -> None:
        """Exposures that never arrived, from the gaps between those that did; automatic exposure changes the pace."""
        self._exposures.append(exposed_ns)
        if len(self._exposures) < 8:
            return
        gaps = [b - a for a, b in zip(self._exposures, list(self._exposures)[1:], strict=False)]
        usual_ns = statistics.median_low(gaps)
        if usual_ns > 0 and gaps[-1] < GONE_NS:
            self._missed += max(0, round(gaps[-1] / usual_ns) - 1)
