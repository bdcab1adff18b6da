"""A camera: by number, by name, or by address; frames stamped by its driver where the stamps make sense."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from ecmf.errors import SourceError, need
from realtime.sources.base import Frame, SourceLost, VideoSource
from realtime.sources.network import NetworkMedia, is_address
from realtime.sources.quiet import quiet
from realtime.sources.returning import ReturningVideo
from realtime.sources.stamps import ExposureStamps
from realtime.sources.v4l2 import CameraInfo, cameras, faster_as_jpeg

FAILED_READS = 3
"""A single failed read happens; so many in a row mean that the camera is gone."""

LOST_S = 1.5
"""So does a failure that long after the last frame: a hung driver fails only once every timeout."""


def choose(wanted: str | int, found: list[CameraInfo]) -> CameraInfo:
    """The camera of that number, /dev path, or name (part of its name or of its /dev/v4l link).

    Raises SourceError when there is none, or when a part of a name fits several.
    """
    listed = ", ".join(f"{each.number} {each.name!r}" for each in found) or "none"
    text = str(wanted)
    if text.isdigit():
        fitting = [each for each in found if each.number == int(text)]
    else:
        part = text.removeprefix("/dev/").removeprefix("v4l/").casefold()
        known = {each: [each.path.removeprefix("/dev/"), each.name, *each.links] for each in found}
        fitting = [each for each in found if part in (name.casefold() for name in known[each])]
        fitting = fitting or [each for each in found if any(part in n.casefold() for n in known[each])]
    if not fitting:
        raise SourceError(f"camera {wanted} is not there; found: {listed}; see ecmf-live --list-devices")
    if len(fitting) > 1:
        fits = ", ".join(f"{each.number} {each.name!r}" for each in fitting)
        raise SourceError(f"camera {wanted!r} fits several: {fits}; give its number")
    return fitting[0]


def choose_again(lost: CameraInfo, wanted: str | int, found: list[CameraInfo]) -> CameraInfo:
    """The camera that was lost, by its lasting name where it has one: plugged in again it may get another number."""
    for each in found:
        if set(lost.links) & {link for link in each.links if link.startswith("by-id/")}:
            return each
    return choose(wanted, found)


def open_camera(
    wanted: str | int = 0, *, width: int = 640, height: int = 480, fps: float = 30.0
) -> VideoSource:
    """Open a camera by number, name or address (http, rtsp …); it comes back after it was lost.

    Size and rate are wishes; the frames have what the camera gives. An address is opened once and never probed.
    Raises SourceError when it is not there or cannot be opened.
    """
    if is_address(str(wanted)):
        video = NetworkMedia(str(wanted), audio=False).start().video
        assert video is not None
        return video
    info = choose(wanted, cameras())

    def again() -> Camera:
        return Camera(choose_again(info, wanted, cameras()), width, height, fps)

    return ReturningVideo(Camera(info, width, height, fps), again)


class Camera:
    """One opened local camera. Raises SourceLost from ``frames`` when it stops delivering."""

    def __init__(self, info: CameraInfo, width: int, height: int, fps: float) -> None:
        cv2 = need("cv2", "live")
        self.name = info.name
        self._title = f"camera {info.number}"
        self._lock = threading.Lock()
        with quiet():
            capture = cv2.VideoCapture(info.number, cv2.CAP_V4L2)
        if not capture.isOpened():
            raise SourceError(
                f"{self._title} ({info.name}) cannot be opened; is another program using it, "
                "and may you read it (group video)?"
            )
        if faster_as_jpeg(info.formats, width, height, fps):
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        capture.set(cv2.CAP_PROP_FPS, fps)
        # One is filled while the other is decoded; with only one every second frame would be missed, with more
        # old frames would queue up after a pause.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 2)
        self.width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        self.height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        self.fps = float(capture.get(cv2.CAP_PROP_FPS))
        self._capture: Any = capture

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        stamps = ExposureStamps(self._title)
        index = failed = 0
        last_s = time.monotonic()
        while not stop.is_set():
            with self._lock:
                got = self._read()
            if got is None:
                failed += 1
                if failed >= FAILED_READS or time.monotonic() - last_s > LOST_S:
                    raise SourceLost(f"{self._title} ({self.name}) stopped delivering; is it unplugged?")
                continue
            failed, last_s = 0, time.monotonic()
            image, driver_ns, read_ns = got
            stamp_ns, clock = stamps.stamp(driver_ns, read_ns)
            self.height, self.width = image.shape[:2]
            yield Frame(image, stamp_ns, stamp_ns, clock, None, index)
            index += 1

    def close(self) -> None:
        # The driver must not be closed under a read; a read ends by itself after OpenCV's own timeout.
        if self._lock.acquire(timeout=1.0):
            try:
                self._capture.release()
            finally:
                self._lock.release()

    def _read(self) -> tuple[Any, int, int] | None:
        """Picture, driver's stamp and time of reading, or None."""
        cv2 = need("cv2", "live")
        if not self._capture.grab():
            return None
        read_ns = time.monotonic_ns()
        driver_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        got, image = self._capture.retrieve()
        return (image, driver_ns, read_ns) if got and image is not None and image.size else None
