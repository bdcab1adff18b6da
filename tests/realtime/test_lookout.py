"""A microphone that is away for a night is looked for, but not for the price of the night's memory."""

from __future__ import annotations

import itertools
import threading

import pytest

from ecmf.errors import SourceError
from realtime.sources import microphone as module
from realtime.sources.base import SourceLost
from realtime.sources.lookout import LONGEST_S, Lookout, sound_devices
from realtime.sources.microphone import MicrophoneInfo, open_microphone

LOOK_S = 0.5


class Room:
    """What is plugged in, and what time it is."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.cards = "0 [PCH]: HDA Intel"

    def looks(self, lookout: Lookout, seconds: float) -> list[float]:
        """When it was looked, in seconds from now on."""
        began_s, times = self.now_s, []
        while self.now_s < began_s + seconds:
            if lookout.due():
                times.append(self.now_s - began_s)
            self.now_s += LOOK_S
        return times


@pytest.fixture
def room() -> Room:
    return Room()


def test_at_first_it_is_looked_for_every_time(room: Room) -> None:
    looks = room.looks(Lookout(lambda: room.now_s, lambda: room.cards), 30)
    assert looks == [LOOK_S * n for n in range(60)]


def test_over_a_night_it_is_looked_for_every_half_minute(room: Room) -> None:
    looks = room.looks(Lookout(lambda: room.now_s, lambda: room.cards), 10 * 3_600)
    assert len(looks) < 1_600  # of 72,000: 19 MB instead of 870
    assert all(b - a <= max(LOOK_S, b / 60 + LOOK_S) for a, b in itertools.pairwise(looks))
    assert all(b - a <= LONGEST_S for a, b in itertools.pairwise(looks))


def test_what_is_plugged_in_is_looked_at_at_once_and_until_it_is_ready(room: Room) -> None:
    """The kernel knows it before the sound server does."""
    lookout = Lookout(lambda: room.now_s, lambda: room.cards)
    room.looks(lookout, 3_600)
    room.cards += "\n1 [Headset]: USB-Audio"
    assert room.looks(lookout, 20) == [LOOK_S * n for n in range(40)]


def test_when_it_goes_again_it_is_looked_for_as_at_first(room: Room) -> None:
    lookout = Lookout(lambda: room.now_s, lambda: room.cards)
    room.looks(lookout, 3_600)
    lookout.found()
    room.now_s += 3_600
    assert room.looks(lookout, 20) == [LOOK_S * n for n in range(40)]


def test_this_machine_can_be_asked_and_does_not_change_by_itself() -> None:
    assert sound_devices() == sound_devices()


def test_the_sound_system_is_left_alone_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    info = MicrophoneInfo(0, "USB Headset", "ALSA", 1, 16_000, True)
    listed: list[MicrophoneInfo] = [info]
    starts = 0

    def microphones() -> list[MicrophoneInfo]:
        nonlocal starts
        starts += 1
        return listed

    class Pulled:
        name, rate, overflows = "USB Headset", 16_000, 0

        def __init__(self, info: MicrophoneInfo, channel: int | None) -> None: ...

        def blocks(self, stop: threading.Event) -> list[None]:
            raise SourceLost("microphone USB Headset stopped delivering")

        def condition(self) -> object:
            return type("State", (), {"faults": {}})

        def close(self) -> None: ...

    monkeypatch.setattr(module, "microphones", microphones)
    monkeypatch.setattr(module, "Microphone", Pulled)
    monkeypatch.setattr(module, "Lookout", lambda: Lookout(lambda: room.now_s, lambda: room.cards))
    room = Room()
    source = open_microphone()
    listed.clear()
    reopen = source._reopen  # type: ignore[attr-defined]
    for _ in range(2 * 3_600):
        with pytest.raises(SourceError):
            reopen()
        room.now_s += LOOK_S
    assert starts < 500  # of 7,200
    listed.append(info)
    room.cards += "\n1 [Headset]: USB-Audio"
    assert reopen().name == "USB Headset"
