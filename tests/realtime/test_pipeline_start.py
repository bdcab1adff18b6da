"""A pipeline that cannot start leaves nothing open behind it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from running import Camera

from ecmf.errors import BundleError, EngineError
from ecmf.head import FusionHead
from realtime import config
from realtime.assemble import Inputs, Job, Models
from realtime.clock import SystemClock
from realtime.pipeline import Pipeline
from realtime.workers import Worker


class Closing(Camera):
    """A camera that knows whether it is open."""

    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def camera() -> Closing:
    return Closing([], SystemClock())


@pytest.fixture
def pipeline(camera: Closing) -> Iterator[Pipeline]:
    chosen = config.load(None, {"camera": "0", "mic": "off"})
    job = Job(chosen, lambda message: message, "0123abcd", Inputs(camera, None), Models(chosen))
    before = set(threading.enumerate())
    yield Pipeline(job)
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()


def test_a_head_that_does_not_fit_leaves_the_camera_closed(
    pipeline: Pipeline, camera: Closing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(models: Models) -> FusionHead:
        raise BundleError("fitted to other branches")

    monkeypatch.setattr(Models, "head", refuse)
    with pytest.raises(BundleError, match="fitted to other branches"):
        pipeline.run()
    assert camera.closed


def test_a_system_without_a_thread_left_leaves_the_camera_closed(
    pipeline: Pipeline, camera: Closing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threads that did begin end, too."""
    start = Worker.start

    def refuse(worker: Worker) -> None:
        if worker.name != "camera":
            raise EngineError(f"{worker.name} cannot start (can't start new thread)")
        start(worker)

    monkeypatch.setattr(Worker, "start", refuse)
    with pytest.raises(EngineError, match="face cannot start"):
        pipeline.run()
    assert camera.closed
