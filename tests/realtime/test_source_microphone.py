from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from ecmf.errors import SourceError
from realtime.sources import microphone as module
from realtime.sources.base import SAMPLE_RATE, AudioBlock, SourceLost
from realtime.sources.listener import SLOTS, Buffer, Inbox, Listener
from realtime.sources.microphone import (
    FIRST_S,
    WAIT_S,
    Microphone,
    MicrophoneInfo,
    _portaudio,
    choose,
    microphones,
)
from realtime.sources.returning import ReturningAudio

BUILT_IN = MicrophoneInfo(0, "HDA Intel: ALC257 (hw:0,0)", "ALSA", 2, 48_000, False)
HEADSET = MicrophoneInfo(4, "USB Audio: Headset (hw:1,0)", "ALSA", 1, 44_100, False)
DEFAULT = MicrophoneInfo(7, "default", "ALSA", 32, 44_100, True)
ALL = [BUILT_IN, HEADSET, DEFAULT]


@pytest.mark.parametrize(
    ("wanted", "index"), [(None, 7), (4, 4), ("4", 4), ("usb audio", 4), ("default", 7), ("ALC257", 0)]
)
def test_a_microphone_is_found_by_number_and_name(wanted: str | int | None, index: int) -> None:
    assert choose(wanted, ALL).index == index


def test_an_absent_microphone_is_named_with_what_there_is() -> None:
    with pytest.raises(SourceError, match=r"microphone 3 is not there; found: 0 'HDA.*--list-devices"):
        choose(3, ALL)
    with pytest.raises(SourceError, match=r"'hw:' fits several: 0 .*4 .*give its number"):
        choose("hw:", ALL)
    with pytest.raises(SourceError, match="there is no microphone"):
        choose(None, [])


def test_a_sound_system_that_does_not_start_is_one_line_and_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    try:
        sounddevice = _portaudio()
    except SourceError as error:
        pytest.skip(str(error))

    def fail() -> None:
        raise sounddevice.PortAudioError("Error initializing PortAudio: Host error", -9999)

    with monkeypatch.context() as broken:
        broken.setattr(sounddevice, "_initialize", fail)
        for _ in range(2):
            with pytest.raises(SourceError, match=r"cannot be listed: Error initializing PortAudio"):
                microphones()
    assert isinstance(microphones(), list)


OK = SimpleNamespace(input_overflow=False)
OVERFLOW = SimpleNamespace(input_overflow=True)


def times(age_s: float) -> SimpleNamespace:
    return SimpleNamespace(currentTime=1_000.0, inputBufferAdcTime=1_000.0 - age_s)


def test_the_inbox_keeps_order_and_counts_what_it_cannot_hold() -> None:
    inbox = Inbox(4, 1)
    for n in range(SLOTS + 3):
        inbox.put(np.full((4, 1), n, np.float32), 4, times(0.02), OK)
    assert inbox.overflows == 3
    first = inbox.get(0)
    assert first and first.samples[0, 0] == 0 and first.position == 0 and not first.lost
    assert first.age_ns == pytest.approx(20_000_000, abs=1)
    inbox.put(np.full((4, 1), 500, np.float32), 4, times(0.02), OK)
    rest = [inbox.get(0) for _ in range(SLOTS)]
    assert [buffer.samples[0, 0] for buffer in rest if buffer] == [*range(1, SLOTS), 500]
    last = rest[-1]
    assert last and last.lost and last.position == 4 * (SLOTS + 3)
    assert inbox.get(0) is None


def test_what_came_before_anybody_listened_is_forgotten() -> None:
    inbox = Inbox(4, 1)
    for n in range(SLOTS + 3):
        inbox.put(np.full((4, 1), n, np.float32), 4, times(0.02), OK)
    inbox.discard()
    assert inbox.overflows == 0 and inbox.get(0) is None
    inbox.put(np.full((4, 1), 7, np.float32), 4, times(0.02), OK)
    buffer = inbox.get(0)
    assert buffer and buffer.samples[0, 0] == 7 and buffer.position == 4 * (SLOTS + 3)


def test_what_the_driver_lost_is_counted_and_marked() -> None:
    inbox = Inbox(4, 1)
    inbox.put(np.zeros((4, 1), np.float32), 4, times(0.02), OVERFLOW)
    buffer = inbox.get(0)
    assert buffer and buffer.lost and inbox.overflows == 1


def tone(rate: int, seconds: float, channels: int, start_ns: int) -> list[Buffer]:
    """440 Hz as a device of that rate brings it: 20 ms at a time, 25 ms after the first sample of each."""
    size = rate // 50
    wave = np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate).astype(np.float32)
    return [
        Buffer(
            np.repeat(wave[first : first + size, None], channels, axis=1),
            first,
            25_000_000,
            start_ns + first * 1_000_000_000 // rate + 25_000_000,
            lost=False,
        )
        for first in range(0, len(wave) - size + 1, size)
    ]


def heard(listener: Listener, buffers: list[Buffer]) -> list[AudioBlock]:
    return [block for block in map(listener.take, buffers) if block is not None]


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_becomes_16_khz_without_a_seam(rate: int, channels: int) -> None:
    start_ns = 5_000_000_000_000
    blocks = heard(Listener(rate, None, "test"), tone(rate, 2, channels, start_ns))
    assert all(block.clock == "adc" and block.samples.dtype == np.float32 for block in blocks)
    assert blocks[0].start_ns == pytest.approx(start_ns, abs=100_000)
    assert all(abs(a.end_ns - b.start_ns) < 100_000 for a, b in itertools.pairwise(blocks))
    sound = np.concatenate([block.samples for block in blocks])
    assert len(sound) > 1.9 * SAMPLE_RATE
    expected = np.sin(2 * np.pi * 440 * np.arange(len(sound)) / SAMPLE_RATE)
    assert np.abs(sound - expected)[400:-400].max() < 0.01


def test_a_device_at_another_rate_than_it_says_is_heard_at_its_true_pitch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Opened at 48 kHz it gives 44,100 samples a second: a tone of 440 Hz would be heard as 479."""
    start_ns = 5_000_000_000_000
    listener, blocks = Listener(48_000, None, "test"), []
    for buffer in tone(44_100, 12, 1, start_ns):
        blocks.append(listener.take(dataclasses.replace(buffer, age_ns=20_400_000)))
    told = listener.condition(0)
    assert told.rate_hz == pytest.approx(44_100, rel=1e-3) and told.faults["wrong rate"] == 1
    assert "was opened at 48000 samples a second and gives 44100" in caplog.text
    late = [block for block in blocks if block is not None][-100:]
    sound = np.concatenate([block.samples for block in late])
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    assert spectrum.argmax() * SAMPLE_RATE / len(sound) == pytest.approx(440, abs=1)
    assert late[-1].end_ns == pytest.approx(start_ns + 12_000_000_000, abs=30_000_000)


def test_one_channel_can_be_chosen() -> None:
    buffers = tone(16_000, 0.1, 2, 0)
    for buffer in buffers:
        buffer.samples[:, 0] = 0
    assert max(np.abs(block.samples).max() for block in heard(Listener(16_000, 1, "test"), buffers)) == 0
    assert max(np.abs(block.samples).max() for block in heard(Listener(16_000, 2, "test"), buffers)) > 0.9


def test_a_sample_that_is_no_number_is_not_passed_on() -> None:
    """It would stay in what is learnt of the voice: from then on every voice is neutral, and for good."""
    buffers = tone(48_000, 0.5, 2, 0)
    buffers[10].samples[100, 1] = np.nan
    listener = Listener(48_000, None, "test")
    sound = np.concatenate([block.samples for block in heard(listener, buffers)])
    expected = np.sin(2 * np.pi * 440 * np.arange(len(sound)) / SAMPLE_RATE)
    assert np.abs(sound - expected)[400:-400].max() < 0.6  # of one sample half is missing
    assert listener.condition(0).faults["broken"] == 1


def test_sound_after_a_loss_has_its_own_time() -> None:
    start_ns = 5_000_000_000_000
    buffers = tone(48_000, 3, 1, start_ns)
    kept = buffers[:50] + buffers[100:]
    blocks = heard(Listener(48_000, None, "test"), kept)
    jumps = [
        b.start_ns - a.end_ns for a, b in itertools.pairwise(blocks) if b.start_ns - a.end_ns > 1_000_000
    ]
    assert len(jumps) == 1 and jumps[0] == pytest.approx(1_000_000_000, abs=50_000_000)
    after = next(b for a, b in itertools.pairwise(blocks) if b.start_ns - a.end_ns > 1_000_000)
    assert after.start_ns == pytest.approx(start_ns + 2_000_000_000, abs=100_000)


class Stream:
    """PortAudio's side: ``waits`` says what happens at each wait for a buffer that does not come."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, waits: Callable[[Stream], None]) -> None:
        self.active = True
        inbox = Inbox(320, 1)

        def get(timeout_s: float) -> Buffer | None:
            if timeout_s:
                waits(self)
            return None

        monkeypatch.setattr(inbox, "get", get)
        monkeypatch.setattr(module, "_opened", lambda info, channels: (inbox, self, 16_000))

    def close(self) -> None:
        self.active = False


def test_ctrl_c_is_no_loss(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The device is closed while its reader still waits for the next buffer."""
    stop = threading.Event()

    def ctrl_c(stream: Stream) -> None:
        stop.set()
        microphone.close()

    Stream(monkeypatch, ctrl_c)
    microphone = ReturningAudio(Microphone(HEADSET), lambda: Microphone(HEADSET))
    assert list(microphone.blocks(stop)) == [] and not caplog.records
    assert microphone.lost is None


def test_a_microphone_that_is_closed_ends_without_a_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Stream(monkeypatch, lambda stream: microphone.close())
    microphone = ReturningAudio(Microphone(HEADSET), lambda: Microphone(HEADSET))
    assert list(microphone.blocks(threading.Event())) == [] and not caplog.records


def test_a_process_that_was_halted_has_not_lost_its_microphone(monkeypatch: pytest.MonkeyPatch) -> None:
    """For an hour, by Ctrl-Z or with the machine it runs on; the first buffer comes a moment after the wait is over."""
    stop, waits, began_s = threading.Event(), itertools.count(1), time.monotonic()

    def halted(stream: Stream) -> None:
        wait = next(waits)
        monkeypatch.setattr("time.monotonic", lambda: began_s + 3_600.0 * wait)
        if wait == 3:
            stop.set()

    Stream(monkeypatch, halted)
    assert list(Microphone(HEADSET).blocks(stop)) == []


def test_a_microphone_that_gives_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    Stream(monkeypatch, lambda stream: waits.append(WAIT_S))
    with pytest.raises(SourceLost, match=r"USB Audio: Headset.* stopped delivering"):
        next(Microphone(HEADSET).blocks(threading.Event()))
    assert sum(waits) == pytest.approx(FIRST_S, abs=2 * WAIT_S)
