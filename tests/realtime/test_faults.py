"""Given stages that fail or hang in the middle, the stream goes on, says so, and loses nothing it published."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from running import Camera, JumpingClock, pictures, running

from realtime import config, workers
from realtime.assemble import Inputs, Models
from realtime.clock import Clock, SystemClock
from realtime.estimator import Report
from realtime.message import Estimate, Health
from realtime.sources.base import Frame
from realtime.stages import FaceStage

SAID: dict[str, str | bool] = {"camera": "0", "mic": "off", "offline": True}


@pytest.fixture(scope="module")
def seen(weight: Callable[[str], Path]) -> list[NDArray[np.uint8]]:
    """Pictures of one person; and the weights that reading them takes."""
    for name in ("face-landmarker", "efficientnet-lite0"):
        weight(name)
    return pictures(weight("demo-face"))


def camera(seen: list[NDArray[np.uint8]], clock: Clock | None = None) -> Inputs:
    return Inputs(Camera(seen, clock or SystemClock()), None)


class Spoiled(Models):
    """The real models; the face stage does what the test wants at each frame."""

    def __init__(self, at_frame: Callable[[int], None], *, reuse: bool = False) -> None:
        """``reuse``: a restart gets the same stage again, which saves the loading."""
        super().__init__(config.load(None, SAID))
        self.built = 0
        self._at_frame = at_frame
        self._reuse = reuse
        self._frames = 0
        self._stage: FaceStage | None = None

    def face(self) -> FaceStage:
        self.built += 1
        if self._reuse and self._stage is not None:
            return self._stage
        self._stage = stage = super().face()
        see = stage.see

        def spoiled(frame: Frame, wait_ms: float) -> Report | None:
            self._frames += 1
            self._at_frame(self._frames)
            return see(frame, wait_ms)

        stage.see = spoiled  # type: ignore[method-assign]
        return stage


def test_an_engine_that_raises_in_the_middle_is_loaded_again(seen: list[NDArray[np.uint8]]) -> None:
    def at_frame(number: int) -> None:
        if number == 5:
            raise RuntimeError("the engine lost its device")

    models = Spoiled(at_frame)
    with running(camera(seen), models, SAID) as run:
        told = run.health(lambda h: h.workers["face"].restarts == 1)
        # what was seen before may still be told for a moment
        run.kept.wait_for(lambda m: isinstance(m, Estimate) and m.person not in (None, 0), told)
        message = run.kept.messages[told]
        assert isinstance(message, Health)
        assert message.workers["face"].reason == "restarted after: the engine lost its device"
        assert any("the engine lost its device" in note for note in message.notes)
    assert models.built == 2 and run.no_gaps()
    people = [m.person for m in run.kept.messages if isinstance(m, Estimate) and m.person is not None]
    assert len(set(people)) == 2, "after the restart nobody is taken for who was there before"
    assert run.summary is not None and run.summary.labels


def test_an_engine_that_raises_for_good_is_off_and_the_others_go_on(seen: list[NDArray[np.uint8]]) -> None:
    def at_frame(number: int) -> None:
        raise RuntimeError("broken for good")

    models = Spoiled(at_frame, reuse=True)
    with running(camera(seen), models, SAID) as run:
        told = run.health(lambda h: not h.workers["face"].alive)
        after = run.health(lambda h: h.workers["scene"].alive and h.workers["scene"].rate_hz > 0, told + 1)
        message = run.kept.messages[after]
        assert isinstance(message, Health)
        assert message.workers["face"].reason == "off: broken for good"
        assert "face" not in message.engine and "scene" in message.engine
        run.kept.wait_for(lambda m: isinstance(m, Estimate) and m.modalities.face.reason == "off", told)
    assert models.built == workers.RESTARTS + 1 and run.no_gaps() and run.failure is None


def test_a_stage_that_hangs_is_replaced_and_its_late_result_is_void(
    seen: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "HANG_S", 2.0)
    hanging, go, back = threading.Event(), threading.Event(), threading.Event()

    def at_frame(number: int) -> None:
        if number == 5:
            hanging.set()
            assert go.wait(60)
            back.set()

    with running(camera(seen), Spoiled(at_frame), SAID) as run:
        assert hanging.wait(60)
        told = run.health(lambda h: h.workers["face"].restarts == 1)
        after = run.labelled(told)
        threads = [t for t in threading.enumerate() if t.name == "face"]
        assert len(threads) == 2, "one that hangs, one that works"
        go.set()
        assert back.wait(60)
        (old, *_) = threads
        old.join(60)
        assert not old.is_alive(), "the thread that came back has ended"
        run.labelled(run.health(lambda h: h.workers["face"].alive, after) + 1)
    assert run.no_gaps()
    captures = [m.t_capture_ns for m in run.kept.messages if isinstance(m, Estimate) and m.trigger == "face"]
    assert all(before <= later for before, later in pairwise(captures)), (
        "no estimate of an older frame came late"
    )


def test_a_fusion_that_fails_once_goes_on(seen: list[NDArray[np.uint8]]) -> None:
    models = Spoiled(lambda number: None)
    head = models.head()
    fuse, calls = head.fuse, []

    def once(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 5:
            raise RuntimeError("a wrong turn")
        return fuse(*arguments)  # type: ignore[arg-type]

    head.fuse = once  # type: ignore[method-assign,assignment]
    models.head = lambda: head  # type: ignore[method-assign]
    with running(camera(seen), models, SAID) as run:
        told = run.health(lambda h: h.workers["fusion"].drops.get("failed") == 1)
        run.labelled(told)
    assert run.no_gaps() and run.failure is None


def test_a_fusion_that_keeps_failing_ends_the_run_in_one_line(seen: list[NDArray[np.uint8]]) -> None:
    models = Spoiled(lambda number: None)
    head = models.head()

    def never(*arguments: object) -> object:
        raise RuntimeError("nothing fits")

    head.fuse = never  # type: ignore[method-assign,assignment]
    models.head = lambda: head  # type: ignore[method-assign]
    with running(camera(seen), models, SAID) as run:
        assert run.join()
    assert "fusion keeps failing (RuntimeError: nothing fits)" in str(run.failure)


def test_a_clock_that_jumps_an_hour_restarts_nobody_and_old_cues_say_so(
    seen: list[NDArray[np.uint8]],
) -> None:
    clock = JumpingClock()
    with running(camera(seen, clock), Spoiled(lambda number: None), SAID, clock=clock) as run:
        before = run.labelled()
        jumped_ns = clock.monotonic_ns() + 3600 * 10**9
        clock.jump(3600)
        after = run.kept.wait_for(
            lambda m: isinstance(m, Estimate) and m.label is not None and m.t_capture_ns > jumped_ns, before
        )
        told = run.kept.messages[run.health(lambda h: h.uptime_s > 3600, after)]
        assert isinstance(told, Health)
        assert all(worker.restarts == 0 and worker.alive for worker in told.workers.values())
        assert told.load is not None and told.load.level == 0
    assert run.no_gaps()
    for message in run.kept.messages:
        if isinstance(message, Estimate) and message.label is not None:
            face = message.modalities.face
            assert face.age_ms is not None
            aged_ms = (message.t_publish_ns - message.t_capture_ns) * 1e-6
            assert not (message.trigger == "face" and aged_ms > face.age_ms + 50), "an old frame says its age"
