"""From a sound device's callback to stamped 16 kHz mono."""

from __future__ import annotations

import logging
import queue
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import need
from realtime.sources.base import SAMPLE_NS, SAMPLE_RATE, AudioBlock
from realtime.sources.stamps import SampleStamps
from realtime.watch_sound import Drift, SoundWatch

if TYPE_CHECKING:
    from realtime.health import MicrophoneState

log = logging.getLogger("ecmf.sources")

SLOTS = 100
"""Buffers that may wait for their reader: 2 s."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """What one callback brought."""

    samples: NDArray[np.float32]
    """float32[n, channels], a copy."""
    position: int
    """Of the first sample since the stream began, lost ones included."""
    age_ns: int
    """How long before ``read_ns`` the first sample was converted, as the driver says."""
    read_ns: int
    lost: bool
    """Whether the driver lost sound before this buffer."""


class Inbox:
    """Between PortAudio's thread and ours: preallocated places, and a queue whose put never waits."""

    def __init__(self, size: int, channels: int) -> None:
        self.size = size
        self.channels = channels
        self.overflows = 0
        self._places = np.zeros((SLOTS, size, channels), np.float32)
        self._filled: queue.SimpleQueue[tuple[int, int, int, int, bool]] = queue.SimpleQueue()
        self._put = 0
        self._taken = 0
        self._position = 0
        self._lost = False

    def put(self, indata: NDArray[np.float32], count: int, times: Any, status: Any) -> None:
        """PortAudio's callback: nothing here allocates an array, waits for a lock or logs."""
        read_ns = time.monotonic_ns()
        if status.input_overflow:
            self.overflows += 1
            self._lost = True
        if self._put - self._taken >= SLOTS or count > self.size:
            self.overflows += 1
            self._lost = True
        else:
            self._places[self._put % SLOTS, :count] = indata
            age_ns = round((times.currentTime - times.inputBufferAdcTime) * 1e9)
            self._filled.put((self._position, count, age_ns, read_ns, self._lost))
            self._put += 1
            self._lost = False
        self._position += count

    def get(self, timeout_s: float) -> Buffer | None:
        """The oldest buffer, None when none came within ``timeout_s``."""
        try:
            position, count, age_ns, read_ns, lost = self._filled.get(timeout=timeout_s)
        except queue.Empty:
            return None
        samples = self._places[self._taken % SLOTS, :count].copy()
        self._taken += 1
        return Buffer(samples, position, age_ns, read_ns, lost)

    def discard(self) -> None:
        """Forget what came while nobody listened yet (models may take seconds to load); that is no overflow."""
        while self.get(timeout_s=0) is not None:
            pass
        self.overflows = 0


class Listener:
    """Buffers of a device to stamped 16 kHz mono."""

    def __init__(self, rate: int, channel: int | None, title: str) -> None:
        self.rate = rate
        """Of the device, as it says or, where that is plainly wrong, as it really counts."""
        self.watch = SoundWatch(rate)
        self.drift = Drift(rate)
        self._title = f"microphone {title}"
        self._channel = channel
        self._stamps = SampleStamps(rate, self._title)
        self._resampler = _resampler(rate)
        self._begin = 0
        """Position in the stream where the resampler began."""
        self._given = 0
        """Samples it has given since."""
        self._position: int | None = None

    def take(self, buffer: Buffer) -> AudioBlock | None:
        """The sound that is ready now, None when the resampler still holds it."""
        if buffer.lost or buffer.position != self._position:
            # Sound is missing in between: what follows must not be smeared into what came before.
            self._stamps.forget()
            self.drift.forget()
            self._begin_anew(buffer.position)
        self._position = buffer.position + len(buffer.samples)
        samples = self.watch.hear(buffer.samples)
        self.drift.observe(self._position, buffer.read_ns)
        if self.drift.true_rate is not None:
            self._correct(self.drift.true_rate, buffer.position)
        if self._stamps.observe(buffer.position, len(buffer.samples), buffer.age_ns, buffer.read_ns):
            self._begin_anew(buffer.position)
        if self._channel is not None:
            mono = np.ascontiguousarray(samples[:, self._channel - 1])
        else:
            mono = samples.mean(axis=1, dtype=np.float32)
        ready = mono if self._resampler is None else self._resampler.resample_chunk(mono)
        if not len(ready):
            return None
        start_ns = self._stamps.time_ns(self._begin + self._given * self.rate / SAMPLE_RATE)
        self._given += len(ready)
        return AudioBlock(ready, start_ns, start_ns + len(ready) * SAMPLE_NS, self._stamps.clock, None)

    def condition(self, overflows: int) -> MicrophoneState:
        ppm = self.drift.ppm
        return self.watch.condition(self.rate * (1 + (ppm or 0.0) * 1e-6), overflows, ppm)

    def _begin_anew(self, position: int) -> None:
        self._resampler = _resampler(self.rate)
        self._begin, self._given = position, 0

    def _correct(self, true_rate: int, position: int) -> None:
        """The device does not keep the rate it was opened with: what it gives would be heard too high or too low."""
        log.warning(
            "%s was opened at %d samples a second and gives %d; resampling from that",
            self._title,
            self.rate,
            true_rate,
        )
        self.watch.faults["wrong rate"] += 1
        self.rate = true_rate
        self.drift = Drift(true_rate)
        self._stamps = SampleStamps(true_rate, self._title)
        self._begin_anew(position)


def _resampler(rate: int) -> Any:
    if rate == SAMPLE_RATE:
        return None
    return need("soxr", "live").ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
