"""What is said of a microphone's sound: muted, clipped, and how fast it really counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.watch_sound import ENOUGH, SILENT_S, Drift, SoundWatch

RATE = 48_000
BOOT_NS = 86_400_000_000_000


def hear(watch: SoundWatch, sound: np.ndarray, size: int = 960) -> list[str]:
    states = []
    for begin in range(0, len(sound), size):
        watch.hear(sound[begin : begin + size].astype(np.float32))
        states.append(watch.heard)
    return states


def speech(seconds: float, level: float = 0.1) -> np.ndarray:
    """Noise with the rhythm of syllables: as peaky as speech."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(4).normal(0, level, len(time))
    return np.clip(noise * np.maximum(np.sin(2 * np.pi * 4 * time), 0.02), -1, 1)


def test_speech_and_a_quiet_room_are_ok() -> None:
    for level in (0.3, 0.05, 2e-4):
        watch = SoundWatch(RATE)
        assert set(hear(watch, speech(5, level))) == {"ok"}
        assert not watch.faults


def test_a_muted_microphone_is_silent_until_it_is_heard_again() -> None:
    watch = SoundWatch(RATE)
    hear(watch, speech(1))
    states = hear(watch, np.zeros(round((SILENT_S + 1) * RATE)))
    assert states.index("silent") == pytest.approx(SILENT_S * 50, abs=1)
    assert watch.condition(RATE, 0, None).state == "silent" and watch.faults == {"silent": 1}
    assert hear(watch, speech(0.02)) == ["ok"]


def test_a_microphone_turned_up_too_far_is_clipped_and_recovers() -> None:
    watch = SoundWatch(RATE)
    loud = np.clip(speech(3, 1.5), -1, 1)
    assert hear(watch, loud)[-1] == "clipped" and watch.faults == {"clipped": 1}
    assert hear(watch, speech(2))[-1] == "ok"
    assert watch.condition(RATE, 3, 12.34).overflows == 3


def test_a_single_clap_at_full_scale_is_not_clipping() -> None:
    watch = SoundWatch(RATE)
    sound = speech(3)
    sound[RATE : RATE + 96] = 1
    assert set(hear(watch, sound)) == {"ok"}


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e20])
def test_what_is_no_sound_becomes_silence_and_is_told(wrong: float) -> None:
    watch, sound = SoundWatch(RATE), speech(0.02).astype(np.float32)
    assert watch.hear(sound) is sound
    torn = sound.copy()
    torn[[100, 101]] = wrong
    for _ in range(3):
        heard = watch.hear(torn)
        assert heard[[100, 101]].tolist() == [0, 0]
        assert np.array_equal(np.delete(heard, [100, 101]), np.delete(sound, [100, 101]))
    assert watch.heard == "ok" and watch.faults == {"broken": 1}
    assert watch.hear(sound) is sound and watch.hear(torn) is not torn and watch.faults == {"broken": 2}


def test_two_channels_of_which_one_is_muted_are_not_silent() -> None:
    watch = SoundWatch(RATE)
    stereo = np.stack([np.zeros(5 * RATE), speech(5)], axis=1)
    assert set(hear(watch, stereo)) == {"ok"}


def run(drift: Drift, true_rate: float, seconds: float, *, size: int = 960, jitter_s: float = 3e-3) -> None:
    """A device that counts at ``true_rate``, whose buffers are late by chance."""
    rng = np.random.default_rng(3)
    count = round(seconds * true_rate / size)
    ready_ns = np.arange(1, count + 1) * (size / true_rate * 1e9)
    read_ns = np.maximum.accumulate(ready_ns + rng.exponential(jitter_s, count) * 1e9)
    for n, when_ns in enumerate(read_ns):
        drift.observe((n + 1) * size, BOOT_NS + round(when_ns))


@pytest.mark.parametrize("ppm", [-150, -20, 0, 80])
def test_drift_is_told_in_spite_of_jitter(ppm: float) -> None:
    drift = Drift(RATE)
    run(drift, RATE * (1 + ppm * 1e-6), 300)
    assert drift.ppm == pytest.approx(ppm, abs=5) and drift.true_rate is None


def test_an_interruption_is_no_drift() -> None:
    drift = Drift(RATE)
    for n in range(10_000):
        gone_ns = 900_000_000 if n >= 4_000 else 0
        drift.observe((n + 1) * 960, BOOT_NS + (n + 1) * 20_001_000 + gone_ns)
        assert drift.true_rate is None
    assert drift.ppm == pytest.approx(-50, abs=2)


def test_drift_is_not_told_before_it_is_known() -> None:
    drift = Drift(RATE)
    run(drift, RATE, ENOUGH - 2)
    assert drift.ppm is None
    drift.forget()
    run(drift, RATE, 5)
    assert drift.ppm is None


@settings(deadline=None, max_examples=12)
@given(
    named=st.sampled_from([16_000, 44_100, 48_000]),
    true=st.sampled_from([8_000, 16_000, 32_000, 44_100, 48_000, 96_000]),
    off_ppm=st.integers(-200, 200),
)
def test_a_wrong_rate_is_found_and_a_right_one_left_alone(named: int, true: int, off_ppm: int) -> None:
    drift = Drift(named)
    run(drift, true * (1 + off_ppm * 1e-6), 9, size=named // 50)
    assert drift.true_rate == (None if true == named else true)


def test_an_odd_rate_is_taken_as_it_is_measured() -> None:
    drift = Drift(48_000)
    run(drift, 46_000, 9)
    assert drift.true_rate == pytest.approx(46_000, rel=1e-3)


def test_a_burst_of_old_sound_at_the_start_is_no_wrong_rate() -> None:
    """As through ALSA's PulseAudio plugin: the first buffers come 0.64 s late, and together."""
    drift = Drift(RATE)
    for n in range(1_000):
        due_ns = BOOT_NS + (n + 1) * 20_000_000
        drift.observe((n + 1) * 960, max(due_ns, BOOT_NS + 640_000_000 + n * 1_000_000))
        assert drift.true_rate is None
