"""Given a camera that freezes, goes dark, is pulled out or changes its size, the whole pipeline says so, and no label
comes from an old picture as if it were fresh."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from running import pictures, running

from realtime import config
from realtime.assemble import Inputs, Models
from realtime.message import Estimate, Health
from realtime.sources.base import Frame, SourceLost
from realtime.sources.returning import ReturningVideo

SAID: dict[str, str | bool] = {"camera": "0", "mic": "off", "offline": True}
OLDEST_MS = 500
"""A face that is older counts no more."""
SLACK_MS = 50
"""Between the decision, which tells the ages, and its publication on a busy machine; a picture's time is 50 ms, too."""


class Device:
    """A camera whose driver stamps are right, of a real face with a sensor's noise; and what goes wrong with it."""

    name, fps = "test camera", 20.0

    def __init__(self, seen: list[NDArray[np.uint8]]) -> None:
        self.mode = "live"
        self.width, self.height = 0, 0
        self.captured_ns = 0
        """When the picture was captured that it gave last."""
        self._seen = seen
        self._rng = np.random.default_rng(1)
        self._noise = self._rng.integers(0, 4, (8, *seen[0].shape), dtype=np.uint8)

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        index, picture = 0, self._seen[0]
        while not stop.wait(1 / self.fps):
            if self.mode == "gone":
                raise SourceLost("test camera stopped delivering")
            now_ns = time.monotonic_ns()
            if self.mode != "frozen":
                picture = cv2.add(self._seen[index % len(self._seen)], self._noise[self._rng.integers(8)])
                if self.mode == "dark":
                    picture = picture // 32
                elif self.mode == "large":
                    picture = cv2.resize(picture, (1280, 720))
                self.captured_ns = now_ns
                self.height, self.width = picture.shape[:2]
            # A frozen one is stamped anew each time: its driver does not notice.
            yield Frame(picture.copy(), now_ns, now_ns, "exposure", None, index)
            index += 1

    def close(self) -> None:
        pass

    def again(self) -> Device:
        """Opening it once more."""
        if self.mode == "gone":
            raise SourceLost("test camera is not there")
        return self


@pytest.fixture(scope="module")
def seen(weight: Callable[[str], Path]) -> list[NDArray[np.uint8]]:
    for name in ("face-landmarker", "efficientnet-lite0"):
        weight(name)
    return pictures(weight("demo-face"))


@pytest.mark.slow
def test_a_camera_that_fails_in_every_way_is_told_and_never_looks_fresh(
    seen: list[NDArray[np.uint8]],
) -> None:
    device = Device(seen)
    camera = ReturningVideo(device, device.again, retry_s=0.1)
    with running(Inputs(camera, None), Models(config.load(None, SAID)), SAID) as run:

        def condition(state: str, after: int) -> int:
            return run.health(lambda h: h.camera is not None and h.camera.state == state, after)

        def unlabelled(after: int) -> int:
            return run.kept.wait_for(lambda m: isinstance(m, Estimate) and m.label is None, after)

        at = condition("ok", run.labelled())
        device.mode = "frozen"
        froze = len(run.kept.messages)
        at = unlabelled(condition("frozen", at))
        frozen_ns = device.captured_ns
        told = next(
            m
            for m in run.kept.messages[froze:]
            if isinstance(m, Health) and m.camera and m.camera.state == "frozen"
        )
        assert "camera: frozen, the same picture comes again and again; plug it in anew" in told.notes
        for message in run.kept.messages[froze : at + 1]:
            if (
                isinstance(message, Estimate)
                and message.t_publish_ns > frozen_ns
                and message.label is not None
            ):
                truly_ms = (message.t_publish_ns - frozen_ns) * 1e-6
                told_ms = message.modalities.face.age_ms
                assert told_ms is not None and told_ms >= truly_ms - SLACK_MS
                assert truly_ms <= OLDEST_MS + SLACK_MS
        silent = run.kept.messages[at]
        assert isinstance(silent, Estimate) and silent.reason == "stale"

        device.mode = "live"
        at = condition("ok", run.labelled(at))
        device.mode = "dark"
        at = condition("black", at)
        at = unlabelled(at)
        device.mode = "gone"
        at = run.health(lambda h: h.camera is not None and h.camera.state in ("lost", "reconnecting"), at)
        device.mode = "large"
        at = condition("ok", run.labelled(at))
        last = run.kept.messages[at]
        assert isinstance(last, Health) and last.camera is not None
        assert (last.camera.width, last.camera.height) == (1280, 720)
        assert last.camera.faults == {"frozen": 1, "black": 1, "lost": 1}
        assert last.workers["camera"].restarts == last.workers["face"].restarts == 0
    assert run.no_gaps()
