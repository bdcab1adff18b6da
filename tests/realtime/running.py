"""A real pipeline on a thread of the test, whose stages can be made to fail, and whose messages can be waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime import config
from realtime.assemble import Inputs, Job, Models
from realtime.clock import Clock, SystemClock
from realtime.health import CameraState
from realtime.message import Estimate, Health, Message
from realtime.pipeline import Pipeline
from realtime.publish import Sinks
from realtime.sources import decode
from realtime.sources.base import Frame
from realtime.summary import Summary

PATIENCE_S = 60.0
"""Longest wait for something that happens within a second or two on an idle machine."""


class Kept:
    """A sink that keeps every message."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.failure: BaseException | None = None
        """Why no more will come."""
        self._came = threading.Condition()

    def write(self, message: Message, topic: str, payload: bytes) -> None:
        with self._came:
            self.messages.append(message)
            self._came.notify_all()

    def close(self) -> None:
        pass

    def fail(self, error: BaseException) -> None:
        """Whoever waits waits in vain."""
        with self._came:
            self.failure = error
            self._came.notify_all()

    def wait_for(self, wanted: Callable[[Message], bool], after: int = 0) -> int:
        """Number of the first message from ``after`` on that is wanted; fails when none comes."""
        seen = after
        with self._came:
            deadline = time.monotonic() + PATIENCE_S
            while True:
                while seen < len(self.messages):
                    if wanted(self.messages[seen]):
                        return seen
                    seen += 1
                if self.failure is not None:
                    raise self.failure
                left = deadline - time.monotonic()
                assert left > 0, f"nothing wanted among {len(self.messages)} messages: {self.messages[-1:]}"
                self._came.wait(left)


class JumpingClock(SystemClock):
    """The machine's clock, which can be put forward: what a suspended machine would see on a clock that counts it."""

    def __init__(self) -> None:
        self._ahead_ns = 0

    def monotonic_ns(self) -> int:
        return super().monotonic_ns() + self._ahead_ns

    def sleep_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        return super().sleep_until(deadline_ns - self._ahead_ns, stop)

    def jump(self, seconds: float) -> None:
        self._ahead_ns += round(seconds * 1e9)


class Camera:
    """The demo's first pictures again and again, stamped when they are read, as a camera without driver stamps."""

    name, width, height = "test camera", 640, 360

    def __init__(self, pictures: list[NDArray[np.uint8]], clock: Clock, fps: float = 20.0) -> None:
        self.fps = fps
        self._pictures, self._clock = pictures, clock

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        index = 0
        while not stop.wait(1 / self.fps):
            now_ns = self._clock.monotonic_ns()
            yield Frame(self._pictures[index % len(self._pictures)], now_ns, now_ns, "read", None, index)
            index += 1

    def condition(self) -> CameraState:
        return CameraState(
            state="ok", fps=self.fps, drops=0, width=self.width, height=self.height, clock="read"
        )

    def close(self) -> None:
        pass


def pictures(path: Path, count: int = 20) -> list[NDArray[np.uint8]]:
    """The first ``count`` of a video."""
    found: list[NDArray[np.uint8]] = []
    for decoded in decode.pictures(str(path), path.name):
        found.append(decoded.image())
        if len(found) == count:
            break
    return found


class Running:
    """A pipeline that runs meanwhile."""

    def __init__(self, pipeline: Pipeline, kept: Kept) -> None:
        self.pipeline, self.kept = pipeline, kept
        self.summary: Summary | None = None
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="running", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.summary = self.pipeline.run()
        except BaseException as error:
            self.failure = error
            self.kept.fail(error)

    def labelled(self, after: int = 0) -> int:
        """Wait for an estimate with a label."""
        return self.kept.wait_for(lambda m: isinstance(m, Estimate) and m.label is not None, after)

    def health(self, wanted: Callable[[Health], bool], after: int = 0) -> int:
        """Wait for a health message."""
        return self.kept.wait_for(lambda m: isinstance(m, Health) and wanted(m), after)

    def join(self) -> bool:
        """Wait for its own end."""
        self._thread.join(PATIENCE_S)
        return not self._thread.is_alive()

    def no_gaps(self) -> bool:
        """Whether every topic was numbered without a gap."""
        for kind in {type(m) for m in self.kept.messages}:
            numbers = [m.seq for m in self.kept.messages if type(m) is kind]
            if numbers != list(range(len(numbers))):
                return False
        return True


@contextmanager
def running(
    inputs: Inputs, models: Models, said: dict[str, str | bool], *, clock: Clock | None = None, **options: Any
) -> Iterator[Running]:
    """Started, and stopped on the way out."""
    kept = Kept()
    clock = clock or SystemClock()
    sinks = Sinks([kept], now_ns=clock.monotonic_ns, transcript=True)
    job = Job(config.load(None, said), sinks.publish, "0123abcd", inputs, models)
    made = Running(Pipeline(job, clock=clock, **options), kept)
    try:
        yield made
    finally:
        made.pipeline.stop()
        assert made.join(), "the pipeline did not stop"
