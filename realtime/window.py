"""What waits between a source and a worker: the latest frame only, and the last seconds of sound."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ecmf.vad import GAP_NS
from realtime.sources.base import SAMPLE_NS, SAMPLE_RATE, AudioBlock, CaptureClock

T = TypeVar("T")


class LatestFrame(Generic[T]):
    """One place: a new item replaces one that nobody took, which is counted as dropped."""

    def __init__(self) -> None:
        self.dropped = 0
        self.closed = False
        self._item: T | None = None
        self._changed = threading.Condition()

    def put(self, item: T) -> None:
        """Never waits for a consumer."""
        with self._changed:
            if self._item is not None:
                self.dropped += 1
            self._item = item
            self._changed.notify()

    def take(self, timeout_s: float | None = None) -> T | None:
        """Wait for an item and take it; None after ``timeout_s``, or when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self.closed, timeout_s)
            item, self._item = self._item, None
            return item

    @property
    def waiting(self) -> T | None:
        """The item that nobody has taken yet."""
        return self._item

    def close(self) -> None:
        """Nothing more will come; those who wait return."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()


@dataclass(frozen=True, eq=False, slots=True)
class AudioWindow:
    """A copy of an unbroken stretch of the ring."""

    samples: NDArray[np.float32]
    """float32[n], mono, 16 kHz; n may be 0."""
    start_ns: int
    end_ns: int
    """Capture interval; end_ns - start_ns = n * 62,500."""
    position: int
    """Of the first sample, counted from the first ever written; the next read goes on at position + n."""
    lost: int
    """Samples that were asked for but already overwritten."""
    clock: CaptureClock
    media_end_s: float | None
    """Media time of the window's end, None for a device."""

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


class AudioRing:
    """The last ``seconds`` of 16 kHz sound, and when it was captured. One writer, any number of readers.

    The newest block's stamp is taken as true and the samples before it are counted back from it, so slow
    drift of a device's rate never accumulates (100 ppm over 30 s: 3 ms). A gap is filled with silence, so
    that what is read is unbroken in time. Readers get copies; a reader that is too slow loses the oldest
    samples, counted in ``overruns``.
    """

    def __init__(self, seconds: float) -> None:
        self.capacity = round(seconds * SAMPLE_RATE)
        self.overruns = 0
        """Samples that a reader asked for and that were already overwritten."""
        self.gaps = 0
        """How often silence was put in for lost sound."""
        self.closed = False
        self._samples = np.zeros(self.capacity, np.float32)
        self._written = 0
        self._silence = (0, 0)
        self._end_ns = 0
        self._clock: CaptureClock = "read"
        self._media_end_s: float | None = None
        self._changed = threading.Condition()

    @property
    def written(self) -> int:
        """Position after the newest sample."""
        return self._written

    @property
    def end_ns(self) -> int:
        """Capture time of the end of the newest sample; 0 before the first."""
        return self._end_ns

    def write(self, block: AudioBlock) -> None:
        """Append; never waits for a reader."""
        with self._changed:
            if self._written:
                missing_ns = block.start_ns - self._end_ns
                if missing_ns > GAP_NS:
                    self.gaps += 1
                    self._append_silence(missing_ns // SAMPLE_NS)
            self._append(block.samples)
            self._end_ns = block.end_ns
            self._clock = block.clock
            if block.media_s is not None:
                self._media_end_s = block.media_s + len(block.samples) / SAMPLE_RATE
            else:
                self._media_end_s = None
            self._changed.notify_all()

    def last(self, seconds: float) -> AudioWindow:
        """The newest ``seconds``, or less where there is not that much yet."""
        with self._changed:
            return self._copy(max(self._oldest(), self._written - round(seconds * SAMPLE_RATE)), 0)

    def since(self, start_ns: int) -> AudioWindow:
        """What was captured from ``start_ns`` on, to the nearest sample; ``lost`` says what is gone."""
        with self._changed:
            wanted = self._written - max(0, round((self._end_ns - start_ns) / SAMPLE_NS))
            return self._from(max(0, wanted))

    def after(self, position: int) -> AudioWindow:
        """What was written from ``position`` on: each sample exactly once for a reader that goes on from
        ``window.position + len(window.samples)``."""
        with self._changed:
            return self._from(min(position, self._written))

    def wait(self, position: int, timeout_s: float | None = None) -> bool:
        """Wait until ``position`` samples were written; False after ``timeout_s`` or when closed before."""
        with self._changed:
            self._changed.wait_for(lambda: self._written >= position or self.closed, timeout_s)
            return self._written >= position

    def close(self) -> None:
        """Nothing more will come; those who wait return."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def _oldest(self) -> int:
        return max(0, self._written - self.capacity)

    def _from(self, wanted: int) -> AudioWindow:
        lost = max(0, self._oldest() - wanted)
        begin, end = self._silence
        self.overruns += lost - max(0, min(wanted + lost, end) - max(wanted, begin))
        return self._copy(wanted + lost, lost)

    def _copy(self, first: int, lost: int) -> AudioWindow:
        count = self._written - first
        samples = np.empty(count, np.float32)
        begin = first % self.capacity
        head = min(count, self.capacity - begin)
        samples[:head] = self._samples[begin : begin + head]
        samples[head:] = self._samples[: count - head]
        start_ns = self._end_ns - count * SAMPLE_NS
        return AudioWindow(samples, start_ns, self._end_ns, first, lost, self._clock, self._media_end_s)

    def _append(self, samples: NDArray[np.float32]) -> None:
        count = len(samples)
        kept = samples[-self.capacity :]
        begin = (self._written + count - len(kept)) % self.capacity
        head = min(len(kept), self.capacity - begin)
        self._samples[begin : begin + head] = kept[:head]
        self._samples[: len(kept) - head] = kept[head:]
        self._written += count

    def _append_silence(self, count: int) -> None:
        begin = self._written % self.capacity
        head = min(count, self.capacity - begin)
        self._samples[begin : begin + head] = 0
        self._samples[: min(count, self.capacity) - head] = 0
        self._silence = (self._written, self._written + count)
        self._written += count
