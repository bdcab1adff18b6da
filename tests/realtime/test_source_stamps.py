from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.sources.stamps import SAID_AFTER, TRUSTED_AFTER, ArrivalStamps, ExposureStamps, SampleStamps

FRAME_NS = 33_333_333
BOOT_NS = 86_400_000_000_000


def readings(ages_ms: list[float]) -> list[tuple[int, int]]:
    """(driver stamp, read time) of a 30 fps camera whose frames arrive that long after exposure."""
    return [
        (BOOT_NS + n * FRAME_NS, BOOT_NS + n * FRAME_NS + round(age * 1e6)) for n, age in enumerate(ages_ms)
    ]


def test_plausible_exposure_stamps_are_used() -> None:
    stamps = ExposureStamps("camera 0")
    for driver_ns, read_ns in readings([40, 38, 45, 60, 41, 300, 39]):
        assert stamps.stamp(driver_ns, read_ns) == (driver_ns, "exposure")


@pytest.mark.parametrize(
    ("driver", "why"),
    [
        (lambda driver_ns: 0, "none given"),
        (lambda driver_ns: driver_ns - BOOT_NS, "age 86400"),  # another clock's origin
        (lambda driver_ns: driver_ns + 1_000_000_000, "age -0.9"),  # the future
        (lambda driver_ns: BOOT_NS, "do not grow"),  # stuck
    ],
)
def test_implausible_stamps_fall_back_to_reading_and_are_said_once(
    driver: object, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    stamps = ExposureStamps("camera 0")
    assert callable(driver)
    with caplog.at_level(logging.INFO):
        got = [stamps.stamp(driver(d), r) for d, r in readings([40.0] * (2 * SAID_AFTER + 2))]
    assert [clock for _, clock in got[1:]] == ["read"] * (len(got) - 1)
    assert [ns for ns, _ in got[1:]] == [r for _, r in readings([40.0] * len(got))][1:]
    assert len(caplog.records) == 1 and why in caplog.text and "camera 0" in caplog.text


def test_a_driver_that_recovers_is_believed_again() -> None:
    stamps = ExposureStamps("camera 0")
    series = readings([40.0] * 100)
    clocks = [stamps.stamp(0 if n == 10 else d, r)[1] for n, (d, r) in enumerate(series)]
    assert clocks[:10] == ["exposure"] * 10
    assert clocks[10 : 10 + TRUSTED_AFTER] == ["read"] * TRUSTED_AFTER
    assert clocks[10 + TRUSTED_AFTER :] == ["exposure"] * (90 - TRUSTED_AFTER)


@given(st.lists(st.tuples(st.integers(-(10**10), 10**10), st.integers(0, 10**9)), max_size=80))
def test_camera_times_never_go_backwards_nor_into_the_future(steps: list[tuple[int, int]]) -> None:
    stamps, read_ns, last_ns = ExposureStamps("camera 0"), BOOT_NS, 0
    for age_ns, passed_ns in steps:
        read_ns += passed_ns
        stamp_ns, _ = stamps.stamp(read_ns - age_ns, read_ns)
        assert last_ns <= stamp_ns <= read_ns
        last_ns = stamp_ns


def feed(
    stamps: SampleStamps, buffers: int, rate: float, jitter: np.random.Generator | None, age_ms: float | None
) -> int:
    """``buffers`` of 960 samples from a device that really runs at ``rate``; returns the position reached."""
    for n in range(buffers):
        first_ns = BOOT_NS + round(n * 960 / rate * 1e9)
        late_ns = int(jitter.exponential(3e6)) if jitter is not None else 0
        read_ns = first_ns + 20_000_000 + 5_000_000 + late_ns
        noise_ns = int(jitter.normal(0, 2e6)) if jitter is not None else 0
        stamps.observe(n * 960, 960, None if age_ms is None else read_ns - first_ns + noise_ns, read_ns)
    return buffers * 960


@pytest.mark.parametrize("ppm", [-100, 0, 100])
def test_converter_stamps_follow_a_drifting_device_through_jitter(ppm: int) -> None:
    rate = 48_000 * (1 + ppm * 1e-6)
    stamps = SampleStamps(48_000, "microphone")
    position = feed(stamps, 60_000, rate, np.random.default_rng(3), age_ms=25)  # 20 minutes
    true_ns = BOOT_NS + round(position / rate * 1e9)
    assert stamps.clock == "adc"
    assert stamps.time_ns(position) == pytest.approx(true_ns, abs=1_000_000)


def test_converter_stamps_stay_right_for_hours() -> None:
    """Three hours in buffers of 0.1 s from a device that is 120 ppm fast until it is warm, then 60 ppm slow: by the
    nominal rate alone it would be 0.4 s off after one hour."""
    stamps, rng = SampleStamps(48_000, "microphone"), np.random.default_rng(3)
    position, true_ns = 0, float(BOOT_NS)
    late = rng.exponential(3e6, 3 * 36_000).astype(np.int64)
    for n in range(3 * 36_000):
        rate = 48_000 * (1 + (120e-6 if n < 36_000 else -60e-6))
        first_ns, true_ns = true_ns, true_ns + 4_800 / rate * 1e9
        read_ns = round(true_ns) + 5_000_000 + int(late[n])
        assert not stamps.observe(position, 4_800, read_ns - round(first_ns), read_ns)
        position += 4_800
        if n % 36_000 == 35_999:
            assert stamps.clock == "adc"
            assert stamps.time_ns(position) == pytest.approx(true_ns, abs=2_000_000)


def test_read_times_are_freed_of_lateness() -> None:
    stamps = SampleStamps(48_000, "network camera")
    position = feed(stamps, 3_000, 48_000, np.random.default_rng(3), age_ms=None)
    assert stamps.clock == "read"
    # 5 ms is the least delay of this device: what nobody can see from here.
    assert stamps.time_ns(position) == pytest.approx(BOOT_NS + 60_000_000_000 + 5_000_000, abs=1_000_000)


def test_a_burst_of_old_sound_at_the_start_does_not_count_for_long() -> None:
    """As recorded through ALSA's PulseAudio plugin: 0.638 s of age at first, 20 ms from then on."""
    stamps = SampleStamps(48_000, "microphone")
    for n in range(200):
        age_ns = 638_000_000 if n < 25 else 20_200_000
        stamps.observe(n * 960, 960, age_ns, BOOT_NS + n * 20_000_000 + 20_200_000)
        assert stamps.clock == ("read" if n < 25 + TRUSTED_AFTER - 1 else "adc")
    assert stamps.time_ns(200 * 960) == pytest.approx(BOOT_NS + 4_000_000_000, abs=100_000)


@pytest.mark.parametrize("age_ms", [20.2, None])
def test_a_stream_that_was_moved_to_another_device_is_stamped_right_at_once(age_ms: float | None) -> None:
    """Nothing came for 1.4 s, nobody said so, and the count goes on as if nothing had happened."""
    stamps = SampleStamps(48_000, "microphone")
    age_ns = None if age_ms is None else round(age_ms * 1e6)
    steps, worst = 0, 0
    for n in range(400):
        true_ns = BOOT_NS + n * 20_000_000 + (1_400_000_000 if n >= 200 else 0)
        steps += stamps.observe(n * 960, 960, age_ns, true_ns + 20_200_000)
        if n >= 200 + 16:
            worst = max(worst, abs(stamps.time_ns(n * 960) - true_ns))
    assert steps == 1 and worst < 1_000_000


def test_a_stall_with_a_backlog_is_no_step() -> None:
    """Python was held up for 0.4 s: what waited comes at once, and then everything is in time again."""
    stamps = SampleStamps(48_000, "microphone")
    for n in range(300):
        due_ns = BOOT_NS + (n + 1) * 20_000_000
        read_ns = max(due_ns, BOOT_NS + 3_400_000_000 + n * 10_000) if n >= 150 else due_ns
        assert not stamps.observe(n * 960, 960, None, read_ns)
        assert abs(stamps.time_ns(n * 960) - (due_ns - 20_000_000)) < 1_000_000


def test_lost_sound_starts_the_count_anew() -> None:
    stamps = SampleStamps(16_000, "microphone")
    for n in range(100):
        stamps.observe(n * 320, 320, 20_000_000, BOOT_NS + (n + 1) * 20_000_000)
    stamps.forget()
    stamps.observe(32_000, 320, 20_000_000, BOOT_NS + 60_020_000_000)
    assert stamps.time_ns(32_000) == BOOT_NS + 60_000_000_000


def test_tracks_of_a_stream_stay_together_whatever_their_delays() -> None:
    stamps, rng = ArrivalStamps(), np.random.default_rng(5)
    for n in range(1, 1_000):
        sent_ns = n * 33_333_333
        late_ns = int(rng.exponential(4e6))
        sound_ns = stamps.stamp(sent_ns, sent_ns + 20_000_000, BOOT_NS + sent_ns + 30_000_000 + late_ns)
        picture_ns = stamps.stamp(sent_ns, sent_ns, BOOT_NS + sent_ns + 130_000_000 + late_ns)
        assert abs(picture_ns - sound_ns) < 5_000_000 or n < 10
    assert picture_ns == pytest.approx(BOOT_NS + sent_ns + 10_000_000, abs=1_000_000)


def test_a_stream_whose_clock_jumps_is_followed() -> None:
    stamps = ArrivalStamps()
    stamps.stamp(0, 0, BOOT_NS)
    assert stamps.stamp(3_600_000_000_000, 3_600_000_000_000, BOOT_NS + 40_000_000) == BOOT_NS + 40_000_000
    assert stamps.stamp(0, 0, BOOT_NS + 80_000_000) == BOOT_NS + 80_000_000
