"""Given a worker that ends, dies or hangs, what is restarted, what is said, and who is told."""

from __future__ import annotations

import threading

from ecmf.errors import SourceError
from realtime.clock import FakeClock
from realtime.workers import HANG_S, RESTARTS, Worker


def finished(worker: Worker) -> bool:
    worker.start()
    return worker.join(30)


def test_a_body_that_returns_has_ended_and_those_behind_it_are_told() -> None:
    told = threading.Event()
    worker = Worker("camera", lambda w: w.beat(), clock=FakeClock(), on_end=told.set)
    assert finished(worker)
    assert worker.finished and told.is_set() and worker.restarts == 0 and worker.report().reason is None


def test_a_body_that_dies_once_is_called_again() -> None:
    calls = []

    def body(worker: Worker) -> None:
        calls.append(worker.restarts)
        worker.beat()
        if len(calls) == 1:
            raise RuntimeError("a hiccup")

    ended = []
    worker = Worker("face", body, clock=FakeClock(), on_end=lambda: ended.append(len(calls)))
    assert finished(worker)
    assert calls == [0, 1] and ended == [2]
    assert worker.report().reason == "restarted after: a hiccup"


def test_a_body_that_keeps_dying_is_switched_off_and_says_why() -> None:
    calls, off = [], []

    def body(worker: Worker) -> None:
        calls.append(1)
        worker.beat()
        raise RuntimeError("broken for good")

    worker = Worker(
        "voice", body, clock=FakeClock(), on_off=lambda w, error: off.append((w.name, str(error)))
    )
    assert finished(worker)
    assert len(calls) == RESTARTS + 1
    assert off == [("voice", "broken for good")] and worker.report().reason == "off: broken for good"


def test_what_a_person_has_to_put_right_is_not_tried_again() -> None:
    calls, off = [], []

    def body(worker: Worker) -> None:
        calls.append(1)
        raise SourceError("camera 3 is not there")

    worker = Worker("camera", body, clock=FakeClock(), on_off=lambda w, error: off.append(error))
    assert finished(worker)
    assert len(calls) == 1 and isinstance(off[0], SourceError)


def test_a_silent_worker_counts_as_hung_and_an_idle_one_does_not() -> None:
    clock, running, leave = FakeClock(), threading.Event(), threading.Event()

    def body(worker: Worker) -> None:
        worker.beat()
        running.set()
        leave.wait(30)

    worker = Worker("text", body, clock=clock)
    worker.start()
    assert running.wait(30)
    clock.advance(round((HANG_S + 1) * 1e9))
    assert not worker.report().alive and "no sign of life" in str(worker.report().reason)
    worker.idle()
    assert worker.report().alive
    leave.set()
    assert worker.join(30)
