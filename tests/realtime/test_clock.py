from __future__ import annotations

import threading

from realtime.clock import FakeClock, MediaClock, SystemClock


def test_a_deadline_in_the_past_returns_at_once() -> None:
    clock = SystemClock()
    assert clock.sleep_until(clock.monotonic_ns() - 1, threading.Event())


def test_the_system_clock_never_wakes_early() -> None:
    clock = SystemClock()
    deadline = clock.monotonic_ns() + 2_000_000
    assert clock.sleep_until(deadline, threading.Event())
    assert clock.monotonic_ns() >= deadline


def test_stop_ends_a_wait_of_an_hour() -> None:
    clock, stop, woken = SystemClock(), threading.Event(), []
    deadline = clock.monotonic_ns() + 3_600_000_000_000
    waiter = threading.Thread(target=lambda: woken.append(clock.sleep_until(deadline, stop)))
    waiter.start()
    stop.set()
    waiter.join(timeout=30)
    assert woken == [False]


def test_media_time_moves_only_forward_and_only_when_moved() -> None:
    clock, stop = MediaClock(5), threading.Event()
    assert clock.monotonic_ns() == 5
    assert clock.sleep_until(100, stop)
    clock.advance_to(50)
    assert clock.monotonic_ns() == 100
    stop.set()
    assert not clock.sleep_until(200, stop)
    assert clock.monotonic_ns() == 100


def test_the_fake_clock_lets_time_pass() -> None:
    clock = FakeClock()
    clock.advance(7)
    clock.advance(3)
    assert clock.monotonic_ns() == 10
