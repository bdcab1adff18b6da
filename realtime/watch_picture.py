"""Whether a camera's pictures still mean something: frozen, black, how many a second, how many were lost."""

from __future__ import annotations

import dataclasses
import statistics
import threading
import time
import zlib
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from realtime.sources.base import CaptureClock, Frame

if TYPE_CHECKING:
    from realtime.health import CameraState

SAMPLE = 96_000
"""Bytes of a frame that are looked at, in whole rows: well under 0.1 ms, whatever its size."""
AGAIN_NS = 2_100_000_000
"""A picture that was there within this long, to the bit, is the same one. So long, because a network camera whose
sensor hangs goes on encoding: its key frames and those between differ, but come again with every group of them."""
FROZEN_NS = 500_000_000
"""Nothing but repeated pictures for that long is not what a camera sees: even a dark room has noise."""
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


@dataclass
class _Shown:
    """A picture: its capture when it was first shown, and when it was last."""

    start_ns: int
    end_ns: int
    seen_ns: int


class PictureWatch:
    """Looks at every frame that a source gives out; any thread may ask for the condition.

    A frame that was there just before tells nothing new. It is marked as ``repeated`` and keeps the capture time of
    the first of its kind, so that whatever is read from a frozen picture grows old.
    """

    def __init__(self, *, still: bool = False, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """``still``: the source may show one picture for long (a file), so it is never frozen, nor ever gone."""
        self.faults: Counter[str] = Counter()
        """How often the pictures became frozen or black, or the source was lost."""
        self.clock: CaptureClock = "file" if still else "read"
        self._still = still
        self._now_ns = now_ns
        self._lock = threading.Lock()
        self._shown: OrderedDict[int, _Shown] = OrderedDict()
        """Pictures of the last AGAIN_NS by their checksum, the one last seen at the end."""
        self._last: Frame | None = None
        self._black_since_ns: int | None = None
        self._last_ns: int | None = None
        self._arrivals: deque[int] = deque(maxlen=1024)
        self._exposures: deque[int] = deque(maxlen=31)
        self._missed = 0
        self._seen: Seen = "ok"

    def see(self, frame: Frame) -> Frame:
        """The frame as it is to be handed on."""
        now_ns = self._now_ns()
        sample = _sample(frame.image)
        green = sample[::2, :: max(1, sample.shape[1] // 64), 1]
        dark = np.count_nonzero(green > BLACK_LEVEL) <= BLACK_SHARE * green.size
        if not self._still:
            frame = self._aged(frame, zlib.crc32(sample.data), now_ns)
        with self._lock:
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
            self._seen, self._black_since_ns, self._last = "ok", None, None
            self._shown.clear()
            self._last_ns = None
            self._arrivals.clear()
            self._exposures.clear()

    def _aged(self, frame: Frame, checksum: int, now_ns: int) -> Frame:
        """The frame, as old as its picture. Times never go backwards."""
        while self._shown and now_ns - next(iter(self._shown.values())).seen_ns > AGAIN_NS:
            self._shown.popitem(last=False)
        before = self._shown.get(checksum)
        if before is None:
            self._shown[checksum] = _Shown(frame.start_ns, frame.end_ns, now_ns)
        else:
            before.seen_ns = now_ns
            self._shown.move_to_end(checksum)
            start_ns, end_ns = before.start_ns, before.end_ns
            if self._last is not None and self._last.end_ns > end_ns:
                start_ns, end_ns = self._last.start_ns, self._last.end_ns
            frame = dataclasses.replace(frame, start_ns=start_ns, end_ns=end_ns, repeated=True)
        self._last = frame
        return frame

    def _judge(self, now_ns: int, frame: Frame) -> Seen:
        if self._black_since_ns is not None:
            return "black" if now_ns - self._black_since_ns >= BLACK_NS else "ok"
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


def _sample(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rows of ``image`` (uint8[H, W, 3]) at equal distances, SAMPLE bytes or a little more."""
    rows = max(12, SAMPLE // image[0].nbytes)
    step = max(1, image.shape[0] // rows)
    return np.ascontiguousarray(image[step // 2 :: step])
