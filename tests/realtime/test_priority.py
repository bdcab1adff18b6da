"""Given a worker that may take its time, its thread gives way to the others, and only its own."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from realtime.priority import NICE, giving_way

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="threads have priorities of their own on Linux only"
)


def niceness(name: str) -> tuple[int, int]:
    """Of the thread of worker ``name``, and of a thread that it starts, as a native library would."""
    found: list[int] = []

    def note() -> None:
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    def body(_: None) -> None:
        note()
        helper = threading.Thread(target=note)
        helper.start()
        helper.join()

    thread = threading.Thread(target=giving_way(name, body), args=(None,))
    thread.start()
    thread.join()
    return found[0], found[1]


@linux
@pytest.mark.parametrize("name", ["speech", "text", "scene", "enrichment"])
def test_who_may_take_its_time_gives_way_with_all_that_it_starts(name: str) -> None:
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    expected = min(19, before + NICE[name])
    assert niceness(name) == (expected, expected)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


@linux
@pytest.mark.parametrize("name", ["camera", "face", "microphone"])
def test_whom_somebody_waits_for_does_not(name: str) -> None:
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert niceness(name) == (before, before)
