"""A local camera: stamped by its driver, frozen, pulled out, plugged in again, busy."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from ecmf.errors import SourceError
from realtime.sources.base import SourceLost
from realtime.sources.camera import Camera, open_camera
from realtime.sources.returning import ReturningVideo
from realtime.sources.v4l2 import (
    CameraFormat,
    CameraInfo,
)


class Driver:
    """cv2.VideoCapture on a camera that answers from a list: (brightness or None for a failed read, age in ms)."""

    def __init__(self, reads: Sequence[tuple[int | None, float]], *, opens: bool = True) -> None:
        self.wishes: dict[int, float] = {}
        self.released = False
        self._reads = iter(reads)
        self._opens = opens
        self._picture: np.ndarray | None = None
        self._exposed_ms = 0.0

    def isOpened(self) -> bool:
        return self._opens

    def set(self, wish: int, value: float) -> bool:
        self.wishes[wish] = value
        return True

    def get(self, what: int) -> float:
        return self._exposed_ms if what == cv2.CAP_PROP_POS_MSEC else self.wishes.get(what, 0.0)

    def grab(self) -> bool:
        brightness, age_ms = next(self._reads, (None, 0.0))
        size = (48, 64, 3) if brightness is None or brightness < 100 else (96, 128, 3)
        self._picture = None if brightness is None else np.full(size, brightness, np.uint8)
        self._exposed_ms = time.monotonic_ns() / 1e6 - age_ms
        return self._picture is not None

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        return self._picture is not None, self._picture

    def release(self) -> None:
        self.released = True


def opened(monkeypatch: pytest.MonkeyPatch, driver: Driver, formats: tuple[CameraFormat, ...] = ()) -> Camera:
    monkeypatch.setattr(cv2, "VideoCapture", lambda number, backend: driver)
    return Camera(CameraInfo(0, "webcam", "/dev/video0", (), formats), 640, 480, 30.0)


def test_a_local_camera_is_stamped_by_its_driver_until_it_is_pulled_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = Driver(
        [(50, 20), (51, 20), (None, 0), (52, 20), (200, 20), (None, 0), (None, 0), (None, 0), (53, 20)]
    )
    camera, frames = opened(monkeypatch, driver), []
    with pytest.raises(SourceLost, match=r"camera 0 \(webcam\) stopped delivering"):
        for frame in camera.frames(threading.Event()):
            frames.append(frame)
    assert [frame.image[0, 0, 0] for frame in frames] == [50, 51, 52, 200]
    assert {frame.clock for frame in frames} == {"exposure"}
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert (camera.width, camera.height) == (128, 96)
    camera.close()
    assert driver.released


def test_a_frozen_local_camera_gives_old_frames_and_goes_on_when_it_recovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever its driver stamps: the same picture is as old as it is."""
    driver = Driver([(50, 20), (51, 20), *[(52, 20)] * 5, (53, 20)])
    camera = ReturningVideo(opened(monkeypatch, driver), lambda: opened(monkeypatch, Driver([])), 0)
    frames = list(itertools.islice(camera.frames(threading.Event()), 8))
    assert [frame.repeated for frame in frames] == [False, False, False, True, True, True, True, False]
    assert {frame.end_ns for frame in frames[2:7]} == {frames[2].end_ns}
    assert frames[7].end_ns > frames[2].end_ns
    assert [frame.index for frame in frames] == list(range(8))


def test_a_local_camera_may_change_its_size_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = ReturningVideo(
        opened(monkeypatch, Driver([(50, 20), (150, 20), (51, 20)])),
        lambda: opened(monkeypatch, Driver([])),
        0,
    )
    sizes = []
    for frame in itertools.islice(camera.frames(threading.Event()), 3):
        condition = camera.condition()
        sizes.append(frame.image.shape[1::-1])
        assert (condition.width, condition.height) == sizes[-1] and condition.state == "ok"
    assert sizes == [(64, 48), (128, 96), (64, 48)]


def test_a_local_camera_that_is_pulled_out_and_plugged_in_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    conditions = []

    def again() -> Camera:
        conditions.append(camera.condition())
        if len(conditions) == 1:
            raise SourceError("camera 0 is not there")
        return opened(monkeypatch, Driver([(60 + n, 20) for n in range(3)]))

    camera = ReturningVideo(opened(monkeypatch, Driver([(50, 20), (51, 20)])), again, retry_s=0)
    frames = list(itertools.islice(camera.frames(threading.Event()), 5))
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [50, 51, 60, 61, 62]
    assert [each.state for each in conditions] == ["reconnecting", "reconnecting"]
    assert camera.condition().state == "ok" and camera.returns == 1 and camera.watch.faults["lost"] == 1


def test_stamps_that_jump_or_stand_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 s back, 10 s into the future, then standing: the frames have the time at which they were read."""
    driver = Driver([(50 + n, 20) for n in range(3)] + [(60, 10_000), (61, -10_000), (62, 20), (63, 3_000)])
    before_ns = time.monotonic_ns()
    frames = list(itertools.islice(opened(monkeypatch, driver).frames(threading.Event()), 7))
    stamps = [frame.end_ns for frame in frames]
    assert (
        stamps == sorted(stamps) and before_ns - 20_000_000 <= stamps[0] and stamps[-1] <= time.monotonic_ns()
    )
    assert [frame.clock for frame in frames] == ["exposure"] * 3 + ["read"] * 4


def test_a_local_camera_without_usable_stamps_is_stamped_when_read(monkeypatch: pytest.MonkeyPatch) -> None:
    before_ns = time.monotonic_ns()
    camera = opened(monkeypatch, Driver([(50, -500), (51, 5000), (52, 1e9)]))
    frames = list(itertools.islice(camera.frames(threading.Event()), 3))
    assert [frame.clock for frame in frames] == ["read"] * 3
    assert before_ns <= frames[0].start_ns <= frames[1].start_ns <= frames[2].start_ns <= time.monotonic_ns()


def test_a_local_camera_is_asked_for_the_faster_format(monkeypatch: pytest.MonkeyPatch) -> None:
    mjpg = cv2.VideoWriter.fourcc(*"MJPG")
    slow = Driver([])
    opened(monkeypatch, slow, (CameraFormat("YUYV", 640, 480, 10), CameraFormat("MJPG", 640, 480, 30)))
    assert slow.wishes[cv2.CAP_PROP_FOURCC] == mjpg
    assert (slow.wishes[cv2.CAP_PROP_FRAME_WIDTH], slow.wishes[cv2.CAP_PROP_FPS]) == (640, 30)
    fast = Driver([])
    opened(monkeypatch, fast, (CameraFormat("YUYV", 640, 480, 30), CameraFormat("MJPG", 640, 480, 30)))
    assert cv2.CAP_PROP_FOURCC not in fast.wishes


def test_a_busy_camera_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        SourceError, match=r"camera 0 \(webcam\) cannot be opened; is another program using it"
    ):
        opened(monkeypatch, Driver([], opens=False))


def test_a_local_camera_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError, match="camera 97 is not there"):
        open_camera(97)
    assert capfd.readouterr().err == ""
