"""What hours of running do: nothing grows with the people who came and went, and no clock runs away."""

from __future__ import annotations

import itertools
import queue
import threading
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from wire import estimate

from realtime.clock import FakeClock
from realtime.latest import Latest
from realtime.pace import Pace
from realtime.sources.listener import Buffer, Listener
from realtime.sources.network_tracks import NetworkAudio
from realtime.sources.playback import Playback
from realtime.sources.stamps import ArrivalStamps
from realtime.window import AudioRing

S = 1_000_000_000
BOOT_NS = 30 * 86_400 * S
"""A machine that has been up for a month."""


def test_people_who_came_and_went_take_no_memory_on_the_screen() -> None:
    """Each that is lost for more than two seconds comes back with a new number: thousands in ten hours."""
    latest = Latest()
    for person in range(3_000):
        latest.take(estimate(person=person, t_publish_ns=person * S, latency_ms=None))
    assert [each.person for each in latest.persons()] == [2_998, 2_999]
    assert len(latest._persons) == 2


def test_people_who_came_and_went_take_no_memory_in_the_pace() -> None:
    """Somebody whose last face came too late to count is never said to be gone."""
    pace = Pace(15.0)
    for person in range(3_000):
        assert pace.admit(person, person * S)
    assert len(pace._due_ns) == 1


@pytest.mark.parametrize("ppm", [-200, 200])
def test_sound_stays_where_it_was_captured_for_an_hour(ppm: int) -> None:
    """Through stamps, resampler and ring, in buffers of 0.1 s: by its nominal rate alone it would be 0.7 s off."""
    rate, late = 48_000 * (1 + ppm * 1e-6), np.random.default_rng(1).exponential(3e6, 36_000).astype(np.int64)
    listener, ring, silence = (
        Listener(48_000, None, "test"),
        AudioRing(30.0),
        np.zeros((4_800, 1), np.float32),
    )
    for n in range(36_000):
        begin_ns, end_ns = (BOOT_NS + round(first * 4_800 / rate * 1e9) for first in (n, n + 1))
        read_ns = end_ns + 5 * 1_000_000 + int(late[n])
        block = listener.take(Buffer(silence, n * 4_800, read_ns - begin_ns, read_ns, lost=False))
        if block is None:
            continue
        ring.write(block)
        if n > 300:
            # What has come out of the resampler, in the device's own samples.
            position = listener._given * 3
            assert block.end_ns == pytest.approx(BOOT_NS + position / rate * 1e9, abs=3_000_000)
    window = ring.last(10.0)
    assert ring.gaps == 0 and window.end_ns == block.end_ns
    assert ring.written == listener._given


@pytest.mark.parametrize("ppm", [-200, 200])
def test_a_camera_with_an_address_whose_sound_counts_otherwise_than_its_clock_stays_in_step(ppm: int) -> None:
    """Its stamps are by its clock, as RTCP makes them, its samples by its converter: by these alone the sound would
    leave the picture by 60 ms every five minutes, and break off to come back."""
    media = SimpleNamespace(title="camera", lost=None, opening=False)
    sound = NetworkAudio(media, SimpleNamespace(codec_context=SimpleNamespace(sample_rate=16_000)))  # type: ignore[arg-type]
    arrivals, rate = ArrivalStamps(), 16_000 * (1 + ppm * 1e-6)
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1_600), np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.time_base = 16_000, Fraction(1, 90_000)
    apart_ns = []
    for n in range(12_000):
        sent_s = n * 1_600 / rate
        frame.pts = round(sent_s * 90_000)
        read_ns = BOOT_NS + round((sent_s + 1_600 / rate) * 1e9) + 5_000_000
        sound.put(frame, read_ns, arrivals)
        picture_ns = arrivals.stamp(round(sent_s * 1e9), round(sent_s * 1e9), read_ns)
        try:
            block = sound._blocks.get_nowait()
        except queue.Empty:
            continue
        apart_ns.append(block.start_ns - picture_ns)
    assert len(apart_ns) > 11_990 and sound.overflows == 0
    assert max(abs(each) for each in apart_ns) < 3_000_000


def test_a_file_goes_on_where_it_was_after_its_player_was_halted_for_an_hour() -> None:
    """Ctrl-Z and fg: without this, an hour of it would be hurried through, all of it too old to count."""
    clock, stop, step_ns = FakeClock(BOOT_NS), threading.Event(), 40_000_000
    playback = Playback(clock)

    stamps = []
    for n in range(20):
        stamp_ns = playback.stamp_ns(n * step_ns)
        if n == 10:
            clock.advance(3_600 * S)  # while it waits, or decodes
        assert playback.wait(stamp_ns, stop)
        stamps.append((stamp_ns, playback.behind_ns(stamp_ns)))
    assert [late for _, late in stamps[:10]] == [0] * 10
    assert stamps[10][1] > 3_599 * S and all(late < 2 * step_ns for _, late in stamps[11:])
    assert all(b - a == step_ns for (a, _), (b, _) in itertools.pairwise(stamps[11:]))


def test_both_tracks_of_a_halted_file_go_on_together() -> None:
    clock, stop = FakeClock(BOOT_NS), threading.Event()
    playback = Playback(clock)
    both, last = threading.Barrier(2, timeout=30), {}

    def play(name: str, step_ns: int) -> None:
        for n in range(2_000_000_000 // step_ns):
            stamp_ns = playback.stamp_ns(n * step_ns)
            if n * step_ns == 960_000_000:
                both.wait()  # both know when their next piece is due
                if name == "sound":
                    clock.advance(3_600 * S)
                both.wait()
            playback.wait(stamp_ns, stop)
        last[name] = stamp_ns - n * step_ns

    tracks = [
        threading.Thread(target=play, args=each) for each in (("picture", 40_000_000), ("sound", 32_000_000))
    ]
    for track in tracks:
        track.start()
    for track in tracks:
        track.join(30)
    assert last["picture"] == last["sound"]
    assert last["sound"] - BOOT_NS == pytest.approx(3_600 * S, abs=3 * S)
