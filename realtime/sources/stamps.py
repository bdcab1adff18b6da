"""When a device's sample was captured: the driver's word where it is plausible, else when we got it."""

from __future__ import annotations

import logging
import statistics
from collections import deque

from realtime.sources.base import CaptureClock

log = logging.getLogger("ecmf.sources")

MAX_AGE_NS = 1_000_000_000
"""A picture that comes later than this after its exposure was not stamped on our clock."""

MAX_SOUND_AGE_NS = 500_000_000
"""The same for sound; a PulseAudio plugin was seen 0.7 s off."""

JUMP_NS = 5_000_000_000
"""A stream whose own clock moves that far against ours has made a jump; less may be an encoder's delay."""

TRUSTED_AFTER = 30
"""So many plausible stamps in a row until a driver that was wrong is believed again."""

SAID_AFTER = 100
"""So many samples with read times until it is said: at its start a driver may give a few odd stamps."""


STEP_NS = 100_000_000
"""Sound that comes so much later than it used to, not for a moment but for STEP_LASTS_NS, was interrupted without the
driver's saying so (a sound server moved the stream to another device)."""
STEP_LASTS_NS = 300_000_000


class _Trust:
    """Whether the driver's stamps are used: lost by one implausible, regained by many plausible ones."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._plausible = TRUSTED_AFTER
        self._without = 0

    def after(self, plausible: bool, why: str) -> bool:
        self._plausible = self._plausible + 1 if plausible else 0
        trusted = self._plausible >= TRUSTED_AFTER
        self._without = 0 if trusted else self._without + 1
        if self._without == SAID_AFTER:
            log.info(
                "%s: the driver's time stamps are not usable (%s); read times are used", self._title, why
            )
        return trusted


class ExposureStamps:
    """Checks a camera's stamps: they grow, and are between 0 and 1 s old when the frame arrives."""

    def __init__(self, title: str) -> None:
        self._trust = _Trust(title)
        self._last_driver_ns = 0
        self._last_ns = 0

    def stamp(self, driver_ns: int, read_ns: int) -> tuple[int, CaptureClock]:
        """The capture time and its origin, for a frame stamped ``driver_ns`` by the driver and got at ``read_ns``.

        Times given out never go backwards.
        """
        age_ns = read_ns - driver_ns
        plausible = 0 <= age_ns <= MAX_AGE_NS and driver_ns > self._last_driver_ns
        why = "none given" if driver_ns <= 0 else f"age {age_ns / 1e9:.3f} s"
        if driver_ns > 0 and driver_ns <= self._last_driver_ns:
            why = "they do not grow"
        self._last_driver_ns = driver_ns
        trusted = self._trust.after(plausible, why)
        self._last_ns = max(self._last_ns, driver_ns if trusted else read_ns)
        return self._last_ns, "exposure" if trusted else "read"


class SampleStamps:
    """Maps the samples of a sound device, counted from the start of its stream, to the monotonic clock.

    Each buffer gives one reading of the offset between the two. Converter (ADC) stamps scatter both ways: their
    median over ``window`` buffers is taken. Read times are only ever late: their minimum is. So neither jitter of
    the scheduler nor drift of the device, which moves the window along, reaches the stamps.
    """

    def __init__(self, rate: int, title: str, window: int = 150) -> None:
        self.clock: CaptureClock = "adc"
        self._rate = rate
        self._trust = _Trust(title)
        self._converter: deque[int] = deque(maxlen=window)
        self._read: deque[int] = deque(maxlen=window)
        self._late_since_ns: int | None = None

    def observe(self, position: int, count: int, age_ns: int | None, read_ns: int) -> bool:
        """Note that ``count`` samples from ``position`` on were got at ``read_ns``; whether the count has stepped
        against the clock, so that what was known before is void.

        ``age_ns`` is how long before that the first was converted, as the driver says; None: there is no driver.
        """
        lasted_ns = count * 1_000_000_000 // self._rate
        since_start_ns = position * 1_000_000_000 // self._rate
        offset_ns = read_ns - lasted_ns - since_start_ns
        stepped = self._stepped(offset_ns, read_ns)
        if stepped:
            self.forget()
        self._read.append(offset_ns)
        self._observe_driver(lasted_ns, since_start_ns, age_ns, read_ns)
        return stepped

    def _stepped(self, offset_ns: int, read_ns: int) -> bool:
        """Nothing can come earlier than it was there; a backlog after a stall is late, but only for a moment."""
        if not self._read:
            return False
        late_ns = offset_ns - min(self._read)
        if late_ns <= STEP_NS:
            self._late_since_ns = None
            return late_ns < -STEP_NS
        if self._late_since_ns is None:
            self._late_since_ns = read_ns
        return read_ns - self._late_since_ns >= STEP_LASTS_NS

    def _observe_driver(self, lasted_ns: int, since_start_ns: int, age_ns: int | None, read_ns: int) -> None:
        if age_ns is None:
            self.clock = "read"
            return
        # Half a buffer of tolerance: some drivers stamp the middle or round to their own period.
        plausible = lasted_ns // 2 <= age_ns <= lasted_ns + MAX_SOUND_AGE_NS
        if plausible:
            self._converter.append(read_ns - age_ns - since_start_ns)
        trusted = self._trust.after(plausible, f"age {age_ns / 1e9:.3f} s")
        self.clock = "adc" if trusted else "read"

    def forget(self) -> None:
        """After lost sound the old readings no longer hold."""
        self._converter.clear()
        self._read.clear()
        self._late_since_ns = None

    def time_ns(self, position: float) -> int:
        """When the sample at ``position`` was captured; needs one observation."""
        # An interpolated median would be a float, which cannot hold nanoseconds since boot exactly.
        offset = statistics.median_low(self._converter) if self.clock == "adc" else min(self._read)
        return offset + round(position * 1_000_000_000 / self._rate)


class ArrivalStamps:
    """Maps a stream's own time line to the monotonic clock by when its packets arrived.

    Packets are only ever late (encoder, network, scheduler), some tracks more than others: the earliest of the
    last ``window`` arrivals, of all tracks together, says how the two clocks lie, so picture and sound stay
    together as they were sent.
    """

    def __init__(self, window: int = 500) -> None:
        self._offsets: deque[int] = deque(maxlen=window)

    def stamp(self, start_ns: int, end_ns: int, read_ns: int) -> int:
        """When ``start_ns`` of the stream was, for a piece up to ``end_ns`` that arrived at ``read_ns``."""
        offset = read_ns - end_ns
        if self._offsets and abs(offset - min(self._offsets)) > JUMP_NS:
            # The stream's own clock has jumped: the old arrivals say nothing any more.
            self._offsets.clear()
        self._offsets.append(offset)
        return start_ns + min(self._offsets)
