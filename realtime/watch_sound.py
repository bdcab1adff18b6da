"""Whether a microphone's sound still means something (muted, turned up too far), and how fast it really counts."""

from __future__ import annotations

import itertools
import statistics
import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from realtime.health import MicrophoneState

SILENT_S = 3.0
"""Without the least noise for that long: muted, or no microphone behind the socket."""
NOISE = 1.5e-5
"""Of full scale: half of the smallest step of 16 bits."""
CLIPPING = 0.99
CLIPPED_SHARE = 0.005
"""Of the samples of CLIPPED_S at full scale: speech that is just loud enough touches it far less often."""
CLIPPED_S = 1.0
LOUDEST = 100.0
"""Of full scale: nothing that was heard is beyond that. A torn packet of AAC decodes to anything, up to no numbers."""

Heard = Literal["ok", "silent", "clipped"]

USUAL_RATES = (
    8_000,
    11_025,
    16_000,
    22_050,
    24_000,
    32_000,
    44_100,
    48_000,
    88_200,
    96_000,
    176_400,
    192_000,
)
SECONDS = 600
"""Over ten minutes the drift is averaged."""
ENOUGH = 30
"""Seconds until the drift is told: by then jitter of a millisecond is worth some 50 ppm."""
STEP_NS = 50_000_000
"""From one second to the next no device drifts that far: the stream was interrupted."""
WRONG_PPM = 10_000
"""A quartz is off by 100 ppm at most; one per cent is another rate than the one that was named."""
SURE = 5
"""Seconds that must agree on a wrong rate."""


class SoundWatch:
    """Looks at all sound of a source before it is resampled; any thread may ask for the condition."""

    def __init__(self, rate: int) -> None:
        self.faults: Counter[str] = Counter()
        """How often the sound fell silent, was clipped or broken; the source adds what it finds itself."""
        self.heard: Heard = "ok"
        self._rate = rate
        self._quiet = 0
        """Samples since the last noise."""
        self._loud: deque[tuple[int, int]] = deque()
        """Samples, and those of them at full scale, of the last CLIPPED_S."""
        self._broken = False

    def hear(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """``samples``: float32[n] or float32[n, channels] as the device gives them, full scale 1.

        Gives what is to be heard of them: the same, but for those that are no sound. A single one would stay in what
        is learnt of a voice, and all that is read from it would be wrong until the end of the run.
        """
        count = len(samples)
        if not count:
            return samples
        size = np.abs(samples)
        peak = float(size.max())
        broken, self._broken = self._broken, not peak <= LOUDEST
        if self._broken:
            self.faults["broken"] += not broken
            samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
            samples[np.abs(samples) > LOUDEST] = 0.0
            size = np.abs(samples)
            peak = float(size.max())
        self._quiet = 0 if peak > NOISE else self._quiet + count
        touched = int(np.count_nonzero(size >= CLIPPING)) if peak >= CLIPPING else 0
        self._loud.append((count, touched))
        # At least one piece stays, however long it is.
        while (
            len(self._loud) > 1 and sum(n for n, _ in self._loud) - self._loud[0][0] >= CLIPPED_S * self._rate
        ):
            self._loud.popleft()
        total = sum(n for n, _ in self._loud) * (samples.size // count)
        heard: Heard = "ok"
        if self._quiet >= SILENT_S * self._rate:
            heard = "silent"
        elif sum(n for _, n in self._loud) > CLIPPED_SHARE * max(total, CLIPPED_S * self._rate):
            heard = "clipped"
        if heard != self.heard and heard != "ok":
            self.faults[heard] += 1
        self.heard = heard
        return samples

    def condition(self, rate_hz: float, overflows: int, drift_ppm: float | None) -> MicrophoneState:
        """What the watch knows, with what the source knows itself."""
        from realtime.health import MicrophoneState

        return MicrophoneState(
            state=self.heard,
            rate_hz=round(rate_hz, 1),
            overflows=overflows,
            drift_ppm=None if drift_ppm is None else round(drift_ppm, 1),
            faults=dict(self.faults),
        )


class Drift:
    """How much faster than the monotonic clock a sound device counts its samples.

    Buffers are only ever late, so the earliest of each second tells how the two clocks lie; how that moves from
    second to second is the drift.
    """

    def __init__(self, rate: int) -> None:
        self.true_rate: int | None = None
        """The rate at which the device counts where that is not the one it named; None while nothing is wrong."""
        self._rate = rate
        self._lock = threading.Lock()
        self._second: tuple[int, int] | None = None
        """Of this second the earliest buffer: when it was read, and its offset."""
        self._ends_ns = 0
        self._offsets: deque[tuple[int, int]] = deque(maxlen=SECONDS)

    def observe(self, position: int, read_ns: int) -> None:
        """Note that the sample before ``position`` (counted from the stream's start) was there at ``read_ns``."""
        offset_ns = read_ns - position * 1_000_000_000 // self._rate
        if self._second is not None and read_ns < self._ends_ns:
            if offset_ns < self._second[1]:
                self._second = read_ns, offset_ns
            return
        with self._lock:
            if self._second is not None:
                self._offsets.append(self._second)
            self._second, self._ends_ns = (read_ns, offset_ns), read_ns + 1_000_000_000
        self.true_rate = self._judge()

    def forget(self) -> None:
        """Sound was lost: positions from before do not compare with those from now on."""
        with self._lock:
            self._offsets.clear()
            self._second = None

    @property
    def ppm(self) -> float | None:
        """Parts per million, positive for a device that runs fast; None until it has been watched long enough."""
        with self._lock:
            known = list(self._offsets)
        steps = [n for n, (a, b) in enumerate(itertools.pairwise(known), 1) if abs(b[1] - a[1]) > STEP_NS]
        known = known[steps[-1] if steps else 0 :]
        if len(known) < ENOUGH:
            return None
        third = len(known) // 3
        early, late = known[:third], known[-third:]
        moved_ns = statistics.median(o for _, o in late) - statistics.median(o for _, o in early)
        passed_ns = statistics.median(t for t, _ in late) - statistics.median(t for t, _ in early)
        return -moved_ns / passed_ns * 1e6

    def _judge(self) -> int | None:
        """A burst of old sound at the start is no rate: the last seconds must agree."""
        if len(self._offsets) <= SURE:
            return None
        known = list(self._offsets)[-SURE - 1 :]
        slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(known)]
        slope = statistics.median(slopes)
        if abs(slope) * 1e6 < WRONG_PPM or any(abs(each - slope) > abs(slope) / 4 for each in slopes):
            return None
        counted = self._rate * (1 - slope)
        usual = min(USUAL_RATES, key=lambda each: abs(each - counted))
        return usual if abs(usual - counted) < WRONG_PPM * 1e-6 * counted else round(counted)
