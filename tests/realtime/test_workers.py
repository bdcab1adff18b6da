"""Given a worker that ends, dies or hangs, what is restarted, what is said, and who is told."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from ecmf.errors import SourceError
from realtime.clock import FakeClock
from realtime.workers import HANG_S, HUNG, LOADING_S, RESTART_WINDOW_S, RESTARTS, STEP_NS, Shift, Worker

LONG_S = 30
"""Longest that a test waits for a thread; never reached unless something is broken."""


def finished(worker: Worker) -> bool:
    ended = threading.Event()
    worker._on_end = ended.set
    worker.start()
    return ended.wait(LONG_S)


def made(body: Callable[[Shift], None], clock: FakeClock | None = None, **options: object) -> Worker:
    return Worker("face", body, clock=clock or FakeClock(), pause_s=0.0, **options)  # type: ignore[arg-type]


def look(worker: Worker, clock: FakeClock, seconds: float) -> None:
    """Time passes, and the supervisor looks at the worker twice a second."""
    for _ in range(round(seconds * 2)):
        clock.advance(STEP_NS // 2)
        worker.watch(STEP_NS // 2)


def test_a_body_that_returns_has_ended_and_those_behind_it_are_told() -> None:
    worker = made(lambda shift: shift.beat())
    assert finished(worker)
    assert worker.finished and worker.restarts == 0 and worker.report().reason is None


def test_a_body_that_dies_once_is_called_again_and_its_engines_are_taken_off() -> None:
    calls, down = [], []

    def body(shift: Shift) -> None:
        calls.append(shift)
        shift.beat()
        if len(calls) == 1:
            raise RuntimeError("a hiccup")

    worker = made(body, on_down=lambda w: down.append(w.name))
    assert finished(worker)
    assert len(calls) == 2 and worker.restarts == 1 and down == ["face"]
    assert worker.report().reason == "restarted after: a hiccup"


def test_a_body_that_keeps_dying_is_switched_off_and_says_why() -> None:
    calls, off = [], []

    def body(shift: Shift) -> None:
        calls.append(1)
        shift.beat()
        raise RuntimeError("broken for good")

    worker = made(body, on_off=lambda w, error: off.append((w.name, str(error))))
    assert finished(worker)
    assert len(calls) == RESTARTS + 1
    assert off == [("face", "broken for good")] and worker.report().reason == "off: broken for good"
    assert not worker.report().alive


def test_one_that_gets_no_thread_to_go_on_in_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    off: list[Exception] = []

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def body(shift: Shift) -> None:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        raise MemoryError

    worker = made(body, on_off=lambda w, error: off.append(error))
    assert finished(worker)
    assert worker.off and worker.report().reason == "off: MemoryError" and isinstance(off[0], MemoryError)


def test_one_that_dies_now_and_then_goes_on_for_ever() -> None:
    clock, calls = FakeClock(), []

    def body(shift: Shift) -> None:
        calls.append(1)
        shift.beat()
        clock.advance(round(RESTART_WINDOW_S / RESTARTS * 1.01e9))
        if len(calls) < 4 * RESTARTS:
            raise RuntimeError("now and then")

    worker = made(body, clock)
    assert finished(worker)
    assert worker.restarts == 4 * RESTARTS - 1 and worker.report().reason == "restarted after: now and then"


def test_what_a_person_has_to_put_right_is_not_tried_again() -> None:
    calls, off = [], []

    def body(shift: Shift) -> None:
        calls.append(1)
        raise SourceError("camera 3 is not there")

    worker = made(body, on_off=lambda w, error: off.append(error))
    assert finished(worker)
    assert len(calls) == 1 and isinstance(off[0], SourceError)


class Hanging:
    """A body whose first ``times`` threads hang until they are let go; the others end when told."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.running: list[threading.Event] = [threading.Event() for _ in range(HUNG + 2)]
        self.go, self.leave = threading.Event(), threading.Event()
        self.calls = 0
        self.effects: list[int] = []
        self.released: list[int] = []
        self.back = threading.Semaphore(0)

    def __call__(self, shift: Shift) -> None:
        self.calls += 1
        number = self.calls
        shift.beat()
        self.running[number - 1].set()
        try:
            if number <= self.times:
                assert self.go.wait(LONG_S)
                shift.idle()
                self.effects.append(number)
            else:
                assert self.leave.wait(LONG_S)
        finally:
            self.released.append(number)
            self.back.release()


def test_a_hung_thread_is_replaced_and_what_it_still_does_is_void() -> None:
    clock, body = FakeClock(), Hanging(1)
    worker = made(body, clock)
    worker.start()
    assert body.running[0].wait(LONG_S)
    look(worker, clock, HANG_S - 1)
    assert worker.restarts == 0
    look(worker, clock, 2)
    assert body.running[1].wait(LONG_S)
    assert worker.restarts == 1 and "no sign of life for 10 s" in str(worker.report().reason)
    assert worker.report().alive
    body.go.set()
    assert body.back.acquire(timeout=LONG_S)
    assert body.released == [1] and body.effects == []
    assert not worker.finished, "the end of a hung thread is not the end of the worker"
    body.leave.set()
    assert worker.join(LONG_S) and worker.finished


def test_threads_that_hang_again_and_again_are_capped() -> None:
    clock, body = FakeClock(), Hanging(HUNG + 2)
    ended = threading.Event()
    worker = made(body, clock, on_end=ended.set)
    worker.start()
    for each in range(HUNG + 1):
        assert body.running[each].wait(LONG_S)
        look(worker, clock, HANG_S + 2)
    assert ended.is_set() and worker.finished and worker.restarts == HUNG
    assert worker.report().reason == "off: no sign of life for 10 s" and not worker.report().alive
    assert body.calls == HUNG + 1, "no more threads than that are left hanging"
    body.go.set()
    for _ in range(HUNG + 1):
        assert body.back.acquire(timeout=LONG_S)
    assert body.effects == []


def test_an_idle_worker_is_not_hung() -> None:
    clock, running, turn, leave = FakeClock(), threading.Event(), threading.Semaphore(0), threading.Event()
    done = threading.Semaphore(0)

    def body(shift: Shift) -> None:
        running.set()
        while not leave.is_set():
            assert turn.acquire(timeout=LONG_S)
            shift.idle()
            done.release()

    worker = made(body, clock)
    worker.start()
    assert running.wait(LONG_S)
    for _ in range(10):
        turn.release()
        assert done.acquire(timeout=LONG_S)
        look(worker, clock, HANG_S - 2)
    assert worker.restarts == 0
    leave.set()
    turn.release()
    assert worker.join(LONG_S)


def test_loading_may_take_longer() -> None:
    clock, loading, leave = FakeClock(), threading.Event(), threading.Event()

    def body(shift: Shift) -> None:
        loading.set()
        assert leave.wait(LONG_S)

    worker = made(body, clock)
    worker.start()
    assert loading.wait(LONG_S)
    look(worker, clock, LOADING_S - 2)
    assert worker.restarts == 0
    look(worker, clock, 4)
    assert worker.restarts == 1
    leave.set()
    assert worker.join(LONG_S)


def test_one_who_waits_for_a_device_is_not_expected_to_show_life() -> None:
    clock, running, leave = FakeClock(), threading.Event(), threading.Event()

    def body(shift: Shift) -> None:
        shift.beat()
        running.set()
        assert leave.wait(LONG_S)

    worker = made(body, clock, expected=lambda: False)
    worker.start()
    assert running.wait(LONG_S)
    look(worker, clock, 10 * HANG_S)
    assert worker.restarts == 0
    leave.set()
    assert worker.join(LONG_S)


def test_a_machine_that_slept_for_an_hour_finds_nobody_hung() -> None:
    clock, body = FakeClock(), Hanging(0)
    worker = made(body, clock)
    worker.start()
    assert body.running[0].wait(LONG_S)
    worker.watch(STEP_NS // 2)
    clock.advance(3600 * STEP_NS)
    worker.watch(3600 * STEP_NS)
    assert worker.restarts == 0
    body.leave.set()
    assert worker.join(LONG_S)


def test_a_worker_that_is_told_to_stop_is_not_called_again() -> None:
    calls = []

    def body(shift: Shift) -> None:
        calls.append(1)
        shift.beat()
        shift.stop.set()
        raise RuntimeError("while stopping")

    off: list[Exception] = []
    worker = made(body, on_off=lambda w, error: off.append(error))
    assert finished(worker)
    assert calls == [1] and not off and worker.report().reason is None
