"""A microphone through PortAudio, resampled to 16 kHz and stamped with its converter's clock."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import SourceError, need
from realtime.sources.base import SAMPLE_NS, SAMPLE_RATE, AudioBlock, AudioSource, SourceLost
from realtime.sources.quiet import quiet
from realtime.sources.returning import ReturningAudio
from realtime.sources.stamps import SampleStamps

BUFFER_S = 0.02
LATENCY_S = 0.1
"""Suggested to PortAudio: how long our callback may be kept waiting (by Python's lock) before sound is lost."""
SLOTS = 100
"""Buffers that may wait for their reader: 2 s."""
FIRST_S = 5.0
"""The first sound may take that long (PulseAudio's plugin needs up to two seconds)."""
LOST_S = 2.0
"""After that long without a buffer the device is gone."""


@dataclass(frozen=True)
class MicrophoneInfo:
    """A sound input as PortAudio lists it."""

    index: int
    name: str
    api: str
    channels: int
    rate: int
    """Its own, samples a second."""
    default: bool


def microphones() -> list[MicrophoneInfo]:
    """All sound inputs, freshly looked up. Raises SourceError where PortAudio is not installed."""
    sounddevice = _portaudio()
    # PortAudio looks for devices only when it starts; without this a plugged-in microphone is never found.
    with quiet():
        sounddevice._terminate()
        sounddevice._initialize()
    default = sounddevice.default.device[0]
    if default < 0:
        default = (
            sounddevice.query_hostapis(0)["default_input_device"] if sounddevice.query_hostapis() else -1
        )
    return [
        MicrophoneInfo(
            index=each["index"],
            name=each["name"],
            api=sounddevice.query_hostapis(each["hostapi"])["name"],
            channels=each["max_input_channels"],
            rate=round(each["default_samplerate"]),
            default=each["index"] == default,
        )
        for each in sounddevice.query_devices()
        if each["max_input_channels"] > 0
    ]


def choose(wanted: str | int | None, found: list[MicrophoneInfo]) -> MicrophoneInfo:
    """The microphone of that number or name (a part of it is enough, case does not matter); None: the default.

    Raises SourceError when there is none, or when a part of a name fits several.
    """
    listed = ", ".join(f"{each.index} {each.name!r}" for each in found) or "none"
    if wanted is None:
        if not found:
            raise SourceError("there is no microphone; see ecmf-live --list-devices")
        return next((each for each in found if each.default), found[0])
    if str(wanted).isdigit():
        fitting = [each for each in found if each.index == int(wanted)]
    else:
        name = str(wanted).casefold()
        fitting = [each for each in found if each.name.casefold() == name]
        fitting = fitting or [each for each in found if name in each.name.casefold()]
    if not fitting:
        raise SourceError(f"microphone {wanted} is not there; found: {listed}; see ecmf-live --list-devices")
    if len(fitting) > 1:
        fits = ", ".join(f"{each.index} {each.name!r}" for each in fitting)
        raise SourceError(f"microphone {wanted!r} fits several: {fits}; give its number")
    return fitting[0]


def open_microphone(wanted: str | int | None = None, *, channel: int | None = None) -> AudioSource:
    """Open the microphone of that number or name, or the default one; it comes back after it was lost.

    ``channel`` counts from 1; without it up to two channels are averaged. Raises SourceError when it is not there
    or cannot be opened.
    """
    first = Microphone(choose(wanted, microphones()), channel)
    return ReturningAudio(first, lambda: Microphone(choose(wanted, microphones()), channel))


class Microphone:
    """One opened input. Raises SourceLost from ``blocks`` when it stops delivering."""

    def __init__(self, info: MicrophoneInfo, channel: int | None = None) -> None:
        if channel is not None and not 1 <= channel <= info.channels:
            raise SourceError(f"microphone {info.name} has channels 1 to {info.channels}, not {channel}")
        self.name = info.name
        self.rate = info.rate
        self.overflows = 0
        self._channel = channel
        self._inbox = Inbox(round(info.rate * BUFFER_S), channel or min(2, info.channels))
        sounddevice = _portaudio()
        try:
            with quiet():
                self._stream = sounddevice.InputStream(
                    device=info.index,
                    samplerate=info.rate,
                    channels=self._inbox.channels,
                    blocksize=self._inbox.size,
                    dtype="float32",
                    latency=LATENCY_S,
                    callback=self._inbox.put,
                )
                self._stream.start()
        except sounddevice.PortAudioError as error:
            raise SourceError(
                f"microphone {info.name} cannot be opened: {error.args[0]}; is another program using it?"
            ) from None

    def blocks(self, stop: threading.Event) -> Iterator[AudioBlock]:
        listener = Listener(self.rate, self._channel, self.name)
        self._inbox.discard()
        patience_s = FIRST_S
        last_s = time.monotonic()
        while not stop.is_set():
            buffer = self._inbox.get(timeout_s=0.2)
            self.overflows = self._inbox.overflows
            if buffer is None:
                silent_s = time.monotonic() - last_s
                if silent_s > patience_s or not self._stream.active:
                    raise SourceLost(f"microphone {self.name} stopped delivering; is it unplugged?")
                continue
            last_s, patience_s = time.monotonic(), LOST_S
            block = listener.take(buffer)
            if block is not None:
                yield block

    def close(self) -> None:
        sounddevice = _portaudio()
        try:
            with quiet():
                self._stream.close()
        except sounddevice.PortAudioError:
            pass  # already gone, which is what was wanted


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
        self._rate = rate
        self._channel = channel
        self._stamps = SampleStamps(rate, f"microphone {title}")
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
            self._resampler = _resampler(self._rate)
            self._begin, self._given = buffer.position, 0
        self._position = buffer.position + len(buffer.samples)
        self._stamps.observe(buffer.position, len(buffer.samples), buffer.age_ns, buffer.read_ns)
        if self._channel is not None:
            mono = np.ascontiguousarray(buffer.samples[:, self._channel - 1])
        else:
            mono = buffer.samples.mean(axis=1, dtype=np.float32)
        ready = mono if self._resampler is None else self._resampler.resample_chunk(mono)
        if not len(ready):
            return None
        start_ns = self._stamps.time_ns(self._begin + self._given * self._rate / SAMPLE_RATE)
        self._given += len(ready)
        return AudioBlock(ready, start_ns, start_ns + len(ready) * SAMPLE_NS, self._stamps.clock, None)


def _resampler(rate: int) -> Any:
    if rate == SAMPLE_RATE:
        return None
    return need("soxr", "live").ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")


def _portaudio() -> Any:
    try:
        with quiet():  # importing starts PortAudio, which lets ALSA and JACK complain
            return need("sounddevice", "live")
    except OSError:
        raise SourceError("PortAudio is not installed; install it with: apt install libportaudio2") from None
