"""A microphone through PortAudio, resampled to 16 kHz and stamped with its converter's clock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ecmf.errors import SourceError, need
from realtime.sources.base import AudioBlock, AudioSource, SourceLost
from realtime.sources.listener import Inbox, Listener
from realtime.sources.lookout import Lookout
from realtime.sources.quiet import quiet
from realtime.sources.returning import ReturningAudio
from realtime.watch_sound import USUAL_RATES

if TYPE_CHECKING:
    from realtime.health import MicrophoneState

BUFFER_S = 0.02
LATENCY_S = 0.1
"""Suggested to PortAudio: how long our callback may be kept waiting (by Python's lock) before sound is lost."""
FIRST_S = 5.0
"""The first sound may take that long (PulseAudio's plugin needs up to two seconds)."""
LOST_S = 2.0
"""After that long without a buffer the device is gone."""
WAIT_S = 0.2
"""Longest wait for a buffer; then a look whether the device is gone, or nobody listens any more."""


INVALID_RATE = -9997
"""PortAudio's paInvalidSampleRate."""


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
    """All sound inputs, freshly looked up. Raises SourceError where PortAudio is not installed or does not start."""
    sounddevice = _portaudio()
    try:
        return _listed(sounddevice)
    except sounddevice.PortAudioError as error:
        raise SourceError(
            f"microphones cannot be listed: {error}; does sound work on this machine?"
        ) from None


def _listed(sounddevice: Any) -> list[MicrophoneInfo]:
    # PortAudio looks for devices only when it starts; without this a plugged-in microphone is never found.
    with quiet():
        if sounddevice._initialized:  # not where it failed to start the last time
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
    lookout = Lookout()

    def again() -> Microphone:
        if not lookout.due():
            raise SourceError("it is not looked for now")
        found = Microphone(choose(wanted, microphones()), channel)
        lookout.found()
        return found

    return ReturningAudio(Microphone(choose(wanted, microphones()), channel), again)


class Microphone:
    """One opened input. Raises SourceLost from ``blocks`` when it stops delivering."""

    def __init__(self, info: MicrophoneInfo, channel: int | None = None) -> None:
        if channel is not None and not 1 <= channel <= info.channels:
            raise SourceError(f"microphone {info.name} has channels 1 to {info.channels}, not {channel}")
        self.name = info.name
        self.overflows = 0
        channels = channel or min(2, info.channels)
        self._inbox, self._stream, rate = _opened(info, channels)
        self._listener = Listener(rate, channel, self.name)

    @property
    def rate(self) -> int:
        return self._listener.rate

    def blocks(self, stop: threading.Event) -> Iterator[AudioBlock]:
        self._inbox.discard()
        patience_s, silent_s = FIRST_S, 0.0
        while not stop.is_set():
            buffer = self._inbox.get(WAIT_S)
            self.overflows = self._inbox.overflows
            if buffer is None:
                # Waits are counted, not the clock: a process that was halted has not listened meanwhile.
                silent_s += WAIT_S
                if not stop.is_set() and (silent_s > patience_s or not self._stream.active):
                    raise SourceLost(f"microphone {self.name} stopped delivering; is it unplugged?")
                continue
            patience_s, silent_s = LOST_S, 0.0
            block = self._listener.take(buffer)
            if block is not None:
                yield block

    def condition(self) -> MicrophoneState:
        """How it is doing now; any thread may ask."""
        return self._listener.condition(self.overflows)

    def close(self) -> None:
        sounddevice = _portaudio()
        try:
            with quiet():
                self._stream.close()
        except sounddevice.PortAudioError:
            pass  # already gone, which is what was wanted


def _opened(info: MicrophoneInfo, channels: int) -> tuple[Inbox, Any, int]:
    """A started stream and its rate: the device's own or, where it refuses that, the nearest usual one."""
    sounddevice = _portaudio()
    others = sorted(set(USUAL_RATES) - {info.rate}, key=lambda rate: abs(rate - info.rate))
    for rate in (info.rate, *others):
        inbox = Inbox(round(rate * BUFFER_S), channels)
        try:
            with quiet():
                stream = sounddevice.InputStream(
                    device=info.index,
                    samplerate=rate,
                    channels=channels,
                    blocksize=inbox.size,
                    dtype="float32",
                    latency=LATENCY_S,
                    callback=inbox.put,
                )
                stream.start()
            return inbox, stream, rate
        except sounddevice.PortAudioError as error:
            if INVALID_RATE not in error.args[1:2]:
                raise SourceError(
                    f"microphone {info.name} cannot be opened: {error.args[0]}; is another program using it?"
                ) from None
    raise SourceError(f"microphone {info.name} takes no usual sample rate; try another, see --list-devices")


def _portaudio() -> Any:
    try:
        with quiet():  # importing starts PortAudio, which lets ALSA and JACK complain
            return need("sounddevice", "live")
    except OSError:
        raise SourceError("PortAudio is not installed; install it with: apt install libportaudio2") from None
