from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from ecmf.errors import SourceError
from realtime.health import MicrophoneState
from realtime.sources.base import AudioBlock, Frame, SourceLost
from realtime.sources.returning import ReturningAudio, ReturningVideo

IMAGE = np.zeros((2, 2, 3), np.uint8)


class Plugged:
    """A camera that gives ``count`` frames and is then pulled out, or ends."""

    name, width, height, fps = "camera 0", 2, 2, 30.0

    def __init__(self, count: int, *, pulled: bool = True) -> None:
        self.closed = False
        self._count, self._pulled = count, pulled

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        for index in range(self._count):
            yield Frame(IMAGE, index, index, "read", None, index)
        if self._pulled:
            raise SourceLost("camera 0 stopped delivering")

    def close(self) -> None:
        self.closed = True


class Microphone:
    name, rate = "microphone", 48_000

    def __init__(self, overflows: int, *, pulled: bool) -> None:
        self.overflows = overflows
        self._pulled = pulled

    def condition(self) -> MicrophoneState:
        return MicrophoneState(
            state="ok", rate_hz=self.rate, overflows=self.overflows, faults={"clipped": self.overflows}
        )

    def blocks(self, stop: threading.Event) -> Iterator[AudioBlock]:
        yield AudioBlock(np.zeros(4, np.float32), 0, 4, "adc", None)
        if self._pulled:
            raise SourceLost("microphone stopped delivering")

    def close(self) -> None:
        pass


def test_a_lost_camera_is_opened_again_and_frames_go_on(caplog: pytest.LogCaptureFixture) -> None:
    first, attempts = (
        Plugged(2),
        iter([SourceError("not there"), SourceError("not there"), Plugged(3, pulled=False)]),
    )

    def reopen() -> Plugged:
        attempt = next(attempts)
        if isinstance(attempt, SourceError):
            assert camera.lost == "camera 0 stopped delivering"
            raise attempt
        return attempt

    camera = ReturningVideo(first, reopen, retry_s=0)
    assert [frame.index for frame in camera.frames(threading.Event())] == [0, 1, 2, 3, 4]
    assert first.closed and camera.lost is None and camera.returns == 1
    assert [record.message for record in caplog.records] == [
        "camera 0 stopped delivering; waiting for its return",
        "camera 0 is back",
    ]


def test_stop_and_close_end_the_wait() -> None:
    stop = threading.Event()

    def reopen() -> Plugged:
        stop.set()
        raise SourceError("not there")

    assert len(list(ReturningVideo(Plugged(1), reopen, retry_s=0).frames(stop))) == 1

    def reopen_once() -> Plugged:
        if closing.ident is None:
            closing.start()
        raise SourceError("not there")

    camera = ReturningVideo(Plugged(1), reopen_once, retry_s=0)
    closing = threading.Thread(target=camera.close)
    assert len(list(camera.frames(threading.Event()))) == 1
    closing.join(timeout=30)


def test_an_error_at_the_start_is_no_loss() -> None:
    class Broken(Plugged):
        def frames(self, stop: threading.Event) -> Iterator[Frame]:
            raise SourceError("camera 0 gives no pictures")

    with pytest.raises(SourceError, match="no pictures"):
        list(ReturningVideo(Broken(0), lambda: Plugged(1)).frames(threading.Event()))


def test_overflows_are_counted_across_returns() -> None:
    microphone = ReturningAudio(Microphone(2, pulled=True), lambda: Microphone(3, pulled=False), retry_s=0)
    assert len(list(microphone.blocks(threading.Event()))) == 2
    assert microphone.overflows == 5 == microphone.condition().overflows
    assert microphone.condition().faults == {"clipped": 5, "lost": 1}


def test_faults_are_counted_once_while_a_microphone_is_away() -> None:
    told = []

    def again() -> Microphone:
        told.append(microphone.condition().faults)
        return Microphone(3, pulled=False)

    microphone = ReturningAudio(Microphone(2, pulled=True), again, retry_s=0)
    assert len(list(microphone.blocks(threading.Event()))) == 2
    assert told == [{"clipped": 2, "lost": 1}]
    assert microphone.condition().faults == {"clipped": 5, "lost": 1}


def test_a_microphone_that_is_away_says_so() -> None:
    states = []

    def again() -> Microphone:
        states.append(microphone.condition().state)
        return Microphone(0, pulled=False)

    microphone = ReturningAudio(Microphone(0, pulled=True), again, retry_s=0)
    assert microphone.condition().state == "ok"
    assert len(list(microphone.blocks(threading.Event()))) == 2
    assert states == ["lost"] and microphone.condition().state == "ok" and microphone.returns == 1
