"""Given threads that wait for a processor, or for something else, how much of it counts as starving."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from realtime.starvation import Starvation, _waited

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="the kernel does not count waiting for a processor"
)


def test_every_thread_of_this_process_is_counted() -> None:
    hold = threading.Event()
    thread = threading.Thread(target=hold.wait)
    thread.start()
    assert {str(os.getpid()), str(thread.native_id)} <= _waited().keys()
    hold.set()
    thread.join()
    deadline_s = time.monotonic() + 10  # Python has let it go; the kernel may take a moment longer
    while str(thread.native_id) in _waited() and time.monotonic() < deadline_s:
        pass
    assert str(thread.native_id) not in _waited()


def test_a_share_is_a_share() -> None:
    starvation = Starvation()
    assert all(0.0 <= starvation.share() <= 1.0 for _ in range(50))


def test_waiting_is_told_since_the_last_time(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = iter(
        [
            {"1": 100, "2": 50},
            {"1": 100 + 250_000_000, "3": 250_000_000},
            {"1": 100 + 250_000_000, "3": 250_000_000},
            {"1": 100 + 9_250_000_000},
        ]
    )
    ticks = iter([0, 1_000_000_000, 2_000_000_000, 3_000_000_000])
    monkeypatch.setattr("realtime.starvation._waited", lambda: next(counted))
    monkeypatch.setattr("realtime.starvation.time.monotonic_ns", lambda: next(ticks))
    starvation = Starvation()
    assert starvation.share() == 0.5
    assert starvation.share() == 0.0
    assert starvation.share() == 1.0, "several threads waiting at once are no more than all the time"


def test_of_each_thread_it_is_told_how_long_it_waited_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = iter([{"1": 100, "2": 50}, {"1": 100, "2": 50 + 900_000_000}])
    ticks = iter([0, 1_000_000_000])
    monkeypatch.setattr("realtime.starvation._waited", lambda: next(counted))
    monkeypatch.setattr("realtime.starvation.time.monotonic_ns", lambda: next(ticks))
    starvation = Starvation()
    assert starvation.share() == 0.9
    assert [starvation.of(1), starvation.of(2), starvation.of(3), starvation.of(None)] == [0.0, 0.9, 0.0, 0.0]
