from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmf.vad import GAP_NS
from realtime.sources.base import SAMPLE_NS, SAMPLE_RATE, AudioBlock
from realtime.window import AudioRing, LatestFrame


def block(first: int, count: int, start_ns: int, media_s: float | None = None) -> AudioBlock:
    """Sound whose value is its own number, so that order and loss can be read off."""
    samples = np.arange(first, first + count, dtype=np.float32)
    return AudioBlock(samples, start_ns, start_ns + count * SAMPLE_NS, "adc", media_s)


def steady(sizes: list[int], start_ns: int = 1_000) -> list[AudioBlock]:
    blocks, first = [], 0
    for size in sizes:
        blocks.append(block(first, size, start_ns + first * SAMPLE_NS))
        first += size
    return blocks


def ring_of(capacity: int) -> AudioRing:
    return AudioRing(capacity / SAMPLE_RATE)


@given(st.lists(st.booleans(), max_size=60))
def test_latest_frame_gives_the_newest_and_counts_the_rest(puts: list[bool]) -> None:
    slot: LatestFrame[int] = LatestFrame()
    written, taken = 0, []
    for put in puts:
        if put:
            slot.put(written)
            written += 1
        elif (item := slot.take(timeout_s=0)) is not None:
            assert item == written - 1
            taken.append(item)
    rest = slot.take(timeout_s=0)
    assert written == len(taken) + slot.dropped + (rest is not None)
    assert taken == sorted(set(taken))


def test_close_frees_whoever_waits_and_keeps_the_last_frame() -> None:
    slot: LatestFrame[str] = LatestFrame()
    taken: list[str | None] = []
    waiter = threading.Thread(target=lambda: taken.append(slot.take()))
    waiter.start()
    slot.close()
    waiter.join(timeout=30)
    assert taken == [None]
    slot.put("last")
    assert slot.take() == "last"


@given(st.integers(1, 300), st.lists(st.integers(1, 700), max_size=30), st.integers(0, 1500))
def test_last_is_the_end_of_everything_written(capacity: int, sizes: list[int], wanted: int) -> None:
    ring = ring_of(capacity)
    for piece in steady(sizes):
        ring.write(piece)
    total = sum(sizes)
    window = ring.last(wanted / SAMPLE_RATE)
    count = min(wanted, capacity, total)
    assert np.array_equal(window.samples, np.arange(total - count, total, dtype=np.float32))
    assert window.position == total - count
    assert window.end_ns - window.start_ns == count * SAMPLE_NS
    if total:
        assert window.end_ns == 1_000 + total * SAMPLE_NS
    assert ring.overruns == 0


@given(st.integers(1, 300), st.lists(st.tuples(st.integers(1, 400), st.booleans()), max_size=30))
def test_after_gives_each_sample_once_or_counts_it(capacity: int, steps: list[tuple[int, bool]]) -> None:
    ring = ring_of(capacity)
    position, read, lost = 0, [], 0
    for piece, (_, reads) in zip(steady([size for size, _ in steps]), steps, strict=True):
        ring.write(piece)
        if reads:
            window = ring.after(position)
            assert window.position == position + window.lost
            position = window.position + len(window.samples)
            lost += window.lost
            read.extend(window.samples.tolist())
    assert position == len(read) + lost
    assert read == sorted(set(read))
    assert ring.overruns == lost


@given(st.integers(1, 300), st.lists(st.integers(1, 400), min_size=1, max_size=20), st.integers(-500, 6000))
def test_since_starts_at_the_time_asked_for(capacity: int, sizes: list[int], first: int) -> None:
    ring = ring_of(capacity)
    for piece in steady(sizes):
        ring.write(piece)
    total = sum(sizes)
    window = ring.since(1_000 + first * SAMPLE_NS)
    begin = min(max(first, total - capacity, 0), total)
    assert window.position == begin
    assert np.array_equal(window.samples, np.arange(begin, total, dtype=np.float32))
    assert window.lost == max(0, begin - max(0, first))
    assert window.end_ns == 1_000 + total * SAMPLE_NS


@given(st.integers(1, 2000), st.integers(1, 4000))
def test_a_gap_becomes_silence_and_times_stay_true(before: int, missing: int) -> None:
    ring = ring_of(1000)
    ring.write(block(1, before, 0))
    gap = missing + GAP_NS // SAMPLE_NS
    start_ns = (before + gap) * SAMPLE_NS
    ring.write(block(5000, 10, start_ns))
    assert ring.gaps == 1
    window = ring.since(start_ns - 3 * SAMPLE_NS)
    assert window.samples.tolist() == [0, 0, 0, *range(5000, 5010)]
    assert ring.written == before + gap + 10
    # Silence that nobody recorded is no loss; what was written before it and is overwritten is.
    ring.after(0)
    assert ring.overruns == min(before, max(0, ring.written - 1000))


def test_jitter_of_the_stamps_neither_adds_nor_removes_samples() -> None:
    ring, rng = ring_of(SAMPLE_RATE), np.random.default_rng(1)
    for number in range(20):
        ring.write(block(number * 512, 512, number * 32_000_000 + int(rng.integers(-20e6, 20e6))))
    assert ring.gaps == 0
    assert np.array_equal(ring.after(0).samples, np.arange(20 * 512, dtype=np.float32))


def test_drift_of_the_device_is_followed() -> None:
    ring = ring_of(SAMPLE_RATE)
    step_ns = round(32_000_000 * 1.0003)  # a device that is 300 ppm slow, for an hour
    for number in range(112_500):
        ring.write(block(0, 512, number * step_ns))
    assert ring.gaps == 0
    assert abs(ring.last(0.1).end_ns - 112_500 * step_ns) < 1_000_000


def test_windows_are_copies() -> None:
    ring = ring_of(100)
    ring.write(block(0, 100, 0))
    window = ring.last(1)
    ring.write(block(100, 100, 100 * SAMPLE_NS))
    assert window.samples[0] == 0


def test_media_time_of_the_end_travels_along() -> None:
    ring = ring_of(SAMPLE_RATE)
    ring.write(block(0, 1600, 0, media_s=2.0))
    assert ring.last(1).media_end_s == pytest.approx(2.1)
    assert ring.last(1).clock == "adc"


def test_wait_sees_new_sound_and_the_end() -> None:
    ring = ring_of(100)
    assert not ring.wait(10, timeout_s=0)
    ring.write(block(0, 10, 0))
    assert ring.wait(10, timeout_s=0)
    seen: list[bool] = []
    waiter = threading.Thread(target=lambda: seen.append(ring.wait(11)))
    waiter.start()
    ring.close()
    waiter.join(timeout=30)
    assert seen == [False]
